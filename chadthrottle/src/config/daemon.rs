//! `[daemon]`.

use toml_edit::Item;

use super::section::Reader;

/// Who may look at the daemon, and who may change what it does, beside root: groups, by name or number. What is `None` is
/// as it is without a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DaemonSettings {
    /// Its members see figures and limits.
    pub view_group: Option<String>,
    /// Those of them who are in this one too may change limits and have files read again.
    pub change_group: Option<String>,
}

const KEYS: [&str; 2] = ["view_group", "change_group"];

impl DaemonSettings {
    /// These, and others where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            view_group: self.view_group.or(others.view_group),
            change_group: self.change_group.or(others.change_group),
        }
    }
}

pub(super) fn read(reader: &mut Reader<'_>, item: &Item) -> DaemonSettings {
    let Some(section) = reader.section(item, "[daemon]", &KEYS) else { return DaemonSettings::default() };
    let group = |typed: &str| {
        if typed.is_empty() { Err("a group has a name or a number".to_owned()) } else { Ok(typed.to_owned()) }
    };
    DaemonSettings {
        view_group: reader.parsed(&section, "view_group", group).map(|field| field.value),
        change_group: reader.parsed(&section, "change_group", group).map(|field| field.value),
    }
}
