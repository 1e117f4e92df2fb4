//! The tables of limits in the kernel.

use std::{mem::offset_of, sync::atomic::Ordering, time::Duration};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{Array, HashMap, IterableMap, MapData, MapError},
};
use chadthrottle_common::{
    CgroupThrottleConfig, DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, LIMIT_AT_ENTRANCE, LIMIT_IN_FORCE,
    LimitSettings, LimitState, Membership, ProcessKey, TARGETS, ThrottleStats, Waiting,
    clock::{NS_PER_SEC, cost_ns, debt_at_rate},
    limit_index,
};
use nix::time::{ClockId, clock_gettime};

use super::{object::take, places::Places};
use crate::{
    backends::throttle::TrafficType,
    sys::bpf_map::{self, Mapped},
};

/// How long a target may save up what it does not use.
///
/// TCP under a policer needs enough to outlast its shortest retransmission timeout, 200 ms (`TCP_RTO_MIN`,
/// include/net/tcp.h): with less, what comes in during the silence after a loss is lost, and the connection
/// collapses to a fraction of its limit. More lets the worst second grow by as much.
const BURST: Duration = Duration::from_millis(210);

/// Userspace counts changes of memberships up by more than the programs will meanwhile, so that no number comes twice.
const CHANGE: u64 = 1 << 32;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What leaves.
    Upload,
    /// What arrives.
    Download,
}

impl Direction {
    pub(super) const BOTH: [Self; 2] = [Self::Upload, Self::Download];

    const fn number(self) -> u32 {
        match self {
            Self::Upload => DIRECTION_UPLOAD,
            Self::Download => DIRECTION_DOWNLOAD,
        }
    }
}

/// What TCP is let off, because something in front of the limit holds it gently.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leniency {
    /// How far it may be ahead of the limit for a while.
    pub debt: Duration,
    /// How long nothing that arrives is dropped, from now on: senders may send what they were promised.
    pub grace: Duration,
}

/// Who holds a limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Means {
    /// The programs that see the packets of sockets.
    #[default]
    Sockets,
    /// The program at the entrance of interfaces, which drops what is over the limit.
    Entrance,
    /// Queues of the interfaces that packets leave by: the programs give packets the number of their class
    /// (`skb->priority`), and ask no clock.
    Class(u32),
    /// A queue, through which that program sends the packets.
    Queue {
        /// The number of the interface that has it.
        interface: u32,
        /// The number of its class for the target.
        class: u32,
    },
}

/// What is to be held, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asked {
    /// IP bytes a second.
    pub rate_bps: u64,
    /// What TCP is let off.
    pub leniency: Leniency,
    /// Who holds it.
    pub means: Means,
}

/// A limit as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) asked: Asked,
    pub(super) traffic: TrafficType,
    /// Whom it is named for, where it is for a process.
    pub(super) tgid: u32,
}

/// The maps, by type.
pub(super) struct Tables {
    limits: Array<MapData, LimitSettings>,
    clocks: Mapped<LimitState>,
    /// The map itself: programs that are loaded later look for it.
    _clocks: Array<MapData, LimitState>,
    changes: Array<MapData, u64>,
    /// By target, once something has had to wait.
    waiting: HashMap<MapData, u32, Waiting>,
    pub(super) members: HashMap<MapData, ProcessKey, Membership>,
    pub(super) places: Places,
    /// Of the cgroup that the programs are attached to.
    cgroup_id: u64,
}

impl Tables {
    pub(super) fn take(programs: &mut Ebpf, cgroup_id: u64) -> anyhow::Result<Self> {
        let clocks: Array<MapData, LimitState> = take(programs, "CHAD_CLOCKS")?;
        let mut tables = Self {
            limits: take(programs, "CHAD_LIMITS")?,
            clocks: Mapped::new(clocks.map().fd(), 2 * TARGETS as usize).context("cannot map the clocks")?,
            _clocks: clocks,
            changes: take(programs, "CHAD_CHANGES")?,
            waiting: take(programs, "CHAD_WAITING")?,
            members: take(programs, "CHAD_MEMBERS")?,
            places: Places::take(programs)?,
            cgroup_id,
        };
        // 0 is what a socket has that nobody has looked at.
        tables.memberships_have_changed()?;
        Ok(tables)
    }

    /// Has every socket find its target again.
    pub(super) fn memberships_have_changed(&mut self) -> Result<(), MapError> {
        let changes = self.changes.get(&0, 0)?;
        self.changes.set(0, changes.wrapping_add(CHANGE), 0)
    }

    /// Makes a target's tables ready for its first limit.
    pub(super) fn clear(&mut self, target: u32) -> Result<(), MapError> {
        for direction in Direction::BOTH {
            let index = limit_index(target, direction.number());
            self.limits.set(index, LimitSettings::default(), 0)?;
            self.clocks.set(index as usize, LimitState::default());
        }
        Ok(())
    }

