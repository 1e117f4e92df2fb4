//! What the programs have to know of the interfaces of this network namespace: which were chosen, how long their
//! link-layer headers are, whether packets can wait in their queues, which prefixes are local although they are public, and where packets are passed on.

use std::{
    collections::{BTreeSet, HashMap as StdHashMap},
    fs,
    net::IpAddr,
};

use anyhow::Context;
use aya::{
    Ebpf,
    maps::{HashMap, LpmTrie, MapData, lpm_trie::Key},
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{SchedClassifierLinkId, TcAttachOptions},
    },
};
use chadthrottle_common::Interface;

use super::object::{program, take};
use crate::{
    backends::BackendOptions,
    scope::Prefix,
    sys::{
        links::{self, Address, Link, LinkCounters},
        netlink::Netlink,
        tc,
    },
};

/// Whether packets are passed on from one interface to another.
const FORWARDING: [&str; 2] = ["/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"];
/// An IPv4 address as an IPv6 one has so many bits in front.
const MAPPED_BITS: u32 = 96;

/// The interfaces of this network namespace.
pub struct Network {
    netlink: Netlink,
    links: Vec<Link>,
    at_start: StdHashMap<u32, LinkCounters>,
    /// Names of the interfaces that count; all where it is empty.
    chosen: Vec<String>,
    interfaces: HashMap<MapData, u32, Interface>,
    known: StdHashMap<u32, Interface>,
    prefixes: LpmTrie<MapData, [u32; 4], u32>,
    /// What the user calls local.
    given_prefixes: Vec<Prefix>,
    /// All prefixes that are local here although the addresses alone do not tell.
    known_prefixes: BTreeSet<Prefix>,
    /// Where packets are counted that are passed on; `None` once the kernel has refused.
    forwarders: Option<StdHashMap<u32, SchedClassifierLinkId>>,
    is_loaded: bool,
}

impl Network {
    pub(super) fn open(programs: &mut Ebpf, options: &BackendOptions) -> anyhow::Result<Self> {
        Ok(Self {
            netlink: links::open().context("cannot ask the kernel for interfaces")?,
            links: Vec::new(),
            at_start: StdHashMap::new(),
            chosen: options.interfaces.clone(),
            interfaces: take(programs, "CHAD_INTERFACES")?,
            known: StdHashMap::new(),
            prefixes: take(programs, "CHAD_PREFIXES")?,
            given_prefixes: options.local_prefixes.clone(),
            known_prefixes: BTreeSet::new(),
            forwarders: Some(StdHashMap::new()),
            is_loaded: false,
        })
    }

