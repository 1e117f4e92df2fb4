//! From counters to rates. Pure: the time is an argument.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

use crate::process::{ProcessId, ProcessInfo};

/// IP bytes in both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes sent.
    pub upload: u64,
    /// Bytes received.
    pub download: u64,
}

impl Traffic {
    /// Both directions added up.
    #[must_use]
    pub const fn sum(self) -> u64 {
        self.upload.saturating_add(self.download)
    }

    /// Both added up, direction by direction.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            upload: self.upload.saturating_add(other.upload),
            download: self.download.saturating_add(other.download),
        }
    }

    /// What came on top of `earlier`.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Self {
        Self {
            upload: self.upload.saturating_sub(earlier.upload),
            download: self.download.saturating_sub(earlier.download),
        }
    }

    /// Bytes a second over `interval`.
    pub(crate) fn per_second(self, interval: Duration) -> Self {
        let rate = |bytes: u64| {
            let nanoseconds = interval.as_nanos();
            if nanoseconds == 0 {
                return 0;
            }
            let rate = u128::from(bytes) * 1_000_000_000 / nanoseconds;
            u64::try_from(rate).unwrap_or(u64::MAX)
        };
        Self { upload: rate(self.upload), download: rate(self.download) }
    }
}

/// What belongs to no process, by why it does not. Bytes since the monitor started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Buckets {
    /// The kernel's own sockets: tunnels and file systems in the kernel.
    pub kernel: Traffic,
    /// What the kernel answers without a socket that could be somebody's: RST, ICMP, TIME-WAIT.
    pub replies: Traffic,
    /// Sockets that must be somebody's, but the monitor does not know whose.
    pub unknown: Traffic,
    /// Processes that ended so long ago that they are not listed any more.
    pub ended: Traffic,
    /// What this host passes on from one interface to another: arrived on the one, sent on the other. Not its own.
    pub forwarded: Traffic,
}

impl Buckets {
    /// What this host itself sent and received without a process that could be named: all but what it passes on.
    #[must_use]
    pub const fn unattributed(&self) -> Traffic {
        self.kernel.plus(self.replies).plus(self.unknown).plus(self.ended)
    }
}

/// One interface: what it counted by itself, and what that was. Since the monitor started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceTraffic {
    /// Its name.
    pub name: Arc<str>,
    /// What it counted, in its own bytes: with link-layer headers.
    pub counted: Traffic,
    /// IP bytes of processes.
    pub processes: Traffic,
    /// IP bytes of nobody.
    pub buckets: Buckets,
    /// What it counted and nobody is known for, in its own bytes. `None` where its packets are those of other
    /// interfaces as well, as a bridge's port's are.
    pub residual: Option<Residual>,
}

/// What is missing in the books, in bytes. Negative where more was accounted for than was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Residual {
    /// Of what was sent.
    pub upload: i64,
    /// Of what was received.
    pub download: i64,
}

impl Residual {
    /// Both directions added up.
    #[must_use]
    pub const fn sum(self) -> i64 {
        self.upload.saturating_add(self.download)
    }
}

/// One process in a sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessTraffic {
    /// Who.
    pub info: Arc<ProcessInfo>,
    /// Bytes since the monitor started.
    pub total: Traffic,
    /// Those of them that went to and came from local addresses; the others were on the internet. `None` where the
    /// monitor does not tell.
    pub local: Option<Traffic>,
    /// By interface, where the monitor tells; what was in other network namespaces is in none.
    pub interfaces: Vec<(Arc<str>, Traffic)>,
    /// Whether it still ran when the sample was taken.
    pub alive: bool,
}

impl ProcessTraffic {
    /// From a monitor that tells nothing but totals.
    #[must_use]
    pub const fn new(info: Arc<ProcessInfo>, total: Traffic, alive: bool) -> Self {
        Self { info, total, local: None, interfaces: Vec::new(), alive }
    }
}

/// Every process that the monitor has seen traffic of.
pub type ProcessMap = BTreeMap<ProcessId, ProcessTraffic>;

/// What a monitor read at one instant: totals since it started.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// By process.
    pub processes: ProcessMap,
    /// What belongs to no process.
    pub buckets: Buckets,
    /// By interface, where the monitor tells.
    pub interfaces: Vec<InterfaceTraffic>,
    /// Events that could not be recorded.
    pub lost_events: u64,
}

/// One process over one interval.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// Who.
    pub info: Arc<ProcessInfo>,
    /// Bytes a second over the interval.
    pub rate: Traffic,
    /// Bytes since the monitor started.
    pub total: Traffic,
    /// Those of them that went to and came from local addresses.
    pub local: Option<Traffic>,
    /// Bytes a second to and from local addresses, over the interval.
    pub local_rate: Option<Traffic>,
    /// By interface.
    pub interfaces: Vec<(Arc<str>, Traffic)>,
    /// Whether it still ran at the end of the interval.
    pub alive: bool,
}

