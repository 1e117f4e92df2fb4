//! What a killed program left, and how it is undone.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::PathBuf};

use nix::sys::socket::SockProtocol;

use super::{Entry, record::Note};
use crate::{
    backends::throttle::tc_htb::{OURS, drain},
    instances::{self, lock_within},
    process::ProcessId,
    sys::{
        links::{self, set_queue_len},
        namespace::{networks, own_network},
        netlink::{Netlink, Refusal},
        note,
        pidfd::PidFd,
        proc_fd,
        socket_tag::{Field, TaggedSocket},
        tc::{self, Handle},
    },
};

/// What one killed program left in this network namespace.
#[derive(Debug)]
pub struct Leftover {
    path: PathBuf,
    process: ProcessId,
    /// What had queues of ours, or why that is not known.
    interfaces: Result<Vec<Entry>, String>,
    /// Classes of queues that have another number than ours.
    classes: Vec<Handle>,
}

impl Leftover {
    pub(super) fn new(note: Note) -> Self {
        let (interfaces, classes) = match note.record {
            Ok(record) => (Ok(record.interfaces), record.classes),
            Err(why) => (Err(why), Vec::new()),
        };
        let classes = classes.into_iter().map(Handle).collect();
        Self { path: note.path, process: note.process, interfaces, classes }
    }

    /// What it is, a line each.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let pid = self.process;
        match &self.interfaces {
            Ok(interfaces) => interfaces
                .iter()
                .map(|entry| {
                    let what = if entry.is_shared { "our classes in the queue" } else { "the queue" };
                    format!("{what} htb {} of {}, left by process {pid}", entry.handle(), entry.name)
                })
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
            "{path} is not believed: {why}. Only queues that carry the signature of process {} are taken for its (not \
             classes in other people's queues), and how many packets could wait for their interfaces is not known",
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
        untag_all(&self.classes);
        locked.forget()
    }

    /// The note, locked: who undoes what it says holds this, so that whoever comes second finds nothing to do, and
    /// nobody undoes what the next one has made. Where somebody is at it, waits until that is done, but not forever: whoever
    /// may read the note may lock it, and keep it so. None where it is gone.
    pub(in crate::backends::throttle) fn lock(&self) -> io::Result<Option<Locked<'_>>> {
        let file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        let inode = file.metadata()?.ino();
        let lock = lock_within(file, instances::PATIENCE).inspect_err(|error| {
            log::warn!("somebody else has locked {}, which is not waited for: {error}", self.path.display());
        });
        let is_there = std::fs::metadata(&self.path).is_ok_and(|metadata| metadata.ino() == inode);
        Ok(is_there.then_some(Locked { leftover: self, _lock: lock.ok() }))
    }
}

/// Something left that nobody else undoes meanwhile.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Locked<'a> {
    leftover: &'a Leftover,
    _lock: Option<File>,
}

impl Locked<'_> {
    /// Removes its queues.
    pub(in crate::backends::throttle) fn remove_queues(&self) -> io::Result<()> {
        let Leftover { process, interfaces, classes, .. } = self.leftover;
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)?;
        let qdiscs = tc::qdiscs(&mut netlink).map_err(io::Error::other)?;
        let signature = process.signature();
        let mut result = Ok(());
        for link in links::all(&mut netlink)? {
            let mut of_link = qdiscs.iter().filter(|qdisc| qdisc.interface == link.index);
            let Some(root) = of_link.find(|qdisc| qdisc.is_root && qdisc.kind == "htb") else { continue };
            let is_its = root.htb.is_some_and(|htb| htb.signature == signature);
            let noted = match interfaces {
                Ok(interfaces) => interfaces.iter().find(|entry| entry.index == link.index).cloned(),
                Err(_) => Some(Entry::new(&link, root.handle)),
            };
            let removed = match noted.filter(|entry| entry.handle() == root.handle) {
                Some(entry) if entry.is_shared => remove_classes(&mut netlink, &entry, classes, signature),
                Some(entry) if is_its => remove_queue(&mut netlink, &entry, signature),
                _ => Ok(()),
            };
            if let Err(refusal) = removed {
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

/// Takes our queue away.
fn remove_queue(netlink: &mut Netlink, entry: &Entry, signature: u32) -> Result<(), Refusal> {
    let all = tc::classes(netlink, entry.index).unwrap_or_default();
    let of_queue = |class: &&tc::Class| class.handle.major() == entry.handle().major();
    let its: Vec<Handle> = all.iter().filter(of_queue).map(|class| class.handle).collect();
    // Whatever comes of that, the queue goes.
    let _ = drain(netlink, entry.index, &its, signature);
    restore(netlink, entry)
}

/// Takes those of these classes away that have our signature, from a queue that is somebody else's.
fn remove_classes(
    netlink: &mut Netlink,
    entry: &Entry,
    classes: &[Handle],
    signature: u32,
) -> Result<(), Refusal> {
    let all = tc::classes(netlink, entry.index)?;
    let is_its = |class: &&tc::Class| classes.contains(&class.handle) && class.is_signed(signature);
    let its: Vec<Handle> = all.iter().filter(is_its).map(|class| class.handle).collect();
    let _ = drain(netlink, entry.index, &its, signature);
    its.into_iter().try_for_each(|class| tc::delete_class(netlink, entry.index, class))
}

/// Makes an interface as it was.
pub(in crate::backends::throttle) fn restore(netlink: &mut Netlink, entry: &Entry) -> Result<(), Refusal> {
    // The classes have gone one by one.
    if entry.is_shared {
        return Ok(());
    }
    tc::delete_root(netlink, entry.index, entry.handle())?;
    // That there is none is no error, and is not believed: nobody would look for it any more.
    let is_it = |one: &tc::Qdisc| {
        one.interface == entry.index && one.is_root && one.kind == "htb" && one.handle == entry.handle()
    };
    if tc::qdiscs(netlink)?.iter().any(is_it) {
        tc::delete_root(netlink, entry.index, entry.handle())?;
    }
    let now = links::all(netlink)?.into_iter().find(|link| link.index == entry.index);
    match now {
        // The kernel gives a length to interfaces that have none when they get a queue (`qdisc_create`).
        Some(link) if link.queue_len != entry.queue_len => {
            set_queue_len(netlink, entry.index, entry.queue_len)
        }
        _ => Ok(()),
    }
}

/// Takes the numbers of our classes, and of these, off all sockets of this network namespace that have one.
fn untag_all(classes: &[Handle]) {
    let here = TaggedSocket::own_network();
    for pid in proc_fd::pids().into_iter().flatten() {
        let (Ok(process), Ok(sockets)) = (PidFd::open(pid), proc_fd::sockets(pid)) else { continue };
        for (fd, _) in sockets {
            let Some(socket) = process.duplicate(fd).ok().and_then(TaggedSocket::new) else { continue };
            let priority = Handle(socket.field(Field::Priority).unwrap_or_default());
            let is_ours = priority.major() == OURS.major() || classes.contains(&priority);
            if is_ours && socket.network() == here {
                let _ = socket.set_field(Field::Priority, 0);
            }
        }
    }
}
