//! Counts what is used, for history and quotas, and for whoever asks.

use std::time::{Duration, Instant};

use anyhow::Context;

use crate::{
    backends::{
        monitor::MonitorBackend,
        registry::{Backends, Wanted},
    },
    headless::tell,
    rules::keeper::RuleFiles,
    stats::{Sample, Stats},
};

/// How often what is used is read for history.
pub const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Counts, from the first time that somebody wants to know.
pub struct Counter {
    /// None where nobody can.
    monitor: Option<Box<dyn MonitorBackend>>,
    counts: bool,
    stats: Stats,
    start: Instant,
    /// Whether it has been told that nothing can be counted.
    told: bool,
}

impl Counter {
    /// By the monitor that was asked for. Where none was and none works, nobody counts.
    ///
    /// # Errors
    /// When the one that was asked for does not work here, or none does and it is needed.
    pub fn new(backends: &Backends, wanted: &Wanted, is_needed: bool) -> anyhow::Result<Self> {
        let monitor = match backends.select_monitor_backend(wanted.monitor.as_deref()) {
            Err(error) if wanted.monitor.is_none() && !is_needed => {
                log::warn!("nobody counts: {error}");
                None
            }
            selected => Some(selected?),
        };
        let (stats, start) = (Stats::default(), Instant::now());
        let mut counter = Self { monitor, counts: false, stats, start, told: false };
        if is_needed {
            counter.begin()?;
        }
        Ok(counter)
    }

    /// Who counts.
    #[must_use]
    pub fn name(&self) -> Option<&'static str> {
        self.monitor.as_ref().map(|monitor| monitor.name())
    }

    fn begin(&mut self) -> anyhow::Result<&mut dyn MonitorBackend> {
        let monitor = self.monitor.as_mut().context("no monitor works here; --list-backends tells why")?;
        if !self.counts {
            monitor.init()?;
            self.counts = true;
        }
        Ok(monitor.as_mut())
    }

    /// What has been counted so far.
    ///
    /// # Errors
    /// When nobody can count.
    pub fn sample(&mut self) -> anyhow::Result<Sample> {
        Ok(self.begin()?.update()?)
    }

    /// Records what has been counted.
    pub fn count(&mut self, rules: &mut RuleFiles) {
        match self.sample() {
            Ok(sample) => {
                self.told = false;
                rules.take_in(&self.stats.advance(self.start.elapsed(), &sample));
            }
            Err(error) if !self.told => {
                self.told = true;
                tell(format_args!("nothing is recorded: {error}"));
            }
            Err(_) => {}
        }
    }

    /// Counts no more.
    ///
    /// # Errors
    /// When something could not be taken back.
    pub fn end(&mut self) -> anyhow::Result<()> {
        if let Some(monitor) = self.monitor.as_mut().filter(|_| self.counts) {
            self.counts = false;
            monitor.cleanup()?;
        }
        Ok(())
    }
}
