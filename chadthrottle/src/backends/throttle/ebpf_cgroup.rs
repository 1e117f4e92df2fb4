//! Limits enforced in `cgroup_skb` programs, in both directions, on sockets tagged with their owner.
//!
//! Nothing is moved to another cgroup, no qdisc and no table is touched, and connections that are open already are
//! held as well. What is over the limit is dropped; the sender's kernel is told of congestion.
//!
//! So that TCP comes to that as rarely as possible, its sockets are asked to go slower as well, by `flow`
//! control that aims a little below the limit. The programs do not know of it: what it cannot hold, they hold alone.

use chadthrottle_common::ThrottleStats;

use super::{
    DownloadThrottleBackend, Scope, Target, UploadThrottleBackend,
    flow::{self, SharedFlow},
};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        ebpf::{
            self, Engine, SharedEngine,
            targets::{Direction, Targets},
        },
    },
    process::{ProcessError, ProcessId, cgroup_path},
};

/// Name on the command line.
pub const NAME: &str = "ebpf_cgroup";
/// Nothing else covers every protocol, both directions and open connections without touching the host.
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

/// What flow control aims at, in parts of a thousand of the limit, so that hardly anything is left to be dropped.
const AIM: u64 = 990;

/// One direction of it.
struct Limiter {
    flow: SharedFlow,
    engine: SharedEngine,
    options: BackendOptions,
    direction: Direction,
}

impl Limiter {
    fn engine<T>(&self, work: impl FnOnce(&mut Engine) -> anyhow::Result<T>) -> Result<T, BackendError> {
        self.engine.with(NAME, &self.options, work)
    }

    fn init(&self) -> Result<(), BackendError> {
        self.engine(|_| Ok(()))
    }

    fn set(&self, target: &Target, limit: u64) -> Result<(), BackendError> {
        let id = target.id;
        // A changed limit goes on for as long as it is wanted; a new one needs somebody to limit.
        let process = procfs::process::Process::new(id.pid).map_err(|_| ProcessError::Absent(id.pid))?;
        if !id.is_alive() {
            return Err(ProcessError::Absent(id.pid).into());
        }
        let path = cgroup_path(&process).unwrap_or_default();
        self.engine(|engine| {
            let root = engine.cgroup();
            // A child that is held before its exec moves itself below the root when it is released.
            if target.scope == Scope::Process && !root.contains(&path) {
                return Ok(Err(BackendError::Unenforceable {
                    backend: NAME,
                    process: id,
                    reason: format!(
                        "it is in the cgroup {path}, outside {}; choose a --cgroup-root above it, or none",
                        root.path.display()
                    ),
                }));
            }
            engine.with_targets(|targets, engine| targets.set(engine, target, self.direction, limit))?;
            Ok(Ok(()))
        })??;
        let aim = limit / 1000 * AIM + limit % 1000 * AIM / 1000;
        flow::slow_down(&self.flow, target, self.flow_direction(), aim, &self.options);
        Ok(())
    }

    const fn flow_direction(&self) -> flow::Direction {
        match self.direction {
            Direction::Upload => flow::Direction::Upload,
            Direction::Download => flow::Direction::Download,
        }
    }

    fn remove(&self, process: ProcessId) -> Result<(), BackendError> {
        let direction = self.direction;
        self.flow.release(process, self.flow_direction());
        self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.remove(engine, process, direction))
        })
    }

    fn limit(&self, process: ProcessId) -> Option<u64> {
        self.engine(|engine| Ok(engine.targets().limit(process, self.direction))).ok().flatten()
    }

    fn stats(&self, process: ProcessId) -> Result<ThrottleStats, BackendError> {
        self.engine(|engine| engine.targets().stats(engine, process, self.direction))
    }

    fn maintain(&self) -> Result<(), BackendError> {
        self.engine(|engine| {
            engine.with_targets(Targets::forget_ended_members);
            Ok(())
        })
    }

    fn cleanup(&self) -> Result<(), BackendError> {
        let direction = self.direction;
        self.flow.release_all(self.flow_direction());
        self.engine(|engine| engine.with_targets(|targets, engine| targets.remove_all(engine, direction)))
    }
}

impl Drop for Limiter {
    /// Also where nobody cleans up.
    fn drop(&mut self) {
        self.flow.release_all(self.flow_direction());
    }
}

/// Upload limits.
pub struct EbpfCgroupUpload(Limiter);

impl EbpfCgroupUpload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        let (engine, flow, options) = (engine.clone(), flow.clone(), options.clone());
        Self(Limiter { flow, engine, options, direction: Direction::Upload })
    }
}

impl UploadThrottleBackend for EbpfCgroupUpload {
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
        self.0.init()
    }

    fn throttle_upload(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit)
    }

    fn remove_upload_throttle(&mut self, process: ProcessId) -> Result<(), BackendError> {
        self.0.remove(process)
    }

    fn get_upload_throttle(&self, process: ProcessId) -> Option<u64> {
        self.0.limit(process)
    }

    fn upload_stats(&self, process: ProcessId) -> Result<ThrottleStats, BackendError> {
        self.0.stats(process)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.0.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.cleanup()
    }
}

/// Download limits.
pub struct EbpfCgroupDownload(Limiter);

impl EbpfCgroupDownload {
    /// A limiter on the programs that all eBPF backends share, with flow control (guarded) in front.
    #[must_use]
    pub fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        let (engine, flow, options) = (engine.clone(), flow.clone(), options.clone());
        Self(Limiter { flow, engine, options, direction: Direction::Download })
    }
}

impl DownloadThrottleBackend for EbpfCgroupDownload {
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
        self.0.init()
    }

    fn throttle_download(&mut self, target: &Target, limit: u64) -> Result<(), BackendError> {
        self.0.set(target, limit)
    }

    fn remove_download_throttle(&mut self, process: ProcessId) -> Result<(), BackendError> {
        self.0.remove(process)
    }

    fn get_download_throttle(&self, process: ProcessId) -> Option<u64> {
        self.0.limit(process)
    }

    fn download_stats(&self, process: ProcessId) -> Result<ThrottleStats, BackendError> {
        self.0.stats(process)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.0.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.cleanup()
    }
}
