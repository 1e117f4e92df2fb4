//! Everything that is empty, degraded, refused or not known yet, in windows of all sizes.

use std::{net::SocketAddr, time::Duration};

use chadthrottle::{
    app::{App, BackendNames, Cost, Effect, Event, LimitOutcome, MOST_ASKED, Setup},
    backends::{PacketCost, Runs, throttle::manager::Limits},
    connections::Connection,
    lookout::{Ancestor, Answer, Look, Reach},
    stats::{InterfaceTraffic, Residual, Snapshot, Traffic},
    sys::inet_diag::{Protocol, State},
};
use crossterm::event::KeyCode;

use super::host::{BACKENDS, Screen, busy, id, limited, row, snapshot};

/// In all sizes, after these keys (`\n` is Enter, `\t` Tab, `→` Right) and events.
#[track_caller]
fn looks(name: &str, keys: &str, then: impl Fn(&mut Screen)) {
    Screen::looks_in_all_sizes(name, |width, height| {
        let mut screen = Screen::busy(width, height);
        pressed(&mut screen, keys);
        then(&mut screen);
        screen
    });
}

fn pressed(screen: &mut Screen, keys: &str) {
    for key in keys.chars() {
        screen.key(match key {
            '\n' => KeyCode::Enter,
            '\t' => KeyCode::Tab,
            '→' => KeyCode::Right,
            character => KeyCode::Char(character),
        });
    }
}

fn nothing(_: &mut Screen) {}

fn connection(index: u8) -> Connection {
    let listens = index == 3;
    Connection {
        protocol: if index == 2 { Protocol::Udp } else { Protocol::Tcp },
        local: SocketAddr::from(([192, 0, 2, 1], 40_000 + u16::from(index))),
        remote: (!listens).then(|| SocketAddr::from(([198, 51, 100, index], 443))),
        state: if listens { State::Listen } else { State::Established },
        total: (index < 2)
            .then_some(Traffic { upload: 4_000_000 * u64::from(index), download: 31_000_000_000 }),
        rtt: (index < 2).then_some(Duration::from_micros(1_234_567)),
        retransmits: (index < 2).then_some(u32::MAX),
        age: (index == 0).then_some(Duration::from_secs(4_000_000)),
        seen: Duration::from_secs(61),
    }
}

fn look(seconds: u64, connections: Result<Vec<Connection>, String>) -> Event {
    let (process, at) = (id(2114), Duration::from_secs(seconds));
    Event::Answer(Answer::Look(Box::new(Look { process, at, connections, facts: None })))
}

fn four() -> Vec<Connection> {
    (0..4).map(connection).collect()
}

#[test]
fn connections_of_all_kinds_and_none() {
    looks("connections_unasked", "\n\t", nothing);
    looks("connections_none", "\n\t", |screen| drop(screen.send(look(1, Ok(Vec::new())))));
    looks("connections_kinds", "\n\t", |screen| drop(screen.send(look(1, Ok(four())))));
    looks("connections_refused", "\n\t", |screen| {
        let words = "cannot read which sockets process 2114 has open: Permission denied (os error 13); only its user may \
                     (or sudo: CAP_SYS_PTRACE)";
        screen.send(look(1, Err(words.into())));
    });
}

#[test]
fn hosts_have_names_where_that_is_wanted_and_no_name_does_harm() {
    let names = [
        "mail.example.org".to_owned(),
        "\u{1b}[2J\u{1b}]0;evil\u{7}.example\u{202e}gro".to_owned(),
        "10.0.0.1".to_owned(),
    ];
    let answer_all = |screen: &mut Screen| {
        screen.send(look(1, Ok(four())));
        let effects = screen.typed("h");
        let [Effect::Name(asked)] = &effects[..] else { panic!("{effects:?}") };
        for (address, name) in asked.iter().zip(&names) {
            screen.send(Event::Named(*address, Some(name.clone())));
        }
    };
    looks("host_names", "\n\t", answer_all);
    let mut screen = Screen::busy(80, 24);
    pressed(&mut screen, "\n\t");
    assert_eq!(screen.send(look(1, Ok(four()))), [], "nobody is asked unless it is wanted");
    answer_all(&mut screen);
    assert_eq!(screen.send(look(2, Ok(four()))), [], "nobody is asked twice");
    let text = screen.text();
    assert!(text.contains("mail.example.org:443") && !text.contains("10.0.0.1"), "{text}");
    screen.typed("h");
    assert!(!screen.text().contains("mail.example.org"), "{}", screen.text());
    screen.typed("h");
    assert!(screen.text().contains("mail.example.org:443"), "what is known stays known");
}

