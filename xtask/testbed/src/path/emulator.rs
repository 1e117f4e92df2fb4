//! The threads that carry packets from one device to the other.

use std::fs::File;
use std::io::{ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use anyhow::Context;
use nix::libc;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::time::{TimeSpec, TimeValLike};

use super::packet::{HEADER, Packet};
use super::wire::Wire;
use super::{Path, device};

/// Packets taken in before one looks again for those that have arrived.
const BATCH: usize = 32;

/// A running path. It ends, and its devices go, when it is dropped.
#[derive(Debug)]
pub(crate) struct Emulator {
    /// Of what has been sent to the server, and to the client.
    counters: [Arc<Counters>; 2],
    /// The threads end when this is closed.
    stop: Option<UnixStream>,
    threads: Vec<JoinHandle<()>>,
}

/// What has come in.
#[derive(Debug, Default)]
struct Counters {
    bytes: AtomicU64,
    segments: AtomicU64,
}

/// What has been sent in one direction, before any of it was lost.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Carried {
    /// IP bytes; a super-packet counts the headers of every segment that it stands for.
    pub bytes: u64,
    /// Packets as they would travel.
    pub segments: u64,
}

/// One end of a path: a device in its namespace.
#[derive(Debug)]
pub(crate) struct End(Arc<File>);

impl End {
    /// Makes the device, in the network namespace of the calling thread.
    pub(crate) fn open(name: &str) -> anyhow::Result<Self> {
        Ok(Self(Arc::new(device::open(name)?)))
    }
}

impl Emulator {
    pub(crate) fn start(path: &Path, near: &End, far: &End) -> anyhow::Result<Self> {
        let (stop, stopped) = UnixStream::pair()?;
        let start = Instant::now();
        let mut emulator = Self { counters: Default::default(), stop: Some(stop), threads: Vec::new() };
        let directions = [(path.to_server, near, far), (path.to_client, far, near)];
        for ((number, counters), (link, from, to)) in (0..).zip(emulator.counters.clone()).zip(directions) {
            let carrier = Carrier {
                wire: Wire::new(link, path.seed.wrapping_mul(2).wrapping_add(number)),
                from: Arc::clone(&from.0),
                to: Arc::clone(&to.0),
                counters,
                stopped: stopped.try_clone()?,
                start,
            };
            let thread = thread::Builder::new().name("path".into()).spawn(move || carrier.run());
            emulator.threads.push(thread.context("cannot start a thread")?);
        }
        Ok(emulator)
    }

    /// What has been sent to the server, and to the client.
    pub(crate) fn carried(&self) -> [Carried; 2] {
        self.counters.each_ref().map(|counters| Carried {
            bytes: counters.bytes.load(Ordering::Relaxed),
            segments: counters.segments.load(Ordering::Relaxed),
        })
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop = None;
        for thread in self.threads.drain(..) {
            // It has nothing to return, and a panic of it has been printed.
            let _ = thread.join();
        }
    }
}

/// One direction.
struct Carrier {
    wire: Wire,
    from: Arc<File>,
    to: Arc<File>,
    counters: Arc<Counters>,
    stopped: UnixStream,
    start: Instant,
}

impl Carrier {
    fn run(mut self) {
        be_punctual();
        let mut buffer = vec![0; HEADER + usize::from(u16::MAX)];
        loop {
            for _ in 0..BATCH {
                match (&*self.from).read(&mut buffer) {
                    Ok(length) => {
                        let Some(packet) = Packet::read(&buffer[..length]) else { continue };
                        self.counters.bytes.fetch_add(packet.length(), Ordering::Relaxed);
                        self.counters.segments.fetch_add(packet.segments() as u64, Ordering::Relaxed);
                        self.wire.send(self.start.elapsed(), packet);
                    }
                    Err(error) if error.kind() == ErrorKind::Interrupted => {}
                    // Nothing is there, or the device is not up (any more).
                    Err(_) => break,
                }
            }
            while let Some(packet) = self.wire.arrived(self.start.elapsed()) {
                // One that the device does not take is lost, as on any link.
                let _ = (&*self.to).write(packet.bytes());
            }
            if !self.wait() {
                return;
            }
        }
    }

    /// Waits until something comes in or is due. False when it is over.
    fn wait(&self) -> bool {
        let left = self.wire.due().map(|due| due.saturating_sub(self.start.elapsed()));
        let mut fds = [
            PollFd::new(self.from.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stopped.as_fd(), PollFlags::POLLIN),
        ];
        let timeout =
            left.map(|left| TimeSpec::nanoseconds(i64::try_from(left.as_nanos()).unwrap_or(i64::MAX)));
        // An error is a signal that came in between.
        ppoll(&mut fds, timeout, None).is_err() || fds[1].revents().is_none_or(|events| events.is_empty())
    }
}

/// Wakes this thread when it asked to be woken, before others: what it is late is delay that nobody asked for.
fn be_punctual() {
    const SLACK_NS: libc::c_ulong = 1;
    // SAFETY: both take numbers. Where they are refused the path is less exact, which its test would show.
    unsafe {
        libc::prctl(libc::PR_SET_TIMERSLACK, SLACK_NS);
        // On Linux 0 is the calling thread here, not its process (setpriority(2), "C library/kernel differences").
        libc::setpriority(libc::PRIO_PROCESS, 0, -20);
    }
}
