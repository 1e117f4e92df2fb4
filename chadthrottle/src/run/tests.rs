//! The loop with all its threads but those that need a real terminal: keys and signals are sent by hand, and the
//! backends do as they are told.

use std::{
    sync::mpsc::{self, Sender},
    thread,
    time::{Duration, Instant},
};

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use nix::sys::signal::Signal;
use ratatui::{Terminal, backend::TestBackend, layout::Size};

use super::{
    Ended, Message,
    engine::Engine,
    looker::Looker,
    namer::Namer,
    session::{Askable, Session},
};
use crate::{
    app::{App, BackendNames, Event, Setup},
    backends::{
        demo::Demo,
        monitor::{
            MonitorBackend,
            fake::{FakeMonitor, Journal, Step},
        },
        registry::Backends,
        throttle::{ThrottleManager, fake::FakeThrottle},
    },
    process::{ProcessId, ProcessInfo},
    stats::{ProcessTraffic, Sample, Traffic},
};

/// More than anything here takes, and less than anybody waits.
const LONG: Duration = Duration::from_secs(20);

struct Running {
    session: Session<TestBackend>,
    send: Sender<Message>,
    journal: Journal,
}

fn start(steps: impl IntoIterator<Item = Step>, interval: Duration) -> Running {
    let journal = Journal::default();
    let monitor = FakeMonitor::new(steps, journal.clone());
    let throttle = || FakeThrottle::new(journal.clone());
    let manager = ThrottleManager::new(Box::new(throttle()), Some(Box::new(throttle())))
        .unwrap_or_else(|error| panic!("{error}"));
    let (send, messages) = mpsc::channel();
    let monitor: Box<dyn MonitorBackend> = Box::new(monitor);
    let backends = Box::new(move || Ok((monitor, manager)));
    let engine = Engine::start(backends, Box::new(Backends::default()), None, interval, send.clone())
        .unwrap_or_else(|error| panic!("{error}"));
    // Waiting for what never comes is to end at some time.
    let heart = send.clone();
    thread::spawn(move || {
        while heart.send(Message::Resized).is_ok() {
            thread::sleep(Duration::from_millis(100));
        }
    });
    let terminal = Terminal::new(TestBackend::new(80, 24)).unwrap_or_else(|never| match never {});
    let names = BackendNames { monitor: "fake", upload: "fake", download: Some("fake") };
    let app = App::new(Setup::new(names), Size { width: 80, height: 24 });
    let demo = Demo::new(1, Duration::ZERO, 0);
    let lookout = Box::new(demo.lookout());
    let looker = Looker::start(lookout, send.clone()).unwrap_or_else(|error| panic!("{error}"));
    let askable = Askable { looker, namer: Namer::new(Box::new(demo.names()), send.clone()) };
    Running { session: Session::new(app, terminal, engine, askable, messages), send, journal }
}

impl Running {
    fn keys(&self, keys: &str) {
        for key in keys.chars() {
            let code = if key == '\n' { KeyCode::Enter } else { KeyCode::Char(key) };
            self.tell(Message::Event(Event::Key(KeyEvent::new(code, KeyModifiers::NONE))));
        }
    }

    fn tell(&self, message: Message) {
        self.send.send(message).unwrap_or_else(|error| panic!("{error}"));
    }

    /// Lets it run until the screen says this.
    #[track_caller]
    fn until(&mut self, words: &str) {
        let deadline = Instant::now() + LONG;
        while !self.session.text().contains(words) {
            assert!(Instant::now() < deadline, "no {words:?} in\n{}", self.session.text());
            let ended = self.session.turn().unwrap_or_else(|error| panic!("{error}"));
            assert_eq!(ended, None, "no {words:?} in\n{}", self.session.text());
        }
    }

    fn ended(&mut self) -> Ended {
        self.session.run().unwrap_or_else(|error| panic!("{error}"))
    }
}

fn sample(upload: u64) -> Step {
    let id = ProcessId { pid: 42, start_time: 1 };
    let info = ProcessInfo { id, name: "curl".into(), exe: None, user: None, cgroup: None, container: None };
    let total = Traffic { upload, download: 0 };
    let traffic = ProcessTraffic::new(info.into(), total, true);
    Step::Sample(Sample { processes: [(id, traffic)].into(), ..Sample::default() })
}

const TAKEN_BACK: [&str; 3] = ["upload cleanup", "download cleanup", "monitor cleanup"];

#[test]
fn figures_come_by_themselves() {
    let (gate, hang) = mpsc::channel();
    let mut running = start([Step::Hang(hang), sample(0), sample(5_000_000)], Duration::from_millis(5));
    running.until("Waiting for the first figures");
    drop(gate);
    running.until("0 0 5M");
}

