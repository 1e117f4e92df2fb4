//! The key tables themselves, one a place.

use crossterm::event::KeyCode;

use super::{Action, Binding, Destination, Directions, Key, Motion};
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

const SUSPEND: Binding = Binding::new(&[Key::Ctrl('z')], Action::Suspend, "stop; fg goes on");

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
const REMOVE_ALL: Binding = Binding::new(&[plain('R')], Action::RemoveAllLimits, "remove all limits");
const LOOSER: Binding =
    Binding::new(&[plain('+'), plain('=')], Action::Step { up: true }, "a step looser, tighter");
const TIGHTER: Binding = Binding::new(&[plain('-')], Action::Step { up: false }, "a step looser, tighter");
const BLOCK: Binding = Binding::new(&[plain('0')], Action::Block, "block it");
const UNDO: Binding = Binding::new(&[plain('z')], Action::Undo, "undo the last limit").footer("undo");
const SAVE_RULE: Binding = Binding::new(&[plain('w')], Action::SaveRule, "save its limit as a rule");
const PAUSE: Binding = Binding::new(&[plain('p')], Action::Pause, "pause, or go on").footer("pause");
const TRAFFIC: Binding =
    Binding::new(&[plain('l')], Action::NextTraffic, "all, internet or local").footer("traffic");
const UNITS: Binding = Binding::new(&[plain('n')], Action::NextUnits, "bytes or bits, by 1000 or 1024");
const MOUSE: Binding = Binding::new(&[plain('m')], Action::Mouse, "mouse on or off");

const fn show(
    keys: &'static [Key],
    destination: Destination,
    help: &'static str,
    footer: &'static str,
) -> Binding {
    Binding::new(keys, Action::Show(destination), help).footer(footer)
}
const INTERFACES: Binding = show(&[plain('i')], Destination::Interfaces, "interfaces", "interfaces");
const SYSTEM: Binding = show(&[plain('y')], Destination::System, "the whole system", "system");
const SHOW_BACKENDS: Binding = show(&[plain('b')], Destination::Backends, "backends", "backends");
const LOG: Binding = show(&[plain('L')], Destination::Log, "messages so far", "messages");
const PAST: Binding = show(&[plain('H')], Destination::History, "the history", "history");

const SHOW_COLUMNS: Binding = show(&[plain('c')], Destination::Columns, "choose columns", "columns");

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
    REMOVE_ALL,
    LOOSER,
    TIGHTER,
    BLOCK,
    Binding::new(&[plain('/')], Action::Filter, "filter: text, user:root, down>1M").footer("filter"),
    Binding::new(&[ENTER], Action::Open, "details, or fold a group").footer("details"),
    Binding::new(&[plain('v')], Action::NextGrouping, "group: program, user, unit, tree").footer("group"),
    Binding::new(&[plain(' ')], Action::Fold(None), "fold a group"),
    Binding::new(&[LEFT_KEY], Action::Fold(Some(true)), "fold a group"),
    Binding::new(&[RIGHT_KEY], Action::Fold(Some(false)), "fold a group"),
    Binding::new(&[plain('F')], Action::FoldAll, "fold all groups, or none"),
    Binding::new(&[plain('s')], Action::NextSort, "sort by the next column").footer("sort"),
    Binding::new(&[plain('S')], Action::ReverseSort, "sort the other way"),
    UNDO,
    SAVE_RULE,
    PAUSE,
    TRAFFIC,
    INTERFACES,
    SYSTEM,
    SHOW_BACKENDS,
    LOG,
    PAST,
    SHOW_COLUMNS,
    UNITS,
    MOUSE,
    SUSPEND,
    Binding::new(&[ESC], Action::Back, "drop filter and selection"),
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

const LEFT_KEY: Key = Key::Plain(KeyCode::Left);
const RIGHT_KEY: Key = Key::Plain(KeyCode::Right);
const TAB: Key = Key::Plain(KeyCode::Tab);
const BACK_TAB: Key = Key::Plain(KeyCode::BackTab);
const BACK: Binding = Binding::new(&[ESC], Action::Back, "back").footer("back");

