//! The way to the kernel over netlink(7), and questions that go it.

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

/// Room for one datagram. The kernel's own limit for a part of a dump is 32 KiB (`netlink_recvmsg`).
const DATAGRAM: usize = 64 << 10;
/// The kernel answers at once. Should it not, that is an error and not a program that hangs.
const PATIENCE_S: i64 = 5;
/// `struct nlmsghdr`: length, kind, flags, sequence number, port.
const HEADER: usize = 16;
/// `struct nlattr`: length and kind.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_F_NESTED` and `NLA_F_NET_BYTEORDER`, which are no part of the kind.
const ATTRIBUTE_FLAGS: u16 = 0xc000;
/// `NLA_F_NESTED`: the value is attributes.
const NESTED: u16 = 0x8000;
/// `NLM_F_CAPPED` and `NLM_F_ACK_TLVS`: an answer is without what was asked, and with attributes.
const CAPPED: u16 = 0x100;
const WITH_ATTRIBUTES: u16 = 0x200;
/// `NLMSGERR_ATTR_MSG`: the kernel's own words.
const IN_WORDS: u16 = 1;

/// Why the kernel does not do what it was told to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}{}", errno.desc(), words.as_ref().map(|words| format!(" ({words})")).unwrap_or_default())]
pub struct Refusal {
    /// The error number.
    pub errno: Errno,
    /// What it says beside that (its "extended acknowledgement"), where it does.
    pub words: Option<String>,
}

impl From<Errno> for Refusal {
    fn from(errno: Errno) -> Self {
        Self { errno, words: None }
    }
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Errno::from_raw(error.raw_os_error().unwrap_or(libc::EIO)).into()
    }
}

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

/// A request, whose flags are all bits below 16.
fn message(kind: u16, flags: libc::c_int, sequence: u32, body: &[u8]) -> Vec<u8> {
    let flags = u16::try_from(libc::NLM_F_REQUEST | flags).unwrap_or_default();
    let length = u32::try_from(HEADER + body.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + body.len());
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend(sequence.to_ne_bytes());
    bytes.extend(0_u32.to_ne_bytes());
    bytes.extend(body);
    bytes
}

/// `struct nlmsgerr` begins with a negative error number, or 0 for none.
fn error_in(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The same with the kernel's words, which follow the header of what was asked, or all of it.
fn refusal_in(answer: &Message<'_>) -> Option<Refusal> {
    const ERROR: usize = size_of::<i32>();
    let error =
        answer.body.first_chunk().map_or(libc::EBADMSG, |&bytes| i32::from_ne_bytes(bytes).saturating_neg());
    if error == 0 {
        return None;
    }
    let asked = answer.body.get(ERROR..).and_then(|rest| rest.first_chunk());
    let length = match asked.map(|&bytes| usize::try_from(u32::from_ne_bytes(bytes)).unwrap_or(usize::MAX)) {
        Some(length) if answer.flags & CAPPED == 0 => aligned(length),
        _ => HEADER,
    };
    let rest =
        answer.body.get(ERROR.saturating_add(length)..).filter(|_| answer.flags & WITH_ATTRIBUTES != 0);
    let words = attributes(rest.unwrap_or_default()).find(|(kind, _)| *kind == IN_WORDS);
    let words = words.map(|(_, text)| String::from_utf8_lossy(text).trim_end_matches('\0').to_owned());
    Some(Refusal { errno: Errno::from_raw(error), words })
}

/// The end of many answers has a negative error number where they broke off, as for a protocol that the kernel cannot
/// tell of (`netlink_dump_done`, `net/netlink/af_netlink.c`).
fn end_in(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes)) {
        Some(..0) => error_in(body),
        _ => Ok(()),
    }
}

/// One message of a datagram.
struct Message<'a> {
    kind: u16,
    flags: u16,
    sequence: u32,
    body: &'a [u8],
}

