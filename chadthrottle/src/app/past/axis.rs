//! What stands below a graph: times, where they are round.

use jiff::{Timestamp, Zoned, tz::TimeZone};

use crate::history::past::Span;

/// Between two of them.
const GAP: usize = 2;

/// Times in a line of so many columns, which stand for the steps of a span from `since` on.
pub(super) fn axis(span: Span, since: i64, zone: &TimeZone, columns: usize) -> String {
    let mut line = String::new();
    let steps = span.steps();
    for index in 0..steps {
        let Some(label) =
            at(span, since + index * span.step().seconds(), zone).and_then(|at| label(span, &at))
        else {
            continue;
        };
        let place = usize::try_from(index).unwrap_or_default() * columns
            / usize::try_from(steps).unwrap_or(usize::MAX).max(1);
        let is_clear = line.is_empty() || place >= line.len() + GAP;
        if is_clear && place + label.len() <= columns {
            line.push_str(&" ".repeat(place - line.len()));
            line.push_str(&label);
        }
    }
    line
}

/// When a span began, in words.
pub(super) fn beginning(span: Span, since: i64, zone: &TimeZone) -> String {
    let form = match span {
        Span::Hour | Span::Day => "%H:%M",
        Span::Week => "%a %d %b %H:%M",
        Span::Month | Span::Year => "%d %b %Y, days of UTC",
    };
    at(span, since, zone).map(|at| format!("since {}", at.strftime(form))).unwrap_or_default()
}

/// Days are those of UTC, and have the names that they have there.
fn at(span: Span, time: i64, zone: &TimeZone) -> Option<Zoned> {
    let zone = match span {
        Span::Hour | Span::Day | Span::Week => zone.clone(),
        Span::Month | Span::Year => TimeZone::UTC,
    };
    Some(Timestamp::from_second(time).ok()?.to_zoned(zone))
}

fn label(span: Span, at: &Zoned) -> Option<String> {
    let (is_round, form) = match span {
        Span::Hour => (at.minute() % 10 == 0, "%H:%M"),
        Span::Day => (at.hour() % 3 == 0, "%H:%M"),
        Span::Week => (at.hour() == 0, "%a %d"),
        Span::Month => (at.day() == 1 || at.day() % 5 == 0, "%b %d"),
        Span::Year if at.month() == 1 => (at.day() == 1, "%Y"),
        Span::Year => (at.day() == 1, "%b"),
    };
    is_round.then(|| at.strftime(form).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A Thursday, 14:37:20 in UTC.
    const NOW: i64 = 1_768_487_840;

    fn line(span: Span, zone: &TimeZone, columns: usize) -> String {
        axis(span, span.since(NOW), zone, columns)
    }

    #[test]
    fn times_stand_where_they_are_round() {
        let utc = TimeZone::UTC;
        assert_eq!(line(Span::Hour, &utc, 60), "  13:40     13:50     14:00     14:10     14:20     14:30");
        assert_eq!(line(Span::Day, &utc, 24), "15:00    00:00    09:00");
        assert_eq!(line(Span::Week, &utc, 168).find("Fri 09"), Some(9));
        assert!(line(Span::Month, &utc, 120).contains("Dec 20"));
        let year = line(Span::Year, &utc, 80);
        assert!(year.starts_with("   Feb") && year.ends_with("Dec    2026"), "{year:?}");
    }

    #[test]
    fn hours_are_those_of_the_clock_on_the_wall() {
        let india = TimeZone::posix("IST-5:30").expect("a time zone");
        assert!(line(Span::Day, &india, 120).starts_with("     21:30"), "{}", line(Span::Day, &india, 120));
        assert_eq!(beginning(Span::Day, Span::Day.since(NOW), &india), "since 20:30");
        assert_eq!(beginning(Span::Year, Span::Year.since(NOW), &india), "since 16 Jan 2025, days of UTC");
    }

    #[test]
    fn no_line_is_longer_than_its_room() {
        for span in Span::ALL {
            for columns in 0..200 {
                assert!(line(span, &TimeZone::UTC, columns).len() <= columns, "{span:?} {columns}");
            }
        }
    }
}
