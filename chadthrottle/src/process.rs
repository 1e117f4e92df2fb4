//! Who a process is.
//!
//! Identity is (pid, start time): a pid alone names somebody else once it has been used again.

use std::{collections::HashMap, fmt, path::PathBuf, sync::Arc};

use nix::{
    errno::Errno,
    libc,
    sys::signal::kill,
    unistd::{Pid, Uid, User},
};
use procfs::{ProcError, process::Process};
use serde::Serialize;

use crate::{
    containers::{self, Containers},
    sys::proc_text::{self, Status},
};

/// A process, told apart from every other one since boot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ProcessId {
    /// Thread-group id, as in /proc.
    pub pid: i32,
    /// Start in clock ticks since boot: field 22 of /proc/PID/stat.
    pub start_time: u64,
}

impl fmt::Display for ProcessId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.pid.fmt(f)
    }
}

/// Why a pid could not be turned into a process.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Nobody has that pid (any more).
    #[error("there is no process {0}; `chadthrottle monitor --count 1` lists those that use the network")]
    Absent(i32),
    /// It is a thread of another process.
    #[error("{thread} is a thread of process {process}; limits apply to whole processes, so give {process}")]
    Thread {
        /// What was asked for.
        thread: i32,
        /// The process that it belongs to.
        process: i32,
    },
    /// /proc would not tell.
    #[error("cannot read /proc/{pid}: {source}")]
    Unreadable {
        /// Whose.
        pid: i32,
        /// Why.
        source: ProcError,
    },
}

impl ProcessError {
    /// What it means that /proc would not tell of a process.
    pub(crate) fn of_looking(pid: i32, source: impl Into<ProcError>) -> Self {
        match source.into() {
            ProcError::NotFound(_) => Self::Absent(pid),
            // It has ended since its file was opened.
            ProcError::Io(error, _) if error.raw_os_error() == Some(libc::ESRCH) => Self::Absent(pid),
            source => Self::Unreadable { pid, source },
        }
    }
}

impl ProcessId {
    /// The running process with this pid.
    ///
    /// # Errors
    /// When there is none, when it is a thread, or when /proc cannot be read.
    pub fn running(pid: i32) -> Result<Self, ProcessError> {
        let unreadable = |source| ProcessError::of_looking(pid, source);
        if pid <= 0 {
            return Err(ProcessError::Absent(pid));
        }
        let process = Process::new(pid).map_err(unreadable)?;
        // /proc/TID exists for threads as well; what differs is the thread-group id.
        let group = Status::of(&process).map_err(unreadable)?.group;
        // Of one that has just been waited for the kernel knows no group any more (`proc_pid_status`: 0).
        if group == 0 {
            return Err(ProcessError::Absent(pid));
        }
        if group != pid {
            return Err(ProcessError::Thread { thread: pid, process: group });
        }
        let stat = process.stat().map_err(unreadable)?;
        // A zombie has ended: it has no sockets to limit.
        if stat.state == 'Z' {
            return Err(ProcessError::Absent(pid));
        }
        Ok(Self { pid, start_time: stat.starttime })
    }

    /// Whether it still runs (and has not become a zombie).
    #[must_use]
    pub fn is_alive(self) -> bool {
        match Process::new(self.pid).and_then(|process| process.stat()) {
            Ok(stat) => stat.starttime == self.start_time && stat.state != 'Z',
            Err(ProcError::NotFound(_)) => false,
            // It is we who have no descriptor or memory left to look with. Who is taken for ended loses its limits.
            Err(_) => kill(Pid::from_raw(self.pid), None) != Err(Errno::ESRCH),
        }
    }
}

/// What people want to know of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessInfo {
    /// Who it is.
    pub id: ProcessId,
    /// Command name, at most 15 bytes (`comm`).
    pub name: String,
    /// Path of the executable, where it could be read.
    pub exe: Option<PathBuf>,
    /// Name of the user it runs as, or the number where nobody has that number.
    pub user: Option<String>,
    /// Path in the cgroup v2 tree, from its root.
    pub cgroup: Option<String>,
    /// What its container is called, where it is in one and that is known.
    pub container: Option<String>,
}

/// What people call what the kernel has numbers for: users and containers.
#[derive(Debug, Default)]
pub struct KnownNames {
    /// Each looked up once: a lookup may go as far as a directory server.
    users: HashMap<u32, Arc<str>>,
    containers: Containers,
}

impl KnownNames {
    /// The user's name, or its number where it has none.
    pub fn user(&mut self, uid: u32) -> String {
        self.users
            .entry(uid)
            .or_insert_with(|| match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) => user.name.into(),
                Ok(None) | Err(_) => uid.to_string().into(),
            })
            .to_string()
    }

    /// What the container is called that a cgroup is of, by its path in the tree ([`Containers::name`]).
    pub fn container(&mut self, cgroup: &str) -> Option<String> {
        self.containers.name(cgroup)
    }

    /// The same where it is the cgroup of the container itself, and none below it.
    pub fn container_of(&mut self, cgroup: &str) -> Option<String> {
        containers::is_one(cgroup).then(|| self.containers.name(cgroup)).flatten()
    }
}

impl ProcessInfo {
    /// Reads /proc. `None` when the process has ended, or the pid is another's by now.
    #[must_use]
    pub fn read(id: ProcessId, names: &mut KnownNames) -> Option<Self> {
        let process = Process::new(id.pid).ok()?;
        let stat = process.stat().ok()?;
        if stat.starttime != id.start_time {
            return None;
        }
        let cgroup = cgroup_path(&process);
        Some(Self {
            id,
            name: stat.comm,
            exe: process.exe().ok(),
            user: process.uid().ok().map(|uid| names.user(uid)),
            container: cgroup.as_deref().and_then(|cgroup| names.container(cgroup)),
            cgroup,
        })
    }
}

/// The process's path in the cgroup v2 tree.
#[must_use]
pub fn cgroup_path(process: &Process) -> Option<String> {
    proc_text::cgroup(process)
}