#[test]
fn only_hosts_on_the_screen_are_asked_for_and_never_very_many() {
    let mut screen = Screen::busy(160, 50);
    pressed(&mut screen, "\n\th");
    let crowd = |index: u16| {
        let [a, b] = index.to_be_bytes();
        Connection { remote: Some(SocketAddr::from(([10, 9, a, b], 443))), ..connection(0) }
    };
    let asked = |effects: &[Effect]| match effects {
        [Effect::Name(asked)] => asked.len(),
        other => panic!("{other:?}"),
    };
    let first = asked(&screen.send(look(1, Ok((0..20_000).map(crowd).collect()))));
    assert!((20..=50).contains(&first), "{first}");
    screen.key(KeyCode::End);
    let more = asked(&screen.send(look(2, Ok((0..20_000).map(crowd).collect()))));
    assert!(first + more <= MOST_ASKED, "{first} {more}");
    screen.key(KeyCode::Home);
    screen.key(KeyCode::PageDown);
    screen.key(KeyCode::PageDown);
    assert_eq!(screen.send(look(3, Ok((0..20_000).map(crowd).collect()))), [], "they wait for answers");
}

#[test]
fn a_process_that_has_ended_that_was_refused_and_that_is_gone() {
    let ended = |screen: &mut Screen| {
        let mut all = busy();
        all.processes[0].alive = false;
        all.processes[0].rate = Traffic::default();
        screen.send(Event::Snapshot(all));
    };
    looks("details_ended", "\n", ended);
    looks("history_ended", "\n\t\t", ended);
    looks("details_gone", "\n", |screen| {
        screen.send(Event::Limits(Vec::new()));
        screen.send(Event::Snapshot(snapshot(vec![row(9, "curl", 1, 1)])));
    });
    let refuse = |screen: &mut Screen| {
        screen.send(Event::Limits(Vec::new()));
        screen.send(Event::LimitResult(LimitOutcome {
            target: limited(2114, "firefox", None, None).target,
            limits: Limits { upload: Some(5), download: None },
            result: Err("sockopt cannot hold 2114: it runs as another user; without CAP_SYS_PTRACE (sudo) only one's \
                         own processes can be limited"
                .into()),
        }));
    };
    looks("refused", "", |screen| {
        refuse(screen);
        screen.typed("jk");
    });
    looks("details_refused", "\n", refuse);
}

#[test]
fn traffic_that_is_not_told_apart_and_that_is() {
    looks("traffic_untold", "\n\t\t\t", nothing);
    looks("traffic_told", "\n\t\t\t", |screen| {
        let mut all = busy();
        all.processes[0].local = Some(Traffic { upload: 1_000_000, download: 0 });
        let interfaces = [("eth0", 20_000_000, 500_000_000), ("wg0", 1_000_000, 0)];
        all.processes[0].interfaces =
            interfaces.map(|(name, upload, download)| (name.into(), Traffic { upload, download })).to_vec();
        screen.send(Event::Snapshot(all));
    });
    looks("traffic_unseen", "", |screen| {
        screen.send(Event::Limits(vec![limited(77, "quiet", Some(1000), None)]));
        pressed(screen, "/quiet\n\n\t\t\t");
    });
}

/// A host whose books do not close, with an interface that another network namespace shares.
fn books() -> Snapshot {
    let interface = |name: &str, residual: Option<i64>| InterfaceTraffic {
        name: name.into(),
        counted: Traffic { upload: 2_000_000_000, download: 9_000_000_000_000 },
        processes: Traffic { upload: 1_900_000_000, download: 8_700_000_000_000 },
        buckets: busy().buckets,
        residual: residual.map(|bytes| Residual { upload: bytes, download: -bytes }),
    };
    let interfaces = vec![interface("eth0", Some(-54_321)), interface("veth12345678901", None)];
    Snapshot { interfaces, lost_events: 3, ..busy() }
}

#[test]
fn the_host_before_any_figures_and_with_books_that_do_not_close() {
    for (name, key) in [("interfaces", 'i'), ("system", 'y')] {
        Screen::looks_in_all_sizes(&format!("waiting_{name}"), |width, height| {
            let mut screen = Screen::empty(width, height);
            screen.key(KeyCode::Char(key));
            screen
        });
        let key = key.to_string();
        looks(&format!("books_{name}"), &key, |screen| drop(screen.send(Event::Snapshot(books()))));
    }
}

