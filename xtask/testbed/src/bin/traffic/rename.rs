//! A process that becomes another program.

use std::net::{SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::args::Args;
use crate::family::Tally;
use crate::{announce, wait_for_stdin};

/// Sends, and on a line of input becomes a program that is this one under another name, which sends as much again
/// over a connection of its own.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let bytes: u64 = args.required("bytes")?;
    let program: PathBuf = args.required("program")?;
    args.finish()?;
    let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
    announce(stream.local_addr()?);
    Tally::default().use_up(&stream, bytes)?;
    wait_for_stdin()?;
    drop(stream);
    let (to, bytes) = (to.to_string(), bytes.to_string());
    let error =
        Command::new(&program).args(["tcp-send", "--to", &to, "--bytes", &bytes, "--wait-stdin"]).exec();
    Err(error).with_context(|| format!("cannot become {}", program.display()))
}
