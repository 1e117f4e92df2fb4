//! Who else has programs, queues or tables where ours would be.

#[cfg(any(feature = "ebpf", feature = "throttle-nftables"))]
use std::collections::BTreeMap;

use nix::sys::socket::SockProtocol;
use serde::Serialize;

use crate::sys::{links, netlink::Netlink};

/// The queue of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Queue {
    /// The interface's number.
    pub index: u32,
    /// Its name.
    pub interface: String,
    /// What kind of interface it is: `veth`, `wireguard`, or nothing where it is a device.
    pub kind: String,
    /// Queues that packets leave and come by.
    pub queues: Vec<String>,
    /// Whether somebody chose the one that they leave by.
    pub is_chosen: bool,
}

/// Programs or tables of one kind.
#[derive(Clone, Debug, Serialize)]
pub struct Others {
    /// Which kind.
    pub kind: String,
    /// How many.
    pub count: usize,
    /// What they are called.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

/// Who else is there. Empty where this process may not look.
#[derive(Debug, Default, Serialize)]
pub struct Neighbours {
    /// Of each interface, in this network namespace.
    pub queues: Vec<Queue>,
    /// eBPF programs of this host that may look at packets, by type.
    pub programs: Vec<Others>,
    /// nftables' tables, by family, in this network namespace.
    pub tables: Vec<Others>,
}

impl Neighbours {
    pub(super) fn read() -> Self {
        Self { queues: queues().unwrap_or_default(), programs: programs(), tables: tables() }
    }
}

fn queues() -> Option<Vec<Queue>> {
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute).ok()?;
    let links = links::all(&mut netlink).ok()?;
    #[cfg(feature = "throttle-tc-htb")]
    let qdiscs = crate::sys::tc::qdiscs(&mut netlink).ok()?;
    let queue = |link: links::Link| {
        #[cfg(feature = "throttle-tc-htb")]
        let of_link = qdiscs.iter().filter(|qdisc| qdisc.interface == link.index);
        #[cfg(feature = "throttle-tc-htb")]
        let (queues, is_chosen) = (
            of_link.clone().map(|qdisc| format!("{} {}", qdisc.kind, qdisc.handle)).collect(),
            of_link.clone().any(|qdisc| qdisc.is_root && qdisc.handle != crate::sys::tc::Handle(0)),
        );
        #[cfg(not(feature = "throttle-tc-htb"))]
        let (queues, is_chosen) = (Vec::new(), false);
        Queue { index: link.index, interface: link.name, kind: link.kind, queues, is_chosen }
    };
    Some(links.into_iter().map(queue).collect())
}

/// Counts by kind.
#[cfg(any(feature = "ebpf", feature = "throttle-nftables"))]
fn by_kind(named: impl Iterator<Item = (String, String)>) -> Vec<Others> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (kind, name) in named {
        kinds.entry(kind).or_default().push(name);
    }
    let others = |(kind, mut names): (String, Vec<String>)| {
        let count = names.len();
        names.sort();
        names.dedup();
        Others { kind, count, names }
    };
    kinds.into_iter().map(others).collect()
}

#[cfg(feature = "ebpf")]
fn programs() -> Vec<Others> {
    use aya::programs::loaded_programs;

    // `BPF_PROG_TYPE_…` (include/uapi/linux/bpf.h) of those that see packets and sockets.
    let kind = |number: u32| {
        Some(match number {
            3 => "classifier",
            4 => "action",
            6 => "xdp",
            8 => "cgroup_skb",
            9 => "cgroup_sock",
            13 => "sock_ops",
            18 => "cgroup_sock_addr",
            25 => "cgroup_sockopt",
            _ => return None,
        })
    };
    let named = loaded_programs().filter_map(|program| {
        let program = program.ok()?;
        let kind = kind(program.program_type() as u32)?;
        Some((kind.to_owned(), program.name_as_str().unwrap_or("?").to_owned()))
    });
    by_kind(named)
}

#[cfg(not(feature = "ebpf"))]
const fn programs() -> Vec<Others> {
    Vec::new()
}

#[cfg(feature = "throttle-nftables")]
fn tables() -> Vec<Others> {
    let family = |number: u8| match number {
        1 => "inet",
        2 => "ip",
        3 => "arp",
        5 => "netdev",
        7 => "bridge",
        10 => "ip6",
        _ => "other",
    };
    let all = crate::sys::nft::tables().unwrap_or_default();
    by_kind(all.into_iter().map(|(number, name)| (family(number).to_owned(), name)))
}

#[cfg(not(feature = "throttle-nftables"))]
const fn tables() -> Vec<Others> {
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(any(feature = "ebpf", feature = "throttle-nftables"))]
    fn kinds_are_counted() {
        let named = [("ip", "nat"), ("inet", "filter"), ("ip", "filter"), ("ip", "nat")];
        let found = by_kind(named.into_iter().map(|(kind, name)| (kind.to_owned(), name.to_owned())));
        let summary: Vec<_> = found.iter().map(|others| (others.kind.as_str(), others.count)).collect();
        assert_eq!(summary, [("inet", 1), ("ip", 3)]);
        assert_eq!(found[1].names, ["filter", "nat"]);
    }

    #[test]
    fn loopback_is_among_the_interfaces() {
        assert!(queues().is_some_and(|queues| queues.iter().any(|queue| queue.interface == "lo")));
    }
}
