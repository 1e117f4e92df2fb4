//! Other keys than those of the tables, as somebody wants them.

use std::sync::OnceLock;

use super::{Action, Binding, Key, Place, names::name};

/// Other keys for an action, wherever that can be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rebinding {
    /// What is to be done.
    pub action: Action,
    /// By which keys, the first of which is shown in the footer.
    pub keys: Vec<Key>,
}

/// Why keys cannot be as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct KeyConflict {
    /// Which of the rebindings it is about.
    pub index: usize,
    /// What is wrong, and the way out.
    pub message: String,
}

/// The table of every place, with the keys that are wanted.
#[derive(Debug)]
pub struct KeyTables([&'static [Binding]; Place::ALL.len()]);

/// Those that are in use, where they are others than the program's own.
static IN_USE: OnceLock<KeyTables> = OnceLock::new();

/// The action with this name in the configuration.
#[must_use]
pub fn action(named: &str) -> Option<Action> {
    own().map(|binding| binding.action).find(|action| name(*action) == Some(named))
}

/// The names of all actions that keys can be chosen for, each once.
#[must_use]
pub fn action_names() -> Vec<&'static str> {
    let mut names: Vec<_> = own().filter_map(|binding| name(binding.action)).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// All bindings as the program has them by itself.
fn own() -> impl Iterator<Item = &'static Binding> {
    Place::ALL.into_iter().flat_map(Place::own_bindings)
}

/// The table of a place that is in use.
pub(super) fn in_use(place: Place) -> &'static [Binding] {
    IN_USE.get().map_or(place.own_bindings(), |tables| tables.of(place))
}

impl KeyTables {
    /// The program's own tables with these changes.
    ///
    /// # Errors
    /// When a key would have two meanings in one place, or Ctrl-C another than the one that it has everywhere.
    pub fn with(rebindings: &[Rebinding]) -> Result<Self, KeyConflict> {
        for (index, rebinding) in rebindings.iter().enumerate() {
            if rebinding.action != Action::Quit && rebinding.keys.contains(&Key::Ctrl('c')) {
                let message = "Ctrl-C always quits: choose another key".to_owned();
                return Err(KeyConflict { index, message });
            }
        }
        let tables: Vec<Vec<Binding>> = Place::ALL.iter().map(|place| rebound(*place, rebindings)).collect();
        for (place, table) in Place::ALL.iter().zip(&tables) {
            check(*place, table, rebindings)?;
        }
        // There is one for the life of the program, and a table is used everywhere as one that is.
        let mut tables = tables.into_iter().map(|table| &*table.leak());
        Ok(Self(std::array::from_fn(|_| tables.next().unwrap_or_default())))
    }

    /// From now on these are the keys of the program. They can be chosen once, before anything is shown.
    pub fn choose(self) {
        if IN_USE.set(self).is_err() {
            log::warn!("keys are as they were: they have been chosen already");
        }
    }

    /// The table of a place.
    #[must_use]
    pub fn of(&self, place: Place) -> &'static [Binding] {
        let index = Place::ALL.iter().position(|other| *other == place);
        index.and_then(|index| self.0.get(index).copied()).unwrap_or_default()
    }
}

/// The table of a place with other keys.
fn rebound(place: Place, rebindings: &[Rebinding]) -> Vec<Binding> {
    let mut table: Vec<Binding> = Vec::new();
    for binding in place.own_bindings() {
        let wanted = rebindings.iter().find(|rebinding| rebinding.action == binding.action);
        let keys = wanted.map(|wanted| usable(place, wanted)).filter(|keys| !keys.is_empty());
        match keys {
            None => table.push(*binding),
            // An action may stand there twice; the keys that are wanted are those of both.
            Some(_) if table.iter().any(|other| other.action == binding.action) => {}
            Some(keys) => table.push(Binding { keys: keys.leak(), ..*binding }),
        }
    }
    table
}

/// The keys that can be used in a place: where letters are text, no letter is a command.
fn usable(place: Place, wanted: &Rebinding) -> Vec<Key> {
    let is_text = |key: &Key| matches!(key, Key::Plain(crossterm::event::KeyCode::Char(_)));
    let mut keys: Vec<Key> =
        wanted.keys.iter().copied().filter(|key| !(place.takes_text() && is_text(key))).collect();
    // Nobody is to be locked in.
    if wanted.action == Action::Quit && !keys.contains(&Key::Ctrl('c')) {
        keys.push(Key::Ctrl('c'));
    }
    keys
}

