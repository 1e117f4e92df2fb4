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
    assert_eq!(store.passed("q", NOW - 3600..NOW + 60)?, Traffic { upload: 53, download: 30 });
    assert_eq!(store.passed("none", 0..NOW + 60)?, Traffic::default());
    Ok(())
}

#[test]
fn what_is_read_by_days_and_hours_is_the_sum_of_the_minutes() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let mut store = Store::open(&directory.path().join("history.db"))?;
    let mut all = Batch::default();
    let minutes: Vec<i64> = (0..400).map(|number| Step::Minute.start(NOW - number * 431)).collect();
    for minute in &minutes {
        all.usage.extend(batch(*minute, "/bin/a", 1, 1000).usage);
        all.usage.extend(batch(*minute, "/bin/b", 2, 0).usage);
    }
    store.add(&all)?;
    for ago in [0, 59, 3600, 10_000, 50_000, 86_400, 172_000] {
        let since = NOW - ago;
        let count = minutes.iter().filter(|minute| **minute >= Step::Minute.start(since)).count() as u64;
        let expected = vec![("/bin/a".to_owned(), count, count * 1000), ("/bin/b".to_owned(), count * 2, 0)];
        assert_eq!(sums(&store, since), expected, "{ago} s ago");
    }
    Ok(())
}

/// A history in the first form, with two programs in three units over a year and a half.
fn first_form(path: &Path) -> anyhow::Result<()> {
    let connection = Connection::open(path)?;
    connection.execute_batch(
        "PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = WAL;
         CREATE TABLE names (id INTEGER PRIMARY KEY, text TEXT NOT NULL UNIQUE);
         CREATE TABLE usage (
             step INTEGER, start INTEGER, program INTEGER, unit INTEGER, user INTEGER,
             upload INTEGER NOT NULL, download INTEGER NOT NULL,
             PRIMARY KEY (step, start, program, unit, user)
         ) WITHOUT ROWID;
         CREATE TABLE interfaces (
             step INTEGER, start INTEGER, interface INTEGER,
             upload INTEGER NOT NULL, download INTEGER NOT NULL,
             PRIMARY KEY (step, start, interface)
         ) WITHOUT ROWID;
         CREATE TABLE rules (
             start INTEGER, rule INTEGER, upload INTEGER NOT NULL, download INTEGER NOT NULL,
             PRIMARY KEY (rule, start)
         ) WITHOUT ROWID;
         PRAGMA user_version = 1;
         INSERT INTO names VALUES (1, 'a'), (2, 'b'), (3, 'u'), (4, 'v'), (5, 'w'), (6, 'ada'), (7, 'ben'), (8, 'eth0');",
    )?;
    for (step, count) in [(60, 300), (3600, 900), (86_400, 540)] {
        connection.execute(
            "WITH RECURSIVE time(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM time WHERE n < ?3)
             INSERT INTO usage SELECT ?1, ?2 - n * ?1, p, u, 6 + (p + u) % 2, n * p + u, n + 1000 * p
                 FROM time, (SELECT 1 AS p UNION SELECT 2), (SELECT 3 AS u UNION SELECT 4 UNION SELECT 5)",
            [step, NOW - NOW % step, count],
        )?;
        connection.execute(
            "WITH RECURSIVE time(n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM time WHERE n < ?3)
             INSERT INTO interfaces SELECT ?1, ?2 - n * ?1, 8, n, 2 * n FROM time",
            [step, NOW - NOW % step, count],
        )?;
    }
    Ok(())
}

/// Everything that can be asked.
fn everything(store: &Store) -> Result<Vec<Vec<Used>>, HistoryError> {
    let mut all = Vec::new();
    for by in By::ALL {
        for days in [0, 1, 6, 40, 100, 365, 600] {
            let since = NOW - days * 86_400 - 50_000;
            all.push(store.used(by, since, NOW, None)?);
            for step in [Step::Minute, Step::Hour, Step::Day] {
                all.push(store.used(by, since, NOW, Some(step))?);
                let of = |point: super::read::Point| Used {
                    start: Some(point.start),
                    name: String::new(),
                    traffic: point.all.plus(point.of),
                };
                all.push(store.series(by, step, since, Some("u"))?.into_iter().map(of).collect());
            }
        }
    }
    Ok(all)
}

#[test]
fn a_history_of_the_first_form_is_read_as_it_is_and_brought_to_this_one() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("history.db");
    first_form(&path)?;
    let before = everything(&Store::open_to_read(&path)?)?;
    assert!(before.iter().filter(|used| !used.is_empty()).count() > 50);
    let mut store = Store::open(&path)?;
    assert_eq!(store.version()?, VERSION);
    assert_eq!(everything(&store)?, before);
    assert_eq!(everything(&Store::open_to_read(&path)?)?, before);
    let weeks = "SELECT count(*) FROM usage WHERE step = 2419200";
    let weeks: i64 = store.connection.query_row(weeks, [], |row| row.get(0))?;
    assert!((6 * 19..=6 * 21).contains(&weeks), "{weeks}");
    // And from there on it goes on.
    store.add(&batch(NOW, "/bin/new", 3, 4))?;
    let year = store.used(By::User, NOW - 365 * 86_400, NOW, None)?;
    let old = Store::used(&store, By::User, NOW - 365 * 86_400, NOW, Some(Step::Day))?;
    let sum = |used: &[Used]| used.iter().fold(Traffic::default(), |sum, used| sum.plus(used.traffic));
    assert_eq!(sum(&year), sum(&old));
    Ok(())
}

#[test]
fn a_newer_form_is_left_alone() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("history.db");
    drop(Store::open(&path)?);
    Connection::open(&path)?.execute_batch("PRAGMA user_version = 3;")?;
    assert!(matches!(Store::open(&path), Err(HistoryError::Newer(_))));
    assert!(matches!(Store::open_to_read(&path), Err(HistoryError::Newer(_))));
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
    assert_eq!(store.passed("q", 0..NOW + 60)?.upload, 2, "a month of what quotas need");
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
