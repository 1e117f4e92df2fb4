//! Which key does what, and where.
//!
//! One table a place. Keys are looked up in it, and the footer and the help are written from it: a key that is
//! not in the table does nothing, and one that is cannot be missing from the help.

mod help;
pub mod names;
pub mod rebinding;
mod tables;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

pub use self::help::{footer, help};
use super::input::Edit;

/// Where in the program a key is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The list of processes.
    Table,
    /// Everything about one process.
    Details,
    /// Interfaces, the system, or the messages.
    Page,
    /// The list of backends.
    Backends,
    /// What was used.
    History,
    /// The list of columns.
    Columns,
    /// The help.
    Help,
    /// The dialog that asks for limits.
    Limit,
    /// A question before something drastic.
    Confirm,
    /// The question for whom a rule is to be.
    Save,
    /// The line that asks for a filter.
    Filter,
}

impl Place {
    /// Every place, in the order of the help.
    pub const ALL: [Self; 11] = [
        Self::Table,
        Self::Details,
        Self::Page,
        Self::Backends,
        Self::History,
        Self::Columns,
        Self::Limit,
        Self::Confirm,
        Self::Save,
        Self::Filter,
        Self::Help,
    ];

    /// Its name in the help.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Table => "Processes",
            Self::Details => "Details of a process",
            Self::Page => "Interfaces, system, messages",
            Self::Backends => "Backends",
            Self::History => "History",
            Self::Columns => "Columns",
            Self::Help => "Help",
            Self::Limit => "Limit dialog",
            Self::Confirm => "Questions",
            Self::Save => "Saving a rule",
            Self::Filter => "Filter",
        }
    }

    /// What its keys do.
    #[must_use]
    pub fn bindings(self) -> &'static [Binding] {
        rebinding::in_use(self)
    }

    /// What they do where nobody wants others.
    const fn own_bindings(self) -> &'static [Binding] {
        match self {
            Self::Table => tables::TABLE,
            Self::Details => tables::DETAILS,
            Self::Page => tables::PAGE,
            Self::Backends => tables::BACKENDS,
            Self::History => tables::HISTORY,
            Self::Columns => tables::COLUMNS,
            Self::Help => tables::HELP,
            Self::Limit => tables::LIMIT,
            Self::Confirm => tables::CONFIRM,
            Self::Save => tables::SAVE,
            Self::Filter => tables::FILTER,
        }
    }

    /// What a key does here.
    #[must_use]
    pub fn action(self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        let bound = self.bindings().iter().find(|binding| binding.keys.iter().any(|bound| bound.is(key)));
        match (bound, key.code) {
            (Some(binding), _) => Some(binding.action),
            (None, KeyCode::Char(typed)) if self.takes_text() && !command(key.modifiers) => {
                Some(Action::Edit(Edit::Insert(typed)))
            }
            (None, _) => None,
        }
    }

    /// The key for an action here; where there are several, the one that the footer shows.
    #[must_use]
    pub fn key_of(self, action: Action) -> Option<Key> {
        let bound = self.bindings().iter().find(|binding| binding.action == action)?;
        bound.keys.first().copied()
    }

    /// Whether a plain letter is text here, and no command.
    #[must_use]
    pub const fn takes_text(self) -> bool {
        matches!(self, Self::Limit | Self::Filter)
    }
}

/// What a person wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the program, and the limits with it.
    Quit,
    /// Stop until the shell lets the program go on.
    Suspend,
    /// Move the selection, or scroll.
    Move(Motion),
    /// Show everything about the selected process, or fold a group.
    Open,
    /// Leave this place, or drop the filter.
    Back,
    /// Show the help.
    Help,
    /// Show another view.
    Show(Destination),
    /// Ask for limits.
    Limit(Directions),
    /// Remove the limits of the selected process.
    RemoveLimits,
    /// Remove everybody's limits.
    RemoveAllLimits,
    /// Make the limits in force a step looser, or tighter.
    Step {
        /// Looser.
        up: bool,
    },
    /// Block the selected process, after a question.
    Block,
    /// Take the last change of limits back.
    Undo,
    /// Save the limit of the selected process as a rule.
    SaveRule,
    /// Sort by the next column.
    NextSort,
    /// Sort the other way round.
    ReverseSort,
    /// Put other things together.
    NextGrouping,
    /// Fold the selected group, unfold it, or either.
    Fold(Option<bool>),
    /// Fold all groups, or unfold them.
    FoldAll,
    /// Show another kind of traffic.
    NextTraffic,
    /// Show figures in other units.
    NextUnits,
    /// Give the mouse to the terminal, or take it.
    Mouse,
    /// The next part of the details, or the previous one.
    Part {
        /// The next.
        next: bool,
    },
    /// Show what hosts are called, or their addresses.
    HostNames,
    /// Look further back, or less far.
    Zoom {
        /// Further.
        longer: bool,
    },
    /// Ask for a filter.
    Filter,
    /// Hold the display, or let it go on.
    Pause,
    /// Take what was typed.
    Accept,
    /// Go to the other input field, or to the one before.
    OtherField {
        /// The one before.
        back: bool,
    },
    /// Choose another value.
    Choose {
        /// The next, and not the one before.
        next: bool,
    },
    /// Change the text.
    Edit(Edit),
}

