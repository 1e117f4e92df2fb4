//! Whose packet is it? A tagger makes the packets of a target carry something that queues and filters can read, and the
//! backends that are made of those act on that alone.

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub mod cgroup;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
mod choice;
#[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
mod packets;
mod sockets;

#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub use self::cgroup::CgroupTagger;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub(super) use self::choice::obstacle;
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub use self::choice::{Tagging, capabilities, name};
pub use super::flow::FlowError as TagError;
#[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
pub use packets::PacketTagger;
pub use sockets::SocketTagger;

use std::io;

use super::{Subject, Target, TrafficType};
use crate::{
    backends::{BackendError, Obstacle},
    process::ProcessError,
    sys::{
        capability::{self, DAC_READ_SEARCH, SYS_PTRACE},
        namespace, pidfd,
    },
};

/// The bits of our marks, which the fewest others use. A mark is ours where it has nothing in any other.
pub const MARKS: u32 = 0x7f00_0000;

/// What the packets of a target carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// `skb->priority`: the number of a class, to an HTB queue that has it.
    pub priority: Option<u32>,
    /// `skb->mark`, to filters: of [`MARKS`] alone. A socket that has another one keeps it.
    pub mark: Option<u32>,
}

/// Makes the packets of targets carry their tags.
pub trait Tagger: Send {
    /// How it does that, in a word or two.
    fn name(&self) -> &'static str;
    /// Whether what a target sends can be tagged.
    ///
    /// # Errors
    /// Why not, and what would help.
    fn check(&self, backend: &'static str, target: &Target) -> Result<(), BackendError>;
    /// Tags what a target sends from now on, by sockets that are open already and by those that it opens later. A target
    /// that has a tag gets the new one in its place.
    ///
    /// # Errors
    /// When the target has ended or is not ours to take hold of. Then nothing has changed.
    fn tag(&mut self, target: &Target, tag: Tag) -> Result<(), TagError>;
    /// Takes the tag away, and puts back what was there. No tag is no error.
    ///
    /// # Errors
    /// What could not be put back and would outlive us; everything else has been, and it is noted.
    fn untag(&mut self, subject: &Subject) -> io::Result<()>;
    /// Interfaces, addresses or routes have changed.
    fn network_has_changed(&mut self) {}
    /// Looks after tags, as a limiter does after its limits.
    ///
    /// # Errors
    /// When the kernel refuses.
    fn maintain(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}

/// Refuses what no socket's tag can say: it is for all that the socket sends, in this network namespace.
///
/// # Errors
/// Why, and what would help.
pub(super) fn can_be_held(backend: &'static str, target: &Target) -> Result<(), BackendError> {
    if target.traffic != TrafficType::All {
        let reason = "it cannot tell local traffic from that of the internet; ebpf_cgroup can";
        return Err(unenforceable(backend, target, reason));
    }
    is_here(backend, target)
}

/// Refuses who is in another network namespace: a packet loses its tag where it leaves that (`skb_scrub_packet`,
/// net/core/skbuff.c, and `____dev_forward_skb`, include/linux/netdevice.h).
///
/// # Errors
/// That, and what would help.
fn is_here(backend: &'static str, target: &Target) -> Result<(), BackendError> {
    let Some(process) = target.subject.process() else { return Ok(()) };
    if !process.is_alive() {
        return Err(ProcessError::Absent(process.pid).into());
    }
    match namespace::shares_network(process.pid) {
        Ok(true) => Ok(()),
        Ok(false) => Err(unenforceable(
            backend,
            target,
            "it is in another network namespace, which has interfaces and tables of its own; run chadthrottle there \
             (`nsenter --net=/proc/PID/ns/net`), or use ebpf_cgroup",
        )),
        Err(error) => Err(ProcessError::of_looking(process.pid, error).into()),
    }
}

fn unenforceable(backend: &'static str, target: &Target, reason: &str) -> BackendError {
    BackendError::Unenforceable { backend, subject: target.subject.clone(), reason: reason.to_owned() }
}

/// Why other processes' sockets cannot be taken hold of.
pub(super) fn why_no_sockets() -> Option<Obstacle> {
    if let Some(missing) = capability::first_missing(&[SYS_PTRACE, DAC_READ_SEARCH]) {
        return Some(Obstacle::Privilege { capability: missing.name });
    }
    (!pidfd::can_duplicate()).then(|| Obstacle::Host {
        cause: "sockets of other processes cannot be taken hold of (pidfd_getfd)".into(),
        remedy: "use Linux 5.6 or later, and no sandbox that forbids it".into(),
    })
}

/// Why a target cannot be tagged, as a backend's error.
pub(super) fn untaggable(backend: &'static str, subject: &Subject, error: TagError) -> BackendError {
    match error {
        TagError::Ended => ProcessError::Absent(subject.process().map_or(0, |process| process.pid)).into(),
        TagError::Denied(reason) => BackendError::Denied { backend, subject: subject.clone(), reason },
        TagError::Kernel(error) => {
            let step = "take hold of sockets".to_owned();
            BackendError::Kernel { backend, step, cause: error.into() }
        }
    }
}
