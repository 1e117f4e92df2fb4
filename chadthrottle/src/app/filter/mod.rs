//! What rows have to match to be shown: words, and expressions on fields.
//!
//! ```text
//! curl                     somewhere in name, pid, user or unit
//! user:root name=nginx     one after the other: both
//! down>1M or limited       comparisons and properties; and, or, not, brackets
//! name~^web-[0-9]+$        a regular expression; ~text looks in all names
//! ```

mod parse;

use std::cmp::Ordering;

use regex_lite::Regex;

pub use self::parse::FilterError;
use super::{row::Row, unit::unit};
use crate::stats::Traffic;

/// Something that a row has in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Words {
    /// Name, pid, user or unit.
    Any,
    Name,
    Pid,
    User,
    Unit,
    Exe,
    Cgroup,
}

/// Something that a row has in figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Up,
    Down,
    Rate,
    Sent,
    Received,
    Total,
    Limit,
    Dropped,
    HeldBack,
}

/// Something that a row is or is not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Property {
    Limited,
    Blocked,
    Ended,
    Idle,
}

/// How a text is compared.
#[derive(Clone, Debug)]
enum Pattern {
    /// Has this in it, in lower case.
    Contains(String),
    /// Is this, in lower case.
    Equals(String),
    Matches(Regex),
}

/// How a figure is compared.
#[derive(Clone, Copy, Debug)]
struct Comparison {
    wanted: Ordering,
    or_equal: bool,
    bound: u64,
}

/// What a row has to be.
#[derive(Clone, Debug)]
enum Condition {
    Text(Words, Pattern),
    Figure(Figure, Comparison),
    Is(Property),
    Not(Box<Condition>),
    All(Vec<Condition>),
    Any(Vec<Condition>),
}

/// A filter as typed, and what it means.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    text: String,
    /// The last text that was a filter.
    in_force: String,
    /// Nothing where everything passes.
    condition: Option<Condition>,
    error: Option<FilterError>,
}

impl Filter {
    /// What was typed.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What was typed last that is a filter.
    #[must_use]
    pub fn in_force(&self) -> &str {
        &self.in_force
    }

    /// Why it is no filter, where it is none. Then what was one before is still in force.
    #[must_use]
    pub const fn error(&self) -> Option<&FilterError> {
        self.error.as_ref()
    }

    /// Takes in what is typed now.
    pub fn retype(&mut self, text: String) {
        match parse::condition(&text) {
            Ok(condition) => {
                (self.condition, self.error) = (condition, None);
                self.in_force.clone_from(&text);
            }
            Err(error) => self.error = Some(error),
        }
        self.text = text;
    }

    /// Whether everything passes.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.condition.is_none()
    }

    /// Whether a row passes.
    #[must_use]
    pub fn passes(&self, row: &Row) -> bool {
        self.condition.as_ref().is_none_or(|condition| condition.holds(row))
    }
}

impl Condition {
    fn holds(&self, row: &Row) -> bool {
        match self {
            Self::Text(words, pattern) => words.any(row, &|text: &str| pattern.fits(text)),
            Self::Figure(figure, comparison) => figure.of(row).is_some_and(|figure| comparison.holds(figure)),
            Self::Is(property) => property.holds(row),
            Self::Not(condition) => !condition.holds(row),
            Self::All(conditions) => conditions.iter().all(|condition| condition.holds(row)),
            Self::Any(conditions) => conditions.iter().any(|condition| condition.holds(row)),
        }
    }
}

impl Words {
    const ALL: [(&'static str, Self); 7] = [
        ("any", Self::Any),
        ("name", Self::Name),
        ("pid", Self::Pid),
        ("user", Self::User),
        ("unit", Self::Unit),
        ("exe", Self::Exe),
        ("cgroup", Self::Cgroup),
    ];

    fn any(self, row: &Row, fits: &dyn Fn(&str) -> bool) -> bool {
        let info = &row.info;
        let cgroup = info.cgroup.as_deref();
        match self {
            Self::Name => fits(&info.name),
            Self::Pid => fits(&info.id.pid.to_string()),
            Self::User => info.user.as_deref().is_some_and(fits),
            Self::Unit => unit(info).is_some_and(|unit| fits(&unit)),
            Self::Exe => info.exe.as_ref().is_some_and(|exe| fits(&exe.to_string_lossy())),
            Self::Cgroup => cgroup.is_some_and(fits),
            Self::Any => {
                [Self::Name, Self::Pid, Self::User, Self::Unit].iter().any(|words| words.any(row, fits))
            }
        }
    }
}

impl Pattern {
    fn fits(&self, text: &str) -> bool {
        match self {
            Self::Contains(needle) => text.to_lowercase().contains(needle),
            Self::Equals(wanted) => text.to_lowercase() == *wanted,
            Self::Matches(regex) => regex.is_match(text),
        }
    }
}

impl Figure {
    const ALL: [(&'static str, Self); 9] = [
        ("up", Self::Up),
        ("down", Self::Down),
        ("rate", Self::Rate),
        ("sent", Self::Sent),
        ("received", Self::Received),
        ("total", Self::Total),
        ("limit", Self::Limit),
        ("dropped", Self::Dropped),
        ("held", Self::HeldBack),
    ];

    /// None where the row has no such figure.
    fn of(self, row: &Row) -> Option<u64> {
        let Traffic { upload, download } = row.rate;
        Some(match self {
            Self::Up => upload,
            Self::Down => download,
            Self::Rate => row.rate.sum(),
            Self::Sent => row.total.upload,
            Self::Received => row.total.download,
            Self::Total => row.total.sum(),
            // The tighter one.
            Self::Limit => return [row.limits.upload, row.limits.download].into_iter().flatten().min(),
            Self::Dropped => row.dropped(),
            Self::HeldBack => return row.held_back,
        })
    }
}

impl Comparison {
    fn holds(self, figure: u64) -> bool {
        let order = figure.cmp(&self.bound);
        order == self.wanted || self.or_equal && order == Ordering::Equal
    }
}

impl Property {
    const ALL: [(&'static str, Self); 4] = [
        ("limited", Self::Limited),
        ("blocked", Self::Blocked),
        ("ended", Self::Ended),
        ("idle", Self::Idle),
    ];

    fn holds(self, row: &Row) -> bool {
        match self {
            Self::Limited => !row.limits.is_empty(),
            Self::Blocked => row.limits.upload == Some(0) || row.limits.download == Some(0),
            Self::Ended => !row.alive,
            Self::Idle => row.rate.sum() == 0,
        }
    }
}
