//! Messages of netlink(7) and their attributes, as bytes. Pure.

use std::io;

use nix::{errno::Errno, libc};

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

/// A request, whose flags are all bits below 16.
pub(super) fn message(kind: u16, flags: libc::c_int, sequence: u32, body: &[u8]) -> Vec<u8> {
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
pub(super) fn error_in(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes)) {
        Some(0) => Ok(()),
        Some(error) => Err(io::Error::from_raw_os_error(error.saturating_neg())),
        None => Err(io::ErrorKind::InvalidData.into()),
    }
}

/// The same with the kernel's words, which follow the header of what was asked, or all of it.
pub(super) fn refusal_in(answer: &Message<'_>) -> Option<Refusal> {
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
pub(super) fn end_in(body: &[u8]) -> io::Result<()> {
    match body.first_chunk().map(|&bytes| i32::from_ne_bytes(bytes)) {
        Some(..0) => error_in(body),
        _ => Ok(()),
    }
}

/// One message of a datagram.
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram, up to one whose length does not hold.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = Message<'_>> {
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
pub(super) const fn aligned(length: usize) -> usize {
    length.saturating_add(3) & !3
}

/// What holds of any datagram. `each` gets the body of every message in it.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(datagram: &[u8], mut each: impl FnMut(&[u8])) {
    let mut length = 0;
    for message in messages(datagram) {
        length += HEADER + message.body.len();
        let _ = (error_in(message.body), end_in(message.body), refusal_in(&message));
        fuzz_attributes(message.body);
        each(message.body);
    }
    assert!(length <= datagram.len(), "messages of {length} bytes");
}

/// They are no longer than what they were read from, and are read again as they are written.
#[cfg(feature = "fuzzing")]
fn fuzz_attributes(bytes: &[u8]) {
    let found: Vec<_> = attributes(bytes).collect();
    let length: usize = found.iter().map(|(_, value)| ATTRIBUTE_HEADER + value.len()).sum();
    assert!(length <= bytes.len(), "attributes of {length} bytes");
    let mut again = Vec::new();
    for (kind, value) in &found {
        put(&mut again, *kind, value);
    }
    assert_eq!(attributes(&again).collect::<Vec<_>>(), found);
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
    fn the_kernels_own_words_are_told() {
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
