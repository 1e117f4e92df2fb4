//! The list of processes: order, filter, and the selection that follows its process.

use super::{
    keys::Motion,
    row::{Row, Sort},
};
use crate::process::ProcessId;

/// The rows, which of them are shown, and which one is selected.
#[derive(Clone, Debug, Default)]
pub struct Table {
    /// All of them, in order.
    rows: Vec<Row>,
    /// Those that pass the filter.
    shown: Vec<usize>,
    sort: Sort,
    filter: String,
    selected: Option<ProcessId>,
    /// Whether a person chose it. Until then the first row is selected, whoever stands there: following a process
    /// that nobody asked for would scroll the busiest ones out of sight.
    chosen: bool,
    /// Where the selected process stood last: when it leaves, its neighbour is found here.
    place: usize,
    /// The first row on the screen.
    top: usize,
}

impl Table {
    /// How many rows pass the filter.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.shown.len()
    }

    /// Whether none does.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.shown.is_empty()
    }

    /// The rows that pass the filter, from top to bottom.
    pub fn shown(&self) -> impl Iterator<Item = &Row> {
        self.shown.iter().filter_map(|&index| self.rows.get(index))
    }

    /// All rows, with those that the filter hides.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }

    /// The row of a process.
    #[must_use]
    pub fn find(&self, id: ProcessId) -> Option<&Row> {
        self.rows.iter().find(|row| row.id() == id)
    }

    /// The order.
    #[must_use]
    pub const fn sort(&self) -> Sort {
        self.sort
    }

    /// What rows have to match to be shown.
    #[must_use]
    pub fn filter(&self) -> &str {
        &self.filter
    }

    /// The selected process.
    #[must_use]
    pub const fn selected(&self) -> Option<ProcessId> {
        self.selected
    }

    /// The first row on a screen that has room for so many, such that the selected one is on it.
    #[must_use]
    pub fn top(&self, room: usize) -> usize {
        let room = room.max(1);
        let lowest = (self.place + 1).saturating_sub(room);
        self.top.clamp(lowest, self.place).min(self.len().saturating_sub(room))
    }

    /// Puts other rows in place of these.
    pub fn replace(&mut self, rows: Vec<Row>) {
        self.rows = rows;
        self.arrange();
    }

    /// Sorts otherwise.
    pub fn set_sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.arrange();
    }

    /// Filters otherwise.
    pub fn set_filter(&mut self, filter: String) {
        self.filter = filter;
        self.arrange();
    }

    /// Moves the selection on a screen that has room for so many rows.
    pub fn step(&mut self, motion: Motion, room: usize) {
        self.select(stepped(self.place, motion, room, self.len()));
        self.top = self.top(room);
        self.choose();
    }

    /// Keeps to the process that is selected now.
    pub fn choose(&mut self) {
        self.chosen = self.selected.is_some();
    }

    /// Goes back to the first row, whoever stands there.
    pub fn let_go(&mut self) {
        self.chosen = false;
        self.arrange();
    }

    fn arrange(&mut self) {
        let sort = self.sort;
        self.rows.sort_by(|a, b| sort.compare(a, b));
        let needle = self.filter.trim().to_lowercase();
        let passing =
            self.rows.iter().enumerate().filter(|(_, row)| needle.is_empty() || row.matches(&needle));
        self.shown = passing.map(|(index, _)| index).collect();
        if !self.chosen {
            self.top = 0;
            return self.select(0);
        }
        let found = self.selected.and_then(|id| self.shown().position(|row| row.id() == id));
        self.select(found.unwrap_or(self.place));
    }

    fn select(&mut self, place: usize) {
        self.place = place.min(self.len().saturating_sub(1));
        let index = self.shown.get(self.place);
        self.selected = index.and_then(|&index| self.rows.get(index)).map(Row::id);
    }
}

