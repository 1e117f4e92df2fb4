//! Which processes are limited, and how: userspace's side of the limits in the kernel.
//!
//! A target is a number. Processes are its members, at most one target each; limits belong to the target, one a
//! direction, so that members share them.

use std::{
    collections::{BTreeMap, HashSet},
    time::Instant,
};

use anyhow::Context;
use aya::maps::MapError;
use chadthrottle_common::{
    CgroupThrottleConfig, DIRECTION_DOWNLOAD, DIRECTION_UPLOAD, LimitKey, LimitState,
    MEMBER_INHERITED_BY_CHILDREN, Membership, ProcessKey, TRAFFIC_TYPE_ALL, ThrottleStats,
    clock::{NS_PER_SEC, cost_ns},
};
use nix::time::{ClockId, clock_gettime};

use super::{Engine, tagger};
use crate::{
    backends::throttle::{Scope, Target, manager::MAINTENANCE_INTERVAL},
    process::ProcessId,
};

/// How long a target may save up what it does not use.
///
/// TCP under a policer needs enough to outlast its shortest retransmission timeout, 200 ms (`TCP_RTO_MIN`,
/// include/net/tcp.h): with less, what comes in during the silence after a loss is lost, and the connection
/// collapses to a fraction of its limit. More lets the worst second grow by as much.
const BURST_NS: u64 = NS_PER_SEC / 25 * 6;

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// What leaves.
    Upload,
    /// What arrives.
    Download,
}

impl Direction {
    const fn number(self) -> u32 {
        match self {
            Self::Upload => DIRECTION_UPLOAD,
            Self::Download => DIRECTION_DOWNLOAD,
        }
    }
}

/// One limited target.
#[derive(Debug)]
struct Entry {
    number: u32,
    scope: Scope,
    /// IP bytes a second.
    limits: BTreeMap<Direction, u64>,
}

/// Every limited target.
#[derive(Debug, Default)]
pub struct Targets {
    by_process: BTreeMap<ProcessId, Entry>,
    last_number: u32,
    /// Members that had ended when it was last looked at.
    ended_members: HashSet<ProcessKey>,
    last_look: Option<Instant>,
}

impl Targets {
    /// The limit in force, in IP bytes a second.
    #[must_use]
    pub fn limit(&self, process: ProcessId, direction: Direction) -> Option<u64> {
        self.by_process.get(&process)?.limits.get(&direction).copied()
    }

    /// Sets or changes a limit; it holds from the next packet on.
    ///
    /// # Errors
    /// When the kernel refuses; then there is no new limit.
    pub fn set(
        &mut self,
        engine: &mut Engine,
        target: &Target,
        direction: Direction,
        rate_bps: u64,
    ) -> anyhow::Result<()> {
        let known = self.by_process.get(&target.id);
        let number = known.map_or(self.last_number + 1, |entry| entry.number);
        let is_new = known.is_none_or(|entry| entry.scope != target.scope);
        let key = LimitKey { target: number, direction: direction.number() };
        let state = limit_state(engine, target.id, rate_bps, key)?;
        engine.limits.insert(key, state, 0).context("too many limits, or no memory for one")?;
        let entry = self.by_process.entry(target.id).or_insert_with(|| Entry {
            number,
            scope: target.scope,
            limits: BTreeMap::new(),
        });
        self.last_number = self.last_number.max(number);
        entry.scope = target.scope;
        entry.limits.insert(direction, rate_bps);
        engine.announce_limits(self.by_process.len())?;
        if is_new {
            // The limit is there before the first member is: whoever becomes one is held from that packet on.
            let joined = join(engine, target, number);
            if joined.is_err() {
                self.remove(engine, target.id, direction)?;
            }
            return joined;
        }
        Ok(())
    }

