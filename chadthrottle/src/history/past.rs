//! The history as the screen shows it: whose it was in a span of time, and when.

use std::{io, path::PathBuf};

use jiff::{Timestamp, tz::TimeZone};

use super::{
    By, Step,
    store::{HistoryError, Store, Used},
};
use crate::stats::Traffic;

/// How far back it goes: whole steps, the one that it is now included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Span {
    /// Sixty minutes.
    Hour,
    /// Twenty-four hours.
    #[default]
    Day,
    /// Seven times as many.
    Week,
    /// Thirty days.
    Month,
    /// A year of days.
    Year,
}

impl Span {
    /// All of them, the shortest first.
    pub const ALL: [Self; 5] = [Self::Hour, Self::Day, Self::Week, Self::Month, Self::Year];

    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Week => "week",
            Self::Month => "month",
            Self::Year => "year",
        }
    }

    /// How finely it is divided.
    #[must_use]
    pub const fn step(self) -> Step {
        match self {
            Self::Hour => Step::Minute,
            Self::Day | Self::Week => Step::Hour,
            Self::Month | Self::Year => Step::Day,
        }
    }

    /// How many steps it has.
    #[must_use]
    pub const fn steps(self) -> i64 {
        match self {
            Self::Hour => 60,
            Self::Day => 24,
            Self::Week => 7 * 24,
            Self::Month => 30,
            Self::Year => 365,
        }
    }

    /// When the first of its steps began.
    #[must_use]
    pub const fn since(self, now: i64) -> i64 {
        self.step().start(now) - (self.steps() - 1) * self.step().seconds()
    }

    /// The next longer or shorter one, as far as there is one.
    #[must_use]
    pub fn zoomed(self, longer: bool) -> Self {
        let place = Self::ALL.iter().position(|span| *span == self).unwrap_or_default();
        let place = if longer { place + 1 } else { place.saturating_sub(1) };
        Self::ALL.get(place).copied().unwrap_or(self)
    }
}

/// What is to be shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// What is added up.
    pub by: By,
    /// How far back.
    pub span: Span,
    /// Whose amounts are wanted step by step, beside everybody's.
    pub of: Option<String>,
}

/// What was used.
#[derive(Clone, Debug)]
pub struct Past {
    /// When it was read.
    pub now: i64,
    /// Where the clock on the wall hangs.
    pub zone: TimeZone,
    /// By whom.
    pub used: Vec<Used>,
    /// By everybody, step by step, the oldest first.
    pub all: Vec<Traffic>,
    /// By the one that was asked for.
    pub of: Vec<Traffic>,
    /// What is to be known of it.
    pub note: Option<String>,
}

impl Past {
    /// Reads it.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn read(store: &Store, asked: &Asked, now: i64, zone: TimeZone) -> Result<Self, HistoryError> {
        let (step, since) = (asked.span.step(), asked.span.since(now));
        let used = store.used(asked.by, since, now, None)?;
        let count = usize::try_from(asked.span.steps()).unwrap_or_default();
        let (mut all, mut of) = (vec![Traffic::default(); count], vec![Traffic::default(); count]);
        for point in store.series(asked.by, step, since, asked.of.as_deref())? {
            // A clock that was set back leaves amounts of the future, which belong to the last step.
            let place = usize::try_from((point.start - since) / step.seconds()).unwrap_or_default();
            let place = place.min(count.saturating_sub(1));
            if let (Some(all), Some(of)) = (all.get_mut(place), of.get_mut(place)) {
                (*all, *of) = (all.plus(point.all), of.plus(point.of));
            }
        }
        Ok(Self { now, zone, used, all, of, note: None })
    }
}

/// Where the history is, and who records it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    file: Option<PathBuf>,
    /// Why nothing is recorded now.
    off: Option<&'static str>,
}

/// Why we record nothing.
const OFF: &str =
    "nothing is recorded now: history is off in the configuration (enabled = false under [history])";
/// Why the daemon does not.
const DAEMON_OFF: &str = "the daemon records nothing: history is off in its configuration (enabled = false under \
     [history]), or its log says why";

impl Source {
    /// What this process records to `file`, or has recorded to it before.
    #[must_use]
    pub fn own(file: Option<PathBuf>, is_recorded: bool) -> Self {
        Self { file, off: (!is_recorded).then_some(OFF) }
    }

    /// What a daemon records, where it says to which file; where it does not, what it may have recorded before.
    #[must_use]
    pub fn of_daemon(file: Option<&str>, usual: PathBuf) -> Self {
        Self { off: file.is_none().then_some(DAEMON_OFF), file: Some(file.map_or(usual, PathBuf::from)) }
    }

