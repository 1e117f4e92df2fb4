//! Two processes, one after the other, with the same pid.

use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::Args;
use crate::family::{Tally, Until, fork_off_as};
use crate::{announce, wait_for_stdin};

/// Two of the ticks in which a process's start is counted.
const TWO_TICKS: Duration = Duration::from_millis(20);

/// The first sends, and then the second sends something else, each over a connection of its own. With `--wait-stdin` the
/// first says what its pid is, and waits for a line.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let more: u64 = args.required("more")?;
    let waits = args.flag("wait-stdin");
    args.finish()?;
    let first = fork_off_as(None, Until::ParentEnds, || {
        if waits {
            println!("{}", json!({ "first": std::process::id() }));
            wait_for_stdin()?;
        }
        send(to, bytes)
    })?;
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