#[test]
fn a_limit_set_by_keys_reaches_the_backend_and_the_screen_between_two_ticks() {
    let mut running = start([sample(0)], Duration::from_hours(1));
    running.until("curl");
    running.keys("u10M\n");
    running.until("curl (42): upload limited to 10M a second");
    running.until("0 10M 10M");
    running.keys("td");
    running.until("Limit curl (42)");
    running.tell(Message::Event(Event::Key(KeyEvent::new(KeyCode::Esc, KeyModifiers::NONE))));
    running.keys("r");
    running.until("curl (42) has no limit any more.");
    running.keys("d1\n");
    running.until("could not be limited: fake cannot limit 42: one byte a second is no limit but an insult");
    running.keys("q");
    assert_eq!(running.ended(), Ended::ByUser);
    assert_eq!(running.session.end(), Ok(()));
    assert_eq!(
        running.journal.lines(),
        [&["upload 42 10000000", "upload 42 none"][..], &TAKEN_BACK].concat()
    );
}

#[test]
fn an_engine_that_hangs_does_not_hold_up_keys() {
    let (gate, hang) = mpsc::channel();
    let mut running = start([sample(0), Step::Hang(hang)], Duration::from_millis(1));
    running.until("curl");
    running.keys("u10M\n");
    running.until("Limiting curl (42)…");
    running.keys("?");
    running.until("this help");
    drop(gate);
    running.until("curl (42): upload limited to 10M a second");
}

#[test]
fn quitting_waits_until_the_limits_are_taken_back() {
    let (gate, hang) = mpsc::channel();
    let mut running = start([sample(0), Step::Hang(hang)], Duration::from_millis(1));
    running.until("curl");
    running.keys("q");
    assert_eq!(running.ended(), Ended::ByUser);
    assert!(running.journal.lines().is_empty());
    drop(gate);
    assert_eq!(running.session.end(), Ok(()));
    assert_eq!(running.journal.lines(), TAKEN_BACK);
}

#[test]
fn a_signal_ends_it_and_is_told() {
    let mut running = start([], Duration::from_hours(1));
    running.tell(Message::Signal(Signal::SIGTERM));
    assert_eq!(running.ended(), Ended::BySignal(Signal::SIGTERM));
}

#[test]
fn a_monitor_that_fails_once_is_told_and_asked_again() {
    let (gate, hang) = mpsc::channel();
    let steps = [sample(0), Step::Fail("no such map"), Step::Hang(hang), sample(0)];
    let mut running = start(steps, Duration::from_millis(1));
    running.until("fake: cannot read: no such map");
    drop(gate);
    let deadline = Instant::now() + LONG;
    while running.session.text().contains("no such map") {
        assert!(Instant::now() < deadline);
        assert!(running.session.turn().is_ok_and(|ended| ended.is_none()));
    }
}

#[test]
fn a_panic_in_the_engine_takes_everything_back_and_is_an_error() {
    let mut running = start([sample(0), Step::Panic("on purpose")], Duration::from_millis(1));
    let error = running.session.run().expect_err("it has panicked");
    assert_eq!(error.to_string(), "the engine failed: on purpose");
    assert_eq!(running.journal.lines(), TAKEN_BACK);
}

#[test]
fn dropping_the_session_takes_everything_back() {
    let running = start([], Duration::from_hours(1));
    let journal = running.journal.clone();
    drop(running);
    assert_eq!(journal.lines(), TAKEN_BACK);
}

#[test]
fn backends_that_cannot_be_made_ready_end_it_with_their_reason() {
    let mut running = start([], Duration::from_hours(1));
    running.tell(Message::NotStarted(anyhow::anyhow!("the kernel refuses")));
    let error = running.session.run().expect_err("there is nothing to show");
    assert_eq!(error.to_string(), "the kernel refuses");
}

#[test]
fn losing_the_keyboard_is_an_error() {
    let mut running = start([], Duration::from_hours(1));
    running.tell(Message::Deaf("cannot read keys: gone".into()));
    let error = running.session.run().expect_err("it cannot be used any more");
    assert_eq!(error.to_string(), "cannot read keys: gone");
}

#[test]
fn a_new_size_is_seen_without_being_told() {
    let mut running = start([sample(0)], Duration::from_hours(1));
    running.until("curl");
    running.session.resize(20, 5);
    running.tell(Message::Resized);
    running.until("The window is too");
}

#[test]
fn a_flood_of_messages_does_not_keep_it_from_drawing() {
    let mut running = start([sample(0)], Duration::from_hours(1));
    running.until("curl");
    let send = running.send.clone();
    // Ends with the channel, when the test does.
    thread::spawn(move || {
        while send.send(Message::Resized).is_ok() {
            thread::yield_now();
        }
    });
    running.keys("?");
    running.until("this help");
}
