//! Whose packet would this be? The kernel's own lookup, by addresses and ports (`sock_diag(7)`).
//!
//! One question has one answer, in the time of one table lookup, however many sockets there are; /proc/net has to be
//! read whole. And the answer is the one that the packet itself gets: among sockets that are not connected, share a
//! port or listen on all addresses, the kernel chooses as it does for packets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
};

use nix::{libc, sys::socket::SockProtocol};

pub use super::inet_diag::Protocol;
use super::{
    inet_diag::{INODE, SOCK_DIAG_BY_FAMILY},
    netlink::{Answers, Netlink},
};

/// `TCP_LISTEN` (`include/net/tcp_states.h`).
const TCP_LISTEN: u8 = 10;
/// A socket that takes the packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FoundSocket {
    /// Its inode, as in /proc/PID/fd; 0 while nobody has accepted the connection, and when everybody has closed it.
    pub inode: u32,
    /// It only waits for connections: the packet's own is not made yet, or no more.
    pub listens: bool,
}

/// Asks the kernel for sockets of this network namespace.
#[derive(Debug)]
pub struct SocketLookup(Netlink);

impl SocketLookup {
    /// Opens the way to the kernel; asks nothing yet, and makes it load nothing.
    ///
    /// # Errors
    /// When the kernel was built without it, or a sandbox forbids it.
    pub fn open() -> io::Result<Self> {
        Ok(Self(Netlink::open(SockProtocol::NetlinkSockDiag)?))
    }

    /// Whether the kernel answers for both protocols. May load the modules that do.
    ///
    /// # Errors
    /// That it does not.
    pub fn check(&mut self) -> io::Result<()> {
        let any = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            let mut request = request(protocol, any, any, 0);
            // In no state.
            request[4..8].fill(0);
            self.0.ask(SOCK_DIAG_BY_FAMILY, Answers::Many, &request, |_| {})?;
        }
        Ok(())
    }

    /// The socket that takes packets from `remote` to `local`. One that is bound to an interface is found with that
    /// `interface` alone, one that is not with any; 0 is none.
    ///
    /// # Errors
    /// When the kernel does not answer, or has no `tcp_diag` or `udp_diag`.
    pub fn find(
        &mut self,
        protocol: Protocol,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> io::Result<Option<FoundSocket>> {
        let mut found = None;
        let request = request(protocol, local, remote, interface);
        match self.0.ask(SOCK_DIAG_BY_FAMILY, Answers::One, &request, |body| found = read(body)) {
            // There is none, if the kernel can be asked at all.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => Ok(None),
            Err(error) => Err(error),
            Ok(()) => Ok(found),
        }
    }
}

/// `struct inet_diag_req_v2`.
fn request(protocol: Protocol, local: SocketAddr, remote: SocketAddr, interface: u32) -> Vec<u8> {
    let family = if local.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
    // For TCP the question has the socket's own end first, for UDP the packet's (`udp_dump_one`, net/ipv4/udp_diag.c:
    // "src and dst are swapped for historical reasons").
    let (number, source, destination) = match protocol {
        Protocol::Tcp => (libc::IPPROTO_TCP, local, remote),
        Protocol::Udp => (libc::IPPROTO_UDP, remote, local),
    };
    let byte = |number: libc::c_int| u8::try_from(number).unwrap_or_default();
    // No extensions, padding, and every state.
    let mut bytes = vec![byte(family), byte(number), 0, 0, 0xff, 0xff, 0xff, 0xff];
    bytes.extend(source.port().to_be_bytes());
    bytes.extend(destination.port().to_be_bytes());
    for address in [source.ip(), destination.ip()] {
        bytes.extend(padded(address));
    }
    bytes.extend(interface.to_ne_bytes());
    // INET_DIAG_NOCOOKIE: any socket.
    bytes.extend([0xff; 8]);
    bytes
}

/// An address in the room of the longest.
fn padded(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&v4.octets());
            bytes
        }
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// `struct inet_diag_msg`.
fn read(body: &[u8]) -> Option<FoundSocket> {
    let inode = u32::from_ne_bytes(*body.get(INODE..)?.first_chunk()?);
    Some(FoundSocket { inode, listens: body[1] == TCP_LISTEN })
}

/// What holds of any answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    assert_eq!(read(body).is_some(), body.len() >= INODE + size_of::<u32>());
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv6Addr, TcpListener, UdpSocket},
        os::fd::AsFd,
    };

    use nix::sys::stat::fstat;

    use super::*;

    /// The kernel is asked about sockets that nobody sends anything to.
    fn find(protocol: Protocol, local: SocketAddr, remote: &str) -> Option<FoundSocket> {
        let mut lookup = SocketLookup::open().expect("the kernel can be asked");
        lookup.check().expect("it answers");
        let remote = remote.parse().expect("an address");
        lookup.find(protocol, local, remote, 0).expect("it answers")
    }

    fn inode(socket: &impl AsFd) -> u32 {
        u32::try_from(fstat(socket).expect("it is open").st_ino).expect("socket inodes are short")
    }

    #[test]
    fn a_socket_on_all_addresses_takes_what_comes_to_any_of_both_families() {
        let socket = UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).expect("ports are left");
        let port = socket.local_addr().expect("it is bound").port();
        let expected = Some(FoundSocket { inode: inode(&socket), listens: false });
        let local: [IpAddr; 2] = [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()];
        assert_eq!(find(Protocol::Udp, SocketAddr::new(local[0], port), "127.0.0.2:9"), expected);
        assert_eq!(find(Protocol::Udp, SocketAddr::new(local[1], port), "[2001:db8::1]:9"), expected);
        drop(socket);
        assert_eq!(find(Protocol::Udp, SocketAddr::new(local[0], port), "127.0.0.2:9"), None);
    }

    #[test]
    fn of_two_sockets_the_one_that_is_connected_there_takes_it() {
        let near = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
        let local = near.local_addr().expect("it is bound");
        near.connect("127.0.0.1:9").expect("an address");
        let expected = Some(FoundSocket { inode: inode(&near), listens: false });
        assert_eq!(find(Protocol::Udp, local, "127.0.0.1:9"), expected);
        assert_eq!(find(Protocol::Udp, local, "127.0.0.1:10"), None);
    }

    #[test]
    fn a_connection_that_is_not_made_yet_is_for_who_listens() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("ports are left");
        let local = listener.local_addr().expect("it is bound");
        let expected = Some(FoundSocket { inode: inode(&listener), listens: true });
        assert_eq!(find(Protocol::Tcp, local, "127.0.0.1:9"), expected);
    }

    #[test]
    fn a_question_is_as_long_as_the_kernel_wants_it_and_udp_is_turned_around() {
        let local: SocketAddr = "192.0.2.1:1".parse().expect("an address");
        let remote: SocketAddr = "192.0.2.2:2".parse().expect("an address");
        let tcp = request(Protocol::Tcp, local, remote, 3);
        assert_eq!(tcp.len(), 56);
        assert_eq!(tcp[8..16], [0, 1, 0, 2, 192, 0, 2, 1]);
        assert_eq!(request(Protocol::Udp, local, remote, 3)[8..16], [0, 2, 0, 1, 192, 0, 2, 2]);
    }

    #[test]
    fn an_answer_that_is_cut_off_is_none() {
        let mut body = vec![0; 72];
        body[1] = TCP_LISTEN;
        body[68..].copy_from_slice(&77_u32.to_ne_bytes());
        assert_eq!(read(&body), Some(FoundSocket { inode: 77, listens: true }));
        assert_eq!(read(&body[..71]), None);
        assert_eq!(read(&[]), None);
    }
}
