//! What the drawing reads.

use super::{
    App, BackendNames, Message, Overlay, View,
    dialog::LimitDialog,
    facts,
    input::TextInput,
    layout,
    lines::{FactLine, lines},
    looks::Looks,
    table::Table,
    units::Units,
};
use crate::{rate::scaled, stats::Snapshot};

impl App {
    /// Which backends are at work.
    #[must_use]
    pub const fn backends(&self) -> BackendNames {
        self.setup.backends
    }

    /// What the terminal can show.
    #[must_use]
    pub const fn looks(&self) -> Looks {
        self.setup.looks
    }

    /// In which units figures are shown.
    #[must_use]
    pub const fn units(&self) -> Units {
        self.setup.units
    }

    /// Whether the host is a simulated one.
    #[must_use]
    pub const fn is_demo(&self) -> bool {
        self.setup.is_demo
    }

    /// The figures that are shown.
    #[must_use]
    pub const fn snapshot(&self) -> Option<&Snapshot> {
        self.snapshot.as_ref()
    }

    /// A rate of the snapshot as text. The first snapshot has none: nothing has passed yet.
    #[must_use]
    pub fn rate(&self, bytes: u64) -> String {
        match &self.snapshot {
            Some(snapshot) if !snapshot.interval.is_zero() => scaled(bytes),
            _ => "-".into(),
        }
    }

    /// How many processes are limited.
    #[must_use]
    pub const fn limited(&self) -> usize {
        self.limited.len()
    }

    /// The list of processes.
    #[must_use]
    pub const fn table(&self) -> &Table {
        &self.table
    }

    /// Whether the display is held.
    #[must_use]
    pub const fn paused(&self) -> bool {
        self.paused
    }

    /// What is said below the table: the answer to the last key, and what is wrong with the engine.
    pub fn messages(&self) -> impl Iterator<Item = Message> {
        let trouble = self.trouble.clone().map(|text| Message { text, error: true });
        self.message.clone().into_iter().chain(trouble)
    }

    /// The details, where they are open, for a window of that width: columns of lines, and how many lines are
    /// scrolled past.
    #[must_use]
    pub fn details(&self, width: u16) -> Option<(Vec<Vec<FactLine>>, usize)> {
        match self.view {
            View::Details { process, scroll } => {
                Some((vec![lines(&self.facts_of(process), layout::details(width))], scroll))
            }
            View::Table => None,
        }
    }

    /// The help, where it is open, likewise.
    #[must_use]
    pub fn help(&self, width: u16) -> Option<(Vec<Vec<FactLine>>, usize)> {
        let Some(Overlay::Help { scroll }) = self.overlay else { return None };
        let (columns, room) = layout::help(width);
        let parts = facts::of_help();
        let columns = if columns == 1 {
            vec![parts.map(|part| lines(&part, room)).join(&FactLine::default())]
        } else {
            parts.iter().map(|part| lines(part, room)).collect()
        };
        Some((columns, scroll))
    }

    /// The limit dialog, where it is open.
    #[must_use]
    pub const fn dialog(&self) -> Option<&LimitDialog> {
        match &self.overlay {
            Some(Overlay::Limit(dialog)) => Some(dialog),
            _ => None,
        }
    }

    /// The filter's input, where it is open.
    #[must_use]
    pub const fn filter_input(&self) -> Option<&TextInput> {
        match &self.overlay {
            Some(Overlay::Filter(input)) => Some(input),
            _ => None,
        }
    }
}
