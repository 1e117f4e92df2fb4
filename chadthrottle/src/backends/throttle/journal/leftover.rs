//! What a killed program left, and how it is undone.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::PathBuf};

use nix::{
    fcntl::{Flock, FlockArg},
    sys::socket::SockProtocol,
};

use super::{Entry, networks, own_network, record::Note};
use crate::{
    backends::throttle::tc_htb::{OURS, drain},
    process::ProcessId,
    sys::{
        links::{self, set_queue_len},
        netlink::{Netlink, Refusal},
        note,
        pidfd::PidFd,
        proc_fd,
        socket_tag::{Field, TaggedSocket},
        tc,
    },
};

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    process: ProcessId,
    /// What had queues of ours, or why that is not known.
    interfaces: Result<Vec<Entry>, String>,
}

impl Leftover {
    pub(super) fn new(note: Note) -> Self {
        let interfaces = note.record.map(|record| record.interfaces);
        Self { path: note.path, process: note.process, interfaces }
    }

    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let pid = self.process;
        match &self.interfaces {
            Ok(interfaces) => interfaces
                .iter()
                .map(|entry| format!("the queue htb {OURS} of {}, left by process {pid}", entry.name))
                .collect(),
            Err(_) => vec![format!("what the note {} is about, left by process {pid}", self.path.display())],
        }
    }

    /// What is wrong with the note, in a sentence, where it cannot be believed.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        let why = self.interfaces.as_ref().err()?;
        let path = self.path.display();
        Some(format!(
            "{path} is not believed: {why}. Only queues that carry the signature of process {} are taken for its, and \
             how many packets could wait for their interfaces is not known",
            self.process
        ))
    }

    /// Removes it, and the tags of sockets with it. What is not there any more, or somebody else's by now, is left alone.
    ///
    /// # Errors
    /// What could not be removed; everything else has been.
    pub fn remove(&self) -> io::Result<()> {
        let Some(locked) = self.lock()? else { return Ok(()) };
        locked.remove_queues()?;
        untag_all();
        locked.forget()
    }

    /// The note, locked: who undoes what it says holds this, so that whoever comes second finds nothing to do, and
    /// nobody undoes what the next one has made. Where somebody is at it, waits until that is done. None where it is gone.
    pub(in crate::backends::throttle) fn lock(&self) -> io::Result<Option<Locked<'_>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let lock = Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error)?;
        let inode = lock.metadata()?.ino();
        let is_there = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == inode);
        Ok(is_there.then_some(Locked { leftover: self, _lock: lock }))
    }
}

/// Something left that nobody else undoes meanwhile.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Locked<'a> {
    leftover: &'a Leftover,
    _lock: Flock<File>,
}

impl Locked<'_> {
    /// Removes its queues.
    pub(in crate::backends::throttle) fn remove_queues(&self) -> io::Result<()> {
        let Leftover { process, interfaces, .. } = self.leftover;
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
        let qdiscs = tc::qdiscs(&mut netlink).map_err(io::Error::other)?;
        let signature = process.signature();
        let is_its = |qdisc: &&tc::Qdisc| {
            qdisc.is_root && qdisc.kind == "htb" && qdisc.handle == OURS && qdisc.signature == Some(signature)
        };
        let its: Vec<u32> = qdiscs.iter().filter(is_its).map(|qdisc| qdisc.interface).collect();
        let mut result = Ok(());
        for link in links::all(&mut netlink)?.into_iter().filter(|link| its.contains(&link.index)) {
            let unknown = || Entry { index: link.index, name: link.name.clone(), queue_len: link.queue_len };
            let noted = match interfaces {
                Ok(interfaces) => interfaces.iter().find(|entry| entry.index == link.index).cloned(),
                Err(_) => Some(unknown()),
            };
            let Some(entry) = noted else { continue };
            // Whatever comes of that, the queue goes.
            let _ = drain(&mut netlink, link.index);
            if let Err(refusal) = restore(&mut netlink, &entry) {
                result = Err(io::Error::other(format!("{}: {refusal}", link.name)));
            }
        }
        result
    }

    /// Forgets the note. One that is not believed is kept as long as what it is about may be in another network namespace.
    pub(in crate::backends::throttle) fn forget(&self) -> io::Result<()> {
        let Leftover { path, interfaces, .. } = self.leftover;
        if interfaces.is_err() && networks()?.iter().any(|network| own_network().ok() != Some(*network)) {
            log::info!("{} is kept: what it is about may be in another network namespace", path.display());
            return Ok(());
        }
        note::remove(path)
    }
}

/// Makes an interface as it was.
pub(in crate::backends::throttle) fn restore(netlink: &mut Netlink, entry: &Entry) -> Result<(), Refusal> {
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

/// Takes the numbers of our classes off all sockets of this network namespace that have one.
fn untag_all() {
    let here = TaggedSocket::own_network();
    for pid in proc_fd::pids().into_iter().flatten() {
        let (Ok(process), Ok(sockets)) = (PidFd::open(pid), proc_fd::sockets(pid)) else { continue };
        for (fd, _) in sockets {
            let Some(socket) = process.duplicate(fd).ok().and_then(TaggedSocket::new) else { continue };
            let priority = socket.field(Field::Priority).unwrap_or_default();
            if tc::Handle(priority).major() == OURS.major() && socket.network() == here {
                let _ = socket.set_field(Field::Priority, 0);
            }
        }
    }
}
