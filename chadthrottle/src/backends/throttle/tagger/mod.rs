//! Whose packet is it? A tagger makes the packets of a target carry something that queues and filters can read, and the
//! backends that are made of those act on that alone.

mod sockets;

pub use super::flow::FlowError as TagError;
pub use sockets::SocketTagger;

use super::{Subject, Target, TrafficType};
use crate::{backends::BackendError, process::ProcessError, sys::namespace};

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
    /// Tags what a target sends from now on, by sockets that are open already and by those that it opens later. A target
    /// that has a tag gets the new one in its place.
    ///
    /// # Errors
    /// When the target has ended or is not ours to take hold of. Then nothing has changed.
    fn tag(&mut self, target: &Target, tag: Tag) -> Result<(), TagError>;
    /// Takes the tag away, and puts back what was there. No tag is no error.
    fn untag(&mut self, subject: &Subject);
}

/// Refuses what no tag can say: a tag is for all that a socket sends, in this network namespace.
///
/// # Errors
/// Why, and what would help.
pub(super) fn can_be_held(backend: &'static str, target: &Target) -> Result<(), BackendError> {
    let refuse = |reason: &str| {
        let subject = target.subject.clone();
        Err(BackendError::Unenforceable { backend, subject, reason: reason.to_owned() })
    };
    if target.traffic != TrafficType::All {
        return refuse("it cannot tell local traffic from that of the internet; ebpf_cgroup can");
    }
    let Some(process) = target.subject.process() else { return Ok(()) };
    if !process.is_alive() {
        return Err(ProcessError::Absent(process.pid).into());
    }
    match namespace::shares_network(process.pid) {
        Ok(true) => Ok(()),
        Ok(false) => refuse(
            "it is in another network namespace, which has interfaces and tables of its own; run chadthrottle there \
             (`nsenter --net=/proc/PID/ns/net`), or use ebpf_cgroup",
        ),
        Err(_) => Err(ProcessError::Absent(process.pid).into()),
    }
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
