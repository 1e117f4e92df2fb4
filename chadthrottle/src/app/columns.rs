//! Which columns a window has room for, and where they stand. The drawing needs it, and whoever clicks on a heading.

use super::{chooser::Hidden, sort::SortColumn, units::Units};

/// Before the first column: the mark of the selected row.
pub const MARK: usize = 2;

/// What a column tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    /// Its name, or that of a group.
    Name,
    /// Its pid, or how many it is.
    Pid,
    /// Its user.
    User,
    /// What its rate was lately.
    Lately,
    /// What it sends.
    UploadRate,
    /// What it receives.
    DownloadRate,
    /// What it sent and received.
    Total,
    /// What it sent.
    UploadTotal,
    /// What it received.
    DownloadTotal,
    /// The limit on what it sends.
    UploadLimit,
    /// The limit on what it receives.
    DownloadLimit,
    /// What its limits threw away.
    Dropped,
    /// What waits for its upload limit.
    HeldBack,
    /// Who holds its limits.
    Backend,
    /// Its unit or container.
    Unit,
    /// Its executable.
    Exe,
}

/// How a column is laid out.
#[derive(Clone, Copy, Debug)]
pub struct Spec {
    /// What it tells.
    pub column: Column,
    /// Columns with the same rank come and go together; the lowest rank stays longest.
    rank: u8,
    /// Spaces before it.
    pub gap: usize,
    smallest: usize,
    largest: usize,
    /// What stands above it.
    pub heading: &'static str,
    /// What a click on that sorts by.
    pub sort: Option<SortColumn>,
    /// A column that says the same in less room, and makes way for this one.
    replaces: Option<Column>,
}

impl Spec {
    const fn new(column: Column, rank: u8, gap: usize, sizes: (usize, usize), heading: &'static str) -> Self {
        let (smallest, largest) = sizes;
        Self { column, rank, gap, smallest, largest, heading, sort: None, replaces: None }
    }

    const fn sort(self, sort: SortColumn) -> Self {
        Self { sort: Some(sort), ..self }
    }

    const fn replaces(self, column: Column) -> Self {
        Self { replaces: Some(column), ..self }
    }

    /// Whether it is a number.
    #[must_use]
    pub const fn is_flush_right(&self) -> bool {
        !matches!(
            self.column,
            Column::Name | Column::User | Column::Lately | Column::Backend | Column::Unit | Column::Exe
        )
    }
}

/// From left to right.
fn specs(units: Units) -> [Spec; 16] {
    use SortColumn as By;
    let number = |column, rank, gap, heading, sort| {
        Spec::new(column, rank, gap, (units.width(), units.width()), heading).sort(sort)
    };
    [
        Spec::new(Column::Name, 0, 0, (12, 24), "PROCESS").sort(By::Name),
        // 4194304, the largest that the kernel gives out, has 7 digits.
        Spec::new(Column::Pid, 3, 1, (7, 7), "PID").sort(By::Pid),
        Spec::new(Column::User, 5, 1, (8, 16), "USER").sort(By::User),
        Spec::new(Column::Lately, 4, 1, (6, 20), "LATELY"),
        number(Column::UploadRate, 1, 2, "UP", By::UploadRate),
        number(Column::DownloadRate, 1, 1, "DOWN", By::DownloadRate),
        number(Column::Total, 6, 2, "TOTAL", By::Total),
        number(Column::UploadTotal, 11, 2, "UP", By::UploadTotal).replaces(Column::Total),
        number(Column::DownloadTotal, 11, 1, "DOWN", By::DownloadTotal),
        number(Column::UploadLimit, 2, 2, "UP", By::UploadLimit),
        number(Column::DownloadLimit, 2, 1, "DOWN", By::DownloadLimit),
        number(Column::Dropped, 7, 2, "BYTES", By::Dropped),
        number(Column::HeldBack, 8, 2, "BACK", By::HeldBack),
        Spec::new(Column::Backend, 9, 2, (11, 23), "HELD BY"),
        Spec::new(Column::Unit, 10, 2, (18, 36), "UNIT"),
        Spec::new(Column::Exe, 12, 2, (18, 64), "EXECUTABLE"),
    ]
}

