//! Sees to it that the limits in force are those of the rules.
//!
//! It compares what the rules come to with what it has set, sets what is new or different, and takes away what is no
//! longer wanted, in this order: whoever is held by the next rule is never free in between. What somebody has set or
//! changed by hand it leaves alone.
//!
//! How much each may have is in `caps`, and what rules have of links in `links`: that changes a few times a second.

mod caps;
mod links;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use self::{
    caps::Reading,
    links::{LEND_INTERVAL, Lending},
};
use super::{Rule, conditions::Facts, edit::NewRule, host, rank::Kind, resolve::Claims, store};
use crate::{
    backends::throttle::{Subject, Target, ThrottleManager, TrafficType, manager::Limits},
    config::{Config, Files},
    history::Writer,
    process::KnownNames,
    stats::{Snapshot, Traffic},
    sys::cgroup::CgroupRoot,
};

/// How often processes are looked at, where some rule needs it.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How often the rest is: schedules, quotas, parts of a cap.
pub const IDLE_INTERVAL: Duration = Duration::from_secs(1);
/// How often programs, cgroups and users that rules name are looked up again.
const LOOK_UP_INTERVAL: Duration = Duration::from_secs(2);
/// The same for patterns, which cost more.
const PATTERN_INTERVAL: Duration = Duration::from_secs(30);

/// What is set by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The rule, in words: its name, file and line.
    pub rule: String,
    /// What it allows now.
    pub limits: Limits,
    /// Which traffic.
    pub traffic: TrafficType,
}

/// Rules, and the files that they stand in.
#[derive(Debug)]
pub struct RuleFiles {
    /// Which files.
    pub files: Files,
    /// Keeps what they say.
    pub keeper: Keeper,
    /// Records what is used, where that is wanted, and counts quotas.
    pub history: Option<Writer>,
}

impl RuleFiles {
    /// Writes a new rule and keeps it from the next look on; in a sentence, where it is.
    ///
    /// # Errors
    /// When it cannot be written, or something would be wrong then.
    pub fn save(&mut self, new: &NewRule) -> anyhow::Result<String> {
        let (name, path) = store::add_by_any_name(&self.files, new)?;
        self.keeper.replace(Config::load(&self.files)?.rules);
        Ok(format!("Saved as rule {name:?} in {}.", path.display()))
    }

    /// Records what was counted, and how much of quotas that makes.
    pub fn take_in(&mut self, snapshot: &Snapshot) {
        let Some(history) = &mut self.history else { return };
        let now = Timestamp::now();
        history.take_in(snapshot, self.keeper.rules(), now);
        let passed = history.passed(self.keeper.rules(), now, &self.keeper.zone);
        self.keeper.count(passed);
    }

    /// Reads the files again. Where they are wrong, the rules stay as they are.
    ///
    /// # Errors
    /// When they are.
    pub fn read_again(&mut self) -> anyhow::Result<()> {
        self.keeper.replace(Config::load(&self.files)?.rules);
        Ok(())
    }
}

/// Keeps rules.
#[derive(Debug)]
pub struct Keeper {
    rules: Vec<Rule>,
    root: Option<CgroupRoot>,
    zone: TimeZone,
    names: KnownNames,
    /// What the kernel follows for each rule.
    subjects: Vec<Vec<Subject>>,
    looked_up: Option<Instant>,
    looked_for_patterns: Option<Instant>,
    held: BTreeMap<Subject, Held>,
    /// Whom somebody has limited otherwise, until the rules are read again.
    by_hand: BTreeSet<Subject>,
    /// Why some could not be limited, and since when that is known.
    refused: BTreeMap<Subject, (String, Instant)>,
    /// Why limits that no rule wants any more could not be taken away.
    stuck: BTreeMap<Subject, String>,
    readings: BTreeMap<Subject, Reading>,
    /// What rules have of links.
    lending: Lending,
    need_a_look: bool,
    /// When all was last looked at.
    looked: Option<Instant>,
    /// What has passed by each rule's name since its quota's time began.
    passed: BTreeMap<String, Traffic>,
}

impl Keeper {
    /// Keeps these, on the host whose cgroups are below `root`. Nothing is set yet.
    #[must_use]
    pub fn new(rules: Vec<Rule>, root: Option<CgroupRoot>, zone: TimeZone) -> Self {
        Self {
            rules,
            root,
            zone,
            names: KnownNames::default(),
            subjects: Vec::new(),
            looked_up: None,
            looked_for_patterns: None,
            held: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            refused: BTreeMap::new(),
            stuck: BTreeMap::new(),
            readings: BTreeMap::new(),
            lending: Lending::default(),
            need_a_look: false,
            looked: None,
            passed: BTreeMap::new(),
        }
    }

    /// From the next look on, these are the rules. What both say stays in force without a gap.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
        (self.looked_up, self.looked_for_patterns, self.looked) = (None, None, None);
        self.by_hand.clear();
        self.refused.clear();
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Somebody limits this by hand, be it to just what a rule says: the rule leaves it alone.
    pub fn leave(&mut self, subject: &Subject) {
        self.held.remove(subject);
        self.by_hand.insert(subject.clone());
    }

    /// Somebody who has limited this by hand no longer wants that: from the next look on it has what a rule for it says,
    /// without a gap, or no limit.
    pub fn let_go(&mut self, target: &Target, limits: Limits) {
        self.by_hand.remove(&target.subject);
        let held = Held { rule: String::new(), limits, traffic: target.traffic };
        self.held.insert(target.subject.clone(), held);
        // Also where only links would be due.
        self.looked = None;
    }

    /// What is held, by which rule.
    #[must_use]
    pub const fn held(&self) -> &BTreeMap<Subject, Held> {
        &self.held
    }

