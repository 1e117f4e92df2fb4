//! A tunnel of user space: packets of a tun device, in datagrams.

use std::ffi::c_char;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::{Context, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::Value;

use crate::announce;
use crate::args::Args;

/// The longest packet there is.
const LONGEST: usize = 65_535;
/// Bytes that may wait for us, so that none are lost when we do not get the CPU for a while.
const RECEIVE_BUFFER: usize = 16 << 20;

/// Carries packets until it is killed.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let name: String = args.required("device")?;
    let (listen, to): (Option<SocketAddr>, Option<SocketAddr>) =
        (args.optional("listen")?, args.optional("to")?);
    args.finish()?;
    ensure!(listen.is_some() != to.is_some(), "either --listen or --to");
    let socket = UdpSocket::bind(listen.unwrap_or(([0; 4], 0).into()))?;
    if let Some(to) = to {
        socket.connect(to).with_context(|| format!("cannot connect to {to}"))?;
    }
    setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER)?;
    let device = open(&name).with_context(|| format!("cannot make the device {name}"))?;
    announce(socket.local_addr()?);
    carry(device, &socket, to.is_some())
}

/// Makes a device whose packets begin with their IP header. It goes when the descriptor does.
fn open(name: &str) -> anyhow::Result<File> {
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: zeros are a valid request, with an empty name and no flags.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    ensure!(name.len() < request.ifr_name.len(), "{name:?} is too long");
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = c_char::from_ne_bytes([from]);
    }
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TUN | libc::IFF_NO_PI)?;
    // SAFETY: the request reads and writes the structure, which lives through the call.
    Errno::result(unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) })?;
    Ok(device)
}

/// Whoever listens answers to the first who sends.
fn carry(mut device: File, socket: &UdpSocket, mut is_connected: bool) -> anyhow::Result<Value> {
    let mut packet = vec![0; LONGEST];
    loop {
        let ready = {
            let mut ready = [device.as_fd(), socket.as_fd()].map(|fd| PollFd::new(fd, PollFlags::POLLIN));
            poll(&mut ready, PollTimeout::NONE)?;
            ready.map(|fd| fd.any().unwrap_or_default())
        };
        if ready[0] {
            let length = device.read(&mut packet)?;
            // Before anybody has sent there is nowhere to send to.
            if is_connected {
                socket.send(&packet[..length])?;
            }
        }
        if ready[1] {
            let (length, from) = socket.recv_from(&mut packet)?;
            if !is_connected {
                socket.connect(from)?;
                is_connected = true;
            }
            match device.write(&packet[..length]) {
                // It is not up yet.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                written => ensure!(written? == length, "a packet went in pieces"),
            }
        }
    }
}
