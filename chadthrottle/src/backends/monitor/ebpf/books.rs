//! The books of each interface: what it counted, what is accounted for, and what is missing.
//!
//! An interface counts by itself and knows nothing of processes, so that it is a control that cannot be fooled by what
//! goes wrong on the way to a process.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use chadthrottle_common::{FlowCounters, ProcessKey, TrafficCounters};

use crate::{
    stats::{Buckets, InterfaceTraffic, Residual, Traffic},
    sys::links::{Link, LinkCounters, Passed},
};

/// One book an interface, by index.
#[derive(Debug, Default)]
pub(super) struct Books(BTreeMap<u32, Book>);

#[derive(Debug)]
struct Book {
    name: Arc<str>,
    /// What it had counted when the monitor started.
    at_start: LinkCounters,
    /// What it counts now.
    now: LinkCounters,
    link_header_len: u32,
    /// Whether its packets are those of other interfaces as well.
    is_shared: bool,
}

/// What is accounted for on an interface.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Accounted {
    processes: TrafficCounters,
    kernel: TrafficCounters,
    replies: TrafficCounters,
    unknown: TrafficCounters,
    forwarded: TrafficCounters,
}

impl Accounted {
    /// Takes in what an owner has.
    pub(super) fn add(&mut self, owner: ProcessKey, counters: &TrafficCounters) {
        let sum = match owner {
            ProcessKey::KERNEL => &mut self.kernel,
            ProcessKey::REPLIES => &mut self.replies,
            ProcessKey::FORWARDED => &mut self.forwarded,
            owner if owner.is_process() => &mut self.processes,
            _ => &mut self.unknown,
        };
        *sum = both(*sum, *counters);
    }

    /// Everybody together.
    pub(super) fn all(&self) -> TrafficCounters {
        [self.kernel, self.replies, self.unknown, self.forwarded].into_iter().fold(self.processes, both)
    }

    /// What belongs to no process.
    pub(super) fn buckets(&self) -> Buckets {
        Buckets {
            kernel: ip_bytes(&self.kernel),
            replies: ip_bytes(&self.replies),
            unknown: ip_bytes(&self.unknown),
            ended: Traffic::default(),
            forwarded: ip_bytes(&self.forwarded),
        }
    }
}

/// IP bytes as they travel.
pub(super) const fn ip_bytes(counters: &TrafficCounters) -> Traffic {
    Traffic { upload: counters.upload.bytes, download: counters.download.bytes }
}

/// Both added up.
pub(super) fn both(one: TrafficCounters, other: TrafficCounters) -> TrafficCounters {
    let flow = |one: FlowCounters, other: FlowCounters| FlowCounters {
        bytes: one.bytes + other.bytes,
        packets: one.packets + other.packets,
        merged_packets: one.merged_packets + other.merged_packets,
        merged_bytes: one.merged_bytes + other.merged_bytes,
    };
    TrafficCounters { upload: flow(one.upload, other.upload), download: flow(one.download, other.download) }
}

impl Books {
    /// Takes in what the interfaces have counted. One that was not there before has counted nothing; `at_start` is what
    /// those had that were there when the programs began to.
    pub(super) fn read(&mut self, links: &[Link], at_start: &HashMap<u32, LinkCounters>) {
        let parts = shared(links);
        for link in links {
            let book = self.0.entry(link.index).or_insert_with(|| Book {
                name: link.name.as_str().into(),
                at_start: at_start.get(&link.index).copied().unwrap_or_default(),
                now: link.counters,
                link_header_len: link.header_len(),
                is_shared: false,
            });
            if *book.name != *link.name {
                book.name = link.name.as_str().into();
            }
            book.now = link.counters;
            book.is_shared = parts.contains(&link.index);
        }
    }

    /// The name of an interface that is or was there.
    pub(super) fn name(&self, ifindex: u32) -> Option<&Arc<str>> {
        self.0.get(&ifindex).map(|book| &book.name)
    }

    /// Every interface that is in the scope of the monitor, with what is accounted for on it.
    pub(super) fn close(
        &self,
        accounted: &HashMap<u32, Accounted>,
        counts: impl Fn(u32, &str) -> bool,
    ) -> Vec<InterfaceTraffic> {
        let wanted = self.0.iter().filter(|(index, book)| counts(**index, &book.name));
        wanted
            .map(|(index, book)| {
                let accounted = accounted.get(index).copied().unwrap_or_default();
                let sent = since(book.now.sent, book.at_start.sent);
                let received = since(book.now.received, book.at_start.received);
                let all = accounted.all();
                let residual = Residual {
                    upload: book.residual(sent, &all.upload),
                    download: book.residual(received, &all.download),
                };
                InterfaceTraffic {
                    name: Arc::clone(&book.name),
                    counted: Traffic { upload: sent.bytes, download: received.bytes },
                    processes: ip_bytes(&accounted.processes),
                    buckets: accounted.buckets(),
                    residual: (!book.is_shared).then_some(residual),
                }
            })
            .collect()
    }
}

