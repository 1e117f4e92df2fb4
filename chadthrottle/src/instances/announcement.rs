//! What this instance says of itself.

use std::{
    cell::Cell,
    fs::{self, File, TryLockError},
    io::{self, ErrorKind},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use nix::unistd::{Pid, Uid, User};

use super::{
    AGAIN, Direction, Held, Instance, LOCK, PATIENCE, PREFIX, Said, VERSION, Whom, all, own_directory,
    own_pids,
};
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
    lock: Option<File>,
    /// Whether somebody kept us waiting for a turn: that one is not waited for again.
    is_kept: Cell<bool>,
}

/// That nobody else sets a limit at this moment.
pub(crate) struct Turn {
    _lock: Option<File>,
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
            let (boot, pids) = (note::boot()?, own_pids()?);
            let said = Said { version: VERSION, boot, pids, limits: Vec::new(), socket: None };
            Ok(Self { path, said, lock: None, is_kept: Cell::new(false) })
        };
        let doubted =
            |error: &anyhow::Error| log::warn!("this instance is not in `chadthrottle status`: {error}");
        said().inspect_err(doubted).ok()
    }

    /// Waits until nobody else sets a limit, but not forever. To be held from the question whether one is in the way until it is announced.
    pub(crate) fn turn(&self) -> Turn {
        let locked = || -> io::Result<File> {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            loop {
                fs::DirBuilder::new().recursive(true).mode(MODE).create(directory)?;
                let patience = if self.is_kept.get() { Duration::ZERO } else { PATIENCE };
                let lock = lock_within(File::open(directory)?, patience);
                self.is_kept.set(lock.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock));
                let lock = lock?;
                // It goes with the last note, and the next one makes another.
                let is_there = fs::metadata(directory).is_ok_and(|now| now.ino() == ino(&lock));
                if is_there {
                    return Ok(lock);
                }
            }
        };
        let doubted = |error: &io::Error| match error.kind() {
            ErrorKind::WouldBlock => log::warn!(
                "somebody else has locked the directory of {}, which is not waited for: {error}",
                self.path.display()
            ),
            _ => log::debug!("nobody waits for a turn: {error}"),
        };
        Turn { _lock: locked().inspect_err(doubted).ok() }
    }

    /// Says which limits are in force. What was in force before, just so, is so since then.
    pub(crate) fn set(&mut self, mut limits: Vec<Held>) {
        for held in &mut limits {
            let is_same = |old: &&Held| Held { since: held.since.clone(), ..(*old).clone() } == *held;
            if let Some(old) = self.said.limits.iter().find(is_same) {
                held.since.clone_from(&old.since);
            }
        }
        self.say(limits, None);
    }

    /// Says which limits are in force, each since when it says, and where there are more of them to be asked for.
    pub(crate) fn say(&mut self, limits: Vec<Held>, socket: Option<PathBuf>) {
        if (&self.said.limits, &self.said.socket) == (&limits, &socket) {
            return;
        }
        (self.said.limits, self.said.socket) = (limits, socket);
        if let Err(error) = self.write() {
            // It is in force all the same.
            log::warn!(
                "`chadthrottle status` does not know of a change: cannot write {}: {error}",
                self.path.display()
            );
        }
    }

    fn write(&mut self) -> io::Result<()> {
        if self.said.limits.is_empty() && self.said.socket.is_none() {
            return self.take_away();
        }
        let text = serde_json::to_vec(&self.said)?;
        if self.lock.is_none() {
            let path = self.path.with_extension(LOCK);
            // By the pids that are meant one that was left is known, whoever holds the lock by then.
            let lock = note::write(&path, self.said.pids.to_string().as_bytes(), MODE).and_then(|()| {
                let lock = File::open(&path)?;
                lock.try_lock()?;
                Ok(lock)
            });
            self.lock = Some(lock.inspect_err(|_| drop(note::remove(&path)))?);
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

/// Locks a file or directory for us alone, where nobody keeps it locked for longer than this: until it is closed, which no
/// kernel refuses.
///
/// # Errors
/// When somebody does (`WouldBlock`), or it cannot be locked.
pub(crate) fn lock_within(file: File, patience: Duration) -> io::Result<File> {
    let deadline = Instant::now() + patience;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < deadline => thread::sleep(AGAIN),
            Err(error) => return Err(error.into()),
        }
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
            rule: None,
        })
    };
    let both = [
        one(Direction::Upload, limits.upload, upload),
        one(Direction::Download, limits.download, download.unwrap_or_default()),
    ];
    both.into_iter().flatten().collect()
}

/// Why one of these limits cannot be set beside those of other instances, in a sentence: two that hold the same target
/// would each take what the other does to its sockets for the program's own doing. What a daemon holds for a rule is in
/// nobody's way: of that and a limit by hand the tighter one counts.
pub(crate) fn rival(wanted: &[Held]) -> Option<String> {
    let us = Pid::this().as_raw();
    let others = all().running;
    let others = others.iter().filter(|instance| instance.process.pid != us || !instance.shares_pids);
    let mut pairs = others.flat_map(|instance| instance.limits.iter().map(move |held| (instance, held)));
    pairs.find_map(|(instance, held)| {
        let meets = |mine: &&Held| {
            mine.subject == held.subject
                && held.rule.is_none()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_keeps_a_directory_locked_keeps_nobody_waiting_for_long() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let open = || File::open(directory.path());
        let others = lock_within(open()?, Duration::ZERO)?;
        let refused = lock_within(open()?, 2 * AGAIN).map(drop);
        assert_eq!(refused.map_err(|error| error.kind()), Err(ErrorKind::WouldBlock));
        let waits = thread::spawn({
            let file = open()?;
            move || lock_within(file, 100 * PATIENCE).map(drop)
        });
        drop(others);
        waits.join().expect("it ends")
    }
}
