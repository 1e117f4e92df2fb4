//! What the screen shows and what keys do to it.
//!
//! [`App::update`] takes an event and answers with what is to be done about it. It reads no clock and no file,
//! and waits for nothing: what it does depends on what it was told, and on nothing else.

pub mod dialog;
mod event;
pub mod facts;
pub mod input;
pub mod keys;
pub mod layout;
pub mod lines;
mod read;
pub mod row;
pub mod table;
pub(crate) mod text;

use crossterm::event::KeyEvent;
use ratatui::layout::Size;

pub use self::event::{Effect, Event, LimitOutcome};
use self::{
    dialog::LimitDialog,
    facts::Fact,
    input::{Edit, TextInput},
    keys::{Action, Directions, Motion, Place},
    lines::FactLine,
    row::{Row, Sort},
    table::{Table, stepped},
};
use crate::{backends::throttle::manager::LimitedTarget, process::ProcessId, stats::Snapshot};

/// Which backends are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendNames {
    /// Counts.
    pub monitor: &'static str,
    /// Limits what is sent.
    pub upload: &'static str,
    /// Limits what is received.
    pub download: Option<&'static str>,
}

/// Whether there are colours. Without them everything is still told by words and weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Palette {
    /// The terminal's own sixteen, few of them.
    #[default]
    Colour,
    /// None, as `NO_COLOR` asks.
    Plain,
}

/// A sentence below the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub text: String,
    /// Whether something went wrong.
    pub error: bool,
}

#[derive(Clone, Copy, Debug)]
enum View {
    Table,
    Details { process: ProcessId, scroll: usize },
}

/// What lies over the view.
#[derive(Clone, Debug)]
enum Overlay {
    Help { scroll: usize },
    Limit(LimitDialog),
    Filter(TextInput),
}

/// Everything that the screen is drawn from.
#[derive(Clone, Debug)]
pub struct App {
    backends: BackendNames,
    palette: Palette,
    size: Size,
    snapshot: Option<Snapshot>,
    paused: bool,
    /// What came last while the display is held.
    held: Option<Snapshot>,
    limited: Vec<LimitedTarget>,
    table: Table,
    view: View,
    overlay: Option<Overlay>,
    /// Until the next key.
    message: Option<Message>,
    /// Until the engine works again.
    trouble: Option<String>,
}

impl App {
    /// A screen without figures yet.
    #[must_use]
    pub fn new(backends: BackendNames, palette: Palette, size: Size) -> Self {
        Self {
            backends,
            palette,
            size,
            snapshot: None,
            paused: false,
            held: None,
            limited: Vec::new(),
            table: Table::default(),
            view: View::Table,
            overlay: None,
            message: None,
            trouble: None,
        }
    }

