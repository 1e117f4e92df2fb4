//! From totals to amounts of each minute. Pure: the time is an argument.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::Step;
use crate::{
    app::unit::unit,
    process::{ProcessId, ProcessInfo},
    rules::{Rule, conditions::Facts},
    stats::{ProcessRow, Snapshot, Traffic},
};

/// Who used something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Who {
    /// The program file, or the name where that is not known.
    pub program: String,
    /// The unit or container; empty where there is none.
    pub unit: String,
    /// The user; empty where that is not known.
    pub user: String,
}

/// What has come together since it was taken last, each by the minute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// By who used it.
    pub usage: BTreeMap<(i64, Who), Traffic>,
    /// By interface.
    pub interfaces: BTreeMap<(i64, String), Traffic>,
    /// By the rules with a quota that it counts for.
    pub rules: BTreeMap<(i64, String), Traffic>,
}

/// Remembers totals.
#[derive(Debug, Default)]
pub struct Recorder {
    processes: HashMap<ProcessId, Traffic>,
    nobody: Traffic,
    interfaces: HashMap<Arc<str>, Traffic>,
    batch: Batch,
}

/// What the traffic of no process is called.
pub const NOBODY: &str = "(no process)";

impl Recorder {
    /// Takes in what was counted by `now`, in seconds since 1970.
    pub fn take_in(&mut self, snapshot: &Snapshot, rules: &[Rule], now: i64) {
        let minute = Step::Minute.start(now);
        let with_quota: Vec<&Rule> =
            rules.iter().filter(|rule| rule.enabled && rule.quota.is_some()).collect();
        let mut seen = HashMap::with_capacity(snapshot.processes.len());
        for row in &snapshot.processes {
            let amount = grown(row.total, self.processes.get(&row.info.id).copied());
            seen.insert(row.info.id, row.total);
            if amount != Traffic::default() {
                add(&mut self.batch.usage, (minute, who(&row.info)), amount);
                for rule in &with_quota {
                    if counts_for(rule, row) {
                        add(&mut self.batch.rules, (minute, rule.name.clone()), amount);
                    }
                }
            }
        }
        self.processes = seen;

        // What has ended was counted when it was somebody's.
        let buckets = &snapshot.buckets;
        let nobody = buckets.kernel.plus(buckets.replies).plus(buckets.unknown);
        let amount = grown(nobody, Some(self.nobody));
        self.nobody = nobody;
        if amount != Traffic::default() {
            let who = Who { program: NOBODY.into(), unit: String::new(), user: String::new() };
            add(&mut self.batch.usage, (minute, who), amount);
        }
        for interface in &snapshot.interfaces {
            let before = self.interfaces.insert(Arc::clone(&interface.name), interface.counted);
            let amount = grown(interface.counted, before);
            if amount != Traffic::default() {
                add(&mut self.batch.interfaces, (minute, interface.name.to_string()), amount);
            }
        }
    }

