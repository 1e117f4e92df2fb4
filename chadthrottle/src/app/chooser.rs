//! Which columns of the table somebody does not want to see.

use clap::ValueEnum;

use super::{
    App,
    columns::{Column, columns},
    lines::{FactLine, Tone},
    text::{left, start},
};

/// What can be left out of the table. Names stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Pids.
    Pid,
    /// Users.
    User,
    /// Curves of what was lately.
    Lately,
    /// What is sent and received now.
    Rates,
    /// What was sent and received so far.
    Totals,
    /// Limits.
    Limits,
    /// What limits threw away.
    Dropped,
    /// What waits for limits.
    HeldBack,
    /// Who holds limits.
    HeldBy,
    /// Units and containers.
    Unit,
    /// Executables.
    Executable,
}

impl Part {
    /// All of them, from left to right.
    pub const ALL: [Self; 11] = [
        Self::Pid,
        Self::User,
        Self::Lately,
        Self::Rates,
        Self::Totals,
        Self::Limits,
        Self::Dropped,
        Self::HeldBack,
        Self::HeldBy,
        Self::Unit,
        Self::Executable,
    ];

    const fn of(column: Column) -> Option<Self> {
        Some(match column {
            Column::Name => return None,
            Column::Pid => Self::Pid,
            Column::User => Self::User,
            Column::Lately => Self::Lately,
            Column::UploadRate | Column::DownloadRate => Self::Rates,
            Column::Total | Column::UploadTotal | Column::DownloadTotal => Self::Totals,
            Column::UploadLimit | Column::DownloadLimit => Self::Limits,
            Column::Dropped => Self::Dropped,
            Column::HeldBack => Self::HeldBack,
            Column::Backend => Self::HeldBy,
            Column::Unit => Self::Unit,
            Column::Exe => Self::Executable,
        })
    }

    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Pid => ("pid", "and how many a group is"),
            Self::User => ("user", "whom it runs as"),
            Self::Lately => ("lately", "a curve of both rates"),
            Self::Rates => ("rates", "what it sends and receives"),
            Self::Totals => ("totals", "the same so far"),
            Self::Limits => ("limits", "in force"),
            Self::Dropped => ("dropped", "what limits threw away"),
            Self::HeldBack => ("held back", "what waits for limits"),
            Self::HeldBy => ("held by", "which backends hold its limits"),
            Self::Unit => ("unit", "or container"),
            Self::Executable => ("executable", "its file"),
        }
    }
}

/// Those that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hidden(u16);

impl Hidden {
    /// Whether a column is left out.
    #[must_use]
    pub fn hides(self, column: Column) -> bool {
        Part::of(column).is_some_and(|part| self.has(part))
    }

    const fn has(self, part: Part) -> bool {
        self.0 & (1 << part as u16) != 0
    }

    const fn turned(self, part: Part) -> Self {
        Self(self.0 ^ (1 << part as u16))
    }
}

impl FromIterator<Part> for Hidden {
    fn from_iter<I: IntoIterator<Item = Part>>(parts: I) -> Self {
        Self(parts.into_iter().fold(0, |all, part| all | (1 << part as u16)))
    }
}

impl App {
    /// Shows a column, or hides it.
    pub(super) fn turn_column(&mut self, place: usize) {
        if let Some(part) = Part::ALL.get(place) {
            self.setup.hidden = self.setup.hidden.turned(*part);
        }
    }

    /// All columns, and which are shown.
    pub(super) fn column_lines(&self, chosen: usize, room: usize) -> Vec<FactLine> {
        let hidden = self.setup.hidden;
        let placed = columns(usize::from(self.size.width), self.setup.units, hidden);
        let has_room = |part| placed.iter().any(|placed| Part::of(placed.spec.column) == Some(part));
        let line = |(place, part): (usize, &Part)| {
            let (name, words) = part.words();
            let (mark, words) = match (hidden.has(*part), has_room(*part)) {
                (true, _) => (' ', words),
                (false, true) => ('x', words),
                (false, false) => ('x', "no room for it in this window"),
            };
            let sign = if place == chosen { '>' } else { ' ' };
            let text = format!("{sign} [{mark}] {}{words}", left(name, 13));
            let tone = if place == chosen { Tone::Selected } else { Tone::Plain };
            FactLine::text(start(&text, room)).toned(tone)
        };
        let title = FactLine::title("Columns of the table");
        std::iter::once(title).chain(Part::ALL.iter().enumerate().map(line)).collect()
    }
}
