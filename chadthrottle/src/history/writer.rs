//! Records what a monitor counts, and counts quotas from it.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    recorder::Recorder,
    store::{HistoryError, Store},
};
use crate::{
    rules::Rule,
    stats::{Snapshot, Traffic},
};

/// What is not written yet is lost with the process: this much at most.
const FLUSH_INTERVAL: Duration = Duration::from_secs(5);
const PRUNE_INTERVAL: Duration = Duration::from_hours(1);

/// Writes history.
#[derive(Debug)]
pub struct Writer {
    recorder: Recorder,
    store: Store,
    flushed: Instant,
    pruned: Option<Instant>,
    /// Whether it has been told that nothing can be written.
    told: bool,
}

impl Writer {
    /// Begins to record to this file.
    ///
    /// # Errors
    /// When somebody else does, or the file cannot be used.
    pub fn new(path: &Path) -> Result<Self, HistoryError> {
        let store = Store::open(path)?;
        Ok(Self { recorder: Recorder::default(), store, flushed: Instant::now(), pruned: None, told: false })
    }

    /// Takes in what was counted. What cannot be written now is tried again.
    pub fn take_in(&mut self, snapshot: &Snapshot, rules: &[Rule]) {
        let now = Timestamp::now().as_second();
        self.recorder.take_in(snapshot, rules, now);
        if self.flushed.elapsed() >= FLUSH_INTERVAL {
            self.flush();
            if self.pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_INTERVAL) {
                self.pruned = Some(Instant::now());
                if let Err(error) = self.store.prune(now) {
                    log::warn!("{error}");
                }
            }
        }
    }

    /// Writes what has come together.
    pub fn flush(&mut self) {
        self.flushed = Instant::now();
        let batch = self.recorder.take();
        match self.store.add(&batch) {
            Ok(()) => self.told = false,
            Err(error) => {
                if !std::mem::replace(&mut self.told, true) {
                    log::warn!("nothing is recorded: {error}");
                }
                self.recorder.give_back(batch);
            }
        }
    }

    /// What has passed under rules with a quota since its time began, by their names.
    #[must_use]
    pub fn passed(&self, rules: &[Rule], now: Timestamp, zone: &TimeZone) -> BTreeMap<String, Traffic> {
        let with_quota = rules.iter().filter_map(|rule| Some((rule, rule.quota?)));
        with_quota
            .filter_map(|(rule, quota)| {
                let passed = self.store.passed(&rule.name, quota.since(now, zone).as_second());
                passed.map_err(|error| log::warn!("{error}")).ok().map(|passed| (rule.name.clone(), passed))
            })
            .collect()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.flush();
    }
}
