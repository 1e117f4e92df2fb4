//! The IFB with its queue, the classes of all targets in it, and the thread that looks after them.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chadthrottle_common::ThrottleStats;
use nix::{errno::Errno, sys::socket::SockProtocol};

use super::journal;
use crate::{
    backends::throttle::{
        Subject, Target,
        carrying::IFB_PREFIX,
        flow::{Direction, SharedFlow},
        htb::{AIM, Classes, Device, HtbError, Limited, failed, stats_of, unnoted},
        notes::Noted,
    },
    sys::{
        links,
        netlink::{Netlink, Refusal},
        tc::{self, Handle},
    },
};

/// The number of the queue: another one than that of `tc_htb`, whose classes some sockets name.
pub(super) const ROOT: Handle = Handle::new(0x7caf, 0);
/// Its classes have no signature: the interface is ours with all that is in it.
pub(super) const UNSIGNED: u32 = 0;
/// How often rates are made to fit how long packets are, and flow control to what waits.
const TICK: Duration = Duration::from_millis(200);

/// The thread's side and ours.
pub(super) struct Queue {
    /// How often the IFB was made: what named the one before by its number does not name the new one.
    made: Arc<AtomicU64>,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    flow: SharedFlow,
    netlink: Netlink,
    /// The IFB by its number, and its note, which goes after it.
    ifb: BTreeMap<u32, Device>,
    noted: Option<Noted>,
    made: Arc<AtomicU64>,
    classes: Classes,
    targets: BTreeMap<Subject, Limited>,
    is_watched: bool,
    steered_at: Instant,
}

/// Where the packets of a target are to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Way {
    /// The number of the interface.
    pub(super) interface: u32,
    /// The number of the class.
    pub(super) class: Handle,
}

impl Queue {
    /// No IFB is made before there is a limit.
    pub(super) fn new(flow: &SharedFlow) -> io::Result<Arc<Self>> {
        let made = Arc::<AtomicU64>::default();
        let state = State {
            made: Arc::clone(&made),
            flow: flow.clone(),
            netlink: Netlink::open(SockProtocol::NetlinkRoute)?,
            ifb: BTreeMap::new(),
            noted: None,
            classes: Classes::of(ROOT),
            targets: BTreeMap::new(),
            is_watched: false,
            steered_at: Instant::now(),
        };
        Ok(Arc::new(Self { made, state: Mutex::new(state), changed: Condvar::new() }))
    }

    /// Counts how often the IFB was made.
    pub(super) fn made(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.made)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets or changes a limit in IP bytes a second. Says where packets are to be sent.
    pub(super) fn set(self: &Arc<Self>, target: &Target, limit: u64) -> Result<Way, HtbError> {
        let mut state = self.lock();
        let way = state.set(target, limit);
        if way.is_err() {
            state.release_if_unused()?;
        }
        if !state.is_watched && way.is_ok() {
            let queue = Arc::downgrade(self);
            let spawned = thread::Builder::new().name("ifb".into()).spawn(move || watch(&queue));
            spawned.map_err(|cause| HtbError::Io { step: "start its thread", cause })?;
            state.is_watched = true;
        }
        way
    }

    /// Takes a limit away, once what waits has left. No limit is no error.
    pub(super) fn remove(&self, subject: &Subject) -> Result<(), HtbError> {
        let result = self.lock().remove(subject);
        self.changed.notify_all();
        result
    }

    pub(super) fn subjects(&self) -> Vec<Subject> {
        self.lock().targets.keys().cloned().collect()
    }

    pub(super) fn limit(&self, subject: &Subject) -> Option<u64> {
        self.lock().targets.get(subject).map(|limited| limited.limit)
    }

    pub(super) fn stats(&self, subject: &Subject) -> Result<ThrottleStats, HtbError> {
        let mut state = self.lock();
        if state.targets.contains_key(subject) {
            state.count()?;
        }
        let State { targets, ifb, .. } = &*state;
        Ok(targets.get(subject).map(|limited| limited.stats(ifb)).unwrap_or_default())
    }
}

/// Looks after limits until none is left, or nobody has the queue any more.
fn watch(queue: &Weak<Queue>) {
    let mut has_failed = false;
    while let Some(queue) = queue.upgrade() {
        let mut state = queue.lock();
        if state.targets.is_empty() {
            state.is_watched = false;
            return;
        }
        match state.tick() {
            Err(error) if !has_failed => {
                log::warn!("ifb_tc: {error}");
                has_failed = true;
            }
            result => has_failed = result.is_err(),
        }
        // Woken where a limit was removed, so that we end with the last one.
        drop(queue.changed.wait_timeout(state, TICK).unwrap_or_else(PoisonError::into_inner));
    }
}

impl State {
    fn set(&mut self, target: &Target, limit: u64) -> Result<Way, HtbError> {
        if self.ifb.is_empty() {
            self.make(0)?;
        }
        let interface = self.ifb.keys().copied().next().unwrap_or_default();
        if let Some(limited) = self.targets.get_mut(&target.subject) {
            for (index, place) in &mut limited.places {
                let Some(device) = self.ifb.get_mut(index) else { continue };
                device
                    .change(&mut self.netlink, limited.class, place, limit)
                    .map_err(|cause| failed("change the class", &device.link, cause))?;
            }
            (limited.limit, limited.aim) = (limit, AIM);
            return Ok(Way { interface, class: limited.class });
        }
        let is_taken = |class| self.targets.values().any(|limited| limited.class == class);
        let class = self.classes.free(is_taken)?;
        let mut limited = Limited::new(target, Direction::Download, class, limit);
        limited.settle(&mut self.ifb, &mut self.netlink)?;
        self.targets.insert(target.subject.clone(), limited);
        Ok(Way { interface, class })
    }

