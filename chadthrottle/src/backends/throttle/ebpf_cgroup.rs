//! Limits enforced in `cgroup_skb` programs, in both directions, on sockets tagged with their owner.
//!
//! Nothing is moved to another cgroup, no qdisc and no table is touched, and connections that are open already are
//! held as well. What is over the limit is dropped; the sender's kernel is told of congestion.
//!
//! So that TCP comes to that as rarely as possible, its sockets are asked to go slower as well, by `flow`
//! control that aims a little below the limit. The programs do not know of it: what it cannot hold, they hold alone.

use std::{sync::Arc, time::Duration};

use chadthrottle_common::ThrottleStats;

use super::{
    DownloadThrottleBackend, Subject, Target, UploadThrottleBackend,
    flow::{self, Achievable, Counted, SharedFlow},
};
use crate::{
    backends::{
        Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
        ebpf::{
            self, Engine, SharedEngine,
            limits::{Direction, Leniency},
            targets::Targets,
        },
    },
    process::{ProcessError, cgroup_path},
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

/// What the programs have seen of a target, for the flow control in front of them.
#[must_use]
pub fn behind(engine: &SharedEngine) -> flow::AskBehind {
    let engine = engine.clone();
    Arc::new(move |subject, direction| {
        let direction = match direction {
            flow::Direction::Upload => Direction::Upload,
            flow::Direction::Download => Direction::Download,
        };
        let (datagrams, stats) =
            engine.if_free(|engine| engine.targets().use_of(engine, subject, direction)).flatten()?;
        // What is not taken from a socket that sends stays there, and is offered again.
        let dropped = if direction == Direction::Download { stats.bytes_dropped } else { 0 };
        Some(flow::Behind { datagrams, dropped })
    })
}

/// What flow control aims at, in parts of a thousand of the limit, so that hardly anything is left to be dropped.
const AIM: u64 = 998;

/// How far TCP may be ahead of the limit while flow control holds it, and evens it out; less where round trips are short
/// (`may_owe`, chadthrottle-ebpf).
const DEBT: Duration = Duration::from_millis(500);
/// So long may come what was promised to senders before there was a limit: what a path of 20 ms carries at a gigabit took
/// a third of it, one of 150 ms most of it. Windows are as small as they are to be from the beginning.
const GRACE: Duration = Duration::from_secs(1);

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
        if let Some(id) = target.subject.process() {
            // A changed limit goes on for as long as it is wanted; a new one needs somebody to limit.
            let process = procfs::process::Process::new(id.pid).map_err(|_| ProcessError::Absent(id.pid))?;
            if !id.is_alive() {
                return Err(ProcessError::Absent(id.pid).into());
            }
            // A child that is held before its exec moves itself below the root when it is released.
            if matches!(target.subject, Subject::Process(_)) {
                self.check_place(target, &cgroup_path(&process).unwrap_or_default())?;
            }
        }
        if let Subject::Cgroup(path) = &target.subject {
            self.check_place(target, path)?;
        }
        let leniency = self.slow_down(target, limit);
        let set = self.engine(|engine| {
            engine
                .with_targets(|targets, engine| targets.set(engine, target, self.direction, limit, leniency))
        });
        if set.is_err() {
            self.flow.release(&target.subject, self.flow_direction());
        }
        set
    }

    /// Whether a cgroup is one that the programs see.
    fn check_place(&self, target: &Target, path: &str) -> Result<(), BackendError> {
        self.engine(|engine| {
            let root = engine.cgroup();
            if root.contains(path) {
                return Ok(Ok(()));
            }
            let reason = format!(
                "it is in the cgroup {path}, outside {}; choose a --cgroup-root above it, or none",
                root.path.display()
            );
            Ok(Err(BackendError::Unenforceable { backend: NAME, subject: target.subject.clone(), reason }))
        })?
    }

    /// Asks the sockets of a target to keep to its limit by themselves, as far as that goes. What they are let off in
    /// return.
    fn slow_down(&self, target: &Target, limit: u64) -> Leniency {
        let direction = self.flow_direction();
        let aim = limit / 1000 * AIM + limit % 1000 * AIM / 1000;
        // Flow control can neither block nor tell interfaces apart.
        let is_for_all = self.options.interfaces.is_empty();
        let held = (aim > 0 && is_for_all)
            .then(|| self.flow.hold(target, direction, aim, &Counted::new(&self.options, target.traffic)));
        let why_not = match held {
            Some(Ok(Achievable::Yes)) => {
                let is_open = self.flow.has_connections(&target.subject);
                return Leniency { debt: DEBT, grace: if is_open { GRACE } else { Duration::ZERO } };
            }
            // As low as its windows go, for next to nothing is dropped then.
            Some(Ok(Achievable::AtLeast(_))) => return Leniency::default(),
            Some(Err(error)) => error.to_string(),
            None => "it is a block, or for some interfaces alone".to_owned(),
        };
        log::debug!("no flow control of {target}: {why_not}");
        self.flow.release(&target.subject, direction);
        Leniency::default()
    }

    const fn flow_direction(&self) -> flow::Direction {
        match self.direction {
            Direction::Upload => flow::Direction::Upload,
            Direction::Download => flow::Direction::Download,
        }
    }

    fn remove(&self, subject: &Subject) -> Result<(), BackendError> {
        let direction = self.direction;
        self.flow.release(subject, self.flow_direction());
        self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.remove(engine, subject, direction))
        })
    }

    fn limit(&self, subject: &Subject) -> Option<u64> {
        self.engine(|engine| Ok(engine.targets().limit(subject, self.direction))).ok().flatten()
    }

    fn stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.engine(|engine| Ok(engine.targets().stats(engine, subject, self.direction)))
    }

    fn maintain(&self) -> Result<(), BackendError> {
        self.engine(|engine| engine.with_targets(Targets::maintain))
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

    fn remove_upload_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.remove(subject)
    }

    fn get_upload_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.limit(subject)
    }

    fn held_back(&self, subject: &Subject) -> Option<u64> {
        self.0.flow.held_back(subject)
    }

    fn upload_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.0.stats(subject)
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

    fn remove_download_throttle(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.0.remove(subject)
    }

    fn get_download_throttle(&self, subject: &Subject) -> Option<u64> {
        self.0.limit(subject)
    }

    fn download_stats(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.0.stats(subject)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.0.maintain()
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.0.cleanup()
    }
}
