//! The view of the history, of a database with fixed amounts and at a fixed time.

use std::path::PathBuf;

use chadthrottle::{
    app::{
        App, Effect, Event, Setup,
        keys::Place,
        looks::{Background, Colours, Looks},
    },
    history::{
        By, Step,
        past::{Asked, Past, Source, Span},
        recorder::{Batch, Who},
        store::Store,
    },
    lookout::{Answer, Question},
    stats::Traffic,
};
use crossterm::event::KeyCode;
use jiff::{Timestamp, tz::TimeZone};
use ratatui::style::Color;

use super::host::{BACKENDS, Screen, busy, snapshot};

/// A Thursday, 14:37:20 in UTC, and an hour later on the wall.
const NOW: i64 = 1_768_487_840;

/// A history with three programs, one of which has a name that nobody should have, and no unit.
struct Recorded {
    _directory: tempfile::TempDir,
    file: PathBuf,
}

impl Recorded {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("history.db");
        let mut batch = Batch::default();
        for hour in 0..24 * 9_i64 {
            let minute = Step::Minute.start(NOW - hour * 3600);
            let mut add = |program: &str, unit: &str, user: &str, upload: i64, download: i64| {
                let who = Who { program: program.into(), unit: unit.into(), user: user.into() };
                let number = |amount: i64| u64::try_from(amount).unwrap_or_default();
                let amount = Traffic { upload: number(upload), download: number(download) };
                batch.usage.insert((minute, who), amount);
                let sum = batch.interfaces.entry((minute, "eth0".to_owned())).or_default();
                *sum = sum.plus(amount);
            };
            add("/usr/bin/curl", "", "ada", 1_000, 1_000_000 * (hour % 24));
            add("/usr/sbin/nginx", "nginx.service", "www-data", 700_000 * (hour % 5), 20_000);
            if hour > 30 {
                add("/tmp/\u{1b}[2J\u{202e}名", "session-3.scope", "", 5, 50_000_000);
            }
        }
        Store::open(&file).and_then(|mut store| store.add(&batch)).expect("it is written");
        Self { _directory: directory, file }
    }

    fn look(&self, asked: &Asked, is_recorded: bool) -> Result<Past, String> {
        let now = Timestamp::from_second(NOW).expect("a time");
        let zone = TimeZone::posix("CET-1").expect("a time zone");
        Source::own(Some(self.file.clone()), is_recorded).look(asked, now, zone)
    }

    /// Answers every question about the history, and those that the answers lead to.
    fn answer(&self, screen: &mut Screen, mut effects: Vec<Effect>) {
        while let Some(Effect::Ask(Question::Past(asked))) = effects.pop() {
            effects.extend(screen.send(answered(&asked, self.look(&asked, true))));
        }
    }

    fn typed(&self, screen: &mut Screen, keys: &str) {
        for key in keys.chars() {
            let effects = match key {
                '→' => screen.key(KeyCode::Right),
                '←' => screen.key(KeyCode::Left),
                other => screen.key(KeyCode::Char(other)),
            };
            self.answer(screen, effects);
        }
    }
}

fn answered(asked: &Asked, past: Result<Past, String>) -> Event {
    Event::Answer(Answer::Past(asked.clone(), Box::new(past)))
}

fn asked(effects: &[Effect]) -> Asked {
    let [Effect::Ask(Question::Past(asked))] = effects else { panic!("{effects:?}") };
    asked.clone()
}

/// The line of the chosen row.
fn chosen(screen: &Screen) -> String {
    let text = screen.text();
    text.lines().map(str::trim_start).find(|line| line.starts_with("> ")).unwrap_or_default().to_owned()
}

fn open(width: u16, height: u16) -> (Screen, Asked) {
    let mut screen = Screen::busy(width, height);
    let asked = asked(&screen.typed("H"));
    assert_eq!(screen.app.place(), Place::History);
    (screen, asked)
}

