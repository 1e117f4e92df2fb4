//! Limits in the programs that all eBPF backends share, with flow control in front of them.

use std::{sync::Arc, time::Duration};

use super::{
    Subject, Target,
    flow::{self, Achievable, Counted, SharedFlow},
};
use crate::backends::{
    BackendError, BackendOptions,
    ebpf::{
        Engine, SharedEngine,
        limits::{Asked, Direction, Leniency},
        targets::Targets,
    },
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
        Some(match direction {
            Direction::Upload => {
                let passed = Some(stats.bytes_total.saturating_sub(stats.bytes_dropped));
                flow::Behind { datagrams, dropped: 0, passed }
            }
            Direction::Download => flow::Behind { datagrams, dropped: stats.bytes_dropped, passed: None },
        })
    })
}

/// What flow control aims at, in parts of a thousand of the limit, so that hardly anything is left to be dropped.
#[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
const AIM: u64 = 998;

/// How far TCP may be ahead of the limit while flow control holds it, and evens it out; less where round trips are short
/// (`may_owe`, chadthrottle-ebpf).
const DEBT: Duration = Duration::from_millis(500);
/// So long may come what was promised to senders before there was a limit: what a path of 20 ms carries at a gigabit took
/// a third of it, one of 150 ms most of it. Windows are as small as they are to be from the beginning.
const GRACE: Duration = Duration::from_secs(1);

/// One direction of one backend.
pub(super) struct Limiter {
    name: &'static str,
    flow: SharedFlow,
    engine: SharedEngine,
    options: BackendOptions,
    direction: Direction,
}

impl Limiter {
    pub(super) fn new(
        name: &'static str,
        options: &BackendOptions,
        engine: &SharedEngine,
        flow: &SharedFlow,
        direction: Direction,
    ) -> Self {
        let (flow, engine, options) = (flow.clone(), engine.clone(), options.clone());
        Self { name, flow, engine, options, direction }
    }

    fn engine<T>(&self, work: impl FnOnce(&mut Engine) -> anyhow::Result<T>) -> Result<T, BackendError> {
        self.engine.with(self.name, &self.options, work)
    }

    pub(super) fn init(&self) -> Result<(), BackendError> {
        self.engine(|_| Ok(()))
    }

    #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
    /// Sets or changes a limit, with flow control aimed a little below it.
    pub(super) fn set(
        &self,
        target: &Target,
        limit: u64,
        means: crate::backends::ebpf::limits::Means,
    ) -> Result<(), BackendError> {
        self.check(target)?;
        let aim = limit / 1000 * AIM + limit % 1000 * AIM / 1000;
        let leniency = self.slow_down(target, aim);
        let set = self.enforce(target, Asked { rate_bps: limit, leniency, means });
        if set.is_err() {
            self.flow.release(&target.subject, self.flow_direction());
        }
        set
    }

    /// Whether there is somebody to limit, whom the programs see.
    pub(super) fn check(&self, target: &Target) -> Result<(), BackendError> {
        self.engine.check(self.name, &self.options, target)
    }

    /// Sets or changes a limit in the programs alone.
    pub(super) fn enforce(&self, target: &Target, asked: Asked) -> Result<(), BackendError> {
        self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.set(engine, target, self.direction, asked))
        })
    }

    /// Asks the sockets of a target to keep to what is aimed at by themselves, as far as that goes. What they are let off
    /// in return.
    pub(super) fn slow_down(&self, target: &Target, aim: u64) -> Leniency {
        let direction = self.flow_direction();
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

    #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
    pub(super) fn remove(&self, subject: &Subject) -> Result<(), BackendError> {
        self.release(subject);
        self.free(subject)
    }

    #[cfg(feature = "throttle-ebpf-cgroup")]
    pub(super) fn held_back(&self, subject: &Subject) -> Option<u64> {
        let waiting =
            self.engine(|engine| engine.targets().waiting_bytes(engine, subject)).unwrap_or_default();
        let held = self.flow.held_back(subject);
        if waiting == 0 { held } else { Some(held.unwrap_or_default().saturating_add(waiting)) }
    }

    /// Takes flow control's part of a limit away alone.
    pub(super) fn release(&self, subject: &Subject) {
        self.flow.release(subject, self.flow_direction());
    }

    /// Takes the programs' part of a limit away alone.
    pub(super) fn free(&self, subject: &Subject) -> Result<(), BackendError> {
        let direction = self.direction;
        self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.remove(engine, subject, direction))
        })
    }

    #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
    pub(super) fn limit(&self, subject: &Subject) -> Option<u64> {
        self.engine(|engine| Ok(engine.targets().limit(subject, self.direction))).ok().flatten()
    }

    pub(super) fn stats(
        &self,
        subject: &Subject,
    ) -> Result<chadthrottle_common::ThrottleStats, BackendError> {
        self.engine(|engine| Ok(engine.targets().stats(engine, subject, self.direction)))
    }

    pub(super) fn maintain(&self) -> Result<(), BackendError> {
        self.engine(|engine| engine.with_targets(Targets::maintain))
    }

    #[cfg(any(feature = "throttle-ebpf-cgroup", feature = "throttle-tc-police"))]
    pub(super) fn cleanup(&self, means: crate::backends::ebpf::limits::Means) -> Result<(), BackendError> {
        let direction = self.direction;
        self.flow.release_all(self.flow_direction());
        self.engine(|engine| {
            engine.with_targets(|targets, engine| targets.remove_all(engine, direction, means))
        })
    }
}

impl Drop for Limiter {
    /// Also where nobody cleans up.
    fn drop(&mut self) {
        self.flow.release_all(self.flow_direction());
    }
}
