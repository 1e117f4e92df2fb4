//! Limits asked for by keys.

use chadthrottle::{
    app::{Effect, Event, LimitOutcome, keys::Place},
    backends::throttle::{Subject, Target, TrafficType, manager::Limits},
    lookout::{Ancestor, Answer, Question, Reach},
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
    assert!(screen.selected_line().contains(" ended"));
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
fn a_refusal_is_told_whole_and_stays_with_its_process() {
    let mut screen = screen(None, None);
    let reason = "a reason that goes on and on ".repeat(10);
    let limits = Limits { upload: Some(1), download: None };
    screen.send(Event::LimitResult(LimitOutcome { target: curl(), limits, result: Err(reason.clone()) }));
    screen.send(Event::Snapshot(snapshot(vec![row(9, "curl", 1, 1)])));
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(words(&screen.text()).contains(&words(&reason)), "{}", screen.text());
    assert!(screen.selected_line().contains("fail"), "{}", screen.text());
    screen.key(KeyCode::Down);
    assert!(screen.text().contains("Refused: a reason"), "it is the selected one's: {}", screen.text());
    screen.typed("r");
    screen.key(KeyCode::Down);
    assert!(!screen.text().contains("on and on"));
}

#[test]
fn what_was_said_goes_after_a_while_and_what_is_wrong_stays() {
    let mut screen = screen(None, None);
    let second = || Event::Snapshot(snapshot(vec![row(9, "curl", 1, 1)]));
    let limits = Limits { upload: Some(1), download: None };
    let outcome = |result| Event::LimitResult(LimitOutcome { target: curl(), limits, result });
    screen.send(outcome(Ok(())));
    (0..20).for_each(|_| drop(screen.send(second())));
    assert!(screen.text().contains("upload limited to 1"), "{}", screen.text());
    screen.send(second());
    assert!(!screen.text().contains("upload limited to 1"), "{}", screen.text());
    screen.send(outcome(Err("on principle".into())));
    (0..99).for_each(|_| drop(screen.send(second())));
    assert!(screen.text().contains("could not be limited: on principle"), "{}", screen.text());
    screen.typed("L");
    assert!(screen.text().contains("upload limited to 1"), "{}", screen.text());
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
    assert!(screen.text().contains("silent ") && !screen.text().contains("ended"));
    silent.alive = false;
    screen.send(Event::Limits(vec![silent]));
    assert!(screen.text().contains(" ended"), "{}", screen.text());
}

fn done(screen: &mut Screen, upload: Option<u64>, download: Option<u64>) {
    let limits = Limits { upload, download };
    let limited = if limits.is_empty() { Vec::new() } else { vec![limited(9, "curl", upload, download)] };
    screen.send(Event::Limits(limited));
    screen.send(Event::LimitResult(LimitOutcome { target: curl(), limits, result: Ok(()) }));
}

#[test]
fn undo_goes_back_change_by_change_and_not_before_it_was_made() {
    let mut screen = screen(None, None);
    screen.typed("u5M");
    screen.key(KeyCode::Enter);
    assert_eq!(screen.typed("z"), [], "nothing has been changed yet");
    done(&mut screen, Some(5_000_000), None);
    screen.typed("+");
    done(&mut screen, Some(10_000_000), None);
    assert_eq!(screen.typed("z"), set(Some(5_000_000), None));
    done(&mut screen, Some(5_000_000), None);
    assert_eq!(screen.typed("z"), [Effect::RemoveLimits { target: curl() }]);
    done(&mut screen, None, None);
    assert_eq!(screen.typed("z"), []);
    assert!(screen.text().contains("no change of limits to undo"), "{}", screen.text());
}

#[test]
fn steps_change_what_is_limited_and_nothing_else() {
    let mut screen = screen(Some(2_000_000), None);
    assert_eq!(screen.typed("+"), set(Some(5_000_000), None));
    assert_eq!(screen.typed("-"), set(Some(1_000_000), None));
    let mut free = super::limits::screen(None, None);
    assert_eq!(free.typed("+"), []);
    assert!(free.text().contains("There is no limit to change"), "{}", free.text());
}

#[test]
fn blocking_and_removing_everything_are_asked_before() {
    let mut screen = screen(None, Some(7));
    assert_eq!(screen.typed("0"), []);
    assert_eq!(screen.app.place(), Place::Confirm);
    assert_eq!(screen.key(KeyCode::Esc), []);
    screen.typed("0");
    assert_eq!(screen.key(KeyCode::Enter), set(Some(0), Some(0)));
    assert_eq!(screen.typed("R"), []);
    assert!(screen.text().contains("Remove the limits of curl (9)?"), "{}", screen.text());
    assert_eq!(screen.typed("y"), [Effect::RemoveLimits { target: curl() }]);
}

#[test]
fn who_the_terminal_hangs_on_is_limited_only_after_a_question() {
    let mut screen = screen(None, None);
    let session = vec![Ancestor { id: id(9), name: "curl".into() }];
    screen.send(Event::Answer(Answer::Session(session)));
    screen.typed("u5K");
    assert!(screen.text().contains("This terminal hangs on curl (9)"), "{}", screen.text());
    assert_eq!(screen.key(KeyCode::Enter), []);
    assert_eq!(screen.app.place(), Place::Confirm);
    assert_eq!(screen.key(KeyCode::Enter), set(Some(5_000), None));
}

#[test]
fn the_scope_and_the_kind_of_traffic_are_chosen_in_the_dialog() {
    let mut screen = screen(None, None);
    let effects = screen.typed("u");
    assert_eq!(effects, [Effect::Ask(Question::Reach(vec![id(9)]))]);
    screen.typed("5M");
    screen.key(KeyCode::Tab);
    for _ in 0..2 {
        screen.key(KeyCode::Right);
    }
    screen.key(KeyCode::Tab);
    screen.key(KeyCode::Right);
    let subject = Subject::Program("/usr/bin/curl".into());
    let target = Target { subject, name: "curl".into(), traffic: TrafficType::Internet };
    let limits = Limits { upload: Some(5_000_000), download: None };
    assert_eq!(screen.key(KeyCode::Enter), [Effect::SetLimits { target, limits }]);
}

#[test]
fn a_users_number_is_waited_for() {
    let mut screen = screen(None, None);
    screen.typed("u5M");
    screen.key(KeyCode::Tab);
    for _ in 0..4 {
        screen.key(KeyCode::Right);
    }
    assert_eq!(screen.key(KeyCode::Enter), []);
    assert!(screen.text().contains("The number of the user ada is not known yet."), "{}", screen.text());
    let reach = Reach {
        processes: 1,
        connections: Some(3),
        shared: vec![(Ancestor { id: id(12), name: "sh".into() }, 2)],
        uid: Some(1000),
    };
    screen.send(Event::Answer(Answer::Reach(vec![id(9)], reach)));
    let text = screen.text().replace('│', " ").split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(text.contains("Touches 1 process, 3 connections, 2 of them shared with sh (12)."), "{text}");
    let target = Target { subject: Subject::User(1000), name: "ada".into(), traffic: TrafficType::All };
    let limits = Limits { upload: Some(5_000_000), download: None };
    assert_eq!(screen.key(KeyCode::Enter), [Effect::SetLimits { target, limits }]);
}

#[test]
fn undo_brings_back_the_kind_of_traffic_too() {
    let mut screen = screen(Some(5), None);
    screen.typed("u");
    for _ in 0..2 {
        screen.key(KeyCode::Tab);
    }
    screen.key(KeyCode::Right);
    let local = Target { traffic: TrafficType::Internet, ..curl() };
    let limits = Limits { upload: Some(5), download: None };
    assert_eq!(screen.key(KeyCode::Enter), [Effect::SetLimits { target: local.clone(), limits }]);
    screen.send(Event::LimitResult(LimitOutcome { target: local, limits, result: Ok(()) }));
    assert_eq!(screen.typed("z"), set(Some(5), None));
}
