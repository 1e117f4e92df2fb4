//! All TCP or UDP sockets of a network namespace, with what the kernel tells of each (`sock_diag(7)`). Nobody needs a
//! privilege to ask.

use std::{
    fmt, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use nix::{libc, sys::socket::SockProtocol};

use super::{
    netlink::{Answers, Netlink, attributes},
    tcp_info::TcpInfo,
};

/// `SOCK_DIAG_BY_FAMILY` (`include/uapi/linux/sock_diag.h`).
pub(super) const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `INET_DIAG_INFO` (`include/uapi/linux/inet_diag.h`).
const INFO: u16 = 2;
/// Offsets in `struct inet_diag_msg` (`include/uapi/linux/inet_diag.h`): four bytes, then the ports and addresses, the
/// interface and the cookie, and four numbers before the inode.
const STATE: usize = 1;
const LOCAL_PORT: usize = 4;
const REMOTE_PORT: usize = 6;
const LOCAL_ADDRESS: usize = 8;
const REMOTE_ADDRESS: usize = 24;
const COOKIE: usize = 44;
pub(super) const INODE: usize = 4 + 48 + 4 * 4;
/// Bytes of a `struct inet_diag_msg`. Attributes follow.
const MESSAGE: usize = INODE + 4;
/// Bytes of the rest of a `struct inet_diag_req_v2`, which for all sockets is zero.
const ANY_SOCKET: [u8; 48] = [0; 48];

/// Protocols whose sockets the kernel tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// As people write it in lists: `tcp`, `udp`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }

    const fn number(self) -> libc::c_int {
        match self {
            Self::Tcp => libc::IPPROTO_TCP,
            Self::Udp => libc::IPPROTO_UDP,
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How far a socket is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// TCP: the connection is made. UDP: it talks with one address alone.
    Established,
    /// It asked for a connection and waits for the answer.
    SynSent,
    /// It has ended its half and waits for that to be acknowledged.
    FinWait1,
    /// It has ended its half, and the other side goes on.
    FinWait2,
    /// The other side has ended its half, and this one goes on.
    CloseWait,
    /// Both have ended theirs, the other one first, and the last acknowledgement is missing.
    LastAck,
    /// Both have ended theirs at once.
    Closing,
    /// It waits for connections.
    Listen,
    /// It has an address, and neither a connection nor waits for one.
    Bound,
    /// TCP: its connection has ended.
    Closed,
    /// UDP: it talks with any address.
    Unconnected,
}

impl State {
    /// As in `tcp(7)`, in small letters: `established`, `fin_wait1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "established",
            Self::SynSent => "syn_sent",
            Self::FinWait1 => "fin_wait1",
            Self::FinWait2 => "fin_wait2",
            Self::CloseWait => "close_wait",
            Self::LastAck => "last_ack",
            Self::Closing => "closing",
            Self::Listen => "listen",
            Self::Bound => "bound",
            Self::Closed => "closed",
            Self::Unconnected => "unconnected",
        }
    }

    /// The states that are asked for, as bits: all but those that are no process's. A half-open connection (`SYN_RECV`,
    /// 3) is no socket yet, and `TIME_WAIT` (6) none any more.
    const ASKED_FOR: u32 = 1 << 1 | 1 << 2 | 1 << 4 | 1 << 5 | 1 << 7 | 0b1111 << 8 | 1 << 13;

    /// By its number in `include/net/tcp_states.h`. UDP uses two of them.
    const fn from_number(protocol: Protocol, number: u8) -> Option<Self> {
        Some(match (protocol, number) {
            (_, 1) => Self::Established,
            (Protocol::Udp, 7) => Self::Unconnected,
            (Protocol::Udp, _) => return None,
            (_, 2) => Self::SynSent,
            (_, 4) => Self::FinWait1,
            (_, 5) => Self::FinWait2,
            (_, 7) => Self::Closed,
            (_, 8) => Self::CloseWait,
            (_, 9) => Self::LastAck,
            (_, 10) => Self::Listen,
            (_, 11) => Self::Closing,
            // TCP_BOUND_INACTIVE, from Linux 6.8 on.
            (_, 13) => Self::Bound,
            _ => return None,
        })
    }
}

/// A socket at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InetSocket {
    /// What it speaks.
    pub protocol: Protocol,
    /// How far it is.
    pub state: State,
    /// Its own end. IPv4 where IPv4 is spoken, whatever family the socket is of.
    pub local: SocketAddr,
    /// The other end; port 0 where there is none.
    pub remote: SocketAddr,
    /// Its inode, as in /proc/PID/fd; 0 while nobody has accepted it, and when everybody has closed it.
    pub inode: u32,
    /// What the kernel tells sockets apart by; never used again.
    pub cookie: u64,
    /// What it has counted, of TCP.
    pub tcp: Option<TcpInfo>,
}

