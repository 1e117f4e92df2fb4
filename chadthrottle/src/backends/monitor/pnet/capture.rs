//! Reads packets: a thread over four packet sockets, each of which gets those of one direction and one class of
//! links from all interfaces, present and future.

use std::{
    io::{self, ErrorKind, PipeReader, PipeWriter, Read, Write},
    os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use pnet_datalink::{Channel, ChannelType, Config, DataLinkReceiver, NetworkInterface};

use super::{
    filter::{LinkClass, Scope, program},
    flow::{Direction, Flow, Observation},
    fragments::{FragmentKey, Fragments},
    frame::{ip_in_ethernet, split_offload},
    interfaces::Addresses,
    ip::{IpPacket, Transport},
    resolver::Shared,
};
use crate::sys::packet::{Framing, PacketSocket};

/// What a socket holds of packets that have not been read yet. One takes about 1 KB, so this is for some thousand.
const ROOM: usize = 4 << 20;
/// The longest super-packet (`GSO_MAX_SIZE`, include/linux/netdevice.h) and what may be before it. Only the pages
/// that a packet has reached take memory, and of nearly all packets the filter lets some hundred bytes through.
const BUFFER: usize = (512 << 10) + 64;
/// Packets that are read from one socket before the next one has its turn.
const BATCH: usize = 256;
/// Packets that are read at most when somebody waits for all that there are.
const MOST_BEFORE_ANSWER: usize = 16 * BATCH;
/// Where packets come faster than this, they are let come for as long, and read together: to wake up for each costs
/// more than to read it. The first packets after a silence are read at once, since whose they are may be gone soon.
const GATHER: Duration = Duration::from_millis(1);
/// How long to wait until they have been.
const PATIENCE: Duration = Duration::from_millis(100);

/// The sockets, as far as they can be used while they are being read.
#[derive(Debug)]
pub(super) struct Sockets(Vec<(Direction, LinkClass, PacketSocket)>);

impl Sockets {
    /// Lets through what `scope` says.
    pub(super) fn set_scope(&self, scope: &Scope) -> io::Result<()> {
        self.0
            .iter()
            .try_for_each(|(direction, class, socket)| socket.set_filter(&program(scope, *direction, *class)))
    }

    /// How many packets found no room since the last call.
    pub(super) fn take_drops(&self) -> io::Result<u64> {
        self.0.iter().map(|(_, _, socket)| socket.take_drops()).sum()
    }
}

/// How others talk to the thread.
#[derive(Debug)]
pub(super) struct Control {
    is_ending: AtomicBool,
    /// Frames that the kernel could not describe.
    unreadable: AtomicU64,
    waker: PipeWriter,
    /// How often everything was to be read, and how often it has been.
    asked: AtomicU64,
    answered: Mutex<u64>,
    has_answered: Condvar,
}

impl Control {
    fn wake(&self) {
        // It fails where nobody listens any more, and where there is more than enough to wake up from.
        let _ = (&self.waker).write(&[1]);
    }

    pub(super) fn end(&self) {
        self.is_ending.store(true, Ordering::Release);
        self.wake();
    }

    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// Returns when everything has been counted that passed before the call, or it takes too long.
    pub(super) fn catch_up(&self) {
        let number = self.asked.fetch_add(1, Ordering::AcqRel) + 1;
        self.wake();
        let answered = self.answered.lock().unwrap_or_else(PoisonError::into_inner);
        let result = self.has_answered.wait_timeout_while(answered, PATIENCE, |answered| *answered < number);
        if result.is_ok_and(|(_, timeout)| timeout.timed_out()) {
            log::debug!("packets come faster than they can be counted");
        }
    }

    fn answer(&self, number: u64) {
        *self.answered.lock().unwrap_or_else(PoisonError::into_inner) = number;
        self.has_answered.notify_all();
    }
}

/// The thread's own.
pub(super) struct Capture {
    channels: Vec<Receiver>,
    sleeper: PipeReader,
    control: Arc<Control>,
    shared: Arc<Shared>,
    fragments: Fragments,
}

struct Receiver {
    direction: Direction,
    class: LinkClass,
    /// The same socket as pnet's: it does not show us its own.
    socket: OwnedFd,
    packets: Box<dyn DataLinkReceiver>,
}

impl Capture {
    /// Opens the sockets; from here on the kernel keeps packets for us.
    pub(super) fn open(scope: &Scope, shared: Arc<Shared>) -> io::Result<(Self, Sockets, Arc<Control>)> {
        let mut sockets = Sockets(Vec::new());
        let mut channels = Vec::new();
        for direction in [Direction::Upload, Direction::Download] {
            for class in [LinkClass::Ethernet, LinkClass::Other] {
                let (socket, receiver) = open(scope, direction, class)?;
                channels.push(receiver);
                sockets.0.push((direction, class, socket));
            }
        }
        let (sleeper, waker) = io::pipe()?;
        let control = Arc::new(Control {
            is_ending: AtomicBool::new(false),
            unreadable: AtomicU64::new(0),
            waker,
            asked: AtomicU64::new(0),
            answered: Mutex::new(0),
            has_answered: Condvar::new(),
        });
        let capture = Self {
            channels,
            sleeper,
            control: Arc::clone(&control),
            shared,
            fragments: Fragments::default(),
        };
        Ok((capture, sockets, control))
    }

    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let mut answered = 0;
        let mut observations = Vec::with_capacity(BATCH);
        let mut last = Instant::now();
        while !self.control.is_ending.load(Ordering::Acquire) {
            if last.elapsed() < GATHER {
                thread::sleep(GATHER);
            }
            let ready = match self.wait() {
                Ok(ready) => ready,
                Err(error) => {
                    log::error!("packets are not counted any more: {error}");
                    return;
                }
            };
            // Read before the packets are: what is asked for later needs another turn.
            let asked = self.control.asked.load(Ordering::Acquire);
            let most = if asked > answered { MOST_BEFORE_ANSWER } else { BATCH };
            for (index, is_ready) in ready.into_iter().enumerate() {
                let mut read = 0;
                while is_ready && read < most {
                    let count = self.read(index, &mut observations);
                    read += count;
                    self.count(&mut observations);
                    if count < BATCH {
                        break;
                    }
                }
            }
            last = Instant::now();
            if asked > answered {
                answered = asked;
                self.control.answer(answered);
            }
        }
    }

    /// Sleeps until there is something to do. Which sockets have packets.
    fn wait(&mut self) -> io::Result<Vec<bool>> {
        let sleeper = self.sleeper.as_fd();
        let sockets = self.channels.iter().map(|channel| channel.socket.as_fd());
        let mut descriptors: Vec<_> =
            sockets.chain([sleeper]).map(|fd: BorrowedFd| PollFd::new(fd, PollFlags::POLLIN)).collect();
        match poll(&mut descriptors, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
        let mut ready: Vec<bool> =
            descriptors.iter().map(|descriptor| descriptor.any().unwrap_or_default()).collect();
        if ready.pop() == Some(true) {
            // How many bytes there are does not matter: what it is about is in `control`.
            let _ = self.sleeper.read(&mut [0; 64])?;
        }
        Ok(ready)
    }

    /// Reads up to a batch of packets; how many there were.
    fn read(&mut self, index: usize, observations: &mut Vec<Observation>) -> usize {
        let channel = &mut self.channels[index];
        let addresses = match channel.class {
            LinkClass::Ethernet => None,
            LinkClass::Other => Some(self.shared.addresses()),
        };
        for count in 0..BATCH {
            match channel.packets.next() {
                Ok(bytes) => observations.extend(observe(
                    bytes,
                    channel.direction,
                    addresses.as_deref(),
                    &mut self.fragments,
                )),
                Err(error) if matches!(error.kind(), ErrorKind::TimedOut | ErrorKind::WouldBlock) => {
                    return count;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // An interface that goes down; or a frame that the kernel cannot describe, and has thrown away.
                Err(error) => {
                    if error.raw_os_error() != Some(libc::ENETDOWN) {
                        log::debug!("a packet cannot be read: {error}");
                        self.control.unreadable.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        }
        BATCH
    }

    fn count(&self, observations: &mut Vec<Observation>) {
        if observations.is_empty() {
            return;
        }
        let is_new = self.shared.with(|ledger| {
            observations.drain(..).fold(false, |is_new, observation| ledger.count(&observation) | is_new)
        });
        if is_new {
            self.shared.wake();
        }
    }
}

/// One socket, with its filter, and bound to all interfaces by pnet.
fn open(scope: &Scope, direction: Direction, class: LinkClass) -> io::Result<(PacketSocket, Receiver)> {
    let (framing, channel_type) = match class {
        LinkClass::Ethernet => (Framing::Link, ChannelType::Layer2),
        LinkClass::Other => {
            let everything = u16::try_from(libc::ETH_P_ALL).unwrap_or_default();
            (Framing::Network, ChannelType::Layer3(everything))
        }
    };
    let socket = PacketSocket::open(framing)?;
    // Before it is bound: it never gets what it is not meant to.
    socket.set_filter(&program(scope, direction, class))?;
    socket.set_room(ROOM)?;
    let config = Config {
        channel_type,
        // pnet closes it, also when it fails.
        socket_fd: Some(socket.duplicate()?.into_raw_fd()),
        read_buffer_size: BUFFER,
        write_buffer_size: 0,
        // We wait for all of them at once.
        read_timeout: Some(Duration::ZERO),
        promiscuous: false,
        ..Config::default()
    };
    let Channel::Ethernet(_, packets) = pnet_datalink::channel(&every_interface(), config)? else {
        return Err(ErrorKind::Unsupported.into());
    };
    let receiver = Receiver { direction, class, socket: socket.duplicate()?, packets };
    Ok((socket, receiver))
}

/// To bind to number 0 is to bind to all, those too that are not there yet (packet(7)).
fn every_interface() -> NetworkInterface {
    NetworkInterface {
        name: String::new(),
        description: String::new(),
        index: 0,
        mac: None,
        ips: Vec::new(),
        flags: 0,
    }
}

/// What a packet tells. `None` for what does not count. Without `addresses` the packet is an Ethernet frame behind
/// its offload header.
fn observe(
    bytes: &[u8],
    direction: Direction,
    addresses: Option<&Addresses>,
    fragments: &mut Fragments,
) -> Option<Observation> {
    let (packet, segment) = if let Some(addresses) = addresses {
        let packet = IpPacket::parse(bytes)?;
        let local = match direction {
            Direction::Upload => packet.source,
            Direction::Download => packet.destination,
        };
        (packet, packet.estimate_segment(addresses.mtu(local)))
    } else {
        let (segment, frame) = split_offload(bytes)?;
        (IpPacket::parse(ip_in_ethernet(frame)?)?, segment)
    };
    let (source, destination) = (packet.source, packet.destination);
    let key = packet.fragment.map(|number| FragmentKey { source, destination, number });
    let (flow, opens) = match packet.transport {
        Transport::Ports { protocol, source: from, destination: to, opens } => {
            let (from, to) = ((source, from), (destination, to));
            let flow = match direction {
                Direction::Upload => Flow { protocol, local: from, remote: to },
                Direction::Download => Flow { protocol, local: to, remote: from },
            };
            if let Some(key) = key {
                fragments.insert(key, flow);
            }
            (Some(flow), opens)
        }
        Transport::Continued => (key.and_then(|key| fragments.get(&key)), false),
        Transport::Other => (None, false),
    };
    Some(Observation { flow, direction, bytes: packet.wire_len(segment), opens })
}
