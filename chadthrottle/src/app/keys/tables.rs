//! The key tables themselves, one a place.

use crossterm::event::KeyCode;

use super::{Action, Binding, Directions, Key, Motion};
use crate::app::input::Edit;

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

pub(super) const TABLE: &[Binding] = &[
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

pub(super) const DETAILS: &[Binding] = &[
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

pub(super) const HELP: &[Binding] = &[
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

pub(super) const LIMIT: &[Binding] = &[
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

pub(super) const FILTER: &[Binding] = &[
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
