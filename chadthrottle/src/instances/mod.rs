//! Which instances of the program run, and which limits they hold: each says so in a note, with who it is in its name.
//!
//! Root's notes are in `/run/chadthrottle`, where everybody may read them; those of others are in
//! `$XDG_RUNTIME_DIR/chadthrottle`. Beside each note is a file that its instance has locked for as long as it runs,
//! whatever ends it.

mod announcement;
mod rests;
mod whom;

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

#[cfg(feature = "limits")]
pub(crate) use self::rests::forget;
pub use self::whom::{Traffic, Whom};
pub(crate) use self::{
    announcement::{Announcement, Turn, held, lock_within, rival},
    rests::{Of, rests},
};
use crate::{process::ProcessId, sys::note};

/// Root's.
pub(crate) const SYSTEM: &str = "/run/chadthrottle";
/// Below each of these there may be one of a user's.
const USERS: &str = "/run/user";
const NAME: &str = "chadthrottle";
const PREFIX: &str = "instance-";
const NOTE: &str = "json";
const LOCK: &str = "lock";
/// For so long a lock of a directory is waited for. Whoever may look into it may lock it, and keep it so.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);
/// How often it is tried meanwhile.
const AGAIN: Duration = Duration::from_millis(20);
/// What a note says has a form, which may be another one some day.
const VERSION: u32 = 1;

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
    /// The rule that a daemon holds it for, where it does for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
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

/// What an instance says of itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    version: u32,
    boot: String,
    /// The inode of its pid namespace: pids mean nothing outside.
    pids: u64,
    limits: Vec<Held>,
    /// Where a daemon tells the rest, where that is not where everybody asks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    socket: Option<PathBuf>,
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
    /// Where it tells of more of them.
    pub socket: Option<PathBuf>,
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

/// Where this process may write notes; none where it may nowhere.
pub(crate) fn own_directory() -> Option<PathBuf> {
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
        match said.and_then(|text| Said::read(&text)) {
            Ok(said) => {
                let shares_pids = own_pids().is_ok_and(|own| own == said.pids);
                // Whoever may read a lock may hold it when its owner has ended. Others than root may not see whether it has.
                if shares_pids && geteuid().is_root() && !process.is_alive() {
                    self.stale.push(Stale { process, path: path.to_owned() });
                } else {
                    let Said { limits, socket, .. } = said;
                    self.running.push(Instance { process, uid, shares_pids, limits, socket });
                }
            }
            Err(reason) => self.doubt(path, &reason),
        }
    }

    fn doubt(&mut self, path: &Path, reason: &str) {
        self.unreadable.push(Unreadable { path: path.to_owned(), reason: reason.to_owned() });
    }
}

impl Said {
    fn read(text: &[u8]) -> Result<Self, String> {
        let said: Self = serde_json::from_slice(text).map_err(|error| format!("it is damaged ({error})"))?;
        if said.version != VERSION {
            return Err("another version of the program wrote it".into());
        }
        Ok(said)
    }
}

/// What holds of any note, and of any name of one.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &[u8]) {
    if let Ok(said) = Said::read(text) {
        let again = serde_json::to_vec(&said).map(|text| Said::read(&text));
        let again = again.expect("numbers and words").expect("it was read once");
        assert_eq!((again.boot, again.pids, again.socket), (said.boot, said.pids, said.socket));
        assert_eq!(again.limits, said.limits);
    }
    named(Path::new(&*String::from_utf8_lossy(text)));
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
    file.try_lock_shared().is_err()
}

pub(crate) fn own_pids() -> io::Result<u64> {
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
    fn who_holds_the_lock_of_one_that_has_ended_does_not_have_it_live() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let (boot, pids) = (note::boot()?, own_pids()?);
        let said = Said { version: VERSION, boot, pids, limits: Vec::new(), socket: None };
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        let ended = ProcessId { start_time: us.start_time + 1, ..us };
        for process in [us, ended] {
            let name = format!("{PREFIX}{}-{}.{NOTE}", process.pid, process.start_time);
            let path = directory.path().join(name);
            fs::write(&path, serde_json::to_vec(&said)?)?;
            let lock = File::create(path.with_extension(LOCK))?;
            lock.lock()?;
            let mut all = Instances::default();
            all.look_at(&path, geteuid().as_raw());
            let is_stale = process == ended && geteuid().is_root();
            assert_eq!((all.running.len(), all.stale.len()), if is_stale { (0, 1) } else { (1, 0) });
        }
        Ok(())
    }
}
