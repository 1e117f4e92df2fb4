//! The IFB, noted before it is made, since it outlives a SIGKILL. Nobody sends packets to it then, where the program at the
//! entrance has gone.

use std::io;

use super::{
    super::{
        carrying::IFB_PREFIX,
        htb::drain,
        notes::{self, Left, Noted},
    },
    queue::{ROOT, UNSIGNED},
};
use crate::{
    process::ProcessId,
    sys::{
        links,
        netlink::{Netlink, Refusal},
        tc::{self, Handle},
    },
};

const KIND: &str = notes::IFB;

/// Notes that an IFB of this name is about to be made.
pub(super) fn note(name: &str) -> io::Result<Noted> {
    Noted::new(KIND, &name)
}

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover(Left<String>);

/// What killed programs left in this network namespace.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    Ok(ours(notes::left(KIND)?))
}

/// What a process that has just ended left in this network namespace.
pub(in crate::backends::throttle) fn of(process: ProcessId) -> io::Result<Vec<Leftover>> {
    Ok(ours(notes::of(KIND, |maker| maker == process)?))
}

/// Whatever a note says, nothing else than an interface with a name of ours is removed.
fn ours(left: Vec<Left<String>>) -> Vec<Leftover> {
    left.into_iter().filter(|left| left.what.starts_with(IFB_PREFIX)).map(Leftover).collect()
}

impl Leftover {
    /// What it is.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("the interface {} with its queue, left by process {}", self.0.what, self.0.maker)
    }

    /// Removes it. What is not there any more, or something else of that name, is left alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let mut netlink = links::open()?;
        let mut there = links::all(&mut netlink)?.into_iter();
        if let Some(link) = there.find(|link| link.name == self.0.what && link.kind == "ifb") {
            // Whatever comes of that, it goes.
            let _ = let_go(&mut netlink, link.index);
            links::delete(&mut netlink, link.index).map_err(io::Error::other)?;
        }
        self.0.forget()
    }
}

/// Lets what waits in the queue of an interface go on its way. Nothing new comes: the program that sent it there is gone.
fn let_go(netlink: &mut Netlink, index: u32) -> Result<(), Refusal> {
    let all = tc::classes(netlink, index)?.into_iter().map(|class| class.handle);
    let ours: Vec<Handle> = all.filter(|class| class.major() == ROOT.major()).collect();
    drain(netlink, index, &ours, UNSIGNED)
}
