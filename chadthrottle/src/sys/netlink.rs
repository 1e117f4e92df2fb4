//! The way to the kernel over netlink(7), and questions that go it; `message` is what they are as bytes.

mod message;

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
};

use nix::{
    errno::Errno,
    libc,
    sys::{
        socket::{
            AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, sendto,
            setsockopt, socket, sockopt::ReceiveTimeout,
        },
        time::{TimeVal, TimeValLike},
    },
};

#[cfg(feature = "fuzzing")]
pub(crate) use self::message::fuzz;
pub use self::message::{Refusal, attributes, put, put_nested};
use self::message::{aligned, end_in, error_in, message, messages, refusal_in};

/// Room for one datagram. The kernel's own limit for a part of a dump is 32 KiB (`netlink_recvmsg`).
const DATAGRAM: usize = 64 << 10;
/// The kernel answers at once. Should it not, that is an error and not a program that hangs.
const PATIENCE_S: i64 = 5;

/// A netlink socket.
#[derive(Debug)]
pub struct Channel {
    socket: OwnedFd,
    buffer: Vec<u8>,
}

impl Channel {
    /// Opens one to the part of the kernel that speaks `protocol`, and joins multicast groups, as bits.
    ///
    /// # Errors
    /// When the kernel was built without it, or a sandbox forbids it.
    pub fn open(protocol: SockProtocol, groups: u32, flags: SockFlag) -> io::Result<Self> {
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags | SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, groups))?;
        setsockopt(&socket, ReceiveTimeout, &TimeVal::seconds(PATIENCE_S))?;
        Ok(Self { socket, buffer: vec![0; DATAGRAM] })
    }

    /// Sends a datagram to the kernel.
    ///
    /// # Errors
    /// When it refuses.
    pub fn send(&self, datagram: &[u8]) -> io::Result<()> {
        sendto(self.socket.as_raw_fd(), datagram, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
        Ok(())
    }

    /// The next datagram from the kernel, or `None` where there is none (and the socket does not wait, or has waited
    /// too long).
    ///
    /// # Errors
    /// When the kernel refuses; `ENOBUFS` when some did not fit in the socket's buffer.
    pub fn receive(&mut self) -> Result<Option<&[u8]>, Errno> {
        loop {
            match recvfrom::<NetlinkAddr>(self.socket.as_raw_fd(), &mut self.buffer) {
                // The kernel is number 0; another process would need CAP_NET_ADMIN to write to us at all.
                Ok((length, Some(sender))) if sender.pid() == 0 => return Ok(Some(&self.buffer[..length])),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Switches an option of a netlink socket on (`netlink(7)`).
fn set_option(socket: &OwnedFd, option: libc::c_int) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let length = libc::socklen_t::try_from(size_of_val(&on)).unwrap_or_default();
    // SAFETY: the pointer is to a live integer of that length.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_NETLINK, option, (&raw const on).cast(), length)
    };
    Errno::result(result).map(drop)
}

/// How many answers a question has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    /// One, or an error.
    One,
    /// Any number, and then the end.
    Many,
}

/// Asks one part of the kernel.
#[derive(Debug)]
pub struct Netlink {
    channel: Channel,
    /// Tells answers to this question from what is left of one that failed half-way.
    sequence: u32,
}

impl Netlink {
    /// Opens a way to the part of the kernel that speaks `protocol`; asks nothing yet.
    ///
    /// # Errors
    /// When the kernel was built without it, or a sandbox forbids it.
    pub fn open(protocol: SockProtocol) -> io::Result<Self> {
        let channel = Channel::open(protocol, 0, SockFlag::empty())?;
        // Before Linux 4.12 there are none.
        for option in [libc::NETLINK_EXT_ACK, libc::NETLINK_CAP_ACK] {
            let _ = set_option(&channel.socket, option);
        }
        Ok(Self { channel, sequence: 0 })
    }

    /// Asks, and shows the body of every answer.
    ///
    /// # Errors
    /// What the kernel answers with, or that it does not.
    pub fn ask(
        &mut self,
        kind: u16,
        answers: Answers,
        body: &[u8],
        mut each: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let dump = if answers == Answers::Many { libc::NLM_F_DUMP } else { 0 };
        self.channel.send(&message(kind, dump, self.sequence, body))?;
        loop {
            let Some(datagram) = self.channel.receive()? else { return Err(io::ErrorKind::TimedOut.into()) };
            for message in messages(datagram) {
                if message.sequence != self.sequence {
                    continue;
                }
                match i32::from(message.kind) {
                    libc::NLMSG_ERROR => return error_in(message.body),
                    libc::NLMSG_DONE => return end_in(message.body),
                    _ => each(message.body),
                }
                if answers == Answers::One {
                    return Ok(());
                }
            }
        }
    }

    /// Tells the kernel to change something; `flags` beside those that every request has (`NLM_F_CREATE` and the like).
    ///
    /// # Errors
    /// Why it does not; `ETIMEDOUT` where it does not answer.
    pub fn change(&mut self, kind: u16, flags: libc::c_int, body: &[u8]) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        self.channel.send(&message(kind, flags | libc::NLM_F_ACK, self.sequence, body))?;
        self.answer()
    }

    /// Tells the kernel to change several things, all or none: kind, flags and body of each, of which the first and the
    /// last mark the beginning and the end.
    ///
    /// # Errors
    /// Why it does not; `ETIMEDOUT` where it does not answer.
    pub fn change_all(&mut self, batch: &[(u16, libc::c_int, Vec<u8>)]) -> Result<(), Refusal> {
        self.sequence = self.sequence.wrapping_add(1);
        // What fails is answered in any case, and the last one if nothing does.
        let last = batch.len().saturating_sub(2);
        let part = |(index, (kind, flags, body)): (usize, &(u16, libc::c_int, Vec<u8>))| {
            let answered = if index == last { libc::NLM_F_ACK } else { 0 };
            let mut bytes = message(*kind, flags | answered, self.sequence, body);
            bytes.resize(aligned(bytes.len()), 0);
            bytes
        };
        let datagram: Vec<u8> = batch.iter().enumerate().flat_map(part).collect();
        self.channel.send(&datagram)?;
        self.answer()
    }

    /// The kernel's answer to a change.
    fn answer(&mut self) -> Result<(), Refusal> {
        loop {
            let Some(datagram) = self.channel.receive()? else { return Err(Errno::ETIMEDOUT.into()) };
            let mut answers = messages(datagram).filter(|answer| answer.sequence == self.sequence);
            if let Some(answer) = answers.find(|answer| i32::from(answer.kind) == libc::NLMSG_ERROR) {
                return refusal_in(&answer).map_or(Ok(()), Err);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_says_why_it_refuses() {
        let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).expect("every kernel has it");
        // A qdisc without a kind, on an interface that nobody has.
        let mut body = vec![0; 20];
        body[4..8].copy_from_slice(&i32::MAX.to_ne_bytes());
        let refusal = netlink.change(libc::RTM_NEWQDISC, libc::NLM_F_CREATE, &body).expect_err("none such");
        assert!(matches!(refusal.errno, Errno::ENODEV | Errno::EPERM), "{refusal}");
        // What was answered does not disturb what comes after it.
        assert!(netlink.ask(libc::RTM_GETLINK, Answers::Many, &[0; 16], |_| {}).is_ok());
    }
}
