//! UDP: the receiver counts until nothing comes any more, the sender counts what the kernel took and what it refused.

use std::io::ErrorKind;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::args::Args;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::{announce, wait_for_stdin};

/// Bytes that may wait for the receiver, so that it loses none when it does not get the CPU for a while.
const RECEIVE_BUFFER: usize = 64 << 20;
/// The longest payload there is.
const LONGEST: usize = 65_535;

/// When a receiver ends.
pub(crate) struct Ending {
    /// Nothing has come for so long since it began.
    pub(crate) first: Duration,
    /// Nothing has come for so long.
    pub(crate) idle: Duration,
    /// That counts only once it has been told that nobody sends any more, by an empty datagram: a sender that does not get
    /// the CPU is silent, too.
    pub(crate) is_told: bool,
}

/// Receives until its end.
pub(crate) fn sink(listen: SocketAddr, ending: &Ending) -> anyhow::Result<Value> {
    let socket = UdpSocket::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    // By force: the ordinary option is bounded by net.core.rmem_max.
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)
        // In a container nobody may do that.
        .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &RECEIVE_BUFFER))
        .context("cannot get a large receive buffer")?;
    socket.set_read_timeout(Some(ending.first))?;
    announce(socket.local_addr()?);
    let mut meter = Meter::default();
    let mut buffer = vec![0; LONGEST];
    loop {
        match socket.recv(&mut buffer) {
            Ok(0) if ending.is_told => socket.set_read_timeout(Some(ending.idle))?,
            Ok(length) => {
                if meter.datagrams == 0 && !ending.is_told {
                    socket.set_read_timeout(Some(ending.idle))?;
                }
                meter.datagrams += 1;
                meter.received(length);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => meter.failed(&error),
        }
    }
    Ok(meter.report(meter.elapsed()))
}

/// Has what a socket sends carry hop-by-hop and destination options that mean nothing (RFC 8200, section 4.2: `PadN`).
fn extend(socket: &UdpSocket) -> anyhow::Result<()> {
    const PADDING: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    for option in [libc::IPV6_HOPOPTS, libc::IPV6_DSTOPTS] {
        // SAFETY: the socket is open, and the kernel reads as many bytes as there are.
        let result = unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::IPPROTO_IPV6, option, PADDING.as_ptr().cast(), 8)
        };
        Errno::result(result).context("cannot set IPv6 options")?;
    }
    Ok(())
}

/// What a sender is to do.
pub(crate) struct Sending {
    to: SocketAddr,
    rate: u64,
    size: usize,
    time: Option<Duration>,
    datagrams: Option<u64>,
    from: Option<SocketAddr>,
    unconnected: bool,
    wait_stdin: bool,
    /// With IPv6 extension headers.
    extended: bool,
}

impl Sending {
    pub(crate) fn from_args(args: &mut Args) -> anyhow::Result<Self> {
        let (seconds, datagrams) = (args.optional("seconds")?, args.optional("datagrams")?);
        anyhow::ensure!(seconds.is_some() != datagrams.is_some(), "either --seconds or --datagrams");
        Ok(Self {
            to: args.required("to")?,
            rate: args.required("rate")?,
            size: args.required("size")?,
            time: seconds.map(Duration::try_from_secs_f64).transpose()?,
            datagrams,
            from: args.optional("from")?,
            unconnected: args.flag("unconnected"),
            wait_stdin: args.flag("wait-stdin"),
            extended: args.flag("extended"),
        })
    }

    /// Sends. A datagram that is refused is not sent again; it counts for the pace, since a program that is limited
    /// goes on offering as much as before.
    pub(crate) fn run(&self) -> anyhow::Result<Value> {
        let any = if self.to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let socket = match self.from {
            Some(from) => UdpSocket::bind(from)?,
            None => UdpSocket::bind(any)?,
        };
        if self.extended {
            extend(&socket)?;
        }
        if !self.unconnected {
            socket.connect(self.to).with_context(|| format!("cannot connect to {}", self.to))?;
        }
        announce(socket.local_addr()?);
        if self.wait_stdin {
            wait_for_stdin()?;
        }
        let payload = vec![b'x'; self.size];
        let mut meter = Meter::default();
        let mut pace = Pace::new(Some(self.rate));
        let mut offered = 0;
        loop {
            pace.wait();
            let is_over = self.time.is_some_and(|time| pace.elapsed() >= time);
            if is_over || self.datagrams == Some(offered) {
                return Ok(meter.report(pace.elapsed()));
            }
            let sent =
                if self.unconnected { socket.send_to(&payload, self.to) } else { socket.send(&payload) };
            match sent {
                Ok(length) => {
                    meter.datagrams += 1;
                    meter.bytes += length as u64;
                }
                Err(error) => meter.failed(&error),
            }
            pace.offered(self.size);
            offered += 1;
        }
    }
}