    /// Takes in what happened; what is to be done about it comes back.
    pub fn update(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Key(key) => return self.key(key),
            Event::Paste(text) => {
                if self.place().takes_text() {
                    for character in text.chars() {
                        self.edit(Edit::Insert(character));
                    }
                }
            }
            Event::Resize(size) => self.size = size,
            Event::Snapshot(snapshot) => {
                self.trouble = None;
                if self.paused {
                    self.held = Some(snapshot);
                } else {
                    self.snapshot = Some(snapshot);
                    self.refresh();
                }
            }
            // Never held: a limit in force that is not shown would be a lie, a moving counter is none.
            Event::Limits(limited) => {
                self.limited = limited;
                self.refresh();
            }
            Event::LimitResult(outcome) => self.message = Some(outcome.message()),
            Event::Notice(words) => self.notice(&words),
            Event::EngineFailed(words) => self.trouble = Some(words),
            Event::Signal => return vec![Effect::Quit],
        }
        Vec::new()
    }

    /// Where keys are pressed now.
    #[must_use]
    pub const fn place(&self) -> Place {
        match (&self.overlay, self.view) {
            (Some(Overlay::Help { .. }), _) => Place::Help,
            (Some(Overlay::Limit(_)), _) => Place::Limit,
            (Some(Overlay::Filter(_)), _) => Place::Filter,
            (None, View::Details { .. }) => Place::Details,
            (None, View::Table) => Place::Table,
        }
    }

    fn refresh(&mut self) {
        let seen = self.snapshot.as_ref().map(|snapshot| snapshot.processes.as_slice()).unwrap_or_default();
        self.table.replace(Row::merge(seen, &self.limited));
    }

    fn key(&mut self, key: KeyEvent) -> Vec<Effect> {
        let Some(action) = self.place().action(key) else { return Vec::new() };
        self.message = None;
        if matches!(action, Action::Details | Action::Limit(_) | Action::RemoveLimits) {
            self.table.choose();
        }
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Move(motion) => self.step(motion),
            Action::Details => {
                if let Some(process) = self.table.selected() {
                    self.view = View::Details { process, scroll: 0 };
                }
            }
            Action::Back => self.back(),
            Action::Help => self.overlay = Some(Overlay::Help { scroll: 0 }),
            Action::Limit(directions) => self.ask_for_limits(directions),
            Action::RemoveLimits => return self.remove_limits(),
            Action::NextSort => {
                self.sort(Sort { column: self.table.sort().column.next(), reversed: false });
            }
            Action::ReverseSort => {
                let sort = self.table.sort();
                self.sort(Sort { reversed: !sort.reversed, ..sort });
            }
            Action::Filter => {
                self.overlay = Some(Overlay::Filter(TextInput::new(self.table.filter().into())));
            }
            Action::Pause => self.pause(),
            Action::Accept => return self.accept(),
            Action::OtherField => {
                if let Some(Overlay::Limit(dialog)) = &mut self.overlay {
                    dialog.next_field();
                }
            }
            Action::Edit(edit) => self.edit(edit),
        }
        Vec::new()
    }

    fn step(&mut self, motion: Motion) {
        let body = usize::from(layout::body(self.size));
        let longest = |columns: Vec<Vec<FactLine>>| columns.iter().map(Vec::len).max().unwrap_or_default();
        let help = self.help(self.size.width).map(|(columns, _)| longest(columns));
        let details = self.details(self.size.width).map(|(columns, _)| longest(columns));
        // Down to where the last line is the last on the screen. One line of a page is seen twice.
        let scrolled = |scroll: usize, lines: Option<usize>| {
            let places = lines.unwrap_or_default().saturating_sub(body) + 1;
            stepped(scroll, motion, body.saturating_sub(1), places)
        };
        match (&mut self.overlay, &mut self.view) {
            (Some(Overlay::Help { scroll }), _) => *scroll = scrolled(*scroll, help),
            (None, View::Details { scroll, .. }) => *scroll = scrolled(*scroll, details),
            _ => self.table.step(motion, body.saturating_sub(usize::from(layout::HEADINGS))),
        }
    }

    fn back(&mut self) {
        match self.overlay.take() {
            Some(Overlay::Filter(_)) => self.table.set_filter(String::new()),
            Some(Overlay::Help { .. } | Overlay::Limit(_)) => {}
            None => match self.view {
                View::Details { .. } => self.view = View::Table,
                View::Table => {
                    self.table.set_filter(String::new());
                    self.table.let_go();
                }
            },
        }
    }

    fn sort(&mut self, sort: Sort) {
        self.table.set_sort(sort);
        self.say(sort.describe());
    }

    fn pause(&mut self) {
        self.paused = !self.paused;
        if let Some(snapshot) = self.held.take() {
            self.snapshot = Some(snapshot);
            self.refresh();
        }
    }

    fn edit(&mut self, edit: Edit) {
        match &mut self.overlay {
            Some(Overlay::Limit(dialog)) => dialog.edit(edit),
            Some(Overlay::Filter(input)) => {
                input.edit(edit);
                let text = input.text();
                self.table.set_filter(text);
            }
            _ => {}
        }
    }

    /// The process that a key is about.
    fn subject(&self) -> Option<&Row> {
        match self.view {
            View::Details { process, .. } => self.table.find(process),
            View::Table => self.table.selected().and_then(|id| self.table.find(id)),
        }
    }

    fn ask_for_limits(&mut self, directions: Directions) {
        let Some(row) = self.subject() else { return self.complain("No process is selected.".into()) };
        if !row.alive {
            let words =
                format!("{} ({}) has ended: there is nothing left to limit.", row.info.name, row.id());
            return self.complain(words);
        }
        if self.backends.download.is_none() && directions != Directions::Upload {
            return self.complain(
                "No download backend is in use, so downloads cannot be limited. Choose one with \
                 --download-backend; chadthrottle --list-backends tells which work here."
                    .into(),
            );
        }
        self.overlay = Some(Overlay::Limit(LimitDialog::new(row.target(), directions, row.limits)));
    }

    fn accept(&mut self) -> Vec<Effect> {
        // A filter is in force already: all that is left is to close it.
        let Some(Overlay::Limit(mut dialog)) = self.overlay.take() else { return Vec::new() };
        let target = dialog.target().clone();
        let row = target.subject.process().and_then(|process| self.table.find(process));
        let before = row.map(|row| row.limits).unwrap_or_default();
        match dialog.accept(before) {
            None => {
                self.overlay = Some(Overlay::Limit(dialog));
                Vec::new()
            }
            Some(limits) if limits.is_empty() && before.is_empty() => {
                self.say(format!("{target} stays without a limit."));
                Vec::new()
            }
            Some(limits) if limits.is_empty() => {
                self.say(format!("Removing the limits of {target}…"));
                vec![Effect::RemoveLimits { target }]
            }
            Some(limits) => {
                self.say(format!("Limiting {target}…"));
                vec![Effect::SetLimits { target, limits }]
            }
        }
    }

    fn remove_limits(&mut self) -> Vec<Effect> {
        let Some(row) = self.subject() else {
            self.complain("No process is selected.".into());
            return Vec::new();
        };
        let target = row.target();
        if row.limits.is_empty() {
            self.say(format!("{target} has no limit."));
            return Vec::new();
        }
        self.say(format!("Removing the limits of {target}…"));
        vec![Effect::RemoveLimits { target }]
    }

    fn say(&mut self, text: String) {
        self.message = Some(Message { text, error: false });
    }

    /// Adds a sentence to what stands there.
    fn notice(&mut self, words: &str) {
        match &mut self.message {
            Some(message) => message.text = format!("{} {words}", message.text),
            None => self.say(words.to_owned()),
        }
    }

    fn complain(&mut self, text: String) {
        self.message = Some(Message { text, error: true });
    }

    fn facts_of(&self, process: ProcessId) -> Vec<Fact> {
        match self.table.find(process) {
            Some(row) => facts::of_process(self, row),
            None => vec![Fact::Note(format!("Process {process} is not in the list any more."))],
        }
    }
}