/// The messages of a datagram, up to one whose length does not hold.
fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let length = usize::try_from(u32::from_ne_bytes(*rest.first_chunk()?)).ok()?;
        let message = rest.get(..length).filter(|message| message.len() >= HEADER)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        Some(Message {
            kind: u16::from_ne_bytes([message[4], message[5]]),
            flags: u16::from_ne_bytes([message[6], message[7]]),
            sequence: u32::from_ne_bytes([message[8], message[9], message[10], message[11]]),
            body: &message[HEADER..],
        })
    })
}

/// Kind and value of each attribute, up to one whose length does not hold.
pub fn attributes(bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
        let attribute = rest.get(..length).filter(|attribute| attribute.len() >= ATTRIBUTE_HEADER)?;
        rest = rest.get(aligned(length)..).unwrap_or_default();
        let kind = u16::from_ne_bytes([attribute[2], attribute[3]]) & !ATTRIBUTE_FLAGS;
        Some((kind, &attribute[ATTRIBUTE_HEADER..]))
    })
}

/// Appends an attribute to a message.
pub fn put(bytes: &mut Vec<u8>, kind: u16, value: &[u8]) {
    let length = u16::try_from(ATTRIBUTE_HEADER + value.len()).unwrap_or(u16::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(aligned(bytes.len()), 0);
}

/// Appends an attribute whose value is attributes, which `fill` appends.
pub fn put_nested(bytes: &mut Vec<u8>, kind: u16, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut value = Vec::new();
    fill(&mut value);
    put(bytes, kind | NESTED, &value);
}

/// `NLMSG_ALIGN` and `NLA_ALIGN`: what follows begins on a multiple of four.
const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_and_attributes_are_found_behind_padding() {
        let attribute = [6, 0, 4, 0x80, 0xaa, 0xbb, 0, 0, 4, 0, 5, 0];
        let found: Vec<_> = attributes(&attribute).collect();
        assert_eq!(found, [(4, &[0xaa, 0xbb][..]), (5, &[][..])]);

        let mut datagram = message(16, 0, 7, &[1]);
        datagram.resize(20, 0);
        datagram.extend(message(3, libc::NLM_F_DUMP, 8, &[]));
        let found: Vec<_> =
            messages(&datagram).map(|message| (message.kind, message.sequence, message.body.len())).collect();
        assert_eq!(found, [(16, 7, 1), (3, 8, 0)]);
    }

    #[test]
    fn answers_that_broke_off_are_an_error() {
        assert!(end_in(&[]).is_ok());
        assert!(end_in(&0_i32.to_ne_bytes()).is_ok());
        let error = end_in(&(-libc::ENOENT).to_ne_bytes()).expect_err("there is no such protocol");
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_put_is_found() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, b"htb\0");
        put_nested(&mut bytes, 2, |inner| {
            put(inner, 5, &[7]);
            put(inner, 6, &[]);
        });
        let found: Vec<_> = attributes(&bytes).collect();
        assert_eq!((found[0], found[1].0), ((1, &b"htb\0"[..]), 2));
        assert_eq!(attributes(found[1].1).collect::<Vec<_>>(), [(5, &[7][..]), (6, &[])]);
    }

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

        let mut body = (-libc::EINVAL).to_ne_bytes().to_vec();
        body.extend([0; HEADER]);
        put(&mut body, IN_WORDS, b"no such thing\0");
        let answer = Message { kind: 2, flags: CAPPED | WITH_ATTRIBUTES, sequence: 0, body: &body };
        let refusal = refusal_in(&answer).expect("it is one");
        assert_eq!(refusal.to_string(), "Invalid argument (no such thing)");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(messages(&bytes).count() <= bytes.len() / HEADER);
            prop_assert!(attributes(&bytes).count() <= bytes.len() / ATTRIBUTE_HEADER);
            let _ = (error_in(&bytes), end_in(&bytes));
            for flags in [CAPPED, WITH_ATTRIBUTES, CAPPED | WITH_ATTRIBUTES] {
                refusal_in(&Message { kind: 2, flags, sequence: 0, body: &bytes });
            }
        }
    }
}
