//! Owners for sockets that were open before the programs were attached.
//!
//! The kernel lets userspace write a socket's storage with a descriptor of the socket as key; `pidfd_getfd` gives
//! one for a socket that another process has open. The duplicate is closed at once: while it is open, the
//! connection would survive its owner's close.

use std::{io, os::fd::AsFd};

use aya::maps::{MapData, MapError, SkStorage};
use chadthrottle_common::ProcessKey;

use crate::{
    process::{ProcessId, cgroup_path},
    sys::{
        cgroup::CgroupRoot,
        pidfd::{PidFd, is_inet, sockets},
    },
};

/// The map of owners.
type Owners = SkStorage<MapData, ProcessKey>;

/// What to do with an owner that a socket has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays.
    Kept,
    /// The process that we look at has it open now, and takes its place.
    Replaced,
}

impl Existing {
    /// The flag for `bpf_map_update_elem`: `BPF_NOEXIST` or `BPF_ANY` (include/uapi/linux/bpf.h).
    const fn flag(self) -> u64 {
        match self {
            Self::Kept => 1,
            Self::Replaced => 0,
        }
    }
}

/// Gives every ownerless socket below `root` the process that has it open.
///
/// Twice: a connection that a listener without an owner accepted during the first pass, with a descriptor number
/// that the pass had gone by, is found in the second, and listeners hand on their owner by then.
pub(super) fn adopt_everything(owners: &mut Owners, root: &CgroupRoot) {
    for _ in 0..2 {
        let processes = match procfs::process::all_processes() {
            Ok(processes) => processes,
            Err(error) => {
                log::warn!("sockets that were open before have no owner: cannot read /proc: {error}");
                return;
            }
        };
        for process in processes.flatten() {
            // A cgroup that cannot be read is the process's last moment.
            if !cgroup_path(&process).is_some_and(|path| root.contains(&path)) {
                continue;
            }
            let Ok(stat) = process.stat() else { continue };
            let id = ProcessId { pid: stat.pid, start_time: stat.starttime };
            if let Err(error) = adopt(owners, id, Existing::Kept)
                && !has_ended(&error)
            {
                log::debug!("sockets of {} ({id}) keep no owner: {error}", stat.comm);
            }
        }
    }
}

/// Makes a process the owner of its open sockets.
pub(super) fn adopt(owners: &mut Owners, process: ProcessId, existing: Existing) -> io::Result<()> {
    let open = sockets(process.pid)?;
    if open.is_empty() {
        return Ok(());
    }
    let pidfd = PidFd::open(process.pid)?;
    let key = key(process);
    for fd in open {
        let socket = match pidfd.duplicate(fd) {
            Ok(socket) => socket,
            // Closed since it was listed.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => continue,
            Err(error) => return Err(error),
        };
        if is_inet(&socket) {
            tag(owners, &socket, key, existing)?;
        }
    }
    Ok(())
}

fn tag(owners: &mut Owners, socket: &impl AsFd, key: ProcessKey, existing: Existing) -> io::Result<()> {
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd());
    match owners.insert(&fd, key, existing.flag()) {
        Ok(()) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::EEXIST) => Ok(()),
        Err(error) => Err(io::Error::other(error)),
    }
}

/// A process's key in the maps.
pub(super) fn key(process: ProcessId) -> ProcessKey {
    // A pid is positive.
    ProcessKey { tgid: process.pid.unsigned_abs(), _padding: 0, start_time: process.start_time }
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ESRCH | nix::libc::ENOENT))
}
