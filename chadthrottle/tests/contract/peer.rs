//! The other end of a target's connections, and the target.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use testbed::{Family, Process, Testbed, at_least, is_emulated, traffic};

use super::{PATIENCE, Subject};

/// Longer than any case.
fn seconds() -> &'static str {
    if is_emulated() { "1200" } else { "120" }
}

/// What a connection without a limit is offered, in bytes a second: as much as it takes. An emulated machine would have no
/// time left for anything else, so there it is as much as has to be seen to be free, twice.
fn offered() -> Option<u64> {
    is_emulated().then(|| 2 * super::cases::rates().free)
}

/// Bytes that the server writes at once.
const CHUNK: usize = 16 << 10;

/// A server that sends or receives as fast as it can, and counts.
pub(super) struct Peer {
    address: SocketAddr,
    bytes: Arc<AtomicU64>,
}

impl Peer {
    /// On the bed's server, to be connected to by IPv4 or IPv6.
    pub(super) fn start(bed: &Testbed, is_upload: bool, family: Family) -> anyhow::Result<Self> {
        let any = bed.server().socket_address(family, 0);
        let listener = bed.server().run(move || Ok(TcpListener::bind(any)?))?;
        let peer = Self { address: listener.local_addr()?, bytes: Arc::default() };
        let bytes = Arc::clone(&peer.bytes);
        // Ends with the program, or with the bed's connections.
        thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let bytes = Arc::clone(&bytes);
                thread::spawn(move || serve(stream, is_upload, &bytes));
            }
        });
        Ok(peer)
    }

    /// The same for datagrams, which it receives.
    pub(super) fn datagrams(bed: &Testbed, family: Family) -> anyhow::Result<Self> {
        let any = bed.server().socket_address(family, 0);
        let socket = bed.server().run(move || Ok(UdpSocket::bind(any)?))?;
        let peer = Self { address: socket.local_addr()?, bytes: Arc::default() };
        let bytes = Arc::clone(&peer.bytes);
        thread::spawn(move || {
            let mut buffer = [0; 2048];
            while let Ok(length) = socket.recv(&mut buffer) {
                bytes.fetch_add(length as u64, Ordering::Relaxed);
            }
        });
        Ok(peer)
    }

    /// The arguments of `traffic` for that, which is to offer so many bytes a second.
    pub(super) fn datagram_arguments(&self, rate: u64) -> Vec<String> {
        let (to, rate) = (self.address.to_string(), rate.to_string());
        let words = ["udp-send", "--to", &to, "--rate", &rate, "--size", "1200", "--seconds", seconds()];
        words.iter().map(ToString::to_string).collect()
    }

    /// The arguments of `traffic` for this peer.
    pub(super) fn arguments(&self, is_upload: bool) -> Vec<String> {
        let address = self.address.to_string();
        if !is_upload {
            return ["tcp-receive", "--from", &address].map(ToOwned::to_owned).to_vec();
        }
        let words = ["tcp-send", "--to", &address, "--seconds", seconds()].map(ToOwned::to_owned);
        let rate = offered().map(|rate| ["--rate".to_owned(), rate.to_string()]);
        words.into_iter().chain(rate.into_iter().flatten()).collect()
    }

    /// Payload a second over some time.
    pub(super) fn rate(&self, during: Duration) -> f64 {
        let (start, before) = (Instant::now(), self.bytes.load(Ordering::Relaxed));
        thread::sleep(during);
        bytes(self.bytes.load(Ordering::Relaxed) - before) / start.elapsed().as_secs_f64()
    }

    /// Waits until it is at least so fast.
    pub(super) fn is_free(&self, least: u64) -> anyhow::Result<()> {
        let fast = || Ok((self.rate(Duration::from_millis(200)) > bytes(least)).then_some(()));
        testbed::until("it runs at full speed", PATIENCE, fast)
    }

    /// Waits until it is held to a limit for a second and a half: what stood in buffers has come by then, and a sender
    /// whose packets were dropped has found its pace.
    pub(super) fn is_held(&self, limit: u64, what: &str) -> anyhow::Result<()> {
        let mut share = 0.0;
        let held = testbed::until("it is held", PATIENCE, || {
            share = self.rate(Duration::from_millis(1500)) / bytes(limit);
            Ok((at_least(0.6)..1.3).contains(&share).then_some(()))
        });
        held.with_context(|| format!("{what}: {share:.3} of the limit"))
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
pub(super) fn bytes(count: u64) -> f64 {
    count as f64
}

fn serve(mut stream: TcpStream, is_upload: bool, count: &AtomicU64) {
    let mut buffer = vec![b'x'; 64 << 10];
    let pause = offered().filter(|_| !is_upload).map(|rate| bytes(CHUNK as u64) / bytes(rate));
    loop {
        let passed = if is_upload { stream.read(&mut buffer) } else { stream.write(&buffer[..CHUNK]) };
        let Ok(length @ 1..) = passed else { return };
        count.fetch_add(length as u64, Ordering::Relaxed);
        if let Some(seconds) = pause {
            thread::sleep(Duration::from_secs_f64(seconds));
        }
    }
}

/// A process on the client with a connection to a peer of its own, at full speed.
pub(super) fn busy(bed: &Testbed, subject: Subject, family: Family) -> anyhow::Result<(Process, Peer)> {
    let peer = Peer::start(bed, subject.is_upload, family)?;
    let process = Process::spawn(traffic::command(bed.client())?.args(peer.arguments(subject.is_upload)))?;
    peer.is_free(super::cases::rates().free)?;
    Ok((process, peer))
}
