//! Network interfaces, what they are made of and which addresses they have (rtnetlink(7)).

use std::{ffi::CStr, io, net::IpAddr};

use chadthrottle_common::SCOPE_INTERNET;
#[cfg(feature = "throttle-ifb-tc")]
use nix::errno::Errno;
use nix::{libc, sys::socket::SockProtocol};

#[cfg(feature = "throttle-ifb-tc")]
use super::netlink::put_nested;
use super::netlink::{Answers, Netlink, Refusal, attributes, put};
use crate::scope::{Prefix, scope_of};

/// `struct ifinfomsg`: family, padding, type, index, flags, changes.
const IFINFOMSG: usize = 16;

/// `IFLA_INET6_ADDR_GEN_MODE` and `IN6_ADDR_GEN_MODE_NONE` (`include/uapi/linux/if_link.h`).
#[cfg(feature = "throttle-ifb-tc")]
const ADDR_GEN_MODE: u16 = 8;
#[cfg(feature = "throttle-ifb-tc")]
const NO_ADDRESSES: u8 = 1;

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const IFADDRMSG: usize = 8;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Its name; empty where it is no UTF-8.
    pub name: String,
    /// What it carries: an `ARPHRD_…` (`include/uapi/linux/if_arp.h`).
    pub link_type: u16,
    /// What has passed it since it was made.
    pub counters: LinkCounters,
    /// The longest IP packet that it carries in one piece.
    pub mtu: u32,
    /// The interface that it is a part of: a bridge, a bond, a VRF.
    pub master: Option<u32>,
    /// The interface in this network namespace that carries its packets: a VLAN's, a macvlan's.
    pub lower: Option<u32>,
    /// The kind of virtual interface, as `ip -details link` names it; empty for a device.
    pub kind: String,
    /// Whether it is up.
    pub is_up: bool,
    /// The longest super-packet that it is given, in bytes; 0 where the kernel does not tell.
    pub longest_super_packet: u32,
    /// How many packets may wait for it.
    pub queue_len: u32,
}

impl Link {
    /// Bytes of the header that it puts in front of an IP packet, and counts. 0 where it has none, or one of a length
    /// that is not known.
    #[must_use]
    pub const fn header_len(&self) -> u32 {
        match self.link_type {
            // Loopback has one of zeros.
            libc::ARPHRD_ETHER | libc::ARPHRD_LOOPBACK => ETHERNET_HEADER,
            _ => 0,
        }
    }
}

/// Bytes of an Ethernet header without tags.
const ETHERNET_HEADER: u32 = 14;

/// What has passed an interface, as it counts by itself: with link-layer headers, and by most virtual interfaces with a
/// super-packet as one packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// What arrived.
    pub received: Passed,
    /// What left.
    pub sent: Passed,
}

/// One direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Passed {
    /// Packets.
    pub packets: u64,
    /// Bytes.
    pub bytes: u64,
}

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How many bits of it are those of its network.
    pub prefix_len: u8,
    /// The number of its interface.
    pub index: u32,
}

impl Address {
    /// Its network, where the address alone would be taken for one on the internet.
    #[must_use]
    pub fn public_prefix(&self) -> Option<Prefix> {
        (scope_of(self.ip) == SCOPE_INTERNET)
            .then(|| Prefix::around(self.ip, self.prefix_len.into()))
            .flatten()
    }
}

/// Every interface of this network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn all(netlink: &mut Netlink) -> io::Result<Vec<Link>> {
    let mut links = Vec::new();
    let any = [0; IFINFOMSG];
    netlink.ask(libc::RTM_GETLINK, Answers::Many, &any, |body| links.extend(read(body)))?;
    Ok(links)
}

/// Sets how many packets may wait for an interface.
///
/// # Errors
/// Why the kernel does not.
pub fn set_queue_len(netlink: &mut Netlink, index: u32, packets: u32) -> Result<(), Refusal> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    put(&mut body, libc::IFLA_TXQLEN, &packets.to_ne_bytes());
    netlink.change(libc::RTM_NEWLINK, 0, &body)
}