    /// Takes a limit away. No limit is no error.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(
        &mut self,
        engine: &mut Engine,
        process: ProcessId,
        direction: Direction,
    ) -> anyhow::Result<()> {
        let Some(entry) = self.by_process.get_mut(&process) else { return Ok(()) };
        if entry.limits.remove(&direction).is_none() {
            return Ok(());
        }
        let number = entry.number;
        let is_last = entry.limits.is_empty();
        let key = LimitKey { target: number, direction: direction.number() };
        if is_last {
            self.by_process.remove(&process);
            leave(engine, number)?;
        }
        absent_is_fine(engine.limits.remove(&key))?;
        absent_is_fine(engine.stats.remove(&key))?;
        engine.announce_limits(self.by_process.len())?;
        Ok(())
    }

    /// Takes every limit of one direction away.
    ///
    /// # Errors
    /// The first one that the kernel refuses; the others are gone.
    pub fn remove_all(&mut self, engine: &mut Engine, direction: Direction) -> anyhow::Result<()> {
        let processes: Vec<_> = self.by_process.keys().copied().collect();
        processes.into_iter().map(|process| self.remove(engine, process, direction)).fold(Ok(()), Result::and)
    }

    /// What a limit did so far.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn stats(
        &self,
        engine: &Engine,
        process: ProcessId,
        direction: Direction,
    ) -> anyhow::Result<ThrottleStats> {
        let Some(entry) = self.by_process.get(&process) else { return Ok(ThrottleStats::default()) };
        let key = LimitKey { target: entry.number, direction: direction.number() };
        let per_cpu = match engine.stats.get(&key, 0) {
            Ok(per_cpu) => per_cpu,
            // No packet yet.
            Err(MapError::KeyNotFound) => return Ok(ThrottleStats::default()),
            Err(error) => return Err(error.into()),
        };
        Ok(per_cpu.iter().fold(ThrottleStats::default(), |sum, cpu| ThrottleStats {
            packets_total: sum.packets_total + cpu.packets_total,
            bytes_total: sum.bytes_total + cpu.bytes_total,
            packets_dropped: sum.packets_dropped + cpu.packets_dropped,
            bytes_dropped: sum.bytes_dropped + cpu.bytes_dropped,
            program_calls: sum.program_calls + cpu.program_calls,
            config_misses: sum.config_misses + cpu.config_misses,
            cgroup_id_seen: sum.cgroup_id_seen.max(cpu.cgroup_id_seen),
        }))
    }

    /// Forgets members that had ended already when this was called last, so that a target whose processes come and go
    /// does not fill the table. Not at once: what stands in the queues of a process that has ended is still its own.
    /// The process that a target is named for stays until its limits are taken away.
    pub fn forget_ended_members(&mut self, engine: &mut Engine) {
        // Both directions ask for it.
        if self.last_look.is_some_and(|last| last.elapsed() < MAINTENANCE_INTERVAL / 2) {
            return;
        }
        self.last_look = Some(Instant::now());
        let ended: HashSet<_> = engine
            .members
            .keys()
            .flatten()
            .filter(|key| {
                let process = tagger::process(*key);
                !self.by_process.contains_key(&process) && !process.is_alive()
            })
            .collect();
        for key in ended.intersection(&self.ended_members) {
            // Gone already is as good.
            let _ = engine.members.remove(key);
        }
        self.ended_members = ended;
    }
}

/// The state of a new or changed limit. A new one starts with an empty bucket: a full one would let its depth
/// through at line rate. A changed one keeps its debt, and loses what it had saved.
fn limit_state(
    engine: &Engine,
    process: ProcessId,
    rate_bps: u64,
    key: LimitKey,
) -> anyhow::Result<LimitState> {
    let before = match engine.limits.get(&key, 0) {
        Ok(state) => state.clock_ns,
        Err(MapError::KeyNotFound) => 0,
        Err(error) => return Err(error.into()),
    };
    let burst_size = u64::try_from(u128::from(rate_bps) * u128::from(BURST_NS) / u128::from(NS_PER_SEC))?;
    Ok(LimitState {
        config: CgroupThrottleConfig {
            cgroup_id: engine.cgroup().id,
            pid: tagger::key(process).tgid(),
            traffic_type: TRAFFIC_TYPE_ALL,
            _padding: [0; 3],
            rate_bps,
            burst_size,
        },
        burst_ns: if rate_bps == 0 { 0 } else { cost_ns(burst_size, rate_bps) },
        clock_ns: before.max(now_ns()?),
    })
}

/// Makes a process a member, and the owner of the sockets that it has open already.
fn join(engine: &mut Engine, target: &Target, number: u32) -> anyhow::Result<()> {
    let flags = match target.scope {
        Scope::Process => 0,
        Scope::Descendants => MEMBER_INHERITED_BY_CHILDREN,
    };
    engine
        .members
        .insert(tagger::key(target.id), Membership { target: number, flags }, 0)
        .context("too many limited processes, or no memory for one")?;
    engine
        .adopt(target.id)
        .with_context(|| format!("cannot take hold of the open sockets of {} ({})", target.name, target.id))
}

/// Ends every membership of a target.
fn leave(engine: &mut Engine, number: u32) -> anyhow::Result<()> {
    let members: Vec<_> = engine
        .members
        .iter()
        .flatten()
        .filter(|(_, member)| member.target == number)
        .map(|(key, _)| key)
        .collect();
    for key in members {
        absent_is_fine(engine.members.remove(&key))?;
    }
    Ok(())
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::ENOENT) => {
            Ok(())
        }
        result => result,
    }
}

/// Now, as `bpf_ktime_get_ns` tells it.
fn now_ns() -> anyhow::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
    Ok(u64::try_from(now.tv_sec())? * NS_PER_SEC + u64::try_from(now.tv_nsec())?)
}
