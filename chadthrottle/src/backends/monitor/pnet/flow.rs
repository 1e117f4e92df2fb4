//! What packets have in common that belong to one socket.

use std::net::{IpAddr, SocketAddr};

use crate::sys::socket_lookup::Protocol;

/// Which way a packet goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Direction {
    /// It leaves this host.
    Upload,
    /// It arrives.
    Download,
}

/// Two ends of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Flow {
    pub(super) protocol: Protocol,
    pub(super) local: (IpAddr, u16),
    pub(super) remote: (IpAddr, u16),
}

impl Flow {
    pub(super) fn local(&self) -> SocketAddr {
        self.local.into()
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.remote.into()
    }
}

/// A packet, as far as it matters whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observation {
    /// None where it belongs to no conversation that a socket has: neither TCP nor UDP, or a fragment of something
    /// that was not seen.
    pub(super) flow: Option<Flow>,
    pub(super) direction: Direction,
    /// IP bytes as they travel.
    pub(super) bytes: u64,
    /// A TCP connection begins with it, so that it may be another process's than what was seen of this flow before.
    pub(super) opens: bool,
}
