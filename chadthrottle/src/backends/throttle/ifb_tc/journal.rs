//! The IFB, written down before it is made, since it outlives a SIGKILL: so that the next start, and `chadthrottle cleanup`,
//! find what a killed one left, and nothing else. Nobody sends packets to it then, because the program at the entrance is
//! gone.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::super::carrying::IFB_PREFIX;
use crate::{process::ProcessId, sys::links};

/// Where running programs keep what is no longer true after a boot.
const DIRECTORY: &str = "/run/chadthrottle";
/// How the files there begin that are ours, and how they end.
const PREFIX: &str = "ifb-";
const SUFFIX: &str = ".json";

/// What is written.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// Who makes it, as in [`ProcessId`].
    pid: i32,
    start_time: u64,
    /// The inode of the network namespace.
    network: u64,
    /// Its name.
    name: String,
}

/// What this process has noted. Its file goes with this.
#[derive(Debug)]
pub(super) struct Noted(PathBuf);

impl Drop for Noted {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.0) {
            log::warn!("{}: {error}", self.0.display());
        }
    }
}

/// Notes that an IFB of this name is about to be made.
pub(super) fn note(name: &str) -> io::Result<Noted> {
    let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
    let note =
        Note { pid: us.pid, start_time: us.start_time, network: own_network()?, name: name.to_owned() };
    let path = Path::new(DIRECTORY).join(format!("{PREFIX}{}-{}{SUFFIX}", us.pid, us.start_time));
    fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY)?;
    // Whole or not at all, however we end.
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(&note)?)?;
    fs::rename(&new, &path)?;
    Ok(Noted(path))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Others may have theirs there.
    let _ = fs::remove_dir(DIRECTORY);
    Ok(())
}

fn own_network() -> io::Result<u64> {
    Ok(fs::metadata("/proc/thread-self/ns/net")?.ino())
}

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    note: Note,
}

/// What killed programs left in this network namespace. Notes of what went with its namespace are those of nobody: they
/// are removed by whoever finds the namespace's number again, or by the next boot.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    let network = own_network()?;
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let left = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_ours = name.to_str()?.strip_suffix(SUFFIX)?.starts_with(PREFIX);
        // Root's, as all that we write is: whoever else wrote it does not tell us what to remove.
        let is_sound = is_ours && entry.metadata().is_ok_and(|metadata| metadata.uid() == 0);
        let text = is_sound.then(|| fs::read(entry.path()).ok()).flatten()?;
        let note: Note = serde_json::from_slice(&text).ok()?;
        let maker = ProcessId { pid: note.pid, start_time: note.start_time };
        let is_left = note.network == network && note.name.starts_with(IFB_PREFIX) && !maker.is_alive();
        is_left.then(|| Leftover { path: entry.path(), note })
    };
    Ok(entries.filter_map(left).collect())
}

impl Leftover {
    /// What it is.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("the interface {} with its queue, left by process {}", self.note.name, self.note.pid)
    }

    /// Removes it. What is not there any more, or something else of that name, is left alone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn remove(&self) -> io::Result<()> {
        let mut netlink = links::open()?;
        let mut there = links::all(&mut netlink)?.into_iter();
        if let Some(link) = there.find(|link| link.name == self.note.name && link.kind == "ifb") {
            links::delete(&mut netlink, link.index).map_err(io::Error::other)?;
        }
        remove(&self.path)
    }
}
