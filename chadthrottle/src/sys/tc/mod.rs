//! Queues of interfaces and their classes (tc(8)), over rtnetlink(7).
//!
//! What is spoken of here: the queues that an interface's packets leave by ("qdiscs"), the classes of an HTB queue, and
//! the queues that are leaves of those. Numbers are those of the kernel: `MAJOR:MINOR`, 16 bits each, where a queue has
//! minor 0.

#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub mod clsact;
mod fq;
mod htb;
mod leaf;
#[cfg(feature = "throttle-ifb-tc")]
pub mod marks;

use std::{ffi::CStr, fmt};

use nix::{errno::Errno, libc};

pub use fq::{Fq, keeps_packets};
pub use htb::{HtbClass, HtbFound, HtbRoot};
pub use leaf::{Leaf, set_leaf};

use super::netlink::{Answers, Netlink, Refusal, attributes, put, put_nested};

/// `struct tcmsg`: family, padding, interface, handle, parent, info.
const TCMSG: usize = 20;
/// `TC_H_ROOT`: what has it as its parent is the queue of the interface itself.
const ROOT: u32 = 0xffff_ffff;
/// `TCA_STATS_BASIC`, `TCA_STATS_QUEUE` and `TCA_STATS_PKT64` (`include/uapi/linux/gen_stats.h`).
const STATS_BASIC: u16 = 1;
const STATS_QUEUE: u16 = 3;
const STATS_PACKETS: u16 = 8;

/// The number of a queue or class.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Handle(pub u32);

impl Handle {
    /// From its two halves.
    #[must_use]
    pub const fn new(major: u16, minor: u16) -> Self {
        Self((major as u32) << 16 | minor as u32)
    }

    /// The half that names the queue.
    #[must_use]
    pub const fn major(self) -> u16 {
        (self.0 >> 16) as u16
    }
}

impl fmt::Display for Handle {
    /// As `tc` writes it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minor = self.0 & 0xffff;
        write!(f, "{:x}:", self.major())?;
        if minor == 0 { Ok(()) } else { write!(f, "{minor:x}") }
    }
}

/// A queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qdisc {
    /// The interface that it belongs to.
    pub interface: u32,
    /// `htb`, `fq_codel`, …
    pub kind: String,
    /// Its own number: 0 where the kernel made it by itself.
    pub handle: Handle,
    /// That of the queue or class that it is a part of.
    pub parent: Handle,
    /// Whether it is the interface's own, and not a part of another one.
    pub is_root: bool,
    /// Of HTB, how it is.
    pub htb: Option<HtbFound>,
    /// Of `fq`, what it is set to.
    pub fq: Option<Fq>,
    /// What has passed it.
    pub stats: Stats,
}

/// A class of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Its number.
    pub handle: Handle,
    /// Of HTB, the lowest 24 bits of the number by which its maker knows it again, if that is one of us.
    pub signature: Option<u32>,
    /// What has passed it.
    pub stats: Stats,
}

impl Class {
    /// Whether it carries this signature.
    #[must_use]
    pub fn is_signed(&self, signature: u32) -> bool {
        self.signature == Some(signature & 0x00ff_ffff)
    }
}

/// What has become of packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Bytes that have left it, with the link's header for each packet as it travels.
    pub bytes: u64,
    /// Packets that have left it, as they travel: a super-packet as what it stands for.
    pub packets: u64,
    /// Packets that were dropped, a super-packet as one.
    pub drops: u32,
    /// How often it had to wait.
    pub overlimits: u32,
    /// Bytes that stand in it.
    pub backlog: u32,
    /// Packets that stand in it, a super-packet as one.
    pub queued: u32,
}

/// Every queue of this network namespace, without those that the kernel hides (`noop`).
///
/// # Errors
/// Why the kernel does not tell.
pub fn qdiscs(netlink: &mut Netlink) -> Result<Vec<Qdisc>, Refusal> {
    let mut found = Vec::new();
    let any = header(0, Handle(0), 0);
    netlink.ask(libc::RTM_GETQDISC, Answers::Many, &any, |body| found.extend(read_qdisc(body)))?;
    Ok(found)
}

