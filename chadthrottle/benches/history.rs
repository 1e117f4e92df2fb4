//! How long it takes to read a history of ten million rows.
//!
//! `cargo bench --bench history`

use std::time::Instant;

use chadthrottle::history::{
    By, Step,
    past::{Asked, Past, Span},
    store::Store,
};
use jiff::tz::TimeZone;
use rusqlite::Connection;

/// Of the minutes: as many programs as it takes in two days of them.
const ROWS: i64 = 10_000_000;
const ROUNDS: usize = 5;

fn main() -> anyhow::Result<()> {
    // Cargo runs it as a test, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("history.db");
    drop(Store::open(&path)?);
    let now = Step::Day.start(1_800_000_000) + 40_000;
    let rows = fill(&Connection::open(&path)?, now)?;
    println!("{rows} rows, {} MB", std::fs::metadata(&path)?.len() / 1_000_000);
    let store = Store::open_to_read(&path)?;
    for (what, since) in [
        ("an hour", 3600),
        ("a day", 86_400),
        ("two days", 2 * 86_400),
        ("a month", 30 * 86_400),
        ("a year", 365 * 86_400),
        ("five years", 5 * 365 * 86_400),
    ] {
        for by in [By::Program, By::User] {
            median(&format!("{what} {by:?}"), || Ok(store.used(by, now - since, now, None)?.len()))?;
        }
    }
    for (what, by, days, step) in [
        ("two days by the minute", By::User, 2, Step::Minute),
        ("two days by the minute", By::Unit, 2, Step::Minute),
        ("a week by the hour", By::User, 7, Step::Hour),
        ("a week by the hour", By::Program, 7, Step::Hour),
        ("two months by the hour", By::User, 60, Step::Hour),
        ("a year by the day", By::User, 365, Step::Day),
        ("a year by the day", By::Program, 365, Step::Day),
        ("five years by the day", By::Unit, 5 * 365, Step::Day),
    ] {
        median(&format!("{what} {by:?}"), || {
            Ok(store.used(by, now - days * 86_400, now, Some(step))?.len())
        })?;
    }
    for span in Span::ALL {
        let of = Some("name 7".to_owned());
        median(&format!("the screen's {}", span.name()), || {
            let asked = Asked { by: By::Program, span, of: of.clone() };
            Ok(Past::read(&store, &asked, now, TimeZone::UTC)?.used.len())
        })?;
    }
    Ok(())
}

/// Two days of minutes of many programs, sixty of their hours, five years of their days, and these by four weeks; as the
/// store writes them.
fn fill(connection: &Connection, now: i64) -> rusqlite::Result<i64> {
    // In a new file nothing can be lost.
    connection.execute_batch("PRAGMA synchronous = OFF")?;
    let programs = ROWS / (2 * 1440 + 60 * 24 + 5 * 365 + 66);
    let counts = [2 * 1440, 60 * 24, 5 * 365, 66];
    for (step, count) in Step::ALL.into_iter().zip(counts) {
        let (seconds, last) = (step.seconds(), step.start(now));
        connection.execute(
            "WITH RECURSIVE time(n) AS (SELECT ?3 - 1 UNION ALL SELECT n - 1 FROM time WHERE n > 0),
                 program(p) AS (SELECT 1 UNION ALL SELECT p + 1 FROM program WHERE p < ?4)
             INSERT INTO usage SELECT ?1, ?2 - n * ?1, p, p % 50 + 1, p % 7 + 1, p * 977, n * 1013 FROM time, program",
            [seconds, last, count, programs],
        )?;
    }
    connection.execute(
        "WITH RECURSIVE name(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM name WHERE n < ?1)
         INSERT INTO names SELECT n, 'name ' || n FROM name",
        [programs],
    )?;
    connection.execute_batch(
        "INSERT INTO units SELECT step, start, unit, sum(upload), sum(download) FROM usage GROUP BY step, start, unit;
         INSERT INTO users SELECT step, start, user, sum(upload), sum(download) FROM usage GROUP BY step, start, user;",
    )?;
    connection.query_row("SELECT count(*) FROM usage", [], |row| row.get(0))
}

/// Prints how long a query takes, the median and the longest of some rounds.
fn median(what: &str, mut read: impl FnMut() -> anyhow::Result<usize>) -> anyhow::Result<()> {
    let mut times = Vec::new();
    let mut lines = 0;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        lines = read()?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
    }
    times.sort_by(f64::total_cmp);
    println!(
        "{what:<32} {:>8.1} ms, longest {:>8.1} ms, {lines} lines",
        times[ROUNDS / 2],
        times[ROUNDS - 1]
    );
    Ok(())
}
