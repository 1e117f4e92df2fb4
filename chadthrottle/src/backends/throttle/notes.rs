//! What outlives a SIGKILL, written down before it is made: so that the [guard], the next start, and `chadthrottle
//! cleanup`, find what a killed one left in this network namespace, and nothing else.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::guard::{self, Guard};
use crate::{process::ProcessId, sys::note};

/// Where running programs keep what is no longer true after a boot.
const DIRECTORY: &str = "/run/chadthrottle";
/// How the files there end that are whole.
const SUFFIX: &str = ".json";

/// A file.
#[derive(Debug, Serialize, Deserialize)]
struct Record<T> {
    /// Who wrote it, as in [`ProcessId`].
    pid: i32,
    start_time: u64,
    /// The inode of the network namespace.
    network: u64,
    what: T,
}

/// A note of this process, in a file that goes with it.
#[derive(Debug)]
pub(super) struct Noted {
    path: PathBuf,
    /// Undoes it when we are killed. Without one it is the next start that does.
    guard: Option<Guard>,
}

impl Noted {
    /// Notes what is about to be made.
    pub(super) fn new(kind: &str, what: &impl Serialize) -> io::Result<Self> {
        let us = us()?;
        let path = Path::new(DIRECTORY).join(format!("{kind}-{}-{}{SUFFIX}", us.pid, us.start_time));
        let mut noted = Self { path, guard: None };
        noted.write(what)?;
        let guard = Guard::get().and_then(|guard| {
            guard.note(&guard::Note::Journal(true))?;
            Ok(guard)
        });
        noted.guard = guard
            .inspect_err(|error| log::info!("nobody undoes it when this process is killed: {error}"))
            .ok();
        Ok(noted)
    }

    /// Notes something else in its place.
    pub(super) fn write(&self, what: &impl Serialize) -> io::Result<()> {
        let us = us()?;
        let record = Record { pid: us.pid, start_time: us.start_time, network: own_network()?, what };
        note::write(&self.path, &serde_json::to_vec(&record)?, 0o755)
    }
}

fn us() -> io::Result<ProcessId> {
    ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)
}

impl Drop for Noted {
    fn drop(&mut self) {
        if let Err(error) = note::remove(&self.path) {
            log::warn!("{}: {error}", self.path.display());
        }
        if let Some(guard) = &self.guard {
            // One that has ended undoes nothing.
            let _ = guard.note(&guard::Note::Journal(false));
        }
    }
}

/// A note that a killed process left.
#[derive(Debug)]
pub(super) struct Left<T> {
    path: PathBuf,
    /// Whose it was.
    pub(super) pid: i32,
    pub(super) what: T,
}

impl<T> Left<T> {
    /// Forgets it.
    pub(super) fn forget(&self) -> io::Result<()> {
        note::remove(&self.path)
    }
}

/// The notes of that kind that killed processes left in this network namespace.
pub(super) fn left<T: DeserializeOwned>(kind: &str) -> io::Result<Vec<Left<T>>> {
    of(kind, |maker| !maker.is_alive())
}

/// The notes of that kind, of this network namespace, that are of whom `is_left` takes for ended.
pub(super) fn of<T: DeserializeOwned>(
    kind: &str,
    is_left: impl Fn(ProcessId) -> bool,
) -> io::Result<Vec<Left<T>>> {
    let network = own_network()?;
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let read = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_ours = name.to_str()?.strip_suffix(SUFFIX)?.strip_prefix(kind)?.starts_with('-');
        // Root's, as all that we write is: whoever else wrote it does not tell us what to remove.
        let is_sound = is_ours && entry.metadata().is_ok_and(|metadata| metadata.uid() == 0);
        let text = is_sound.then(|| fs::read(entry.path()).ok()).flatten()?;
        let record: Record<T> = serde_json::from_slice(&text).ok()?;
        let maker = ProcessId { pid: record.pid, start_time: record.start_time };
        let is_left = record.network == network && is_left(maker);
        is_left.then(|| Left { path: entry.path(), pid: record.pid, what: record.what })
    };
    Ok(entries.filter_map(read).collect())
}

fn own_network() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}
