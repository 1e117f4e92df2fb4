//! Filters at the entrance of interfaces: the program, for kernels without links to it (before Linux 6.6), and those that
//! know packets by the marks of their connections.
//!
//! A filter outlives us when we are killed, with the limit. It is noted before it is made.

#[cfg(feature = "ebpf")]
use std::os::fd::BorrowedFd;
use std::{collections::BTreeMap, io};

use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use super::notes::{self, Left, Noted};
use crate::{
    process::ProcessId,
    sys::{
        links::{self, Link},
        netlink::{Netlink, Refusal},
        tc::clsact::{self, Filter},
    },
};

/// What kind of filters.
#[derive(Debug)]
pub(super) struct Kind {
    /// What its notes are called.
    pub(super) note: &'static str,
    /// Takes what a process has put at the entrance of an interface away from there.
    pub(super) delete: fn(&mut Netlink, u32, ProcessId) -> Result<(), Refusal>,
}

/// The program.
pub(super) const PROGRAM: Kind = Kind {
    note: notes::ENTRANCE,
    delete: |netlink, index, process| clsact::delete_filter(netlink, index, &ours(process.pid)),
};
/// All of them.
const KINDS: &[&Kind] = &[
    &PROGRAM,
    #[cfg(feature = "throttle-ifb-tc")]
    &super::ifb_tc::FILTERS,
];

/// The place of our filters among others, and what they are called.
const PRIORITY: u16 = 0x7caf;
const NAME: &str = "chadthrottle";

/// An interface that has, or is about to have, a filter of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Place {
    index: u32,
    name: String,
    /// Whether the queue that the filter is in had to be made.
    made_queue: bool,
}

/// Our filters of one kind.
#[derive(Debug)]
pub(super) struct Filters {
    kind: &'static Kind,
    places: BTreeMap<u32, Place>,
    noted: Option<Noted>,
}

/// Puts them at the entrance of an interface.
pub(super) type Add<'a> = dyn Fn(&mut Netlink, u32) -> Result<(), Refusal> + 'a;

impl Filters {
    /// None yet.
    pub(super) const fn of(kind: &'static Kind) -> Self {
        Self { kind, places: BTreeMap::new(), noted: None }
    }

    /// The interfaces that have them.
    #[cfg(feature = "throttle-ifb-tc")]
    pub(super) fn interfaces(&self) -> Vec<(u32, String)> {
        self.places.values().map(|place| (place.index, place.name.clone())).collect()
    }

    /// Has them see what arrives by these interfaces, and by no others.
    pub(super) fn cover(
        &mut self,
        netlink: &mut Netlink,
        interfaces: &[Link],
        add: &Add<'_>,
    ) -> io::Result<()> {
        let is_left = |index: &u32| interfaces.iter().any(|link| link.index == *index);
        let gone: Vec<u32> = self.places.keys().copied().filter(|index| !is_left(index)).collect();
        for index in gone {
            self.remove(netlink, index)?;
        }
        for link in interfaces {
            if self.places.contains_key(&link.index) {
                continue;
            }
            match self.add(netlink, link, add) {
                // Gone since it was listed.
                Err(refusal) if refusal.errno == Errno::ENODEV => self.remove(netlink, link.index)?,
                Err(refusal) => {
                    self.remove(netlink, link.index)?;
                    return Err(io::Error::other(format!("{}: {refusal}", link.name)));
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }

    fn add(&mut self, netlink: &mut Netlink, link: &Link, add: &Add<'_>) -> Result<(), Refusal> {
        // Noted as ours until it is known whether it is: only an empty one is ever taken away.
        let place = Place { index: link.index, name: link.name.clone(), made_queue: true };
        self.places.insert(link.index, place);
        self.note()?;
        if !clsact::add_clsact(netlink, link.index)? {
            if let Some(place) = self.places.get_mut(&link.index) {
                place.made_queue = false;
            }
            self.note()?;
        }
        add(netlink, link.index)
    }

    fn remove(&mut self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        if let Some(place) = self.places.get(&index) {
            place.restore(netlink, self.kind, us()?).map_err(io::Error::other)?;
            self.places.remove(&index);
            self.note()?;
        }
        Ok(())
    }

    /// Takes all of them away.
    pub(super) fn leave(&mut self, netlink: &mut Netlink) -> io::Result<()> {
        let mut result = Ok(());
        for index in self.places.keys().copied().collect::<Vec<_>>() {
            result = result.and(self.remove(netlink, index));
        }
        result
    }

    fn note(&mut self) -> io::Result<()> {
        if self.places.is_empty() {
            self.noted = None;
            return Ok(());
        }
        let places: Vec<&Place> = self.places.values().collect();
        match &self.noted {
            Some(noted) => noted.write(&places)?,
            None => self.noted = Some(Noted::new(self.kind.note, &places)?),
        }
        Ok(())
    }
}

/// This process.
pub(super) fn us() -> io::Result<ProcessId> {
    ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)
}

/// Has the program see what arrives by an interface.
#[cfg(feature = "ebpf")]
pub(super) fn add_program(netlink: &mut Netlink, index: u32, program: BorrowedFd<'_>) -> Result<(), Refusal> {
    clsact::add_filter(netlink, index, &ours(std::process::id().cast_signed()), program)
}

/// The filter of the process with this pid.
fn ours(pid: i32) -> Filter {
    Filter { priority: PRIORITY, handle: pid.cast_unsigned(), program: Some(NAME.to_owned()) }
}

impl Place {
    /// Makes an entrance as it was before this process came.
    fn restore(&self, netlink: &mut Netlink, kind: &Kind, process: ProcessId) -> Result<(), Refusal> {
        (kind.delete)(netlink, self.index, process)?;
        if self.made_queue { clsact::delete_empty_clsact(netlink, self.index) } else { Ok(()) }
    }
}

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover {
    kind: &'static Kind,
    left: Left<Vec<Place>>,
}

/// What killed programs left in this network namespace.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    all(notes::left)
}

/// What a process that has just ended left in this network namespace.
pub(super) fn of(process: ProcessId) -> io::Result<Vec<Leftover>> {
    all(|kind| notes::of(kind, |maker| maker == process))
}

fn all(find: impl Fn(&str) -> io::Result<Vec<Left<Vec<Place>>>>) -> io::Result<Vec<Leftover>> {
    let mut found = Vec::new();
    for kind in KINDS {
        found.extend(find(kind.note)?.into_iter().map(|left| Leftover { kind, left }));
    }
    Ok(found)
}

impl Leftover {
    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let line = |place: &Place| {
            format!("the filter at the entrance of {}, left by process {}", place.name, self.left.maker.pid)
        };
        self.left.what.iter().map(line).collect()
    }

    /// Removes it. What is not there any more is left alone, and so are queues that somebody else uses by now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let mut netlink = links::open()?;
        for place in &self.left.what {
            place.restore(&mut netlink, self.kind, self.left.maker).map_err(io::Error::other)?;
        }
        self.left.forget()
    }
}
