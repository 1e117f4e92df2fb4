//! All targets on all interfaces, and the thread that looks after them.

mod claims;

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use chadthrottle_common::ThrottleStats;
use nix::{errno::Errno, libc, sys::socket::SockProtocol};

use super::interfaces::OURS;
use crate::{
    backends::{
        BackendOptions,
        throttle::{
            Subject, Target,
            flow::{Direction, SharedFlow},
            htb::{AIM, Classes, Device, HtbError, Limited, failed, stats_of},
            journal::Journal,
            tagger::{Tag, Tagger},
        },
    },
    sys::{
        netlink::{Channel, Netlink},
        tc::{self, Handle},
    },
};

/// How often rates are made to fit how long packets are, limits are shared, and interfaces that come are taken.
const TICK: Duration = Duration::from_millis(200);
/// What we want to hear of: interfaces, addresses and routes.
const NOTICES: libc::c_int = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_ROUTE | libc::RTMGRP_IPV6_ROUTE;

/// The thread's side and ours.
pub(super) struct Engine {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    options: BackendOptions,
    flow: SharedFlow,
    netlink: Netlink,
    notices: Option<Channel>,
    /// Whether something has changed that has not been taken in yet.
    has_news: bool,
    journal: Journal,
    tagger: Box<dyn Tagger>,
    /// By number.
    devices: BTreeMap<u32, Device>,
    /// Interfaces that were told of as not to be had.
    told: Vec<u32>,
    targets: BTreeMap<Subject, Limited>,
    classes: Classes,
    /// Those that could not be taken out of somebody else's queue yet, with the number of the interface. The journal has
    /// them, too.
    left_classes: Vec<(u32, Handle)>,
    is_watched: bool,
    /// Whether a class of ours is gone from somebody's queue.
    misses_class: bool,
    /// When limits were last shared.
    shared_at: Instant,
}

impl Engine {
    pub(super) fn new(
        options: &BackendOptions,
        flow: &SharedFlow,
        tagger: Box<dyn Tagger>,
    ) -> io::Result<Arc<Self>> {
        let state = State {
            options: options.clone(),
            flow: flow.clone(),
            netlink: Netlink::open(SockProtocol::NetlinkRoute)?,
            notices: None,
            has_news: false,
            journal: Journal::new()?,
            tagger,
            devices: BTreeMap::new(),
            told: Vec::new(),
            targets: BTreeMap::new(),
            classes: Classes::of(OURS),
            left_classes: Vec::new(),
            is_watched: false,
            misses_class: false,
            shared_at: Instant::now(),
        };
        Ok(Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What brings packets to their class.
    pub(super) fn with_tagger<T>(&self, work: impl FnOnce(&mut dyn Tagger) -> T) -> T {
        work(&mut *self.lock().tagger)
    }

    /// Sets or changes a limit in IP bytes a second. Says by which interfaces it is held.
    pub(super) fn set(self: &Arc<Self>, target: &Target, limit: u64) -> Result<Vec<String>, HtbError> {
        let mut state = self.lock();
        state.set(target, limit)?;
        if !state.is_watched {
            let engine = Arc::downgrade(self);
            let spawned = thread::Builder::new().name("htb".into()).spawn(move || watch(&engine));
            spawned.map_err(|cause| HtbError::Io { step: "start its thread", cause })?;
            state.is_watched = true;
        }
        Ok(state.devices.values().map(|device| device.link.name.clone()).collect())
    }

    pub(super) fn remove(&self, subject: &Subject) -> Result<(), HtbError> {
        let result = self.lock().remove(subject);
        self.changed.notify_all();
        result
    }

    pub(super) fn remove_all(&self) -> Result<(), HtbError> {
        let mut state = self.lock();
        let all: Vec<Subject> = state.targets.keys().cloned().collect();
        let mut result = Ok(());
        for subject in all {
            result = both(result, state.remove(&subject));
        }
        self.changed.notify_all();
        result
    }

    pub(super) fn limit(&self, subject: &Subject) -> Option<u64> {
        self.lock().targets.get(subject).map(|limited| limited.limit)
    }

    /// Bytes that wait in the queues of a target, when that was last read.
    pub(super) fn queued(&self, subject: &Subject) -> u64 {
        self.lock().targets.get(subject).map_or(0, Limited::queued)
    }

    pub(super) fn stats(&self, subject: &Subject) -> Result<ThrottleStats, HtbError> {
        let mut state = self.lock();
        if state.targets.contains_key(subject) {
            state.count()?;
        }
        Ok(state.stats(subject))
    }
}

/// Looks after limits until none is left, or nobody has the engine any more.
fn watch(engine: &Weak<Engine>) {
    // What lasts is told once.
    let mut told = None;
    while let Some(engine) = engine.upgrade() {
        let mut state = engine.lock();
        if state.targets.is_empty() {
            state.is_watched = false;
            return;
        }
        let failure = state.tick().err().map(|error| error.to_string());
        if failure != told
            && let Some(error) = &failure
        {
            log::warn!("tc_htb: {error}");
        }
        told = failure;
        // Woken where a limit was removed, so that we end with the last one.
        drop(engine.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner));
    }
}

/// Of two things that have been done, what failed. Where both did, the second one is told of here.
fn both(first: Result<(), HtbError>, second: Result<(), HtbError>) -> Result<(), HtbError> {
    if let (Err(_), Err(error)) = (&first, &second) {
        log::error!("tc_htb: {error}");
    }
    first.and(second)
}

impl State {
    fn set(&mut self, target: &Target, limit: u64) -> Result<(), HtbError> {
        if let Some(limited) = self.targets.get_mut(&target.subject) {
            (limited.limit, limited.aim) = (limit, AIM);
            for (index, place) in &mut limited.places {
                let Some(device) = self.devices.get_mut(index) else { continue };
                device
                    .change(&mut self.netlink, limited.class, place, limit)
                    .map_err(|cause| failed("change the class", &device.link, cause))?;
            }
            // It may be for other traffic from here on.
            let tag = Tag { priority: Some(limited.class.0), mark: None };
            let tagged = self.tagger.tag(target, tag).map_err(HtbError::from);
            // What is not tagged is not limited, and must not be listed as if it were.
            return if tagged.is_err() { both(tagged, self.remove(&target.subject)) } else { tagged };
        }
        let result = self.add(target, limit);
        if result.is_err() {
            let noted = self.note_classes(None);
            return both(result, both(noted, self.release_if_unused()));
        }
        result
    }

