//! Counters in `cgroup_skb` programs, by the owner in socket-local storage.

use std::{collections::HashMap, sync::Arc};

use chadthrottle_common::ProcessRecord;

use super::MonitorBackend;
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        ebpf::{self, Engine, SharedEngine},
    },
    process::{ProcessId, ProcessInfo, UserNames},
    stats::{ProcessMap, ProcessTraffic, Sample, Traffic},
};

/// Name on the command line.
pub const NAME: &str = "ebpf";
/// It counts in the kernel, where the owner is known.
pub const PRIORITY: BackendPriority = BackendPriority::Best;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities {
    ipv4: true,
    ipv6: true,
    tcp: true,
    udp: true,
    open_connections: true,
    moves_process: false,
    shapes: false,
};

/// The monitor.
pub struct EbpfMonitor {
    engine: SharedEngine,
    options: BackendOptions,
    users: UserNames,
    /// What has been read so far, of processes that run and of those that have ended.
    seen: HashMap<ProcessId, Seen>,
}

struct Seen {
    info: Arc<ProcessInfo>,
    /// Whether `info` came from /proc, and not from what the kernel noted.
    is_complete: bool,
    /// What the kernel's counters said last.
    counted: Traffic,
    /// What they had said when they were last removed from the kernel.
    removed: Traffic,
    alive: bool,
}

impl EbpfMonitor {
    /// A monitor on the programs that all eBPF backends share.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine) -> Self {
        Self {
            engine: engine.clone(),
            options: options.clone(),
            users: UserNames::default(),
            seen: HashMap::new(),
        }
    }

    fn read(&mut self, engine: &mut Engine) -> anyhow::Result<Sample> {
        for (key, counters) in engine.traffic()? {
            let id = ebpf::process(key);
            let counted = Traffic { upload: counters.upload_bytes, download: counters.download_bytes };
            let users = &mut self.users;
            let seen = self.seen.entry(id).or_insert_with(|| Seen {
                info: Arc::new(noted(id, engine.record(&key), users)),
                is_complete: false,
                counted: Traffic::default(),
                removed: Traffic::default(),
                alive: true,
            });
            let has_come_to_rest = seen.update(id, counted, users);
            if has_come_to_rest {
                engine.forget(&key);
                seen.removed = seen.total();
                seen.counted = Traffic::default();
            }
        }
        let processes: ProcessMap = self.seen.iter().map(|(id, seen)| (*id, seen.to_traffic())).collect();
        Ok(Sample { processes, unattributed: engine.unowned()?, lost_events: engine.lost()? })
    }
}

impl Seen {
    /// Takes in what was just read. Whether the process has ended and its counters have come to rest: a socket may
    /// outlive its process by what stands in its queue.
    fn update(&mut self, id: ProcessId, counted: Traffic, users: &mut UserNames) -> bool {
        let has_moved = self.counted != counted;
        let was_alive = self.alive;
        self.counted = counted;
        if was_alive {
            self.alive = id.is_alive();
        }
        // A name changes by exec, so it is read again while the process does something.
        if self.alive
            && (has_moved || !self.is_complete)
            && let Some(info) = ProcessInfo::read(id, users)
        {
            self.is_complete = true;
            if *self.info != info {
                self.info = Arc::new(info);
            }
        }
        !was_alive && !has_moved
    }

    /// Everything since the monitor started.
    const fn total(&self) -> Traffic {
        Traffic {
            upload: self.removed.upload + self.counted.upload,
            download: self.removed.download + self.counted.download,
        }
    }

    fn to_traffic(&self) -> ProcessTraffic {
        ProcessTraffic { info: Arc::clone(&self.info), total: self.total(), alive: self.alive }
    }
}

/// What is known of a process without /proc, which may be too late to ask.
fn noted(id: ProcessId, record: Option<ProcessRecord>, users: &mut UserNames) -> ProcessInfo {
    let name = record.map_or_else(
        || "?".to_owned(),
        |record| {
            let end = record.comm.iter().position(|&byte| byte == 0).unwrap_or(record.comm.len());
            String::from_utf8_lossy(&record.comm[..end]).into_owned()
        },
    );
    ProcessInfo { id, name, exe: None, user: record.map(|record| users.name(record.uid)), cgroup: None }
}

impl MonitorBackend for EbpfMonitor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        ebpf::probe(options)
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        self.engine.with(NAME, &self.options, |engine| {
            engine.adopt_everything();
            Ok(())
        })
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let shared = self.engine.clone();
        let options = self.options.clone();
        shared.with(NAME, &options, |engine| self.read(engine))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        // The programs go with the last backend that shares them.
        self.seen.clear();
        Ok(())
    }
}