/// Makes an IFB, which hands back what it is given to the interface that it came by, and says its number: `index`, where that
/// is not 0. It is down.
///
/// # Errors
/// Why the kernel does not: `EEXIST` where the name is taken, `EOPNOTSUPP` where it has none.
#[cfg(feature = "throttle-ifb-tc")]
pub fn add_ifb(netlink: &mut Netlink, name: &str, index: u32) -> Result<u32, Refusal> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    put(&mut body, libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
    put_nested(&mut body, libc::IFLA_LINKINFO, |info| put(info, libc::IFLA_INFO_KIND, b"ifb\0"));
    netlink.change(libc::RTM_NEWLINK, libc::NLM_F_CREATE | libc::NLM_F_EXCL, &body)?;
    let made = all(netlink).map(|links| links.into_iter().find(|link| link.name == name));
    match made {
        Ok(made) => made.map(|link| link.index).ok_or(Errno::ENODEV.into()),
        Err(error) => {
            // Nobody else knows of it yet. The kernel goes by the name where there is no number.
            let mut by_name = vec![0; IFINFOMSG];
            put(&mut by_name, libc::IFLA_IFNAME, &[name.as_bytes(), &[0]].concat());
            netlink.change(libc::RTM_DELLINK, 0, &by_name)?;
            Err(error.into())
        }
    }
}

/// Brings an interface up that has no addresses, and gets none by itself either.
///
/// # Errors
/// Why the kernel does not.
#[cfg(feature = "throttle-ifb-tc")]
pub fn bring_up(netlink: &mut Netlink, index: u32) -> Result<(), Refusal> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    let mut without_addresses = body.clone();
    put_nested(&mut without_addresses, libc::IFLA_AF_SPEC, |families| {
        let inet6 = u16::try_from(libc::AF_INET6).unwrap_or_default();
        put_nested(families, inet6, |inet6| put(inet6, ADDR_GEN_MODE, &[NO_ADDRESSES]));
    });
    // Where there is no IPv6 there is nothing to be prevented.
    let _ = netlink.change(libc::RTM_NEWLINK, 0, &without_addresses);
    let up = libc::IFF_UP.cast_unsigned().to_ne_bytes();
    body[8..12].copy_from_slice(&up);
    body[12..16].copy_from_slice(&up);
    netlink.change(libc::RTM_NEWLINK, 0, &body)
}

/// Takes an interface away.
///
/// # Errors
/// Why the kernel does not. That it is not there (any more) is no error.
#[cfg(feature = "throttle-ifb-tc")]
pub fn delete(netlink: &mut Netlink, index: u32) -> Result<(), Refusal> {
    let mut body = vec![0; IFINFOMSG];
    body[4..8].copy_from_slice(&index.to_ne_bytes());
    match netlink.change(libc::RTM_DELLINK, 0, &body) {
        Err(refusal) if refusal.errno == Errno::ENODEV => Ok(()),
        other => other,
    }
}

/// Every address of this network namespace.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<Address>> {
    let mut found = Vec::new();
    let any = [0; IFADDRMSG];
    netlink.ask(libc::RTM_GETADDR, Answers::Many, &any, |body| found.extend(read_address(body)))?;
    Ok(found)
}

/// The way to the part of the kernel that knows about interfaces.
///
/// # Errors
/// When a sandbox forbids it.
pub fn open() -> io::Result<Netlink> {
    Netlink::open(SockProtocol::NetlinkRoute)
}

/// `struct ifinfomsg` and its attributes.
fn read(body: &[u8]) -> Option<Link> {
    let index = number(body.get(4..8)?)?;
    let link_type = u16::from_ne_bytes(*body.get(2..4)?.first_chunk()?);
    let is_up = number(body.get(8..12)?)? & libc::IFF_UP.cast_unsigned() != 0;
    let mut link = Link { index, link_type, is_up, ..Link::default() };
    let mut is_lower_elsewhere = false;
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_IFNAME => link.name = text(value).unwrap_or_default(),
            libc::IFLA_STATS64 => link.counters = counters(value).unwrap_or_default(),
            libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
            libc::IFLA_TXQLEN => link.queue_len = number(value).unwrap_or_default(),
            libc::IFLA_GSO_MAX_SIZE => link.longest_super_packet = number(value).unwrap_or_default(),
            libc::IFLA_MASTER => link.master = number(value),
            // A device is its own lower one in some kernels.
            libc::IFLA_LINK => link.lower = number(value).filter(|&lower| lower != 0 && lower != index),
            libc::IFLA_LINK_NETNSID => is_lower_elsewhere = true,
            libc::IFLA_LINKINFO => {
                let name = attributes(value).find(|(kind, _)| *kind == libc::IFLA_INFO_KIND);
                link.kind = name.and_then(|(_, value)| text(value)).unwrap_or_default();
            }
            _ => {}
        }
    }
    if is_lower_elsewhere {
        link.lower = None;
    }
    Some(link)
}

/// The beginning of `struct rtnl_link_stats64` (`include/uapi/linux/if_link.h`).
fn counters(value: &[u8]) -> Option<LinkCounters> {
    let word = |index: usize| {
        let at = index * size_of::<u64>();
        value.get(at..)?.first_chunk().map(|&bytes| u64::from_ne_bytes(bytes))
    };
    Some(LinkCounters {
        received: Passed { packets: word(0)?, bytes: word(2)? },
        sent: Passed { packets: word(1)?, bytes: word(3)? },
    })
}

