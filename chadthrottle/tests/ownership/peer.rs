//! The other side of a connection, which counts IP bytes on its own: from the segments that its kernel saw.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    os::fd::AsRawFd,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, anyhow};
use nix::{errno::Errno, libc};
use testbed::{Family, Host, patience};

/// A connection that stands still for so long has failed.
const STALLED: Duration = Duration::from_secs(5);
/// How long a connection lasts at least, unless it is to be short: so long that a monitor which looks every 100 ms has
/// seen it. Short ones are scenarios of their own.
const LASTING: Duration = Duration::from_millis(400);
/// IPv4 and TCP header with timestamps.
pub(crate) const HEADERS: u64 = 52;
/// So much longer the header of IPv6 is.
const IPV6_EXTRA: u64 = 20;
/// The first segment of either side has more options: maximum segment size, window scale, SACK.
pub(crate) const SYN: u64 = 60;
const SYN_OPTIONS: u64 = SYN - HEADERS;
/// What arrives at a listener to open a connection: SYN, and the acknowledgement of its answer.
pub(crate) const OPENED: u64 = SYN + HEADERS;

/// IP bytes of a connection, up from and down to the program under test. What its kernel sent twice and this one
/// received twice is in `up` with its headers alone: `Part::retransmitted` has the rest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Flow {
    pub(crate) up: u64,
    pub(crate) down: u64,
}

impl std::iter::Sum for Flow {
    fn sum<I: Iterator<Item = Self>>(flows: I) -> Self {
        flows.fold(Self::default(), |sum, flow| Self { up: sum.up + flow.up, down: sum.down + flow.down })
    }
}

/// Flows by the port of the one side that has a port of its own for each.
pub(crate) type Flows = BTreeMap<u16, Flow>;
/// A peer at work.
pub(crate) type Peer = JoinHandle<anyhow::Result<Flows>>;

/// What a peer does with one connection.
pub(crate) type Talk = fn(&TcpStream) -> anyhow::Result<()>;

/// Waits for the end of a peer.
pub(crate) fn flows(peer: Peer) -> anyhow::Result<Flows> {
    peer.join().map_err(|_| anyhow!("the peer panicked"))?
}

/// The same for all its connections together.
pub(crate) fn flow(peer: Peer) -> anyhow::Result<Flow> {
    Ok(flows(peer)?.into_values().sum())
}

/// Listens on a host, by IPv4, accepts so many connections, and talks on each at the same time.
pub(crate) fn serve(
    host: &Host,
    connections: usize,
    talk: impl Fn(&TcpStream) -> anyhow::Result<()> + Clone + Send + 'static,
) -> anyhow::Result<(SocketAddr, Peer)> {
    serve_at(host, host.socket_address(Family::V4, 0), connections, talk)
}

/// The same at any address of the host.
pub(crate) fn serve_at(
    host: &Host,
    address: SocketAddr,
    connections: usize,
    talk: impl Fn(&TcpStream) -> anyhow::Result<()> + Clone + Send + 'static,
) -> anyhow::Result<(SocketAddr, Peer)> {
    let (address, listener) = listen(host, address)?;
    let peer = std::thread::spawn(move || {
        let talks: Vec<_> = (0..connections)
            .map(|_| {
                let (stream, from) = listener.accept()?;
                let talk = talk.clone();
                anyhow::Ok(std::thread::spawn(move || Ok((from.port(), accepted(&stream, talk)?))))
            })
            .collect::<Result<_, _>>()?;
        talks.into_iter().map(|talk| talk.join().map_err(|_| anyhow!("a talk panicked"))?).collect()
    });
    Ok((address, peer))
}

/// The same with connections that are all opened, and stay so for a while, before the first is used, and are used in
/// that order.
pub(crate) fn serve_in_turn(
    host: &Host,
    connections: usize,
    talk: Talk,
) -> anyhow::Result<(SocketAddr, Peer)> {
    allow_many_files()?;
    let (address, listener) = listen(host, host.socket_address(Family::V4, 0))?;
    let peer = std::thread::spawn(move || {
        let streams: Vec<_> = (0..connections).map(|_| listener.accept()).collect::<Result<_, _>>()?;
        stay();
        streams.iter().map(|(stream, from)| Ok((from.port(), accepted(stream, talk)?))).collect()
    });
    Ok((address, peer))
}

fn listen(host: &Host, address: SocketAddr) -> anyhow::Result<(SocketAddr, TcpListener)> {
    let listener = host.run(|| Ok(TcpListener::bind(address)?))?;
    Ok((listener.local_addr()?, listener))
}

