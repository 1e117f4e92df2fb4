//! Packet sockets (packet(7)): what passes the interfaces, as far as a filter lets it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::{
    libc,
    sys::socket::{
        setsockopt,
        sockopt::{RcvBuf, RcvBufForce},
    },
};

/// One instruction of a classic BPF program.
pub type Instruction = libc::sock_filter;

/// What a packet begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Its link layer header, and before that what segmentation offload made of it (`struct virtio_net_hdr`).
    Link,
    /// Its network layer header, on whatever link.
    Network,
}

/// A packet socket that hears nothing until it is bound.
#[derive(Debug)]
pub struct PacketSocket(OwnedFd);

impl PacketSocket {
    /// Opens one.
    ///
    /// # Errors
    /// `EPERM` without `CAP_NET_RAW`; `EAFNOSUPPORT` where the kernel has no packet sockets.
    pub fn open(framing: Framing) -> io::Result<Self> {
        let kind = match framing {
            Framing::Link => libc::SOCK_RAW,
            Framing::Network => libc::SOCK_DGRAM,
        };
        // SAFETY: takes no pointers; a result that is not -1 is a new descriptor that nobody else owns.
        let socket = unsafe {
            // Protocol 0 is none.
            match libc::socket(libc::AF_PACKET, kind | libc::SOCK_CLOEXEC, 0) {
                -1 => return Err(io::Error::last_os_error()),
                fd => Self(OwnedFd::from_raw_fd(fd)),
            }
        };
        if framing == Framing::Link {
            let on: libc::c_int = 1;
            socket.set(libc::SOL_PACKET, libc::PACKET_VNET_HDR, &on)?;
        }
        Ok(socket)
    }

    /// Another descriptor of the same socket.
    ///
    /// # Errors
    /// When there is none left.
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        self.0.try_clone()
    }

    /// From here on only packets that `program` accepts, and of those as many bytes as it returns.
    ///
    /// # Errors
    /// When the program is not one, or too long.
    pub fn set_filter(&self, program: &[Instruction]) -> io::Result<()> {
        let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
        // The kernel does not write to it.
        let filter = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
        self.set(libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter)
    }

    /// Room for packets that have not been read yet. Without `CAP_NET_ADMIN` at most `net.core.rmem_max`.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn set_room(&self, bytes: usize) -> io::Result<()> {
        if setsockopt(&self.0, RcvBufForce, &bytes).is_err() {
            setsockopt(&self.0, RcvBuf, &bytes)?;
        }
        Ok(())
    }

    /// How many packets found no room since the last call.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn take_drops(&self) -> io::Result<u64> {
        let mut counters = libc::tpacket_stats { tp_packets: 0, tp_drops: 0 };
        let mut length = length_of(&counters);
        // SAFETY: the pointers are to a live structure and to its size.
        let result = unsafe {
            libc::getsockopt(
                self.0.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_STATISTICS,
                (&raw mut counters).cast(),
                &raw mut length,
            )
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(counters.tp_drops.into()) }
    }

    fn set<T>(&self, level: libc::c_int, name: libc::c_int, value: &T) -> io::Result<()> {
        // SAFETY: the pointer is to a live value of that size, and what it points to (a filter's instructions) lives
        // longer than the call.
        let result = unsafe {
            let pointer = (&raw const *value).cast();
            libc::setsockopt(self.0.as_raw_fd(), level, name, pointer, length_of(value))
        };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn length_of<T>(value: &T) -> libc::socklen_t {
    libc::socklen_t::try_from(size_of_val(value)).unwrap_or_default()
}
