//! TCP sockets of this network namespace, as the kernel's `sock_diag` tells of them (`sock_diag(7)`).
//!
//! None of it needs a privilege: every user may ask for all sockets, and hear of those that end.

use std::io;

use netlink_packet_core::{
    DecodeError, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::{
    SockDiagMessage,
    constants::{AF_INET, AF_INET6, IPPROTO_TCP},
    inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags},
};
use nix::{
    errno::Errno,
    sys::socket::{
        SockFlag, SockProtocol, setsockopt,
        sockopt::{RcvBuf, RcvBufForce},
    },
};

use super::netlink::Channel;

/// Groups 1 and 3, `SKNLGRP_INET_TCP_DESTROY` and `SKNLGRP_INET6_TCP_DESTROY` (`include/uapi/linux/sock_diag.h`), as
/// bits counted from 1.
const TCP_DESTROY_GROUPS: u32 = 0b101;
/// Room for notes of sockets that ended between two readings, 1.3 KB each; the kernel gives twice of what is asked for.
/// An ordinary user gets at most `net.core.rmem_max` of it.
const NOTES: usize = 8 << 20;

/// The states in which a socket is one end of a connection of its own and has counters. A LISTEN socket has none, a
/// half-open connection (`SYN_RECV`) is no socket yet, and `TIME_WAIT` keeps nothing but the ports.
const STATES: StateFlags = StateFlags::ESTABLISHED
    .union(StateFlags::SYN_SENT)
    .union(StateFlags::FIN_WAIT1)
    .union(StateFlags::FIN_WAIT2)
    .union(StateFlags::CLOSE_WAIT)
    .union(StateFlags::LAST_ACK)
    .union(StateFlags::CLOSING);

/// A netlink socket to the part of the kernel that knows sockets.
fn open(groups: u32, flags: SockFlag) -> io::Result<Channel> {
    Channel::open(SockProtocol::NetlinkSockDiag, groups, flags)
}

/// Asks for sockets.
#[derive(Debug)]
pub struct SocketDump {
    channel: Channel,
    /// Tells answers to this question from what is left of one that failed half-way.
    sequence: u32,
}

impl SocketDump {
    /// Opens the way to the kernel; asks nothing yet, and makes it load nothing.
    ///
    /// # Errors
    /// When the kernel was built without it, or a sandbox forbids it.
    pub fn open() -> io::Result<Self> {
        Ok(Self { channel: open(0, SockFlag::empty())?, sequence: 0 })
    }

    /// Shows every TCP socket that is an end of a connection, with its `tcp_info`.
    ///
    /// # Errors
    /// When the kernel does not answer, or with an error: `ENOENT` where it has no `tcp_diag`.
    pub fn tcp(&mut self, mut each: impl FnMut(InetResponse)) -> io::Result<()> {
        for (family, any) in [(AF_INET, SocketId::new_v4()), (AF_INET6, SocketId::new_v6())] {
            self.sequence = self.sequence.wrapping_add(1);
            let request = request(family, any, self.sequence);
            self.channel.send(&request)?;
            self.read_answer(&mut each)?;
        }
        Ok(())
    }

    fn read_answer(&mut self, each: &mut impl FnMut(InetResponse)) -> io::Result<()> {
        loop {
            let Some(datagram) = self.channel.receive()? else { return Err(io::ErrorKind::TimedOut.into()) };
            for message in messages(datagram) {
                // What cannot be read is left out: a kernel may tell of things that are new since this was written.
                let Ok(message) = message else { continue };
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => each(*socket),
                    NetlinkPayload::Done(done) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(done.code.saturating_neg()));
                    }
                    NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::Error(error) => return Err(error.to_io()),
                    _ => {}
                }
            }
        }
    }
}

/// Hears of sockets that end, each with its last `tcp_info`.
#[derive(Debug)]
pub struct SocketEnds(Channel);

impl SocketEnds {
    /// Listens from now on.
    ///
    /// # Errors
    /// When the kernel was built without it, or a sandbox forbids it.
    pub fn listen() -> io::Result<Self> {
        let channel = open(TCP_DESTROY_GROUPS, SockFlag::SOCK_NONBLOCK)?;
        // The first needs CAP_NET_ADMIN and knows no maximum.
        if setsockopt(&channel, RcvBufForce, &NOTES).is_err() {
            setsockopt(&channel, RcvBuf, &NOTES)?;
        }
        Ok(Self(channel))
    }

