//! A socket that one process opens and another one gets and uses.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::{Context, ensure};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg, setsockopt, sockopt,
};
use serde_json::{Value, json};

use crate::args::Args;
use crate::family::{Tally, Until, fork_off, unacknowledged};
use crate::{announce, wait_for_stdin};

/// Room for everything that is written before the connection is handed over, and after.
const SEND_BUFFER: usize = 16 << 20;

/// Connects and hands the connection to a process that was there before, which sends and then receives to the end.
///
/// With `--first` some bytes are sent before, and are still waiting to leave when the connection changes hands; who
/// gets it says so once it has written its own. With `--wait-stdin` it says who is to get it, and waits for a line before
/// it hands it over.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let first = args.optional("first")?.unwrap_or(0);
    let waits = args.flag("wait-stdin");
    args.finish()?;
    let (here, there) = UnixStream::pair()?;
    let receiver = fork_off(Until::ParentEnds, || {
        let mut tally = Tally::default();
        let stream = TcpStream::from(take(&there)?);
        tally.send(&stream, bytes)?;
        if first > 0 {
            announce(stream.local_addr()?);
        }
        tally.use_up(&stream, 0)?;
        Ok(tally)
    })?;
    if waits {
        println!("{}", json!({ "taker": receiver.pid().as_raw() }));
    }
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    if waits {
        wait_for_stdin()?;
    }
    let mut tally = Tally::default();
    if first > 0 {
        setsockopt(&stream, sockopt::SndBufForce, &SEND_BUFFER)?;
        tally.send(&stream, first)?;
        let waiting = unacknowledged(&stream)?;
        ensure!(waiting > first / 2, "only {waiting} of {first} bytes wait: the other side is too fast");
    }
    hand_over(&here, stream)?;
    receiver.wait()?;
    Ok(tally.report())
}

/// Sends a connection through a socket, and closes it here.
fn hand_over(through: &UnixStream, stream: TcpStream) -> anyhow::Result<()> {
    let fds = [stream.as_raw_fd()];
    let message = [IoSlice::new(b"x")];
    let rights = [ControlMessage::ScmRights(&fds)];
    sendmsg::<()>(through.as_raw_fd(), &message, &rights, MsgFlags::empty(), None)?;
    drop(stream);
    Ok(())
}

/// Receives a descriptor.
fn take(from: &UnixStream) -> anyhow::Result<OwnedFd> {
    let (mut byte, mut space) = ([0], nix::cmsg_space!(RawFd));
    let mut message = [IoSliceMut::new(&mut byte)];
    let message = recvmsg::<()>(from.as_raw_fd(), &mut message, Some(&mut space), MsgFlags::empty())?;
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = control {
            let fd = *fds.first().context("no descriptor came")?;
            // SAFETY: the kernel has just made it for us, and nobody else knows its number.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    anyhow::bail!("no descriptor came");
}