    /// What has come together since this was called last.
    pub fn take(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// Gives back what could not be written.
    pub fn give_back(&mut self, batch: Batch) {
        for (key, amount) in batch.usage {
            add(&mut self.batch.usage, key, amount);
        }
        for (key, amount) in batch.interfaces {
            add(&mut self.batch.interfaces, key, amount);
        }
        for (key, amount) in batch.rules {
            add(&mut self.batch.rules, key, amount);
        }
    }
}

fn add<K: Ord>(amounts: &mut BTreeMap<K, Traffic>, key: K, amount: Traffic) {
    let sum = amounts.entry(key).or_default();
    *sum = sum.plus(amount);
}

/// What came on top. A total that has become smaller is another monitor's, which began at nothing.
fn grown(total: Traffic, before: Option<Traffic>) -> Traffic {
    match before {
        Some(before) if total.upload >= before.upload && total.download >= before.download => {
            total.since(before)
        }
        _ => total,
    }
}

fn who(info: &ProcessInfo) -> Who {
    let program = info.exe.as_ref().map(|exe| exe.to_string_lossy().into_owned());
    Who {
        program: program.unwrap_or_else(|| info.name.clone()),
        unit: unit(info).unwrap_or_default(),
        user: info.user.clone().unwrap_or_default(),
    }
}

/// Whether what a process uses counts for a rule. By its command line is not asked: that is not known of one that has
/// ended, and rules that ask for it have no quota.
fn counts_for(rule: &Rule, row: &ProcessRow) -> bool {
    let info = &row.info;
    let user = info.user.clone();
    rule.conditions.matches(&Facts {
        id: info.id,
        name: info.name.clone(),
        exe: info.exe.as_ref().and_then(|exe| exe.to_str()).map(str::to_owned),
        command: String::new(),
        cgroup: info.cgroup.clone().unwrap_or_default(),
        container: info.container.clone(),
        // Nobody's number: a rule for a number is for the user's name as well.
        uid: user.as_deref().and_then(crate::rules::host::uid).unwrap_or(u32::MAX),
        user,
    })
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::stats::{Buckets, InterfaceTraffic};

    fn row(pid: i32, name: &str, upload: u64, download: u64) -> ProcessRow {
        let info = ProcessInfo {
            id: ProcessId { pid, start_time: 1 },
            name: name.into(),
            exe: Some(PathBuf::from(format!("/usr/bin/{name}"))),
            user: Some("0".into()),
            cgroup: Some(format!("/system.slice/{name}.service")),
            container: None,
        };
        ProcessRow::new(Arc::new(info), Traffic::default(), Traffic { upload, download }, true)
    }

    fn snapshot(rows: Vec<ProcessRow>, nobody: u64) -> Snapshot {
        let kernel = Traffic { upload: nobody, download: 0 };
        let counted = InterfaceTraffic {
            name: "eth0".into(),
            counted: Traffic { upload: nobody, download: nobody },
            ..InterfaceTraffic::default()
        };
        Snapshot {
            processes: rows,
            buckets: Buckets { kernel, ended: kernel, ..Buckets::default() },
            interfaces: vec![counted],
            ..Snapshot::default()
        }
    }

    fn sum(batch: &Batch) -> Traffic {
        batch.usage.values().fold(Traffic::default(), |sum, amount| sum.plus(*amount))
    }

    #[test]
    fn amounts_are_by_minute_and_by_who() {
        let mut recorder = Recorder::default();
        recorder.take_in(&snapshot(vec![row(1, "a", 10, 1)], 5), &[], 119);
        recorder.take_in(&snapshot(vec![row(1, "a", 30, 1), row(2, "a", 7, 0)], 5), &[], 120);
        let batch = recorder.take();
        let of_a: Vec<_> = batch.usage.iter().filter(|((_, who), _)| who.program == "/usr/bin/a").collect();
        let amounts: Vec<_> = of_a.iter().map(|((minute, _), amount)| (*minute, amount.upload)).collect();
        assert_eq!(amounts, [(60, 10), (120, 27)]);
        assert_eq!(of_a[0].0.1.unit, "a.service");
        assert_eq!(batch.interfaces.len(), 1);
        assert_eq!(recorder.take(), Batch::default());
        // Another monitor has begun at nothing.
        recorder.take_in(&snapshot(vec![row(1, "a", 4, 0)], 0), &[], 180);
        assert_eq!(sum(&recorder.take()).upload, 4);
    }

    #[test]
    fn a_quota_counts_what_its_rule_matches() {
        let text = "[[rule]]\nname = \"q\"\nmatch.unit = \"a.service\"\nquota = { after = \"1G\", per = \"day\", upload = \"0\" }";
        let rules = crate::rules::read::tests::rules(text).expect("nothing is wrong");
        let mut recorder = Recorder::default();
        recorder.take_in(&snapshot(vec![row(1, "a", 10, 1), row(2, "b", 100, 0)], 5), &rules, 0);
        let amount = Traffic { upload: 10, download: 1 };
        assert_eq!(recorder.take().rules, BTreeMap::from([((0, "q".to_owned()), amount)]));
    }

    proptest! {
        /// However totals grow, what was recorded comes to what was counted.
        #[test]
        fn nothing_is_lost_or_counted_twice(steps in proptest::collection::vec((0..4_i32, 0..1000_u64, 0..50_u64), 1..40)) {
            let mut recorder = Recorder::default();
            let (mut totals, mut nobody, mut recorded) = ([0_u64; 4], 0, Traffic::default());
            for (time, (pid, more, unowned)) in steps.iter().enumerate() {
                let index = usize::try_from(*pid).expect("small");
                totals[index] += more;
                nobody += unowned;
                let rows = (0..4).zip(totals).map(|(pid, total)| row(pid, "x", total, total / 2)).collect();
                recorder.take_in(&snapshot(rows, nobody), &[], i64::try_from(time * 30).expect("small"));
                if time % 3 == 0 {
                    recorded = recorded.plus(sum(&recorder.take()));
                }
            }
            recorded = recorded.plus(sum(&recorder.take()));
            prop_assert_eq!(recorded.upload, totals.iter().sum::<u64>() + nobody);
            prop_assert_eq!(recorded.download, totals.iter().map(|total| total / 2).sum::<u64>());
        }
    }
}
