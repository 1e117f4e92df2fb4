//! What was used, by minute, hour and day.
//!
//! The [`Recorder`](recorder::Recorder) turns totals into amounts and is pure; the [`Store`](store::Store) keeps them in
//! `SQLite`. Every amount is written to all three steps at once, so that they agree to the byte, and each is kept for as long as
//! it is worth it.

pub mod past;
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
    /// Four weeks, kept as long: a year has thirteen of them. Only what is asked for in one sum is read from these.
    #[value(skip)]
    FourWeeks,
}

impl By {
    /// In the order in which they are gone through.
    pub const ALL: [Self; 4] = [Self::Program, Self::Unit, Self::User, Self::Interface];

    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Program => "program",
            Self::Unit => "unit",
            Self::User => "user",
            Self::Interface => "interface",
        }
    }

    /// The next one; the first after the last.
    #[must_use]
    pub fn next(self) -> Self {
        Self::ALL.into_iter().skip_while(|by| *by != self).nth(1).unwrap_or(Self::Program)
    }
}

impl Step {
    /// The finest first.
    pub const ALL: [Self; 4] = [Self::Minute, Self::Hour, Self::Day, Self::FourWeeks];

    /// In seconds.
    #[must_use]
    pub const fn seconds(self) -> i64 {
        match self {
            Self::Minute => 60,
            Self::Hour => 3600,
            Self::Day => 86_400,
            Self::FourWeeks => 28 * 86_400,
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
            // One more: the first days of one that is not over go while the others stay.
            Self::FourWeeks => (5 * 365 + 28) * DAY,
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
        [Self::Minute, Self::Hour].into_iter().find(reaches).unwrap_or(Self::Day)
    }

    /// Spans of steps up to the coarsest that together are all time since `time`, in as few rows as there are: the finest
    /// step up to the next whole coarser one, and so on. From the first number on, up to before the second.
    #[must_use]
    pub fn spans(time: i64, now: i64, coarsest: Self) -> Vec<(Self, i64, i64)> {
        let finest = Self::since(time, now);
        let mut from = finest.start(time);
        let mut spans = Vec::new();
        let steps: Vec<Self> =
            Self::ALL.into_iter().filter(|step| (finest..=coarsest).contains(step)).collect();
        for (index, &step) in steps.iter().enumerate() {
            let to =
                steps.get(index + 1).map_or(i64::MAX, |coarser| coarser.start(from + coarser.seconds() - 1));
            if from < to {
                spans.push((step, from, to));
            }
            from = to;
        }
        spans
    }
}

/// Where root's is kept by default, and the daemon's.
pub const SYSTEM: &str = "/var/lib/chadthrottle/history.db";

/// Where the history is kept by default: root's for the host, everybody else's for themselves.
#[must_use]
pub fn usual_path() -> Option<PathBuf> {
    if Uid::effective().is_root() {
        return Some(PathBuf::from(SYSTEM));
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

        #[test]
        fn spans_follow_each_other_in_whole_steps(
            now in 0..10_000_000_000_i64,
            ago in 0..200_000_000_i64,
            is_old: bool,
        ) {
            let since = now - ago;
            let coarsest = if is_old { Step::Day } else { Step::FourWeeks };
            let spans = Step::spans(since, now, coarsest);
            let finest = Step::since(since, now);
            prop_assert_eq!(spans[0].1, finest.start(since));
            prop_assert_eq!(spans[spans.len() - 1].2, i64::MAX);
            for pair in spans.windows(2) {
                prop_assert_eq!(pair[0].2, pair[1].1, "no gap, and nothing twice");
                prop_assert!(pair[0].0 < pair[1].0);
            }
            for (step, from, to) in spans {
                prop_assert!(step >= finest && step <= coarsest && from < to && step.start(from) == from);
                let next = Step::ALL.into_iter().find(|next| *next > step && *next <= coarsest);
                prop_assert!(next.is_none_or(|next| to - from < next.seconds()), "coarser as soon as that can be");
            }
        }
    }
}
