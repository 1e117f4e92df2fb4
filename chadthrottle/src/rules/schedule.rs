//! When a rule is in force: days of the week and hours, by the clock on the wall.
//!
//! Whether that is now is a function of the time and the time zone. A span goes from the instant at which the clock first
//! shows its beginning to the one at which it last shows its end, so that it is one piece on days on which the clock is
//! set: what the clock leaves out does not exist, and what it shows twice is in it both times.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::{Date, DateTime, Time, Weekday},
    tz::{AmbiguousOffset, TimeZone},
};

/// What a span may look like; part of every message about one that does not.
pub const SCHEDULE_FORMS: &str =
    "days, hours or both: \"Mon-Fri 08:00-18:00\", \"Sat,Sun\", \"22:00-06:00\" (over midnight)";

const MINUTES_A_DAY: u32 = 24 * 60;
const MINUTES_A_WEEK: u32 = 7 * MINUTES_A_DAY;
const NAMES: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];

/// Some hours of some days of the week.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Span {
    /// On which days it begins, from Monday.
    days: [bool; 7],
    /// Minutes after midnight, below 1440.
    begin: u32,
    /// Minutes after the same midnight, above `begin`: up to 2879, the next day.
    end: u32,
}

/// Several of these. It is time when it is time for one of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule(Vec<Span>);

impl Schedule {
    /// These spans. None are no time at all.
    #[must_use]
    pub const fn new(spans: Vec<Span>) -> Self {
        Self(spans)
    }

    /// Whether it is time.
    #[must_use]
    pub fn is_on(&self, now: Timestamp, zone: &TimeZone) -> bool {
        let today = zone.to_datetime(now).date();
        // A span may have begun yesterday.
        [today.yesterday().ok(), Some(today)].into_iter().flatten().any(|day| {
            let spans = self.0.iter().filter(|span| span.begins_on(day.weekday()));
            spans.filter_map(|span| span.on(day, zone)).any(|(begin, end)| begin <= now && now < end)
        })
    }

    /// Whether there is any minute of a week that is in both.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        let spans = |schedule: &Self| schedule.0.iter().flat_map(Span::in_a_week).collect::<Vec<_>>();
        let (ours, theirs) = (spans(self), spans(other));
        ours.iter().any(|one| theirs.iter().any(|other| one.0 < other.1 && other.0 < one.1))
    }
}

impl Span {
    fn begins_on(&self, day: Weekday) -> bool {
        self.days[usize::try_from(day.to_monday_zero_offset()).unwrap_or_default() % 7]
    }

    /// From when to when it is, where it begins on this day. None where the clock leaves all of it out.
    fn on(&self, day: Date, zone: &TimeZone) -> Option<(Timestamp, Timestamp)> {
        let begin = instant(at(day, self.begin)?, zone, false)?;
        let end = instant(at(day, self.end)?, zone, true)?;
        (begin < end).then_some((begin, end))
    }

    /// Minutes from Monday's midnight on, in one piece or, over the end of the week, two.
    fn in_a_week(&self) -> Vec<(u32, u32)> {
        let days = (0..7).zip(self.days).filter(|(_, is_one)| *is_one);
        days.flat_map(|(day, _)| {
            let (begin, end) = (day * MINUTES_A_DAY + self.begin, day * MINUTES_A_DAY + self.end);
            let next_week = end.checked_sub(MINUTES_A_WEEK).map(|rest| (0, rest));
            [Some((begin, end.min(MINUTES_A_WEEK))), next_week].into_iter().flatten()
        })
        .collect()
    }
}

/// So many minutes after a day's midnight by the clock, which may be on the next day.
fn at(day: Date, minutes: u32) -> Option<DateTime> {
    let (day, minutes) = match minutes.checked_sub(MINUTES_A_DAY) {
        Some(rest) => (day.tomorrow().ok()?, rest),
        None => (day, minutes),
    };
    let (hour, minute) = (i8::try_from(minutes / 60).ok()?, i8::try_from(minutes % 60).ok()?);
    Some(day.to_datetime(Time::new(hour, minute, 0, 0).ok()?))
}