/// `struct ifaddrmsg` and its attributes. Where there is a local address, the other is that of the peer.
fn read_address(body: &[u8]) -> Option<Address> {
    let prefix_len = *body.get(1)?;
    let index = number(body.get(4..8)?)?;
    let mut address = None;
    for (kind, value) in attributes(body.get(IFADDRMSG..)?) {
        match kind {
            libc::IFA_LOCAL => address = ip(value),
            libc::IFA_ADDRESS => address = address.or_else(|| ip(value)),
            _ => {}
        }
    }
    Some(Address { ip: address?, prefix_len, index })
}

fn ip(value: &[u8]) -> Option<IpAddr> {
    match value.len() {
        4 => value.first_chunk::<4>().map(|&bytes| bytes.into()),
        16 => value.first_chunk::<16>().map(|&bytes| bytes.into()),
        _ => None,
    }
}

fn number(value: &[u8]) -> Option<u32> {
    value.first_chunk().map(|&bytes| u32::from_ne_bytes(bytes))
}

fn text(value: &[u8]) -> Option<String> {
    Some(CStr::from_bytes_until_nul(value).ok()?.to_str().ok()?.to_owned())
}

/// What holds of any answer.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(body: &[u8]) {
    if let Some(link) = read(body) {
        assert_ne!(link.lower, Some(link.index), "it carries itself");
        assert!(!link.name.contains('\0') && !link.kind.contains('\0'), "{link:?}");
    }
    if let Some(address) = read_address(body)
        && let Some(prefix) = address.public_prefix()
    {
        // One of IPv4 that is written as one of IPv6 is one of IPv4, and in no network that is wider than all of these.
        let is_mapped = address.ip.to_canonical() != address.ip;
        assert!(is_mapped || prefix.contains(address.ip), "{address:?} is not in its own network");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loopback_is_there_and_is_made_of_nothing() {
        let links = open().and_then(|mut netlink| all(&mut netlink)).expect("every namespace has interfaces");
        let loopback = links.iter().find(|link| link.index == 1).expect("lo is number 1");
        assert_eq!((loopback.name.as_str(), loopback.link_type), ("lo", libc::ARPHRD_LOOPBACK));
        assert!(loopback.mtu >= 1280, "{loopback:?}");
        assert_eq!((loopback.master, loopback.lower, loopback.kind.as_str()), (None, None, ""));
    }

    #[test]
    fn of_two_addresses_the_local_one_is_ours() {
        let mut body = vec![2, 32, 0, 0, 7, 0, 0, 0];
        body.extend([8, 0, 1, 0, 192, 0, 2, 9]);
        let address = |last| Address { ip: IpAddr::from([192, 0, 2, last]), prefix_len: 32, index: 7 };
        assert_eq!(read_address(&body), Some(address(9)));
        body.extend([8, 0, 2, 0, 192, 0, 2, 1]);
        assert_eq!(read_address(&body), Some(address(1)));
        assert_eq!(read_address(&body[..12]), None);
    }

    #[test]
    fn a_macvlan_has_a_lower_device_unless_that_is_in_another_namespace() {
        let mut body = vec![0; IFINFOMSG];
        body[4] = 9;
        body.extend([8, 0, 5, 0, 3, 0, 0, 0]);
        body.extend([16, 0, 18, 0, 12, 0, 1, 0]);
        body.extend(*b"macvlan\0");
        let link = read(&body).expect("sound");
        assert_eq!((link.index, link.lower, link.kind.as_str()), (9, Some(3), "macvlan"));
        body.extend([8, 0, 37, 0, 0, 0, 0, 0]);
        assert_eq!(read(&body).expect("sound").lower, None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            read(&bytes);
            read_address(&bytes);
        }
    }

    fn prefix(address: &str, prefix_len: u8) -> Option<String> {
        let address = Address { ip: address.parse().expect("an address"), prefix_len, index: 2 };
        address.public_prefix().map(|prefix| prefix.to_string())
    }

    #[test]
    fn networks_with_public_addresses_are_noted_and_others_need_not_be() {
        assert_eq!(prefix("203.0.113.77", 24).as_deref(), Some("203.0.113.0/24"));
        assert_eq!(prefix("2001:db8:1:2::77", 64).as_deref(), Some("2001:db8:1:2::/64"));
        assert_eq!((prefix("192.168.1.5", 24), prefix("fe80::1", 64)), (None, None));
        assert_eq!(prefix("203.0.113.77", 77), None, "no such prefix");
    }
}
