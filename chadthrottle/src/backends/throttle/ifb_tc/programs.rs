//! Packets known by the program at the entrance of interfaces, which looks up the socket that one will go to.

use std::time::Duration;

use chadthrottle_common::ThrottleStats;

use super::{
    NAME, Sender,
    queue::{Queue, Way},
};
use crate::{
    backends::{
        BackendError, BackendOptions,
        ebpf::{
            SharedEngine,
            limits::{Asked, Direction, Leniency, Means},
        },
        throttle::{
            Subject, Target,
            entrances::{Entrances, Program},
            flow::SharedFlow,
            programs::Limiter,
        },
    },
    sys::tc::Handle,
};

/// How `--list-backends` calls it.
pub(super) const TAGGER: &str = "socket storage (eBPF)";

/// The programs that all eBPF backends share.
pub(super) struct Programs {
    options: BackendOptions,
    engine: SharedEngine,
    /// Whose packets they are, and flow control.
    limiter: Limiter,
    /// As long as there are limits.
    entrances: Option<Entrances<Program>>,
}

impl Programs {
    pub(super) fn new(options: &BackendOptions, engine: &SharedEngine, flow: &SharedFlow) -> Self {
        Self {
            options: options.clone(),
            engine: engine.clone(),
            limiter: Limiter::new(NAME, options, engine, flow, Direction::Download),
            entrances: None,
        }
    }
}

impl Sender for Programs {
    fn init(&mut self) -> Result<(), BackendError> {
        self.limiter.init()
    }

    fn check(&self, target: &Target) -> Result<(), BackendError> {
        self.limiter.check(target)
    }

    fn slow_down(&mut self, target: &Target, limit: u64) -> Duration {
        self.limiter.slow_down(target, limit).grace
    }

    fn send(
        &mut self,
        target: &Target,
        limit: u64,
        grace: Duration,
        _: &Queue,
        way: Way,
    ) -> Result<(), BackendError> {
        let Way { interface, class: Handle(class) } = way;
        let leniency = Leniency { grace, ..Leniency::default() };
        let asked = Asked { rate_bps: limit, leniency, means: Means::Queue { interface, class } };
        self.limiter.enforce(target, asked)?;
        if self.entrances.is_none() {
            let program = Program::new(NAME, &self.options, &self.engine);
            self.entrances = Some(Entrances::open(NAME, &self.options, program)?);
        }
        Ok(())
    }

    fn free(&mut self, subject: &Subject) -> Result<(), BackendError> {
        self.limiter.free(subject)
    }

    fn release(&mut self, subject: &Subject) {
        self.limiter.release(subject);
    }

    fn leave(&mut self) {
        self.entrances = None;
    }

    fn passed(&self, subject: &Subject) -> Result<ThrottleStats, BackendError> {
        self.limiter.stats(subject)
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.limiter.maintain()
    }
}
