//! Two processes with one connection: by turns, or one after the other's end.

use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpStream};

use anyhow::Context;
use serde_json::{Value, json};

use crate::args::Args;
use crate::family::{Tally, Until, fork_off, wait_until_acknowledged};
use crate::{announce, wait_for_stdin};

/// Parent and child take turns on one connection. A turn sends so many bytes and receives as many; the child's are
/// three times the parent's.
pub(crate) fn by_turns(mut args: Args) -> anyhow::Result<Value> {
    let stream = connect(args.required("to")?)?;
    let bytes: u64 = args.required("bytes")?;
    let rounds: u32 = args.required("rounds")?;
    let waits = args.flag("wait-stdin");
    args.finish()?;
    let (mut to_child, mut to_parent) = (pipe()?, pipe()?);
    let child = fork_off(Until::ParentEnds, || {
        let mut tally = Tally::default();
        for _ in 0..rounds {
            to_child.0.read_exact(&mut [0])?;
            turn(&mut tally, &stream, 3 * bytes)?;
            to_parent.1.write_all(b"x")?;
        }
        Ok(tally)
    })?;
    announce(stream.local_addr()?);
    if waits {
        println!("{}", json!({ "child": child.pid().as_raw() }));
        wait_for_stdin()?;
    }
    let mut tally = Tally::default();
    for _ in 0..rounds {
        turn(&mut tally, &stream, bytes)?;
        to_child.1.write_all(b"x")?;
        to_parent.0.read_exact(&mut [0])?;
    }
    child.wait()?;
    tally.note_retransmissions(&stream)?;
    Ok(tally.report())
}

fn turn(tally: &mut Tally, stream: &TcpStream, bytes: u64) -> anyhow::Result<()> {
    tally.send(stream, bytes)?;
    tally.receive(stream, Some(bytes))
}

/// Sends, and when all that has arrived, leaves the connection to a child that sends more after this process's end.
pub(crate) fn orphan(mut args: Args) -> anyhow::Result<Value> {
    let stream = connect(args.required("to")?)?;
    let bytes: u64 = args.required("bytes")?;
    let more: u64 = args.required("more")?;
    args.finish()?;
    announce(stream.local_addr()?);
    let mut tally = Tally::default();
    tally.send(&stream, bytes)?;
    wait_until_acknowledged(&stream)?;
    let (mut parent_has_ended, parent_is_there) = pipe()?;
    // Never waited for: that is the point.
    let _child = fork_off(Until::Done, || {
        drop(parent_is_there);
        // Ends when nobody has the other end open.
        parent_has_ended.read_to_end(&mut Vec::new())?;
        let mut tally = Tally::default();
        tally.use_up(&stream, more)?;
        Ok(tally)
    })?;
    Ok(tally.report())
}

fn connect(to: SocketAddr) -> anyhow::Result<TcpStream> {
    TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))
}