    fn add(&mut self, target: &Target, limit: u64) -> Result<(), HtbError> {
        self.claim_all(true)?;
        if self.devices.is_empty() {
            let what = if self.options.interfaces.is_empty() {
                "no interface is up and has a route; --include-loopback limits loopback as well"
            } else {
                "none of the interfaces that --interface names is up"
            };
            return Err(HtbError::Obstacle(what.to_owned()));
        }
        let class = self.free_class()?;
        self.note_classes(Some(class))?;
        let mut limited = Limited::new(target, Direction::Upload, class, limit);
        let tag = Tag { priority: Some(class.0), mark: None };
        let made = limited.settle(&mut self.devices, &mut self.netlink);
        if let Err(error) = made.and_then(|()| Ok(self.tagger.tag(target, tag)?)) {
            let left = self.leave(&mut limited);
            return both(Err(error), left);
        }
        self.targets.insert(target.subject.clone(), limited);
        Ok(())
    }

    fn remove(&mut self, subject: &Subject) -> Result<(), HtbError> {
        let Some(mut limited) = self.targets.remove(subject) else { return Ok(()) };
        let untagged = self.tagger.untag(subject);
        let untagged =
            untagged.map_err(|cause| HtbError::Io { step: "put back what packets were known by", cause });
        let left = both(untagged, self.leave(&mut limited));
        let forgotten = self.note_classes(None);
        both(both(left, forgotten), self.release_if_unused())
    }

    /// What is to be done every now and then.
    fn tick(&mut self) -> Result<(), HtbError> {
        self.journal.watch();
        self.has_news |= self.hears_news() || std::mem::take(&mut self.misses_class);
        let taken_in = if self.has_news { self.take_in_news() } else { Ok(()) };
        // Limits that are there are looked after all the same.
        taken_in.and(self.look_after()).and(self.remove_left_classes())
    }

    /// Gives interfaces that have come their classes, and forgets those that are gone.
    fn take_in_news(&mut self) -> Result<(), HtbError> {
        self.tagger.network_has_changed();
        self.forget_gone()?;
        self.claim_all(false)?;
        for limited in self.targets.values_mut() {
            limited.settle(&mut self.devices, &mut self.netlink)?;
        }
        // What failed before is tried again with the next tick.
        self.has_news = false;
        Ok(())
    }

    /// Counts what has passed, and shares limits between interfaces by it.
    fn look_after(&mut self) -> Result<(), HtbError> {
        self.count()?;
        let elapsed = self.shared_at.elapsed();
        // Sooner where a limit was removed meanwhile.
        if elapsed >= TICK / 2 {
            self.shared_at = Instant::now();
            for limited in self.targets.values_mut() {
                limited.steer(&mut self.devices, &mut self.netlink, &self.flow, elapsed)?;
            }
        }
        Ok(())
    }

    /// Whether interfaces or routes have changed.
    fn hears_news(&mut self) -> bool {
        let Some(notices) = &mut self.notices else { return false };
        let mut news = false;
        loop {
            match notices.receive() {
                Ok(None) => return news,
                // More than fit: all the more reason to look.
                Ok(Some(_)) | Err(Errno::ENOBUFS) => news = true,
                Err(error) => {
                    log::warn!("tc_htb: new interfaces are not seen any more: {error}");
                    self.notices = None;
                    return true;
                }
            }
        }
    }

    /// Takes in what all classes have counted.
    fn count(&mut self) -> Result<(), HtbError> {
        for (index, device) in &self.devices {
            let classes = match tc::classes(&mut self.netlink, *index) {
                Err(refusal) if refusal.errno == Errno::ENODEV => continue,
                classes => classes.map_err(|cause| failed("list the classes", &device.link, cause))?,
            };
            for limited in self.targets.values_mut() {
                let Some(place) = limited.places.get_mut(index) else { continue };
                let Some(stats) = stats_of(&classes, limited.class) else {
                    // Gone with the interface, of which there is a notice; or else with somebody's queue.
                    if device.is_shared {
                        limited.lose(*index, Some(device));
                        self.misses_class = true;
                    }
                    continue;
                };
                device
                    .count(&mut self.netlink, limited.class, place, stats)
                    .map_err(|cause| failed("change the class", &device.link, cause))?;
            }
        }
        Ok(())
    }

    fn stats(&self, subject: &Subject) -> ThrottleStats {
        self.targets.get(subject).map(|limited| limited.stats(&self.devices)).unwrap_or_default()
    }
}

impl Drop for State {
    /// Whatever ends us, short of SIGKILL, every interface is as it was.
    fn drop(&mut self) {
        let all: Vec<Subject> = self.targets.keys().cloned().collect();
        for subject in all {
            if let Err(error) = self.remove(&subject) {
                log::error!("tc_htb: {error}");
            }
        }
    }
}
