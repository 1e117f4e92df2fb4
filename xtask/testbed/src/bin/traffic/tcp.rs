//! TCP: the sender closes its half when all is sent, the receiver counts to that end and then closes its own, which
//! tells the sender that all has been received.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::time::Duration;

use anyhow::Context;
use nix::unistd::{Uid, setuid};
use serde_json::Value;

use crate::args::Args;
use crate::family::retransmitted;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::{announce, wait_for_stdin};

/// Bytes per call: so many that calls cost next to nothing.
const BUFFER: usize = 1 << 20;
/// Bytes per call where there is a rate: at most a hundredth of a second's worth, so that it comes evenly.
const PIECES_PER_SECOND: u64 = 100;

/// What a sender is to do.
#[derive(Clone, Copy)]
pub(crate) struct Sending {
    bytes: Option<u64>,
    time: Option<Duration>,
    rate: Option<u64>,
    wait_stdin: bool,
    quit: bool,
}

impl Sending {
    pub(crate) fn from_args(args: &mut Args) -> anyhow::Result<Self> {
        let (bytes, seconds) = (args.optional("bytes")?, args.optional("seconds")?);
        anyhow::ensure!(bytes.is_some() != seconds.is_some(), "either --bytes or --seconds");
        let time = seconds.map(Duration::try_from_secs_f64).transpose()?;
        let rate = args.optional("rate")?;
        Ok(Self { bytes, time, rate, wait_stdin: args.flag("wait-stdin"), quit: args.flag("quit") })
    }
}

/// Sends to an address.
pub(crate) fn send_to(to: SocketAddr, sending: Sending) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    if sending.wait_stdin {
        wait_for_stdin()?;
    }
    let (bytes, elapsed) = send(&stream, sending)?;
    Ok(Meter::of_sender(bytes, retransmitted(&stream)?).report(elapsed))
}

/// Receives from an address.
pub(crate) fn receive_from(from: SocketAddr) -> anyhow::Result<Value> {
    let stream = TcpStream::connect(from).with_context(|| format!("cannot connect to {from}"))?;
    announce(stream.local_addr()?);
    let meter = Mutex::default();
    receive(&stream, &meter)?;
    let meter = meter.into_inner()?;
    Ok(meter.report(meter.elapsed()))
}

/// Receives from who connects.
pub(crate) fn sink(listen: SocketAddr, connections: usize) -> anyhow::Result<Value> {
    let meter = Mutex::default();
    accept(listen, connections, None, |stream| receive(stream, &meter))?;
    let meter = meter.into_inner()?;
    Ok(meter.report(meter.elapsed()))
}

/// Sends to who connects, where it is asked to as another user than the one that listens.
pub(crate) fn source(
    listen: SocketAddr,
    connections: usize,
    sending: Sending,
    user: Option<Uid>,
) -> anyhow::Result<Value> {
    let total = Mutex::new((0, 0, Duration::ZERO));
    accept(listen, connections, user, |stream| {
        if sending.wait_stdin {
            wait_for_stdin()?;
        }
        let (bytes, elapsed) = send(stream, sending)?;
        let mut total = total.lock().expect("no thread panics with it");
        *total = (total.0 + bytes, total.1 + retransmitted(stream)?, total.2.max(elapsed));
        Ok(())
    })?;
    let (bytes, retransmitted, elapsed) = total.into_inner()?;
    Ok(Meter::of_sender(bytes, retransmitted).report(elapsed))
}

/// Accepts so many connections and serves each on a thread; fails if one of them does.
fn accept(
    listen: SocketAddr,
    connections: usize,
    user: Option<Uid>,
    serve: impl Fn(&TcpStream) -> anyhow::Result<()> + Sync,
) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    if let Some(user) = user {
        setuid(user).with_context(|| format!("cannot become user {user}"))?;
    }
    announce(listener.local_addr()?);
    std::thread::scope(|scope| {
        let serve = &serve;
        let mut threads = Vec::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept()?;
            threads.push(scope.spawn(move || serve(&stream)));
        }
        threads.into_iter().try_for_each(|thread| thread.join().expect("no thread panics"))
    })
}

/// Sends, waits until the other side has received it all (unless it is to quit), and returns bytes and time.
fn send(mut stream: &TcpStream, sending: Sending) -> anyhow::Result<(u64, Duration)> {
    let piece = sending.rate.map_or(BUFFER as u64, |rate| (rate / PIECES_PER_SECOND).clamp(1, BUFFER as u64));
    let buffer = vec![b'x'; usize::try_from(piece)?];
    let mut pace = Pace::new(sending.rate);
    let mut sent = 0;
    loop {
        let left = sending.bytes.map_or(piece, |bytes| piece.min(bytes - sent));
        if left == 0 || sending.time.is_some_and(|time| pace.elapsed() >= time) {
            break;
        }
        pace.wait();
        // A limit may hold up one call for longer than we are to send. Zero would mean for ever.
        let time_left =
            sending.time.map(|time| time.saturating_sub(pace.elapsed()).max(Duration::from_millis(1)));
        stream.set_write_timeout(time_left)?;
        match stream.write(&buffer[..usize::try_from(left)?]) {
            Ok(written) => {
                sent += written as u64;
                pace.offered(written);
            }
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
            Err(error) => return Err(error).context("cannot send"),
        }
    }
    if sending.quit {
        return Ok((sent, pace.elapsed()));
    }
    stream.shutdown(Shutdown::Write)?;
    // The end of the other half says that all has been received. A byte there would be a mistake in the test.
    let answer = stream.read(&mut [0]).context("the receiver did not come to the end")?;
    anyhow::ensure!(answer == 0, "the receiver sent something");
    Ok((sent, pace.elapsed()))
}

/// Receives to the end.
fn receive(mut stream: &TcpStream, meter: &Mutex<Meter>) -> anyhow::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(length) => meter.lock().expect("no thread panics with it").received(length),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error).context("cannot receive"),
        }
    }
}
