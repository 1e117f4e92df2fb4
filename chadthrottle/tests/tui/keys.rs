//! What keys do.

use std::time::Duration;

use chadthrottle::{
    app::{
        Effect, Event,
        keys::{Place, footer},
    },
    connections::Connection,
    lookout::{Ancestor, Answer, Look, ProcessFacts, Question},
    stats::Traffic,
    sys::inet_diag::{Protocol, State},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::host::{Screen, busy, id, limited, row, snapshot};

fn rates(rates: &[(i32, u64)]) -> Event {
    let rows = rates.iter().map(|&(pid, rate)| row(pid, &format!("p{pid}"), rate, 0));
    Event::Snapshot(snapshot(rows.collect()))
}

#[test]
fn the_selection_follows_its_process() {
    let mut screen = Screen::empty(80, 24);
    screen.send(rates(&[(1, 30), (2, 20), (3, 10)]));
    screen.typed("j");
    assert!(screen.selected_line().contains("p2 "), "{}", screen.text());
    screen.send(rates(&[(1, 30), (2, 5), (3, 40)]));
    assert_eq!(screen.pids(), [3, 1, 2]);
    assert!(screen.selected_line().contains("p2 "), "{}", screen.text());
    screen.send(rates(&[(1, 30), (3, 40)]));
    assert!(screen.selected_line().contains("p1 "), "{}", screen.text());
}

#[test]
fn q_and_ctrl_c_quit_and_so_does_a_signal() {
    let ctrl_c = || Event::Key(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL));
    for before in ["", "?", "/", "u"] {
        let mut screen = Screen::busy(80, 24);
        screen.typed(before);
        assert_eq!(screen.send(ctrl_c()), [Effect::Quit]);
        assert_eq!(screen.send(Event::Signal), [Effect::Quit]);
    }
    for (width, height) in [(80, 24), (1, 1), (0, 0)] {
        assert_eq!(Screen::busy(width, height).typed("q"), [Effect::Quit]);
    }
}

#[test]
fn sorting_goes_through_the_columns_and_back() {
    let mut screen = Screen::busy(80, 24);
    let busiest = screen.pids();
    screen.typed("s");
    assert!(screen.text().contains("Sorted by name, from A to Z."));
    assert_eq!(screen.pids().first(), Some(&39_998));
    screen.typed("S");
    assert!(screen.text().contains("Sorted by name, from Z to A."));
    assert!(screen.text().contains("PROCESS▼"));
    assert_eq!(screen.pids().first(), Some(&40_112));
    screen.typed("ssssssssssss");
    assert_eq!(screen.pids(), busiest);
}

#[test]
fn columns_are_chosen_and_names_stay() {
    let mut screen = Screen::busy(160, 50);
    screen.typed("c");
    assert_eq!(screen.app.place(), Place::Columns);
    screen.typed("j ");
    assert!(screen.text().contains("[ ] user"), "{}", screen.text());
    screen.typed("c");
    assert_eq!(screen.app.place(), Place::Table);
    let text = screen.text();
    assert!(!text.contains("USER") && text.contains("EXECUTABLE") && text.contains("PROCESS"), "{text}");
    screen.typed("cj c");
    assert!(screen.text().contains("USER"));
}

#[test]
fn a_filter_holds_until_it_is_dropped() {
    let mut screen = Screen::busy(80, 24);
    let all = screen.pids();
    screen.typed("/ROOT");
    assert_eq!(screen.pids(), [1022]);
    screen.key(KeyCode::Enter);
    assert!(screen.text().contains("filter ROOT: 1 of 7"));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.pids(), all);
    screen.typed("/2114");
    assert_eq!(screen.pids(), [2114]);
    screen.typed("x");
    assert!(screen.text().contains("No process matches \"2114x\""));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.pids(), all);
    screen.send(Event::Paste("ignored".into()));
    screen.typed("/");
    screen.send(Event::Paste("ada\n".into()));
    assert_eq!(screen.app.table().filter().text(), "ada");
}

#[test]
fn a_pause_holds_the_figures_and_not_the_limits() {
    let mut screen = Screen::empty(80, 24);
    screen.send(rates(&[(1, 30)]));
    screen.typed("p");
    assert!(screen.text().contains("PAUSED"));
    screen.send(rates(&[(1, 40), (2, 50)]));
    screen.send(Event::Limits(vec![limited(1, "p1", Some(0), None)]));
    assert_eq!(screen.pids(), [1]);
    assert!(screen.selected_line().contains("block"));
    screen.typed("p");
    assert_eq!(screen.pids(), [2, 1]);
}

#[test]
fn details_stay_with_their_process() {
    let mut screen = Screen::busy(80, 24);
    screen.key(KeyCode::Enter);
    screen.send(rates(&[(5, 1)]));
    assert!(screen.text().contains("firefox (2114)"), "a limited process stays in the list");
    screen.send(Event::Limits(Vec::new()));
    assert!(screen.text().contains("Process 2114 is not in the list any more."));
    screen.typed("u");
    assert!(screen.app.dialog().is_none(), "there is nobody to limit, and nobody else is limited instead");
    screen.key(KeyCode::Esc);
    assert_eq!(screen.app.place(), Place::Table);
}