    /// Reads what is asked for. Opens the file each time: it may come later, or become another one.
    ///
    /// # Errors
    /// When there is nothing to read: why, and the way out.
    pub fn look(&self, asked: &Asked, now: Timestamp, zone: TimeZone) -> Result<Past, String> {
        let Some(file) = &self.file else {
            return Err(
                "There is no home to keep a history in: HOME is not set. `path` under [history] in the \
                        configuration is another place."
                    .into(),
            );
        };
        let past = Store::open_to_read(file)
            .and_then(|store| Past::read(&store, asked, now.as_second(), zone))
            .map_err(|error| self.words(&error))?;
        Ok(Past { note: self.off.map(sentence), ..past })
    }

    fn words(&self, error: &HistoryError) -> String {
        match (error, self.off) {
            (HistoryError::Absent(path), Some(off)) => {
                format!("Nothing has been recorded to {}, and {off}.", path.display())
            }
            (HistoryError::Unopened { source, .. }, _)
                if source.kind() == io::ErrorKind::PermissionDenied =>
            {
                sentence(&format!("{error}. A history is readable by its owner alone: sudo shows it"))
            }
            _ => sentence(&error.to_string()),
        }
    }
}

/// With a capital letter, and a full stop.
fn sentence(words: &str) -> String {
    let mut letters = words.chars();
    let first: String = letters.next().into_iter().flat_map(char::to_uppercase).collect();
    format!("{first}{}.", letters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::recorder::{Batch, Who};

    /// In the middle of a minute, an hour and a day.
    const NOW: i64 = 1_800_000_000 - 1_800_000_000 % 86_400 + 40_030;

    fn batch(time: i64, program: &str, upload: u64) -> Batch {
        let who = Who { program: program.into(), unit: "u".into(), user: "ada".into() };
        let usage = [((Step::Minute.start(time), who), Traffic { upload, download: upload * 10 })].into();
        Batch { usage, ..Batch::default() }
    }

    fn asked(span: Span, of: Option<&str>) -> Asked {
        Asked { by: By::Program, span, of: of.map(str::to_owned) }
    }

    #[test]
    fn what_is_drawn_is_what_is_listed() -> anyhow::Result<()> {
        let mut store = Store::in_memory()?;
        for ago in (0..400 * 86_400).step_by(40_000) {
            store.add(&batch(NOW - ago, "/bin/a", 1))?;
            store.add(&batch(NOW - ago, "/bin/b", 5))?;
        }
        for span in Span::ALL {
            let past = Past::read(&store, &asked(span, Some("/bin/b")), NOW, TimeZone::UTC)?;
            let sum = |amounts: &[Traffic]| amounts.iter().copied().fold(Traffic::default(), Traffic::plus);
            let listed: Vec<Traffic> = past.used.iter().map(|used| used.traffic).collect();
            assert_eq!(i64::try_from(past.all.len())?, span.steps());
            assert_eq!(sum(&past.all), sum(&listed), "{span:?}");
            assert_eq!((past.used[0].name.as_str(), sum(&past.of)), ("/bin/b", listed[0]), "{span:?}");
            assert_eq!(past.all.last().map(|last| last.upload > 0), Some(true), "now is in it");
        }
        let nobody = Past::read(&store, &asked(Span::Day, Some("/bin/none")), NOW, TimeZone::UTC)?;
        assert!(nobody.of.iter().all(|amount| *amount == Traffic::default()));
        Ok(())
    }

    #[test]
    fn why_there_is_nothing_is_said_with_the_way_out() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("history.db");
        let now = Timestamp::from_second(NOW)?;
        let look = |source: &Source| source.look(&asked(Span::Day, None), now, TimeZone::UTC);
        let own = |is_recorded| Source::own(Some(file.clone()), is_recorded);
        let said = |source: &Source| look(source).expect_err("there is nothing");
        assert!(said(&own(true)).contains("`chadthrottle daemon` do, while they run"));
        assert!(said(&own(false)).contains("history is off in the configuration"));
        assert!(said(&Source::of_daemon(None, file.clone())).contains("the daemon records nothing"));
        assert!(said(&Source::own(None, true)).contains("HOME is not set"));
        let denied = HistoryError::Unopened {
            path: file.clone(),
            source: io::Error::from(io::ErrorKind::PermissionDenied),
        };
        assert!(own(true).words(&denied).ends_with("sudo shows it."));
        std::fs::write(&file, "no database at all, ".repeat(1000))?;
        assert!(said(&own(true)).contains("move it away"));

        std::fs::remove_file(&file)?;
        Store::open(&file)?.add(&batch(NOW, "/bin/a", 7))?;
        let text = file.to_str().expect("plain");
        let past = look(&Source::of_daemon(Some(text), "/nowhere".into())).expect("it is there");
        assert_eq!((past.used.len(), past.note), (1, None));
        let past = look(&own(false)).expect("what was recorded before is shown");
        assert!(past.note.is_some_and(|note| note.starts_with("Nothing is recorded now")));
        Ok(())
    }
}
