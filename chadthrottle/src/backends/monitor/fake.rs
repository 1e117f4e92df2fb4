//! A monitor that does as the test says.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, mpsc::Receiver},
};

use super::MonitorBackend;
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority},
    stats::Sample,
};

/// What the fakes were told to do, in that order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<String>>>);

impl Journal {
    /// Adds a line.
    pub(crate) fn write(&self, line: impl Into<String>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(line.into());
    }

    /// All lines.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What an update does.
#[derive(Debug)]
pub(crate) enum Step {
    /// Tells this.
    Sample(Sample),
    /// Fails with this.
    Fail(&'static str),
    /// Panics with this.
    Panic(&'static str),
    /// Does not come back until somebody lets go of the other end.
    Hang(Receiver<()>),
}

/// Does one step an update, and tells the last sample again when there are no more.
#[derive(Debug)]
pub(crate) struct FakeMonitor {
    steps: VecDeque<Step>,
    last: Sample,
    journal: Journal,
}

impl FakeMonitor {
    /// A monitor that does these steps.
    pub(crate) fn new(steps: impl IntoIterator<Item = Step>, journal: Journal) -> Self {
        Self { steps: steps.into_iter().collect(), last: Sample::default(), journal }
    }
}

impl MonitorBackend for FakeMonitor {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Fallback
    }

    fn probe(_: &BackendOptions) -> Availability {
        Availability::Available
    }

    fn capabilities(&self) -> BackendCapabilities {
        super::super::throttle::fake::CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        match self.steps.pop_front() {
            Some(Step::Sample(sample)) => self.last = sample,
            Some(Step::Fail(words)) => {
                let cause = anyhow::Error::msg(words);
                return Err(BackendError::Kernel { backend: "fake", step: "read".into(), cause });
            }
            Some(Step::Panic(words)) => panic!("{words}"),
            Some(Step::Hang(gate)) => {
                // The other end is dropped and never used.
                let _ = gate.recv();
            }
            None => {}
        }
        Ok(self.last.clone())
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.journal.write("monitor cleanup");
        Ok(())
    }
}
