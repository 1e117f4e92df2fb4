//! "After 5 GB in a day, a megabyte a second": limits that come into force when enough has passed.

use std::{fmt, ops::Range, str::FromStr};

use clap::ValueEnum;
use jiff::{
    Span, Timestamp,
    civil::{Date, Time},
    tz::TimeZone,
};

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
    /// The time that is counted: from its beginning up to before its end. What was recorded while the clock was further on
    /// than now is not of it.
    #[must_use]
    pub fn time(&self, now: Timestamp, zone: &TimeZone) -> Range<Timestamp> {
        let today = zone.to_datetime(now).date();
        let (first, span) = match self.per {
            // By time that has passed: the clock may show an hour twice.
            Period::Hour => {
                let begin = now.as_second().div_euclid(3600) * 3600;
                let at = |second| Timestamp::from_second(second).ok();
                return at(begin).unwrap_or(now)..at(begin + 3600).unwrap_or(Timestamp::MAX);
            }
            Period::Day => (today, Span::new().days(1)),
            Period::Week => {
                let days = i64::from(today.weekday().to_monday_zero_offset());
                (today.saturating_sub(Span::new().days(days)), Span::new().weeks(1))
            }
            Period::Month => {
                (Date::new(today.year(), today.month(), 1).unwrap_or(today), Span::new().months(1))
            }
        };
        let midnight =
            |day: Date| zone.to_ambiguous_timestamp(day.to_datetime(Time::midnight())).compatible().ok();
        let end = first.checked_add(span).ok().and_then(midnight);
        midnight(first).unwrap_or(now)..end.unwrap_or(Timestamp::MAX)
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
        let time = |per, now: &str| quota(per).time(now.parse().expect(now), &zone);
        let since = |per, now: &str| time(per, now).start.to_string();
        let until = |per, now: &str| time(per, now).end.to_string();
        // A Wednesday; summer begins on the 29th.
        assert_eq!(since(Period::Hour, "2026-04-01T10:20:30Z"), "2026-04-01T10:00:00Z");
        assert_eq!(since(Period::Day, "2026-04-01T10:20:30Z"), "2026-03-31T22:00:00Z");
        assert_eq!(since(Period::Week, "2026-04-01T10:20:30Z"), "2026-03-29T22:00:00Z");
        assert_eq!(since(Period::Month, "2026-03-31T10:20:30Z"), "2026-02-28T23:00:00Z");
        assert_eq!(since(Period::Day, "2026-03-31T22:30:00Z"), "2026-03-31T22:00:00Z", "it is April there");
        assert_eq!(until(Period::Hour, "2026-04-01T10:20:30Z"), "2026-04-01T11:00:00Z");
        assert_eq!(until(Period::Day, "2026-03-29T10:00:00Z"), "2026-03-29T22:00:00Z", "a day of 23 hours");
        assert_eq!(until(Period::Week, "2026-04-01T10:20:30Z"), "2026-04-05T22:00:00Z");
        assert_eq!(until(Period::Month, "2026-01-31T10:20:30Z"), "2026-01-31T23:00:00Z");
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
        fn times_follow_each_other_and_now_is_in_one(second in 0..4_000_000_000_i64) {
            let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone");
            let now = Timestamp::from_second(second).expect("a time");
            for per in Period::value_variants() {
                let time = quota(*per).time(now, &zone);
                prop_assert!(time.contains(&now), "{time:?} {now}");
                prop_assert_eq!(&quota(*per).time(time.start, &zone), &time);
                prop_assert_eq!(quota(*per).time(time.end, &zone).start, time.end);
            }
        }
    }
}
