//! What is told without being asked: to other instances, by the note of this one.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    time::{Duration, Instant},
};

use jiff::Timestamp;

use super::Desk;
use crate::{
    backends::throttle::{Subject, manager::Limits},
    instances::{Held, held},
};

/// How often others are told of limits that rules have changed.
const TELL_INTERVAL: Duration = Duration::from_secs(1);

/// Where others can ask.
#[derive(Debug)]
pub struct Socket {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is where everybody asks who is not told where to.
    pub is_usual: bool,
}

impl Desk {
    /// Notes what has changed, and tells it.
    pub(super) fn tell_others(&mut self) {
        if self.note_times() {
            self.is_untold = true;
        }
        // Parts of links change a few times a second, and nobody reads notes that often.
        if self.is_untold && self.told.is_none_or(|told| told.elapsed() >= TELL_INTERVAL) {
            self.announce();
        }
    }

    /// Notes since when limits are what they are. Whether any is another one.
    pub(super) fn note_times(&mut self) -> bool {
        let held = self.rules.keeper.held().iter().map(|(subject, held)| (subject, held.limits));
        let owned = self.owners.keys().map(|subject| (subject, self.manager.limits(subject)));
        let now: BTreeMap<&Subject, Limits> = held.chain(owned).collect();
        let before = self.since.len();
        self.since.retain(|subject, (limits, _)| now.get(subject) == Some(limits));
        let mut has_changed = self.since.len() != before;
        let mut time = None;
        for (subject, limits) in now {
            if !self.since.contains_key(subject) {
                let time = time
                    .get_or_insert_with(|| Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
                    .clone();
                self.since.insert(subject.clone(), (limits, time));
                has_changed = true;
            }
        }
        has_changed
    }

    /// Tells others what they cannot ask for.
    pub(super) fn announce(&mut self) {
        self.is_untold = false;
        self.told = Some(Instant::now());
        let Some(announcement) = &mut self.announcement else { return };
        let names = (self.manager.upload_backend(), self.manager.download_backend());
        let owned = self.owners.values().map(|owner| (&owner.target, None));
        let by_rules = self.rules.keeper.held().iter().filter(|_| self.socket.is_none());
        let by_rules =
            by_rules.filter_map(|(subject, held)| Some((self.manager.target(subject)?, Some(&held.rule))));
        let limits = owned.chain(by_rules).flat_map(|(target, rule)| {
            let since = self.since.get(&target.subject).map(|(_, since)| since.clone()).unwrap_or_default();
            let both = held(target, self.manager.limits(&target.subject), names).into_iter();
            both.map(move |held| Held { since: since.clone(), rule: rule.cloned(), ..held })
        });
        let elsewhere = self.socket.as_ref().filter(|socket| !socket.is_usual);
        let elsewhere = elsewhere.filter(|_| !self.rules.keeper.held().is_empty());
        announcement.say(limits.collect(), elsewhere.map(|socket| socket.path.clone()));
    }
}
