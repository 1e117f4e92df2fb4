//! How much each subject may have, and setting it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::{
    super::{
        Scope,
        share::{Part, split},
    },
    Held, Keeper, PATTERN_INTERVAL, called,
};
use crate::{
    backends::throttle::{
        Subject, Target, ThrottleManager,
        manager::{LimitedTarget, Limits},
    },
    stats::Traffic,
};

/// How often parts of a cap are made anew.
const SHARE_INTERVAL: Duration = Duration::from_secs(1);

/// What was read of a subject when parts were made last.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    offered: Traffic,
    at: Instant,
    parts: [u64; 2],
}

/// What is to be held of a subject.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) subject: Subject,
    /// By the rule at this place.
    rule: usize,
    held: Held,
}

impl Keeper {
    /// Whom each rule holds, without those whom somebody has limited otherwise.
    pub(super) fn by_rule(&self, wanted: &BTreeMap<Subject, usize>) -> BTreeMap<usize, Vec<Subject>> {
        let mut by_rule: BTreeMap<usize, Vec<Subject>> = BTreeMap::new();
        for (subject, rule) in wanted {
            if !self.by_hand.contains(subject) {
                by_rule.entry(*rule).or_default().push(subject.clone());
            }
        }
        by_rule
    }

    /// What each subject is to be held to, tighter ones first, so that parts of a cap, or of a link, never come to more
    /// than that.
    pub(super) fn limits(
        &mut self,
        by_rule: &BTreeMap<usize, Vec<Subject>>,
        limited: &[LimitedTarget],
        now: Instant,
    ) -> Vec<Wanted> {
        let mut caps: BTreeMap<usize, Limits> = BTreeMap::new();
        for &index in by_rule.keys() {
            let rule = &self.rules[index];
            let passed = self.passed.get(&rule.name).copied().unwrap_or_default();
            caps.insert(index, rule.quota.map_or(rule.limits, |quota| quota.limits(passed, rule.limits)));
        }
        self.lending.look(&self.rules, by_rule, limited, now);
        self.lending.cap(&self.rules, &mut caps);
        let mut limits = Vec::new();
        for (&index, subjects) in by_rule {
            let cap = caps.get(&index).copied().unwrap_or_default();
            let shares = if self.rules[index].scope == Scope::Each || subjects.len() == 1 {
                vec![cap; subjects.len()]
            } else {
                self.shares(cap, subjects, limited, now)
            };
            let rule = &self.rules[index];
            for (subject, limits_of_it) in subjects.iter().zip(shares) {
                if !limits_of_it.is_empty() {
                    let held = Held { rule: rule.holder(), limits: limits_of_it, traffic: rule.traffic };
                    limits.push(Wanted { subject: subject.clone(), rule: index, held });
                }
            }
        }
        limits.sort_by_key(|wanted| self.is_looser(wanted));
        limits
    }

    fn is_looser(&self, wanted: &Wanted) -> bool {
        let limits = wanted.held.limits;
        self.held
            .get(&wanted.subject)
            .is_none_or(|now| limits.upload > now.limits.upload || limits.download > now.limits.download)
    }

    /// The parts of a cap that several share.
    fn shares(
        &mut self,
        cap: Limits,
        subjects: &[Subject],
        limited: &[LimitedTarget],
        now: Instant,
    ) -> Vec<Limits> {
        let mut parts = [Vec::new(), Vec::new()];
        for subject in subjects {
            let of_it = limited.iter().find(|limited| limited.target.subject == *subject);
            let offered = of_it.map_or_else(Traffic::default, |limited| Traffic {
                upload: limited.upload_stats.bytes_total,
                download: limited.download_stats.bytes_total,
            });
            let now_held = self.held.get(subject).map(|held| held.limits).unwrap_or_default();
            let used = match self.readings.get(subject) {
                Some(last) if now.duration_since(last.at) < SHARE_INTERVAL => last.parts,
                Some(last) => {
                    let rate = offered.since(last.offered).per_second(now.duration_since(last.at));
                    [rate.upload, rate.download]
                }
                None => [0, 0],
            };
            let is_new =
                self.readings.get(subject).is_none_or(|last| now.duration_since(last.at) >= SHARE_INTERVAL);
            if is_new {
                self.readings.insert(subject.clone(), Reading { offered, at: now, parts: used });
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

    /// Makes all other limits of links what they are to be by now.
    pub(super) fn lend(&mut self, manager: &mut ThrottleManager, now: Instant) -> Vec<String> {
        let by_rule = self.lending.subjects().clone();
        let limited =
            by_rule.values().flatten().filter_map(|subject| manager.limited_one(subject).ok().flatten());
        let limited: Vec<LimitedTarget> = limited.collect();
        let mut limits = self.limits(&by_rule, &limited, now);
        // Whom the last look at all could not limit, the next one tries; whom somebody has limited otherwise since, it leaves
        // to them.
        limits.retain(|wanted| {
            let held = self.held.get(&wanted.subject);
            held.is_some_and(|held| manager.limits(&wanted.subject) == held.limits)
        });
        self.hold(manager, limits, &BTreeMap::new(), now)
    }

    /// Sets what is new or different. What went wrong is told, in sentences, each once.
    pub(super) fn hold(
        &mut self,
        manager: &mut ThrottleManager,
        limits: Vec<Wanted>,
        names: &BTreeMap<Subject, String>,
        now: Instant,
    ) -> Vec<String> {
        let mut told = Vec::new();
        // Links of which somebody has more than they are to have: nobody gets that as well.
        let mut overdrawn: BTreeSet<String> = BTreeSet::new();
        for wanted in limits {
            let is_looser = self.is_looser(&wanted);
            let Wanted { subject, rule, held } = wanted;
            let link = self.rules[rule].share.as_ref().map(|share| share.link.name.clone());
            let before = self.held.get_mut(&subject);
            if let Some(before) =
                before.filter(|now| (now.limits, now.traffic) == (held.limits, held.traffic))
            {
                // Another rule may say the same, or the same one on another line.
                before.rule = held.rule;
                continue;
            }
            if is_looser && link.as_ref().is_some_and(|link| overdrawn.contains(link)) {
                continue;
            }
            let name = names.get(&subject).cloned().unwrap_or_else(|| called(&subject, &mut self.names));
            let target = Target { subject, name, traffic: held.traffic };
            if let Err(words) = self.set(manager, &target, held, now) {
                told.extend(words);
                overdrawn.extend(link);
            }
        }
        told
    }

    /// Sets limits. The sentence is what went wrong, where it is not known yet.
    fn set(
        &mut self,
        manager: &mut ThrottleManager,
        target: &Target,
        held: Held,
        now: Instant,
    ) -> Result<(), Option<String>> {
        let subject = &target.subject;
        let is_held = self.held.contains_key(subject);
        let refused = self.refused.get(subject);
        if !is_held && refused.is_some_and(|(_, since)| now.duration_since(*since) < PATTERN_INTERVAL) {
            return Err(None);
        }
        match manager.change(target, held.limits) {
            Ok(()) => {
                self.refused.remove(subject);
                self.held.insert(subject.clone(), held);
                Ok(())
            }
            // Who has ended meanwhile is nobody's trouble.
            Err(_) if !subject.is_alive() => Err(None),
            Err(error) => {
                let words = format!("rule {}: {target}: {error}", held.rule);
                let before = self.refused.insert(subject.clone(), (words.clone(), now));
                Err((before.is_none_or(|(before, _)| before != words)).then_some(words))
            }
        }
    }
}