    /// The programs count from now on: what interfaces have counted up to now is not in the books.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        self.links = links::all(&mut self.netlink).context("cannot list the interfaces")?;
        self.at_start = self.links.iter().map(|link| (link.index, link.counters)).collect();
        Ok(())
    }

    /// The interfaces that there are, with their counters.
    #[must_use]
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// What those had counted that were there when the programs began to.
    #[must_use]
    pub const fn at_start(&self) -> &StdHashMap<u32, LinkCounters> {
        &self.at_start
    }

    /// Whether an interface is among those that count.
    #[must_use]
    pub fn is_chosen(&self, name: &str) -> bool {
        self.chosen.is_empty() || self.chosen.iter().any(|chosen| chosen == name)
    }

    /// Reads everything anew, and tells the programs what has changed. Returns the number of local prefixes if that is
    /// part of it.
    pub(super) fn refresh(&mut self, programs: &mut Ebpf) -> anyhow::Result<Option<u32>> {
        self.links = links::all(&mut self.netlink).context("cannot list the interfaces")?;
        self.tell_interfaces()?;
        self.count_forwarded(programs);
        self.tell_prefixes()
    }

    fn tell_interfaces(&mut self) -> anyhow::Result<()> {
        let queues = tc::qdiscs(&mut self.netlink).unwrap_or_else(|error| {
            log::debug!("cannot list the queues of interfaces, so that nothing waits in them: {error}");
            Vec::new()
        });
        for link in &self.links {
            let keeps_packets = tc::keeps_packets(&queues, link.index);
            let interface = Interface {
                link_header_len: link.header_len(),
                is_chosen: u32::from(self.is_chosen(&link.name)),
                longest_kept: if keeps_packets { link.mtu } else { 0 },
            };
            let known = self.known.get(&link.index);
            if known.is_some_and(|known| known.longest_kept != 0) != keeps_packets {
                let does = if keeps_packets { "waits in the queue of" } else { "is dropped again at" };
                log::debug!("UDP that is over an upload limit {does} {}", link.name);
            }
            if known != Some(&interface) {
                self.interfaces.insert(link.index, interface, 0).context("too many interfaces")?;
                self.known.insert(link.index, interface);
            }
        }
        let gone: Vec<u32> = self.known.keys().copied().filter(|index| self.link(*index).is_none()).collect();
        for index in gone {
            self.known.remove(&index);
            // Gone already is as good.
            let _ = self.interfaces.remove(&index);
        }
        Ok(())
    }

    fn link(&self, index: u32) -> Option<&Link> {
        self.links.iter().find(|link| link.index == index)
    }

    /// Networks that this host is in are local, and what the user says is.
    fn tell_prefixes(&mut self) -> anyhow::Result<Option<u32>> {
        let addresses = links::addresses(&mut self.netlink).context("cannot list the addresses")?;
        let on_link = addresses.iter().filter_map(Address::public_prefix);
        let prefixes: BTreeSet<_> = on_link.chain(self.given_prefixes.iter().copied()).collect();
        if prefixes == self.known_prefixes {
            return Ok(None);
        }
        for prefix in self.known_prefixes.difference(&prefixes) {
            let _ = self.prefixes.remove(&lookup_key(prefix));
        }
        for prefix in prefixes.difference(&self.known_prefixes) {
            self.prefixes.insert(&lookup_key(prefix), 1, 0).context("too many networks")?;
        }
        self.known_prefixes = prefixes;
        Ok(Some(u32::try_from(self.known_prefixes.len()).unwrap_or(u32::MAX)))
    }

    /// Counts what is passed on, where anything may be. The link goes with the interface, or with us.
    fn count_forwarded(&mut self, programs: &mut Ebpf) {
        if !self.is_passing_on() {
            return;
        }
        let Some(mut forwarders) = self.forwarders.take() else { return };
        forwarders.retain(|index, _| self.link(*index).is_some());
        for link in &self.links {
            // What an IFB is given is not passed on, but comes back.
            if link.kind == "ifb" || forwarders.contains_key(&link.index) {
                continue;
            }
            match count_forwarded_on(programs, &link.name, &mut self.is_loaded) {
                Ok(id) => {
                    forwarders.insert(link.index, id);
                }
                // It has gone since it was listed.
                Err(_) if fs::metadata(format!("/sys/class/net/{}", link.name)).is_err() => {}
                Err(error) => {
                    log::info!("what is passed on by {} stays in the residual: {error:#}", link.name);
                    return;
                }
            }
        }
        self.forwarders = Some(forwarders);
    }

    fn is_passing_on(&self) -> bool {
        let is_on = |path: &str| fs::read_to_string(path).is_ok_and(|value| value.trim() != "0");
        self.links.iter().any(|link| link.kind == "bridge") || FORWARDING.into_iter().any(is_on)
    }
}

fn count_forwarded_on(
    programs: &mut Ebpf,
    interface: &str,
    is_loaded: &mut bool,
) -> anyhow::Result<SchedClassifierLinkId> {
    let classifier: &mut SchedClassifier = program(programs, "packet_forwarded")?;
    if !*is_loaded {
        classifier.load().context("loading packet_forwarded")?;
        *is_loaded = true;
    }
    // As a link, since Linux 6.6. The older way would leave a qdisc behind when we are killed.
    let options = TcAttachOptions::TcxOrder(LinkOrder::default());
    Ok(classifier.attach_with_options(interface, TcAttachType::Egress, options)?)
}

fn lookup_key(prefix: &Prefix) -> Key<[u32; 4]> {
    let (address, bits) = match prefix.address() {
        IpAddr::V4(ip) => (ip.to_ipv6_mapped(), prefix.length() + MAPPED_BITS),
        IpAddr::V6(ip) => (ip, prefix.length()),
    };
    let bytes = address.octets();
    // As they stand in a packet, whatever order this machine has them in.
    let word = |at: usize| u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Key::new(bits, [0, 4, 8, 12].map(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_of_ipv4_are_looked_up_as_mapped_ones() {
        let key = lookup_key(&"203.0.113.0/24".parse().expect("a prefix"));
        assert_eq!(key.prefix_len(), 120);
        assert_eq!(key.data()[3].to_ne_bytes(), [203, 0, 113, 0]);
        assert_eq!(key.data()[2].to_ne_bytes(), [0, 0, 0xff, 0xff]);
    }
}