#[test]
fn the_help_and_the_footer_are_the_key_table() {
    let mut screen = Screen::busy(200, 70);
    let footer_line = |screen: &Screen, place| {
        let text = screen.text();
        let last = text.lines().rev().take(2).collect::<Vec<_>>().join(" ");
        for binding in footer(place) {
            let (key, words) = (binding.keys[0].name(), binding.footer.unwrap_or_default());
            assert!(last.contains(&format!("{key} {words}")), "{key} {words} in {last}");
        }
    };
    footer_line(&screen, Place::Table);
    screen.key(KeyCode::Char('?'));
    footer_line(&screen, Place::Help);
    let text = screen.text();
    for place in Place::ALL {
        for binding in place.bindings() {
            for key in binding.keys {
                assert!(text.contains(&key.name()), "{}", key.name());
            }
            assert!(text.contains(binding.help), "{} in {text}", binding.help);
        }
    }
}

#[test]
fn help_scrolls_where_it_does_not_fit() {
    let mut screen = Screen::busy(60, 16);
    screen.typed("?");
    let first = screen.text();
    screen.key(KeyCode::End);
    let last = screen.text();
    assert_ne!(first, last);
    screen.key(KeyCode::Up);
    assert_ne!(last, screen.text(), "going on past the end does not count");
    screen.key(KeyCode::Home);
    assert_eq!(first, screen.text());
}

#[test]
fn a_pause_holds_curves_and_what_came_meanwhile_is_not_lost() {
    let mut screen = Screen::empty(80, 24);
    for rate in [10, 20, 30] {
        screen.send(rates(&[(1, rate)]));
    }
    screen.typed("p");
    let held = screen.selected_line();
    for rate in [1000, 2000] {
        screen.send(rates(&[(1, rate)]));
    }
    assert_eq!(screen.selected_line(), held);
    screen.typed("p");
    let line = screen.selected_line();
    assert!(line.contains("▁▁▁▅█"), "{line}");
}

#[test]
fn a_close_look_asks_once_at_a_time_and_shows_what_it_is_told() {
    let mut screen = Screen::busy(80, 24);
    let question = Effect::Ask(Question::Look(id(2114)));
    assert_eq!(screen.key(KeyCode::Enter), std::slice::from_ref(&question));
    assert_eq!(screen.send(Event::Snapshot(busy())), [], "the answer is on its way");
    let look = |seconds: u64, sent: u64| {
        let connection = Connection {
            protocol: Protocol::Tcp,
            local: "192.0.2.1:4711".parse().expect("an address"),
            remote: "198.51.100.7:443".parse().ok(),
            state: State::Established,
            total: Some(Traffic { upload: sent, download: 0 }),
            rtt: Some(Duration::from_micros(12_300)),
            retransmits: Some(7),
            age: Some(Duration::from_secs(seconds)),
            seen: Duration::from_secs(seconds),
        };
        let facts = ProcessFacts {
            command_line: vec!["firefox".into(), "--evil\u{1b}[2J".into()],
            ..ProcessFacts::default()
        };
        let (process, at) = (id(2114), Duration::from_secs(seconds));
        Event::Answer(Answer::Look(Box::new(Look {
            process,
            at,
            connections: Ok(vec![connection]),
            facts: Some(facts),
        })))
    };
    screen.send(look(10, 1_000));
    assert!(screen.text().contains("firefox --evil\u{fffd}[2J"), "{}", screen.text());
    assert_eq!(screen.send(Event::Snapshot(busy())), [question]);
    screen.send(look(12, 9_000));
    screen.key(KeyCode::Tab);
    let text = screen.text();
    for words in ["connections 1", "198.51.100.7:443", "established", "12s", "4K", "12.3", "7"] {
        assert!(text.contains(words), "{words} in {text}");
    }
    let refused = Look {
        process: id(2114),
        at: Duration::from_secs(13),
        connections: Err("only its user may".into()),
        facts: None,
    };
    screen.send(Event::Answer(Answer::Look(Box::new(refused))));
    assert!(screen.text().contains("only its user may"), "{}", screen.text());
}

#[test]
fn a_tree_asks_who_is_above_whom_and_folds() {
    let mut screen = Screen::empty(80, 24);
    screen.send(rates(&[(1, 30), (2, 20)]));
    let effects = screen.typed("vvvv");
    assert_eq!(effects, [Effect::Ask(Question::Kin(vec![id(1), id(2)]))]);
    let shell = || vec![Ancestor { id: id(7), name: "zsh".into() }];
    screen.send(Event::Answer(Answer::Kin(vec![(id(1), shell()), (id(2), shell())])));
    assert!(screen.text().contains("▾ zsh"), "{}", screen.text());
    assert_eq!(screen.pids(), [1, 2]);
    screen.typed(" ");
    assert!(screen.text().contains("▸ zsh"), "{}", screen.text());
    assert!(screen.pids().is_empty());
    screen.key(KeyCode::Enter);
    assert_eq!(screen.pids(), [1, 2]);
}
