//! One process as the table shows it: what the monitor saw and what the limits did.

use std::{collections::BTreeMap, sync::Arc};

use chadthrottle_common::ThrottleStats;

use crate::{
    backends::throttle::{
        Subject, Target, TrafficType,
        manager::{LimitedTarget, Limits},
    },
    process::{ProcessId, ProcessInfo},
    stats::{ProcessRow, Traffic},
};

impl TrafficType {
    /// The next one, and the first after the last.
    #[must_use]
    pub const fn next(self) -> Self {
        match self {
            Self::All => Self::Internet,
            Self::Internet => Self::Local,
            Self::Local => Self::All,
        }
    }

    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Internet => "internet",
            Self::Local => "local",
        }
    }

    /// This kind's part. Of what the monitor does not tell apart, all of it is all, and none is local.
    #[must_use]
    pub fn part(self, all: Traffic, local: Option<Traffic>) -> Traffic {
        match self {
            Self::All => all,
            Self::Internet => all.since(local.unwrap_or_default()),
            Self::Local => local.unwrap_or_default(),
        }
    }
}

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Who.
    pub info: Arc<ProcessInfo>,
    /// Bytes a second, of the kind of traffic that is shown.
    pub rate: Traffic,
    /// Bytes since the monitor started, likewise.
    pub total: Traffic,
    /// Whether it still runs.
    pub alive: bool,
    /// The limits that hold it.
    pub limits: Limits,
    /// Whether it shares them with others: with its program, unit or user.
    pub is_shared: bool,
    /// What the upload limit did.
    pub upload_stats: ThrottleStats,
    /// What the download limit did.
    pub download_stats: ThrottleStats,
    /// Bytes that wait for its upload limit, where that is known.
    pub held_back: Option<u64>,
    /// Whom the limit that holds it is for.
    held: Option<Target>,
}

impl Row {
    /// Every process that was seen, and every one that is limited whether seen or not.
    #[must_use]
    pub fn merge(seen: &[ProcessRow], limited: &[LimitedTarget], kind: TrafficType) -> Vec<Self> {
        let mut own: BTreeMap<ProcessId, &LimitedTarget> = BTreeMap::new();
        let mut shared: Vec<&LimitedTarget> = Vec::new();
        for limited in limited {
            match limited.target.subject.process() {
                // Of two for one process, the more specific one holds it.
                Some(id) => {
                    let held = own.entry(id).or_insert(limited);
                    if limited.target.subject < held.target.subject {
                        *held = limited;
                    }
                }
                None => shared.push(limited),
            }
        }
        shared.sort_by(|a, b| a.target.subject.cmp(&b.target.subject));
        let mut rows: Vec<Self> =
            seen.iter().map(|row| Self::new(row, own.remove(&row.info.id), &shared, kind)).collect();
        let unseen =
            own.into_iter().map(|(id, limited)| Self::new(&unseen(id, limited), Some(limited), &[], kind));
        rows.extend(unseen);
        rows
    }

    fn new(
        seen: &ProcessRow,
        own: Option<&LimitedTarget>,
        shared: &[&LimitedTarget],
        kind: TrafficType,
    ) -> Self {
        let held = own.or_else(|| shared.iter().copied().find(|limited| covers(&limited.target, &seen.info)));
        Self {
            info: Arc::clone(&seen.info),
            rate: kind.part(seen.rate, seen.local_rate),
            total: kind.part(seen.total, seen.local),
            alive: seen.alive,
            limits: held.map(|limited| limited.limits).unwrap_or_default(),
            is_shared: own.is_none() && held.is_some(),
            // What was dropped of all who share it is nobody's own.
            upload_stats: own.map(|limited| limited.upload_stats).unwrap_or_default(),
            download_stats: own.map(|limited| limited.download_stats).unwrap_or_default(),
            held_back: own.and_then(|limited| limited.held_back),
            held: held.map(|limited| limited.target.clone()),
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

    /// Itself as something to limit, as far as its present limit goes; where it shares one, whom that is for.
    #[must_use]
    pub fn target(&self) -> Target {
        self.held.clone().unwrap_or_else(|| Target::process(self.id(), self.info.name.clone()))
    }
}

/// Whether a limit that is not named for a process covers this one.
fn covers(target: &Target, info: &ProcessInfo) -> bool {
    match &target.subject {
        Subject::Process(id) | Subject::Descendants(id) => info.id == *id,
        Subject::Program(path) => info.exe.as_ref() == Some(path),
        Subject::Cgroup(path) => info.cgroup.as_deref().is_some_and(|cgroup| is_within(cgroup, path)),
        // A user's limit is called by the user's name.
        Subject::User(uid) => {
            info.user.as_ref().is_some_and(|user| *user == target.name || *user == uid.to_string())
        }
    }
}

/// Whether a cgroup is another one or below it.
pub(super) fn is_within(cgroup: &str, other: &str) -> bool {
    let rest = cgroup.strip_prefix(other.trim_end_matches('/'));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A limited process that has not used the network since the monitor started.
fn unseen(id: ProcessId, limited: &LimitedTarget) -> ProcessRow {
    let name = limited.target.name.clone();
    let info = ProcessInfo { id, name, exe: None, user: None, cgroup: None, container: None };
    ProcessRow::new(Arc::new(info), Traffic::default(), Traffic::default(), limited.alive)
}