    /// Shows every TCP socket that has ended since the last call. Returns how often notes did not fit in the buffer
    /// any more: once or more means that some sockets were left out.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn drain(&mut self, mut each: impl FnMut(InetResponse)) -> io::Result<u64> {
        let mut overflows = 0;
        loop {
            match self.0.receive() {
                Ok(Some(datagram)) => {
                    for message in messages(datagram).flatten() {
                        if let NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) =
                            message.payload
                        {
                            each(*socket);
                        }
                    }
                }
                Ok(None) => return Ok(overflows),
                Err(Errno::ENOBUFS) => overflows += 1,
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The question for all TCP sockets of a family.
fn request(family: u8, socket_id: SocketId, sequence: u32) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    header.sequence_number = sequence;
    let extensions = ExtensionFlags::INFO;
    let request = InetRequest { family, protocol: IPPROTO_TCP, extensions, states: STATES, socket_id };
    let mut message =
        NetlinkMessage::new(header, NetlinkPayload::from(SockDiagMessage::InetRequest(request)));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// The messages in a datagram: each by itself, so that one that cannot be read does not hide the others.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Result<NetlinkMessage<SockDiagMessage>, DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        // Where not even the length holds, nothing after it can be found.
        let length = NetlinkBuffer::new_checked(rest).ok()?.length();
        let message = NetlinkMessage::deserialize(rest);
        // NLMSG_ALIGN: the next one begins on a multiple of four.
        let next = usize::try_from(length).unwrap_or(usize::MAX).saturating_add(3) & !3;
        rest = rest.get(next..).unwrap_or_default();
        Some(message)
    })
}

/// What holds of any datagram. `each` gets every socket that is told of.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(datagram: &[u8], mut each: impl FnMut(&InetResponse)) {
    let mut count = 0;
    for message in messages(datagram) {
        count += 1;
        if let Ok(NetlinkMessage {
            payload: NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)),
            ..
        }) = message
        {
            each(&socket);
        }
    }
    assert!(count <= datagram.len() / size_of::<[u32; 4]>(), "{count} messages");
}

/// What another reader has in an answer is what this one has.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz_answer(body: &[u8], read: &super::inet_diag::InetSocket) {
    use netlink_packet_core::Parseable;
    if let Ok(InetResponse { header, .. }) = InetResponse::parse(body) {
        assert_eq!(header.inode, read.inode);
        assert_eq!(u64::from_ne_bytes(header.socket_id.cookie), read.cookie);
        assert_eq!(header.socket_id.source_address.to_canonical(), read.local.ip());
        assert_eq!(header.socket_id.destination_port, read.remote.port());
    }
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DoneMessage;
    use netlink_packet_sock_diag::{
        constants::TCP_ESTABLISHED,
        inet::{InetResponseHeader, nlas::Nla},
    };
    use proptest::prelude::*;

    use super::*;

    fn serialize(payload: NetlinkPayload<SockDiagMessage>) -> Vec<u8> {
        let mut message = NetlinkMessage::new(NetlinkHeader::default(), payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// An answer as the kernel gives it: some sockets, and the end.
    fn answer() -> Vec<u8> {
        let socket = |inode, info: usize| {
            let header = InetResponseHeader {
                family: AF_INET,
                state: TCP_ESTABLISHED,
                timer: None,
                socket_id: SocketId::new_v4(),
                recv_queue: 0,
                send_queue: 0,
                uid: 1000,
                inode,
            };
            // Lengths that need padding, and that do not.
            let nlas = [Nla::Shutdown(0), Nla::TcpInfo(vec![7; info])].into_iter().collect();
            let response = Box::new(InetResponse { header, nlas });
            serialize(NetlinkPayload::from(SockDiagMessage::InetResponse(response)))
        };
        let done = serialize(NetlinkPayload::Done(DoneMessage::default()));
        [socket(1, 232), socket(2, 280), socket(3, 99), done].concat()
    }

    #[test]
    fn an_answer_is_read_whole() {
        let payloads: Vec<_> = messages(&answer()).map(|message| message.expect("sound").payload).collect();
        let inodes = payloads.iter().filter_map(|payload| match payload {
            NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(socket)) => Some(socket.header.inode),
            _ => None,
        });
        assert_eq!(inodes.collect::<Vec<_>>(), [1, 2, 3]);
        assert!(matches!(payloads.last(), Some(NetlinkPayload::Done(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic_and_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
        }

        #[test]
        fn a_damaged_answer_is_read_without_a_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = answer();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            prop_assert!(messages(&bytes).count() <= bytes.len() / 16);
        }
    }
}