    /// Sets or changes a limit, or takes it away; it holds from the next packet on. What had been saved under the one
    /// before is lost, its debt is not: it is paid at the new rate where that is faster.
    pub(super) fn set(
        &mut self,
        target: u32,
        direction: Direction,
        limit: Option<Limit>,
    ) -> anyhow::Result<()> {
        let settings = match limit {
            Some(limit) => self.settings(limit)?,
            None => LimitSettings::default(),
        };
        let index = limit_index(target, direction.number());
        let before = self.limits.get(&index, 0)?.config.rate_bps;
        self.limits.set(index, settings, 0).context("cannot write the limit")?;
        if limit.is_none() && direction == Direction::Upload {
            // What waits leaves by itself.
            absent_is_fine(self.waiting.remove(&target))?;
        }
        self.pay_at_rate(index, before, settings.config.rate_bps)
    }

    /// Turns the debt of the clocks into what it comes to at another rate, while the programs move them on.
    fn pay_at_rate(&self, index: u32, before_bps: u64, rate_bps: u64) -> anyhow::Result<()> {
        let now = now_ns()?;
        let clocks = [offset_of!(LimitState, clock_ns), offset_of!(LimitState, datagram_clock_ns)];
        for clock in clocks.into_iter().filter_map(|clock| self.clocks.word(index as usize, clock)) {
            let paid = |clock_ns| Some(debt_at_rate(clock_ns, now, before_bps, rate_bps));
            // It never fails: there is always a value.
            let _ = clock.fetch_update(Ordering::Relaxed, Ordering::Relaxed, paid);
        }
        Ok(())
    }

    fn settings(&self, limit: Limit) -> anyhow::Result<LimitSettings> {
        let Limit { asked: Asked { rate_bps, leniency, means }, traffic, tgid } = limit;
        let (flags, queue, priority) = match means {
            Means::Sockets => (LIMIT_IN_FORCE, 0, 0),
            Means::Entrance => (LIMIT_AT_ENTRANCE, 0, 0),
            Means::Class(class) => (0, 0, class),
            Means::Queue { interface, class } => (LIMIT_AT_ENTRANCE, interface, class),
        };
        let burst_ns = nanoseconds(BURST);
        let burst_size = u64::try_from(u128::from(rate_bps) * u128::from(burst_ns) / u128::from(NS_PER_SEC))?;
        let now = now_ns()?;
        Ok(LimitSettings {
            config: CgroupThrottleConfig {
                cgroup_id: self.cgroup_id,
                pid: tgid,
                traffic_type: traffic.number(),
                _padding: [0; 3],
                rate_bps,
                burst_size,
            },
            burst_ns: if rate_bps == 0 { 0 } else { cost_ns(burst_size, rate_bps) },
            debt_ns: nanoseconds(leniency.debt),
            since_ns: now,
            grace_until_ns: now.saturating_add(nanoseconds(leniency.grace)),
            flags,
            priority,
            queue,
            ..LimitSettings::default()
        })
    }

    /// What a limit did so far.
    pub(super) fn stats(&self, target: u32, direction: Direction) -> ThrottleStats {
        let stats = self.state(target, direction).stats;
        // It runs once a packet: no packet pays for counting that twice.
        ThrottleStats { program_calls: stats.packets_total, ..stats }
    }

    /// How far a limit has been used, and what it did.
    pub(super) fn state(&self, target: u32, direction: Direction) -> LimitState {
        self.clocks.get(limit_index(target, direction.number()) as usize).unwrap_or_default()
    }

    /// Bytes that wait in queues of interfaces for an upload limit of this rate, with the gaps that TCP has taken.
    pub(super) fn waiting_bytes(&self, target: u32, rate_bps: u64) -> anyhow::Result<u64> {
        let ahead_ns = self.state(target, Direction::Upload).waits_until_ns.saturating_sub(now_ns()?);
        Ok(u64::try_from(u128::from(ahead_ns) * u128::from(rate_bps) / u128::from(NS_PER_SEC))?)
    }

    /// The members of a target.
    pub(super) fn members_of(&self, target: u32) -> anyhow::Result<Vec<ProcessKey>> {
        let mut found = Vec::new();
        bpf_map::read_all(self.members.map().fd(), 1, |key: ProcessKey, membership: &[Membership]| {
            found.extend(membership.iter().filter(|membership| membership.is_in(target)).map(|_| key));
        })?;
        Ok(found)
    }
}

/// Numbers for targets. One that was given back is not used again before all others.
#[derive(Debug)]
pub(super) struct Numbers {
    free: std::collections::VecDeque<u32>,
}

impl Default for Numbers {
    fn default() -> Self {
        Self { free: (1..TARGETS).collect() }
    }
}

impl Numbers {
    pub(super) fn take(&mut self) -> Option<u32> {
        self.free.pop_front()
    }

    pub(super) fn give_back(&mut self, number: u32) {
        self.free.push_back(number);
    }
}

/// Whatever is gone already is as good.
pub(super) fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        result => result,
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Now, as `bpf_ktime_get_ns` tells it.
fn now_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * NS_PER_SEC + u64::try_from(now.tv_nsec())?)
}
