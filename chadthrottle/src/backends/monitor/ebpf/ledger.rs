//! What has been counted for whom, of processes that run and of those that have ended.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use chadthrottle_common::{ProcessKey, ProcessRecord, SCOPE_LOCAL, TrafficCounters, TrafficKey};

use super::books::{Accounted, Books, both, ip_bytes};
use crate::{
    backends::ebpf,
    process::{ProcessId, ProcessInfo},
    stats::{Buckets, ProcessMap, ProcessTraffic, Traffic},
};

/// Processes that have ended and are still listed by name. What the oldest had is added up beyond that.
const MOST_ENDED: usize = 4096;
/// How long what /proc said of a busy process is believed: a program may give up its user, or be moved to another
/// cgroup, and no event tells.
const PROC_IS_OLD: Duration = Duration::from_secs(10);

/// Where and to whom: interface and scope.
type Place = (u32, u32);

/// Everybody who has been counted.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    processes: HashMap<ProcessKey, Known>,
    /// Those that have ended, in that order.
    ended: VecDeque<ProcessKey>,
    /// Ended processes in the kernel's table that were not counted when it was read last.
    idle: HashSet<ProcessKey>,
    /// What is counted in the kernel and what was, by interface; under 0 what was in other network namespaces.
    by_interface: HashMap<u32, Accounted>,
    /// What has been removed from the kernel's table.
    removed: HashMap<u32, Accounted>,
    /// Of processes that are not listed any more.
    unlisted: Traffic,
}

/// A process.
#[derive(Debug)]
struct Known {
    info: Arc<ProcessInfo>,
    /// Whether `info` says more than the pid.
    is_described: bool,
    /// What the record of it said of changes when /proc was asked last.
    changes: u32,
    /// When that was; `None` where it is too late to ask.
    asked: Option<Instant>,
    /// What the kernel's table says now.
    counted: HashMap<Place, TrafficCounters>,
    /// What it said before it was removed from there.
    removed: HashMap<Place, TrafficCounters>,
    alive: bool,
}

/// What need not be in the kernel's tables any more.
#[derive(Debug, Default)]
pub(super) struct Finished {
    pub(super) traffic: Vec<TrafficKey>,
    pub(super) processes: Vec<ProcessKey>,
}

impl Ledger {
    /// Takes in what was just read from the kernel. `describe` tells what a process is: by /proc, or else by what was
    /// noted of it.
    pub(super) fn take_in(
        &mut self,
        records: &[(ProcessKey, ProcessRecord)],
        traffic: Vec<(TrafficKey, TrafficCounters)>,
        mut describe: impl FnMut(
            ProcessId,
            ProcessKey,
            Option<&ProcessRecord>,
        ) -> Result<ProcessInfo, Box<ProcessInfo>>,
    ) -> Finished {
        let records: HashMap<_, _> = records.iter().map(|(key, record)| (*key, record)).collect();
        self.by_interface.clone_from(&self.removed);
        let mut counted: HashMap<ProcessKey, HashMap<Place, TrafficCounters>> = HashMap::new();
        for (key, counters) in traffic {
            self.by_interface.entry(key.ifindex).or_default().add(key.owner, &counters);
            if key.owner.is_process() {
                counted.entry(key.owner).or_default().insert((key.ifindex, key.scope), counters);
            }
        }
        let mut finished = Finished::default();
        self.find_idle(&records, &counted, &mut finished);
        for (key, counted) in counted {
            let record = records.get(&key).copied();
            let known = self.processes.entry(key).or_insert_with(|| Known::new(key));
            let was_alive = known.alive;
            if known.update(key, counted, record, &mut describe) {
                self.retire(key, &mut finished);
            } else if was_alive && !known.alive {
                self.ended.push_back(key);
            }
        }
        self.unlist();
        finished
    }

    /// Processes that opened a socket, used it in no way and ended.
    fn find_idle(
        &mut self,
        records: &HashMap<ProcessKey, &ProcessRecord>,
        counted: &HashMap<ProcessKey, HashMap<Place, TrafficCounters>>,
        finished: &mut Finished,
    ) {
        let ended = records.iter().filter(|(_, record)| record.has_ended != 0).map(|(key, _)| *key);
        let idle: HashSet<_> = ended.filter(|key| !counted.contains_key(key)).collect();
        // Not at once: its last packets may be on their way.
        finished.processes.extend(idle.intersection(&self.idle));
        self.idle = idle;
    }

    /// A process has ended and its counters have come to rest: the kernel need not keep them.
    fn retire(&mut self, key: ProcessKey, finished: &mut Finished) {
        let Some(known) = self.processes.get_mut(&key) else { return };
        for ((ifindex, scope), counters) in known.counted.drain() {
            finished.traffic.push(TrafficKey { owner: key, ifindex, scope });
            self.removed.entry(ifindex).or_default().add(key, &counters);
            let removed = known.removed.entry((ifindex, scope)).or_default();
            *removed = both(*removed, counters);
        }
        finished.processes.push(key);
    }

