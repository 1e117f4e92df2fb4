//! What outlives a SIGKILL, written down before it is made: queues of interfaces. So that the next start, and
//! `chadthrottle cleanup`, find what a killed one left, and nothing else.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use nix::sys::socket::SockProtocol;
use serde::{Deserialize, Serialize};

use super::interfaces::{OURS, Root, root_of};
use crate::{
    process::ProcessId,
    sys::{
        links::{self, set_queue_len},
        netlink::Netlink,
        pidfd::PidFd,
        proc_fd,
        socket_tag::{Field, TaggedSocket},
        tc,
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
}

/// A file.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// Who made it, as in [`ProcessId`].
    pid: i32,
    start_time: u64,
    /// The inode of the network namespace.
    network: u64,
    interfaces: Vec<Entry>,
}

/// What this process has made, written down.
#[derive(Debug)]
pub(super) struct Journal {
    path: PathBuf,
    record: Record,
}

impl Journal {
    /// Where this process writes. There is no file until something is noted.
    pub(super) fn new() -> io::Result<Self> {
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        let network = own_network()?;
        let path = Path::new(DIRECTORY).join(format!("{PREFIX}{}-{}{SUFFIX}", us.pid, us.start_time));
        let record = Record { pid: us.pid, start_time: us.start_time, network, interfaces: Vec::new() };
        Ok(Self { path, record })
    }

    /// Notes an interface. To be called before anything is done to it.
    pub(super) fn note(&mut self, entry: Entry) -> io::Result<()> {
        self.record.interfaces.retain(|known| known.index != entry.index);
        self.record.interfaces.push(entry);
        self.write()
    }

    /// Forgets an interface that is as it was, and says what was noted of it.
    pub(super) fn forget(&mut self, index: u32) -> io::Result<()> {
        self.record.interfaces.retain(|known| known.index != index);
        if self.record.interfaces.is_empty() { remove(&self.path) } else { self.write() }
    }

    fn write(&self) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o755).create(DIRECTORY)?;
        // Whole or not at all, however we end.
        let new = self.path.with_extension("new");
        fs::write(&new, serde_json::to_vec(&self.record)?)?;
        fs::rename(&new, &self.path)
    }
}

/// Removes a file of ours, and the directory with the last one.
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
    record: Record,
}

/// What killed programs left in this network namespace.
///
/// # Errors
/// When the notes cannot be read.
pub fn leftovers() -> io::Result<Vec<Leftover>> {
    let network = own_network()?;
    let records = records()?.into_iter().filter(|(_, record)| !record.process().is_alive());
    Ok(records
        .filter(|(_, record)| record.network == network)
        .map(|(path, record)| Leftover { path, record })
        .collect())
}

/// Forgets what killed programs made in network namespaces that are gone, and all that was in them.
///
/// # Errors
/// When the notes cannot be read or removed.
pub fn forget_gone_networks() -> io::Result<()> {
    let killed: Vec<_> = records()?.into_iter().filter(|(_, record)| !record.process().is_alive()).collect();
    if killed.is_empty() {
        return Ok(());
    }
    let of_process = |pid| fs::metadata(format!("/proc/{pid}/ns/net")).map(|metadata| metadata.ino());
    let mut networks: BTreeSet<u64> = proc_fd::pids()?.filter_map(|pid| of_process(pid).ok()).collect();
    // And those that have a name, as `ip netns` gives it: `… net:[4026532000] /run/netns/NAME …`.
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let named =
        mounts.split_ascii_whitespace().filter_map(|word| word.strip_prefix("net:[")?.strip_suffix(']'));
    networks.extend(named.filter_map(|inode| inode.parse::<u64>().ok()));
    for (path, record) in killed {
        if !networks.contains(&record.network) {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Who has a queue of ours on this interface, or had it when it ended.
pub(super) fn owner(index: u32) -> Option<ProcessId> {
    let network = own_network().ok()?;
    let of_interface = |record: &Record| {
        record.network == network && record.interfaces.iter().any(|entry| entry.index == index)
    };
    let records = records().ok()?.into_iter().map(|(_, record)| record);
    // Who runs comes before who has ended.
    records.filter(of_interface).map(|record| record.process()).max_by_key(|process| process.is_alive())
}

/// All that has been noted, but for what cannot be read: that is somebody else's, or half written.
fn records() -> io::Result<Vec<(PathBuf, Record)>> {
    let entries = match fs::read_dir(DIRECTORY) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let record = |entry: io::Result<fs::DirEntry>| {
        let entry = entry.ok()?;
        let name = entry.file_name();
        let is_ours = name.to_str()?.strip_suffix(SUFFIX)?.starts_with(PREFIX);
        // Root's, as all that we write is: whoever else wrote it does not tell us what to remove.
        let is_sound = is_ours && entry.metadata().is_ok_and(|metadata| metadata.uid() == 0);
        let text = is_sound.then(|| fs::read(entry.path()).ok()).flatten()?;
        Some((entry.path(), serde_json::from_slice(&text).ok()?))
    };
    Ok(entries.filter_map(record).collect())
}

impl Record {
    const fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

impl Leftover {
    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let line = |entry: &Entry| {
            format!("the queue htb {OURS} of {}, left by process {}", entry.name, self.record.pid)
        };
        self.record.interfaces.iter().map(line).collect()
    }

    /// Removes it, and the tags of sockets with it. What is not there any more, or somebody else's by now, is left alone.
    ///
    /// # Errors
    /// What could not be removed; everything else has been.
    pub fn remove(&self) -> io::Result<()> {
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
        let there = links::all(&mut netlink)?;
        let qdiscs = tc::qdiscs(&mut netlink).map_err(io::Error::other)?;
        let mut result = Ok(());
        for entry in &self.record.interfaces {
            let Some(link) = there.iter().find(|link| link.index == entry.index) else { continue };
            if root_of(link, &qdiscs) != Root::Ours {
                continue;
            }
            if let Err(refusal) = restore(&mut netlink, entry) {
                result = Err(io::Error::other(format!("{}: {refusal}", entry.name)));
            }
        }
        untag_all();
        result?;
        remove(&self.path)
    }
}

/// Makes an interface as it was.
pub(super) fn restore(netlink: &mut Netlink, entry: &Entry) -> Result<(), crate::sys::netlink::Refusal> {
    tc::delete_root(netlink, entry.index, OURS)?;
    let now = links::all(netlink)?.into_iter().find(|link| link.index == entry.index);
    match now {
        // The kernel gives a length to interfaces that have none when they get a queue (`qdisc_create`).
        Some(link) if link.queue_len != entry.queue_len => {
            set_queue_len(netlink, entry.index, entry.queue_len)
        }
        _ => Ok(()),
    }
}

/// Takes the numbers of our classes off all sockets that have one.
fn untag_all() {
    for pid in proc_fd::pids().into_iter().flatten() {
        let (Ok(process), Ok(sockets)) = (PidFd::open(pid), proc_fd::sockets(pid)) else { continue };
        for (fd, _) in sockets {
            let Some(socket) = process.duplicate(fd).ok().and_then(TaggedSocket::new) else { continue };
            let priority = socket.field(Field::Priority).unwrap_or_default();
            if tc::Handle(priority).major() == OURS.major() {
                let _ = socket.set_field(Field::Priority, 0);
            }
        }
    }
}
