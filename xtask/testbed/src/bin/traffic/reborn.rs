//! Two processes, one after the other, with the same pid.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::{Tally, Until, fork_off_as};

/// Two of the ticks in which a process's start is counted.
const TWO_TICKS: Duration = Duration::from_millis(20);

/// The first sends, and then the second sends something else, each over a connection of its own.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let more: u64 = args.required("more")?;
    args.finish()?;
    let first = fork_off_as(None, Until::ParentEnds, || send(to, bytes))?;
    let pid = first.pid();
    first.wait()?;
    std::thread::sleep(TWO_TICKS);
    fork_off_as(Some(pid), Until::ParentEnds, || send(to, more))?.wait()?;
    Ok(Tally::default().report())
}

fn send(to: SocketAddr, bytes: u64) -> anyhow::Result<Tally> {
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    let mut tally = Tally::default();
    tally.use_up(&stream, bytes)?;
    Ok(tally)
}
