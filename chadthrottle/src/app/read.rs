//! What the drawing reads.

use ratatui::layout::Size;

use super::{
    App, BackendNames, Message, Overlay,
    chooser::Hidden,
    dialog::LimitDialog,
    history::Span,
    input::TextInput,
    layout,
    limiting::{Confirm, Refused},
    looks::Looks,
    row::Row,
    table::{Entry, Table},
    text::{clip, wrap},
    units::Units,
};
use crate::{
    backends::throttle::{Subject, TrafficType},
    stats::{Snapshot, Traffic},
};

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

    /// Columns that nobody wants to see.
    #[must_use]
    pub const fn hidden(&self) -> Hidden {
        self.setup.hidden
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
            Some(snapshot) if !snapshot.interval.is_zero() => self.setup.units.rate(bytes),
            _ => "-".into(),
        }
    }

    /// All that is shown together, bytes a second: with what belongs to no process, where all traffic is shown.
    #[must_use]
    pub fn rate_of_all(&self) -> Traffic {
        match (self.traffic, &self.snapshot) {
            (_, None) => Traffic::default(),
            (TrafficType::All, Some(snapshot)) => snapshot.rate,
            (_, Some(_)) => {
                self.table.rows().iter().map(|row| row.rate).fold(Traffic::default(), Traffic::plus)
            }
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
        let error = |text: String| Message { text, error: true };
        let filter = self.filter_input().and_then(|_| self.table.filter().error());
        let filter = filter.map(|wrong| error(format!("Not a filter yet: {wrong}.")));
        // Why the selected one is not held as asked.
        let refusal = self.table.selection().filter(|_| self.overlay.is_none() && self.message.is_none());
        let refusal = refusal.and_then(|entry| {
            self.refusal(&entry).map(|refused| error(format!("Refused: {}", refused.words)))
        });
        let trouble = self.trouble.clone().map(error);
        self.message.clone().into_iter().chain(filter).chain(refusal).chain(trouble)
    }

    /// The lines of what there is to say in a window of that size. The table keeps its headings and one row.
    #[must_use]
    pub fn said(&self, size: Size) -> Vec<Message> {
        let filter = u16::from(self.filter_input().is_some());
        let room = usize::from(layout::body(size).saturating_sub(layout::HEADINGS + 1 + filter));
        let inside = usize::from(size.width.saturating_sub(2 * layout::MARGIN));
        let mut lines: Vec<Message> = Vec::new();
        for message in self.messages() {
            let wrapped = clip(wrap(&message.text, inside), room.saturating_sub(lines.len()), inside);
            lines.extend(wrapped.into_iter().map(|text| Message { text, error: message.error }));
        }
        lines
    }

    /// Lines that the table has for its rows.
    pub(super) fn lines_of_table(&self) -> u16 {
        let said = u16::try_from(self.said(self.size).len()).unwrap_or(u16::MAX);
        let filter = u16::from(self.filter_input().is_some());
        layout::body(self.size).saturating_sub(layout::HEADINGS + filter).saturating_sub(said)
    }

    /// The limit dialog, where it is open.
    #[must_use]
    pub fn dialog(&self) -> Option<&LimitDialog> {
        match &self.overlay {
            Some(Overlay::Limit(dialog)) => Some(dialog),
            _ => None,
        }
    }

    /// The question before something drastic, where there is one.
    #[must_use]
    pub const fn confirm(&self) -> Option<&Confirm> {
        match &self.overlay {
            Some(Overlay::Confirm(confirm)) => Some(confirm),
            Some(Overlay::Save(saving)) => Some(&saving.question),
            _ => None,
        }
    }

    /// The rule that holds these, where one does: its name, file and line.
    #[must_use]
    pub fn rule(&self, subject: &Subject) -> Option<&str> {
        self.rules.get(subject).map(String::as_str)
    }

    /// Why a limit that was asked for is not in force.
    #[must_use]
    pub fn refusal(&self, entry: &Entry) -> Option<&Refused> {
        let refused = |subject: &Subject| self.refused.get(subject);
        match entry {
            Entry::Process(row) => {
                refused(&Subject::Process(row.id())).or_else(|| refused(&Subject::Descendants(row.id())))
            }
            Entry::Group(group, _) => {
                let of_group = self.refused.iter().find(|(subject, _)| group.key.is_for(subject));
                of_group.map(|(_, refused)| refused)
            }
        }
    }

    /// Which traffic is shown.
    #[must_use]
    pub const fn traffic(&self) -> TrafficType {
        self.traffic
    }

    /// Whether the mouse is ours.
    #[must_use]
    pub const fn mouse_is_ours(&self) -> bool {
        self.setup.mouse
    }

    /// What a group or a process did lately, bytes a second both ways together, the oldest first.
    #[must_use]
    pub fn lately(&self, entry: &Entry, count: usize) -> Vec<f32> {
        let sums = |rates: Vec<(f32, f32)>| rates.into_iter().map(|(up, down)| up + down).collect();
        match entry {
            Entry::Process(row) => sums(self.recent_rates(std::iter::once(row.id()), Span::Minute, count)),
            Entry::Group(group, _) => {
                let rows = group.members.iter().filter_map(|&place| self.table.rows().get(place));
                sums(self.recent_rates(rows.map(Row::id), Span::Minute, count))
            }
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
