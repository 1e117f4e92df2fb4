//! The connections of one process, on demand: nothing is asked, opened or kept while nobody looks but the ages of what
//! was seen in the last look.
//!
//! A process's sockets are those that it has open (/proc/PID/fd); what they do, the kernel tells by `sock_diag(7)`, in
//! the network namespace of the process. A look costs in proportion to the sockets of that namespace. It does not show
//! sockets that the process brought along from another network namespace, nor what is neither TCP nor UDP.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use crate::{
    process::ProcessId,
    stats::Traffic,
    sys::{
        inet_diag::{self, InetSocket, Protocol, State},
        namespace, proc_fd,
    },
};

/// One socket of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// What it speaks.
    pub protocol: Protocol,
    /// Its own end. IPv4 where IPv4 is spoken, whatever family the socket is of.
    pub local: SocketAddr,
    /// The other end. None where it listens, or talks with any address.
    pub remote: Option<SocketAddr>,
    /// How far it is.
    pub state: State,
    /// IP bytes since it was opened: payload, and headers for each segment. None where the kernel does not count, as for
    /// UDP and for what only listens.
    pub total: Option<Traffic>,
    /// Smoothed round-trip time, where one has been measured.
    pub rtt: Option<Duration>,
    /// Segments sent again. None where nobody counts them.
    pub retransmits: Option<u32>,
    /// For how long the process has had it, to within the time between two looks. None of what was there at the first
    /// look: the kernel does not say when a socket was opened.
    pub age: Option<Duration>,
    /// For how long we have seen it.
    pub seen: Duration,
}

/// Why the connections of a process could not be listed.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionsError {
    /// Its descriptors are not ours to read.
    #[error(
        "cannot read which sockets process {pid} has open: {source}; only its user may (or sudo: CAP_SYS_PTRACE)"
    )]
    Closed {
        /// Whose.
        pid: ProcessId,
        /// Why.
        source: io::Error,
    },
    /// The kernel cannot be asked where the process is.
    #[error(
        "cannot ask for sockets in the network namespace of process {pid}: {source}; to enter another one than our own \
         needs CAP_SYS_ADMIN (sudo)"
    )]
    Namespace {
        /// Whose.
        pid: ProcessId,
        /// Why.
        source: io::Error,
    },
    /// The kernel does not tell.
    #[error(
        "the kernel does not list its {protocol} sockets: {source}; it takes CONFIG_INET_DIAG (`modprobe \
         {protocol}_diag` where that is a module)"
    )]
    Kernel {
        /// What was asked for.
        protocol: Protocol,
        /// Why.
        source: io::Error,
    },
}

/// Looks at processes' connections, and remembers since when it has seen which.
#[derive(Debug, Default)]
pub struct Connections {
    /// By process and the socket's cookie: what was there at the last look.
    sightings: HashMap<ProcessId, HashMap<u64, Sighting>>,
}

/// When a socket was seen first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sighting {
    at: Duration,
    /// Whether it was not there at the look before.
    is_opening: bool,
}

impl Connections {
    /// The process's connections at `now` (since any fixed instant), by protocol and address. None of one that has ended.
    ///
    /// # Errors
    /// When the process is not ours to look into, or the kernel does not tell.
    pub fn of(&mut self, process: ProcessId, now: Duration) -> Result<Vec<Connection>, ConnectionsError> {
        let Some(sockets) = read(process)? else {
            self.sightings.remove(&process);
            return Ok(Vec::new());
        };
        Ok(self.take_in(process, now, sockets))
    }

    fn take_in(&mut self, process: ProcessId, now: Duration, sockets: Vec<InetSocket>) -> Vec<Connection> {
        let earlier = self.sightings.get(&process);
        let mut sightings = HashMap::new();
        let mut connections = Vec::new();
        for socket in sockets {
            let first = earlier.and_then(|earlier| earlier.get(&socket.cookie)).copied();
            let first = first.unwrap_or(Sighting { at: now, is_opening: earlier.is_some() });
            // The kernel may list one twice while others come and go.
            if sightings.insert(socket.cookie, first).is_none() {
                connections.push(Connection::new(&socket, first, now));
            }
        }
        self.sightings.insert(process, sightings);
        connections.sort_by_key(|connection| (connection.protocol, connection.local, connection.remote));
        connections
    }
}

impl Connection {
    fn new(socket: &InetSocket, first: Sighting, now: Duration) -> Self {
        let counts = socket.tcp.filter(|_| !matches!(socket.state, State::Listen | State::Bound));
        let seen = now.saturating_sub(first.at);
        Self {
            protocol: socket.protocol,
            local: socket.local,
            remote: Some(socket.remote).filter(|remote| remote.port() != 0),
            state: socket.state,
            total: counts.map(|info| {
                let header = info.header(socket.remote.ip());
                let bytes =
                    |payload: u64, segments: u32| payload.saturating_add(header * u64::from(segments));
                Traffic {
                    upload: bytes(info.sent, info.segments_out),
                    download: bytes(info.received, info.segments_in),
                }
            }),
            rtt: counts.map(|info| info.rtt).filter(|rtt| !rtt.is_zero()),
            retransmits: counts.map(|info| info.retransmits),
            age: first.is_opening.then_some(seen),
            seen,
        }
    }
}

