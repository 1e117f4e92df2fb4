//! What was used, by minute, hour and day.
//!
//! The [`Recorder`](recorder::Recorder) turns totals into amounts and is pure; the [`Store`](store::Store) keeps them in
//! `SQLite`. Every amount is written to all three steps at once, so that they agree to the byte, and each is kept for as long as
//! it is worth it.

pub mod recorder;
pub mod store;
mod writer;

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use nix::unistd::Uid;

pub use self::writer::Writer;

/// What is added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// By program file, or by name where no file is known.
    Program,
    /// By unit or container.
    Unit,
    /// By user.
    User,
    /// By interface: its own counters, with link-layer headers.
    Interface,
}

/// How finely time is divided. In UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub enum Step {
    /// Kept for two days.
    Minute,
    /// Kept for sixty.
    Hour,
    /// Kept for five years.
    Day,
}

impl Step {
    /// The finest first.
    pub const ALL: [Self; 3] = [Self::Minute, Self::Hour, Self::Day];

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
        }
    }

    /// For how long it is kept, in seconds.
    #[must_use]
    pub const fn kept(self) -> i64 {
        const DAY: i64 = 86_400;
        match self {
            Self::Minute => 2 * DAY,
            Self::Hour => 60 * DAY,
            Self::Day => 5 * 365 * DAY,
        }
    }

    /// When the step began that a time is in. In seconds since 1970, as everything here.
    #[must_use]
    pub const fn start(self, time: i64) -> i64 {
        time.div_euclid(self.seconds()) * self.seconds()
    }

    /// The finest step that is kept since a time.
    #[must_use]
    pub fn since(time: i64, now: i64) -> Self {
        let reaches = |step: &Self| step.start(now) - step.kept() <= step.start(time);
        Self::ALL.into_iter().find(reaches).unwrap_or(Self::Day)
    }
}

/// Where the history is kept by default: root's for the host, everybody else's for themselves.
#[must_use]
pub fn usual_path() -> Option<PathBuf> {
    if Uid::effective().is_root() {
        return Some(PathBuf::from("/var/lib/chadthrottle/history.db"));
    }
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let base = directory("XDG_STATE_HOME").or_else(|| Some(directory("HOME")?.join(".local/state")))?;
    Some(base.join(Path::new("chadthrottle/history.db")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_finest_step_that_is_kept_is_taken() {
        let now = 1_000_000_000;
        assert_eq!(Step::since(now - 3600, now), Step::Minute);
        assert_eq!(Step::since(now - 2 * 86_400, now), Step::Minute);
        assert_eq!(Step::since(now - 3 * 86_400, now), Step::Hour);
        assert_eq!(Step::since(now - 100 * 86_400, now), Step::Day);
        assert_eq!(Step::since(0, now), Step::Day);
    }

    proptest! {
        #[test]
        fn a_time_is_in_its_step(time in -10_000_000_000..10_000_000_000_i64) {
            for step in Step::ALL {
                let start = step.start(time);
                prop_assert!(start <= time && time < start + step.seconds() && step.start(start) == start);
            }
        }
    }
}
