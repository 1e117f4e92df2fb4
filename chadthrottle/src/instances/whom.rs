//! Whom a limit is for and for which traffic, as notes and the daemon's socket say it.

use serde::{Deserialize, Serialize};

use crate::{
    backends::throttle::{Subject, TrafficType},
    process::ProcessId,
};

/// Whom a limit is for, in a note.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Whom {
    /// One process.
    Process {
        /// Its pid.
        pid: i32,
        /// When it began, in clock ticks since boot.
        start_time: u64,
    },
    /// One process with what it starts.
    Descendants {
        /// Its pid.
        pid: i32,
        /// When it began, in clock ticks since boot.
        start_time: u64,
    },
    /// Everybody who executes a file.
    Program {
        /// Its path; what is not UTF-8 is replaced.
        path: String,
    },
    /// Everybody in a cgroup.
    Cgroup {
        /// Its path in the tree.
        path: String,
    },
    /// Everybody of a user.
    User {
        /// The user's number.
        uid: u32,
    },
}

/// Which traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Traffic {
    /// To and from anywhere.
    All,
    /// To and from the internet.
    Internet,
    /// To and from this host's own networks.
    Local,
}

impl From<&Subject> for Whom {
    fn from(subject: &Subject) -> Self {
        match subject {
            Subject::Process(ProcessId { pid, start_time }) => {
                Self::Process { pid: *pid, start_time: *start_time }
            }
            Subject::Descendants(ProcessId { pid, start_time }) => {
                Self::Descendants { pid: *pid, start_time: *start_time }
            }
            Subject::Program(path) => Self::Program { path: path.display().to_string() },
            Subject::Cgroup(path) => Self::Cgroup { path: path.clone() },
            Subject::User(uid) => Self::User { uid: *uid },
        }
    }
}

impl From<Whom> for Subject {
    fn from(whom: Whom) -> Self {
        match whom {
            Whom::Process { pid, start_time } => Self::Process(ProcessId { pid, start_time }),
            Whom::Descendants { pid, start_time } => Self::Descendants(ProcessId { pid, start_time }),
            Whom::Program { path } => Self::Program(path.into()),
            Whom::Cgroup { path } => Self::Cgroup(path),
            Whom::User { uid } => Self::User(uid),
        }
    }
}

impl Whom {
    pub(super) const fn is_by_pid(&self) -> bool {
        matches!(self, Self::Process { .. } | Self::Descendants { .. })
    }
}

impl From<TrafficType> for Traffic {
    fn from(traffic: TrafficType) -> Self {
        match traffic {
            TrafficType::All => Self::All,
            TrafficType::Internet => Self::Internet,
            TrafficType::Local => Self::Local,
        }
    }
}

impl From<Traffic> for TrafficType {
    fn from(traffic: Traffic) -> Self {
        match traffic {
            Traffic::All => Self::All,
            Traffic::Internet => Self::Internet,
            Traffic::Local => Self::Local,
        }
    }
}

impl Traffic {
    /// Whether there is traffic that is of both.
    pub(super) const fn meets(self, other: Self) -> bool {
        !matches!((self, other), (Self::Internet, Self::Local) | (Self::Local, Self::Internet))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_traffic_meets_any() {
        assert!(Traffic::All.meets(Traffic::Local) && Traffic::Internet.meets(Traffic::All));
        assert!(Traffic::Local.meets(Traffic::Local) && !Traffic::Local.meets(Traffic::Internet));
    }
}
