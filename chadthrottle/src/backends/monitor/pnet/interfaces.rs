//! What has to be known of interfaces: which packets pass two of them, and how long a packet may be.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::IpAddr,
};

use super::filter::Scope;
use crate::sys::{
    links::{self, Address, Link},
    netlink::Netlink,
};

/// What a packet may measure on a link that nothing is known of.
const USUAL_MTU: u32 = 1500;

/// Addresses of this host, and the interfaces that have them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Addresses(HashMap<IpAddr, Vec<(u32, u32)>>);

impl Addresses {
    /// The interfaces with this address.
    pub(super) fn interfaces(&self, address: IpAddr) -> impl Iterator<Item = u32> {
        self.0.get(&address).into_iter().flatten().map(|&(index, _)| index)
    }

    /// The longest packet on an interface with this address.
    pub(super) fn mtu(&self, address: IpAddr) -> u32 {
        self.0.get(&address).and_then(|found| found.first()).map_or(USUAL_MTU, |&(_, mtu)| mtu)
    }
}

/// Reads them.
#[derive(Debug)]
pub(super) struct Interfaces {
    netlink: Netlink,
    /// Names of those that count; all where there is none.
    chosen: Vec<String>,
}

impl Interfaces {
    pub(super) fn open(chosen: &[String]) -> io::Result<Self> {
        Ok(Self { netlink: links::open()?, chosen: chosen.to_vec() })
    }

    /// Puts into `scope` which interfaces do not count, and returns whose addresses are which.
    pub(super) fn read(&mut self, scope: &mut Scope) -> io::Result<Addresses> {
        let links = links::all(&mut self.netlink)?;
        (scope.excluded_upload, scope.excluded_download) = excluded(&links, &self.chosen);
        let mut addresses = Addresses::default();
        let mtus: HashMap<u32, u32> = links.iter().map(|link| (link.index, link.mtu)).collect();
        // Not by pnet's interfaces(): it takes every name for UTF-8, and a time that grows with the square of their
        // number.
        for Address { ip, index, .. } in links::addresses(&mut self.netlink)? {
            let mtu = mtus.get(&index).copied().unwrap_or(USUAL_MTU);
            addresses.0.entry(ip).or_default().push((index, mtu));
        }
        Ok(addresses)
    }
}

/// The interfaces that do not count: that were not chosen, and whose packets pass another one too, on which they are counted: those that leave through them, and
/// those that arrive.
///
/// - A port of a bridge, a bond or a team passes them on from and to its master, which is what has the addresses.
/// - An IFB is given what has come by another one.
/// - A VRF only shows once more what passes the interfaces in it.
/// - What leaves through a macvlan leaves through the device below it too. What arrives is addressed to the macvlan
///   alone. An ipvlan has no link address of its own, so that both ways pass both.
///
/// A VLAN's packets are told by their tag, those of PPP over Ethernet, `MACsec` and switch ports by their Ether type,
/// and a tunnel's are others than those that carry them.
fn excluded(links: &[Link], chosen: &[String]) -> (Vec<u32>, Vec<u32>) {
    let vrfs: HashSet<u32> = links.iter().filter(|link| link.kind == "vrf").map(|link| link.index).collect();
    let (mut upload, mut download) = (Vec::new(), Vec::new());
    for link in links {
        let is_part = vrfs.contains(&link.index)
            || link.kind == "ifb"
            || link.master.is_some_and(|master| !vrfs.contains(&master));
        let is_above = |kinds: &[&str]| link.lower.is_some() && kinds.contains(&link.kind.as_str());
        let is_out = !chosen.is_empty() && !chosen.contains(&link.name);
        if is_out || is_part || is_above(&["macvlan", "macvtap", "ipvlan", "ipvtap"]) {
            upload.push(link.index);
        }
        if is_out || is_part || is_above(&["ipvlan", "ipvtap"]) {
            download.push(link.index);
        }
    }
    (upload, download)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, kind: &str, master: Option<u32>, lower: Option<u32>) -> Link {
        Link { index, mtu: 1500, master, lower, kind: kind.into(), ..Link::default() }
    }

    #[test]
    fn each_packet_is_counted_on_one_interface() {
        let links = [
            link(1, "", None, None),
            link(2, "", Some(3), None),
            link(3, "bridge", None, None),
            link(4, "", Some(5), None),
            link(5, "vrf", None, None),
            link(6, "macvlan", None, Some(7)),
            link(7, "", None, None),
            // Its lower device is in another namespace.
            link(8, "macvlan", None, None),
            link(9, "ipvlan", None, Some(7)),
            link(10, "vlan", None, Some(7)),
            link(11, "veth", None, Some(12)),
            link(12, "ifb", None, None),
        ];
        assert_eq!(excluded(&links, &[]), (vec![2, 5, 6, 9, 12], vec![2, 5, 9, 12]));
        let mut links = links;
        links[6].name = "eth0".into();
        let (upload, download) = excluded(&links, &["eth0".into()]);
        assert_eq!((&upload, upload.len()), (&download, links.len() - 1));
        assert!(!upload.contains(&7));
    }
}
