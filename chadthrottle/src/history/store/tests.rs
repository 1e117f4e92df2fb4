use std::fs;

use proptest::prelude::*;

use super::*;
use crate::history::recorder::Who;

fn batch(minute: i64, program: &str, upload: u64, download: u64) -> Batch {
    let who = Who { program: program.into(), unit: "u".into(), user: "ada".into() };
    let amount = Traffic { upload, download };
    Batch {
        usage: [((minute, who), amount)].into(),
        interfaces: [((minute, "eth0".to_owned()), amount)].into(),
        rules: [((minute, "q".to_owned()), amount)].into(),
    }
}

const NOW: i64 = 1_800_000_000 - 1_800_000_000 % 86_400 + 40_000;

fn sums(store: &Store, since: i64) -> Vec<(String, u64, u64)> {
    let used = store.used(By::Program, since, NOW, None).expect("it can be read");
    used.into_iter().map(|used| (used.name, used.traffic.upload, used.traffic.download)).collect()
}

#[test]
fn amounts_are_added_up_in_every_step_and_by_everything() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("state/history.db");
    let mut store = Store::open(&path)?;
    let minute = Step::Minute.start(NOW);
    store.add(&batch(minute - 60, "/bin/a", 1, 10))?;
    store.add(&batch(minute, "/bin/a", 2, 20))?;
    store.add(&batch(minute, "/bin/b", 50, 0))?;
    let both = vec![("/bin/b".to_owned(), 50, 0), ("/bin/a".to_owned(), 3, 30)];
    for since in [NOW - 3600, NOW - 10 * 86_400, NOW - 300 * 86_400] {
        assert_eq!(sums(&store, since), both, "{since}");
    }
    assert_eq!(sums(&store, NOW)[1], ("/bin/a".to_owned(), 2, 20), "this minute alone");
    for by in [By::Unit, By::User, By::Interface] {
        let used = store.used(by, NOW - 3600, NOW, None)?;
        assert_eq!(used.len(), 1);
        assert_eq!(used[0].traffic, Traffic { upload: 53, download: 30 }, "{by:?}");
    }
    let minutes = store.used(By::User, NOW - 3600, NOW, Some(Step::Minute))?;
    assert_eq!(minutes.iter().map(|used| used.start).collect::<Vec<_>>(), [Some(minute - 60), Some(minute)]);
    assert_eq!(store.passed("q", NOW - 3600)?, Traffic { upload: 53, download: 30 });
    assert_eq!(store.passed("none", 0)?, Traffic::default());
    Ok(())
}

#[test]
fn one_writes_and_others_read_meanwhile() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("history.db");
    assert!(matches!(Store::open_to_read(&path), Err(HistoryError::Absent(_))));
    let mut store = Store::open(&path)?;
    assert!(matches!(Store::open(&path), Err(HistoryError::Busy(_))));
    store.add(&batch(NOW, "/bin/a", 1, 1))?;
    let reader = Store::open_to_read(&path)?;
    assert_eq!(sums(&reader, NOW - 60).len(), 1);
    store.add(&batch(NOW, "/bin/b", 1, 1))?;
    assert_eq!(sums(&reader, NOW - 60).len(), 2);
    drop(store);
    assert!(Store::open(&path).is_ok(), "who has ended is in nobody's way");
    Ok(())
}

#[test]
fn what_is_too_old_goes_step_by_step() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut store = Store::open(&directory.path().join("history.db"))?;
    for days in [0, 3, 100, 3000] {
        store.add(&batch(NOW - days * 86_400, "/bin/a", 1, 0))?;
    }
    store.prune(NOW)?;
    let count = |step: Step| store.used(By::Program, 0, NOW, Some(step)).map(|used| used.len());
    assert_eq!([count(Step::Minute)?, count(Step::Hour)?, count(Step::Day)?], [1, 2, 3]);
    assert_eq!(store.passed("q", 0)?.upload, 2, "a month of what quotas need");
    Ok(())
}

#[test]
fn a_file_that_is_too_large_loses_its_oldest_minutes_first() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut store = Store::open(&directory.path().join("history.db"))?;
    let mut all = Batch::default();
    for minute in 0..1000 {
        for program in 0..4 {
            let one = batch(NOW - minute * 60, &format!("/bin/{program}"), 1, 0);
            all.usage.extend(one.usage);
        }
    }
    store.add(&all)?;
    let most = store.bytes()? / 2;
    store.try_prune(NOW, most)?;
    assert!(store.bytes()? <= most);
    let minutes = store.used(By::User, 0, NOW, Some(Step::Minute))?;
    assert!(minutes.last().and_then(|used| used.start) >= Some(NOW - 60), "the newest stay");
    assert_eq!(store.used(By::User, NOW - 86_400 * 30, NOW, None)?[0].traffic.upload, 4000, "and the hours");
    Ok(())
}

#[test]
fn what_is_no_history_is_left_alone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("history.db");
    fs::write(&path, "this is no database, and long enough to be taken for none of them at all".repeat(100))?;
    let before = fs::read(&path)?;
    let error = Store::open(&path).expect_err("no database").to_string();
    assert!(error.contains("move it away"), "{error}");
    assert_eq!(fs::read(&path)?, before);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    /// A log that was cut off anywhere is a power cut: what is left is whole batches, the first ones.
    #[test]
    fn a_log_that_is_cut_off_leaves_whole_batches(cut in 0.0..1.0_f64, garbage: bool) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("history.db");
        let mut store = Store::open(&path).expect("a new one");
        for number in 0..20 {
            store.add(&batch(NOW, &format!("/bin/{number:02}"), 1, 1)).expect("written");
        }
        // As it is on the disk at this moment; closing would put the log into the file.
        let (copy, log) = (directory.path().join("copy.db"), directory.path().join("copy.db-wal"));
        fs::copy(&path, &copy).expect("copied");
        let mut bytes = fs::read(directory.path().join("history.db-wal")).expect("there is a log");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss, reason = "a part of it")]
        bytes.truncate((bytes.len() as f64 * cut) as usize);
        if garbage {
            bytes.extend([0x5a; 5000]);
        }
        fs::write(&log, &bytes).expect("written");
        let Ok(store) = Store::open(&copy) else { panic!("it is broken") };
        let whole: String = store.connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checked");
        prop_assert_eq!(whole, "ok");
        let mut names: Vec<String> = sums(&store, NOW - 60).into_iter().map(|(name, ..)| name).collect();
        names.sort();
        let expected: Vec<String> = (0..names.len()).map(|number| format!("/bin/{number:02}")).collect();
        prop_assert_eq!(names, expected);
    }
}
