//! What this instance says of itself.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use nix::{
    fcntl::{Flock, FlockArg},
    unistd::{Pid, Uid, User},
};

use super::{Direction, Held, Instance, LOCK, PREFIX, Said, VERSION, Whom, all, own_directory, own_pids};
use crate::{
    backends::throttle::{Target, manager::Limits},
    process::ProcessId,
    rate::scaled,
    sys::note,
};

/// Where notes are everybody may look; a user's own directory is closed anyway.
const MODE: u32 = 0o755;

/// The note of this instance. It is there as long as there are limits.
#[derive(Debug)]
pub(crate) struct Announcement {
    path: PathBuf,
    said: Said,
    /// Held for as long as there is a note.
    lock: Option<Flock<File>>,
}

/// That nobody else sets a limit at this moment.
pub(crate) struct Turn {
    _lock: Option<Flock<File>>,
}

impl Announcement {
    /// Nothing said yet. None, with the reason in the log, where nothing can be written.
    pub(crate) fn new() -> Option<Self> {
        let Some(directory) = own_directory() else {
            log::info!(
                "this instance is not in `chadthrottle status`: there is no $XDG_RUNTIME_DIR to write to"
            );
            return None;
        };
        let said = || -> anyhow::Result<Self> {
            let us = ProcessId::running(Pid::this().as_raw())?;
            let path = directory.join(format!("{PREFIX}{}-{}.json", us.pid, us.start_time));
            let said = Said { version: VERSION, boot: note::boot()?, pids: own_pids()?, limits: Vec::new() };
            Ok(Self { path, said, lock: None })
        };
        let doubted =
            |error: &anyhow::Error| log::warn!("this instance is not in `chadthrottle status`: {error}");
        said().inspect_err(doubted).ok()
    }

    /// Waits until nobody else sets a limit. To be held from the question whether one is in the way until it is announced.
    pub(crate) fn turn(&self) -> Turn {
        let locked = || -> io::Result<Flock<File>> {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            loop {
                fs::DirBuilder::new().recursive(true).mode(MODE).create(directory)?;
                let lock = Flock::lock(File::open(directory)?, FlockArg::LockExclusive);
                let lock = lock.map_err(|(_, error)| error)?;
                // It goes with the last note, and the next one makes another.
                let is_there = fs::metadata(directory).is_ok_and(|now| now.ino() == ino(&lock));
                if is_there {
                    return Ok(lock);
                }
            }
        };
        let lock = locked().inspect_err(|error| log::debug!("nobody waits for a turn: {error}")).ok();
        Turn { _lock: lock }
    }

    /// Says which limits are in force. What was in force before, just so, is so since then.
    pub(crate) fn set(&mut self, limits: Vec<Held>) {
        let before = std::mem::take(&mut self.said.limits);
        self.said.limits = limits;
        for held in &mut self.said.limits {
            let is_same = |old: &&Held| Held { since: held.since.clone(), ..(*old).clone() } == *held;
            if let Some(old) = before.iter().find(is_same) {
                held.since.clone_from(&old.since);
            }
        }
        if self.said.limits == before {
            return;
        }
        if let Err(error) = self.write() {
            // It is in force all the same.
            log::warn!(
                "`chadthrottle status` does not know of a change: cannot write {}: {error}",
                self.path.display()
            );
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.said.limits.is_empty() {
            return self.take_away();
        }
        let text = serde_json::to_vec(&self.said)?;
        if self.lock.is_none() {
            let path = self.path.with_extension(LOCK);
            note::write(&path, b"", MODE)?;
            let lock = Flock::lock(File::open(&path)?, FlockArg::LockExclusiveNonblock);
            self.lock = Some(lock.map_err(|(_, error)| error)?);
        }
        note::write(&self.path, &text, MODE)
    }

    fn take_away(&mut self) -> io::Result<()> {
        if self.lock.is_none() {
            return Ok(());
        }
        // The note first: it must not be taken for one that somebody left.
        let removed = note::remove(&self.path);
        let unlocked = note::remove(&self.path.with_extension(LOCK));
        self.lock = None;
        removed.and(unlocked)
    }
}

fn ino(file: &File) -> u64 {
    file.metadata().map_or(0, |metadata| metadata.ino())
}

impl Drop for Announcement {
    fn drop(&mut self) {
        if let Err(error) = self.take_away() {
            log::warn!("a note stays that `chadthrottle cleanup` removes: {error}");
        }
    }
}

/// Both directions of a limit as they are in a note, set now.
pub(crate) fn held(target: &Target, limits: Limits, backends: (&str, Option<&str>)) -> Vec<Held> {
    let (upload, download) = backends;
    let one = |direction, limit: Option<u64>, backend: &str| {
        Some(Held {
            subject: Whom::from(&target.subject),
            name: target.name.clone(),
            direction,
            limit: limit?,
            backend: backend.to_owned(),
            traffic: target.traffic.into(),
            since: Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
        })
    };
    let both = [
        one(Direction::Upload, limits.upload, upload),
        one(Direction::Download, limits.download, download.unwrap_or_default()),
    ];
    both.into_iter().flatten().collect()
}

/// Why one of these limits cannot be set beside those of other instances, in a sentence: two that hold the same target
/// would each take what the other does to its sockets for the program's own doing.
pub(crate) fn rival(wanted: &[Held]) -> Option<String> {
    let us = Pid::this().as_raw();
    let others = all().running;
    let others = others.iter().filter(|instance| instance.process.pid != us || !instance.shares_pids);
    let mut pairs = others.flat_map(|instance| instance.limits.iter().map(move |held| (instance, held)));
    pairs.find_map(|(instance, held)| {
        let meets = |mine: &&Held| {
            mine.subject == held.subject
                && mine.direction == held.direction
                && mine.traffic.meets(held.traffic)
                && (instance.shares_pids || !held.subject.is_by_pid())
        };
        wanted.iter().find(meets).map(|_| in_words(instance, held))
    })
}

fn in_words(instance: &Instance, held: &Held) -> String {
    let user = User::from_uid(Uid::from_raw(instance.uid)).ok().flatten();
    let user = user.map_or_else(|| instance.uid.to_string(), |user| user.name);
    let what = match held.direction {
        Direction::Upload => "upload",
        Direction::Download => "download",
    };
    let rate = if held.limit == 0 { "nothing".to_owned() } else { format!("{}B/s", scaled(held.limit)) };
    format!(
        "process {} (another chadthrottle, of {user}) holds its {what} to {rate} since {}; end that first (`kill {}`), or \
         change the limit there",
        instance.process, held.since, instance.process
    )
}
