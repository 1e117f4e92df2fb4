//! All targets on all interfaces, and the thread that looks after them.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
    thread,
    time::{Duration, Instant},
};

use chadthrottle_common::ThrottleStats;
use nix::{
    errno::Errno,
    libc,
    sys::socket::{SockFlag, SockProtocol},
};

use super::interfaces::{OURS, Root, root_of, why_not};
use crate::{
    backends::{
        BackendOptions,
        throttle::{
            Subject, Target,
            carrying::carrying,
            flow::{Direction, SharedFlow},
            htb::{AIM, Classes, Device, HtbError, Limited, failed, stats_of},
            journal::{Entry, Journal, restore},
            tagger::{SocketTagger, Tag, Tagger},
        },
    },
    sys::{
        links::{self, Link},
        netlink::{Channel, Netlink},
        tc,
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
    journal: Journal,
    tagger: SocketTagger,
    /// By number.
    devices: BTreeMap<u32, Device>,
    /// Interfaces that were told of as not to be had.
    told: Vec<u32>,
    targets: BTreeMap<Subject, Limited>,
    classes: Classes,
    is_watched: bool,
    /// When limits were last shared.
    shared_at: Instant,
}

impl Engine {
    pub(super) fn new(options: &BackendOptions, flow: &SharedFlow) -> io::Result<Arc<Self>> {
        let state = State {
            options: options.clone(),
            flow: flow.clone(),
            netlink: Netlink::open(SockProtocol::NetlinkRoute)?,
            notices: None,
            journal: Journal::new()?,
            tagger: SocketTagger::default(),
            devices: BTreeMap::new(),
            told: Vec::new(),
            targets: BTreeMap::new(),
            classes: Classes::of(OURS),
            is_watched: false,
            shared_at: Instant::now(),
        };
        Ok(Arc::new(Self { state: Mutex::new(state), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
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
    while let Some(engine) = engine.upgrade() {
        let mut state = engine.lock();
        if state.targets.is_empty() {
            state.is_watched = false;
            return;
        }
        if let Err(error) = state.tick() {
            log::warn!("tc_htb: {error}");
        }
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
            return Ok(());
        }
        let result = self.add(target, limit);
        if result.is_err() {
            self.release_if_unused()?;
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
        let is_taken = |class| self.targets.values().any(|limited| limited.class == class);
        let class = self.classes.free(is_taken)?;
        let mut limited = Limited::new(target, Direction::Upload, class, limit);
        let tag = Tag { priority: Some(class.0), mark: None };
        let made = limited.settle(&mut self.devices, &mut self.netlink);
        if let Err(error) = made.and_then(|()| Ok(self.tagger.tag(target, tag)?)) {
            limited.leave(&self.devices, &mut self.netlink)?;
            return Err(error);
        }
        self.targets.insert(target.subject.clone(), limited);
        Ok(())
    }

    fn remove(&mut self, subject: &Subject) -> Result<(), HtbError> {
        let Some(mut limited) = self.targets.remove(subject) else { return Ok(()) };
        self.tagger.untag(subject);
        let left = limited.leave(&self.devices, &mut self.netlink);
        both(left, self.release_if_unused())
    }

    /// Gives every interface back where there is no limit.
    fn release_if_unused(&mut self) -> Result<(), HtbError> {
        let mut result = Ok(());
        if !self.targets.is_empty() {
            return result;
        }
        for (index, device) in std::mem::take(&mut self.devices) {
            let link = device.link;
            let entry = Entry { index, name: link.name.clone(), queue_len: link.queue_len };
            match restore(&mut self.netlink, &entry) {
                Ok(()) => result = both(result, self.forget(index)),
                // What is not there any more has nothing to be restored.
                Err(refusal) if refusal.errno == Errno::ENODEV => result = both(result, self.forget(index)),
                Err(cause) => result = both(result, Err(failed("restore the queue", &link, cause))),
            }
        }
        self.notices = None;
        self.told.clear();
        result
    }

    fn forget(&mut self, index: u32) -> Result<(), HtbError> {
        self.journal.forget(index).map_err(|cause| HtbError::Io { step: "write down what is left", cause })
    }

    /// Gives our queue to every interface that has none. Where one is somebody else's, that is an error, or else told
    /// once.
    fn claim_all(&mut self, strictly: bool) -> Result<(), HtbError> {
        // From before we look on, so that nothing that comes is missed.
        if self.notices.is_none() {
            let groups = NOTICES.cast_unsigned();
            let notices = Channel::open(SockProtocol::NetlinkRoute, groups, SockFlag::SOCK_NONBLOCK);
            self.notices =
                notices.inspect_err(|error| log::warn!("tc_htb: new interfaces are not seen: {error}")).ok();
        }
        let unseen = |cause: io::Error| HtbError::Io { step: "list the interfaces", cause };
        let links = carrying(&mut self.netlink, &self.options).map_err(unseen)?;
        let qdiscs = tc::qdiscs(&mut self.netlink);
        let qdiscs = qdiscs.map_err(|cause| HtbError::Kernel { step: "list the queues".into(), cause })?;
        for link in links {
            match (root_of(&link, &qdiscs), self.devices.get_mut(&link.index)) {
                // It may have another name by now.
                (Root::Ours, Some(device)) => device.link.name.clone_from(&link.name),
                (Root::Default, _) => self.claim(&link)?,
                (root, _) if strictly => return Err(HtbError::Obstacle(why_not(&link, &root))),
                (root, _) => {
                    if !self.told.contains(&link.index) {
                        log::warn!("what leaves by {} is not limited: {}", link.name, why_not(&link, &root));
                        self.told.push(link.index);
                    }
                }
            }
        }
        Ok(())
    }

    fn claim(&mut self, link: &Link) -> Result<(), HtbError> {
        let entry = Entry { index: link.index, name: link.name.clone(), queue_len: link.queue_len };
        self.journal.note(entry).map_err(|cause| HtbError::Io {
            step: "write down in /run/chadthrottle what is about to be made",
            cause,
        })?;
        match Device::claim(&mut self.netlink, link, OURS, self.journal.signature()) {
            Ok(device) => {
                self.devices.insert(link.index, device);
                Ok(())
            }
            Err(cause) => {
                self.forget(link.index)?;
                // Gone meanwhile.
                if cause.errno == Errno::ENODEV {
                    return Ok(());
                }
                Err(failed("make a queue", link, cause))
            }
        }
    }

    /// What is to be done every now and then.
    fn tick(&mut self) -> Result<(), HtbError> {
        self.journal.watch();
        if self.has_news() {
            self.forget_gone()?;
            self.claim_all(false)?;
            for limited in self.targets.values_mut() {
                limited.settle(&mut self.devices, &mut self.netlink)?;
            }
        }
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
    fn has_news(&mut self) -> bool {
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

    /// Forgets interfaces that are gone, or whose queue somebody else has replaced.
    fn forget_gone(&mut self) -> Result<(), HtbError> {
        let unseen = |cause: io::Error| HtbError::Io { step: "list the interfaces", cause };
        let links = links::all(&mut self.netlink).map_err(unseen)?;
        let qdiscs = tc::qdiscs(&mut self.netlink);
        let qdiscs = qdiscs.map_err(|cause| HtbError::Kernel { step: "list the queues".into(), cause })?;
        let is_ours = |index: u32| {
            let link = links.iter().find(|link| link.index == index);
            link.is_some_and(|link| root_of(link, &qdiscs) == Root::Ours)
        };
        let gone: Vec<u32> = self.devices.keys().copied().filter(|index| !is_ours(*index)).collect();
        for index in gone {
            for limited in self.targets.values_mut() {
                limited.lose(index, self.devices.get(&index));
            }
            self.devices.remove(&index);
            self.forget(index)?;
        }
        self.told.retain(|index| links.iter().any(|link| link.index == *index));
        Ok(())
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
                // Gone with the interface, of which there is a notice.
                let Some(stats) = stats_of(&classes, limited.class) else { continue };
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
