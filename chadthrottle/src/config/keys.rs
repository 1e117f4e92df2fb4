//! `[keys]`: an action's name, and the key or keys for it.

use toml_edit::Item;

use super::{
    section::{Reader, nearest},
    source::{Place, Problem},
};
use crate::app::keys::{
    Key,
    rebinding::{KeyTables, Rebinding, action, action_names},
};

/// What the files want so far, and where each stands.
#[derive(Debug, Default)]
pub(super) struct Rebindings(Vec<(Rebinding, Place)>);

impl Rebindings {
    /// Takes in one more file. What an earlier one wants stays.
    pub(super) fn read(&mut self, reader: &mut Reader<'_>, item: &Item) {
        let names = action_names();
        let Some(table) = item.as_table_like() else {
            reader.complain(item.span(), "[keys] is to be a table of actions and their keys");
            return;
        };
        let earlier = self.0.len();
        for (name, item) in table.iter() {
            let span = table.key(name).and_then(toml_edit::Key::span);
            let Some(action) = action(name) else {
                let meant = nearest(name, &names).map(|meant| format!(" (did you mean {meant:?}?)"));
                let (meant, names) = (meant.unwrap_or_default(), names.join(", "));
                reader.complain(span, format!("{name:?} is no action{meant}; there are: {names}"));
                continue;
            };
            let keys = keys(reader, item, name);
            let is_new = !self.0.iter().take(earlier).any(|(other, _)| other.action == action);
            if !keys.is_empty() && is_new {
                self.0.push((Rebinding { action, keys }, reader.source.place(item.span())));
            }
        }
    }

    /// The tables with all of it, where anything is wanted.
    pub(super) fn tables(&self) -> Result<Option<KeyTables>, Problem> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let wanted: Vec<Rebinding> = self.0.iter().map(|(rebinding, _)| rebinding.clone()).collect();
        KeyTables::with(&wanted).map(Some).map_err(|conflict| Problem {
            place: self.0[conflict.index].1.clone(),
            message: conflict.message,
        })
    }
}

/// The keys of one action.
fn keys(reader: &mut Reader<'_>, item: &Item, name: &str) -> Vec<Key> {
    let one = item.as_str().map(|typed| vec![(typed, item.span())]);
    let several = || {
        let values = item.as_array()?.iter();
        values.map(|value| Some((value.as_str()?, value.span()))).collect::<Option<Vec<_>>>()
    };
    let Some(typed) = one.or_else(several).filter(|typed| !typed.is_empty()) else {
        reader.complain(item.span(), format!("{name} is to be a key in quotes, or a list of some"));
        return Vec::new();
    };
    let mut keys: Vec<Key> = Vec::new();
    for (typed, span) in typed {
        match typed.parse::<Key>() {
            Ok(key) if keys.contains(&key) => reader.complain(span, format!("{typed:?} stands there twice")),
            Ok(key) => keys.push(key),
            Err(message) => reader.complain(span, message),
        }
    }
    keys
}
