//! One listener, several processes that accept from it.

use std::net::{Shutdown, SocketAddr, TcpListener};

use anyhow::Context;
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::{Child, Tally, Until, fork_off};

/// Serves from workers, each so many connections, one after the other.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let listen: SocketAddr = args.required("listen")?;
    let workers: u32 = args.required("workers")?;
    let connections: u32 = args.required("connections")?;
    let answer: u64 = args.required("answer")?;
    args.finish()?;
    let listener = TcpListener::bind(listen).with_context(|| format!("cannot listen on {listen}"))?;
    let workers: Vec<_> = (0..workers)
        .map(|_| fork_off(Until::ParentEnds, || serve(&listener, connections, answer)))
        .collect::<Result<_, _>>()?;
    announce(listener.local_addr()?);
    workers.into_iter().try_for_each(Child::wait)?;
    Ok(Tally::default().report())
}

/// Speaks first, then listens to the end.
fn serve(listener: &TcpListener, connections: u32, answer: u64) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    for _ in 0..connections {
        let (stream, from) = listener.accept()?;
        tally.ports.push(from.port());
        if answer > 0 {
            tally.send(&stream, answer)?;
            stream.shutdown(Shutdown::Write)?;
        }
        tally.receive(&stream, None)?;
        tally.note_retransmissions(&stream)?;
    }
    Ok(tally)
}
