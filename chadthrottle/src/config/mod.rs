//! The configuration: what files say about the screen, its keys, and rules.
//!
//! Reading a text is pure and tells everything that is wrong with it at once, each with its line and column. Files are
//! written whole or not at all ([`mod@write`]), and comments and order stay as they are.

mod daemon;
pub mod files;
mod history;
mod keys;
mod screen;
mod section;
mod source;
pub mod write;

use std::{io, path::Path, sync::Arc};

use toml_edit::Document;

pub use self::{
    daemon::DaemonSettings,
    files::Files,
    history::HistorySettings,
    screen::ScreenSettings,
    section::{Field, Reader, Section},
    source::{ConfigError, Place, Problem, Source},
};
pub(crate) use self::{
    screen::{chosen, parse_refresh},
    section::nearest,
};
use crate::{
    app::keys::rebinding::KeyTables,
    rules::{self, Rule, link, rank},
};

/// What a file may have.
const KEYS: [&str; 6] = ["screen", "keys", "history", "daemon", "link", "rule"];

/// What the files say together.
#[derive(Debug, Default)]
pub struct Config {
    /// How the screen is to look.
    pub screen: ScreenSettings,
    /// Whether and where what is used is recorded.
    pub history: HistorySettings,
    /// Who may look at the daemon, and who may change what it does.
    pub daemon: DaemonSettings,
    /// Other keys than the program's own, where some are wanted.
    pub keys: Option<KeyTables>,
    /// The rules, in the order in which they stand.
    pub rules: Vec<Rule>,
    /// The files that were read, in the order in which they count: what stands in the first one wins.
    pub files: Vec<Arc<Path>>,
}

/// Whether this user may not even know whether there is such a file: with `su` and the like `HOME` may be that of somebody
/// else, whose configuration is not ours.
fn is_out_of_sight(path: &Path) -> bool {
    path.symlink_metadata().is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

impl Config {
    /// Reads those of the files that are there.
    ///
    /// # Errors
    /// When one cannot be read, or says something wrong.
    pub fn load(files: &Files) -> Result<Self, ConfigError> {
        let mut sources = Vec::new();
        for path in files.to_read() {
            if !files.is_named && is_out_of_sight(path) {
                log::info!("nothing is read of {}, whose directory is somebody else's", path.display());
                continue;
            }
            match Source::read(path)? {
                Some(source) => sources.push(source),
                None if files.is_named => {
                    return Err(ConfigError::Unreadable {
                        path: path.clone(),
                        source: io::ErrorKind::NotFound.into(),
                    });
                }
                None => {}
            }
        }
        Self::of(&sources)
    }

    /// What these texts say together; of two that say different things the first one counts.
    ///
    /// # Errors
    /// With everything that is wrong in them.
    pub fn of(sources: &[Source]) -> Result<Self, ConfigError> {
        let mut problems = Vec::new();
        let mut config = Self::default();
        let mut rebindings = keys::Rebindings::default();
        let documents: Vec<_> = sources.iter().map(|source| Document::parse(source.text())).collect();
        // First of all: a rule may stand before its link, or in another file.
        let mut links = link::Links::default();
        for (source, document) in sources.iter().zip(&documents) {
            let Some(item) = document.as_ref().ok().and_then(|document| document.get("link")) else {
                continue;
            };
            let mut reader = Reader::new(source);
            links.read(&mut reader, item);
            problems.append(&mut reader.problems);
        }
        for (source, document) in sources.iter().zip(&documents) {
            config.files.push(Arc::clone(source.path()));
            let mut reader = Reader::new(source);
            match document {
                Ok(document) => {
                    let top = reader.table(document.as_table(), "the file", &KEYS);
                    if let Some(item) = top.item("screen") {
                        config.screen = config.screen.or(screen::read(&mut reader, item));
                    }
                    if let Some(item) = top.item("keys") {
                        rebindings.read(&mut reader, item);
                    }
                    if let Some(item) = top.item("history") {
                        config.history = config.history.or(history::read(&mut reader, item));
                    }
                    if let Some(item) = top.item("daemon") {
                        config.daemon = config.daemon.or(daemon::read(&mut reader, item));
                    }
                    if let Some(item) = top.item("rule") {
                        config.rules.extend(rules::read::read(&mut reader, item, &links));
                    }
                }
                Err(error) => reader.complain(error.span(), error.message()),
            }
            problems.append(&mut reader.problems);
        }
        match rebindings.tables() {
            Ok(tables) => config.keys = tables,
            Err(problem) => problems.push(problem),
        }
        problems.extend(rank::conflicts(&config.rules));
        problems.extend(link::conflicts(&config.rules));
        if problems.is_empty() { Ok(config) } else { Err(ConfigError::Wrong(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn problems(texts: &[&str]) -> String {
        config(texts).expect_err("something is wrong").to_string()
    }

    fn config(texts: &[&str]) -> Result<Config, ConfigError> {
        let names = ["user.toml", "system.toml"];
        let sources: Vec<Source> = names
            .iter()
            .zip(texts)
            .map(|(name, text)| Source::new(Path::new(name), (*text).into()))
            .collect();
        Config::of(&sources)
    }

    #[test]
    fn nothing_is_a_configuration() {
        let config = config(&["", "# nothing here"]).expect("nothing is wrong");
        assert_eq!(config.screen, ScreenSettings::default());
        assert!(config.keys.is_none());
    }

    #[test]
    fn the_users_file_counts_before_the_systems() {
        let config = config(&[
            "[screen]\nrefresh = \"500ms\"",
            "[screen]\nrefresh = \"5s\"\nmouse = false\n[keys]\nquit = \"x\"",
        ]);
        let config = config.expect("nothing is wrong");
        assert_eq!(config.screen.refresh, Some(Duration::from_millis(500)));
        assert_eq!(config.screen.mouse, Some(false));
        assert!(config.keys.is_some());
    }

    #[test]
    fn everything_that_is_wrong_is_told_with_its_place() {
        let text = "[screen]\nunits = \"pounds\"\nascii = \"yes\"\ncolour = 1\n\n[keys]\nquit = \"Hyper-X\"\nfly = \"f\"\n";
        let told = problems(&[text]);
        for words in [
            "user.toml:2:9: units: \"pounds\"",
            "user.toml:3:9: ascii of [screen] is to be true or false, and is a string",
            "user.toml:4:1: \"colour\" is no key of [screen] (did you mean \"colours\"?)",
            "user.toml:7:8: \"Hyper-X\" is no key",
            "user.toml:8:1: \"fly\" is no action",
        ] {
            assert!(told.contains(words), "{words:?} is missing:\n{told}");
        }
    }

    #[test]
    fn a_file_that_is_no_toml_says_where() {
        let told = problems(&["", "[screen]\nunits = = 1\n"]);
        assert!(told.starts_with("system.toml:2:"), "{told}");
        let told = problems(&["[limits]\n"]);
        assert!(told.starts_with("user.toml:1:2: \"limits\" is no key of the file"), "{told}");
    }

    #[test]
    fn a_conflict_of_keys_says_which_line_does_not_fit() {
        let told = problems(&["[keys]\npause = \"x\"\nundo = [\"F2\", \"x\"]\n"]);
        assert!(told.starts_with("user.toml:3:"), "{told}");
        assert!(told.contains("x is pause"), "{told}");
    }
}