/// Shows every socket of a protocol, IPv4 and IPv6, in the network namespace that `netlink` was opened in. One may come
/// twice where sockets come and go meanwhile.
///
/// # Errors
/// When the kernel does not answer; `NotFound` where it has no `tcp_diag` or `udp_diag`.
pub fn sockets(
    netlink: &mut Netlink,
    protocol: Protocol,
    mut each: impl FnMut(InetSocket),
) -> io::Result<()> {
    for family in [libc::AF_INET, libc::AF_INET6] {
        netlink.ask(SOCK_DIAG_BY_FAMILY, Answers::Many, &request(family, protocol), |body| {
            // What cannot be read is left out: a kernel may tell of things that are new since this was written.
            if let Some(socket) = read(protocol, body) {
                each(socket);
            }
        })?;
    }
    Ok(())
}

/// Opens the way to ask in the network namespace of the calling thread; asks nothing yet.
///
/// # Errors
/// When the kernel was built without it, or a sandbox forbids it.
pub fn open() -> io::Result<Netlink> {
    Netlink::open(SockProtocol::NetlinkSockDiag)
}

/// `struct inet_diag_req_v2`.
fn request(family: libc::c_int, protocol: Protocol) -> Vec<u8> {
    let byte = |number: libc::c_int| u8::try_from(number).unwrap_or_default();
    // Extensions are bits counted from 1; a byte of padding.
    let mut bytes = vec![byte(family), byte(protocol.number()), 1 << (INFO - 1), 0];
    bytes.extend(State::ASKED_FOR.to_ne_bytes());
    bytes.extend(ANY_SOCKET);
    bytes
}

/// `struct inet_diag_msg` and its attributes. `None` where it is cut off or is of an unknown family or state.
fn read(protocol: Protocol, body: &[u8]) -> Option<InetSocket> {
    let message: &[u8; MESSAGE] = body.first_chunk()?;
    let state = State::from_number(protocol, message[STATE])?;
    let end = |port: usize, address: usize| {
        let port = u16::from_be_bytes([message[port], message[port + 1]]);
        Some(SocketAddr::new(ip_address(libc::c_int::from(message[0]), message.get(address..)?)?, port))
    };
    let info = attributes(&body[MESSAGE..]).find_map(|(kind, value)| (kind == INFO).then_some(value));
    Some(InetSocket {
        protocol,
        state,
        local: end(LOCAL_PORT, LOCAL_ADDRESS)?,
        remote: end(REMOTE_PORT, REMOTE_ADDRESS)?,
        inode: u32::from_ne_bytes(*message.get(INODE..)?.first_chunk()?),
        cookie: u64::from_ne_bytes(*message.get(COOKIE..)?.first_chunk()?),
        tcp: info.filter(|_| protocol == Protocol::Tcp).and_then(TcpInfo::read),
    })
}

/// A socket of family `AF_INET6` may speak IPv4: its addresses are mapped then.
fn ip_address(family: libc::c_int, bytes: &[u8]) -> Option<IpAddr> {
    match family {
        libc::AF_INET => Some(Ipv4Addr::from(*bytes.first_chunk::<4>()?).into()),
        libc::AF_INET6 => Some(IpAddr::from(Ipv6Addr::from(*bytes.first_chunk::<16>()?)).to_canonical()),
        _ => None,
    }
}

/// What holds of any answer. Returns the TCP socket that it may be about.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) -> Option<InetSocket> {
    let udp = read(Protocol::Udp, body);
    assert!(udp.is_none_or(|socket| socket.tcp.is_none()), "UDP has no tcp_info");
    read(Protocol::Tcp, body)
}

#[cfg(test)]
mod tests {
    use std::{
        mem::offset_of,
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd,
        time::Duration,
    };

    use nix::{libc::tcp_info, sys::stat::fstat};
    use proptest::prelude::*;

    use super::*;

    fn inode(socket: &impl AsFd) -> u32 {
        u32::try_from(fstat(socket).expect("it is open").st_ino).expect("socket inodes are short")
    }

    /// The kernel's word on one of our own sockets.
    fn find(protocol: Protocol, socket: &impl AsFd) -> Option<InetSocket> {
        let inode = inode(socket);
        let mut found = None;
        let mut netlink = open().expect("the kernel can be asked");
        let take = |socket: InetSocket| {
            if socket.inode == inode {
                found = Some(socket);
            }
        };
        sockets(&mut netlink, protocol, take).expect("it answers");
        found
    }

