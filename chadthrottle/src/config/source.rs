//! A file's text, and what is wrong where in it.

use std::{
    fmt, fs, io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The text of a configuration file.
#[derive(Debug)]
pub struct Source {
    path: Arc<Path>,
    text: String,
    /// Where each line begins, in bytes.
    lines: Vec<usize>,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file.
    pub path: Arc<Path>,
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
}

/// Something that is wrong in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What, and what would be right.
    pub message: String,
}

/// Everything that is wrong, in the order of the files.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file is there and cannot be read.
    #[error("cannot read {path}: {source}; --no-config does without", path = path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What it says is wrong.
    #[error("{}", listed(.0))]
    Wrong(Vec<Problem>),
}

/// More problems than this are only counted.
const MOST_TOLD: usize = 20;

fn listed(problems: &[Problem]) -> String {
    let mut lines: Vec<String> = problems.iter().take(MOST_TOLD).map(ToString::to_string).collect();
    if problems.len() > MOST_TOLD {
        lines.push(format!("and {} more", problems.len() - MOST_TOLD));
    }
    lines.join("\n")
}

impl Source {
    /// A text that is said to stand in the file at `path`.
    #[must_use]
    pub fn new(path: &Path, text: String) -> Self {
        let after_breaks = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1);
        let lines = std::iter::once(0).chain(after_breaks).collect();
        Self { path: path.into(), text, lines }
    }

    /// Reads a file. `None` where there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read.
    pub fn read(path: &Path) -> Result<Option<Self>, ConfigError> {
        match fs::read_to_string(path) {
            Ok(text) => Ok(Some(Self::new(path, text))),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(source) => Err(ConfigError::Unreadable { path: path.to_owned(), source }),
        }
    }

    /// The file.
    #[must_use]
    pub const fn path(&self) -> &Arc<Path> {
        &self.path
    }

    /// What is in it.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where something stands, by its bytes; at the beginning where that is not known.
    #[must_use]
    pub fn place(&self, span: Option<Range<usize>>) -> Place {
        let at = span.map_or(0, |span| span.start).min(self.text.len());
        let line = self.lines.partition_point(|begin| *begin <= at).max(1);
        let begin = self.lines.get(line - 1).copied().unwrap_or_default();
        let column = self.text.get(begin..at).map_or(0, |before| before.chars().count()) + 1;
        Place { path: Arc::clone(&self.path), line, column }
    }

    /// Something wrong, there.
    #[must_use]
    pub fn problem(&self, span: Option<Range<usize>>, message: impl Into<String>) -> Problem {
        Problem { place: self.place(span), message: message.into() }
    }
}

impl Place {
    /// `config.toml:12`: the file and the line.
    #[must_use]
    pub fn line(&self) -> String {
        format!("{}:{}", self.path.display(), self.line)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.path.display(), self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_lines_and_characters_from_one() {
        let source = Source::new(Path::new("c.toml"), "ä = 1\n\nb = 2".into());
        let place = |at: usize| source.place(Some(at..at)).to_string();
        assert_eq!(place(0), "c.toml:1:1");
        assert_eq!(place(5), "c.toml:1:5", "ä is two bytes and one character");
        assert_eq!(place(7), "c.toml:2:1");
        assert_eq!(place(8), "c.toml:3:1");
        assert_eq!(place(1000), "c.toml:3:6");
    }
}