#[test]
fn it_is_listed_and_drawn_in_windows_of_all_sizes() {
    let recorded = Recorded::new();
    for (name, keys) in
        [("history", "H"), ("history_week", "H→j"), ("history_unit", "H→vGs"), ("history_hour", "H←vvv")]
    {
        Screen::looks_in_all_sizes(name, |width, height| {
            let mut screen = Screen::busy(width, height);
            recorded.typed(&mut screen, keys);
            screen
        });
    }
    let mut screen = Screen::busy(80, 24);
    recorded.typed(&mut screen, "H");
    // 24 hours: 0 to 23 times a million, and 24 times 20,000.
    assert!(chosen(&screen).contains("276M"), "{}", screen.text());
    recorded.typed(&mut screen, "j");
    assert!(chosen(&screen).starts_with("> /usr/bin/curl"), "{}", screen.text());
    assert!(
        screen.text().contains("received  /usr/bin/curl: 276M, at most 23M an hour"),
        "{}",
        screen.text()
    );
}

#[test]
fn rows_are_chosen_sorted_and_kept_by_name() {
    let recorded = Recorded::new();
    let mut screen = Screen::busy(80, 24);
    recorded.typed(&mut screen, "H→jjj");
    assert!(chosen(&screen).contains("nginx"), "{}", screen.text());
    recorded.typed(&mut screen, "s");
    assert!(screen.text().contains("Sorted by what was sent, largest first."), "{}", screen.text());
    assert!(screen.text().contains("SENT▼"), "{}", screen.text());
    assert!(chosen(&screen).contains("nginx"), "it stays chosen: {}", screen.text());
    recorded.typed(&mut screen, "k");
    assert!(chosen(&screen).contains("all 3 together"), "{}", screen.text());
    recorded.typed(&mut screen, "ssS");
    assert!(screen.text().contains("Sorted by name, from Z to A."), "{}", screen.text());
    recorded.typed(&mut screen, "j");
    assert!(chosen(&screen).contains("nginx"), "{}", screen.text());
    // Who is not in the list any more is not chosen any more.
    recorded.typed(&mut screen, "gjjj");
    assert!(chosen(&screen).contains("/tmp/�[2J�名"), "{}", screen.text());
    recorded.typed(&mut screen, "←");
    assert!(chosen(&screen).contains("all 2 together"), "{}", screen.text());
    // It is as it was when it is opened again.
    recorded.typed(&mut screen, "vH");
    assert_eq!(screen.app.place(), Place::Table);
    recorded.typed(&mut screen, "H");
    assert!(screen.text().contains("[unit]") && screen.text().contains("UNIT▼"), "{}", screen.text());
}

#[test]
fn one_question_at_a_time_and_the_last_one_counts() {
    let recorded = Recorded::new();
    let (mut screen, first) = open(80, 24);
    assert!(screen.text().contains("Reading the history…"), "{}", screen.text());
    for key in [KeyCode::Char('v'), KeyCode::Right, KeyCode::Char('v')] {
        assert_eq!(screen.key(key), [], "the first has not been answered");
    }
    assert_eq!((first.by, first.span), (By::Program, Span::Day));
    let second = asked(&screen.send(answered(&first, recorded.look(&first, true))));
    assert_eq!((second.by, second.span), (By::User, Span::Week));
    assert!(screen.text().contains("Reading the history…"), "it is not what is wanted: {}", screen.text());
    assert_eq!(screen.send(answered(&second, recorded.look(&second, true))), []);
    assert!(screen.text().contains("www-data") && screen.text().contains("(not known)"), "{}", screen.text());
    // An answer that comes when nobody looks any more.
    let third = asked(&screen.key(KeyCode::Left));
    screen.key(KeyCode::Esc);
    assert_eq!(screen.send(answered(&third, recorded.look(&third, true))), []);
}

