//! UDP workers that share a port, each with a socket of its own.

use std::io::{ErrorKind, Read, Write, pipe};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, SockaddrStorage, bind, setsockopt, socket, sockopt,
};
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::{Child, Tally, Until, fork_off};

/// How long to wait for the first datagram.
const FIRST: Duration = Duration::from_secs(10);
/// A worker ends when nothing has come for so long.
const IDLE: Duration = Duration::from_millis(300);

/// Workers that send every datagram back, or with `--silent` none. With `--inherited` the parent opens their sockets,
/// without, they do.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let listen: SocketAddr = args.required("listen")?;
    let number: usize = args.required("workers")?;
    let (is_inherited, is_silent) = (args.flag("inherited"), args.flag("silent"));
    args.finish()?;
    let (mut ready, is_ready) = pipe()?;
    let mut workers = Vec::new();
    for _ in 0..number {
        let inherited = is_inherited.then(|| open(listen)).transpose()?;
        let mut is_ready = is_ready.try_clone()?;
        workers.push(fork_off(Until::ParentEnds, || {
            let socket = inherited.map_or_else(|| open(listen), Ok)?;
            is_ready.write_all(b"x")?;
            answer(&socket, is_silent)
        })?);
    }
    // Each socket has to be there before the first datagram comes.
    ready.read_exact(&mut vec![0; number])?;
    announce(listen);
    workers.into_iter().try_for_each(Child::wait)?;
    Ok(Tally::default().report())
}

fn open(listen: SocketAddr) -> anyhow::Result<UdpSocket> {
    let family = if listen.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    setsockopt(&socket, sockopt::ReusePort, &true)?;
    bind(socket.as_raw_fd(), &SockaddrStorage::from(listen))?;
    Ok(socket.into())
}

fn answer(socket: &UdpSocket, is_silent: bool) -> anyhow::Result<Tally> {
    let mut tally = Tally::default();
    let mut buffer = [0; 2048];
    socket.set_read_timeout(Some(FIRST))?;
    loop {
        match socket.recv_from(&mut buffer) {
            Ok((length, from)) => {
                if tally.receipts == 0 {
                    socket.set_read_timeout(Some(IDLE))?;
                }
                tally.received += length as u64;
                tally.receipts += 1;
                if !is_silent {
                    tally.sent += socket.send_to(&buffer[..length], from)? as u64;
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(tally),
            Err(error) => return Err(error.into()),
        }
    }
}
