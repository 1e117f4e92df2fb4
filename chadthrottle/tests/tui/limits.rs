//! Limits asked for by keys.

use chadthrottle::{
    app::{Effect, Event, LimitOutcome, keys::Place},
    backends::throttle::{Target, manager::Limits},
};
use crossterm::event::KeyCode;

use super::host::{Screen, id, limited, row, snapshot};

fn curl() -> Target {
    Target::process(id(9), "curl")
}

/// One process, with these limits.
fn screen(upload: Option<u64>, download: Option<u64>) -> Screen {
    let mut screen = Screen::empty(80, 24);
    screen.send(Event::Snapshot(snapshot(vec![row(9, "curl", 1, 1)])));
    if upload.or(download).is_some() {
        screen.send(Event::Limits(vec![limited(9, "curl", upload, download)]));
    }
    screen
}

fn set(upload: Option<u64>, download: Option<u64>) -> Vec<Effect> {
    vec![Effect::SetLimits { target: curl(), limits: Limits { upload, download } }]
}

#[test]
fn one_direction_leaves_the_other_alone() {
    let mut screen = screen(None, Some(7));
    screen.typed("u1.5M");
    assert_eq!(screen.app.place(), Place::Limit);
    assert!(screen.text().contains("1500000 bytes a second may be sent."));
    assert_eq!(screen.key(KeyCode::Enter), set(Some(1_500_000), Some(7)));
    assert_eq!(screen.app.place(), Place::Table);
    assert!(screen.text().contains("Limiting curl (9)…"));
    let limits = Limits { upload: Some(1_500_000), download: Some(7) };
    screen.send(Event::LimitResult(LimitOutcome { target: curl(), limits, result: Ok(()) }));
    assert!(screen.text().contains("upload limited to 1.5M a second"), "{}", screen.text());
}

#[test]
fn both_directions_at_once() {
    let mut screen = screen(None, None);
    screen.typed("t0");
    assert!(screen.text().contains("0 blocks: nothing is sent at all."));
    screen.key(KeyCode::Tab);
    screen.typed("10mbit");
    assert_eq!(screen.key(KeyCode::Enter), set(Some(0), Some(1_250_000)));
}

#[test]
fn the_limit_in_force_is_filled_in_and_empty_means_none() {
    let mut screen = screen(Some(1_234_567), Some(5_000_000));
    screen.typed("d");
    assert!(screen.text().contains("download 5M"), "{}", screen.text());
    for _ in 0..2 {
        screen.key(KeyCode::Backspace);
    }
    assert_eq!(screen.key(KeyCode::Enter), set(Some(1_234_567), None));
    screen.typed("u");
    assert!(screen.text().contains("upload   1234567"), "{}", screen.text());
    screen.key(KeyCode::Esc);

    screen.send(Event::Limits(vec![limited(9, "curl", Some(5), None)]));
    screen.typed("u");
    screen.key(KeyCode::Backspace);
    assert_eq!(screen.key(KeyCode::Enter), [Effect::RemoveLimits { target: curl() }]);

    screen.send(Event::Limits(Vec::new()));
    screen.typed("u");
    assert_eq!(screen.key(KeyCode::Enter), []);
    assert!(screen.text().contains("curl (9) stays without a limit."));
}

#[test]
fn a_bad_rate_keeps_the_dialog_open_and_says_why() {
    let mut screen = screen(None, None);
    screen.typed("u-5");
    assert_eq!(screen.key(KeyCode::Enter), []);
    assert_eq!(screen.app.place(), Place::Limit);
    assert!(screen.text().contains("\"-5\" is negative; give"), "{}", screen.text());
    screen.key(KeyCode::Home);
    screen.key(KeyCode::Delete);
    assert!(!screen.text().contains("negative"));
    assert_eq!(screen.key(KeyCode::Enter), set(Some(5), None));
}

#[test]
fn esc_changes_nothing() {
    let mut screen = screen(Some(5), None);
    let before = screen.text();
    screen.typed("u99");
    assert_eq!(screen.key(KeyCode::Esc), []);
    assert_eq!(screen.text(), before);
}

#[test]
fn the_dialog_stays_with_its_process() {
    let mut screen = screen(None, None);
    screen.typed("u5");
    screen.send(Event::Snapshot(snapshot(vec![row(1, "other", 50, 50), row(9, "curl", 1, 1)])));
    assert!(screen.text().contains("Limit curl (9)"));
    assert_eq!(screen.key(KeyCode::Enter), set(Some(5), None));
}

#[test]
fn removing() {
    let mut screen = screen(Some(5), None);
    assert_eq!(screen.typed("r"), [Effect::RemoveLimits { target: curl() }]);
    screen.send(Event::Limits(Vec::new()));
    let result = Ok(());
    screen.send(Event::LimitResult(LimitOutcome { target: curl(), limits: Limits::default(), result }));
    assert!(screen.text().contains("curl (9) has no limit any more."));
    assert_eq!(screen.typed("r"), []);
    assert!(screen.text().contains("curl (9) has no limit."));
}

#[test]
fn a_process_that_has_ended_cannot_be_limited_but_freed() {
    let mut screen = screen(Some(5), None);
    let mut ended = row(9, "curl", 0, 0);
    ended.alive = false;
    screen.send(Event::Snapshot(snapshot(vec![ended])));
    assert!(screen.selected_line().contains("curl ended"));
    screen.typed("u");
    assert_eq!(screen.app.place(), Place::Table);
    assert!(screen.text().contains("curl (9) has ended: there is nothing left to limit."));
    assert_eq!(screen.typed("r"), [Effect::RemoveLimits { target: curl() }]);
}

#[test]
fn keys_without_any_process() {
    for key in ['u', 'd', 't', 'r'] {
        let mut screen = Screen::empty(80, 24);
        assert_eq!(screen.key(KeyCode::Char(key)), []);
        assert!(screen.text().contains("No process is selected."));
    }
}

#[test]
fn a_refusal_is_told_whole_until_the_next_key() {
    let mut screen = screen(None, None);
    let reason = "a reason that goes on and on ".repeat(10);
    let limits = Limits { upload: Some(1), download: None };
    screen.send(Event::LimitResult(LimitOutcome { target: curl(), limits, result: Err(reason.clone()) }));
    screen.send(Event::Snapshot(snapshot(vec![row(9, "curl", 1, 1)])));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&screen.text()).contains(&words(&reason)), "{}", screen.text());
    screen.key(KeyCode::Down);
    assert!(!screen.text().contains("on and on"));
}

#[test]
fn a_limited_process_is_listed_though_nobody_has_seen_it() {
    let mut screen = screen(None, None);
    screen.send(Event::Limits(vec![limited(77, "quiet", Some(5), None)]));
    assert_eq!(screen.pids(), [9, 77]);
}

#[test]
fn a_limited_process_that_never_used_the_network_shows_when_it_has_ended() {
    let mut screen = screen(Some(5), None);
    let mut silent = limited(77, "silent", Some(1000), None);
    screen.send(Event::Limits(vec![silent.clone()]));
    assert!(screen.text().contains("silent ") && !screen.text().contains("silent ended"));
    silent.alive = false;
    screen.send(Event::Limits(vec![silent]));
    assert!(screen.text().contains("silent ended"), "{}", screen.text());
}