/// The process's sockets, or `None` when it has ended.
pub(crate) fn read(process: ProcessId) -> Result<Option<Vec<InetSocket>>, ConnectionsError> {
    let pid = process.pid;
    // Namespaces and descriptors go before the process does.
    let is_over = |error: &io::Error| error.kind() == io::ErrorKind::NotFound || !process.is_alive();
    let inodes = match proc_fd::sockets(pid) {
        Ok(sockets) => sockets.into_iter().map(|(_, inode)| inode).collect::<HashSet<_>>(),
        Err(error) if is_over(&error) => return Ok(None),
        Err(source) => return Err(ConnectionsError::Closed { pid: process, source }),
    };
    let mut netlink = match namespace::in_network_of(pid, inet_diag::open) {
        Ok(netlink) => netlink,
        Err(error) if is_over(&error) => return Ok(None),
        Err(source) => return Err(ConnectionsError::Namespace { pid: process, source }),
    };
    // Only now: what was read before a process that still runs is its own and not that of another one with its pid.
    if !process.is_alive() {
        return Ok(None);
    }
    let mut sockets = Vec::new();
    if inodes.is_empty() {
        return Ok(Some(sockets));
    }
    for protocol in [Protocol::Tcp, Protocol::Udp] {
        let take = |socket: InetSocket| {
            if inodes.contains(&socket.inode) {
                sockets.push(socket);
            }
        };
        inet_diag::sockets(&mut netlink, protocol, take)
            .map_err(|source| ConnectionsError::Kernel { protocol, source })?;
    }
    Ok(Some(sockets))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use proptest::prelude::*;

    use super::*;
    use crate::sys::tcp_info::TcpInfo;

    const PROCESS: ProcessId = ProcessId { pid: 7, start_time: 1 };

    fn socket(cookie: u64, state: State) -> InetSocket {
        let info = TcpInfo {
            sent: 1000,
            received: 10,
            segments_out: 3,
            segments_in: 2,
            has_timestamps: true,
            rtt: Duration::from_millis(5),
            retransmits: 1,
            ..TcpInfo::default()
        };
        InetSocket {
            protocol: Protocol::Tcp,
            state,
            local: "192.0.2.1:4711".parse().expect("an address"),
            remote: "192.0.2.2:80".parse().expect("an address"),
            inode: 1,
            cookie,
            tcp: Some(info),
        }
    }

    #[test]
    fn bytes_are_ip_bytes_and_what_only_listens_has_none() {
        let mut connections = Connections::default();
        let one = &connections.take_in(PROCESS, Duration::ZERO, vec![socket(1, State::Established)])[0];
        assert_eq!(one.total, Some(Traffic { upload: 1000 + 3 * 52, download: 10 + 2 * 52 }));
        assert_eq!((one.rtt, one.retransmits), (Some(Duration::from_millis(5)), Some(1)));
        let mut listening = socket(2, State::Listen);
        listening.remote.set_port(0);
        let one = &connections.take_in(PROCESS, Duration::ZERO, vec![listening])[0];
        assert_eq!((one.remote, one.total, one.rtt, one.retransmits), (None, None, None, None));
    }

    #[test]
    fn an_age_is_known_of_what_came_between_two_looks() {
        let mut connections = Connections::default();
        let mut look = |at: u64, cookies: &[u64]| {
            let sockets = cookies.iter().map(|&cookie| socket(cookie, State::Established)).collect();
            let seen = connections.take_in(PROCESS, Duration::from_secs(at), sockets);
            seen.iter().map(|one| (one.age.map(|age| age.as_secs()), one.seen.as_secs())).collect::<Vec<_>>()
        };
        assert_eq!(look(10, &[1]), [(None, 0)]);
        // The second time in one answer is the same socket.
        assert_eq!(look(12, &[1, 2, 2]), [(None, 2), (Some(0), 0)]);
        assert_eq!(look(15, &[2]), [(Some(3), 3)]);
        assert_eq!(look(16, &[]), []);
        assert_eq!(look(17, &[3]), [(Some(0), 0)]);
    }

    #[test]
    fn our_own_connection_is_listed_and_a_process_that_is_gone_has_none() {
        let pid = std::process::id().cast_signed();
        let process = ProcessId::running(pid).expect("we run");
        let listener = TcpListener::bind("[::1]:0").expect("ports are left");
        let to = listener.local_addr().expect("it is bound");
        let stream = TcpStream::connect(to).expect("it is listened on");
        let mut connections = Connections::default();
        let listed = connections.of(process, Duration::ZERO).expect("we may look at ourselves");
        let found = listed.iter().find(|one| Some(one.local) == stream.local_addr().ok());
        assert_eq!(found.and_then(|one| one.remote), Some(to));
        drop(stream);

        let gone = ProcessId { start_time: process.start_time + 1, ..process };
        assert_eq!(connections.of(gone, Duration::ZERO).expect("no error"), []);
        let gone = ProcessId { pid: i32::MAX, start_time: 1 };
        assert_eq!(connections.of(gone, Duration::ZERO).expect("no error"), []);
    }

    proptest! {
        #[test]
        fn whatever_is_counted_there_is_a_sum(
            sent: u64, received: u64, segments_out: u32, segments_in: u32, at: u64, now: u64,
        ) {
            let mut socket = socket(1, State::Established);
            let info = TcpInfo { sent, received, segments_out, segments_in, ..TcpInfo::default() };
            socket.tcp = Some(info);
            let first = Sighting { at: Duration::from_nanos(at), is_opening: true };
            let one = Connection::new(&socket, first, Duration::from_nanos(now));
            prop_assert!(one.total.is_some_and(|total| total.upload >= sent && total.download >= received));
            prop_assert_eq!(one.age, Some(one.seen));
        }
    }
}
