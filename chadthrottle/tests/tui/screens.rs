//! What it looks like.

use chadthrottle::{
    app::{
        App, Event, LimitOutcome, Setup,
        looks::{Colours, Looks},
    },
    backends::throttle::manager::Limits,
};
use crossterm::event::KeyCode;
use ratatui::style::Color;

use super::host::{BACKENDS, Screen, busy, changed, limited, row, snapshot};

#[test]
fn the_table_in_windows_of_all_sizes() {
    for (width, height) in [(80, 24), (120, 30), (60, 15), (30, 8), (5, 3), (20, 5)] {
        Screen::busy(width, height).assert_looks_like(&format!("table_{width}x{height}"));
    }
}

#[test]
fn before_the_first_figures_and_before_anybody_uses_the_network() {
    let mut screen = Screen::empty(80, 24);
    assert!(screen.text().contains("Waiting for the first figures"));
    screen.send(Event::Snapshot(snapshot(Vec::new())));
    assert!(screen.text().contains("No process has used the network yet."));
}

#[test]
fn the_first_snapshot_has_totals_but_no_rates() {
    let mut screen = Screen::empty(80, 24);
    let mut first = busy();
    first.interval = std::time::Duration::ZERO;
    screen.send(Event::Snapshot(first));
    assert!(screen.text().contains("up -/s"));
    assert!(screen.selected_line().contains("    -     -"));
}

#[test]
fn details_of_a_limited_process() {
    let mut screen = Screen::busy(80, 24);
    screen.key(KeyCode::Enter);
    screen.assert_looks_like("details_80x24");
    screen.size = ratatui::layout::Size { width: 30, height: 8 };
    screen.send(Event::Resize(screen.size));
    screen.assert_looks_like("details_30x8");
    screen.key(KeyCode::PageDown);
    screen.assert_looks_like("details_30x8_further");
}

#[test]
fn help() {
    let mut screen = Screen::busy(80, 24);
    screen.key(KeyCode::Char('?'));
    screen.assert_looks_like("help_80x24");
    assert!(!screen.text().contains("more:"), "all of it is on a screen of 80 by 24");
    screen.size = ratatui::layout::Size { width: 30, height: 8 };
    screen.send(Event::Resize(screen.size));
    screen.assert_looks_like("help_30x8");
    screen.key(KeyCode::PageDown);
    screen.assert_looks_like("help_30x8_further");
}

#[test]
fn dialogs() {
    let mut screen = Screen::busy(80, 24);
    screen.key(KeyCode::Char('t'));
    screen.assert_looks_like("dialog_both_80x24");
    screen.key(KeyCode::Esc);
    screen.typed("dapples");
    screen.key(KeyCode::Enter);
    screen.assert_looks_like("dialog_bad_rate_80x24");
    let mut small = Screen::busy(30, 8);
    small.typed("u");
    small.assert_looks_like("dialog_30x8");
}

#[test]
fn filter() {
    let mut screen = Screen::busy(80, 24);
    screen.typed("/root");
    screen.assert_looks_like("filter_80x24");
}

#[test]
fn everything_that_is_out_of_the_ordinary_at_once() {
    let mut screen = Screen::busy(80, 24);
    let mut snapshot = busy();
    snapshot.lost_events = 12;
    screen.send(Event::Snapshot(snapshot));
    screen.typed("/t");
    screen.key(KeyCode::Enter);
    screen.key(KeyCode::Char('p'));
    screen.send(Event::LimitResult(LimitOutcome {
        target: limited(2114, "firefox", None, None).target,
        limits: Limits { upload: Some(5), download: None },
        result: Err(
            "ebpf_cgroup cannot limit 2114: it is in a cgroup outside of /sys/fs/cgroup/user.slice, where \
                     the programs are attached; start chadthrottle with --cgroup-root /sys/fs/cgroup"
                .into(),
        ),
    }));
    screen.send(Event::EngineFailed("ebpf: cannot read the map TRAFFIC: No such file or directory".into()));
    screen.assert_looks_like("trouble_80x24");
}

#[test]
fn names_that_nobody_should_have() {
    let mut screen = Screen::empty(80, 24);
    let named = |pid: i32, name: &str| row(pid, name, 100, 100);
    screen.send(Event::Snapshot(snapshot(vec![
        named(1, "\u{1b}[2J\u{1b}]0;evil\u{7}"),
        named(2, "日本語の名前です"),
        named(3, "e\u{301}te\u{301}\u{200b}x"),
        named(4, "evil\u{202e}exe.txt"),
        named(5, "👩‍👩‍👧 family"),
        named(6, "tab\tand\nline"),
        named(7, ""),
        changed(&named(8, "an_executable_with_a_name_longer_than_the_kernel_keeps"), |info| info.user = None),
    ])));
    screen.assert_looks_like("names_80x24");
}

#[test]
fn five_hundred_processes() {
    let mut screen = Screen::empty(80, 24);
    let rows = (1..=500).map(|pid| row(pid, &format!("worker{pid}"), u64::from(pid.unsigned_abs()), 0));
    screen.send(Event::Snapshot(snapshot(rows.collect())));
    screen.key(KeyCode::End);
    screen.key(KeyCode::PageUp);
    screen.assert_looks_like("many_80x24");
}

#[test]
fn without_a_download_backend() {
    let mut screen = Screen::empty(80, 24);
    let backends = chadthrottle::app::BackendNames { download: None, ..BACKENDS };
    screen.app = App::new(Setup::new(backends), screen.size);
    screen.send(Event::Snapshot(busy()));
    for words in ["upload limits ebpf_cgroup", "download limits none"] {
        assert!(screen.text().contains(words), "{}", screen.text());
    }
    for key in ['d', 't'] {
        screen.key(KeyCode::Char(key));
        assert!(screen.app.dialog().is_none());
        assert!(screen.text().contains("No download backend is in use"), "{}", screen.text());
    }
    screen.key(KeyCode::Char('u'));
    assert!(screen.app.dialog().is_some());
}

#[test]
fn no_color_means_none_and_the_text_is_the_same() {
    let draw = |colours| {
        let mut screen = Screen::empty(80, 24);
        screen.app = App::new(
            Setup { looks: Looks { colours, ..Looks::default() }, ..Setup::new(BACKENDS) },
            screen.size,
        );
        screen.send(Event::Snapshot(busy()));
        screen.send(Event::Limits(vec![limited(2114, "firefox", Some(0), Some(10_000_000))]));
        screen.send(Event::EngineFailed("no".into()));
        screen
    };
    let (colour, plain) = (draw(Colours::Sixteen), draw(Colours::None));
    assert_eq!(colour.text(), plain.text());
    let colours = |screen: &Screen| {
        screen
            .buffer()
            .content
            .iter()
            .filter(|cell| cell.fg != Color::Reset || cell.bg != Color::Reset)
            .count()
    };
    assert_eq!(colours(&plain), 0);
    assert!(colours(&colour) > 0);
}
