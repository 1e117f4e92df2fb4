//! Which key does what, and where.
//!
//! One table a place. Keys are looked up in it, and the footer and the help are written from it: a key that is
//! not in the table does nothing, and one that is cannot be missing from the help.

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};

use super::input::Edit;

/// Where in the program a key is pressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// The list of processes.
    Table,
    /// Everything about one process.
    Details,
    /// The help.
    Help,
    /// The dialog that asks for limits.
    Limit,
    /// The line that asks for a filter.
    Filter,
}

impl Place {
    /// Every place, in the order of the help.
    pub const ALL: [Self; 5] = [Self::Table, Self::Details, Self::Limit, Self::Filter, Self::Help];

    /// Its name in the help.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Table => "Processes",
            Self::Details => "Details of a process",
            Self::Help => "Help",
            Self::Limit => "Limit dialog",
            Self::Filter => "Filter",
        }
    }

    /// What its keys do.
    #[must_use]
    pub const fn bindings(self) -> &'static [Binding] {
        match self {
            Self::Table => TABLE,
            Self::Details => DETAILS,
            Self::Help => HELP,
            Self::Limit => LIMIT,
            Self::Filter => FILTER,
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
    /// Move the selection, or scroll.
    Move(Motion),
    /// Show everything about the selected process.
    Details,
    /// Leave this place, or drop the filter.
    Back,
    /// Show the help.
    Help,
    /// Ask for limits.
    Limit(Directions),
    /// Remove the limits of the selected process.
    RemoveLimits,
    /// Sort by the next column.
    NextSort,
    /// Sort the other way round.
    ReverseSort,
    /// Ask for a filter.
    Filter,
    /// Hold the display, or let it go on.
    Pause,
    /// Take what was typed.
    Accept,
    /// Go to the other input field.
    OtherField,
    /// Change the text.
    Edit(Edit),
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
            Self::Plain(KeyCode::Char(character)) => character.to_string(),
            Self::Plain(KeyCode::PageUp) => "PgUp".into(),
            Self::Plain(KeyCode::PageDown) => "PgDn".into(),
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

/// The footer of a place, the most important first.
pub fn footer(place: Place) -> impl Iterator<Item = &'static Binding> {
    place.bindings().iter().filter(|binding| binding.footer.is_some())
}

