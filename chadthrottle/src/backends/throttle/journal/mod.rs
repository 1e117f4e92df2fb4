//! What outlives a SIGKILL, written down before it is made: queues of interfaces. So that the [guard], the
//! next start, and `chadthrottle cleanup`, find what a killed one left, and nothing else.
//!
//! A note is a file in `/run/chadthrottle`, which a boot clears, with who made it in its name. It is written anew as a
//! whole, and on the disk before anything is done. What it says is believed only where it is whole, root's, of this boot,
//! and of the process in its name. Of what it says only that is removed which has the signature of that process, so that
//! nothing is lost that looks alike; and by the signature even the queues of a note that cannot be read are found. Classes
//! in somebody else's queue have one too, of 24 bits, and only those are removed that are noted as well.

mod leftover;
mod record;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

pub use self::leftover::Leftover;
pub(super) use self::leftover::restore;
use self::record::{Note, Record};
use super::{
    guard::{self, Guard},
    tc_htb::OURS,
};
use crate::{
    process::ProcessId,
    sys::{
        links::Link,
        namespace::{networks, own_network},
        note,
        tc::Handle,
    },
};

/// Where running programs keep what is no longer true after a boot.
const DIRECTORY: &str = "/run/chadthrottle";
/// How the files there begin that are ours.
const PREFIX: &str = "tc-";
/// And how they end, once they are whole.
const SUFFIX: &str = ".json";

/// An interface that has, or is about to have, a queue of ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Entry {
    pub(super) index: u32,
    pub(super) name: String,
    /// How many packets could wait for it, which the kernel changes in some cases.
    pub(super) queue_len: u32,
    /// The number of its queue.
    #[serde(default = "ours")]
    pub(super) handle: u32,
    /// Whether the queue is somebody else's, and only classes in it are ours.
    #[serde(default)]
    pub(super) is_shared: bool,
}

const fn ours() -> u32 {
    OURS.0
}

impl Entry {
    /// An interface that gets a queue of ours, with this number.
    pub(super) fn new(link: &Link, handle: Handle) -> Self {
        Self {
            index: link.index,
            name: link.name.clone(),
            queue_len: link.queue_len,
            handle: handle.0,
            is_shared: false,
        }
    }

    /// The number of its queue.
    pub(super) const fn handle(&self) -> Handle {
        Handle(self.handle)
    }
}

/// What this process has made, written down.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    record: Record,
    /// Undoes what is noted when we are killed. As long as something is.
    guard: Option<Guard>,
}

impl Journal {
    /// Where this process writes. There is no file until something is noted.
    pub(super) fn new() -> io::Result<Self> {
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        Ok(Self { path: path_of(us), record: Record::new(us, own_network()?)?, guard: None })
    }

    /// By what our queues are known to be ours.
    pub(super) fn signature(&self) -> u32 {
        self.record.process().signature()
    }

    /// Notes an interface. To be called before anything is done to it.
    pub(super) fn note(&mut self, entry: Entry) -> io::Result<()> {
        let index = entry.index;
        self.record.interfaces.retain(|known| known.index != index);
        self.record.interfaces.push(entry);
        if let Err(error) = self.write() {
            // It may be there all the same, half-way on the disk.
            let _ = self.forget(index);
            return Err(error);
        }
        self.watch();
        Ok(())
    }

    /// Notes the classes that there are, or are about to be made, where their queues have another number than ours: only by
    /// that are they and the priorities of sockets told from other people's.
    pub(super) fn note_classes(&mut self, classes: impl Iterator<Item = Handle>) -> io::Result<()> {
        self.record.classes =
            classes.filter(|class| class.major() != OURS.major()).map(|class| class.0).collect();
        // Nothing to be written where nothing is noted.
        if self.record.interfaces.is_empty() { Ok(()) } else { self.write() }
    }

    /// Forgets an interface that is as it was.
    pub(super) fn forget(&mut self, index: u32) -> io::Result<()> {
        self.record.interfaces.retain(|known| known.index != index);
        if !self.record.interfaces.is_empty() {
            return self.write();
        }
        note::remove(&self.path)?;
        if let Some(guard) = self.guard.take() {
            // One that has ended undoes nothing.
            let _ = guard.note(&guard::Note::Journal(false));
        }
        Ok(())
    }

    /// Looks whether there is a guard for what is noted, and starts one where there is none. Without one it is the next
    /// start that undoes it.
    pub(super) fn watch(&mut self) {
        let is_watched = self.guard.as_ref().is_some_and(Guard::is_there);
        if is_watched || self.record.interfaces.is_empty() {
            return;
        }
        let guard = Guard::get().and_then(|guard| {
            guard.note(&guard::Note::Journal(true))?;
            Ok(guard)
        });
        match guard {
            Ok(guard) => self.guard = Some(guard),
            Err(error) => log::info!("nobody undoes queues when this process is killed: {error}"),
        }
    }

    fn write(&self) -> io::Result<()> {
        note::write(&self.path, &serde_json::to_vec(&self.record)?, 0o755)
    }
}

fn path_of(process: ProcessId) -> PathBuf {
    Path::new(DIRECTORY).join(format!("{PREFIX}{}-{}{SUFFIX}", process.pid, process.start_time))
}

/// What killed programs left in this network namespace.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    let network = own_network()?;
    let left = notes()?.into_iter().filter(|note| !note.process.is_alive());
    let is_here = |note: &Note| note.record.as_ref().is_ok_and(|record| record.network == network);
    Ok(left.filter(|note| note.record.is_err() || is_here(note)).map(Leftover::new).collect())
}

/// What a process that has just ended left in this network namespace.
pub(super) fn of(process: ProcessId) -> io::Result<Option<Leftover>> {
    Ok(notes()?.into_iter().find(|note| note.process == process).map(Leftover::new))
}

/// Forgets what killed programs made in network namespaces that are gone, and all that was in them, and what was before
/// the last boot.
///
/// # Errors
/// When the notes cannot be read or removed.
pub fn forget_gone_networks() -> io::Result<()> {
    let killed: Vec<_> = notes()?.into_iter().filter(|note| !note.process.is_alive()).collect();
    if killed.is_empty() {
        return Ok(());
    }
    let networks = networks()?;
    let boot = note::boot()?;
    let is_gone = |record: &Record| record.boot != boot || !networks.contains(&record.network);
    for note in killed {
        if note.record.as_ref().is_ok_and(is_gone) {
            note::remove(&note.path)?;
        }
    }
    Ok(())
}

/// Who has a queue of ours on this interface, or had it when it ended.
pub(super) fn owner(index: u32) -> Option<ProcessId> {
    let network = own_network().ok()?;
    let is_of_interface = |note: &Note| {
        let record = note.record.as_ref();
        record.is_ok_and(|record| {
            record.network == network && record.interfaces.iter().any(|entry| entry.index == index)
        })
    };
    let found = notes().ok()?.into_iter().filter(is_of_interface).map(|note| note.process);
    // Who runs comes before who has ended.
    found.max_by_key(|process| process.is_alive())
}

/// What holds of any note.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &[u8]) {
    record::fuzz(text);
}

/// All that has been noted, whether it can be read or not.
fn notes() -> io::Result<Vec<Note>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    Ok(entries.filter_map(|entry| Note::read(&entry.ok()?.path())).collect())
}