#[test]
fn it_is_read_again_while_somebody_looks() {
    let recorded = Recorded::new();
    let (mut screen, first) = open(80, 24);
    recorded.answer(&mut screen, vec![Effect::Ask(Question::Past(first))]);
    let questions = |screen: &mut Screen, seconds: u64| -> usize {
        let mut count = 0;
        for _ in 0..seconds {
            let effects = screen.send(Event::Snapshot(snapshot(Vec::new())));
            count += effects.len();
            recorded.answer(screen, effects);
        }
        count
    };
    assert_eq!(questions(&mut screen, 20), 4);
    recorded.typed(&mut screen, "p");
    assert_eq!(questions(&mut screen, 20), 0, "the display is held");
    recorded.typed(&mut screen, "p");
    assert!(questions(&mut screen, 20) >= 3);
    screen.key(KeyCode::Esc);
    assert_eq!(questions(&mut screen, 20), 0);
}

#[test]
fn why_there_is_nothing_to_see() {
    let failures = [
        (
            "history_absent",
            "Nothing has been recorded to /var/lib/chadthrottle/history.db yet: the screen and `chadthrottle daemon` \
             do, while they run.",
        ),
        (
            "history_off",
            "Nothing has been recorded to /var/lib/chadthrottle/history.db, and nothing is recorded now: history is \
             off in the configuration (enabled = false under [history]).",
        ),
        (
            "history_denied",
            "Cannot open /var/lib/chadthrottle/history.db: Permission denied (os error 13). A history is readable by \
             its owner alone: sudo shows it.",
        ),
    ];
    for (name, words) in failures {
        Screen::looks_in_all_sizes(name, |width, height| {
            let (mut screen, asked) = open(width, height);
            screen.send(answered(&asked, Err(words.into())));
            screen
        });
    }
    // Where something was recorded, but not in this hour; and where nothing more is.
    let recorded = Recorded::new();
    let later = |asked: &Asked, is_recorded| {
        let now = Timestamp::from_second(NOW + 100 * 86_400).expect("a time");
        Source::own(Some(recorded.file.clone()), is_recorded).look(asked, now, TimeZone::UTC)
    };
    Screen::looks_in_all_sizes("history_empty", |width, height| {
        let (mut screen, asked) = open(width, height);
        screen.send(answered(&asked, later(&asked, true)));
        screen
    });
    Screen::looks_in_all_sizes("history_no_more", |width, height| {
        let (mut screen, asked) = open(width, height);
        screen.send(answered(&asked, recorded.look(&asked, false)));
        screen
    });
}

#[test]
fn without_colours_and_with_poor_fonts_it_says_the_same() {
    let recorded = Recorded::new();
    let draw = |looks: Looks| {
        let mut screen = Screen::empty(80, 24);
        screen.app = App::new(Setup { looks, ..Setup::new(BACKENDS) }, screen.size);
        screen.send(Event::Snapshot(busy()));
        recorded.typed(&mut screen, "Hj");
        screen
    };
    let looks = |colours| Looks { colours, background: Background::Dark, ascii: false };
    let (plain, colour) = (draw(looks(Colours::None)), draw(looks(Colours::True)));
    assert_eq!(plain.text(), colour.text());
    let coloured = |screen: &Screen| screen.buffer().content.iter().any(|cell| cell.fg != Color::Reset);
    assert!(coloured(&colour) && !coloured(&plain));
    let poor = draw(Looks { ascii: true, ..Looks::default() });
    assert!(poor.text().is_ascii() && poor.text().contains("23M|"), "{}", poor.text());
}

#[test]
fn no_window_is_too_small_or_too_large_for_it() {
    let recorded = Recorded::new();
    for (width, height) in [(60, 16), (61, 17), (79, 19), (200, 20), (60, 100), (400, 200), (10, 3)] {
        let mut screen = Screen::busy(width, height);
        recorded.typed(&mut screen, "H→→vjs");
        let text = screen.text();
        assert!(text.lines().count() <= usize::from(height), "{text}");
        assert!(!text.contains("more: Down"), "{text}");
    }
}
