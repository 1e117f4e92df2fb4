//! Counters in `cgroup_skb` programs, by the owner in socket-local storage.
//!
//! An update is a few system calls, whatever passes: the tables of the programs are read in batches, and /proc is asked
//! only about processes that are new or have changed.

mod books;
mod ledger;

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
};

use chadthrottle_common::{LOOPBACK_IFINDEX, ProcessKey, ProcessRecord};

use self::{books::Books, ledger::Ledger};
use super::MonitorBackend;
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        ebpf::{self, Engine, SharedEngine},
    },
    process::{KnownNames, ProcessId, ProcessInfo},
    stats::Sample,
    sys::cgroup::CgroupNames,
};

/// Name on the command line.
pub const NAME: &str = "ebpf";
/// It counts in the kernel, where the owner is known.
pub const PRIORITY: BackendPriority = BackendPriority::Best;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities::ALL_TRAFFIC;

/// The monitor.
pub struct EbpfMonitor {
    engine: SharedEngine,
    options: BackendOptions,
    names: Names,
    ledger: Ledger,
    books: Books,
}

/// What processes are called, and by whom they are run.
#[derive(Debug, Default)]
struct Names {
    known: KnownNames,
    cgroups: CgroupNames,
}

impl EbpfMonitor {
    /// A monitor on the programs that all eBPF backends share.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine) -> Self {
        Self {
            engine: engine.clone(),
            options: options.clone(),
            names: Names::default(),
            ledger: Ledger::default(),
            books: Books::default(),
        }
    }

    fn read(&mut self, engine: &mut Engine) -> anyhow::Result<Sample> {
        engine.refresh_network()?;
        // Who has ended is asked first, and then all is counted that was sent until then: the last bytes of a process
        // are in the sample that says it has ended.
        engine.reuse_slots()?;
        let records = engine.accounts().processes()?;
        let traffic = engine.accounts().traffic()?;
        let names = &mut self.names;
        names.cgroups.begin();
        let finished = self.ledger.take_in(&records, traffic, |id, key, record| {
            let read = ProcessInfo::read(id, &mut names.known);
            read.ok_or_else(|| Box::new(names.noted(engine, id, key, record)))
        });
        for key in &finished.traffic {
            engine.accounts_mut().forget_traffic(key);
        }
        for process in &finished.processes {
            engine.accounts_mut().forget_process(process);
        }
        let network = engine.network();
        self.books.read(network.links(), network.at_start());
        let accounted = self.ledger.by_interface();
        let counts_loopback = self.options.include_loopback;
        let interfaces = self.books.close(accounted, |index, name| {
            network.is_chosen(name) && (index != LOOPBACK_IFINDEX || counts_loopback)
        });
        Ok(Sample {
            processes: self.ledger.processes(&self.books),
            buckets: self.ledger.buckets(),
            interfaces,
            lost_events: engine.accounts().lost()?,
        })
    }
}

impl Names {
    /// What is known of a process without /proc, which came too late.
    fn noted(
        &mut self,
        engine: &Engine,
        id: ProcessId,
        key: ProcessKey,
        record: Option<&ProcessRecord>,
    ) -> ProcessInfo {
        let name = record.map_or_else(
            || "?".to_owned(),
            |record| {
                let end = record.comm.iter().position(|&byte| byte == 0).unwrap_or(record.comm.len());
                String::from_utf8_lossy(&record.comm[..end]).into_owned()
            },
        );
        let cgroup = record.and_then(|record| self.cgroups.name(engine.cgroup(), record.cgroup_id));
        ProcessInfo {
            id,
            name,
            exe: engine.accounts().program(&key).and_then(executable),
            user: record.map(|record| self.known.user(record.uid)),
            container: cgroup.as_deref().and_then(|cgroup| self.known.container(cgroup)),
            cgroup,
        }
    }
}

/// The file that was executed by this path, where the path alone says which. One below the working directory of a
/// process that has ended does not.
fn executable(path: Vec<u8>) -> Option<PathBuf> {
    let path = PathBuf::from(OsString::from_vec(path));
    // As /proc would have had it: without symbolic links. The process may have seen other files than we do.
    path.is_absolute().then(|| std::fs::canonicalize(&path).unwrap_or_else(|_| Path::new(&path).to_owned()))
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
        self.engine.adopt_everything(NAME, &self.options)
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let shared = self.engine.clone();
        let options = self.options.clone();
        shared.with(NAME, &options, |engine| self.read(engine))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        // The programs go with the last backend that shares them.
        self.ledger = Ledger::default();
        Ok(())
    }
}