    /// Makes the IFB with its queue, with this number where that is not 0.
    fn make(&mut self, index: u32) -> Result<(), HtbError> {
        let name = format!("{IFB_PREFIX}{}", std::process::id());
        let noted = journal::note(&name).map_err(|cause| unnoted(&cause))?;
        // From here on it is forgotten with the interface, or left to the guard.
        let noted = self.noted.insert(noted);
        let made = |cause| HtbError::Kernel { step: format!("make the interface {name}"), cause };
        let index = match links::add_ifb(&mut self.netlink, &name, index) {
            Ok(index) => index,
            Err(cause) => {
                noted.is_left = links::all(&mut self.netlink)
                    .map_or(true, |links| links.iter().any(|link| link.name == name && link.kind == "ifb"));
                self.noted = None;
                return Err(made(cause));
            }
        };
        // Before it is up, of which there is a notice.
        self.made.fetch_add(1, Ordering::Release);
        match self.equip(index) {
            Ok(device) => drop(self.ifb.insert(index, device)),
            Err(error) => {
                self.delete(index).map_err(made)?;
                return Err(error);
            }
        }
        Ok(())
    }

    /// Deletes the IFB, and forgets it. What cannot be deleted is left to the guard, and the next start.
    fn delete(&mut self, index: u32) -> Result<(), Refusal> {
        let deleted = links::delete(&mut self.netlink, index);
        if let Some(mut noted) = self.noted.take() {
            noted.is_left = deleted.is_err();
        }
        deleted
    }

    fn equip(&mut self, index: u32) -> Result<Device, HtbError> {
        let unseen = |cause: io::Error| HtbError::Io { step: "list the interfaces", cause };
        let mut all = links::all(&mut self.netlink).map_err(unseen)?.into_iter();
        let gone = || HtbError::Obstacle("somebody has taken its interface away".into());
        let link = all.find(|link| link.index == index).ok_or_else(gone)?;
        let device = Device::claim(&mut self.netlink, &link, ROOT, UNSIGNED)
            .map_err(|cause| failed("make the queue", &link, cause))?;
        links::bring_up(&mut self.netlink, index).map_err(|cause| failed("bring up", &link, cause))?;
        Ok(device)
    }

    fn remove(&mut self, subject: &Subject) -> Result<(), HtbError> {
        let Some(mut limited) = self.targets.remove(subject) else { return Ok(()) };
        let left = limited.leave(&self.ifb, &mut self.netlink);
        left.and(self.release_if_unused())
    }

    /// Takes the IFB away where there is no limit.
    fn release_if_unused(&mut self) -> Result<(), HtbError> {
        let mut result = Ok(());
        if self.targets.is_empty() {
            for (index, device) in std::mem::take(&mut self.ifb) {
                let deleted = self.delete(index);
                result = result.and(deleted.map_err(|cause| failed("delete", &device.link, cause)));
            }
        }
        result
    }

    /// Somebody has taken the IFB away, and what is sent there is lost: another one with its number takes its place.
    fn make_again(&mut self) -> Result<(), HtbError> {
        log::warn!("ifb_tc: somebody has taken its interface away; it makes another one");
        for (index, device) in std::mem::take(&mut self.ifb) {
            for limited in self.targets.values_mut() {
                limited.lose(index, Some(&device));
            }
            // Also where only its queue is gone.
            self.delete(index).map_err(|cause| failed("delete", &device.link, cause))?;
            self.make(index)?;
        }
        for limited in self.targets.values_mut() {
            limited.settle(&mut self.ifb, &mut self.netlink)?;
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<(), HtbError> {
        match self.count() {
            Err(HtbError::Kernel { cause, .. }) if cause.errno == Errno::ENODEV => self.make_again()?,
            counted => counted?,
        }
        let elapsed = self.steered_at.elapsed();
        // Sooner where a limit was removed meanwhile.
        if elapsed >= TICK / 2 {
            self.steered_at = Instant::now();
            for limited in self.targets.values_mut() {
                limited.steer(&mut self.ifb, &mut self.netlink, &self.flow, elapsed)?;
            }
        }
        Ok(())
    }

    /// Takes in what all classes have counted.
    fn count(&mut self) -> Result<(), HtbError> {
        for (index, device) in &self.ifb {
            let classes = tc::classes(&mut self.netlink, *index)
                .map_err(|cause| failed("list the classes", &device.link, cause))?;
            for limited in self.targets.values_mut() {
                let Some(place) = limited.places.get_mut(index) else { continue };
                let Some(stats) = stats_of(&classes, limited.class) else {
                    // Of an interface that is gone the kernel tells no classes.
                    return Err(failed("find the class", &device.link, Errno::ENODEV.into()));
                };
                device
                    .count(&mut self.netlink, limited.class, place, stats)
                    .map_err(|cause| failed("change the class", &device.link, cause))?;
            }
        }
        Ok(())
    }
}

impl Drop for State {
    /// Whatever ends us, short of SIGKILL.
    fn drop(&mut self) {
        self.targets.clear();
        if let Err(error) = self.release_if_unused() {
            log::error!("ifb_tc: {error}");
        }
    }
}
