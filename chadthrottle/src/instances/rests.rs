//! What is left of notes, of any kind, whose writers were killed while they wrote: half of one, or its lock alone.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

#[cfg(feature = "limits")]
use super::PREFIX;
use super::{LOCK, NOTE, is_locked, own_directory, own_pids};
use crate::process::ProcessId;
#[cfg(feature = "limits")]
use crate::sys::note;

/// How a note ends that is being written ([`note::write`](crate::sys::note::write)).
const NEW: &str = "new";

/// Takes the note of a process away that has just ended. Whoever holds its lock by now has no word in that. Where something of
/// it stays, everything else has gone.
#[cfg(feature = "limits")]
pub(crate) fn forget(process: ProcessId) -> std::io::Result<()> {
    let note = own_directory().map(|own| own.join(format!("{PREFIX}{}-{}", process.pid, process.start_time)));
    let both = note.iter().flat_map(|note| [LOCK, NOTE].map(|ending| note.with_extension(ending)));
    let removed: Vec<_> = both.chain(rests(Of::Process(process))).map(|left| note::remove(&left)).collect();
    removed.into_iter().collect()
}

/// Whose rests of notes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Of {
    /// Of one that has ended.
    #[cfg_attr(not(feature = "limits"), expect(dead_code, reason = "only a guard knows of one"))]
    Process(ProcessId),
    /// Of all that are gone for a while. One that runs elsewhere, with pids of its own, writes for no longer.
    AnyoneGone,
}

/// How long a note is never in the making.
const MAKING: Duration = Duration::from_mins(1);

/// What is left of notes whose writers were killed while they wrote: half of one, or its lock alone. Of any kind of note,
/// in the directory of this user.
pub(crate) fn rests(of: Of) -> Vec<PathBuf> {
    own_directory().map_or_else(Vec::new, |own| rests_in(&own, of))
}

fn rests_in(directory: &Path, of: Of) -> Vec<PathBuf> {
    let is_rest = |path: &PathBuf| {
        let Some((process, ending)) = named_as(path) else { return false };
        let is_alone = || ending == LOCK && !path.with_extension(NOTE).exists();
        let is_one = |has_ended: bool| ending == NEW || is_alone() && (has_ended || !is_locked(path));
        match of {
            Of::Process(ended) => process == ended && is_one(true),
            Of::AnyoneGone => {
                // Where the clock was set back nobody knows how old it is.
                let age =
                    fs::metadata(path).and_then(|metadata| metadata.modified()).map(|then| then.elapsed());
                let is_old = age.is_ok_and(|age| age.is_ok_and(|age| age > MAKING));
                is_old && !process.is_alive() && is_one(means_our_pids(path))
            }
        }
    };
    let all = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(is_rest).collect()
}

/// Whether the pid in the name of a lock is one of those that this process knows: then it is known whether its owner has
/// ended, and whoever holds it when that has is somebody else.
fn means_our_pids(lock: &Path) -> bool {
    let said = fs::read_to_string(lock).ok().and_then(|said| said.parse().ok());
    said.is_some() && said == own_pids().ok()
}

/// Whose a file of ours is, of whatever kind, and how it ends: `KIND-PID-START.ENDING`.
fn named_as(path: &Path) -> Option<(ProcessId, &str)> {
    let mut parts = path.file_stem()?.to_str()?.rsplitn(3, '-');
    let (start_time, pid) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
    parts.next().filter(|kind| !kind.is_empty())?;
    Some((ProcessId { pid, start_time }, path.extension()?.to_str()?))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io, time::SystemTime};

    use super::*;
    use crate::instances::SYSTEM;

    #[test]
    fn the_lock_of_one_that_has_ended_goes_whoever_holds_it() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        let ended = ProcessId { start_time: us.start_time + 1, ..us };
        let lock = |process: ProcessId, pids: u64| -> io::Result<File> {
            let name = format!("instance-{}-{}.{LOCK}", process.pid, process.start_time);
            let path = directory.path().join(name);
            fs::write(&path, pids.to_string())?;
            File::options().write(true).open(&path)?.set_modified(SystemTime::now() - 2 * MAKING)?;
            let lock = File::open(path)?;
            lock.lock()?;
            Ok(lock)
        };
        let found = |of| rests_in(directory.path(), of).len();
        let held = [lock(us, own_pids()?)?, lock(ended, own_pids()?)?];
        assert_eq!((found(Of::AnyoneGone), found(Of::Process(ended))), (1, 1), "we have not ended");
        drop(held);
        // Its pid is that of somebody else's there, who may live.
        let held = lock(ended, own_pids()? + 1)?;
        assert_eq!((found(Of::AnyoneGone), found(Of::Process(ended))), (0, 1));
        drop(held);
        assert_eq!(found(Of::AnyoneGone), 1);
        Ok(())
    }

    #[test]
    fn what_is_left_of_a_note_has_its_name() {
        let named =
            |name: &str| named_as(&Path::new(SYSTEM).join(name)).map(|(id, ending)| (id.pid, ending.len()));
        assert_eq!(named("tc-7-9.new"), Some((7, 3)));
        assert_eq!(named("instance-7-9.lock"), Some((7, 4)));
        for other in ["7-9.new", "-7-9.new", "tc-7.new", "tc-x-9.new", "tc-7-9"] {
            assert_eq!(named(other), None, "{other}");
        }
    }
}
