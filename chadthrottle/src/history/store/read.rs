//! What is asked of the history.

use std::{collections::HashMap, ops::Range};

use rusqlite::params;

use super::{By, HistoryError, Step, Store, Used, bytes};
use crate::stats::Traffic;

/// What was used in one step, by everybody together and by the one that was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When the step began.
    pub start: i64,
    /// By everybody.
    pub all: Traffic,
    /// By the one.
    pub of: Traffic,
}

/// When its step began, where steps are told apart; the number of a name; how much.
type Sum = (Option<i64>, i64, Traffic);

impl Store {
    /// What was used since a time, the most first; by `per` the amounts of each step, in their order.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn used(&self, by: By, since: i64, now: i64, per: Option<Step>) -> Result<Vec<Used>, HistoryError> {
        self.try_used(by, since, now, per).map_err(|source| self.broken(source))
    }

    fn try_used(&self, by: By, since: i64, now: i64, per: Option<Step>) -> rusqlite::Result<Vec<Used>> {
        let sums = match per {
            Some(step) => self.step_by_step(by, step, step.start(since))?,
            // Every amount stands in all steps, so that a whole day or hour need not be added up from its minutes.
            None => self.summed(by, &Step::spans(since, now, self.coarsest()))?,
        };
        let mut names: HashMap<i64, String> = HashMap::new();
        let mut name = self.connection.prepare("SELECT text FROM names WHERE id = ?1")?;
        let mut used = Vec::with_capacity(sums.len());
        for (start, id, traffic) in sums {
            let name = match names.get(&id) {
                Some(name) => name.clone(),
                None => names.entry(id).or_insert(name.query_row([id], |row| row.get(0))?).clone(),
            };
            used.push(Used { start, name, traffic });
        }
        used.sort_by(|a, b| (a.start, b.traffic.sum(), &a.name).cmp(&(b.start, a.traffic.sum(), &b.name)));
        Ok(used)
    }

    /// The amounts of some spans together, by the numbers of names. They are added up here: `SQLite` would sort all rows
    /// by name first, which takes three times as long.
    fn summed(&self, by: By, spans: &[(Step, i64, i64)]) -> rusqlite::Result<Vec<Sum>> {
        let (table, column) = self.place(by);
        let query = format!(
            "SELECT {column}, upload, download FROM {table} WHERE step = ?1 AND start >= ?2 AND start < ?3"
        );
        let mut statement = self.connection.prepare(&query)?;
        let mut sums: HashMap<i64, Traffic> = HashMap::new();
        for (step, from, to) in spans {
            let mut rows = statement.query(params![step.seconds(), from, to])?;
            while let Some(row) = rows.next()? {
                let sum = sums.entry(row.get(0)?).or_default();
                *sum = sum.plus(Traffic { upload: bytes(row.get(1)?), download: bytes(row.get(2)?) });
            }
        }
        Ok(sums.into_iter().map(|(name, traffic)| (None, name, traffic)).collect())
    }

    /// The amounts of each step. They come in the order of the primary key, and those that belong together one after the
    /// other.
    fn step_by_step(&self, by: By, step: Step, since: i64) -> rusqlite::Result<Vec<Sum>> {
        let (table, column) = self.place(by);
        let query = format!(
            "SELECT start, {column}, upload, download FROM {table} WHERE step = ?1 AND start >= ?2
             ORDER BY start, {column}"
        );
        let mut statement = self.connection.prepare(&query)?;
        let mut rows = statement.query(params![step.seconds(), since])?;
        let mut sums: Vec<Sum> = Vec::new();
        while let Some(row) = rows.next()? {
            let (start, name) = (Some(row.get(0)?), row.get(1)?);
            let traffic = Traffic { upload: bytes(row.get(2)?), download: bytes(row.get(3)?) };
            match sums.last_mut() {
                Some(last) if (last.0, last.1) == (start, name) => last.2 = last.2.plus(traffic),
                _ => sums.push((start, name, traffic)),
            }
        }
        Ok(sums)
    }

    /// Where amounts stand. In the first form those of units and users stood with the programs' alone.
    const fn place(&self, by: By) -> (&'static str, &'static str) {
        match (by, self.is_first) {
            (By::Program, _) => ("usage", "program"),
            (By::Unit, false) => ("units", "unit"),
            (By::User, false) => ("users", "user"),
            (By::Unit, true) => ("usage", "unit"),
            (By::User, true) => ("usage", "user"),
            (By::Interface, _) => ("interfaces", "interface"),
        }
    }

    /// What was used in each step since a time, as far as there was anything, by everybody and by one of them.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn series(
        &self,
        by: By,
        step: Step,
        since: i64,
        of: Option<&str>,
    ) -> Result<Vec<Point>, HistoryError> {
        let (table, column) = self.place(by);
        // In the order of the primary key: nothing has to be sorted.
        let query = format!(
            "SELECT start, sum(upload), sum(download), sum(upload) FILTER (WHERE {column} = ?3),
                 sum(download) FILTER (WHERE {column} = ?3)
             FROM {table} WHERE step = ?1 AND start >= ?2 GROUP BY start"
        );
        let read = || -> rusqlite::Result<Vec<Point>> {
            let id: Option<i64> = match of {
                Some(name) => self.name(name)?,
                None => None,
            };
            let mut statement = self.connection.prepare(&query)?;
            let rows = statement.query_map(params![step.seconds(), step.start(since), id], |row| {
                let amount = |column| row.get(column).map(|sum: Option<i64>| bytes(sum.unwrap_or_default()));
                Ok(Point {
                    start: row.get(0)?,
                    all: Traffic { upload: amount(1)?, download: amount(2)? },
                    of: Traffic { upload: amount(3)?, download: amount(4)? },
                })
            })?;
            rows.collect()
        };
        read().map_err(|source| self.broken(source))
    }

    /// The number of a name, where it has one.
    fn name(&self, text: &str) -> rusqlite::Result<Option<i64>> {
        self.connection.query_row("SELECT max(id) FROM names WHERE text = ?1", [text], |row| row.get(0))
    }

    /// What has counted for a rule from a time up to before another.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn passed(&self, rule: &str, time: Range<i64>) -> Result<Traffic, HistoryError> {
        let query = "SELECT coalesce(sum(upload), 0), coalesce(sum(download), 0) FROM rules
                     JOIN names ON names.id = rule WHERE text = ?1 AND start >= ?2 AND start < ?3";
        let (since, until) = (Step::Minute.start(time.start), Step::Minute.start(time.end));
        let read = self.connection.prepare(query).and_then(|mut query| {
            query.query_row(params![rule, since, until], |row| {
                Ok(Traffic { upload: bytes(row.get(0)?), download: bytes(row.get(1)?) })
            })
        });
        read.map_err(|source| self.broken(source))
    }
}
