//! Sends and receives over TCP and UDP, and counts every byte.
//!
//! Prints two lines of JSON: `{"ready":"ADDRESS"}` when its socket is open (the address is its own), and a report at
//! the end: `bytes`, `seconds`, `datagrams`, bytes `retransmitted`, `errors` by name, and of a receiver `buckets` of
//! bytes. What shares sockets among processes, or uses them in unusual ways, reports `pid`, `sent`, `received`,
//! `receipts`, `retransmitted` and the `ports` of who connected to it: a line for each process. `testbed::traffic`
//! documents the arguments.

mod args;
mod family;
mod hold;
mod icmp;
mod many;
mod meter;
mod pace;
mod pass;
mod prefork;
mod reborn;
mod rename;
mod reuseport;
mod tcp;
mod tunnel;
mod turns;
mod udp;
mod uring;
mod zerocopy;

use std::io::{self, BufRead};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};

use args::Args;
use nix::unistd::Uid;

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("traffic: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let mode = words.next().context("tell me what to do: tcp-sink, tcp-send, …")?;
    let mut args = Args::parse(words)?;
    let report = match mode.as_str() {
        "tcp-sink" => {
            let (listen, connections) = (args.required("listen")?, args.optional("connections")?);
            args.finish()?;
            tcp::sink(listen, connections.unwrap_or(1))?
        }
        "tcp-send" => {
            let (to, sending) = (args.required("to")?, tcp::Sending::from_args(&mut args)?);
            args.finish()?;
            tcp::send_to(to, sending)?
        }
        "tcp-source" => {
            let (listen, connections) = (args.required("listen")?, args.optional("connections")?);
            let (sending, user) = (tcp::Sending::from_args(&mut args)?, args.optional("become")?);
            args.finish()?;
            tcp::source(listen, connections.unwrap_or(1), sending, user.map(Uid::from_raw))?
        }
        "tcp-receive" => {
            let from = args.required("from")?;
            args.finish()?;
            tcp::receive_from(from)?
        }
        "udp-sink" => {
            let listen = args.required("listen")?;
            let ending = udp::Ending {
                first: Duration::from_millis(args.optional("first-wait")?.unwrap_or(10_000)),
                idle: Duration::from_millis(args.required("idle-exit")?),
                is_told: args.flag("until-told"),
            };
            args.finish()?;
            udp::sink(listen, &ending)?
        }
        "udp-send" => {
            let sending = udp::Sending::from_args(&mut args)?;
            args.finish()?;
            sending.run()?
        }
        "prefork" => prefork::run(args)?,
        "pass" => pass::run(args)?,
        "turns" => turns::by_turns(args)?,
        "orphan" => turns::orphan(args)?,
        "reuseport" => reuseport::run(args)?,
        "many" => many::run(args)?,
        "hold" => hold::run(args)?,
        "zerocopy" => zerocopy::run(args)?,
        "uring" => uring::run(args)?,
        "icmp" => icmp::run(args)?,
        "rename" => rename::run(args)?,
        "reborn" => reborn::run(args)?,
        "tunnel" => tunnel::run(args)?,
        other => bail!("I do not know how to {other}"),
    };
    println!("{report}");
    Ok(())
}

/// Says that the socket is open, and where.
fn announce(local: SocketAddr) {
    println!("{}", serde_json::json!({ "ready": local.to_string() }));
}

/// Waits for a line on standard input.
fn wait_for_stdin() -> anyhow::Result<()> {
    if io::stdin().lock().read_line(&mut String::new())? == 0 {
        bail!("standard input ended before the line that was to start me");
    }
    Ok(())
}
