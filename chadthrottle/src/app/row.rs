//! One process as the table shows it: what the monitor saw and what the limits did.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use chadthrottle_common::ThrottleStats;

use crate::{
    backends::throttle::{
        Target,
        manager::{LimitedTarget, Limits},
    },
    process::{ProcessId, ProcessInfo},
    stats::{ProcessRow, Traffic},
};

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub info: Arc<ProcessInfo>,
    /// Bytes a second.
    pub rate: Traffic,
    /// Bytes since the monitor started.
    pub total: Traffic,
    /// Whether it still runs.
    pub alive: bool,
    /// The limits in force.
    pub limits: Limits,
    /// What the upload limit did.
    pub upload_stats: ThrottleStats,
    /// What the download limit did.
    pub download_stats: ThrottleStats,
    target: Target,
}

impl Row {
    /// Every process that was seen, and every one that is limited whether seen or not.
    #[must_use]
    pub fn merge(seen: &[ProcessRow], limited: &[LimitedTarget]) -> Vec<Self> {
        let by_process =
            limited.iter().filter_map(|limited| Some((limited.target.subject.process()?, limited)));
        let mut limited: BTreeMap<ProcessId, &LimitedTarget> = by_process.collect();
        let mut rows: Vec<Self> =
            seen.iter().map(|row| Self::new(row, limited.remove(&row.info.id))).collect();
        rows.extend(limited.into_iter().map(|(id, limited)| Self::new(&unseen(id, limited), Some(limited))));
        rows
    }

    fn new(seen: &ProcessRow, limited: Option<&LimitedTarget>) -> Self {
        Self {
            info: Arc::clone(&seen.info),
            rate: seen.rate,
            total: seen.total,
            alive: seen.alive,
            limits: limited.map(|limited| limited.limits).unwrap_or_default(),
            upload_stats: limited.map(|limited| limited.upload_stats).unwrap_or_default(),
            download_stats: limited.map(|limited| limited.download_stats).unwrap_or_default(),
            target: limited.map_or_else(
                || Target::process(seen.info.id, seen.info.name.clone()),
                |limited| limited.target.clone(),
            ),
        }
    }

    /// Who.
    #[must_use]
    pub fn id(&self) -> ProcessId {
        self.info.id
    }

    /// IP bytes dropped to hold its limits.
    #[must_use]
    pub const fn dropped(&self) -> u64 {
        self.upload_stats.bytes_dropped.saturating_add(self.download_stats.bytes_dropped)
    }

    /// Itself as something to limit, as far as its present limit goes.
    #[must_use]
    pub fn target(&self) -> Target {
        Target { name: self.info.name.clone(), ..self.target.clone() }
    }

    /// Whether a person who looks for `needle` (in lower case) means this one.
    #[must_use]
    pub fn matches(&self, needle: &str) -> bool {
        let contains = |text: &str| text.to_lowercase().contains(needle);
        contains(&self.info.name)
            || self.id().pid.to_string().contains(needle)
            || self.info.user.as_deref().is_some_and(contains)
    }
}

/// A limited process that has not used the network since the monitor started.
fn unseen(id: ProcessId, limited: &LimitedTarget) -> ProcessRow {
    let name = limited.target.name.clone();
    let info = ProcessInfo { id, name, exe: None, user: None, cgroup: None };
    ProcessRow::new(Arc::new(info), Traffic::default(), Traffic::default(), limited.alive)
}

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
}

impl SortColumn {
    const ALL: [Self; 11] = [
        Self::Busiest,
        Self::Name,
        Self::Pid,
        Self::User,
        Self::UploadRate,
        Self::DownloadRate,
        Self::UploadTotal,
        Self::DownloadTotal,
        Self::UploadLimit,
        Self::DownloadLimit,
        Self::Dropped,
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
            Self::UploadTotal => "upload total",
            Self::DownloadTotal => "download total",
            Self::UploadLimit => "upload limit",
            Self::DownloadLimit => "download limit",
            Self::Dropped => "dropped bytes",
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

    /// Which of two rows stands above the other. Never equal for two processes: rows that tie must not change
    /// places from one second to the next.
    #[must_use]
    pub fn compare(self, a: &Row, b: &Row) -> Ordering {
        let order = match self.column {
            SortColumn::Busiest => busyness(a).cmp(&busyness(b)),
            SortColumn::Name => by_letters(&a.info.name, &b.info.name),
            SortColumn::Pid => a.id().cmp(&b.id()),
            // Nobody knows whose these are: after everyone else.
            SortColumn::User => match (&a.info.user, &b.info.user) {
                (Some(a), Some(b)) => by_letters(a, b),
                (a, b) => b.is_some().cmp(&a.is_some()),
            },
            SortColumn::UploadRate => a.rate.upload.cmp(&b.rate.upload),
            SortColumn::DownloadRate => a.rate.download.cmp(&b.rate.download),
            SortColumn::UploadTotal => a.total.upload.cmp(&b.total.upload),
            SortColumn::DownloadTotal => a.total.download.cmp(&b.total.download),
            SortColumn::UploadLimit => a.limits.upload.cmp(&b.limits.upload),
            SortColumn::DownloadLimit => a.limits.download.cmp(&b.limits.download),
            SortColumn::Dropped => a.dropped().cmp(&b.dropped()),
        };
        let order = if self.ascends() { order } else { order.reverse() };
        order.then_with(|| busyness(b).cmp(&busyness(a))).then_with(|| a.id().cmp(&b.id()))
    }
}

const fn busyness(row: &Row) -> (u64, u64) {
    (row.rate.sum(), row.total.sum())
}

/// Alphabetical, capitals among small letters.
fn by_letters(a: &str, b: &str) -> Ordering {
    let fold = |text: &'_ str| text.bytes().map(|byte| byte.to_ascii_lowercase()).collect::<Vec<u8>>();
    fold(a).cmp(&fold(b))
}