    /// Until when nothing has to be looked at.
    #[must_use]
    pub fn interval(&self) -> Duration {
        if self.lending.is_any() { LEND_INTERVAL } else { self.look_interval() }
    }

    /// The same for all but links.
    const fn look_interval(&self) -> Duration {
        if self.need_a_look { LOOK_INTERVAL } else { IDLE_INTERVAL }
    }

    /// How much has passed under rules with a quota, by their names, since its time began. Who is not named is taken to have
    /// used what was said last: a quota that cannot be read is not used any less.
    pub fn count(&mut self, passed: BTreeMap<String, Traffic>) {
        self.passed.extend(passed);
    }

    /// Looks at the host and at the time, and sets what the rules want. What went wrong is told, in sentences, each once.
    pub fn look(&mut self, manager: &mut ThrottleManager, now: Timestamp) -> Vec<String> {
        let instant = Instant::now();
        // It comes in steps of one interval, which are not just as long.
        let is_early =
            |last: Instant| instant.duration_since(last) + LEND_INTERVAL / 2 < self.look_interval();
        if self.lending.is_any() && self.looked.is_some_and(is_early) {
            return self.lend(manager, instant);
        }
        self.looked = Some(instant);
        self.look_up(instant);
        let on: Vec<bool> = self.rules.iter().map(|rule| rule.is_on(now, &self.zone)).collect();
        let claims = Claims::new(&self.rules, |index| on[index], &self.subjects);
        self.need_a_look = claims.need_a_look();
        let processes = self.processes();
        let wanted = claims.held(&self.rules, &processes);
        let names: BTreeMap<Subject, String> =
            processes.into_iter().map(|facts| (Subject::Process(facts.id), facts.name)).collect();

        self.leave_to_hands(manager, &wanted);
        let limited = manager.limited().unwrap_or_default();
        let by_rule = self.by_rule(&wanted);
        let limits = self.limits(&by_rule, &limited, instant);
        let stay: BTreeSet<Subject> = limits.iter().map(|wanted| wanted.subject.clone()).collect();
        let mut told = self.hold(manager, limits, &names, instant);
        let gone: Vec<Subject> =
            self.held.keys().filter(|subject| !stay.contains(subject)).cloned().collect();
        for subject in gone {
            told.extend(self.take_away(manager, &subject));
        }
        self.refused.retain(|subject, _| wanted.contains_key(subject));
        self.by_hand.retain(|subject| wanted.contains_key(subject));
        self.stuck.retain(|subject, _| self.held.contains_key(subject) && !wanted.contains_key(subject));
        told
    }

    fn look_up(&mut self, now: Instant) {
        let is_due =
            |last: Option<Instant>, interval| last.is_none_or(|last| now.duration_since(last) >= interval);
        if !is_due(self.looked_up, LOOK_UP_INTERVAL) {
            return;
        }
        let patterns = is_due(self.looked_for_patterns, PATTERN_INTERVAL);
        let old = std::mem::take(&mut self.subjects);
        let mut old = old.into_iter();
        for rule in &self.rules {
            let before = old.next();
            self.subjects.push(match (Kind::of(rule), before) {
                (Kind::Programs | Kind::Name, Some(before)) if !patterns => before,
                _ => host::subjects(rule, self.root.as_ref(), &mut self.names),
            });
        }
        self.looked_up = Some(now);
        if patterns {
            self.looked_for_patterns = Some(now);
        }
    }

    /// Takes the limits of somebody away whom no rule holds any more. What the host refuses to take back stays ours, for the
    /// next look to try again; the sentence says so, once.
    fn take_away(&mut self, manager: &mut ThrottleManager, subject: &Subject) -> Option<String> {
        let removed = manager.remove_throttle(subject);
        let left = if removed.is_err() { manager.limits(subject) } else { Limits::default() };
        if let Some(held) = self.held.get_mut(subject).filter(|_| !left.is_empty()) {
            held.limits = left;
        } else {
            self.held.remove(subject);
            self.readings.remove(subject);
        }
        let error = removed.err()?;
        let words = format!("the limits of {subject} could not be taken away: {error}");
        let before = self.stuck.insert(subject.clone(), words.clone());
        (before.as_ref() != Some(&words)).then_some(words)
    }

    fn processes(&mut self) -> Vec<Facts> {
        if !self.need_a_look {
            return Vec::new();
        }
        host::processes(&mut self.names).unwrap_or_else(|error| {
            log::warn!("processes cannot be looked at: {error}");
            Vec::new()
        })
    }

    /// Notices what somebody has set, changed or removed by hand. What is just what the rule says is the rule's: it may
    /// have been saved as one.
    fn leave_to_hands(&mut self, manager: &ThrottleManager, wanted: &BTreeMap<Subject, usize>) {
        for (subject, rule) in wanted {
            let limits = manager.limits(subject);
            let rule = &self.rules[*rule];
            let (now, traffic) = (self.held.get(subject), rule.traffic);
            if limits == now.map(|held| held.limits).unwrap_or_default() {
                continue;
            }
            if now.is_none() && limits == rule.limits && !self.by_hand.contains(subject) {
                let held = Held { rule: rule.holder(), limits, traffic };
                self.held.insert(subject.clone(), held);
            } else {
                self.held.remove(subject);
                self.by_hand.insert(subject.clone());
            }
        }
    }
}

/// What people call a subject.
fn called(subject: &Subject, names: &mut KnownNames) -> String {
    match subject {
        Subject::Program(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        Subject::Cgroup(path) => {
            names.container_of(path).unwrap_or_else(|| path.rsplit('/').next().unwrap_or(path).to_owned())
        }
        Subject::User(uid) => names.user(*uid),
        Subject::Process(id) | Subject::Descendants(id) => id.to_string(),
    }
}

#[cfg(test)]
mod tests;
