//! Owners for sockets that were open before the programs were attached.
//!
//! The kernel lets userspace write a socket's storage with a descriptor of the socket as key; `pidfd_getfd` gives
//! one for a socket that another process has open. The duplicate is closed at once: while it is open, the
//! connection would survive its owner's close.

use std::{io, os::fd::AsRawFd};

use aya::maps::{MapData, MapError, SkStorage};
use chadthrottle_common::{ProcessKey, ProcessRecord, SocketOwner};
use procfs::{ProcError, process::Process};

use super::Accounts;
use crate::{
    process::{ProcessId, cgroup_path},
    sys::{
        cgroup::CgroupRoot,
        namespace,
        pidfd::{PidFd, is_inet, is_tcp, sockets},
    },
};

/// What an adoption writes.
pub(super) struct Tables<'a> {
    /// The owner of each socket.
    pub(super) owners: &'a mut SkStorage<MapData, SocketOwner>,
    /// What is known of each owner.
    pub(super) accounts: &'a mut Accounts,
}

/// Flags of `bpf_map_update_elem` (include/uapi/linux/bpf.h).
const BPF_ANY: u64 = 0;
pub(super) const BPF_NOEXIST: u64 = 1;

/// What to do with an owner that a socket has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Existing {
    /// It stays.
    Kept,
    /// The process that we look at has it open now, and takes its place.
    Replaced,
}

impl Existing {
    /// The flag for `bpf_map_update_elem`.
    const fn flag(self) -> u64 {
        match self {
            Self::Kept => BPF_NOEXIST,
            Self::Replaced => BPF_ANY,
        }
    }
}

/// Gives every ownerless socket below `root` the process that has it open.
///
/// Twice: a connection that a listener without an owner accepted during the first pass, with a descriptor number
/// that the pass had gone by, is found in the second, and listeners hand on their owner by then.
pub(super) fn adopt_everything(tables: &mut Tables<'_>, root: &CgroupRoot) {
    let own_netns = namespace::own_netns_cookie().ok();
    for pass in 0..2 {
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
            if pass == 0 {
                note_program(tables, &process);
            }
            if let Err(error) = adopt_in(tables, process.pid, Existing::Kept, own_netns)
                && !has_ended(&error)
            {
                log::debug!("sockets of process {} keep no owner: {error}", process.pid);
            }
        }
    }
}

/// Notes what a process executes: its children will, too, and may end before anybody asks.
fn note_program(tables: &mut Tables<'_>, process: &Process) {
    if let (Ok(stat), Ok(exe)) = (process.stat(), process.exe()) {
        let id = ProcessId { pid: process.pid, start_time: stat.starttime };
        tables.accounts.note_program(key(id), &exe);
    }
}

/// Makes the process that has this pid now the owner of its open sockets.
pub(super) fn adopt(tables: &mut Tables<'_>, pid: i32, existing: Existing) -> io::Result<()> {
    adopt_in(tables, pid, existing, namespace::own_netns_cookie().ok())
}

fn adopt_in(tables: &mut Tables<'_>, pid: i32, existing: Existing, own_netns: Option<u64>) -> io::Result<()> {
    // Held before it is looked at: from here on the pid cannot become another's.
    let pidfd = PidFd::open(pid)?;
    let open = sockets(pid)?;
    if open.is_empty() {
        return Ok(());
    }
    let (key, record) = identify(pid).map_err(|error| match error {
        ProcError::NotFound(_) => io::Error::from_raw_os_error(nix::libc::ESRCH),
        error => io::Error::other(error),
    })?;
    let mut is_known = false;
    for fd in open {
        let socket = match pidfd.duplicate(fd) {
            Ok(socket) => socket,
            // Closed since it was listed.
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => continue,
            Err(error) => return Err(error),
        };
        if !is_inet(&socket) {
            continue;
        }
        if !is_known {
            // Before its first socket: who sees its bytes finds its name.
            existing_is_fine(tables.accounts.note(key, &record))?;
            is_known = true;
        }
        let fd = socket.as_raw_fd();
        let netns = own_netns.and_then(|own| Some((own, namespace::netns_cookie(&socket).ok()?)));
        let is_elsewhere = u32::from(netns.is_some_and(|(own, of_socket)| own != of_socket));
        let is_stream = u32::from(is_tcp(&socket));
        let owner = SocketOwner { process: key, is_elsewhere, is_stream, ..SocketOwner::default() };
        existing_is_fine(tables.owners.insert(&fd, owner, existing.flag()))?;
    }
    // Whoever ended before it was noted is not seen to end.
    if is_known && !process(key).is_alive() {
        tables.accounts.note_end(key);
    }
    Ok(())
}

fn existing_is_fine(result: Result<(), MapError>) -> io::Result<()> {
    match result {
        Err(MapError::SyscallError(error)) if error.io_error.raw_os_error() == Some(nix::libc::EEXIST) => {
            Ok(())
        }
        result => result.map_err(io::Error::other),
    }
}

/// What the programs note of a process that opens its first socket, for one that has done so before.
fn identify(pid: i32) -> Result<(ProcessKey, ProcessRecord), ProcError> {
    let process = Process::new(pid)?;
    let stat = process.stat()?;
    let mut record = ProcessRecord { uid: process.uid()?, ..ProcessRecord::default() };
    // The last byte stays zero, as in the kernel.
    let (name, space) = (stat.comm.as_bytes(), record.comm.len() - 1);
    let length = name.len().min(space);
    record.comm[..length].copy_from_slice(&name[..length]);
    Ok((key(ProcessId { pid, start_time: stat.starttime }), record))
}

/// The process that a key in the maps stands for.
pub(in crate::backends) fn process(key: ProcessKey) -> ProcessId {
    ProcessId { pid: key.tgid().cast_signed(), start_time: key.start_time() }
}

/// A process's key in the maps.
pub(super) fn key(process: ProcessId) -> ProcessKey {
    // A pid is positive.
    ProcessKey::new(process.pid.unsigned_abs(), process.start_time)
}

fn has_ended(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(nix::libc::ESRCH | nix::libc::ENOENT))
}
