//! The list of processes and groups: order, filter, and the selection that follows its process.

use std::collections::HashSet;

use super::{
    filter::Filter,
    group::{Group, GroupKey, Grouping, Key, Kin, Node, Parts, grouped},
    keys::Motion,
    row::Row,
    sort::Sort,
};
use crate::{backends::throttle::manager::LimitedTarget, process::ProcessId};

/// What stands on a line of the list.
#[derive(Clone, Copy, Debug)]
pub enum Entry<'a> {
    /// One process.
    Process(&'a Row),
    /// Several, and whether they are folded away.
    Group(&'a Group, bool),
}

/// A line of the list.
#[derive(Clone, Debug)]
struct Line {
    /// In how many groups it is.
    depth: usize,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    /// A place in the rows.
    Process(usize),
    Group(Box<Group>, bool),
}

/// The rows, which of them are shown, and which one is selected.
#[derive(Clone, Debug, Default)]
pub struct Table {
    rows: Vec<Row>,
    /// Every limit in force.
    limits: Vec<LimitedTarget>,
    lines: Vec<Line>,
    /// How many rows pass the filter.
    matching: usize,
    sort: Sort,
    filter: Filter,
    grouping: Grouping,
    folded: HashSet<GroupKey>,
    kin: Kin,
    selected: Option<Key>,
    /// Whether a person chose it. Until then the first row is selected, whoever stands there: following a process
    /// that nobody asked for would scroll the busiest ones out of sight.
    chosen: bool,
    /// Where the selected process stood last: when it leaves, its neighbour is found here.
    place: usize,
    /// The first row on the screen.
    top: usize,
}

impl Table {
    /// How many lines there are.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// How many processes pass the filter.
    #[must_use]
    pub const fn matching(&self) -> usize {
        self.matching
    }

    /// The lines from top to bottom, and in how many groups each is.
    pub fn lines(&self) -> impl Iterator<Item = (usize, Entry<'_>)> {
        self.lines.iter().filter_map(|line| Some((line.depth, self.entry(line)?)))
    }

    /// The processes on lines of their own, from top to bottom.
    pub fn shown(&self) -> impl Iterator<Item = &Row> {
        self.lines().filter_map(|(_, entry)| match entry {
            Entry::Process(row) => Some(row),
            Entry::Group(..) => None,
        })
    }

    fn entry<'a>(&'a self, line: &'a Line) -> Option<Entry<'a>> {
        match &line.what {
            What::Process(place) => self.rows.get(*place).map(Entry::Process),
            What::Group(group, is_folded) => Some(Entry::Group(group, *is_folded)),
        }
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
    pub const fn filter(&self) -> &Filter {
        &self.filter
    }

    /// What is put together.
    #[must_use]
    pub const fn grouping(&self) -> Grouping {
        self.grouping
    }

    /// What is selected.
    #[must_use]
    pub const fn selected(&self) -> Option<&Key> {
        self.selected.as_ref()
    }

    /// The line that is selected.
    #[must_use]
    pub fn selection(&self) -> Option<Entry<'_>> {
        self.lines.get(self.place).and_then(|line| self.entry(line))
    }

    /// The first row on a screen that has room for so many, such that the selected one is on it.
    #[must_use]
    pub fn top(&self, room: usize) -> usize {
        let room = room.max(1);
        let lowest = (self.place + 1).saturating_sub(room);
        self.top.clamp(lowest, self.place).min(self.len().saturating_sub(room))
    }

    /// Puts other rows in place of these.
    pub fn replace(&mut self, rows: Vec<Row>, limits: Vec<LimitedTarget>) {
        (self.rows, self.limits) = (rows, limits);
        self.arrange();
    }

    /// Sorts otherwise.
    pub fn set_sort(&mut self, sort: Sort) {
        self.sort = sort;
        self.arrange();
    }

    /// Filters otherwise.
    pub fn set_filter(&mut self, filter: String) {
        self.filter.retype(filter);
        self.arrange();
    }

    /// Puts other things together.
    pub fn set_grouping(&mut self, grouping: Grouping) {
        self.grouping = grouping;
        self.arrange();
    }

    /// Processes of which it is not known who is above them, where that matters.
    #[must_use]
    pub fn orphans(&self) -> Vec<ProcessId> {
        if self.grouping != Grouping::Tree {
            return Vec::new();
        }
        let ids = self.rows.iter().filter(|row| row.alive).map(Row::id);
        ids.filter(|id| !self.kin.contains_key(id)).collect()
    }

    /// Takes in who is above whom.
    pub fn learn(&mut self, kin: Kin) {
        let listed: HashSet<ProcessId> = self.rows.iter().map(Row::id).collect();
        self.kin.retain(|id, _| listed.contains(id));
        self.kin.extend(kin);
        self.arrange();
    }

    /// Folds or unfolds the selected group; whether there is one.
    pub fn fold(&mut self, folded: Option<bool>) -> bool {
        let Some(Key::Group(key)) = &self.selected else { return false };
        if folded.unwrap_or(!self.folded.contains(key)) {
            self.folded.insert(key.clone());
        } else {
            self.folded.remove(key);
        }
        self.chosen = true;
        self.arrange();
        true
    }

    /// Folds all groups, or unfolds them where all are folded.
    pub fn fold_all(&mut self) {
        let mut groups = HashSet::new();
        self.nodes(self.passing()).iter().for_each(|node| keys_of(node, &mut groups));
        let all_folded = groups.iter().all(|key| self.folded.contains(key));
        self.folded = if all_folded { HashSet::new() } else { groups };
        self.arrange();
    }

    /// Moves the selection on a screen that has room for so many rows.
    pub fn step(&mut self, motion: Motion, room: usize) {
        self.select(stepped(self.place, motion, room, self.len()));
        self.top = self.top(room);
        self.choose();
    }

    /// Selects the line that stands there on a screen that has room for so many rows; whether there is one.
    pub fn point(&mut self, line: usize, room: usize) -> bool {
        let place = self.top(room) + line;
        if line >= room || place >= self.len() {
            return false;
        }
        self.top = self.top(room);
        self.select(place);
        self.choose();
        true
    }

    /// Keeps to the process that is selected now.
    pub const fn choose(&mut self) {
        self.chosen = self.selected.is_some();
    }

    /// Goes back to the first row, whoever stands there.
    pub fn let_go(&mut self) {
        self.chosen = false;
        self.arrange();
    }

    fn passing(&self) -> Vec<usize> {
        let rows = self.rows.iter().enumerate();
        rows.filter(|(_, row)| self.filter.passes(row)).map(|(place, _)| place).collect()
    }

    fn nodes(&self, passing: Vec<usize>) -> Vec<Node> {
        let parts = Parts { rows: &self.rows, limits: &self.limits, kin: &self.kin };
        grouped(self.grouping, &parts, passing, self.sort)
    }

    fn arrange(&mut self) {
        let passing = self.passing();
        self.matching = passing.len();
        let nodes = self.nodes(passing);
        let mut lines = Vec::with_capacity(nodes.len());
        for node in nodes {
            self.unfold(node, 0, &mut lines);
        }
        self.lines = lines;
        if !self.chosen {
            self.top = 0;
            return self.select(0);
        }
        let found = self.selected.as_ref().and_then(|key| {
            self.lines.iter().position(|line| self.entry(line).is_some_and(|entry| entry.is(key)))
        });
        self.select(found.unwrap_or(self.place));
    }

    fn unfold(&self, node: Node, depth: usize, lines: &mut Vec<Line>) {
        match node {
            Node::Process(place) => lines.push(Line { depth, what: What::Process(place) }),
            Node::Group(group, children) => {
                let is_folded = self.folded.contains(&group.key);
                lines.push(Line { depth, what: What::Group(group, is_folded) });
                if !is_folded {
                    for child in children {
                        self.unfold(child, depth + 1, lines);
                    }
                }
            }
        }
    }

    fn select(&mut self, place: usize) {
        self.place = place.min(self.len().saturating_sub(1));
        self.selected = self.selection().map(|entry| entry.key());
    }
}

impl Entry<'_> {
    /// What makes it the same from one second to the next.
    #[must_use]
    pub fn key(&self) -> Key {
        match self {
            Self::Process(row) => Key::Process(row.id()),
            Self::Group(group, _) => Key::Group(group.key.clone()),
        }
    }

    /// Whether it is that one.
    #[must_use]
    pub fn is(&self, key: &Key) -> bool {
        match (self, key) {
            (Self::Process(row), Key::Process(id)) => row.id() == *id,
            (Self::Group(group, _), Key::Group(key)) => group.key == *key,
            _ => false,
        }
    }
}

fn keys_of(node: &Node, keys: &mut HashSet<GroupKey>) {
    if let Node::Group(group, children) = node {
        keys.insert(group.key.clone());
        for child in children {
            keys_of(child, keys);
        }
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
mod tests;
