//! Whose packet is it? A tagger makes the packets of a target carry something that queues and filters can read, and the
//! backends that are made of those act on that alone.

mod sockets;

pub use super::flow::FlowError as TagError;
pub use sockets::SocketTagger;

use super::Target;
use crate::process::ProcessId;

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
    fn untag(&mut self, process: ProcessId);
}
