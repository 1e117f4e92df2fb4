//! Another process's open sockets.

use std::{
    fs, io,
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd},
    time::Duration,
};

use nix::libc;

use super::{pipe::wait_readable, socket_cgroup::received_for};

/// A process, held so that its pid cannot become another's meanwhile (`pidfd_open(2)`).
#[derive(Debug)]
pub struct PidFd {
    handle: OwnedFd,
    pid: i32,
}

impl PidFd {
    /// Takes hold of the process that has this pid now.
    ///
    /// # Errors
    /// `ESRCH` when there is none.
    pub fn open(pid: i32) -> io::Result<Self> {
        // SAFETY: takes no pointers; a non-negative result is a new descriptor that nobody else owns.
        unsafe {
            let fd = libc::syscall(libc::SYS_pidfd_open, pid, 0);
            new_descriptor(fd).map(|handle| Self { handle, pid })
        }
    }

    /// Whether it has ended, be it waited for or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        wait_readable(&self.handle, Some(Duration::ZERO)).unwrap_or_default()
    }

    /// Duplicates one of the process's descriptors into this process (`pidfd_getfd(2)`).
    ///
    /// The duplicate keeps a connection open when its owner closes it: keep it for as short as possible. A socket keeps the
    /// cgroups of `net_cls` and `net_prio` that it has from its owner ([`socket_cgroup`](super::socket_cgroup)).
    ///
    /// # Errors
    /// `EPERM` without ptrace access to the process, `EBADF` when it has closed the descriptor.
    pub fn duplicate(&self, fd: RawFd) -> io::Result<OwnedFd> {
        received_for(self.pid, || {
            // SAFETY: takes no pointers; a non-negative result is a new descriptor that nobody else owns.
            unsafe {
                let fd = libc::syscall(libc::SYS_pidfd_getfd, self.handle.as_raw_fd(), fd, 0);
                new_descriptor(fd)
            }
        })
    }
}

/// Whether there is that call, and no sandbox forbids it.
#[must_use]
pub fn can_duplicate() -> bool {
    let us = PidFd::open(std::process::id().cast_signed());
    // A descriptor that nobody has.
    us.and_then(|us| us.duplicate(RawFd::MAX)).is_err_and(|error| error.raw_os_error() == Some(libc::EBADF))
}

/// Wraps what a system call returned.
///
/// # Safety
/// A non-negative `result` is an open descriptor that nobody else owns.
unsafe fn new_descriptor(result: libc::c_long) -> io::Result<OwnedFd> {
    match RawFd::try_from(result) {
        // SAFETY: as promised by the caller.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The descriptors of a process that are sockets of any family.
///
/// # Errors
/// When the process has ended or /proc does not let us look.
pub fn sockets(pid: i32) -> io::Result<Vec<RawFd>> {
    let mut sockets = Vec::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fd"))? {
        let entry = entry?;
        // A descriptor may be closed at any moment: what cannot be read any more is not there any more.
        let Ok(link) = fs::read_link(entry.path()) else { continue };
        if link.as_os_str().as_encoded_bytes().starts_with(b"socket:[")
            && let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok())
        {
            sockets.push(fd);
        }
    }
    Ok(sockets)
}

/// Whether a socket speaks IP.
#[must_use]
pub fn is_inet(socket: &impl AsFd) -> bool {
    matches!(option(socket, libc::SO_DOMAIN), Some(libc::AF_INET | libc::AF_INET6))
}

/// Whether a socket speaks TCP.
#[must_use]
pub fn is_tcp(socket: &impl AsFd) -> bool {
    option(socket, libc::SO_PROTOCOL) == Some(libc::IPPROTO_TCP)
}

/// The value of a socket's option that is a number (`socket(7)`).
fn option(socket: &impl AsFd, name: libc::c_int) -> Option<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
    // SAFETY: the pointers are to a live integer and to its size.
    let result = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(value)
}
