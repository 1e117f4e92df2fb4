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
/// In seconds.
const FAR_AHEAD: i64 = 32 * 86_400;

/// Writes history.
#[derive(Debug)]
pub struct Writer {
    recorder: Recorder,
    store: Store,
    flushed: Instant,
    pruned: Option<Instant>,
    /// The time of the last look, or of what stands in the file, in seconds since 1970; and since when the clock may be wrong.
    seen: Option<i64>,
    doubted: Option<Instant>,
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
        let seen = store.newest()?;
        let (recorder, flushed) = (Recorder::default(), Instant::now());
        Ok(Self { recorder, store, flushed, pruned: None, seen, doubted: None, told: false })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.store.path()
    }

    /// Takes in what was counted by `now`. What cannot be written now is tried again.
    pub fn take_in(&mut self, snapshot: &Snapshot, rules: &[Rule], now: Timestamp) {
        let now = now.as_second();
        self.look_at_the_clock(now);
        self.recorder.take_in(snapshot, rules, now);
        if self.flushed.elapsed() >= FLUSH_INTERVAL {
            self.flush();
            let is_doubted = self.doubted.is_some_and(|since| since.elapsed() < PRUNE_INTERVAL);
            if !is_doubted && self.pruned.is_none_or(|pruned| pruned.elapsed() >= PRUNE_INTERVAL) {
                self.pruned = Some(Instant::now());
                if let Err(error) = self.store.prune(now) {
                    log::warn!("{error}");
                }
            }
        }
    }

    /// A clock that is far ahead of what it has shown may be wrong, as before it is set by the network. Nothing is forgotten by
    /// it before it has stayed so for a while.
    fn look_at_the_clock(&mut self, now: i64) {
        if self.seen.replace(now).is_some_and(|seen| now > seen.saturating_add(FAR_AHEAD)) {
            self.doubted = Some(Instant::now());
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

    /// What has passed under rules with a quota since its time began, by their names; nothing of those for which that cannot
    /// be read.
    #[must_use]
    pub fn passed(&self, rules: &[Rule], now: Timestamp, zone: &TimeZone) -> BTreeMap<String, Traffic> {
        let with_quota = rules.iter().filter_map(|rule| Some((rule, rule.quota?)));
        with_quota
            .filter_map(|(rule, quota)| {
                let time = quota.time(now, zone);
                let passed = self.store.passed(&rule.name, time.start.as_second()..time.end.as_second());
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

#[cfg(test)]
mod tests;
