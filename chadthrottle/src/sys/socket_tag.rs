//! What a socket's packets carry for queues and filters: their priority and their mark (socket(7)).

use std::{
    io,
    net::{Ipv4Addr, UdpSocket},
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use nix::{errno::Errno, libc};

/// `SO_NETNS_COOKIE` (`include/uapi/asm-generic/socket.h`).
const NETNS_COOKIE: libc::c_int = 71;

/// A socket whose packets leave by an interface. While it lives, the connection does: where it is a duplicate, keep it
/// for as short as possible.
#[derive(Debug)]
pub struct TaggedSocket(OwnedFd);

/// What packets carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `skb->priority`, from `SO_PRIORITY`.
    Priority,
    /// `skb->mark`, from `SO_MARK`.
    Mark,
}

impl TaggedSocket {
    /// Takes a descriptor. None where it is a socket that sends nothing by an interface.
    #[must_use]
    pub fn new(socket: OwnedFd) -> Option<Self> {
        let socket = Self(socket);
        let family = socket.get::<libc::c_int>(libc::SO_DOMAIN).ok()?;
        matches!(family, libc::AF_INET | libc::AF_INET6 | libc::AF_PACKET).then_some(socket)
    }

    /// The number that tells it from all other sockets since boot.
    ///
    /// # Errors
    /// When the kernel does not tell (before 4.12).
    pub fn cookie(&self) -> io::Result<u64> {
        Ok(self.get(libc::SO_COOKIE)?)
    }

    /// The number of the network namespace that it is in. None where the kernel does not tell (before 5.14).
    #[must_use]
    pub fn network(&self) -> Option<u64> {
        self.get(NETNS_COOKIE).ok()
    }

    /// The number of the network namespace of this thread, likewise.
    #[must_use]
    pub fn own_network() -> Option<u64> {
        Self::new(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?.into())?.network()
    }

    /// What its packets carry.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn field(&self, field: Field) -> io::Result<u32> {
        Ok(self.get(field.option())?)
    }

    /// Sets what its packets carry from now on.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_ADMIN`.
    pub fn set_field(&self, field: Field, value: u32) -> io::Result<()> {
        let length = libc::socklen_t::try_from(size_of_val(&value)).unwrap_or_default();
        // SAFETY: the pointer is to a live integer of that length.
        let result = unsafe {
            libc::setsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                field.option(),
                (&raw const value).cast(),
                length,
            )
        };
        Ok(Errno::result(result).map(drop)?)
    }

    fn get<T: Default>(&self, option: libc::c_int) -> Result<T, Errno> {
        let mut value = T::default();
        let mut length = libc::socklen_t::try_from(size_of::<T>()).unwrap_or_default();
        // SAFETY: the kernel writes at most `length` bytes to `value`, an integer of that length.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_SOCKET,
                option,
                (&raw mut value).cast(),
                &raw mut length,
            )
        };
        Errno::result(result).map(|_| value)
    }
}

impl AsFd for TaggedSocket {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Field {
    const fn option(self) -> libc::c_int {
        match self {
            Self::Priority => libc::SO_PRIORITY,
            Self::Mark => libc::SO_MARK,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn a_priority_is_set_and_read() {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port is free");
        let socket = TaggedSocket::new(socket.into()).expect("it leaves by an interface");
        assert_eq!(socket.field(Field::Priority).ok(), Some(0));
        // Up to 6 anybody may.
        socket.set_field(Field::Priority, 5).expect("anybody may");
        assert_eq!(socket.field(Field::Priority).ok(), Some(5));
        assert_ne!(socket.cookie().expect("since 4.12"), 0);
    }

    #[test]
    fn a_unix_socket_is_none() {
        let socket = UnixDatagram::unbound().expect("descriptors are left");
        assert!(TaggedSocket::new(socket.into()).is_none());
    }
}