impl Book {
    /// What an interface counted beyond what is accounted for, in the layer in which it counts: a super-packet as one
    /// packet, as a veth does and `virtio_net`, or each packet that leaves, as most devices do and a tunnel that super-
    /// packets are taken apart for. Which of the two it is nothing tells but how many packets it counts.
    fn residual(&self, counted: Passed, accounted: &FlowCounters) -> i64 {
        let link_header_len = u64::from(self.link_header_len);
        let on_wire = accounted.packets + accounted.merged_packets;
        let is_on_wire = counted.packets.abs_diff(on_wire) < counted.packets.abs_diff(accounted.packets);
        let bytes = if is_on_wire {
            accounted.bytes + link_header_len * on_wire
        } else {
            accounted.bytes - accounted.merged_bytes.min(accounted.bytes)
                + link_header_len * accounted.packets
        };
        counted.bytes.cast_signed().wrapping_sub(bytes.cast_signed())
    }
}

/// A counter that has gone back began anew: some drivers do that when they are reset.
fn since(now: Passed, earlier: Passed) -> Passed {
    if now.bytes < earlier.bytes || now.packets < earlier.packets {
        return now;
    }
    Passed { packets: now.packets - earlier.packets, bytes: now.bytes - earlier.bytes }
}

/// Interfaces whose packets other interfaces have as well: ports of bridges and bonds, and what VLANs and macvlans sit
/// on. A VRF only shows once more what passes the interfaces in it, and an IFB is given what has come by another one.
fn shared(links: &[Link]) -> HashSet<u32> {
    let vrfs: HashSet<u32> = links.iter().filter(|link| link.kind == "vrf").map(|link| link.index).collect();
    let ports = links.iter().filter(|link| link.master.is_some_and(|master| !vrfs.contains(&master)));
    // A veth's other end is no lower device, wherever it is.
    let lower = links.iter().filter(|link| link.kind != "veth").filter_map(|link| link.lower);
    let ifbs = links.iter().filter(|link| link.kind == "ifb").map(|link| link.index);
    ports.map(|link| link.index).chain(lower).chain(ifbs).chain(vrfs.iter().copied()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ETHERNET: u16 = 1;

    fn link(index: u32, kind: &str, sent: Passed) -> Link {
        let counters = LinkCounters { sent, ..LinkCounters::default() };
        let name = format!("if{index}");
        Link { index, name, kind: kind.into(), link_type: ETHERNET, counters, ..Link::default() }
    }

    /// 1 super-packet of 10 segments with 52 bytes of headers, 15,000 bytes on the wire, and 1 packet of 100.
    fn accounted() -> HashMap<u32, Accounted> {
        let upload = FlowCounters { bytes: 15_100, packets: 2, merged_packets: 9, merged_bytes: 468 };
        let mut accounted = Accounted::default();
        accounted.add(ProcessKey::new(7, 7), &TrafficCounters { upload, download: FlowCounters::default() });
        HashMap::from([(2, accounted), (3, accounted)])
    }

    fn residuals(books: &Books) -> Vec<Option<i64>> {
        let closed = books.close(&accounted(), |_, _| true);
        closed.into_iter().map(|interface| interface.residual.map(|residual| residual.upload)).collect()
    }

    #[test]
    fn a_super_packet_is_compared_in_the_layer_in_which_the_interface_counts() {
        let mut books = Books::default();
        let handled = Passed { packets: 2, bytes: 15_100 - 468 + 2 * 14 };
        let on_wire = Passed { packets: 11, bytes: 15_100 + 11 * 14 };
        books.read(&[link(2, "veth", handled), link(3, "", on_wire)], &HashMap::new());
        assert_eq!(residuals(&books), [Some(0), Some(0)]);
        // And 42 bytes of ARP.
        let handled = Passed { packets: 3, bytes: handled.bytes + 42 };
        let on_wire = Passed { packets: 12, bytes: on_wire.bytes + 42 };
        books.read(&[link(2, "tun", on_wire), link(3, "", handled)], &HashMap::new());
        assert_eq!(residuals(&books), [Some(42), Some(42)]);
    }

    #[test]
    fn what_was_counted_before_is_not_in_the_books() {
        let mut books = Books::default();
        let handled = Passed { packets: 2, bytes: 15_100 - 468 + 2 * 14 };
        let before = Passed { packets: 1000, bytes: 1_000_000 };
        let at_start = HashMap::from([(2, LinkCounters { sent: before, ..LinkCounters::default() })]);
        let now = Passed { packets: before.packets + handled.packets, bytes: before.bytes + handled.bytes };
        books.read(&[link(2, "veth", now)], &at_start);
        assert_eq!(residuals(&books), [Some(0)]);
        // Reset.
        books.read(&[link(2, "veth", handled)], &at_start);
        assert_eq!(residuals(&books), [Some(0)]);
    }

    #[test]
    fn a_port_of_a_bridge_has_no_residual() {
        let mut port = link(2, "veth", Passed::default());
        port.master = Some(3);
        let mut books = Books::default();
        books.read(&[port, link(3, "bridge", Passed::default())], &HashMap::new());
        let closed = books.close(&HashMap::new(), |_, _| true);
        assert_eq!(closed.iter().map(|book| book.residual.is_some()).collect::<Vec<_>>(), [false, true]);
    }
}