    #[test]
    fn our_own_sockets_are_told_of() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(any).expect("ports are left");
            let stream =
                TcpStream::connect(listener.local_addr().expect("it is bound")).expect("it is listened on");
            let found = find(Protocol::Tcp, &stream).expect("it is open");
            assert_eq!(found.state, State::Established);
            assert_eq!(Some(found.local), stream.local_addr().ok());
            assert_eq!(Some(found.remote), stream.peer_addr().ok());
            assert!(found.tcp.is_some_and(|info| info.segments_out >= 1), "{found:?}");
            let found = find(Protocol::Tcp, &listener).expect("it is open");
            assert_eq!((found.state, found.remote.port()), (State::Listen, 0));
        }
        let socket = UdpSocket::bind("127.0.0.1:0").expect("ports are left");
        let found = find(Protocol::Udp, &socket).expect("it is open");
        assert_eq!((found.state, found.tcp), (State::Unconnected, None));
        socket.connect("127.0.0.1:9").expect("an address");
        let found = find(Protocol::Udp, &socket).expect("it is open");
        assert_eq!((found.state, found.remote.to_string().as_str()), (State::Established, "127.0.0.1:9"));
        drop(socket);
    }

    /// A connection over mapped addresses, with a whole `tcp_info`.
    fn message() -> Vec<u8> {
        let mut bytes = vec![0; MESSAGE];
        bytes[0] = 10;
        bytes[STATE] = 8;
        bytes[LOCAL_PORT..LOCAL_PORT + 2].copy_from_slice(&4711_u16.to_be_bytes());
        bytes[REMOTE_PORT..REMOTE_PORT + 2].copy_from_slice(&80_u16.to_be_bytes());
        let mapped = Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped().octets();
        bytes[LOCAL_ADDRESS..LOCAL_ADDRESS + 16].copy_from_slice(&mapped);
        bytes[REMOTE_ADDRESS..REMOTE_ADDRESS + 16].copy_from_slice(&mapped);
        bytes[COOKIE..COOKIE + 8].copy_from_slice(&99_u64.to_ne_bytes());
        bytes[INODE..].copy_from_slice(&77_u32.to_ne_bytes());
        // An attribute before the one that counts: INET_DIAG_SHUTDOWN.
        bytes.extend([5, 0, 8, 0, 1, 0, 0, 0]);
        let mut info = [0; 232];
        let rtt = offset_of!(tcp_info, tcpi_rtt);
        info[rtt..rtt + 4].copy_from_slice(&1500_u32.to_ne_bytes());
        bytes.extend(u16::try_from(info.len() + 4).expect("it is short").to_ne_bytes());
        bytes.extend(INFO.to_ne_bytes());
        bytes.extend(info);
        bytes
    }

    #[test]
    fn an_answer_is_read_whole() {
        let socket = read(Protocol::Tcp, &message()).expect("whole");
        assert_eq!((socket.state, socket.inode, socket.cookie), (State::CloseWait, 77, 99));
        assert_eq!(socket.local.to_string(), "192.0.2.1:4711");
        assert_eq!(socket.remote.to_string(), "192.0.2.1:80");
        assert_eq!(socket.tcp.map(|info| info.rtt), Some(Duration::from_micros(1500)));
        assert_eq!(read(Protocol::Udp, &message()), None, "UDP knows no such state");
        assert_eq!(read(Protocol::Tcp, &message()[..MESSAGE - 1]), None);
    }

    #[test]
    fn every_state_that_is_asked_for_has_a_name() {
        for number in 0..32 {
            let is_asked_for = State::ASKED_FOR & 1 << number != 0;
            assert_eq!(State::from_number(Protocol::Tcp, number).is_some(), is_asked_for, "{number}");
        }
    }

    proptest! {
        #[test]
        fn any_answer_is_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                let is_short = bytes.len() < MESSAGE;
                prop_assert!(read(protocol, &bytes).is_none() || !is_short);
            }
        }

        #[test]
        fn a_damaged_answer_is_read_without_a_panic(
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            length in any::<prop::sample::Index>(),
        ) {
            let mut bytes = message();
            for (index, byte) in changes {
                let index = index.index(bytes.len());
                bytes[index] = byte;
            }
            bytes.truncate(length.index(bytes.len() + 1));
            let _ = read(Protocol::Tcp, &bytes);
        }
    }
}