/// The help: for every place, keys and what they do. What an earlier place tells already is left out.
#[must_use]
pub fn help() -> [(Place, Vec<(String, &'static str)>); Place::ALL.len()] {
    let mut told: Vec<(Key, &'static str)> = Vec::new();
    Place::ALL.map(|place| {
        let mut lines: Vec<(String, &'static str)> = Vec::new();
        for binding in place.bindings() {
            let new: Vec<Key> =
                binding.keys.iter().copied().filter(|key| !told.contains(&(*key, binding.help))).collect();
            if new.is_empty() {
                continue;
            }
            told.extend(new.iter().map(|key| (*key, binding.help)));
            let names = new.iter().map(|key| key.name()).collect::<Vec<_>>().join(" ");
            match lines.last_mut() {
                Some((keys, help)) if *help == binding.help => {
                    keys.push(' ');
                    keys.push_str(&names);
                }
                _ => lines.push((names, binding.help)),
            }
        }
        (place, lines)
    })
}

const fn plain(character: char) -> Key {
    Key::Plain(KeyCode::Char(character))
}

const UP: Key = Key::Plain(KeyCode::Up);
const DOWN: Key = Key::Plain(KeyCode::Down);
const ENTER: Key = Key::Plain(KeyCode::Enter);
const ESC: Key = Key::Plain(KeyCode::Esc);
const HOME: Key = Key::Plain(KeyCode::Home);
const END: Key = Key::Plain(KeyCode::End);

const SHOW_HELP: Binding = Binding::new(&[plain('?')], Action::Help, "this help").footer("help");
const QUIT: Binding =
    Binding::new(&[plain('q'), Key::Ctrl('c')], Action::Quit, "quit; limits end too").footer("quit");
/// Where letters are text.
const QUIT_BY_CTRL: Binding = Binding::new(&[Key::Ctrl('c')], Action::Quit, "quit; limits end too");

const LIMIT_UPLOAD: Binding =
    Binding::new(&[plain('u')], Action::Limit(Directions::Upload), "limit what it sends")
        .footer("upload limit");
const LIMIT_DOWNLOAD: Binding =
    Binding::new(&[plain('d')], Action::Limit(Directions::Download), "limit what it receives")
        .footer("download limit");
const LIMIT_BOTH: Binding =
    Binding::new(&[plain('t')], Action::Limit(Directions::Both), "limit both directions").footer("both");
const REMOVE: Binding =
    Binding::new(&[plain('r')], Action::RemoveLimits, "remove its limits").footer("remove");
const PAUSE: Binding = Binding::new(&[plain('p')], Action::Pause, "pause, or go on").footer("pause");

const ROW_UP: Binding = Binding::new(&[UP, plain('k')], Action::Move(Motion::Up), "one row up, down");
const ROW_DOWN: Binding = Binding::new(&[DOWN, plain('j')], Action::Move(Motion::Down), "one row up, down");
const PAGE_UP: Binding =
    Binding::new(&[Key::Plain(KeyCode::PageUp)], Action::Move(Motion::PageUp), "one page up, down");
const PAGE_DOWN: Binding =
    Binding::new(&[Key::Plain(KeyCode::PageDown)], Action::Move(Motion::PageDown), "one page up, down");
const FIRST: Binding = Binding::new(&[plain('g'), HOME], Action::Move(Motion::First), "to the first, last");
const LAST: Binding = Binding::new(&[plain('G'), END], Action::Move(Motion::Last), "to the first, last");

const TABLE: &[Binding] = &[
    SHOW_HELP,
    QUIT,
    LIMIT_UPLOAD,
    LIMIT_DOWNLOAD,
    LIMIT_BOTH,
    REMOVE,
    Binding::new(&[plain('/')], Action::Filter, "filter by name, pid, user").footer("filter"),
    Binding::new(&[ENTER], Action::Details, "all about a process").footer("details"),
    Binding::new(&[plain('s')], Action::NextSort, "sort by the next column").footer("sort"),
    Binding::new(&[plain('S')], Action::ReverseSort, "sort the other way").footer("reverse"),
    PAUSE,
    Binding::new(&[ESC], Action::Back, "drop filter and selection"),
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

const BACK: Binding = Binding::new(&[ESC], Action::Back, "back").footer("back");

const DETAILS: &[Binding] = &[
    BACK,
    SHOW_HELP,
    QUIT,
    LIMIT_UPLOAD,
    LIMIT_DOWNLOAD,
    LIMIT_BOTH,
    REMOVE,
    PAUSE,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

const HELP: &[Binding] = &[
    Binding::new(&[ESC, plain('?')], Action::Back, "back").footer("back"),
    QUIT,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

const LEFT: Binding =
    Binding::new(&[Key::Plain(KeyCode::Left)], Action::Edit(Edit::Left), "move in the text");
const RIGHT: Binding =
    Binding::new(&[Key::Plain(KeyCode::Right)], Action::Edit(Edit::Right), "move in the text");
const TEXT_START: Binding = Binding::new(&[HOME], Action::Edit(Edit::Start), "move in the text");
const TEXT_END: Binding = Binding::new(&[END], Action::Edit(Edit::End), "move in the text");
const BACKSPACE: Binding =
    Binding::new(&[Key::Plain(KeyCode::Backspace)], Action::Edit(Edit::Backspace), "erase");
const DELETE: Binding = Binding::new(&[Key::Plain(KeyCode::Delete)], Action::Edit(Edit::Delete), "erase");
const CLEAR: Binding = Binding::new(&[Key::Ctrl('u')], Action::Edit(Edit::Clear), "erase all");

const LIMIT: &[Binding] = &[
    Binding::new(&[ENTER], Action::Accept, "set what was typed").footer("set"),
    Binding::new(&[ESC], Action::Back, "change nothing").footer("cancel"),
    Binding::new(&[Key::Plain(KeyCode::Tab), UP, DOWN], Action::OtherField, "other direction")
        .footer("other direction"),
    LEFT,
    RIGHT,
    TEXT_START,
    TEXT_END,
    BACKSPACE,
    DELETE,
    CLEAR,
    QUIT_BY_CTRL,
];

const FILTER: &[Binding] = &[
    Binding::new(&[ENTER], Action::Accept, "keep the filter").footer("keep"),
    Binding::new(&[ESC], Action::Back, "drop the filter").footer("drop"),
    Binding::new(&[UP], Action::Move(Motion::Up), "one row up, down"),
    Binding::new(&[DOWN], Action::Move(Motion::Down), "one row up, down"),
    LEFT,
    RIGHT,
    TEXT_START,
    TEXT_END,
    BACKSPACE,
    DELETE,
    CLEAR,
    QUIT_BY_CTRL,
];

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
            assert_eq!(place.action(press(KeyCode::Char('z'), KeyModifiers::CONTROL)), None);
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
