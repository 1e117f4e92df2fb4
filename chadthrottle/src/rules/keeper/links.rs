//! What rules have of links at the moment.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use super::super::{
    Rule,
    sharing::{
        Class,
        demand::{Demand, Done},
        divide,
    },
};
use crate::backends::throttle::{
    Subject,
    manager::{LimitedTarget, Limits},
};

/// How often links are divided anew.
pub(super) const LEND_INTERVAL: Duration = Duration::from_millis(200);
/// What was done in less time than this tells nothing.
const LEAST_TIME: Duration = Duration::from_millis(120);

/// The two directions of something.
type Both<T> = [T; 2];

/// A rule with a part in a link.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    demands: Both<Demand>,
    /// What it may have.
    limits: Both<Option<u64>>,
}

/// What has been counted of a subject since it was limited.
type Counted = Both<Done>;

/// What rules have of links, and what that is known by.
#[derive(Debug, Default)]
pub(super) struct Lending {
    /// By the names of rules, since the same rule may stand at another place when files were read again.
    parts: BTreeMap<String, Part>,
    counted: BTreeMap<Subject, Counted>,
    /// Whom the rules hold, by their places.
    subjects: BTreeMap<usize, Vec<Subject>>,
    looked: Option<Instant>,
}

impl Lending {
    /// Whether anything is to be divided.
    pub(super) fn is_any(&self) -> bool {
        !self.subjects.is_empty()
    }

    /// Whom the rules with links hold, by the places of the rules.
    pub(super) const fn subjects(&self) -> &BTreeMap<usize, Vec<Subject>> {
        &self.subjects
    }

    /// Takes in what those have done whom rules hold.
    pub(super) fn look(
        &mut self,
        rules: &[Rule],
        by_rule: &BTreeMap<usize, Vec<Subject>>,
        limited: &[LimitedTarget],
        now: Instant,
    ) {
        let with_link = by_rule.iter().filter(|(index, _)| rules[**index].share.is_some());
        self.subjects = with_link.map(|(index, subjects)| (*index, subjects.clone())).collect();
        let time = self.looked.map(|last| now.duration_since(last));
        if time.is_some_and(|time| time < LEAST_TIME) {
            return;
        }
        self.looked = Some(now);
        let (mut parts, mut counted) = (BTreeMap::new(), BTreeMap::new());
        for (index, subjects) in &self.subjects {
            let name = &rules[*index].name;
            let mut part = self.parts.get(name).copied().unwrap_or_default();
            let mut done = Counted::default();
            for subject in subjects {
                let so_far = limited.iter().find(|one| one.target.subject == *subject).map(counted_of);
                let Some(so_far) = so_far else { continue };
                // What is new here has done nothing yet under this limit.
                let before = self.counted.get(subject).copied().unwrap_or(so_far);
                for (done, (now, before)) in done.iter_mut().zip(so_far.into_iter().zip(before)) {
                    done.passed += now.passed.saturating_sub(before.passed);
                    done.dropped += now.dropped.saturating_sub(before.dropped);
                }
                counted.insert(subject.clone(), so_far);
            }
            for ((demand, done), limit) in part.demands.iter_mut().zip(done).zip(part.limits) {
                if let (Some(time), Some(limit)) = (time, limit) {
                    demand.look(done, time, limit);
                }
            }
            parts.insert(name.clone(), part);
        }
        (self.parts, self.counted) = (parts, counted);
    }

    /// Lowers the caps of rules, by their places, to what they may have of their links.
    pub(super) fn cap(&mut self, rules: &[Rule], caps: &mut BTreeMap<usize, Limits>) {
        let mut by_link: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        for index in self.subjects.keys() {
            if let Some(share) = &rules[*index].share {
                by_link.entry(&share.link.name).or_default().push(*index);
            }
        }
        for places in by_link.into_values() {
            self.divide(rules, &places, caps);
        }
    }

    /// One link.
    fn divide(&mut self, rules: &[Rule], places: &[usize], caps: &mut BTreeMap<usize, Limits>) {
        for way in [0, 1] {
            let (mut classes, mut of_link) = (Vec::new(), None);
            for index in places {
                let (Some(share), Some(cap)) = (&rules[*index].share, caps.get(index)) else { continue };
                of_link = both(share.link.rates)[way];
                let demands =
                    self.parts.get(&rules[*index].name).map(|part| part.demands).unwrap_or_default();
                classes.push(Class {
                    guaranteed: both(share.guaranteed)[way].unwrap_or_default(),
                    ceiling: both(share.ceiling(*cap))[way].unwrap_or_default(),
                    priority: share.priority,
                    weight: share.weight,
                    wanted: demands[way].wanted(),
                });
            }
            let shares = of_link.map(|rate| divide(rate, &classes));
            for (place, index) in places.iter().enumerate() {
                let Some(cap) = caps.get_mut(index) else { continue };
                let of_it = if way == 0 { &mut cap.upload } else { &mut cap.download };
                if let Some(share) = shares.as_ref().and_then(|shares| shares.get(place)) {
                    *of_it = Some(*share);
                }
                self.parts.entry(rules[*index].name.clone()).or_default().limits[way] = *of_it;
            }
        }
    }
}

const fn both(limits: Limits) -> Both<Option<u64>> {
    [limits.upload, limits.download]
}

fn counted_of(limited: &LimitedTarget) -> Counted {
    [limited.upload_stats, limited.download_stats].map(|stats| Done {
        passed: stats.bytes_total.saturating_sub(stats.bytes_dropped),
        dropped: stats.bytes_dropped,
    })
}
