//! What actions are called in the configuration file, and keys.

use crossterm::event::KeyCode;

use super::{Action, Destination, Directions, Key, Motion};

/// The name of an action in `[keys]`. None for editing text, whose keys are everybody's.
#[must_use]
pub const fn name(action: Action) -> Option<&'static str> {
    Some(match action {
        Action::Quit => "quit",
        Action::Suspend => "suspend",
        Action::Move(Motion::Up) => "up",
        Action::Move(Motion::Down) => "down",
        Action::Move(Motion::PageUp) => "page-up",
        Action::Move(Motion::PageDown) => "page-down",
        Action::Move(Motion::First) => "first",
        Action::Move(Motion::Last) => "last",
        Action::Open => "open",
        Action::Back => "back",
        Action::Help => "help",
        Action::Show(Destination::Interfaces) => "interfaces",
        Action::Show(Destination::System) => "system",
        Action::Show(Destination::Backends) => "backends",
        Action::Show(Destination::Log) => "messages",
        Action::Show(Destination::Columns) => "columns",
        Action::Show(Destination::History) => "history",
        Action::HostNames => "host-names",
        Action::Limit(Directions::Upload) => "limit-upload",
        Action::Limit(Directions::Download) => "limit-download",
        Action::Limit(Directions::Both) => "limit-both",
        Action::RemoveLimits => "remove",
        Action::RemoveAllLimits => "remove-all",
        Action::Step { up: true } => "looser",
        Action::Step { up: false } => "tighter",
        Action::Block => "block",
        Action::Undo => "undo",
        Action::SaveRule => "save-rule",
        Action::NextSort => "sort",
        Action::ReverseSort => "reverse-sort",
        Action::NextGrouping => "group",
        Action::Fold(None) => "fold",
        Action::Fold(Some(true)) => "fold-shut",
        Action::Fold(Some(false)) => "fold-open",
        Action::FoldAll => "fold-all",
        Action::NextTraffic => "traffic",
        Action::NextUnits => "units",
        Action::Mouse => "mouse",
        Action::Part { next: true } => "next-part",
        Action::Part { next: false } => "previous-part",
        Action::Zoom { longer: true } => "longer",
        Action::Zoom { longer: false } => "shorter",
        Action::Filter => "filter",
        Action::Pause => "pause",
        Action::Accept => "accept",
        Action::OtherField { back: false } => "next-field",
        Action::OtherField { back: true } => "previous-field",
        Action::Choose { next: true } => "next-choice",
        Action::Choose { next: false } => "previous-choice",
        Action::Edit(_) => return None,
    })
}

/// What a key may look like; part of every message about one that does not.
const KEY_FORMS: &str = "a character, Ctrl- and a letter, F1 to F12, Space, Enter, Esc, Tab, Shift-Tab, Backspace, \
     Delete, Insert, Up, Down, Left, Right, PgUp, PgDn, Home or End";

/// Keys that have words for names.
const WORDS: [(&str, KeyCode); 20] = [
    ("space", KeyCode::Char(' ')),
    ("enter", KeyCode::Enter),
    ("return", KeyCode::Enter),
    ("esc", KeyCode::Esc),
    ("escape", KeyCode::Esc),
    ("tab", KeyCode::Tab),
    ("shift-tab", KeyCode::BackTab),
    ("backspace", KeyCode::Backspace),
    ("delete", KeyCode::Delete),
    ("del", KeyCode::Delete),
    ("insert", KeyCode::Insert),
    ("up", KeyCode::Up),
    ("down", KeyCode::Down),
    ("left", KeyCode::Left),
    ("right", KeyCode::Right),
    ("pgup", KeyCode::PageUp),
    ("pgdn", KeyCode::PageDown),
    ("home", KeyCode::Home),
    ("end", KeyCode::End),
    ("ins", KeyCode::Insert),
];

impl std::str::FromStr for Key {
    type Err = String;

    /// As its name on the screen: `q`, `Q`, `Ctrl-C`, `Space`, `F5`. Of words, case does not matter.
    fn from_str(typed: &str) -> Result<Self, String> {
        let mut characters = typed.chars();
        if let (Some(character), None) = (characters.next(), characters.next())
            && !character.is_control()
        {
            return Ok(Self::Plain(KeyCode::Char(character)));
        }
        let unknown = || format!("{typed:?} is no key; give {KEY_FORMS}");
        let lower = typed.to_ascii_lowercase();
        if let Some((_, code)) = WORDS.iter().find(|(word, _)| *word == lower) {
            return Ok(Self::Plain(*code));
        }
        if let Some(number) = lower.strip_prefix('f').and_then(|number| number.parse().ok())
            && (1..=12).contains(&number)
        {
            return Ok(Self::Plain(KeyCode::F(number)));
        }
        let letter = lower.strip_prefix("ctrl-").or_else(|| lower.strip_prefix("ctrl+"));
        match letter.map(|letter| letter.chars().collect::<Vec<_>>()).as_deref() {
            // To a terminal these are one and the same.
            Some(['i']) => Err(format!("{typed:?} cannot be told from Tab by a terminal")),
            Some(['m']) => Err(format!("{typed:?} cannot be told from Enter by a terminal")),
            Some([letter]) if letter.is_ascii_lowercase() => Ok(Self::Ctrl(*letter)),
            _ => Err(unknown()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::keys::Place;

    #[test]
    fn every_key_of_the_tables_is_read_as_it_is_shown() {
        for place in Place::ALL {
            for key in place.bindings().iter().flat_map(|binding| binding.keys) {
                assert_eq!(key.name().parse(), Ok(*key), "{}", key.name());
            }
        }
        assert_eq!("ctrl+C".parse(), Ok(Key::Ctrl('c')));
        assert_eq!("F12".parse(), Ok(Key::Plain(KeyCode::F(12))));
        for typed in ["", "Ctrl-", "Ctrl-Up", "F13", "qq", "Ctrl-I", "\n"] {
            assert!(typed.parse::<Key>().is_err(), "{typed:?}");
        }
    }

    #[test]
    fn an_action_has_one_name_and_a_name_one_action() {
        let mut named: Vec<(&str, Action)> = Vec::new();
        for binding in Place::ALL.iter().flat_map(|place| place.bindings()) {
            if let Some(name) = name(binding.action) {
                assert!(
                    named.iter().all(|(other, action)| (*other == name) == (*action == binding.action)),
                    "{name}"
                );
                named.push((name, binding.action));
            }
        }
    }
}
