//! Whose packet is it? A tagger makes the packets of a target carry something that queues and filters can read, and the
//! backends that are made of those act on that alone.

pub mod cgroup;
#[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
mod packets;
mod sockets;

pub use self::cgroup::CgroupTagger;
pub use super::flow::FlowError as TagError;
#[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
pub use packets::PacketTagger;
pub use sockets::SocketTagger;

use std::io;

use super::{Subject, Target, TrafficType};
#[cfg(feature = "ebpf")]
use crate::backends::Availability;
use crate::{
    backends::{BackendCapabilities, BackendError, BackendOptions, Obstacle, TaggerChoice},
    process::ProcessError,
    sys::{
        capability::{self, DAC_READ_SEARCH, SYS_PTRACE},
        namespace, pidfd,
    },
};

/// What the packets of a target carry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tag {
    /// `skb->priority`: the number of a class, to an HTB queue that has it.
    pub priority: Option<u32>,
    /// `skb->mark`, to filters.
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

/// Makes the best tagger that works here: packets carry tags where the programs can be loaded, else sockets do; where
/// those cannot be taken hold of, membership says whose a packet is.
#[derive(Clone)]
pub struct Tagging {
    options: BackendOptions,
    /// Where what the programs say is heard by the backend.
    #[cfg(feature = "ebpf")]
    engine: Option<crate::backends::ebpf::SharedEngine>,
}

impl Tagging {
    /// For a backend that reads priorities where packets leave: by the programs that all eBPF backends share, or as below.
    #[cfg(feature = "throttle-tc-htb")]
    #[must_use]
    pub fn new(
        options: &BackendOptions,
        #[cfg(feature = "ebpf")] engine: &crate::backends::ebpf::SharedEngine,
    ) -> Self {
        Self {
            options: options.clone(),
            #[cfg(feature = "ebpf")]
            engine: Some(engine.clone()),
        }
    }

    /// For one that reads them before the programs see packets.
    #[must_use]
    pub fn before_programs(options: &BackendOptions) -> Self {
        Self {
            options: options.clone(),
            #[cfg(feature = "ebpf")]
            engine: None,
        }
    }

    /// Makes one for a backend. Where it is not the best one, the log says why.
    ///
    /// # Errors
    /// When none works, or not the one that was asked for.
    pub fn make(&self, backend: &'static str) -> anyhow::Result<Box<dyn Tagger>> {
        match choose(&self.options, self.hears_programs()) {
            #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
            TaggerChoice::Ebpf if let Some(engine) = &self.engine => {
                match PacketTagger::load(backend, &self.options, engine) {
                    Ok(tagger) => return Ok(Box::new(tagger)),
                    Err(error) if self.options.tagger == TaggerChoice::Ebpf => return Err(error.into()),
                    Err(error) => log::info!("{backend} does not tag packets: {error}"),
                }
            }
            TaggerChoice::Cgroup => return membership(backend, self.options.tagger),
            _ => {}
        }
        match why_no_sockets() {
            Some(_) if self.options.tagger == TaggerChoice::Auto => membership(backend, TaggerChoice::Auto),
            _ => Ok(Box::<SocketTagger>::default()),
        }
    }

    fn hears_programs(&self) -> bool {
        #[cfg(feature = "ebpf")]
        return self.engine.is_some();
        #[cfg(not(feature = "ebpf"))]
        false
    }
}

/// The name of the tagger that a backend would have, which reads priorities where packets leave, or before. Loads nothing.
#[must_use]
pub fn name(options: &BackendOptions, hears_programs: bool) -> &'static str {
    match choose(options, hears_programs) {
        #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
        TaggerChoice::Ebpf => PacketTagger::NAME,
        TaggerChoice::Cgroup => CgroupTagger::here().unwrap_or("cgroup membership"),
        _ => SocketTagger::NAME,
    }
}