/// A column on the screen.
#[derive(Clone, Copy, Debug)]
pub struct Placed {
    /// How it is laid out.
    pub spec: Spec,
    /// Where it begins.
    pub x: usize,
    /// How wide it is.
    pub width: usize,
}

/// The columns that a window has room for, but those that nobody wants to see.
#[must_use]
pub fn columns(room: usize, units: Units, hidden: Hidden) -> Vec<Placed> {
    let specs = specs(units);
    let mut left = room.saturating_sub(MARK);
    let mut chosen = [false; 16];
    let ranks = specs.iter().map(|spec| spec.rank).max().unwrap_or_default();
    let place_of = |column| specs.iter().position(|spec| spec.column == column);
    for rank in 0..=ranks {
        let is_wanted = |spec: &Spec| spec.rank == rank && !hidden.hides(spec.column);
        let of_rank = || specs.iter().enumerate().filter(|(_, spec)| is_wanted(spec));
        let wanted: usize = of_rank().map(|(_, spec)| spec.gap + spec.smallest).sum();
        let replaced =
            of_rank().filter_map(|(_, spec)| place_of(spec.replaces?)).find(|&place| chosen[place]);
        let freed = replaced.map_or(0, |place| specs[place].gap + specs[place].smallest);
        // What matters less must not stand where something that matters more had no room.
        let Some(rest) = (left + freed).checked_sub(wanted) else { break };
        left = rest;
        of_rank().for_each(|(place, _)| chosen[place] = true);
        if let Some(place) = replaced {
            chosen[place] = false;
        }
    }
    let mut x = MARK;
    let mut placed = Vec::new();
    for (spec, _) in specs.into_iter().zip(chosen).filter(|(_, chosen)| *chosen) {
        let more = left.min(spec.largest - spec.smallest);
        left -= more;
        let width = spec.smallest + more;
        placed.push(Placed { spec, x: x + spec.gap, width });
        x += spec.gap + width;
    }
    placed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::app::chooser::Part;

    const ALL_UNITS: [Units; 2] = [Units { bits: false, binary: false }, Units { bits: true, binary: true }];

    #[test]
    fn columns_never_take_more_than_there_is() {
        for units in ALL_UNITS {
            for room in 14..300 {
                let last = columns(room, units, Hidden::default())
                    .last()
                    .map_or(0, |column| column.x + column.width);
                assert!(last <= room, "{last} of {room}");
            }
        }
    }

    #[test]
    fn what_is_hidden_makes_room_for_others() {
        let hidden = Hidden::from_iter([Part::User, Part::Lately, Part::Totals]);
        let shown: Vec<Column> =
            columns(80, Units::default(), hidden).iter().map(|placed| placed.spec.column).collect();
        assert!(shown.contains(&Column::Backend) && shown.contains(&Column::HeldBack), "{shown:?}");
        assert!(!shown.contains(&Column::User) && !shown.contains(&Column::Total), "{shown:?}");
        let all = columns(80, Units::default(), Part::ALL.into_iter().collect());
        assert_eq!(all.len(), 1, "names stay");
    }

    #[test]
    fn wider_windows_have_no_fewer_columns_of_the_first_ranks() {
        let has = |room, column| {
            columns(room, Units::default(), Hidden::default())
                .iter()
                .any(|placed| placed.spec.column == column)
        };
        for (column, from) in [
            (Column::UploadRate, 27),
            (Column::UploadLimit, 40),
            (Column::Pid, 48),
            (Column::Lately, 55),
            (Column::User, 64),
            (Column::Dropped, 78),
            (Column::HeldBack, 85),
            (Column::Backend, 98),
            (Column::Unit, 118),
            (Column::UploadTotal, 124),
            (Column::Exe, 144),
        ] {
            for room in from..from + 100 {
                assert!(has(room, column), "{column:?} at {room}");
            }
        }
        assert!((71..124).all(|room| has(room, Column::Total)));
        assert!((124..300).all(|room| !has(room, Column::Total)), "told by two columns");
    }
}
