//! What keys do.

use chadthrottle::app::{
    Effect, Event,
    keys::{Place, footer},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::host::{Screen, limited, row, snapshot};

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
    screen.typed("sssssssssss");
    assert_eq!(screen.pids(), busiest);
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