/// That no key has two meanings.
fn check(place: Place, table: &[Binding], rebindings: &[Rebinding]) -> Result<(), KeyConflict> {
    let all = || table.iter().flat_map(|binding| binding.keys.iter().map(|key| (*key, binding.action)));
    for (at, (key, action)) in all().enumerate() {
        let Some((_, before)) = all().take(at).find(|(other, _)| *other == key) else { continue };
        // The one that was typed last is the one that does not fit.
        let is_of = |rebinding: &Rebinding| {
            [action, before].contains(&rebinding.action) && rebinding.keys.contains(&key)
        };
        let index = rebindings.iter().rposition(is_of).unwrap_or_default();
        let own = rebindings.get(index).map(|rebinding| rebinding.action);
        let other = if own == Some(action) { before } else { action };
        let other = name(other).unwrap_or("something else");
        let (key, place) = (key.name(), place.title());
        let message =
            format!("{key} is {other} in {place:?}; choose another key, or give {other} another one");
        return Err(KeyConflict { index, message });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyCode;

    use super::*;

    fn rebinding(named: &str, keys: &[&str]) -> Rebinding {
        let keys = keys.iter().map(|key| key.parse().expect("a key")).collect();
        Rebinding { action: action(named).expect("an action"), keys }
    }

    fn keys(tables: &KeyTables, place: Place, named: &str) -> Vec<String> {
        let bindings = tables.of(place).iter().filter(|binding| name(binding.action) == Some(named));
        bindings.flat_map(|binding| binding.keys).map(|key| key.name()).collect()
    }

    #[test]
    fn an_action_gets_its_keys_wherever_it_is_and_others_keep_theirs() {
        let tables = KeyTables::with(&[rebinding("pause", &["x", "F5"])]).expect("no conflict");
        assert_eq!(keys(&tables, Place::Table, "pause"), ["x", "F5"]);
        assert_eq!(keys(&tables, Place::Details, "pause"), ["x", "F5"]);
        assert_eq!(keys(&tables, Place::Table, "filter"), ["/"]);
        for place in Place::ALL {
            assert_eq!(tables.of(place).len(), place.own_bindings().len());
        }
    }

    #[test]
    fn ctrl_c_quits_whatever_is_wanted() {
        let tables = KeyTables::with(&[rebinding("quit", &["x"])]).expect("no conflict");
        assert_eq!(keys(&tables, Place::Table, "quit"), ["x", "Ctrl-C"]);
        assert_eq!(keys(&tables, Place::Filter, "quit"), ["Ctrl-C"], "x is text there");
        let error = KeyTables::with(&[rebinding("pause", &["Ctrl-C"])]).expect_err("it quits");
        assert!(error.to_string().contains("always quits"), "{error}");
    }

    #[test]
    fn a_key_has_one_meaning_and_keys_can_be_exchanged() {
        let error = KeyTables::with(&[rebinding("units", &["x"]), rebinding("undo", &["p"])])
            .expect_err("a conflict");
        assert_eq!(error.index, 1);
        assert!(error.message.contains("p is pause in \"Processes\""), "{error}");
        let exchanged = [rebinding("undo", &["p"]), rebinding("pause", &["z"])];
        let tables = KeyTables::with(&exchanged).expect("no conflict");
        assert_eq!(keys(&tables, Place::Table, "pause"), ["z"]);
        let same = [rebinding("undo", &["x"]), rebinding("pause", &["x"])];
        assert_eq!(KeyTables::with(&same).expect_err("a conflict").index, 1);
    }

    #[test]
    fn where_letters_are_text_they_stay_text() {
        let tables = KeyTables::with(&[rebinding("accept", &["Y"])]).expect("no conflict");
        assert_eq!(keys(&tables, Place::Limit, "accept"), ["Enter"]);
        let is_letter = |key: &Key| matches!(key, Key::Plain(KeyCode::Char(_)));
        for place in Place::ALL.into_iter().filter(|place| place.takes_text()) {
            assert!(!tables.of(place).iter().flat_map(|binding| binding.keys).any(is_letter));
        }
    }
}
