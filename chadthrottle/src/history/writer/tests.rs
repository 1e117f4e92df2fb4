//! The clock of the wall is set: back, far back, ahead.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::{
    history::{By, Step},
    process::{ProcessId, ProcessInfo},
    stats::ProcessRow,
};

const RULE: &str =
    "[[rule]]\nname = \"q\"\nmatch.name = \"a\"\nquota = { after = \"1G\", per = \"day\", upload = \"0\" }";

/// One process that has sent so much.
fn sent(total: u64) -> Snapshot {
    let info = ProcessInfo {
        id: ProcessId { pid: 1, start_time: 1 },
        name: "a".into(),
        exe: Some("/usr/bin/a".into()),
        user: Some("0".into()),
        cgroup: None,
        container: None,
    };
    let total = Traffic { upload: total, download: 0 };
    let row = ProcessRow::new(Arc::new(info), Traffic::default(), total, true);
    Snapshot { processes: vec![row], ..Snapshot::default() }
}

fn rules() -> Vec<Rule> {
    crate::rules::read::tests::rules(RULE).expect("nothing is wrong")
}

fn at(text: &str) -> Timestamp {
    text.parse().expect(text)
}

/// A writer, and what it has been told.
struct Written {
    _directory: tempfile::TempDir,
    writer: Writer,
    total: u64,
}

impl Written {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let writer = Writer::new(&directory.path().join("history.db"))?;
        Ok(Self { _directory: directory, writer, total: 0 })
    }

    /// So much more is sent by now, and what has passed of the quota by that.
    fn send(&mut self, now: Timestamp, more: u64) -> u64 {
        self.total += more;
        self.writer.take_in(&sent(self.total), &rules(), now);
        self.writer.flush();
        self.passed(now)
    }

    fn passed(&self, now: Timestamp) -> u64 {
        self.writer.passed(&rules(), now, &TimeZone::UTC).get("q").map_or(0, |passed| passed.upload)
    }

    fn all(&self, step: Step) -> anyhow::Result<u64> {
        let used = self.writer.store.used(By::Program, 0, 4_000_000_000, Some(step))?;
        Ok(used.iter().map(|used| used.traffic.upload).sum())
    }
}

#[test]
fn what_a_clock_that_was_ahead_has_recorded_counts_for_no_quota_before() -> anyhow::Result<()> {
    let mut written = Written::new()?;
    assert_eq!(written.send(at("2031-05-05T12:00:00Z"), 5_000), 5_000);
    // Set by the network.
    assert_eq!(written.send(at("2026-01-14T12:00:00Z"), 70), 70, "not what was recorded five years ahead");
    assert_eq!(written.send(at("2026-01-14T11:00:00Z"), 8), 78, "set back by an hour of the same day");
    assert_eq!(written.send(at("2026-01-13T23:00:00Z"), 100), 100, "and to the day before");
    assert_eq!(written.send(at("2026-01-14T00:01:00Z"), 1), 79, "what was used that day is used up still");
    for step in Step::ALL {
        assert_eq!(written.all(step)?, 5_179, "each byte once");
    }
    Ok(())
}

#[test]
fn nothing_is_forgotten_by_a_clock_that_has_only_just_jumped_ahead() -> anyhow::Result<()> {
    let mut written = Written::new()?;
    written.send(at("2026-01-14T12:00:00Z"), 5);
    let long_ago = Instant::now().checked_sub(2 * PRUNE_INTERVAL);
    let due = |written: &mut Written, now: &str| {
        written.writer.flushed = long_ago.expect("it runs for long");
        written.writer.pruned = long_ago;
        written.total += 1;
        written.writer.take_in(&sent(written.total), &rules(), at(now));
        written.all(Step::Hour)
    };
    assert_eq!(due(&mut written, "2038-01-14T12:00:00Z")?, 6, "all is there still");
    assert_eq!(due(&mut written, "2026-01-14T12:01:00Z")?, 7, "and when it is set right");
    assert_eq!(due(&mut written, "2038-01-14T12:00:00Z")?, 8);
    written.writer.doubted = long_ago;
    assert_eq!(due(&mut written, "2038-01-14T12:00:00Z")?, 3, "what it says for long is believed");
    Ok(())
}

#[test]
fn who_starts_with_a_clock_far_ahead_of_the_file_forgets_nothing_either() -> anyhow::Result<()> {
    let mut written = Written::new()?;
    written.send(at("2026-01-14T12:00:00Z"), 5);
    let Written { _directory: directory, writer, .. } = written;
    drop(writer);
    let mut writer = Writer::new(&directory.path().join("history.db"))?;
    writer.take_in(&sent(1), &rules(), at("2026-01-20T12:00:00Z"));
    assert!(writer.doubted.is_none(), "a week is nothing");
    writer.take_in(&sent(1), &rules(), at("2030-01-14T12:00:00Z"));
    assert!(writer.doubted.is_some());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(16))]
    /// However the clock jumps, each byte is counted once, in the time that the clock showed.
    #[test]
    fn each_byte_is_counted_where_the_clock_was(
        steps in proptest::collection::vec((0..1000_u64, 1_790_000_000..1_790_400_000_i64), 1..20),
    ) {
        let mut written = Written::new().expect("a history");
        for (more, second) in &steps {
            let now = Timestamp::from_second(*second).expect("a time");
            written.send(now, *more);
        }
        let days: std::collections::BTreeSet<i64> = steps.iter().map(|(_, second)| second.div_euclid(86_400)).collect();
        for day in days {
            let of_it = steps.iter().filter(|(_, second)| second.div_euclid(86_400) == day).map(|(more, _)| more);
            let noon = Timestamp::from_second(day * 86_400 + 43_200).expect("a time");
            prop_assert_eq!(written.passed(noon), of_it.sum::<u64>());
        }
    }
}