impl ProcessRow {
    /// From a monitor that tells nothing but totals.
    #[must_use]
    pub const fn new(info: Arc<ProcessInfo>, rate: Traffic, total: Traffic, alive: bool) -> Self {
        Self { info, rate, total, local: None, local_rate: None, interfaces: Vec::new(), alive }
    }
}

/// What happened in one interval.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Length of the interval. Zero for the first one: there are no rates yet.
    pub interval: Duration,
    /// Every process seen so far, by identity.
    pub processes: Vec<ProcessRow>,
    /// All processes and what belongs to none, bytes a second.
    pub rate: Traffic,
    /// What belongs to no process, since the monitor started.
    pub buckets: Buckets,
    /// By interface, since the monitor started.
    pub interfaces: Vec<InterfaceTraffic>,
    /// Events that could not be recorded since the monitor started.
    pub lost_events: u64,
}

/// Turns samples into snapshots.
#[derive(Debug, Default)]
pub struct Stats {
    previous: Option<Previous>,
}

#[derive(Debug)]
struct Previous {
    at: Duration,
    /// Of each process: all of it, and the local part.
    totals: HashMap<ProcessId, (Traffic, Option<Traffic>)>,
    unattributed: Traffic,
}

impl Stats {
    /// The interval that ends with this sample, taken at `now` (since any fixed instant).
    pub fn advance(&mut self, now: Duration, sample: &Sample) -> Snapshot {
        let interval =
            self.previous.as_ref().map_or(Duration::ZERO, |previous| now.saturating_sub(previous.at));
        let rate = |total: Traffic, earlier: Option<Traffic>| {
            // Without an interval there is no rate; with one, a process that was not there before began at 0.
            total.since(earlier.unwrap_or_default()).per_second(interval)
        };
        let earlier =
            |id: &ProcessId| self.previous.as_ref().and_then(|previous| previous.totals.get(id).copied());
        let processes: Vec<ProcessRow> = sample
            .processes
            .iter()
            .map(|(id, traffic)| ProcessRow {
                info: Arc::clone(&traffic.info),
                rate: rate(traffic.total, earlier(id).map(|(total, _)| total)),
                total: traffic.total,
                local: traffic.local,
                local_rate: traffic.local.map(|local| rate(local, earlier(id).and_then(|(_, local)| local))),
                interfaces: traffic.interfaces.clone(),
                alive: traffic.alive,
            })
            .collect();
        let unattributed =
            rate(sample.buckets.unattributed(), self.previous.as_ref().map(|previous| previous.unattributed));
        let sum = processes.iter().map(|row| row.rate).fold(unattributed, Traffic::plus);
        self.previous = Some(Previous {
            at: now,
            totals: sample
                .processes
                .iter()
                .map(|(id, traffic)| (*id, (traffic.total, traffic.local)))
                .collect(),
            unattributed: sample.buckets.unattributed(),
        });
        Snapshot {
            interval,
            processes,
            rate: sum,
            buckets: sample.buckets,
            interfaces: sample.interfaces.clone(),
            lost_events: sample.lost_events,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(total: &[(i32, u64, u64)]) -> Sample {
        let processes = total.iter().map(|&(pid, upload, download)| {
            let id = ProcessId { pid, start_time: 7 };
            let info = ProcessInfo {
                id,
                name: format!("p{pid}"),
                exe: None,
                user: None,
                cgroup: None,
                container: None,
            };
            (id, ProcessTraffic::new(Arc::new(info), Traffic { upload, download }, true))
        });
        Sample { processes: processes.collect(), ..Sample::default() }
    }

    #[test]
    fn rates_are_differences_over_the_interval() {
        let mut stats = Stats::default();
        let first = stats.advance(Duration::from_secs(10), &sample(&[(1, 1000, 0)]));
        assert_eq!(first.interval, Duration::ZERO);
        assert_eq!(first.processes[0].rate, Traffic::default());

        let second = stats.advance(Duration::from_millis(10_500), &sample(&[(1, 2000, 50), (2, 0, 500)]));
        assert_eq!(second.processes[0].rate, Traffic { upload: 2000, download: 100 });
        assert_eq!(second.processes[1].rate, Traffic { upload: 0, download: 1000 });
        assert_eq!(second.rate, Traffic { upload: 2000, download: 1100 });
    }

    #[test]
    fn a_clock_that_stands_still_or_a_counter_that_shrinks_makes_no_rate() {
        let mut stats = Stats::default();
        stats.advance(Duration::from_secs(1), &sample(&[(1, 1000, 0)]));
        let same_time = stats.advance(Duration::from_secs(1), &sample(&[(1, 9000, 0)]));
        assert_eq!(same_time.processes[0].rate, Traffic::default());
        let shrunk = stats.advance(Duration::from_secs(2), &sample(&[(1, 10, 0)]));
        assert_eq!(shrunk.processes[0].rate, Traffic::default());
    }
}
