//! The program at the entrance of interfaces as a filter, for kernels without links to it (before Linux 6.6).
//!
//! A filter outlives us when we are killed, with the limit. It is noted before it is made.

use std::{collections::BTreeMap, io, os::fd::BorrowedFd};

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

const KIND: &str = notes::ENTRANCE;
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

/// Our filters.
#[derive(Debug, Default)]
pub(super) struct Filters {
    places: BTreeMap<u32, Place>,
    noted: Option<Noted>,
}

impl Filters {
    /// Has the program see what arrives by these interfaces, and by no others.
    pub(super) fn cover(
        &mut self,
        netlink: &mut Netlink,
        interfaces: &[Link],
        program: BorrowedFd<'_>,
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
            match self.add(netlink, link, program) {
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

    fn add(&mut self, netlink: &mut Netlink, link: &Link, program: BorrowedFd<'_>) -> Result<(), Refusal> {
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
        clsact::add_filter(netlink, link.index, &ours(std::process::id()), program)
    }

    fn remove(&mut self, netlink: &mut Netlink, index: u32) -> io::Result<()> {
        if let Some(place) = self.places.get(&index) {
            place.restore(netlink, std::process::id()).map_err(io::Error::other)?;
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
            None => self.noted = Some(Noted::new(KIND, &places)?),
        }
        Ok(())
    }
}

/// The filter of the process with this pid.
fn ours(pid: u32) -> Filter {
    Filter { priority: PRIORITY, handle: pid, program: Some(NAME.to_owned()) }
}

impl Place {
    /// Makes an entrance as it was before the process with this pid came.
    fn restore(&self, netlink: &mut Netlink, pid: u32) -> Result<(), Refusal> {
        clsact::delete_filter(netlink, self.index, &ours(pid))?;
        if self.made_queue { clsact::delete_empty_clsact(netlink, self.index) } else { Ok(()) }
    }
}

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover(Left<Vec<Place>>);

/// What killed programs left in this network namespace.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    Ok(notes::left(KIND)?.into_iter().map(Leftover).collect())
}

/// What a process that has just ended left in this network namespace.
pub(super) fn of(process: ProcessId) -> io::Result<Vec<Leftover>> {
    Ok(notes::of(KIND, |maker| maker == process)?.into_iter().map(Leftover).collect())
}

impl Leftover {
    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let line = |place: &Place| {
            format!("the filter at the entrance of {}, left by process {}", place.name, self.0.pid)
        };
        self.0.what.iter().map(line).collect()
    }

    /// Removes it. What is not there any more is left alone, and so are queues that somebody else uses by now.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let mut netlink = links::open()?;
        for place in &self.0.what {
            place.restore(&mut netlink, self.0.pid.cast_unsigned()).map_err(io::Error::other)?;
        }
        self.0.forget()
    }
}