    /// Lists no more than so many that have ended.
    fn unlist(&mut self) {
        while self.ended.len() > MOST_ENDED {
            let Some(key) = self.ended.pop_front() else { return };
            if let Some(known) = self.processes.remove(&key) {
                self.unlisted = self.unlisted.plus(known.total());
            }
        }
    }

    /// What is accounted for on each interface.
    pub(super) const fn by_interface(&self) -> &HashMap<u32, Accounted> {
        &self.by_interface
    }

    /// What belongs to nobody who is listed.
    pub(super) fn buckets(&self) -> Buckets {
        let all = self.by_interface.values().map(Accounted::buckets);
        let sum = all.fold(Buckets::default(), |sum, of_one| Buckets {
            kernel: sum.kernel.plus(of_one.kernel),
            replies: sum.replies.plus(of_one.replies),
            unknown: sum.unknown.plus(of_one.unknown),
            ended: sum.ended,
            forwarded: sum.forwarded.plus(of_one.forwarded),
        });
        Buckets { ended: self.unlisted, ..sum }
    }

    /// Everybody who is listed.
    pub(super) fn processes(&self, books: &Books) -> ProcessMap {
        self.processes.iter().map(|(key, known)| (ebpf::process(*key), known.traffic(books))).collect()
    }
}

impl Known {
    fn new(key: ProcessKey) -> Self {
        let id = ebpf::process(key);
        let info = ProcessInfo { id, name: "?".into(), exe: None, user: None, cgroup: None, container: None };
        Self {
            info: Arc::new(info),
            is_described: false,
            changes: 0,
            asked: None,
            counted: HashMap::new(),
            removed: HashMap::new(),
            alive: true,
        }
    }

    /// Takes in what was just read. Whether the process has ended and its counters have come to rest: a socket may
    /// outlive its process by what stands in its queue.
    fn update(
        &mut self,
        key: ProcessKey,
        counted: HashMap<Place, TrafficCounters>,
        record: Option<&ProcessRecord>,
        describe: &mut impl FnMut(
            ProcessId,
            ProcessKey,
            Option<&ProcessRecord>,
        ) -> Result<ProcessInfo, Box<ProcessInfo>>,
    ) -> bool {
        let id = ebpf::process(key);
        let has_moved = self.counted != counted;
        let was_alive = self.alive;
        self.counted = counted;
        if was_alive {
            // Where there was no room for a record, nobody tells.
            self.alive = record.map_or_else(|| id.is_alive(), |record| record.has_ended == 0);
        }
        let changes = record.map_or(self.changes, |record| record.changes);
        let is_old = self.asked.is_some_and(|asked| has_moved && asked.elapsed() > PROC_IS_OLD);
        if !self.is_described || (was_alive && (changes != self.changes || is_old)) {
            self.changes = changes;
            match describe(id, key, record) {
                Ok(info) => self.is(info, Some(Instant::now())),
                // What /proc said before is better.
                Err(noted) if self.asked.is_none() => {
                    self.is(*noted, None);
                    // It came between two readings: in the next one there is a record of it.
                    self.is_described = record.is_some();
                }
                Err(_) => {}
            }
        }
        !was_alive && !has_moved
    }

    fn is(&mut self, info: ProcessInfo, asked: Option<Instant>) {
        self.is_described = true;
        self.asked = asked;
        if *self.info != info {
            self.info = Arc::new(info);
        }
    }

    fn places(&self) -> impl Iterator<Item = (Place, Traffic)> {
        let all = self.removed.iter().chain(&self.counted);
        all.map(|(place, counters)| (*place, ip_bytes(counters)))
    }

    /// Everything since the monitor started.
    fn total(&self) -> Traffic {
        self.places().fold(Traffic::default(), |sum, (_, traffic)| sum.plus(traffic))
    }

    fn traffic(&self, books: &Books) -> ProcessTraffic {
        let mut local = Traffic::default();
        let mut interfaces: Vec<(Arc<str>, Traffic)> = Vec::new();
        for ((ifindex, scope), traffic) in self.places() {
            if scope == SCOPE_LOCAL {
                local = local.plus(traffic);
            }
            let Some(name) = books.name(ifindex) else { continue };
            match interfaces.iter_mut().find(|(other, _)| other == name) {
                Some((_, sum)) => *sum = sum.plus(traffic),
                None => interfaces.push((Arc::clone(name), traffic)),
            }
        }
        interfaces.sort_by(|(one, _), (other, _)| one.cmp(other));
        ProcessTraffic {
            info: Arc::clone(&self.info),
            total: self.total(),
            local: Some(local),
            interfaces,
            alive: self.alive,
        }
    }
}

#[cfg(test)]
mod tests;
