//! Many connections of one process.

use std::net::{SocketAddr, TcpStream};

use anyhow::Context;
use nix::errno::Errno;
use nix::libc;
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::Tally;

/// Opens all of them, then sends on each and receives to its end.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: SocketAddr = args.required("to")?;
    let connections: u32 = args.required("connections")?;
    let bytes: u64 = args.required("bytes")?;
    args.finish()?;
    allow_many_files()?;
    let streams: Vec<_> = (0..connections)
        .map(|_| TcpStream::connect(to))
        .collect::<Result<_, _>>()
        .with_context(|| format!("cannot connect to {to} so often"))?;
    let first = streams.first().context("no connections")?;
    announce(first.local_addr()?);
    let mut tally = Tally::default();
    for stream in &streams {
        tally.use_up(stream, bytes)?;
    }
    Ok(tally.report())
}

/// Raises the number of files that this process may open to what it may raise it to.
pub(crate) fn allow_many_files() -> anyhow::Result<()> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: both calls get a structure that lives through them.
    unsafe {
        Errno::result(libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit))?;
        limit.rlim_cur = limit.rlim_max;
        Errno::result(libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit))?;
    }
    Ok(())
}