/// When the clock shows this, for the first or the last time. What it leaves out is the instant at which it is set.
fn instant(shown: DateTime, zone: &TimeZone, last: bool) -> Option<Timestamp> {
    let ambiguous = zone.to_ambiguous_timestamp(shown);
    match ambiguous.offset() {
        AmbiguousOffset::Gap { .. } => {
            let before = ambiguous.earlier().ok()?;
            zone.following(before).next().map(|set| set.timestamp())
        }
        _ if last => ambiguous.later().ok(),
        _ => ambiguous.earlier().ok(),
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(typed: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("{typed:?} is no time of the week: {what}; give {SCHEDULE_FORMS}");
        let words: Vec<&str> = typed.split_whitespace().collect();
        let is_hours = |word: &str| word.contains(':');
        let (days, hours) = match words[..] {
            [word] if is_hours(word) => (None, Some(word)),
            [word] => (Some(word), None),
            [days, hours] if is_hours(hours) => (Some(days), Some(hours)),
            _ => return Err(wrong("it has neither days nor hours, or too much")),
        };
        let days = days.map_or(Ok([true; 7]), days_of).map_err(|what| wrong(&what))?;
        let (begin, end) = hours.map_or(Ok((0, MINUTES_A_DAY)), hours_of).map_err(|what| wrong(&what))?;
        Ok(Self { days, begin, end })
    }
}

/// `Mon-Fri,Sun`.
fn days_of(typed: &str) -> Result<[bool; 7], String> {
    let day = |name: &str| {
        let is = |known: &&str| {
            name.len() >= 2
                && known.get(..name.len().min(3)).is_some_and(|known| known.eq_ignore_ascii_case(name))
        };
        let long = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
        let found = NAMES.iter().position(is);
        let found = found.or_else(|| long.iter().position(|known| known.eq_ignore_ascii_case(name)));
        found.ok_or_else(|| format!("{name:?} is no day"))
    };
    let mut days = [false; 7];
    for part in typed.split(',') {
        let (first, last) = match part.split_once('-') {
            Some((first, last)) => (day(first)?, day(last)?),
            None => (day(part)?, day(part)?),
        };
        // Fri-Mon goes over the end of the week.
        for step in 0..=(last + 7 - first) % 7 {
            days[(first + step) % 7] = true;
        }
    }
    Ok(days)
}

/// `08:00-18:00`: minutes after midnight, the second number above the first.
fn hours_of(typed: &str) -> Result<(u32, u32), String> {
    let minutes = |text: &str| {
        let parse = || {
            let (hour, minute) = text.split_once(':')?;
            let is_number =
                |text: &str| (1..=2).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
            (is_number(hour) && is_number(minute) && minute.len() == 2).then_some(())?;
            let (hour, minute): (u32, u32) = (hour.parse().ok()?, minute.parse().ok()?);
            (minute < 60 && (hour < 24 || (hour == 24 && minute == 0))).then_some(hour * 60 + minute)
        };
        parse().ok_or_else(|| format!("{text:?} is no time of day"))
    };
    let (begin, end) = typed.split_once('-').ok_or_else(|| format!("{typed:?} has no end"))?;
    let (begin, end) = (minutes(begin)?, minutes(end)?);
    if begin == end || begin == MINUTES_A_DAY {
        return Err("it ends when it begins; leave the hours out for the whole day".into());
    }
    Ok((begin, if end > begin { end } else { end + MINUTES_A_DAY }))
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_all_day = (self.begin, self.end) == (0, MINUTES_A_DAY);
        if self.days != [true; 7] || is_all_day {
            let names = NAMES.iter().zip(self.days).filter(|(_, is_one)| *is_one).map(|(name, _)| *name);
            f.write_str(&names.collect::<Vec<_>>().join(","))?;
            if is_all_day {
                return Ok(());
            }
            f.write_str(" ")?;
        }
        let end = if self.end > MINUTES_A_DAY { self.end - MINUTES_A_DAY } else { self.end };
        write!(f, "{:02}:{:02}-{:02}:{:02}", self.begin / 60, self.begin % 60, end / 60, end % 60)
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let spans: Vec<String> = self.0.iter().map(ToString::to_string).collect();
        f.write_str(&spans.join("; "))
    }
}

#[cfg(test)]
mod tests;
