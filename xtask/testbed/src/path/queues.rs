//! What passes a router without any path, as the queues of its two interfaces count it.
//!
//! An interface counts a super-packet as one; a queueing discipline counts it as the segments that it stands for, each
//! with its headers (`qdisc_pkt_len_segs_init`, net/core/dev.c).

use std::os::fd::{AsRawFd, OwnedFd};
use std::process::Command;

use anyhow::Context;
use nix::net::if_::if_nametoindex;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use super::Carried;
use crate::{Host, program};

/// The bytes in front of an IP packet, which a queue counts too.
const FRAME: u64 = 14;
/// Of messages, from include/uapi/linux/netlink.h and include/uapi/linux/rtnetlink.h.
const RTM_GETQDISC: u16 = 38;
const NLM_F_REQUEST_DUMP: u16 = 0x301;
const NLMSG_DONE: u16 = 3;
const NLMSG_ERROR: u16 = 2;
/// `struct nlmsghdr`, and `struct tcmsg` behind it.
const HEADER: usize = 16;
const TCMSG: usize = 20;
/// Parent of the outermost queue (`TC_H_ROOT`, `include/uapi/linux/pkt_sched.h`).
const ROOT: u32 = u32::MAX;
/// Attributes: all figures, and within them `struct gnet_stats_basic` (`include/uapi/linux/gen_stats.h`).
const TCA_STATS2: u16 = 7;
const TCA_STATS_BASIC: u16 = 1;

/// Queues towards the server and towards the client, and a socket to ask for them.
#[derive(Debug)]
pub(crate) struct Queues {
    netlink: OwnedFd,
    indexes: [u32; 2],
}

impl Queues {
    /// Gives the interfaces of a router, `[to_server, to_client]`, queues that are as good as none.
    pub(crate) fn add(router: &Host, interfaces: [&str; 2]) -> anyhow::Result<Self> {
        for interface in interfaces {
            let words = ["qdisc", "add", "dev", interface, "root", "pfifo", "limit", "20000"];
            program::run(Command::new("tc").args(["-n", router.namespace()]).args(words), "")?;
        }
        router.run(|| {
            let netlink = socket(
                AddressFamily::Netlink,
                SockType::Raw,
                SockFlag::SOCK_CLOEXEC,
                SockProtocol::NetlinkRoute,
            )?;
            setsockopt(&netlink, sockopt::ReceiveTimeout, &TimeVal::seconds(5))?;
            let [to_server, to_client] = interfaces.map(if_nametoindex);
            Ok(Self { netlink, indexes: [to_server?, to_client?] })
        })
    }

    /// What has passed to the server, and to the client.
    pub(crate) fn carried(&self) -> anyhow::Result<[Carried; 2]> {
        let mut request = Vec::new();
        request.extend(u32::try_from(HEADER + TCMSG)?.to_ne_bytes());
        request.extend(RTM_GETQDISC.to_ne_bytes());
        request.extend(NLM_F_REQUEST_DUMP.to_ne_bytes());
        request.resize(HEADER + TCMSG, 0);
        let fd = self.netlink.as_raw_fd();
        send(fd, &request, MsgFlags::empty()).context("cannot ask for queues")?;
        let mut carried = [Carried::default(); 2];
        let mut buffer = vec![0; 1 << 16];
        loop {
            let length = recv(fd, &mut buffer, MsgFlags::empty()).context("no answer about queues")?;
            let mut rest = &buffer[..length];
            while let Some((kind, message, next)) = part(rest, 4, |bytes| u32_at(bytes, 0)) {
                match kind {
                    NLMSG_DONE => return Ok(carried),
                    NLMSG_ERROR => anyhow::bail!("the kernel refuses to tell of queues"),
                    _ => {}
                }
                let of = self.indexes.iter().position(|index| u32_at(message, HEADER + 4) == Some(*index));
                if let Some(of) = of
                    && u32_at(message, HEADER + 12) == Some(ROOT)
                {
                    carried[of] = counted(message).context("a queue without figures")?;
                }
                rest = next;
            }
        }
    }
}

/// The figures of a queue.
fn counted(message: &[u8]) -> Option<Carried> {
    let figures = attribute(message.get(HEADER + TCMSG..)?, TCA_STATS2)?;
    let basic = attribute(figures, TCA_STATS_BASIC)?;
    let bytes = u64::from_ne_bytes(*basic.first_chunk()?);
    let segments = u64::from(u32_at(basic, 8)?);
    Some(Carried { bytes: bytes.saturating_sub(FRAME * segments), segments })
}

/// The content of an attribute.
fn attribute(mut attributes: &[u8], wanted: u16) -> Option<&[u8]> {
    while let Some((kind, attribute, next)) = part(attributes, 2, |bytes| u16_at(bytes, 0).map(u32::from)) {
        // Two bits say of what kind its content is.
        if kind & 0x3fff == wanted {
            return attribute.get(4..);
        }
        attributes = next;
    }
    None
}

/// The first message or attribute: its kind, which stands at an offset, all of it, and what follows.
fn part(bytes: &[u8], kind_at: usize, length: impl Fn(&[u8]) -> Option<u32>) -> Option<(u16, &[u8], &[u8])> {
    let length = usize::try_from(length(bytes)?).ok()?;
    let part = bytes.get(..length).filter(|part| part.len() >= 4)?;
    Some((u16_at(part, kind_at)?, part, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_a_queue() {
        let mut message = vec![0; HEADER + TCMSG];
        // An attribute that is of no interest, with padding behind; then the figures.
        message.extend([[5, 0, 1, 0], [b'x', 0, 0, 0]].concat());
        message.extend([[24, 0, 7, 0x80], [20, 0, 1, 0]].concat());
        message.extend(3028_u64.to_ne_bytes());
        message.extend(2_u32.to_ne_bytes());
        message.extend([0; 4]);
        assert_eq!(counted(&message), Some(Carried { bytes: 3000, segments: 2 }));
        assert_eq!(counted(&message[..40]), None);
    }
}
