//! ICMP echo over a raw socket, as `ping` does as root.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, recv, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::time::TimeVal;
use serde_json::Value;

use crate::announce;
use crate::args::Args;
use crate::family::Tally;

const ECHO_REPLY: u8 = 0;
const ECHO_REQUEST: u8 = 8;
const IP_HEADER: usize = 20;
const ICMP_HEADER: usize = 8;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Sends one request after the other, and waits for the answer to each. Counts bytes of payload.
pub(crate) fn run(mut args: Args) -> anyhow::Result<Value> {
    let to: Ipv4Addr = args.required("to")?;
    let count: u16 = args.required("count")?;
    let size: usize = args.required("size")?;
    args.finish()?;
    let to = std::net::SocketAddrV4::new(to, 0);
    let socket = socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp)
        .context("cannot open a raw socket")?;
    setsockopt(&socket, sockopt::ReceiveTimeout, &TimeVal::new(1, 0))?;
    announce(to.into());
    let mut tally = Tally::default();
    for number in 0..count {
        let request = request(number, size);
        sendto(socket.as_raw_fd(), &request, &SockaddrIn::from(to), MsgFlags::empty())?;
        tally.sent += size as u64;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut packet = [0; 2048];
            let length = recv(socket.as_raw_fd(), &mut packet, MsgFlags::empty())
                .with_context(|| format!("no answer to request {number}"))?;
            let answer = &packet[IP_HEADER.min(length)..length];
            if answer.first() == Some(&ECHO_REPLY) && answer.get(4..8) == request.get(4..8) {
                tally.received += (answer.len() - ICMP_HEADER) as u64;
                tally.receipts += 1;
                break;
            }
            ensure!(Instant::now() < deadline, "no answer to request {number}");
        }
    }
    Ok(tally.report())
}

/// An echo request (RFC 792) with zeros for its payload.
fn request(number: u16, size: usize) -> Vec<u8> {
    let mut packet = vec![0; ICMP_HEADER + size];
    packet[0] = ECHO_REQUEST;
    let [_, _, id @ ..] = std::process::id().to_be_bytes();
    packet[4..6].copy_from_slice(&id);
    packet[6..8].copy_from_slice(&number.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// The internet checksum (RFC 1071) of bytes whose own checksum is zero.
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|word| u16::from_be_bytes([word[0], word.get(1).copied().unwrap_or(0)]));
    let mut sum: u32 = words.map(u32::from).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).expect("folded")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_makes_the_sum_of_all_words_come_out_even() {
        // The example in RFC 1071, section 3.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&request(7, 33)), 0);
    }
}
