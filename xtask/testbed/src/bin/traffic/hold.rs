//! Many processes with many connections on which nothing happens.

use std::io::{Read, Write, pipe};
use std::net::{SocketAddr, TcpListener, TcpStream};

use anyhow::{Context, ensure};
use nix::unistd::alarm;
use serde_json::Value;

use crate::args::Args;
use crate::family::{Tally, Until, fork_off};
use crate::many::allow_many_files;
use crate::{announce, wait_for_stdin};

/// A process ends itself after so many seconds, whatever has become of its parent: long enough for a benchmark.
const LIFETIME_SECONDS: u32 = 600;

/// Processes that open connections and hold them, or that accept and hold whatever comes, until a line comes in.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let (to, listen): (Option<SocketAddr>, Option<SocketAddr>) =
        (args.optional("to")?, args.optional("listen")?);
    let processes: usize = args.required("processes")?;
    let connections: u32 = args.optional("connections")?.unwrap_or(1);
    args.finish()?;
    allow_many_files()?;
    match (to, listen) {
        (Some(to), None) => connect(to, processes, connections)?,
        (None, Some(listen)) => accept(listen, processes)?,
        _ => anyhow::bail!("either --to or --listen"),
    }
    // Their parent's end is theirs.
    wait_for_stdin()?;
    Ok(Tally::default().report())
}

fn connect(to: SocketAddr, processes: usize, connections: u32) -> anyhow::Result<()> {
    let (mut ready, is_ready) = pipe()?;
    for _ in 0..processes {
        let mut is_ready = is_ready.try_clone()?;
        fork_off(Until::ParentEnds, || {
            alarm::set(LIFETIME_SECONDS);
            let _held: Vec<_> = (0..connections)
                .map(|_| TcpStream::connect(to))
                .collect::<Result<_, _>>()
                .with_context(|| format!("cannot connect to {to} so often"))?;
            is_ready.write_all(b"x")?;
            drop(is_ready);
            loop {
                std::thread::park();
            }
        })?;
    }
    // Where one fails, the pipe ends before it is full.
    drop(is_ready);
    let mut all = Vec::new();
    let enough = u64::try_from(processes)?;
    ready.by_ref().take(enough).read_to_end(&mut all)?;
    ensure!(all.len() == processes, "{} of {processes} processes have their connections", all.len());
    announce(to);
    Ok(())
}

fn accept(listen: SocketAddr, processes: usize) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    for _ in 0..processes {
        fork_off(Until::ParentEnds, || {
            alarm::set(LIFETIME_SECONDS);
            let mut held = Vec::new();
            loop {
                held.push(listener.accept()?);
            }
        })?;
    }
    announce(listener.local_addr()?);
    Ok(())
}
