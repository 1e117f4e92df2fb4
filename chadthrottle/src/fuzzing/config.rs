//! Configuration files, and how rules in them are changed.

use std::path::Path;

use super::text;
use crate::{
    config::{Config, ConfigError, Place, Source},
    rules::edit::{self, NewRule},
};

/// No input may have it, because two rules of one name are an error.
const ADDED: &str = "added by the fuzzer";

fn read(text: &str) -> Result<Config, ConfigError> {
    Config::of(&[Source::new(Path::new("config.toml"), text.to_owned())])
}

/// A configuration file.
///
/// # Panics
/// Where something is complained of that is not in it, or what is right is wrong after a rule was added, changed or
/// removed.
pub fn config(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    match read(text) {
        Ok(config) => {
            switched_off(text, &config);
            added(text, &config);
        }
        Err(ConfigError::Wrong(problems)) => {
            let lines = text.split('\n').count();
            let is_there = |place: &Place| (1..=lines).contains(&place.line) && place.column >= 1;
            assert!(!problems.is_empty(), "nothing is wrong");
            assert!(problems.iter().all(|problem| is_there(&problem.place)), "{problems:?}");
        }
        Err(error) => panic!("no file was read: {error}"),
    }
}

fn switched_off(text: &str, config: &Config) {
    for rule in &config.rules {
        // One that is written as rule = [{ … }] is left alone.
        let Ok(changed) = edit::set_enabled(text, &rule.name, false) else { continue };
        let rules = read(&changed).expect("a rule less in force does not break it").rules;
        assert_eq!(rules.len(), config.rules.len());
        assert!(rules.iter().any(|other| other.name == rule.name && !other.enabled), "{rule:?}");
    }
}

fn added(text: &str, config: &Config) {
    let new = NewRule {
        name: ADDED.into(),
        conditions: vec![("program", format!("/{ADDED}"))],
        settings: vec![("upload", "1M".into())],
        ..NewRule::default()
    };
    let Ok(more) = edit::add(text, &new) else { return };
    let names = |config: &Config| config.rules.iter().map(|rule| rule.name.clone()).collect::<Vec<_>>();
    let with = read(&more).unwrap_or_else(|error| panic!("a rule more breaks it: {error}\n{more}"));
    assert_eq!(names(&with), [names(config), vec![ADDED.into()]].concat());
    let fewer = edit::remove(&more, ADDED).expect("it is there");
    let without = read(&fewer).unwrap_or_else(|error| panic!("a rule less breaks it: {error}\n{fewer}"));
    assert_eq!(names(&without), names(config));
}