pub(super) const DETAILS: &[Binding] = &[
    BACK,
    SHOW_HELP,
    QUIT,
    Binding::new(&[TAB], Action::Part { next: true }, "next, previous part").footer("next part"),
    Binding::new(&[BACK_TAB], Action::Part { next: false }, "next, previous part"),
    LIMIT_UPLOAD,
    LIMIT_DOWNLOAD,
    LIMIT_BOTH,
    REMOVE,
    LOOSER,
    TIGHTER,
    BLOCK,
    UNDO,
    SAVE_RULE,
    PAUSE,
    TRAFFIC,
    Binding::new(&[plain('h')], Action::HostNames, "connections: names or addresses").footer("host names"),
    Binding::new(&[RIGHT_KEY], Action::Zoom { longer: true }, "history: longer, shorter").footer("longer"),
    Binding::new(&[LEFT_KEY], Action::Zoom { longer: false }, "history: longer, shorter").footer("shorter"),
    UNITS,
    INTERFACES,
    SYSTEM,
    SHOW_BACKENDS,
    LOG,
    PAST,
    MOUSE,
    SUSPEND,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

pub(super) const PAGE: &[Binding] = &[
    BACK,
    SHOW_HELP,
    QUIT,
    INTERFACES,
    SYSTEM,
    SHOW_BACKENDS,
    LOG,
    PAST,
    REMOVE_ALL,
    UNDO,
    SAVE_RULE,
    PAUSE,
    UNITS,
    MOUSE,
    SUSPEND,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

pub(super) const BACKENDS: &[Binding] = &[
    BACK,
    SHOW_HELP,
    QUIT,
    Binding::new(&[ENTER], Action::Accept, "use this backend from now on").footer("use"),
    INTERFACES,
    SYSTEM,
    LOG,
    PAST,
    MOUSE,
    SUSPEND,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

pub(super) const HISTORY: &[Binding] = &[
    Binding::new(&[plain('H'), ESC], Action::Back, "back").footer("back"),
    SHOW_HELP,
    QUIT,
    Binding::new(&[plain('v')], Action::NextGrouping, "by program, unit, user, interface").footer("by"),
    Binding::new(&[RIGHT_KEY], Action::Zoom { longer: true }, "hour, day, week, month, year")
        .footer("longer"),
    Binding::new(&[LEFT_KEY], Action::Zoom { longer: false }, "hour, day, week, month, year")
        .footer("shorter"),
    Binding::new(&[plain('s')], Action::NextSort, "sort by the next column").footer("sort"),
    Binding::new(&[plain('S')], Action::ReverseSort, "sort the other way").footer("other way"),
    PAUSE,
    INTERFACES,
    SYSTEM,
    SHOW_BACKENDS,
    LOG,
    UNITS,
    MOUSE,
    SUSPEND,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

pub(super) const COLUMNS: &[Binding] = &[
    Binding::new(&[plain('c'), ESC], Action::Back, "back").footer("back"),
    SHOW_HELP,
    QUIT,
    Binding::new(&[plain(' '), ENTER], Action::Accept, "show the column, or hide it").footer("show or hide"),
    UNITS,
    MOUSE,
    SUSPEND,
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
    SUSPEND,
    ROW_UP,
    ROW_DOWN,
    PAGE_UP,
    PAGE_DOWN,
    FIRST,
    LAST,
];

pub(super) const CONFIRM: &[Binding] = &[
    Binding::new(&[ENTER, plain('y')], Action::Accept, "yes, do it").footer("yes"),
    Binding::new(&[ESC, plain('n')], Action::Back, "no, change nothing").footer("no"),
    QUIT_BY_CTRL,
];

pub(super) const SAVE: &[Binding] = &[
    Binding::new(&[ENTER, plain('y')], Action::Accept, "save it").footer("save"),
    Binding::new(&[ESC, plain('n')], Action::Back, "save nothing").footer("no"),
    Binding::new(&[RIGHT_KEY, TAB], Action::Choose { next: true }, "for others").footer("for others"),
    Binding::new(&[LEFT_KEY, BACK_TAB], Action::Choose { next: false }, "for others"),
    QUIT_BY_CTRL,
];

const LEFT: Binding = Binding::new(&[LEFT_KEY], Action::Edit(Edit::Left), "move in the text");
const RIGHT: Binding = Binding::new(&[RIGHT_KEY], Action::Edit(Edit::Right), "move in the text");
const TEXT_START: Binding = Binding::new(&[HOME], Action::Edit(Edit::Start), "move in the text");
const TEXT_END: Binding = Binding::new(&[END], Action::Edit(Edit::End), "move in the text");
const BACKSPACE: Binding =
    Binding::new(&[Key::Plain(KeyCode::Backspace)], Action::Edit(Edit::Backspace), "erase");
const DELETE: Binding = Binding::new(&[Key::Plain(KeyCode::Delete)], Action::Edit(Edit::Delete), "erase");
const CLEAR: Binding = Binding::new(&[Key::Ctrl('u')], Action::Edit(Edit::Clear), "erase all");

pub(super) const LIMIT: &[Binding] = &[
    Binding::new(&[ENTER], Action::Accept, "set what was typed").footer("set"),
    Binding::new(&[ESC], Action::Back, "change nothing").footer("cancel"),
    Binding::new(&[TAB, DOWN], Action::OtherField { back: false }, "next, previous line").footer("next line"),
    Binding::new(&[BACK_TAB, UP], Action::OtherField { back: true }, "next, previous line"),
    Binding::new(&[Key::Ctrl('n')], Action::Choose { next: true }, "next, previous choice").footer("choose"),
    Binding::new(&[Key::Ctrl('p')], Action::Choose { next: false }, "next, previous choice"),
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