/// A view that a key leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Destination {
    /// Interfaces and their books.
    Interfaces,
    /// The whole host, and what we cost it.
    System,
    /// Backends.
    Backends,
    /// What was said so far.
    Log,
    /// What was used.
    History,
    /// Columns of the table.
    Columns,
}

/// A step in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Motion {
    /// One back.
    Up,
    /// One on.
    Down,
    /// A screenful back.
    PageUp,
    /// A screenful on.
    PageDown,
    /// To the first.
    First,
    /// To the last.
    Last,
}

/// What a limit dialog asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Directions {
    /// A limit on what is sent.
    Upload,
    /// A limit on what is received.
    Download,
    /// Both.
    Both,
}

/// A key as bindings name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// A key by itself. Shift is part of a character.
    Plain(KeyCode),
    /// A letter with Ctrl.
    Ctrl(char),
}

impl Key {
    fn is(self, pressed: KeyEvent) -> bool {
        match self {
            Self::Plain(code) => pressed.code == code && !command(pressed.modifiers),
            Self::Ctrl(letter) => {
                pressed.code == KeyCode::Char(letter) && pressed.modifiers.contains(KeyModifiers::CONTROL)
            }
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub fn name(self) -> String {
        match self {
            Self::Plain(KeyCode::Char(' ')) => "Space".into(),
            Self::Plain(KeyCode::Char(character)) => character.to_string(),
            Self::Plain(KeyCode::PageUp) => "PgUp".into(),
            Self::Plain(KeyCode::PageDown) => "PgDn".into(),
            Self::Plain(KeyCode::BackTab) => "Shift-Tab".into(),
            Self::Plain(code) => code.to_string(),
            Self::Ctrl(letter) => format!("Ctrl-{}", letter.to_ascii_uppercase()),
        }
    }
}

/// Whether a modifier makes a command of a letter.
const fn command(modifiers: KeyModifiers) -> bool {
    modifiers.intersects(KeyModifiers::CONTROL.union(KeyModifiers::ALT))
}

/// Keys that do one thing.
#[derive(Clone, Copy, Debug)]
pub struct Binding {
    /// The keys; the first one is shown in the footer.
    pub keys: &'static [Key],
    /// What they do.
    pub action: Action,
    /// The same in a word or two, for the footer. Without it, the footer does not tell.
    pub footer: Option<&'static str>,
    /// The same in a few words, for the help. Bindings next to each other that say the same share a line.
    pub help: &'static str,
}

impl Binding {
    const fn new(keys: &'static [Key], action: Action, help: &'static str) -> Self {
        Self { keys, action, footer: None, help }
    }

    const fn footer(self, words: &'static str) -> Self {
        Self { footer: Some(words), ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press(code: KeyCode, modifiers: KeyModifiers) -> KeyEvent {
        KeyEvent::new(code, modifiers)
    }

    #[test]
    fn no_key_has_two_meanings_in_one_place() {
        for place in Place::ALL {
            let keys: Vec<Key> = place.bindings().iter().flat_map(|binding| binding.keys).copied().collect();
            for (index, key) in keys.iter().enumerate() {
                assert!(!keys[..index].contains(key), "{place:?}: {}", key.name());
            }
        }
    }

    #[test]
    fn ctrl_c_quits_everywhere_and_a_letter_with_ctrl_is_no_text() {
        for place in Place::ALL {
            assert_eq!(place.action(press(KeyCode::Char('c'), KeyModifiers::CONTROL)), Some(Action::Quit));
            assert_eq!(place.action(press(KeyCode::Char('x'), KeyModifiers::CONTROL)), None);
        }
    }

    #[test]
    fn shift_is_part_of_the_letter() {
        for modifiers in [KeyModifiers::NONE, KeyModifiers::SHIFT] {
            assert_eq!(Place::Table.action(press(KeyCode::Char('S'), modifiers)), Some(Action::ReverseSort));
        }
        assert_eq!(Place::Table.action(press(KeyCode::Char('q'), KeyModifiers::ALT)), None);
    }

    #[test]
    fn letters_are_text_where_text_is_asked_for() {
        let q = press(KeyCode::Char('q'), KeyModifiers::NONE);
        assert_eq!(Place::Limit.action(q), Some(Action::Edit(Edit::Insert('q'))));
        assert_eq!(Place::Filter.action(q), Some(Action::Edit(Edit::Insert('q'))));
        assert_eq!(Place::Details.action(q), Some(Action::Quit));
    }

    #[test]
    fn releasing_a_key_does_nothing() {
        let mut key = press(KeyCode::Char('q'), KeyModifiers::NONE);
        key.kind = KeyEventKind::Release;
        assert_eq!(Place::Table.action(key), None);
    }
}
