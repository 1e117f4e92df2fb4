//! Rules on the screen.

use std::path::PathBuf;

use chadthrottle::{
    app::{Effect, Event, keys::Place},
    backends::throttle::{Subject, Target, manager::Limits},
    rules::edit::NewRule,
};
use crossterm::event::KeyCode;

use super::host::{Screen, changed, id, limited, row, snapshot};

fn curl() -> Screen {
    let mut screen = Screen::empty(100, 30);
    let row = changed(&row(9, "curl", 1, 1), |info| {
        info.exe = Some(PathBuf::from("/usr/bin/curl"));
        info.cgroup = Some("/system.slice/fetch.service".into());
        info.user = Some("ada".into());
    });
    screen.send(Event::Snapshot(snapshot(vec![row])));
    screen
}

fn rule(condition: (&'static str, &str), name: &str) -> Vec<Effect> {
    let settings = vec![("upload", "1.5M".to_owned())];
    let conditions = vec![(condition.0, condition.1.to_owned())];
    vec![Effect::SaveRule(NewRule { name: name.into(), conditions, settings, ..NewRule::default() })]
}

#[test]
fn a_limit_is_saved_for_its_program_unit_or_user_and_never_for_its_pid() {
    let mut screen = curl();
    screen.typed("w");
    assert_eq!(screen.app.place(), Place::Table, "there is nothing to save yet");
    assert!(screen.text().contains("There is no limit to save yet"), "{}", screen.text());

    screen.send(Event::Limits(vec![limited(9, "curl", Some(1_500_000), None)]));
    screen.typed("w");
    assert_eq!(screen.app.place(), Place::Save);
    assert!(screen.text().contains("every /usr/bin/curl: 1.5MB/s up,"), "{}", screen.text());
    assert_eq!(screen.key(KeyCode::Enter), rule(("program", "/usr/bin/curl"), "curl"));

    screen.typed("w");
    screen.key(KeyCode::Right);
    assert!(screen.text().contains("all of fetch.service: 1.5MB/s up,"), "{}", screen.text());
    assert_eq!(screen.key(KeyCode::Enter), rule(("unit", "fetch.service"), "fetch.service"));

    screen.typed("w");
    screen.key(KeyCode::Left);
    assert_eq!(screen.typed("y"), rule(("user", "ada"), "ada"));

    screen.typed("w");
    assert_eq!(screen.key(KeyCode::Esc), []);
    assert_eq!(screen.app.place(), Place::Table);
    screen.send(Event::RuleSaved(Err("The rule was not saved: no room.".into())));
    assert!(screen.text().contains("no room"), "{}", screen.text());
}

#[test]
fn the_details_say_which_rule_holds_a_process() {
    let mut screen = curl();
    let program = Subject::Program("/usr/bin/curl".into());
    let of_pid = limited(9, "curl", Some(1_500_000), None);
    let target = Target { subject: program.clone(), ..of_pid.target.clone() };
    screen.send(Event::Limits(vec![chadthrottle::backends::throttle::manager::LimitedTarget {
        target,
        limits: Limits { upload: Some(1_500_000), download: None },
        ..of_pid
    }]));
    screen.key(KeyCode::Enter);
    assert!(!screen.text().contains("by rule"), "{}", screen.text());
    screen.send(Event::Rules(vec![(program, "\"fetch\" (/etc/chadthrottle/config.toml:12)".into())]));
    assert!(screen.text().contains("\"fetch\" (/etc/chadthrottle/config.toml:12)"), "{}", screen.text());
    screen.send(Event::Rules(vec![(Subject::Process(id(9)), "other".into())]));
    assert!(!screen.text().contains("by rule"), "{}", screen.text());
}
