//! "After 5 GB in a day, a megabyte a second": limits that come into force when enough has passed.

use std::{fmt, str::FromStr};

use clap::ValueEnum;
use jiff::{Timestamp, civil::Date, tz::TimeZone};

use crate::{backends::throttle::manager::Limits, rate::scaled, stats::Traffic};

/// What an amount may look like.
pub const AMOUNT_FORMS: &str =
    "a number of bytes with an optional unit: 500M, 5G, 1.5T (powers of 1000), 2GiB";

/// IP bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Amount(pub u64);

/// Over what time is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Period {
    /// From full hour to full hour.
    Hour,
    /// From midnight to midnight, by the clock on the wall.
    Day,
    /// From Monday to Sunday.
    Week,
    /// From the first to the last of a month.
    Month,
}

/// What is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Counted {
    /// What is sent and what is received.
    #[default]
    Both,
    /// What is sent.
    Upload,
    /// What is received.
    Download,
}

/// How much may pass in a time, and what holds from then on until it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// As much as may pass.
    pub after: Amount,
    /// In this time.
    pub per: Period,
    /// Which traffic is counted.
    pub count: Counted,
    /// What holds then; 0 blocks.
    pub then: Limits,
}

impl Quota {
    /// Since when it is counted.
    #[must_use]
    pub fn since(&self, now: Timestamp, zone: &TimeZone) -> Timestamp {
        let local = zone.to_datetime(now);
        let today = local.date();
        let first = match self.per {
            // By time that has passed: the clock may show an hour twice.
            Period::Hour => {
                return Timestamp::from_second(now.as_second().div_euclid(3600) * 3600).unwrap_or(now);
            }
            Period::Day => today,
            Period::Week => {
                let days = i64::from(today.weekday().to_monday_zero_offset());
                today.saturating_sub(jiff::Span::new().days(days))
            }
            Period::Month => Date::new(today.year(), today.month(), 1).unwrap_or(today),
        };
        let midnight = zone.to_ambiguous_timestamp(first.to_datetime(jiff::civil::Time::midnight()));
        midnight.compatible().unwrap_or(now)
    }

    /// Whether so much has passed that it is over.
    #[must_use]
    pub const fn is_used_up(&self, passed: Traffic) -> bool {
        let counted = match self.count {
            Counted::Both => passed.upload.saturating_add(passed.download),
            Counted::Upload => passed.upload,
            Counted::Download => passed.download,
        };
        counted >= self.after.0
    }

    /// The limits that hold when so much has passed: a rule's own ones before, and the tighter of both from then on.
    #[must_use]
    pub fn limits(&self, passed: Traffic, own: Limits) -> Limits {
        if !self.is_used_up(passed) {
            return own;
        }
        let tighter = |one: Option<u64>, other: Option<u64>| one.into_iter().chain(other).min();
        Limits {
            upload: tighter(own.upload, self.then.upload),
            download: tighter(own.download, self.then.download),
        }
    }
}

impl FromStr for Amount {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let wrong = || format!("{typed:?} is no amount; give {AMOUNT_FORMS}");
        // The grammar of rates, without bits.
        if typed.to_ascii_lowercase().contains("bit") {
            return Err(wrong());
        }
        match typed.parse::<crate::rate::Rate>() {
            Ok(rate) if rate.0 > 0 => Ok(Self(rate.0)),
            _ => Err(wrong()),
        }
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}B", scaled(self.0))
    }
}

impl Period {
    /// Its name in a file.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quota(per: Period) -> Quota {
        Quota {
            after: Amount(1000),
            per,
            count: Counted::Both,
            then: Limits { upload: Some(10), download: Some(0) },
        }
    }

    #[test]
    fn it_is_counted_from_the_beginning_by_the_clock_on_the_wall() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone");
        let since = |per, now: &str| quota(per).since(now.parse().expect(now), &zone).to_string();
        // A Wednesday; summer begins on the 29th.
        assert_eq!(since(Period::Hour, "2026-04-01T10:20:30Z"), "2026-04-01T10:00:00Z");
        assert_eq!(since(Period::Day, "2026-04-01T10:20:30Z"), "2026-03-31T22:00:00Z");
        assert_eq!(since(Period::Week, "2026-04-01T10:20:30Z"), "2026-03-29T22:00:00Z");
        assert_eq!(since(Period::Month, "2026-03-31T10:20:30Z"), "2026-02-28T23:00:00Z");
        assert_eq!(since(Period::Day, "2026-03-31T22:30:00Z"), "2026-03-31T22:00:00Z", "it is April there");
    }

    #[test]
    fn the_tighter_limit_holds_once_it_is_used_up() {
        let own = Limits { upload: Some(5), download: Some(500) };
        let passed = |upload, download| Traffic { upload, download };
        assert_eq!(quota(Period::Day).limits(passed(500, 499), own), own);
        let then = Limits { upload: Some(5), download: Some(0) };
        assert_eq!(quota(Period::Day).limits(passed(500, 500), own), then);
        let up_alone = Quota { count: Counted::Upload, ..quota(Period::Day) };
        assert!(!up_alone.is_used_up(passed(999, u64::MAX)) && up_alone.is_used_up(passed(1000, 0)));
    }

    #[test]
    fn amounts_are_bytes() {
        assert_eq!("5G".parse(), Ok(Amount(5_000_000_000)));
        assert_eq!("1GiB".parse(), Ok(Amount(1 << 30)));
        for typed in ["", "0", "-1", "5gbit", "much"] {
            assert!(typed.parse::<Amount>().is_err(), "{typed}");
        }
    }

    proptest! {
        #[test]
        fn limits_only_become_tighter(upload: u64, download: u64, own: Option<u64>) {
            let own = Limits { upload: own, download: own };
            let limits = quota(Period::Month).limits(Traffic { upload, download }, own);
            if let Some(own) = own.upload {
                prop_assert!(limits.upload.is_some_and(|limit| limit <= own));
                prop_assert!(limits.download.is_some_and(|limit| limit <= own));
            }
        }

        #[test]
        fn now_is_never_before_the_beginning(second in 0..4_000_000_000_i64) {
            let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone");
            let now = Timestamp::from_second(second).expect("a time");
            for per in Period::value_variants() {
                let since = quota(*per).since(now, &zone);
                prop_assert!(since <= now && quota(*per).since(since, &zone) == since, "{since} {now}");
            }
        }
    }
}
