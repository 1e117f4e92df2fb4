//! Which instances of the program run, and which limits they hold: each says so in a note, with who it is in its name.
//!
//! Root's notes are in `/run/chadthrottle`, where everybody may read them; those of others are in
//! `$XDG_RUNTIME_DIR/chadthrottle`. Beside each note is a file that its instance has locked for as long as it runs,
//! whatever ends it.

mod announcement;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use nix::{
    fcntl::{Flock, FlockArg},
    unistd::geteuid,
};
use serde::{Deserialize, Serialize};

pub(crate) use self::announcement::{Announcement, Turn, held, rival};
use crate::{
    backends::throttle::{Subject, TrafficType},
    process::ProcessId,
    sys::note,
};

/// Root's.
const SYSTEM: &str = "/run/chadthrottle";
/// Below each of these there may be one of a user's.
const USERS: &str = "/run/user";
const NAME: &str = "chadthrottle";
const PREFIX: &str = "instance-";
const NOTE: &str = "json";
const LOCK: &str = "lock";
/// What a note says has a form, which may be another one some day.
const VERSION: u32 = 1;

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

/// A limit in one direction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Whom it is for.
    pub subject: Whom,
    /// What people call that.
    pub name: String,
    /// `upload` or `download`.
    pub direction: Direction,
    /// In IP bytes a second; 0 blocks.
    pub limit: u64,
    /// Who holds it.
    pub backend: String,
    /// For which traffic: `all`, `internet` or `local`.
    pub traffic: Traffic,
    /// When it was set, as RFC 3339 has it.
    pub since: String,
}

/// Which way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// What is sent.
    Upload,
    /// What is received.
    Download,
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

/// What an instance says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    version: u32,
    boot: String,
    /// The inode of its pid namespace: pids mean nothing outside.
    pids: u64,
    limits: Vec<Held>,
}

/// An instance that runs.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Who.
    pub process: ProcessId,
    /// The user that it runs as.
    pub uid: u32,
    /// Whether its pids are those of this process, too.
    pub shares_pids: bool,
    /// The limits that it holds.
    pub limits: Vec<Held>,
}

/// What an instance left that has ended.
#[derive(Clone, Debug, Serialize)]
pub struct Stale {
    /// Who it was.
    #[serde(flatten)]
    pub process: ProcessId,
    /// Its note.
    pub path: PathBuf,
}

/// A note that cannot be believed.
#[derive(Clone, Debug, Serialize)]
pub struct Unreadable {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub reason: String,
}

/// All that there is.
#[derive(Debug, Default)]
pub struct Instances {
    /// Those that run.
    pub running: Vec<Instance>,
    /// Those that have ended without taking their notes away.
    pub stale: Vec<Stale>,
    /// What cannot be believed.
    pub unreadable: Vec<Unreadable>,
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

impl Whom {
    const fn is_by_pid(&self) -> bool {
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

impl Traffic {
    /// Whether there is traffic that is of both.
    const fn meets(self, other: Self) -> bool {
        !matches!((self, other), (Self::Internet, Self::Local) | (Self::Local, Self::Internet))
    }
}

/// Where this process may write notes; none where it may nowhere.
fn own_directory() -> Option<PathBuf> {
    if geteuid().is_root() {
        return Some(SYSTEM.into());
    }
    let runtime = PathBuf::from(env::var_os("XDG_RUNTIME_DIR")?);
    let is_ours = fs::metadata(&runtime).is_ok_and(|metadata| metadata.uid() == geteuid().as_raw());
    (runtime.is_absolute() && is_ours).then(|| runtime.join(NAME))
}

/// Every place with notes that this process may look into, and whose notes are believed there.
fn places() -> BTreeSet<(PathBuf, u32)> {
    let mut places = BTreeSet::from([(PathBuf::from(SYSTEM), 0)]);
    places.extend(own_directory().map(|own| (own, geteuid().as_raw())));
    let users = fs::read_dir(USERS).into_iter().flatten().flatten();
    places.extend(users.filter_map(|user| {
        let uid = user.file_name().to_str()?.parse().ok()?;
        Some((user.path().join(NAME), uid))
    }));
    places
}

/// Every instance that says of itself that it runs, and what is left of others. Changes nothing.
#[must_use]
pub fn all() -> Instances {
    let mut all = Instances::default();
    for (directory, uid) in places() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            all.look_at(&entry.path(), uid);
        }
    }
    all.running.sort_by_key(|instance| instance.process);
    all
}

impl Instances {
    fn look_at(&mut self, path: &Path, uid: u32) {
        let Some(process) = named(path) else { return };
        if !is_locked(&path.with_extension(LOCK)) {
            self.stale.push(Stale { process, path: path.to_owned() });
            return;
        }
        let said = note::read(path, uid).map_err(|error| error.to_string());
        let said = said.and_then(|text| {
            serde_json::from_slice::<Said>(&text).map_err(|error| format!("it is damaged ({error})"))
        });
        match said {
            Ok(said) if said.version == VERSION => self.running.push(Instance {
                process,
                uid,
                shares_pids: own_pids().is_ok_and(|own| own == said.pids),
                limits: said.limits,
            }),
            Ok(_) => self.doubt(path, "another version of the program wrote it"),
            Err(reason) => self.doubt(path, &reason),
        }
    }

    fn doubt(&mut self, path: &Path, reason: &str) {
        self.unreadable.push(Unreadable { path: path.to_owned(), reason: reason.to_owned() });
    }
}

impl Stale {
    /// Takes the note away. The limits have ended with their instance.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub fn remove(&self) -> io::Result<()> {
        note::remove(&self.path.with_extension(LOCK))?;
        note::remove(&self.path)
    }
}

/// Takes the note of a process away that has just ended.
#[cfg(any(
    feature = "throttle-ebpf-cgroup",
    feature = "throttle-sockopt",
    feature = "throttle-tc-htb",
    feature = "throttle-nftables",
    feature = "throttle-ifb-tc",
    feature = "throttle-tc-police"
))]
pub(crate) fn forget(process: ProcessId) {
    let stale = all().stale.into_iter().find(|stale| stale.process == process);
    if let Some(Err(error)) = stale.map(|stale| stale.remove()) {
        log::debug!("a note stays: {error}");
    }
}

/// Whose note a file is, by its name.
fn named(path: &Path) -> Option<ProcessId> {
    if path.extension()? != NOTE {
        return None;
    }
    let (pid, start_time) = path.file_stem()?.to_str()?.strip_prefix(PREFIX)?.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

/// Whether somebody has a file locked. A lock goes with its process, also in another pid namespace.
fn is_locked(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    Flock::lock(file, FlockArg::LockSharedNonblock).is_err()
}

fn own_pids() -> io::Result<u64> {
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_are_known_by_their_names() {
        let named = |name: &str| named(&Path::new(SYSTEM).join(name)).map(|id| (id.pid, id.start_time));
        assert_eq!(named("instance-7-9.json"), Some((7, 9)));
        for other in ["instance-7-9.lock", "instance-7-9.new", "instance-7.json", "tc-7-9.json", "x.json"] {
            assert_eq!(named(other), None, "{other}");
        }
    }

    #[test]
    fn all_traffic_meets_any() {
        assert!(Traffic::All.meets(Traffic::Local) && Traffic::Internet.meets(Traffic::All));
        assert!(Traffic::Local.meets(Traffic::Local) && !Traffic::Local.meets(Traffic::Internet));
    }
}
