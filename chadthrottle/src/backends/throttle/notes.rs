//! What outlives a SIGKILL, written down before it is made: so that the [guard], the next start, and `chadthrottle
//! cleanup`, find what a killed one left in this network namespace, and nothing else.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::guard::{self, Guard};
use crate::{
    process::ProcessId,
    sys::{namespace, note},
};

/// Where running programs keep what is no longer true after a boot.
const DIRECTORY: &str = "/run/chadthrottle";
/// Whose all that we write is: whoever else wrote something there does not tell us what to remove.
const ROOT: u32 = 0;
/// How the files there end that are whole.
const SUFFIX: &str = ".json";
/// What there are notes of: IFBs, and filters at the entrance, which are a program or go by marks.
pub(super) const IFB: &str = "ifb";
pub(super) const ENTRANCE: &str = "entrance";
pub(super) const MARKS: &str = "marks";
const KINDS: [&str; 3] = [IFB, ENTRANCE, MARKS];

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

impl<T> Record<T> {
    const fn maker(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

/// A note of this process, in a file that goes with it.
#[derive(Debug)]
pub(super) struct Noted {
    path: PathBuf,
    /// Undoes it when we are killed. Without one it is the next start that does.
    guard: Option<Guard>,
    /// Whether what it is about is still there when it is dropped: then it stays for whoever undoes it.
    pub(super) is_left: bool,
}

impl Noted {
    /// Notes what is about to be made.
    pub(super) fn new(kind: &str, what: &impl Serialize) -> io::Result<Self> {
        let us = us()?;
        let path = Path::new(DIRECTORY).join(format!("{kind}-{}-{}{SUFFIX}", us.pid, us.start_time));
        let mut noted = Self { path, guard: None, is_left: false };
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
        let record =
            Record { pid: us.pid, start_time: us.start_time, network: namespace::own_network()?, what };
        note::write(&self.path, &serde_json::to_vec(&record)?, 0o755)
    }
}

fn us() -> io::Result<ProcessId> {
    ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)
}

impl Drop for Noted {
    fn drop(&mut self) {
        if self.is_left {
            // The guard, which is not told that it is gone, undoes it when we end; without one the next start does.
            return;
        }
        if let Err(error) = note::remove(&self.path) {
            // The guard tries that again.
            log::warn!("{}: {error}", self.path.display());
            return;
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
    pub(super) maker: ProcessId,
    pub(super) what: T,
}

impl<T> Left<T> {
    /// Forgets it.
    pub(super) fn forget(&self) -> io::Result<()> {
        note::remove(&self.path)
    }
}

/// The notes of that kind that killed processes left in this network namespace.
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub(super) fn left<T: DeserializeOwned>(kind: &str) -> io::Result<Vec<Left<T>>> {
    of(kind, |maker| !maker.is_alive())
}

/// The notes of that kind, of this network namespace, that are of whom `is_left` takes for ended.
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub(super) fn of<T: DeserializeOwned>(
    kind: &str,
    is_left: impl Fn(ProcessId) -> bool,
) -> io::Result<Vec<Left<T>>> {
    let network = namespace::own_network()?;
    select(kind, |record| record.network == network && is_left(record.maker()))
}

/// The same of every network namespace, for what goes with none.
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
pub(super) fn of_any_network<T: DeserializeOwned>(
    kind: &str,
    is_left: impl Fn(ProcessId) -> bool,
) -> io::Result<Vec<Left<T>>> {
    select(kind, |record| is_left(record.maker()))
}

fn select<T: DeserializeOwned>(
    kind: &str,
    is_wanted: impl Fn(&Record<T>) -> bool,
) -> io::Result<Vec<Left<T>>> {
    let wanted = all(kind)?.filter(|(_, record)| is_wanted(record));
    Ok(wanted.map(|(path, record)| Left { path, maker: record.maker(), what: record.what }).collect())
}

/// All notes of that kind that can be believed.
fn all<T: DeserializeOwned>(kind: &str) -> io::Result<impl Iterator<Item = (PathBuf, Record<T>)>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        entries => Some(entries?),
    };
    let read = move |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_ours = name.to_str()?.strip_suffix(SUFFIX)?.strip_prefix(kind)?.starts_with('-');
        let text = is_ours.then(|| note::read(&entry.path(), ROOT).ok()).flatten()?;
        Some((entry.path(), serde_json::from_slice(&text).ok()?))
    };
    Ok(entries.into_iter().flatten().filter_map(read))
}

/// Forgets what killed processes made in network namespaces that are gone, and all that was in them.
///
/// # Errors
/// When the notes cannot be read or removed.
pub fn forget_gone_networks() -> io::Result<()> {
    let mut networks = None;
    for kind in KINDS {
        for (path, maker, network) in
            all::<serde::de::IgnoredAny>(kind)?.map(|(path, record)| (path, record.maker(), record.network))
        {
            if maker.is_alive() {
                continue;
            }
            let networks = match &mut networks {
                Some(networks) => networks,
                none => none.insert(namespace::networks()?),
            };
            if !networks.contains(&network) {
                note::remove(&path)?;
            }
        }
    }
    Ok(())
}
