//! `[history]`.

use std::path::PathBuf;

use toml_edit::Item;

use super::section::Reader;

/// Whether and where what is used is recorded. What is `None` is as it is without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HistorySettings {
    /// Whether it is, by the screen and the daemon.
    pub enabled: Option<bool>,
    /// The file.
    pub path: Option<PathBuf>,
}

const KEYS: [&str; 2] = ["enabled", "path"];

impl HistorySettings {
    /// These, and others where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self { enabled: self.enabled.or(others.enabled), path: self.path.or(others.path) }
    }

    /// The file that it is recorded to, where it is.
    #[must_use]
    pub fn recorded_to(&self) -> Option<PathBuf> {
        if self.enabled == Some(false) { None } else { self.file() }
    }

    /// The file, whether anything is recorded now or not.
    #[must_use]
    pub fn file(&self) -> Option<PathBuf> {
        self.path.clone().or_else(crate::history::usual_path)
    }
}

pub(super) fn read(reader: &mut Reader<'_>, item: &Item) -> HistorySettings {
    let Some(section) = reader.section(item, "[history]", &KEYS) else { return HistorySettings::default() };
    let absolute = |typed: &str| {
        let path = PathBuf::from(typed);
        if path.is_absolute() { Ok(path) } else { Err(format!("{typed:?} is no path from the root")) }
    };
    HistorySettings {
        enabled: reader.flag(&section, "enabled").map(|field| field.value),
        path: reader.parsed(&section, "path", absolute).map(|field| field.value),
    }
}