/// What a backend covers, with that tagger.
#[must_use]
pub fn capabilities(all: BackendCapabilities, tagger: &str) -> BackendCapabilities {
    match CgroupTagger::covers_open(tagger) {
        Some(open_connections) => BackendCapabilities { open_connections, moves_process: true, ..all },
        None => all,
    }
}

/// Why the tagger that would be used cannot work. Changes nothing.
pub(super) fn obstacle(options: &BackendOptions, hears_programs: bool) -> Option<Obstacle> {
    let host =
        |cause: &str, remedy: &str| Obstacle::Host { cause: cause.to_owned(), remedy: remedy.to_owned() };
    match choose(options, hears_programs) {
        TaggerChoice::Ebpf if !hears_programs => Some(host(
            "programs in the kernel tag packets after it has seen them",
            "choose --tagger sockets or cgroup",
        )),
        #[cfg(feature = "ebpf")]
        TaggerChoice::Ebpf => match crate::backends::ebpf::probe(options) {
            Availability::Available => None,
            Availability::Unavailable(obstacle) => Some(obstacle),
        },
        #[cfg(not(feature = "ebpf"))]
        TaggerChoice::Ebpf => Some(host("this program was built without eBPF", "choose another --tagger")),
        // Its note and its cgroups are root's alone.
        TaggerChoice::Cgroup if CgroupTagger::here().is_some() => {
            let denied = super::only_for_root("its cgroup", "--tagger sockets")?;
            // Whom nobody has asked to move processes is told what sockets take instead.
            if options.tagger == TaggerChoice::Auto { why_no_sockets() } else { Some(denied) }
        }
        // Whoever may take hold of sockets needs none of that.
        TaggerChoice::Cgroup if options.tagger == TaggerChoice::Auto => why_no_sockets(),
        TaggerChoice::Cgroup => Some(host(
            "neither cgroup v2 nor net_cls is mounted as a whole",
            "mount one, or choose another --tagger",
        )),
        _ => why_no_sockets(),
    }
}

/// Which tagger: the one that was asked for, or the best that works here, as far as can be told without loading anything.
fn choose(options: &BackendOptions, hears_programs: bool) -> TaggerChoice {
    match options.tagger {
        TaggerChoice::Auto if hears_programs && has_programs(options) => TaggerChoice::Ebpf,
        TaggerChoice::Auto if why_no_sockets().is_none() => TaggerChoice::Sockets,
        TaggerChoice::Auto => TaggerChoice::Cgroup,
        asked => asked,
    }
}

/// Whether packets can carry tags.
fn has_programs(options: &BackendOptions) -> bool {
    #[cfg(all(feature = "ebpf", feature = "throttle-tc-htb"))]
    return crate::backends::ebpf::probe(options) == Availability::Available;
    #[cfg(not(all(feature = "ebpf", feature = "throttle-tc-htb")))]
    {
        let _ = options;
        false
    }
}

/// Why other processes' sockets cannot be taken hold of.
fn why_no_sockets() -> Option<Obstacle> {
    if let Some(missing) = capability::first_missing(&[SYS_PTRACE, DAC_READ_SEARCH]) {
        return Some(Obstacle::Privilege { capability: missing.name });
    }
    (!pidfd::can_duplicate()).then(|| Obstacle::Host {
        cause: "sockets of other processes cannot be taken hold of (pidfd_getfd)".into(),
        remedy: "use Linux 5.6 or later, and no sandbox that forbids it".into(),
    })
}

/// The last resort. Where nobody has asked for it, that is told.
fn membership(backend: &'static str, asked: TaggerChoice) -> anyhow::Result<Box<dyn Tagger>> {
    for leftover in cgroup::leftovers()? {
        for line in leftover.describe() {
            log::info!("removing {line}");
        }
        leftover.remove()?;
    }
    let tagger = CgroupTagger::new()?;
    if asked == TaggerChoice::Auto {
        let missing = why_no_sockets().map(|obstacle| obstacle.to_string()).unwrap_or_default();
        log::warn!("{backend} knows packets by {}: {missing}", tagger.name());
    }
    Ok(Box::new(tagger))
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
