//! Whom a limit covers, and which of its traffic.

use std::{fmt, path::PathBuf};

use chadthrottle_common::{TRAFFIC_TYPE_ALL, TRAFFIC_TYPE_INTERNET, TRAFFIC_TYPE_LOCAL};

use crate::process::ProcessId;

/// Whom a limit covers. However many processes and sockets that are, they share it: one subject, one cap a direction.
///
/// A process is held by one limit alone, the one whose subject is the most specific. The variants are in that order.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subject {
    /// A process with all its threads.
    Process(ProcessId),
    /// A process with everything that it has started and will start.
    Descendants(ProcessId),
    /// Every process that executes this file, now or later.
    Program(PathBuf),
    /// Every process in this cgroup or below it, now or later, and with it every process of a systemd unit or a
    /// container: a path in the cgroup v2 tree, as in /proc/PID/cgroup.
    Cgroup(String),
    /// Every process of this user, now or later: a user id.
    User(u32),
}

impl Subject {
    /// The process that it is named for, where it is named for one.
    #[must_use]
    pub const fn process(&self) -> Option<ProcessId> {
        match self {
            Self::Process(id) | Self::Descendants(id) => Some(*id),
            Self::Program(_) | Self::Cgroup(_) | Self::User(_) => None,
        }
    }

    /// Whether it can ever apply to anybody again: a process that has ended does not come back.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.process().is_none_or(ProcessId::is_alive)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process(id) => write!(f, "{id}"),
            Self::Descendants(id) => write!(f, "{id} with what it starts"),
            Self::Program(path) => write!(f, "every {}", path.display()),
            Self::Cgroup(path) => write!(f, "all in {path}"),
            Self::User(uid) => write!(f, "all of user {uid}"),
        }
    }
}

/// Which traffic a limit is for, by where the peer is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, clap::ValueEnum)]
pub enum TrafficType {
    /// To and from anywhere.
    #[default]
    All,
    /// To and from the internet.
    Internet,
    /// To and from this host's own networks.
    Local,
}

impl TrafficType {
    /// One of the `TRAFFIC_TYPE_…` constants.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::All => TRAFFIC_TYPE_ALL,
            Self::Internet => TRAFFIC_TYPE_INTERNET,
            Self::Local => TRAFFIC_TYPE_LOCAL,
        }
    }
}

/// Whom to limit, and which of its traffic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Whom.
    pub subject: Subject,
    /// What people call it: a command name, a user name, a unit.
    pub name: String,
    /// Which of its traffic, in both directions.
    pub traffic: TrafficType,
}

impl Target {
    /// All traffic of one process.
    #[must_use]
    pub fn process(id: ProcessId, name: impl Into<String>) -> Self {
        Self { subject: Subject::Process(id), name: name.into(), traffic: TrafficType::All }
    }

    /// All traffic of a process and of everything that it starts.
    #[must_use]
    pub fn descendants(id: ProcessId, name: impl Into<String>) -> Self {
        Self { subject: Subject::Descendants(id), name: name.into(), traffic: TrafficType::All }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name, self.subject)
    }
}
