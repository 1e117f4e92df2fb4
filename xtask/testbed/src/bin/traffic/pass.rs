//! A socket that one process opens and another one gets and uses.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use anyhow::Context;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::{Tally, Until, fork_off};

/// Connects and hands the connection to a process that was there before, which sends and then receives to the end.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    args.finish()?;
    let (here, there) = UnixStream::pair()?;
    let receiver = fork_off(Until::ParentEnds, || {
        let mut tally = Tally::default();
        tally.use_up(&TcpStream::from(take(&there)?), bytes)?;
        Ok(tally)
    })?;
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    hand_over(&here, stream)?;
    receiver.wait()?;
    Ok(Tally::default().report())
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
