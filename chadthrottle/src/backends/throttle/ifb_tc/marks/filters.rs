//! The filters at the entrance of each interface, by which what arrives finds its way to the IFB: one that takes the marks of
//! connections to packets that have none, one for each target, and one that takes off what none of those has sent.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use nix::errno::Errno;

use super::{super::NAME, table::SLOTS, unmark};
use crate::{
    backends::{
        BackendError,
        throttle::{
            entrances::Sentry,
            filters::{self, Kind},
            notes,
            tagger::MARKS,
        },
    },
    process::ProcessId,
    sys::{
        links::Link,
        netlink::{Netlink, Refusal},
        tc::marks::{self, Cookie, Filter},
    },
};

/// Their places among the filters of others: behind that of a program of ours, before what has no number of its own. Each of
/// us has its own, by the first [slot](super::table) that it has: first what gives packets marks by all of us, last what
/// takes them off.
const COPY: u16 = 0x7cb0;
const REDIRECT: u16 = COPY + SLOTS;
const TAKE_OFF: u16 = REDIRECT + SLOTS;

/// How they are noted and taken away.
pub(in crate::backends::throttle) const FILTERS: Kind = Kind { note: notes::MARKS, delete };

/// Ours, at all entrances.
pub(super) struct Filters {
    placed: filters::Filters,
    slot: u16,
    cookie: Cookie,
    /// By mark.
    redirects: BTreeMap<u32, Filter>,
    /// How often the IFB was made, and how often when we last looked: a redirection drops what it gets where the one that it
    /// was made for is gone (`tcf_mirred_act`), also when there is another one of that number.
    made: Arc<AtomicU64>,
    seen: u64,
}

impl Filters {
    pub(super) fn new(slot: u16, made: Arc<AtomicU64>) -> io::Result<Self> {
        Ok(Self {
            slot,
            placed: filters::Filters::of(&FILTERS),
            cookie: cookie(filters::us()?),
            redirects: BTreeMap::new(),
            seen: made.load(Ordering::Acquire),
            made,
        })
    }

    /// Sends what has a mark.
    pub(super) fn set(&mut self, netlink: &mut Netlink, mark: u32, redirect: Filter) -> Result<(), Refusal> {
        self.redirects.insert(mark, redirect);
        for (index, _) in self.placed.interfaces() {
            match marks::add(netlink, index, REDIRECT + self.slot, redirect, &self.cookie) {
                // The interface is gone, of which there is a notice.
                Err(refusal) if refusal.errno != Errno::ENODEV => {
                    // What cannot be taken away now goes with the rest.
                    let _ = self.remove(netlink, mark);
                    return Err(refusal);
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Sends it no more.
    pub(super) fn remove(&mut self, netlink: &mut Netlink, mark: u32) -> Result<(), Refusal> {
        self.redirects.remove(&mark);
        let mut result = Ok(());
        for (index, _) in self.placed.interfaces() {
            result = result.and(marks::delete(netlink, index, REDIRECT + self.slot, mark));
        }
        result
    }

    /// Makes redirections anew where the IFB was.
    fn renew(&mut self, netlink: &mut Netlink) -> Result<(), Refusal> {
        let made = self.made.load(Ordering::Acquire);
        if made == self.seen {
            return Ok(());
        }
        for (index, _) in self.placed.interfaces() {
            for (mark, redirect) in &self.redirects {
                marks::delete(netlink, index, REDIRECT + self.slot, *mark)?;
                marks::add(netlink, index, REDIRECT + self.slot, *redirect, &self.cookie)?;
            }
        }
        self.seen = made;
        Ok(())
    }
}

impl Sentry for Filters {
    fn cover(&mut self, netlink: &mut Netlink, interfaces: &[Link]) -> Result<(), BackendError> {
        let renewed = self.renew(netlink).map_err(|refusal| failed("set filters again", refusal));
        let (slot, cookie, redirects) = (self.slot, &self.cookie, &self.redirects);
        let add = |netlink: &mut Netlink, index: u32| put(netlink, index, slot, redirects.values(), cookie);
        let covered = self.placed.cover(netlink, interfaces, &add);
        BackendError::all_of([renewed, covered.map_err(|error| failed("set filters", error))])
    }

    fn leave(&mut self, netlink: &mut Netlink) -> Result<(), BackendError> {
        self.placed.leave(netlink).map_err(|error| failed("remove filters", error))
    }
}

fn failed(step: &str, error: impl Into<anyhow::Error>) -> BackendError {
    BackendError::Kernel { backend: NAME, step: step.to_owned(), cause: error.into() }
}

/// Puts them at the entrance of an interface: last what gives packets marks.
pub(super) fn put<'a>(
    netlink: &mut Netlink,
    index: u32,
    slot: u16,
    redirects: impl IntoIterator<Item = &'a Filter>,
    cookie: &Cookie,
) -> Result<(), Refusal> {
    let places = [COPY, REDIRECT, TAKE_OFF].map(|place| place + slot);
    let mut there = marks::list(netlink, index)?.into_iter();
    if let Some(other) = there.find(|found| places.contains(&found.priority)) {
        let words = format!("somebody else has a filter there, preference {}", other.priority);
        return Err(Refusal { errno: Errno::EEXIST, words: Some(words) });
    }
    let [copy, redirected, take_off] = places;
    marks::add(netlink, index, take_off, Filter::TakeOff { mask: MARKS }, cookie)?;
    for redirect in redirects {
        marks::add(netlink, index, redirected, *redirect, cookie)?;
    }
    marks::add(netlink, index, copy, Filter::Copy { mask: MARKS }, cookie)
}

/// Takes what this process has put at an entrance away, and what others have put between it stays.
fn delete(netlink: &mut Netlink, index: u32, process: ProcessId) -> Result<(), Refusal> {
    let ours = Some(cookie(process));
    let found = marks::list(netlink, index)?;
    let is_ours = |found: &&marks::Found| found.cookie == ours;
    // In the order in which they go: what carries no mark is sent nowhere.
    let places: BTreeSet<u16> = found.iter().filter(is_ours).map(|found| found.priority).collect();
    for place in places {
        let (ours, others): (Vec<_>, Vec<_>) =
            found.iter().filter(|found| found.priority == place).partition(is_ours);
        if others.is_empty() {
            // With the table that filters of this kind have, which is left otherwise.
            marks::delete_all(netlink, index, place)?;
        } else {
            for filter in ours {
                marks::delete(netlink, index, place, filter.handle)?;
            }
        }
    }
    for mark in found.iter().filter(is_ours).filter_map(redirected) {
        // Of one that was killed: in the end we have none left.
        unmark::sockets(mark);
        unmark::connections(mark);
    }
    Ok(())
}

/// The mark of what is sent, where it is a filter that sends.
fn redirected(found: &marks::Found) -> Option<u32> {
    (REDIRECT..TAKE_OFF).contains(&found.priority).then_some(found.handle)
}

/// What tells the filters of a process from all others.
fn cookie(process: ProcessId) -> Cookie {
    let mut cookie = *b"chad\0\0\0\0\0\0\0\0\0\0\0\0";
    cookie[4..8].copy_from_slice(&process.pid.to_be_bytes());
    cookie[8..].copy_from_slice(&process.start_time.to_be_bytes());
    cookie
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_of_each_process_are_told_apart() {
        let of = |pid, start_time| cookie(ProcessId { pid, start_time });
        assert_eq!(of(0x0102, 3), *b"chad\0\0\x01\x02\0\0\0\0\0\0\0\x03");
        assert!(of(1, 2) != of(1, 3) && of(1, 2) != of(2, 2));
    }
}
