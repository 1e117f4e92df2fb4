//! Which processes a target is.

use std::{
    collections::HashMap,
    io,
    os::fd::{OwnedFd, RawFd},
};

use crate::{
    backends::throttle::{Scope, Target},
    process::ProcessId,
    sys::{
        pidfd::PidFd,
        proc_children::{children, is_own, ptrace_scope},
        proc_fd,
        tcp_socket::TcpSocket,
    },
};

/// A descriptor that nobody has.
const NO_DESCRIPTOR: RawFd = RawFd::MAX;

/// One process of a target.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Member {
    pub(in crate::backends::throttle) id: ProcessId,
    handle: PidFd,
}

/// The processes of a target.
#[derive(Debug)]
pub(in crate::backends::throttle) struct Members {
    scope: Scope,
    members: Vec<Member>,
}

impl Member {
    /// Takes hold of a process.
    fn open(id: ProcessId) -> io::Result<Self> {
        let handle = PidFd::open(id.pid)?;
        // It may have ended, and its pid may have been given to another, before we had it.
        if id.is_alive() { Ok(Self { id, handle }) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// Duplicates one of its descriptors, if that is a TCP socket. To be dropped at once.
    pub(in crate::backends::throttle) fn duplicate(&self, fd: RawFd) -> io::Result<Option<TcpSocket>> {
        Ok(TcpSocket::new(self.handle.duplicate(fd)?))
    }

    /// Duplicates one of its descriptors, whatever it is. To be dropped at once.
    pub(in crate::backends::throttle) fn duplicate_any(&self, fd: RawFd) -> io::Result<OwnedFd> {
        self.handle.duplicate(fd)
    }

    /// Duplicates one of its descriptors, if that is still the socket with this cookie. To be dropped at once.
    pub(in crate::backends::throttle) fn duplicate_known(&self, fd: RawFd, cookie: u64) -> Option<TcpSocket> {
        TcpSocket::known(self.handle.duplicate(fd).ok()?, cookie)
    }

    /// Whether the kernel lets us take hold of its sockets.
    fn check_access(&self) -> io::Result<()> {
        match self.handle.duplicate(NO_DESCRIPTOR) {
            // Access is checked before the descriptor is looked for (`__pidfd_fget`, kernel/pid.c).
            Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Ok(()),
        }
    }
}

impl Members {
    /// Takes hold of a target.
    ///
    /// # Errors
    /// When it has ended, or is not ours to take hold of (`EPERM`).
    pub(in crate::backends::throttle) fn new(target: &Target) -> io::Result<Self> {
        let member = Member::open(target.id)?;
        member.check_access()?;
        let mut members = Self { scope: target.scope, members: vec![member] };
        members.refresh();
        Ok(members)
    }

    /// The process with this pid, if it is one.
    pub(in crate::backends::throttle) fn get(&self, pid: i32) -> Option<&Member> {
        self.members.iter().find(|member| member.id.pid == pid)
    }

    /// The sockets of any family that they have open, by inode: which processes have each, and as what descriptor.
    pub(in crate::backends::throttle) fn open_sockets(&self) -> HashMap<u32, Vec<(i32, RawFd)>> {
        let mut open: HashMap<u32, Vec<_>> = HashMap::new();
        for member in &self.members {
            let pid = member.id.pid;
            for (fd, inode) in proc_fd::sockets(pid).unwrap_or_default() {
                open.entry(inode).or_default().push((pid, fd));
            }
        }
        open
    }

    /// Forgets those that have ended, and takes hold of those that have been started since.
    pub(in crate::backends::throttle) fn refresh(&mut self) {
        self.members.retain(|member| member.id.is_alive());
        if self.scope == Scope::Process {
            return;
        }
        // What lost its parent is ours (see `adopt_orphans`). Nothing else that we start lives longer than a moment.
        let mut parents: Vec<i32> = vec![std::process::id().cast_signed()];
        parents.extend(self.members.iter().map(|member| member.id.pid));
        while let Some(parent) = parents.pop() {
            for pid in children(parent) {
                if self.get(pid).is_some() {
                    continue;
                }
                let member = ProcessId::running(pid).ok().and_then(|id| Member::open(id).ok());
                let Some(member) = member else { continue };
                if let Err(error) = member.check_access() {
                    log::warn!(
                        "what process {pid} sends and receives is not limited: {}",
                        why_denied(pid, &error)
                    );
                }
                self.members.push(member);
                parents.push(pid);
            }
        }
    }
}

/// Why we may not take hold of a process's sockets, and what helps.
pub(in crate::backends::throttle) fn why_denied(pid: i32, error: &io::Error) -> String {
    if error.raw_os_error() != Some(nix::libc::EPERM) {
        return format!("cannot take hold of its sockets: {error}");
    }
    let cause = match ptrace_scope() {
        _ if !is_own(pid) => "it runs as another user".to_owned(),
        Some(scope @ 1..) => format!("kernel.yama.ptrace_scope is {scope}, and it was not started by us"),
        _ => "it has privileges that we do not have".to_owned(),
    };
    format!(
        "{cause}; without CAP_SYS_PTRACE (sudo) only one's own processes can be limited, and where \
         kernel.yama.ptrace_scope is not 0 only those that `chadthrottle run` starts"
    )
}