/// Where a step leads in a list of `length`, on a screen that has room for `room`.
#[must_use]
pub fn stepped(place: usize, motion: Motion, room: usize, length: usize) -> usize {
    let page = room.max(1);
    let place = match motion {
        Motion::Up => place.saturating_sub(1),
        Motion::Down => place.saturating_add(1),
        Motion::PageUp => place.saturating_sub(page),
        Motion::PageDown => place.saturating_add(page),
        Motion::First => 0,
        Motion::Last => length,
    };
    place.min(length.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::row::SortColumn,
        process::ProcessInfo,
        stats::{ProcessRow, Traffic},
    };

    fn rows(rates: &[(i32, u64)]) -> Vec<Row> {
        let row = |&(pid, rate): &(i32, u64)| {
            let id = ProcessId { pid, start_time: 1 };
            let info = ProcessInfo { id, name: format!("p{pid}"), exe: None, user: None, cgroup: None };
            let rate = Traffic { upload: rate, download: 0 };
            ProcessRow::new(info.into(), rate, rate, true)
        };
        Row::merge(&rates.iter().map(row).collect::<Vec<_>>(), &[])
    }

    fn pids(table: &Table) -> Vec<i32> {
        table.shown().map(|row| row.id().pid).collect()
    }

    fn selected(table: &Table) -> Option<i32> {
        table.selected().map(|id| id.pid)
    }

    #[test]
    fn the_selection_follows_its_process_and_then_the_place() {
        let mut table = Table::default();
        table.replace(rows(&[(1, 30), (2, 20), (3, 10)]));
        table.step(Motion::Down, 10);
        assert_eq!(selected(&table), Some(2));
        table.replace(rows(&[(1, 30), (2, 5), (3, 10), (4, 7)]));
        assert_eq!(pids(&table), [1, 3, 4, 2]);
        assert_eq!(selected(&table), Some(2));
        table.replace(rows(&[(1, 30), (3, 10), (4, 7)]));
        assert_eq!(selected(&table), Some(4), "the last one moved up to where it stood");
        table.let_go();
        assert_eq!(selected(&table), Some(1));
        table.replace(Vec::new());
        assert_eq!(selected(&table), None);
        table.replace(rows(&[(9, 1)]));
        assert_eq!(selected(&table), Some(9));
    }

    #[test]
    fn until_somebody_is_chosen_the_first_row_is_selected() {
        let mut table = Table::default();
        table.replace(rows(&[(1, 30), (2, 20)]));
        table.replace(rows(&[(1, 30), (2, 40)]));
        assert_eq!(selected(&table), Some(2));
        table.choose();
        table.replace(rows(&[(1, 30), (2, 20)]));
        assert_eq!(selected(&table), Some(2));
    }

    #[test]
    fn rows_that_tie_keep_their_places() {
        let mut table = Table::default();
        table.replace(rows(&[(3, 0), (1, 0), (2, 0)]));
        assert_eq!(pids(&table), [1, 2, 3]);
        table.set_sort(Sort { column: SortColumn::UploadRate, reversed: true });
        assert_eq!(pids(&table), [1, 2, 3]);
        table.set_sort(Sort { column: SortColumn::Pid, reversed: true });
        assert_eq!(pids(&table), [3, 2, 1]);
    }

    #[test]
    fn the_selected_row_is_on_the_screen() {
        let mut table = Table::default();
        table.replace(rows(&(1..=100).map(|pid| (pid, 0)).collect::<Vec<_>>()));
        for (motion, room, top) in [
            (Motion::PageDown, 10, 1),
            (Motion::Up, 10, 1),
            (Motion::Last, 10, 90),
            (Motion::PageUp, 10, 89),
            (Motion::First, 10, 0),
            (Motion::Last, 1000, 0),
            (Motion::Up, 0, 98),
        ] {
            table.step(motion, room);
            assert_eq!(table.top(room), top, "{motion:?}");
        }
    }

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
        assert_eq!(names.len(), 11);
    }
}