/// Every class of an interface's queues.
///
/// # Errors
/// Why the kernel does not tell.
pub fn classes(netlink: &mut Netlink, interface: u32) -> Result<Vec<Class>, Refusal> {
    let mut found = Vec::new();
    let any = header(interface, Handle(0), 0);
    netlink.ask(libc::RTM_GETTCLASS, Answers::Many, &any, |body| {
        found.extend(read_class(body));
    })?;
    Ok(found)
}

/// Gives an interface an HTB queue of its own, in the place of the one that the kernel made.
///
/// # Errors
/// Why the kernel does not: `EEXIST` where it has one that somebody else chose meanwhile.
pub fn add_root(netlink: &mut Netlink, interface: u32, handle: Handle, root: HtbRoot) -> Result<(), Refusal> {
    let mut body = header(interface, handle, ROOT);
    put(&mut body, libc::TCA_KIND, b"htb\0");
    put_nested(&mut body, libc::TCA_OPTIONS, |options| root.put(options));
    netlink.change(libc::RTM_NEWQDISC, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
}

/// Takes an interface's own queue away, if it still has this number. The kernel makes its default one again.
///
/// # Errors
/// Why the kernel does not. That it is not there (any more) is no error.
pub fn delete_root(netlink: &mut Netlink, interface: u32, handle: Handle) -> Result<(), Refusal> {
    gone_is_fine(netlink.change(libc::RTM_DELQDISC, 0, &header(interface, handle, ROOT)))
}

/// Makes a class of an interface's HTB queue, of none of its other classes, with the lowest 24 bits of a signature.
///
/// # Errors
/// Why the kernel does not: `EEXIST` where there is one of that number.
pub fn add_class(
    netlink: &mut Netlink,
    interface: u32,
    handle: Handle,
    class: HtbClass,
    signature: u32,
) -> Result<(), Refusal> {
    let body = of_class(interface, handle, class, signature);
    netlink.change(libc::RTM_NEWTCLASS, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)
}

/// Changes a class of an interface's HTB queue.
///
/// # Errors
/// Why the kernel does not.
pub fn set_class(
    netlink: &mut Netlink,
    interface: u32,
    handle: Handle,
    class: HtbClass,
    signature: u32,
) -> Result<(), Refusal> {
    netlink.change(libc::RTM_NEWTCLASS, 0, &of_class(interface, handle, class, signature))
}

fn of_class(interface: u32, handle: Handle, class: HtbClass, signature: u32) -> Vec<u8> {
    let mut body = header(interface, handle, Handle::new(handle.major(), 0).0);
    put(&mut body, libc::TCA_KIND, b"htb\0");
    put_nested(&mut body, libc::TCA_OPTIONS, |options| class.put(signature, options));
    body
}

/// Takes a class away, with what stands in it.
///
/// # Errors
/// Why the kernel does not. That it is not there (any more) is no error.
pub fn delete_class(netlink: &mut Netlink, interface: u32, handle: Handle) -> Result<(), Refusal> {
    gone_is_fine(netlink.change(libc::RTM_DELTCLASS, 0, &header(interface, handle, 0)))
}

fn gone_is_fine(result: Result<(), Refusal>) -> Result<(), Refusal> {
    match result {
        Err(refusal) if matches!(refusal.errno, Errno::ENOENT | Errno::ENODEV) => Ok(()),
        // The interface has its default one: "Cannot delete qdisc with handle of zero" (`tc_get_qdisc`).
        other => other,
    }
}

/// `struct tcmsg`.
fn header(interface: u32, handle: Handle, parent: u32) -> Vec<u8> {
    let mut bytes = vec![0; 4];
    for number in [interface, handle.0, parent, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    debug_assert_eq!(bytes.len(), TCMSG);
    bytes
}

fn read_qdisc(body: &[u8]) -> Option<Qdisc> {
    let kind = CStr::from_bytes_until_nul(attribute(body, libc::TCA_KIND)?).ok()?.to_str().ok()?.to_owned();
    let options = |wanted| attribute(body, libc::TCA_OPTIONS).filter(|_| kind == wanted);
    let parent = word(body, 12)?;
    Some(Qdisc {
        interface: word(body, 4)?,
        htb: options("htb").and_then(htb::found),
        fq: options("fq").map(Fq::read),
        kind,
        handle: Handle(word(body, 8)?),
        parent: Handle(parent),
        is_root: parent == ROOT,
        stats: read_stats(body),
    })
}

fn read_class(body: &[u8]) -> Option<Class> {
    let is_htb = attribute(body, libc::TCA_KIND).is_some_and(|kind| kind == b"htb\0");
    let options = attribute(body, libc::TCA_OPTIONS).filter(|_| is_htb);
    Some(Class {
        handle: Handle(word(body, 8)?),
        signature: options.and_then(htb::class_signature),
        stats: read_stats(body),
    })
}

fn attribute(body: &[u8], wanted: u16) -> Option<&[u8]> {
    attributes(body.get(TCMSG..)?).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
}

fn read_stats(body: &[u8]) -> Stats {
    let mut stats = Stats::default();
    let all = attributes(body.get(TCMSG..).unwrap_or_default()).find(|(kind, _)| *kind == libc::TCA_STATS2);
    for (kind, value) in attributes(all.map(|(_, value)| value).unwrap_or_default()) {
        match kind {
            // `struct gnet_stats_basic`; before Linux 5.5 its 32 bits are all that there is.
            STATS_BASIC => {
                stats.bytes = long(value).unwrap_or_default();
                stats.packets = stats.packets.max(word(value, 8).unwrap_or_default().into());
            }
            STATS_PACKETS => stats.packets = long(value).unwrap_or_default(),
            // `struct gnet_stats_queue`.
            STATS_QUEUE => {
                let at = |offset| word(value, offset).unwrap_or_default();
                (stats.queued, stats.backlog, stats.drops, stats.overlimits) = (at(0), at(4), at(8), at(16));
            }
            _ => {}
        }
    }
    stats
}

fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    bytes.get(offset..)?.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

fn long(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes))
}