fn accepted(stream: &TcpStream, talk: impl FnOnce(&TcpStream) -> anyhow::Result<()>) -> anyhow::Result<Flow> {
    let extra = ip_extra(stream)?;
    let seen = talk_to_the_end(stream, talk)?;
    Ok(Flow {
        up: seen.bytes_in + (HEADERS + extra) * seen.segments_in + SYN_OPTIONS,
        // The answer to the SYN was sent when there was no such socket yet.
        down: seen.bytes_out + (HEADERS + extra) * seen.segments_out + SYN + extra,
    })
}

/// How much longer than those of IPv4 the headers of a connection are.
fn ip_extra(stream: &TcpStream) -> anyhow::Result<u64> {
    Ok(if stream.local_addr()?.is_ipv6() { IPV6_EXTRA } else { 0 })
}

/// Connects, talks, and returns the port that it had and what was sent and received by who accepted.
pub(crate) fn connect(to: SocketAddr, talk: Talk) -> anyhow::Result<(u16, Flow)> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    let headers = HEADERS + ip_extra(&stream)?;
    let seen = talk_to_the_end(&stream, talk)?;
    let flow = Flow {
        up: seen.bytes_in + headers * seen.segments_in + SYN_OPTIONS,
        down: seen.bytes_out + headers * seen.segments_out + SYN_OPTIONS,
    };
    Ok((stream.local_addr()?.port(), flow))
}

/// Reads to the end.
pub(crate) fn receive(mut stream: &TcpStream) -> anyhow::Result<()> {
    std::io::copy(&mut stream, &mut std::io::sink())?;
    Ok(())
}

/// Reads to the end, and holds the connection open for a while.
pub(crate) fn receive_and_stay(stream: &TcpStream) -> anyhow::Result<()> {
    receive(stream)?;
    stay();
    Ok(())
}

/// Waits as long as a connection is to last.
pub(crate) fn stay() {
    std::thread::sleep(LASTING);
}

/// Reads so many bytes.
pub(crate) fn receive_exactly(stream: &TcpStream, bytes: u64) -> anyhow::Result<()> {
    let received = std::io::copy(&mut stream.take(bytes), &mut std::io::sink())?;
    anyhow::ensure!(received == bytes, "the connection ended after {received} of {bytes} bytes");
    Ok(())
}

/// Writes so many bytes.
pub(crate) fn send(mut stream: &TcpStream, bytes: usize) -> anyhow::Result<()> {
    Ok(stream.write_all(&vec![b'y'; bytes])?)
}

fn talk_to_the_end(
    stream: &TcpStream,
    talk: impl FnOnce(&TcpStream) -> anyhow::Result<()>,
) -> anyhow::Result<Seen> {
    // A monitor that is to see it from the beginning may be loaded meanwhile.
    stream.set_read_timeout(Some(patience(STALLED)))?;
    stream.set_write_timeout(Some(patience(STALLED)))?;
    talk(stream)?;
    stream.shutdown(Shutdown::Write)?;
    receive(stream)?;
    // Until then a segment may still come: the acknowledgement of our end.
    testbed::until("the connection is closed on both sides", STALLED, || {
        let seen = Seen::of(stream)?;
        Ok((seen.state == TCP_CLOSE).then_some(seen))
    })
}

/// The state of a connection that has ended (`include/net/tcp_states.h`).
const TCP_CLOSE: u8 = 7;

/// What a TCP socket has sent and received so far.
struct Seen {
    state: u8,
    bytes_in: u64,
    bytes_out: u64,
    segments_in: u64,
    segments_out: u64,
}

impl Seen {
    /// Asks by `TCP_INFO`, with the offsets of `struct tcp_info` (include/uapi/linux/tcp.h): the C library's structure
    /// ends before them.
    fn of(stream: &TcpStream) -> anyhow::Result<Self> {
        let mut info = [0_u8; 216];
        let mut length = libc::socklen_t::try_from(info.len())?;
        // SAFETY: the kernel writes at most `length` bytes, and says how many.
        let result = unsafe {
            libc::getsockopt(
                stream.as_raw_fd(),
                libc::IPPROTO_TCP,
                libc::TCP_INFO,
                info.as_mut_ptr().cast(),
                &raw mut length,
            )
        };
        Errno::result(result).context("TCP_INFO")?;
        anyhow::ensure!(length as usize == info.len(), "this kernel does not count the bytes of a socket");
        let word = |at: usize| u32::from_ne_bytes(info[at..at + 4].try_into().expect("four bytes"));
        let long = |at: usize| u64::from_ne_bytes(info[at..at + 8].try_into().expect("eight bytes"));
        Ok(Self {
            state: info[0],
            // The end counts as one.
            bytes_in: long(128).saturating_sub(1),
            bytes_out: long(200),
            segments_in: word(140).into(),
            segments_out: word(136).into(),
        })
    }
}

/// Raises the number of files that this process may open to what it may raise it to.
fn allow_many_files() -> anyhow::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a structure that lives through them.
    unsafe {
        Errno::result(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        Errno::result(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(())
}
