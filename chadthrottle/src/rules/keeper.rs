//! Sees to it that the limits in force are those of the rules.
//!
//! It compares what the rules come to with what it has set, sets what is new or different, and takes away what is no
//! longer wanted, in this order: whoever is held by the next rule is never free in between. What somebody has set or
//! changed by hand it leaves alone.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    Rule, Scope,
    conditions::Facts,
    edit::NewRule,
    host,
    rank::Kind,
    resolve::Claims,
    share::{Part, split},
    store,
};
use crate::{
    backends::throttle::{
        Subject, Target, ThrottleManager, TrafficType,
        manager::{LimitedTarget, Limits},
    },
    config::{Config, Files},
    history::Writer,
    process::UserNames,
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
/// How often parts of a cap are made anew.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);

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

/// What was read of a subject when parts were made last.
#[derive(Clone, Copy, Debug)]
struct Reading {
    offered: Traffic,
    at: Instant,
    parts: [u64; 2],
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
        history.take_in(snapshot, self.keeper.rules());
        let passed = history.passed(self.keeper.rules(), Timestamp::now(), &self.keeper.zone);
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
    users: UserNames,
    /// What the kernel follows for each rule.
    subjects: Vec<Vec<Subject>>,
    looked_up: Option<Instant>,
    looked_for_patterns: Option<Instant>,
    held: BTreeMap<Subject, Held>,
    /// Whom somebody has limited otherwise, until the rules are read again.
    by_hand: BTreeSet<Subject>,
    /// Why some could not be limited, and since when that is known.
    refused: BTreeMap<Subject, (String, Instant)>,
    readings: BTreeMap<Subject, Reading>,
    need_a_look: bool,
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
            users: UserNames::default(),
            subjects: Vec::new(),
            looked_up: None,
            looked_for_patterns: None,
            held: BTreeMap::new(),
            by_hand: BTreeSet::new(),
            refused: BTreeMap::new(),
            readings: BTreeMap::new(),
            need_a_look: false,
            passed: BTreeMap::new(),
        }
    }

    /// From the next look on, these are the rules. What both say stays in force without a gap.
    pub fn replace(&mut self, rules: Vec<Rule>) {
        self.rules = rules;
        (self.looked_up, self.looked_for_patterns) = (None, None);
        self.by_hand.clear();
        self.refused.clear();
    }

    /// The rules.
    #[must_use]
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// What is held, by which rule.
    #[must_use]
    pub const fn held(&self) -> &BTreeMap<Subject, Held> {
        &self.held
    }

    /// Until when nothing has to be looked at.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        if self.need_a_look { LOOK_INTERVAL } else { IDLE_INTERVAL }
    }

    /// How much has passed under rules with a quota, by their names, since its time began.
    pub fn count(&mut self, passed: BTreeMap<String, Traffic>) {
        self.passed = passed;
    }

    /// Looks at the host and at the time, and sets what the rules want. What went wrong is told, in sentences, each once.
    pub fn look(&mut self, manager: &mut ThrottleManager, now: Timestamp) -> Vec<String> {
        let instant = Instant::now();
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
        let limits = self.limits(&wanted, &limited, instant);
        let mut told = Vec::new();
        let stay: BTreeSet<Subject> = limits.iter().map(|(subject, _)| subject.clone()).collect();
        for (subject, held) in limits {
            let before = self.held.get_mut(&subject);
            if let Some(before) =
                before.filter(|now| (now.limits, now.traffic) == (held.limits, held.traffic))
            {
                // Another rule may say the same, or the same one on another line.
                before.rule = held.rule;
            } else {
                let name = names.get(&subject).cloned().unwrap_or_else(|| called(&subject));
                told.extend(self.set(manager, subject, held, name, instant));
            }
        }
        let gone: Vec<Subject> =
            self.held.keys().filter(|subject| !stay.contains(subject)).cloned().collect();
        for subject in gone {
            self.held.remove(&subject);
            self.readings.remove(&subject);
            if let Err(error) = manager.remove_throttle(&subject) {
                told.push(format!("the limits of {subject} could not be taken away: {error}"));
            }
        }
        self.refused.retain(|subject, _| wanted.contains_key(subject));
        self.by_hand.retain(|subject| wanted.contains_key(subject));
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
                _ => host::subjects(rule, self.root.as_ref()),
            });
        }
        self.looked_up = Some(now);
        if patterns {
            self.looked_for_patterns = Some(now);
        }
    }

    fn processes(&mut self) -> Vec<Facts> {
        if !self.need_a_look {
            return Vec::new();
        }
        host::processes(&mut self.users).unwrap_or_else(|error| {
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
                let held = Held { rule: rule.describe(), limits, traffic };
                self.held.insert(subject.clone(), held);
            } else {
                self.held.remove(subject);
                self.by_hand.insert(subject.clone());
            }
        }
    }

    /// What each subject is to be held to, tighter ones first, so that parts of a cap never come to more than that.
    fn limits(
        &mut self,
        wanted: &BTreeMap<Subject, usize>,
        limited: &[LimitedTarget],
        now: Instant,
    ) -> Vec<(Subject, Held)> {
        let mut by_rule: BTreeMap<usize, Vec<&Subject>> = BTreeMap::new();
        for (subject, rule) in wanted {
            if !self.by_hand.contains(subject) {
                by_rule.entry(*rule).or_default().push(subject);
            }
        }
        let mut limits = Vec::new();
        for (index, subjects) in by_rule {
            let rule = self.rules[index].clone();
            let passed = self.passed.get(&rule.name).copied().unwrap_or_default();
            let cap = rule.quota.map_or(rule.limits, |quota| quota.limits(passed, rule.limits));
            let shares = if rule.scope == Scope::Each || subjects.len() == 1 {
                vec![cap; subjects.len()]
            } else {
                self.shares(cap, &subjects, limited, now)
            };
            for (subject, limits_of_it) in subjects.into_iter().zip(shares) {
                if !limits_of_it.is_empty() {
                    let held = Held { rule: rule.describe(), limits: limits_of_it, traffic: rule.traffic };
                    limits.push((subject.clone(), held));
                }
            }
        }
        let is_looser = |(subject, held): &(Subject, Held)| {
            self.held.get(subject).is_none_or(|now| {
                held.limits.upload > now.limits.upload || held.limits.download > now.limits.download
            })
        };
        limits.sort_by_key(is_looser);
        limits
    }

    /// The parts of a cap that several share.
    fn shares(
        &mut self,
        cap: Limits,
        subjects: &[&Subject],
        limited: &[LimitedTarget],
        now: Instant,
    ) -> Vec<Limits> {
        let mut parts = [Vec::new(), Vec::new()];
        for subject in subjects {
            let of_it = limited.iter().find(|limited| limited.target.subject == **subject);
            let offered = of_it.map_or_else(Traffic::default, |limited| Traffic {
                upload: limited.upload_stats.bytes_total,
                download: limited.download_stats.bytes_total,
            });
            let now_held = self.held.get(*subject).map(|held| held.limits).unwrap_or_default();
            let used = match self.readings.get(*subject) {
                Some(last) if now.duration_since(last.at) < SHARE_INTERVAL => last.parts,
                Some(last) => {
                    let rate = offered.since(last.offered).per_second(now.duration_since(last.at));
                    [rate.upload, rate.download]
                }
                None => [0, 0],
            };
            let is_new =
                self.readings.get(*subject).is_none_or(|last| now.duration_since(last.at) >= SHARE_INTERVAL);
            if is_new {
                self.readings.insert((*subject).clone(), Reading { offered, at: now, parts: used });
            }
            parts[0].push(Part { limit: now_held.upload, used: used[0] });
            parts[1].push(Part { limit: now_held.download, used: used[1] });
        }
        let split = |cap: Option<u64>, parts: &[Part]| match cap {
            Some(cap) => split(cap, parts).into_iter().map(Some).collect(),
            None => vec![None; parts.len()],
        };
        let (up, down): (Vec<_>, Vec<_>) = (split(cap.upload, &parts[0]), split(cap.download, &parts[1]));
        up.into_iter().zip(down).map(|(upload, download)| Limits { upload, download }).collect()
    }

    /// Sets limits. The sentence is what went wrong, where it is not known yet.
    fn set(
        &mut self,
        manager: &mut ThrottleManager,
        subject: Subject,
        held: Held,
        name: String,
        now: Instant,
    ) -> Option<String> {
        if self.refused.get(&subject).is_some_and(|(_, since)| now.duration_since(*since) < PATTERN_INTERVAL)
        {
            return None;
        }
        let target = Target { subject: subject.clone(), name, traffic: held.traffic };
        match manager.throttle_process(&target, held.limits) {
            Ok(()) => {
                self.refused.remove(&subject);
                self.held.insert(subject, held);
                None
            }
            // Who has ended meanwhile is nobody's trouble.
            Err(_) if !subject.is_alive() => None,
            Err(error) => {
                let words = format!("rule {}: {target}: {error}", held.rule);
                let before = self.refused.insert(subject, (words.clone(), now));
                (before.is_none_or(|(before, _)| before != words)).then_some(words)
            }
        }
    }
}

/// What people call a subject.
fn called(subject: &Subject) -> String {
    match subject {
        Subject::Program(path) => path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned(),
        Subject::Cgroup(path) => path.rsplit('/').next().unwrap_or(path).to_owned(),
        Subject::User(uid) => UserNames::default().name(*uid),
        Subject::Process(id) | Subject::Descendants(id) => id.to_string(),
    }
}

#[cfg(test)]
mod tests;
