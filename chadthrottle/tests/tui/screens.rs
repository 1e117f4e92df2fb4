//! What it looks like.

use chadthrottle::{
    app::{
        App, BackendNames, Effect, Event, LimitOutcome, Setup,
        looks::{Background, Colours, Looks},
    },
    backends::{
        BackendCapabilities, BackendPriority,
        registry::{Kind, Listed, Listing},
        throttle::manager::Limits,
    },
    lookout::{Answer, Question},
};
use crossterm::event::KeyCode;
use ratatui::style::Color;

use super::host::{BACKENDS, Screen, busy, changed, limited, row, snapshot};

#[test]
fn the_table_in_windows_of_all_sizes() {
    Screen::looks_in_all_sizes("table", Screen::busy);
    for (width, height) in [(59, 24), (80, 15), (5, 3), (20, 5)] {
        let screen = Screen::busy(width, height);
        assert!(screen.text().trim().len() > 4 && !screen.text().contains("firefox"), "{}", screen.text());
    }
}

#[test]
fn before_the_first_figures_and_before_anybody_uses_the_network() {
    Screen::looks_in_all_sizes("waiting", Screen::empty);
    Screen::looks_in_all_sizes("nobody_yet", |width, height| {
        let mut screen = Screen::empty(width, height);
        screen.send(Event::Snapshot(snapshot(Vec::new())));
        screen
    });
}

#[test]
fn pages_of_a_monitor_that_tells_little_and_before_any_figures() {
    for (name, key) in [("interfaces", 'i'), ("system", 'y'), ("backends", 'b'), ("messages", 'L')] {
        Screen::looks_in_all_sizes(&format!("little_{name}"), |width, height| {
            let mut screen = Screen::busy(width, height);
            screen.key(KeyCode::Char(key));
            screen
        });
    }
    for key in ['i', 'y'] {
        let mut screen = Screen::empty(80, 24);
        screen.key(KeyCode::Char(key));
        assert!(screen.text().contains("Waiting for the first figures"), "{}", screen.text());
    }
}

#[test]
fn backends_are_chosen_and_those_that_cannot_work_say_why() {
    let listed = |name, reason: Option<&str>| Listed {
        name,
        priority: BackendPriority::Best,
        available: reason.is_none(),
        selected: false,
        reason: reason.map(str::to_owned),
        tagger: None,
        capabilities: BackendCapabilities {
            ipv4: true,
            ipv6: true,
            tcp: true,
            udp: false,
            open_connections: true,
            moves_process: false,
            shapes: true,
        },
    };
    let listing = Listing {
        monitor: vec![listed("ebpf", None)],
        upload: vec![listed("ebpf_cgroup", None), listed("sockopt", None)],
        download: vec![listed("sockopt", Some("the kernel has no pidfd_getfd; Linux 5.6 has it"))],
    };
    let open = |width, height| {
        let mut screen = Screen::busy(width, height);
        assert_eq!(screen.typed("b"), [Effect::Ask(Question::Backends)]);
        screen.send(Event::Answer(Answer::Backends(Ok(listing.clone()))));
        screen
    };
    Screen::looks_in_all_sizes("backends", open);
    let mut screen = open(80, 24);
    screen.typed("jj");
    let wanted = Effect::UseBackend { kind: Kind::Upload, name: "sockopt" };
    assert_eq!(screen.key(KeyCode::Enter), [wanted]);
    screen.send(Event::Backends(BackendNames { upload: "sockopt", ..BACKENDS }));
    assert!(screen.text().contains("upload limits sockopt"), "{}", screen.text());
    screen.typed("j");
    assert_eq!(screen.key(KeyCode::Enter), []);
    assert!(
        screen.text().contains("sockopt cannot work here: the kernel has no pidfd_getfd"),
        "{}",
        screen.text()
    );
    let failed = Event::Answer(Answer::Backends(Err("no such thing".into())));
    screen.send(failed);
    assert!(screen.text().contains("no such thing"));
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
    Screen::looks_in_all_sizes("details", |width, height| {
        let mut screen = Screen::busy(width, height);
        screen.key(KeyCode::Enter);
        screen
    });
    let mut small = Screen::busy(60, 16);
    small.key(KeyCode::Enter);
    small.key(KeyCode::PageDown);
    small.assert_looks_like("details_60x16_further");
}

