//! One target with its classes on all interfaces.

use std::{collections::BTreeMap, io, time::Duration};

use chadthrottle_common::ThrottleStats;
use nix::errno::Errno;

use super::{
    device::{Device, Place},
    shape,
};
use crate::{
    backends::throttle::{
        Subject, Target,
        flow::{Direction, FlowError, SharedFlow},
    },
    sys::{
        links::Link,
        netlink::{Netlink, Refusal},
        tc::Handle,
    },
};

/// Why a limit cannot be set.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HtbError {
    /// Something is in the way that only somebody else may remove.
    #[error("{0}")]
    Obstacle(String),
    /// The target is not to be had.
    #[error(transparent)]
    Target(#[from] FlowError),
    /// The kernel refuses.
    #[error("cannot {step}: {cause}")]
    Kernel { step: String, cause: Refusal },
    /// What is to be written first cannot be.
    #[error("cannot {step}: {cause}")]
    Io { step: &'static str, cause: io::Error },
}

/// A target with its limit.
#[derive(Debug)]
pub(crate) struct Limited {
    pub(crate) subject: Subject,
    direction: Direction,
    pub(crate) class: Handle,
    pub(crate) limit: u64,
    /// What flow control aims at, in parts of a thousand of the limit.
    pub(crate) aim: u64,
    /// By interface.
    pub(crate) places: BTreeMap<u32, Place>,
    /// What had passed on interfaces that are gone.
    gone: ThrottleStats,
}

impl Limited {
    pub(crate) fn new(target: &Target, direction: Direction, class: Handle, limit: u64) -> Self {
        let (subject, aim) = (target.subject.clone(), shape::AIM);
        let (places, gone) = (BTreeMap::new(), ThrottleStats::default());
        Self { subject, direction, class, limit, aim, places, gone }
    }

    /// What the limit did, by what was counted last.
    pub(crate) fn stats(&self, devices: &BTreeMap<u32, Device>) -> ThrottleStats {
        let mut sum = self.gone;
        for (index, place) in &self.places {
            add_up(&mut sum, place, devices.get(index));
        }
        sum
    }

    /// Bytes in its queues, when that was last read.
    pub(crate) fn queued(&self) -> u64 {
        self.places.values().map(|place| u64::from(place.stats.backlog)).sum()
    }

    /// Makes classes where there are none.
    pub(crate) fn settle(
        &mut self,
        devices: &mut BTreeMap<u32, Device>,
        netlink: &mut Netlink,
    ) -> Result<(), HtbError> {
        for (index, device) in devices {
            if self.places.contains_key(index) {
                continue;
            }
            let place = device.add(netlink, self.class, self.limit);
            let place = place.map_err(|cause| failed("make a class", &device.link, cause))?;
            self.places.insert(*index, place);
        }
        Ok(())
    }

    /// Takes all classes away.
    pub(crate) fn leave(
        &mut self,
        devices: &BTreeMap<u32, Device>,
        netlink: &mut Netlink,
    ) -> Result<(), HtbError> {
        let mut result = Ok(());
        for (index, place) in std::mem::take(&mut self.places) {
            let Some(device) = devices.get(&index) else { continue };
            if let Err(cause) = device.remove(netlink, self.class, &place)
                && cause.errno != Errno::ENODEV
            {
                result = Err(failed("remove the class", &device.link, cause));
            }
        }
        result
    }

    /// Makes up for the time since the last call: gives each interface its part of the limit, where more than one carries
    /// traffic, and makes flow control, where it is in front, aim at what fills them.
    pub(crate) fn steer(
        &mut self,
        devices: &mut BTreeMap<u32, Device>,
        netlink: &mut Netlink,
        flow: &SharedFlow,
        elapsed: Duration,
    ) -> Result<(), HtbError> {
        let mut used = Vec::with_capacity(self.places.len());
        for place in self.places.values_mut() {
            used.push((per_second(std::mem::take(&mut place.sent), elapsed), place.part));
        }
        let sent = used.iter().map(|(sent, _)| sent).sum();
        let queued = self.queued();
        let aim = match self.direction {
            Direction::Upload => shape::aim(self.aim, self.limit, sent, queued),
            Direction::Download => shape::aim_down(self.aim, self.limit, sent, queued),
        };
        if aim != self.aim && flow.limit(&self.subject, self.direction).is_some() {
            self.aim = aim;
            // It has ended, or flow control has given up meanwhile; the queue holds all the same.
            flow.adjust(&self.subject, self.direction, self.aimed_at());
        }
        if self.limit == 0 || used.len() < 2 {
            return Ok(());
        }
        for ((index, place), part) in self.places.iter_mut().zip(shape::parts(self.limit, &used)) {
            let Some(device) = devices.get_mut(index) else { continue };
            if part.abs_diff(place.part) > self.limit / 50 {
                device
                    .change(netlink, self.class, place, part)
                    .map_err(|cause| failed("change the class", &device.link, cause))?;
            }
        }
        Ok(())
    }

    /// What flow control aims at, in IP bytes a second.
    fn aimed_at(&self) -> u64 {
        (self.limit / 1000).saturating_mul(self.aim).max(1)
    }

    /// An interface is gone.
    pub(crate) fn lose(&mut self, index: u32, device: Option<&Device>) {
        if let Some(place) = self.places.remove(&index) {
            add_up(&mut self.gone, &place, device);
        }
    }
}

/// Adds what a class has counted.
fn add_up(sum: &mut ThrottleStats, place: &Place, device: Option<&Device>) {
    let stats = place.stats;
    let passed = device.map_or(stats.bytes, |device| shape::ip_bytes(stats, &device.link));
    let dropped = u64::from(stats.drops);
    // HTB does not count the bytes of what it drops: as many as those that passed had, on average.
    let dropped_bytes = dropped.saturating_mul(passed.checked_div(stats.packets).unwrap_or_default());
    sum.packets_total += stats.packets + dropped;
    sum.bytes_total += passed + dropped_bytes;
    sum.packets_dropped += dropped;
    sum.bytes_dropped += dropped_bytes;
}

fn per_second(bytes: u64, elapsed: Duration) -> u64 {
    let nanoseconds = elapsed.as_nanos().max(1);
    u64::try_from(u128::from(bytes) * 1_000_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// What would outlive us cannot be written down, and so is not made.
pub(crate) fn unnoted(cause: &io::Error) -> HtbError {
    HtbError::Obstacle(format!(
        "cannot write down in /run/chadthrottle what is about to be made: {cause}; see to it that files can be written \
         there, or use a backend that leaves nothing behind (--list-backends)"
    ))
}

/// An error of the kernel's on an interface.
pub(crate) fn failed(what: &str, link: &Link, cause: Refusal) -> HtbError {
    HtbError::Kernel { step: format!("{what} of {}", link.name), cause }
}
