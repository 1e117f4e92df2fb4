//! In which order processes and groups stand.

use std::cmp::Ordering;

use super::row::Row;
use crate::{backends::throttle::manager::Limits, process::ProcessId, stats::Traffic};

/// What the table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SortColumn {
    /// Both rates together, then both totals.
    #[default]
    Busiest,
    /// Name.
    Name,
    /// Pid.
    Pid,
    /// User.
    User,
    /// What it sends now.
    UploadRate,
    /// What it receives now.
    DownloadRate,
    /// What it sent and received so far.
    Total,
    /// What it sent so far.
    UploadTotal,
    /// What it received so far.
    DownloadTotal,
    /// Limit on what it sends.
    UploadLimit,
    /// Limit on what it receives.
    DownloadLimit,
    /// What its limits dropped.
    Dropped,
    /// What waits for its limits.
    HeldBack,
}

impl SortColumn {
    const ALL: [Self; 13] = [
        Self::Busiest,
        Self::Name,
        Self::Pid,
        Self::User,
        Self::UploadRate,
        Self::DownloadRate,
        Self::Total,
        Self::UploadTotal,
        Self::DownloadTotal,
        Self::UploadLimit,
        Self::DownloadLimit,
        Self::Dropped,
        Self::HeldBack,
    ];

    /// Its name in a sentence.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Busiest => "both rates together",
            Self::Name => "name",
            Self::Pid => "pid",
            Self::User => "user",
            Self::UploadRate => "upload rate",
            Self::DownloadRate => "download rate",
            Self::Total => "both totals together",
            Self::UploadTotal => "upload total",
            Self::DownloadTotal => "download total",
            Self::UploadLimit => "upload limit",
            Self::DownloadLimit => "download limit",
            Self::Dropped => "dropped bytes",
            Self::HeldBack => "bytes held back",
        }
    }

    /// The column after this one; the first after the last.
    #[must_use]
    pub fn next(self) -> Self {
        let next = Self::ALL.iter().skip_while(|column| **column != self).nth(1);
        next.copied().unwrap_or_default()
    }

    /// Whether small comes first: names are read from A, numbers from the largest.
    const fn ascends(self) -> bool {
        matches!(self, Self::Name | Self::Pid | Self::User)
    }
}

/// What is compared of a process or a group.
#[derive(Clone, Copy, Debug)]
pub(super) struct Figures<'a> {
    pub(super) name: &'a str,
    /// Of a group, its first process.
    pub(super) id: ProcessId,
    pub(super) user: Option<&'a str>,
    pub(super) rate: Traffic,
    pub(super) total: Traffic,
    pub(super) limits: Limits,
    pub(super) dropped: u64,
    pub(super) held_back: Option<u64>,
}

impl<'a> Figures<'a> {
    pub(super) fn of(row: &'a Row) -> Self {
        Self {
            name: &row.info.name,
            id: row.id(),
            user: row.info.user.as_deref(),
            rate: row.rate,
            total: row.total,
            limits: row.limits,
            dropped: row.dropped(),
            held_back: row.held_back,
        }
    }

    const fn busyness(&self) -> (u64, u64) {
        (self.rate.sum(), self.total.sum())
    }
}

/// In which order the rows stand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sort {
    /// By what.
    pub column: SortColumn,
    /// Against the column's natural direction.
    pub reversed: bool,
}

impl Sort {
    /// Whether the smallest is at the top.
    #[must_use]
    pub const fn ascends(self) -> bool {
        self.column.ascends() != self.reversed
    }

    /// The order in words.
    #[must_use]
    pub fn describe(self) -> String {
        let text = matches!(self.column, SortColumn::Name | SortColumn::User);
        let first = match (text, self.ascends()) {
            (true, true) => "from A to Z",
            (true, false) => "from Z to A",
            (false, true) => "smallest first",
            (false, false) => "largest first",
        };
        format!("Sorted by {}, {first}.", self.column.name())
    }

    /// Which of two stands above the other. Never equal for two processes: rows that tie must not change places from
    /// one second to the next.
    pub(super) fn compare(self, a: &Figures, b: &Figures) -> Ordering {
        let order = match self.column {
            SortColumn::Busiest => a.busyness().cmp(&b.busyness()),
            SortColumn::Name => by_letters(a.name, b.name),
            SortColumn::Pid => a.id.cmp(&b.id),
            // Nobody knows whose these are: after everyone else.
            SortColumn::User => match (a.user, b.user) {
                (Some(a), Some(b)) => by_letters(a, b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            },
            SortColumn::UploadRate => a.rate.upload.cmp(&b.rate.upload),
            SortColumn::DownloadRate => a.rate.download.cmp(&b.rate.download),
            SortColumn::Total => a.total.sum().cmp(&b.total.sum()),
            SortColumn::UploadTotal => a.total.upload.cmp(&b.total.upload),
            SortColumn::DownloadTotal => a.total.download.cmp(&b.total.download),
            SortColumn::UploadLimit => a.limits.upload.cmp(&b.limits.upload),
            SortColumn::DownloadLimit => a.limits.download.cmp(&b.limits.download),
            SortColumn::Dropped => a.dropped.cmp(&b.dropped),
            SortColumn::HeldBack => a.held_back.cmp(&b.held_back),
        };
        let order = if self.ascends() { order } else { order.reverse() };
        order.then_with(|| b.busyness().cmp(&a.busyness())).then_with(|| a.id.cmp(&b.id))
    }
}

/// Alphabetical, capitals among small letters.
fn by_letters(a: &str, b: &str) -> Ordering {
    let fold = |byte: u8| byte.to_ascii_lowercase();
    a.bytes().map(fold).cmp(b.bytes().map(fold))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_goes_round_all_columns() {
        let mut column = SortColumn::default();
        let mut names = Vec::new();
        loop {
            assert!(!names.contains(&column.name()));
            names.push(column.name());
            column = column.next();
            if column == SortColumn::default() {
                break;
            }
        }
        assert_eq!(names.len(), SortColumn::ALL.len());
    }
}
