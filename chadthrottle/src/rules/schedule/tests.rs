use jiff::{Span as Length, ToSpan};
use proptest::prelude::*;

use super::*;

/// Central Europe: forward on the last Sunday of March at 2, back on that of October at 3.
fn berlin() -> TimeZone {
    TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a time zone")
}

fn schedule(spans: &[&str]) -> Schedule {
    Schedule::new(spans.iter().map(|span| span.parse().expect(span)).collect())
}

fn is_on(spans: &[&str], utc: &str) -> bool {
    schedule(spans).is_on(utc.parse().expect(utc), &berlin())
}

#[test]
fn days_and_hours_by_the_clock_on_the_wall() {
    // A Wednesday in winter: the clock is an hour ahead of UTC.
    let work = ["Mon-Fri 08:00-18:00"];
    assert!(!is_on(&work, "2026-01-14T06:59:59Z"));
    assert!(is_on(&work, "2026-01-14T07:00:00Z"));
    assert!(is_on(&work, "2026-01-14T16:59:59Z"));
    assert!(!is_on(&work, "2026-01-14T17:00:00Z"));
    assert!(!is_on(&work, "2026-01-17T12:00:00Z"), "Saturday");
    assert!(is_on(&["Sat,Sun"], "2026-01-16T23:00:00Z"), "Saturday begins");
    assert!(is_on(&["20:00-24:00", "Wed"], "2026-01-14T12:00:00Z"));
}

#[test]
fn over_midnight_a_span_belongs_to_the_day_that_it_begins_on() {
    let night = ["Fri 22:00-06:00"];
    assert!(is_on(&night, "2026-01-16T21:00:00Z"));
    assert!(is_on(&night, "2026-01-17T04:59:59Z"), "Saturday morning");
    assert!(!is_on(&night, "2026-01-17T05:00:00Z"));
    assert!(!is_on(&night, "2026-01-16T04:00:00Z"), "Friday morning");
    assert!(is_on(&["Sun 23:00-01:00"], "2026-01-18T23:30:00Z"), "Monday");
}

#[test]
fn where_the_clock_is_set_forward() {
    // 2026-03-29, 02:00 is 03:00: 01:00 UTC.
    assert!(!is_on(&["02:00-03:00"], "2026-03-29T00:59:59Z"));
    assert!(!is_on(&["02:00-03:00"], "2026-03-29T01:00:00Z"), "it does not exist on that day");
    assert!(is_on(&["02:30-03:30"], "2026-03-29T01:00:00Z"), "from when the clock is set");
    assert!(is_on(&["02:30-03:30"], "2026-03-29T01:29:59Z"));
    assert!(!is_on(&["02:30-03:30"], "2026-03-29T01:30:00Z"));
    assert!(is_on(&["Sat 23:00-02:30"], "2026-03-29T00:59:59Z"));
    assert!(!is_on(&["Sat 23:00-02:30"], "2026-03-29T01:00:00Z"));
}

#[test]
fn where_the_clock_is_set_back() {
    // 2026-10-25, 03:00 is 02:00: 01:00 UTC. From 02:00 to 03:00 comes twice.
    for minute in ["00:00", "00:59", "01:00", "01:59"] {
        assert!(is_on(&["02:00-03:00"], &format!("2026-10-25T{minute}:00Z")), "{minute}");
    }
    assert!(!is_on(&["02:00-03:00"], "2026-10-24T23:59:59Z"));
    assert!(!is_on(&["02:00-03:00"], "2026-10-25T02:00:00Z"));
    assert!(is_on(&["01:30-02:30"], "2026-10-25T00:45:00Z"), "02:45, the first time, in one piece");
    assert!(!is_on(&["01:30-02:30"], "2026-10-25T01:30:00Z"), "02:30, the last time");
}

#[test]
fn overlaps_are_found_over_the_end_of_the_week() {
    let overlap = |one: &str, other: &str| schedule(&[one]).overlaps(&schedule(&[other]));
    assert!(overlap("Mon-Fri", "Fri 23:00-24:00"));
    assert!(!overlap("Mon-Fri", "Sat,Sun"));
    assert!(overlap("Sun 22:00-06:00", "Mon 05:00-07:00"));
    assert!(!overlap("Sun 22:00-06:00", "Mon 06:00-07:00"));
    assert!(overlap("Fri-Mon", "Sun"));
}

#[test]
fn what_is_no_time_of_the_week_says_so() {
    for typed in [
        "",
        "Mo-Xx",
        "08:00",
        "8-18",
        "25:00-26:00",
        "08:60-09:00",
        "24:00-01:00",
        "08:00-08:00",
        "Mon 1 2",
        "Mon,",
    ] {
        let error = typed.parse::<Span>().expect_err(typed);
        assert!(error.contains(SCHEDULE_FORMS), "{error}");
    }
}

fn span() -> impl Strategy<Value = Span> {
    (any::<[bool; 7]>(), 0..MINUTES_A_DAY, 1..MINUTES_A_DAY)
        .prop_filter_map("a day", |(days, begin, length)| {
            days.contains(&true).then_some(Span { days, begin, end: begin + length })
        })
}

proptest! {
    #[test]
    fn what_is_shown_is_read_back(span in span()) {
        prop_assert_eq!(span.to_string().parse::<Span>(), Ok(span));
    }

    #[test]
    fn nothing_typed_panics(text in ".{0,20}|[A-Za-z,0-9: -]{0,20}") {
        let _ = text.parse::<Span>();
    }

    /// Where the clock is never set, a span is just its minutes of the week.
    #[test]
    fn without_daylight_saving_it_is_the_minute_of_the_week_that_counts(span in span(), minute in 0..MINUTES_A_WEEK) {
        // A Monday.
        let monday: Timestamp = "2026-01-12T00:00:00Z".parse().expect("a time");
        let now = monday + Length::new().minutes(i64::from(minute));
        let expected = span.in_a_week().iter().any(|(begin, end)| (*begin..*end).contains(&minute));
        prop_assert_eq!(Schedule::new(vec![span]).is_on(now, &TimeZone::UTC), expected);
    }

    /// On each day it goes on and off once at most, whatever the clock does.
    #[test]
    fn a_span_is_one_piece(begin in 0..MINUTES_A_DAY, length in 1..MINUTES_A_DAY, day in 0..365_i64) {
        let span = Span { days: [true, false, true, false, true, false, true], begin, end: begin + length };
        let first: Timestamp = "2026-01-01T12:00:00Z".parse().expect("a time");
        let schedule = Schedule::new(vec![span]);
        let zone = berlin();
        let quarters = (0..96).map(|quarter| first + (day * 24).hours() + (quarter * 15).minutes());
        let states: Vec<bool> = quarters.map(|now| schedule.is_on(now, &zone)).collect();
        let changes = states.windows(2).filter(|pair| pair[0] != pair[1]).count();
        prop_assert!(changes <= 3, "{changes}");
    }
}
