//! Network interfaces, what they are made of and which addresses they have (rtnetlink(7)).

use std::{ffi::CStr, io, net::IpAddr};

use nix::{libc, sys::socket::SockProtocol};

use super::netlink::{Answers, Netlink, attributes};

/// `struct ifinfomsg`: family, padding, type, index, flags, changes.
const IFINFOMSG: usize = 16;

/// `struct ifaddrmsg`: family, length of the prefix, flags, scope, index.
const IFADDRMSG: usize = 8;

/// An interface.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// The longest IP packet that it carries in one piece.
    pub mtu: u32,
    /// The interface that it is a part of: a bridge, a bond, a VRF.
    pub master: Option<u32>,
    /// The interface in this network namespace that carries its packets: a VLAN's, a macvlan's.
    pub lower: Option<u32>,
    /// The kind of virtual interface, as `ip -details link` names it; empty for a device.
    pub kind: String,
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

/// Every address of this network namespace, with the number of its interface.
///
/// # Errors
/// When the kernel does not answer.
pub fn addresses(netlink: &mut Netlink) -> io::Result<Vec<(IpAddr, u32)>> {
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
    let mut link = Link { index, ..Link::default() };
    let mut is_lower_elsewhere = false;
    for (kind, value) in attributes(body.get(IFINFOMSG..)?) {
        match kind {
            libc::IFLA_MTU => link.mtu = number(value).unwrap_or_default(),
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

/// `struct ifaddrmsg` and its attributes. Where there is a local address, the other is that of the peer.
fn read_address(body: &[u8]) -> Option<(IpAddr, u32)> {
    let index = number(body.get(4..8)?)?;
    let mut address = None;
    for (kind, value) in attributes(body.get(IFADDRMSG..)?) {
        match kind {
            libc::IFA_LOCAL => address = ip(value),
            libc::IFA_ADDRESS => address = address.or_else(|| ip(value)),
            _ => {}
        }
    }
    Some((address?, index))
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn loopback_is_there_and_is_made_of_nothing() {
        let links = open().and_then(|mut netlink| all(&mut netlink)).expect("every namespace has interfaces");
        let loopback = links.iter().find(|link| link.index == 1).expect("lo is number 1");
        assert!(loopback.mtu >= 1280, "{loopback:?}");
        assert_eq!((loopback.master, loopback.lower, loopback.kind.as_str()), (None, None, ""));
    }

    #[test]
    fn of_two_addresses_the_local_one_is_ours() {
        let mut body = vec![2, 32, 0, 0, 7, 0, 0, 0];
        body.extend([8, 0, 1, 0, 192, 0, 2, 9]);
        assert_eq!(read_address(&body), Some((IpAddr::from([192, 0, 2, 9]), 7)));
        body.extend([8, 0, 2, 0, 192, 0, 2, 1]);
        assert_eq!(read_address(&body), Some((IpAddr::from([192, 0, 2, 1]), 7)));
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
}