fn runs(count: u64, each: u64) -> Runs {
    Runs { count, time: Duration::from_nanos(count * each) }
}

#[test]
fn our_own_cost_is_told_and_measured_only_while_somebody_looks() {
    let cost = |seconds: u64| {
        Event::Cost(Cost {
            at: Duration::from_secs(seconds),
            cpu: Duration::from_millis(seconds * 12),
            resident: 21_400_000,
        })
    };
    let packets = PacketCost { upload: runs(40_000, 231), download: runs(90_000, 187) };
    looks("system_cost", "y", |screen| {
        screen.send(cost(9));
        screen.send(cost(10));
        screen.send(Event::PacketCost(Ok(Some(packets))));
        screen.key(KeyCode::End);
    });
    looks("system_cost_unknown", "y", |screen| {
        screen.send(Event::PacketCost(Err("to measure it takes CAP_SYS_ADMIN (sudo)".into())));
        screen.key(KeyCode::End);
    });
    let mut screen = Screen::busy(80, 24);
    assert_eq!(screen.typed("y"), [Effect::MeasurePackets(true)]);
    assert_eq!(screen.typed("y"), []);
    assert_eq!(screen.typed("?"), []);
    screen.key(KeyCode::Esc);
    assert_eq!(screen.key(KeyCode::Esc), [Effect::MeasurePackets(false)]);
    screen.typed("y");
    assert_eq!(screen.typed("i"), [Effect::MeasurePackets(false)]);
    screen.send(Event::PacketCost(Ok(Some(PacketCost::default()))));
    screen.typed("y");
    assert!(screen.text().contains("no packet sent"), "{}", screen.text());
}

#[test]
fn backends_that_are_not_known_and_that_do_not_change() {
    looks("backends_failed", "b", |screen| {
        screen.send(Event::Answer(Answer::Backends(Err("there is no monitor backend \"x\"".into()))));
    });
    looks("backend_not_switched", "", |screen| {
        screen.send(Event::NotSwitched(
            "ebpf_cgroup cannot load its programs: the kernel refused the programs: Operation not permitted (os error 1)"
                .into(),
        ));
    });
    looks("no_download_backend", "", |screen| {
        let names = BackendNames { download: None, ..BACKENDS };
        screen.app = App::new(Setup::new(names), screen.size);
        screen.send(Event::Snapshot(busy()));
        screen.typed("d");
    });
}

#[test]
fn questions_and_dialogs() {
    looks("limit_shared_sockets", "u5M\t→→", |screen| {
        let shared = vec![
            (Ancestor { id: id(812), name: "nginx".into() }, 4),
            (Ancestor { id: id(9), name: "sh".into() }, 1),
        ];
        let reach = Reach { processes: 1, connections: Some(17), shared, uid: Some(1000) };
        screen.send(Event::Answer(Answer::Reach(vec![id(2114)], reach)));
    });
    looks("limit_user_unknown", "u5M\t→→→→\n", nothing);
    looks("limit_not_ours", "t", |screen| {
        let reach = Reach { processes: 1, connections: None, shared: Vec::new(), uid: None };
        screen.send(Event::Answer(Answer::Reach(vec![id(2114)], reach)));
    });
    looks("limit_own_session", "", |screen| {
        screen.send(Event::Answer(Answer::Session(vec![Ancestor { id: id(2114), name: "firefox".into() }])));
        pressed(screen, "u");
    });
    looks("block_question", "0", nothing);
    looks("nothing_to_undo", "z", nothing);
    looks("nothing_to_remove", "jr", nothing);
}

#[test]
fn filters_that_are_none_and_a_display_that_is_held() {
    looks("filter_bad_regex", "/name~[", nothing);
    looks("filter_bad_field", "/colour:red", nothing);
    looks("filter_expression", "/user:root or (down>1M and not limited)", nothing);
    looks("paused", "p", |screen| drop(screen.send(Event::Snapshot(snapshot(Vec::new())))));
    looks("mouse_off", "m", nothing);
}

#[test]
fn windows_that_are_too_small_say_so() {
    for (width, height) in [(59, 24), (80, 15), (30, 8), (12, 3), (4, 1)] {
        Screen::busy(width, height).assert_looks_like(&format!("too_small_{width}x{height}"));
    }
}
