//! Whatever happens, in windows of whatever size.

use chadthrottle::{
    app::{Event, LimitOutcome},
    backends::throttle::manager::Limits,
    process::ProcessInfo,
    run::still,
    stats::{ProcessRow, Snapshot, Traffic},
};
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use proptest::prelude::*;
use ratatui::layout::Size;

use super::host::{Screen, id, limited};

fn key() -> impl Strategy<Value = KeyEvent> {
    let named = prop::sample::select(vec![
        KeyCode::Enter,
        KeyCode::Esc,
        KeyCode::Up,
        KeyCode::Down,
        KeyCode::Left,
        KeyCode::Right,
        KeyCode::PageUp,
        KeyCode::PageDown,
        KeyCode::Home,
        KeyCode::End,
        KeyCode::Tab,
        KeyCode::BackTab,
        KeyCode::Backspace,
        KeyCode::Delete,
    ]);
    let bound = prop::sample::select("udtrRsSpqgGjk/?05M+-zvF livybLnmhc".chars().collect::<Vec<_>>())
        .prop_map(KeyCode::Char);
    let code = prop_oneof![4 => bound, 4 => named, 1 => any::<char>().prop_map(KeyCode::Char)];
    let modifiers = prop_oneof![9 => Just(KeyModifiers::NONE), 1 => Just(KeyModifiers::CONTROL)];
    (code, modifiers).prop_map(|(code, modifiers)| KeyEvent::new(code, modifiers))
}

fn process() -> impl Strategy<Value = ProcessRow> {
    let name = prop_oneof![any::<String>(), "[a-z]{1,30}"];
    let info = (1..12_i32, name, any::<Option<String>>(), any::<Option<String>>(), any::<Option<String>>());
    (info, any::<[u64; 4]>(), any::<bool>()).prop_map(|((pid, name, exe, user, cgroup), figures, alive)| {
        let [upload, download, sent, received] = figures;
        let info = ProcessInfo { id: id(pid), name, exe: exe.map(Into::into), user, cgroup, container: None };
        let (rate, total) = (Traffic { upload, download }, Traffic { upload: sent, download: received });
        ProcessRow::new(info.into(), rate, total, alive)
    })
}

fn size() -> impl Strategy<Value = Size> {
    prop_oneof![3 => (0..200_u16, 0..60_u16), 1 => (0..40_u16, 0..12_u16)]
        .prop_map(|(width, height)| Size { width, height })
}

fn event() -> impl Strategy<Value = Event> {
    let snapshot = (prop::collection::vec(process(), 0..8), any::<u64>(), any::<bool>());
    let snapshot = snapshot.prop_map(|(mut processes, lost_events, first)| {
        processes.sort_by_key(|row| row.info.id);
        processes.dedup_by_key(|row| row.info.id);
        let interval = std::time::Duration::from_secs(u64::from(!first));
        Event::Snapshot(Snapshot { interval, processes, lost_events, ..Snapshot::default() })
    });
    let limits =
        prop::collection::vec((1..12_i32, any::<String>(), any::<Option<u64>>()), 0..4).prop_map(|rows| {
            let bounded = |limit: Option<u64>| limit.map(|limit| limit / 16);
            Event::Limits(
                rows.iter().map(|(pid, name, limit)| limited(*pid, name, bounded(*limit), None)).collect(),
            )
        });
    let outcome = (any::<String>(), any::<bool>()).prop_map(|(words, refused)| {
        let target = limited(3, &words, None, None).target;
        let result = if refused { Err(words) } else { Ok(()) };
        Event::LimitResult(LimitOutcome {
            target,
            limits: Limits { upload: Some(0), download: None },
            result,
        })
    });
    prop_oneof![
        8 => key().prop_map(Event::Key),
        3 => snapshot,
        2 => limits,
        1 => outcome,
        1 => any::<String>().prop_map(Event::EngineFailed),
        1 => any::<String>().prop_map(Event::Paste),
        1 => size().prop_map(Event::Resize),
        1 => Just(Event::Signal),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_panics_and_nothing_steers_the_terminal(
        events in prop::collection::vec((event(), size()), 1..25),
    ) {
        let mut screen = Screen::empty(80, 24);
        for (event, size) in events {
            screen.send(event);
            // The window may be another size than the last event told.
            let shown = still::text(&still::drawn(&screen.app, size));
            prop_assert!(!shown.contains(|character: char| character.is_control() && character != '\n'));
        }
    }

    #[test]
    fn every_size_tells_something(size in size()) {
        prop_assume!(size.width > 0 && size.height > 0);
        let mut screen = Screen::busy(size.width, size.height);
        prop_assert!(!screen.text().trim().is_empty());
        screen.typed("t");
        prop_assert!(!screen.text().trim().is_empty());
    }

    #[test]
    fn the_selected_row_is_always_on_the_screen(
        size in (60..120_u16, 16..40_u16),
        processes in 1..60_i32,
        keys in prop::collection::vec(key(), 0..30),
    ) {
        let mut screen = Screen::empty(size.0, size.1);
        let rows = (1..=processes).map(|pid| super::host::row(pid, "p", 0, 0)).collect();
        screen.send(Event::Snapshot(super::host::snapshot(rows)));
        for key in keys {
            screen.send(Event::Key(key));
            if screen.app.place() == chadthrottle::app::keys::Place::Table && !screen.app.table().is_empty() {
                prop_assert!(!screen.selected_line().is_empty(), "{}", screen.text());
            }
        }
    }
}