#[test]
fn help() {
    Screen::looks_in_all_sizes("help", |width, height| {
        let mut screen = Screen::busy(width, height);
        screen.key(KeyCode::Char('?'));
        screen
    });
    let mut large = Screen::busy(160, 50);
    large.key(KeyCode::Char('?'));
    assert!(!large.text().contains("more:"), "all of it is on a large screen");
}

#[test]
fn dialogs() {
    Screen::looks_in_all_sizes("dialog_both", |width, height| {
        let mut screen = Screen::busy(width, height);
        screen.key(KeyCode::Char('t'));
        screen
    });
    Screen::looks_in_all_sizes("dialog_bad_rate", |width, height| {
        let mut screen = Screen::busy(width, height);
        screen.typed("dapples");
        screen.key(KeyCode::Enter);
        screen
    });
}

#[test]
fn filter() {
    for (name, typed) in [("filter", "/root"), ("filter_wrong", "/down>fast"), ("filter_nobody", "/nobody")] {
        Screen::looks_in_all_sizes(name, |width, height| {
            let mut screen = Screen::busy(width, height);
            screen.typed(typed);
            screen
        });
    }
}

#[test]
fn everything_that_is_out_of_the_ordinary_at_once() {
    Screen::looks_in_all_sizes("trouble", |width, height| {
        let mut screen = Screen::busy(width, height);
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
        screen
            .send(Event::EngineFailed("ebpf: cannot read the map TRAFFIC: No such file or directory".into()));
        screen
    });
}

#[test]
fn names_that_nobody_should_have() {
    Screen::looks_in_all_sizes("names", |width, height| {
        let mut screen = Screen::empty(width, height);
        let named = |pid: i32, name: &str| row(pid, name, 100, 100);
        screen.send(Event::Snapshot(snapshot(vec![
            named(1, "\u{1b}[2J\u{1b}]0;evil\u{7}"),
            named(2, "日本語の名前です"),
            named(3, "e\u{301}te\u{301}\u{200b}x"),
            named(4, "evil\u{202e}exe.txt"),
            named(5, "👩‍👩‍👧 family"),
            named(6, "tab\tand\nline"),
            named(7, ""),
            named(9, &"4 KB of name ".repeat(316)),
            named(10, &String::from_utf8_lossy(b"no \xff\xfe utf\xc3")),
            named(11, "\u{9b}31mC1 \u{85}next"),
            named(12, "z\u{334}\u{335}\u{336}\u{337}algo"),
            changed(&named(8, "an_executable_with_a_name_longer_than_the_kernel_keeps"), |info| {
                info.user = None;
            }),
        ])));
        screen
    });
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
    let backends = BackendNames { download: None, ..BACKENDS };
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

#[test]
fn ascii_alone_where_fonts_are_poor() {
    let looks = Looks { ascii: true, ..Looks::default() };
    for keys in ["", "v", "?", "t", "y", "H"] {
        let mut screen = Screen::empty(80, 24);
        screen.app = App::new(Setup { looks, ..Setup::new(BACKENDS) }, screen.size);
        screen.send(Event::Snapshot(busy()));
        screen.send(Event::Limits(vec![limited(2114, "firefox", Some(1), Some(10_000_000))]));
        screen.typed(keys);
        assert!(screen.text().is_ascii(), "{}", screen.text());
    }
}

#[test]
fn every_depth_of_colour_shows_the_same_text() {
    let looks = |colours, background| Looks { colours, background, ascii: false };
    let mut texts = Vec::new();
    for colours in [Colours::None, Colours::Sixteen, Colours::Many, Colours::True] {
        for background in [Background::Unknown, Background::Dark, Background::Light] {
            let mut screen = Screen::empty(80, 24);
            let setup = Setup { looks: looks(colours, background), ..Setup::new(BACKENDS) };
            screen.app = App::new(setup, screen.size);
            screen.send(Event::Snapshot(busy()));
            let rgb = screen.buffer().content.iter().any(|cell| matches!(cell.fg, Color::Rgb(..)));
            assert_eq!(rgb, colours == Colours::True && background != Background::Unknown);
            texts.push(screen.text());
        }
    }
    assert!(texts.iter().all(|text| *text == texts[0]));
}
