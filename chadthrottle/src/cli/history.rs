//! `history`.

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::{
    history::{By, Step},
    rate::parse_time,
};

/// What is to be shown of the past.
#[derive(Args, Debug)]
pub struct HistoryOptions {
    /// What is added up.
    #[arg(long, value_name = "KEY", value_enum, default_value = "program")]
    pub by: By,
    /// From when on: a time before now (30m, 12h, 7d), today, or a day (2026-01-31).
    #[arg(long, value_name = "TIME", default_value = "1d", value_parser = parse_since)]
    pub since: Since,
    /// The amounts of each minute, hour or day, in UTC, instead of those of all the time.
    #[arg(long, value_name = "STEP", value_enum)]
    pub per: Option<Step>,
    /// As JSON.
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// As CSV, with headings.
    #[arg(long)]
    pub csv: bool,
}

/// From when on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Since {
    /// So many seconds before now.
    Ago(i64),
    /// The midnight before now.
    Today,
    /// The midnight at which a day begins.
    Day(Date),
}

impl Since {
    /// In seconds since 1970.
    #[must_use]
    pub fn time(self, now: Timestamp, zone: &TimeZone) -> i64 {
        let midnight = |day: Date| day.to_zoned(zone.clone()).map(|time| time.timestamp().as_second());
        match self {
            Self::Ago(seconds) => now.as_second().saturating_sub(seconds),
            Self::Today => midnight(zone.to_datetime(now).date()).unwrap_or_default(),
            Self::Day(day) => midnight(day).unwrap_or_default(),
        }
    }
}

fn parse_since(typed: &str) -> Result<Since, String> {
    if typed == "today" {
        return Ok(Since::Today);
    }
    if let Ok(day) = typed.parse() {
        return Ok(Since::Day(day));
    }
    let ago = parse_time(typed).map_err(|error| format!("{error}; or today, or a day: 2026-01-31"))?;
    Ok(Since::Ago(i64::try_from(ago.as_secs()).unwrap_or(i64::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_now_and_days() {
        let zone = TimeZone::posix("CET-1").expect("a time zone");
        let now: Timestamp = "2026-01-14T12:00:00Z".parse().expect("a time");
        let since = |typed: &str| {
            let time = parse_since(typed).expect(typed).time(now, &zone);
            Timestamp::from_second(time).expect("a time").to_string()
        };
        assert_eq!(since("90m"), "2026-01-14T10:30:00Z");
        assert_eq!(since("7d"), "2026-01-07T12:00:00Z");
        assert_eq!(since("today"), "2026-01-13T23:00:00Z");
        assert_eq!(since("2026-01-01"), "2025-12-31T23:00:00Z");
        assert!(parse_since("yesterday").expect_err("no time").contains("2026-01-31"));
    }
}