/// What holds of any answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    if let Some(qdisc) = read_qdisc(body) {
        assert!(qdisc.htb.is_none() || qdisc.kind == "htb", "{qdisc:?}");
        assert_eq!(qdisc.stats, read_stats(body));
    }
    clsact::fuzz(body);
    marks::fuzz(body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::sys::links;

    #[test]
    fn handles_are_written_as_tc_does() {
        let handle = Handle::new(0xc4ad, 0x1f);
        assert_eq!((handle.to_string().as_str(), handle.major()), ("c4ad:1f", 0xc4ad));
        assert_eq!(Handle::new(0xc4ad, 0).to_string(), "c4ad:");
    }

    #[test]
    fn loopback_has_the_queue_that_the_kernel_made() {
        let mut netlink = links::open().expect("every kernel has it");
        let found = qdiscs(&mut netlink).expect("anybody may ask");
        // Not where it is down.
        if let Some(loopback) = found.iter().find(|qdisc| qdisc.interface == 1) {
            assert_eq!(
                (loopback.kind.as_str(), loopback.handle, loopback.is_root),
                ("noqueue", Handle(0), true)
            );
        }
        assert!(classes(&mut netlink, 1).expect("anybody may ask").is_empty());
    }

    #[test]
    fn statistics_are_read() {
        let mut body = header(3, Handle::new(0xc4ad, 1), 0xc4ad_0000);
        put_nested(&mut body, libc::TCA_STATS2, |stats| {
            let mut basic = 3000_u64.to_ne_bytes().to_vec();
            basic.extend(2_u32.to_ne_bytes());
            basic.extend(0_u32.to_ne_bytes());
            put(stats, STATS_BASIC, &basic);
            let queue: Vec<u8> =
                [7_u32, 10_500, 5, 0, 9].iter().flat_map(|word| word.to_ne_bytes()).collect();
            put(stats, STATS_QUEUE, &queue);
        });
        let expected = Stats { bytes: 3000, packets: 2, drops: 5, overlimits: 9, backlog: 10_500, queued: 7 };
        assert_eq!(read_stats(&body), expected);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read_qdisc(&bytes);
            read_class(&bytes);
            read_stats(&bytes);
        }
    }
}
