//! Who is at the other end of a Unix socket, as the kernel noted it when it connected.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
};

use nix::{
    libc,
    sys::socket::{getsockopt, sockopt::PeerCredentials},
};

/// A process, by what it was when it connected. Pids and ids are those of this process's own namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process.
    pub pid: i32,
    /// Its effective user.
    pub uid: u32,
    /// Its effective group, and the supplementary ones.
    pub groups: Vec<u32>,
}

impl Peer {
    /// Who has connected to this socket (`SO_PEERCRED` and `SO_PEERGROUPS`, unix(7)).
    ///
    /// # Errors
    /// When it is no connected Unix socket.
    pub fn of(socket: &impl AsFd) -> io::Result<Self> {
        let credentials = getsockopt(&socket, PeerCredentials)?;
        let mut groups = supplementary_groups(socket)?;
        groups.push(credentials.gid());
        Ok(Self { pid: credentials.pid(), uid: credentials.uid(), groups })
    }
}

/// Those that it had then, and not those that the files of users give it: the two differ after setgroups(2).
fn supplementary_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    const SIZE: usize = size_of::<libc::gid_t>();
    let fd = socket.as_fd().as_raw_fd();
    let mut groups: Vec<libc::gid_t> = vec![0; 64];
    loop {
        let mut length = libc::socklen_t::try_from(groups.len() * SIZE).map_err(io::Error::other)?;
        // SAFETY: the buffer has `length` bytes, and any bytes are group ids.
        let result = unsafe {
            let buffer = groups.as_mut_ptr().cast();
            libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_PEERGROUPS, buffer, &raw mut length)
        };
        let needed = usize::try_from(length).map_err(io::Error::other)?.div_ceil(SIZE);
        if result == 0 {
            groups.truncate(needed);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // Then `length` says how much there is (net/core/sock.c, SO_PEERGROUPS).
        if error.raw_os_error() != Some(libc::ERANGE) || needed <= groups.len() {
            return Err(error);
        }
        groups.resize(needed, 0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use nix::unistd::{getegid, geteuid, getgroups};

    use super::*;

    #[test]
    fn at_the_other_end_of_a_pair_are_we() -> io::Result<()> {
        let (one, _other) = UnixStream::pair()?;
        let peer = Peer::of(&one)?;
        assert_eq!((peer.pid, peer.uid), (std::process::id().cast_signed(), geteuid().as_raw()));
        let mut groups: Vec<u32> = getgroups()?.iter().map(|group| group.as_raw()).collect();
        groups.push(getegid().as_raw());
        assert_eq!(peer.groups, groups);
        Ok(())
    }
}
