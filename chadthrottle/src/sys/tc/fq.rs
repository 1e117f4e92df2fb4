//! Which interfaces have a queue that sends a packet at the time that stands in it (`fq`, `net/sched/sch_fq.c`).

use chadthrottle_common::{clock::LONGEST_WAIT_NS, waiting::MOST_WAITING};

use super::{Handle, Qdisc, word};
use crate::sys::netlink::attributes;

/// `TCA_FQ_…` (`include/uapi/linux/pkt_sched.h`).
const LIMIT: u16 = 1;
const FLOW_LIMIT: u16 = 2;
const HORIZON: u16 = 14;

/// What an `fq` queue is set to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fq {
    /// Most packets that wait in it.
    pub limit: u32,
    /// Most of those that are of one socket.
    pub flow_limit: u32,
    /// In microseconds: how far from now the time may be that stands in a packet.
    pub horizon: u32,
}

impl Fq {
    /// From its options. A kernel without a horizon (before Linux 5.8) takes any time.
    pub(super) fn read(options: &[u8]) -> Self {
        let mut fq = Self { limit: 0, flow_limit: 0, horizon: u32::MAX };
        for (kind, value) in attributes(options) {
            let Some(number) = word(value, 0) else { continue };
            match kind {
                LIMIT => fq.limit = number,
                FLOW_LIMIT => fq.flow_limit = number,
                HORIZON => fq.horizon = number,
                _ => {}
            }
        }
        fq
    }

    /// Whether there is room in it for what we let wait, and for as long as that.
    fn is_large_enough(self) -> bool {
        let room = self.limit.min(self.flow_limit);
        u64::from(room) > MOST_WAITING && u64::from(self.horizon) * 1000 > LONGEST_WAIT_NS
    }
}

/// Whether all that leaves by an interface passes such queues, with as much room as we need: its own, or one for each of the
/// device's queues (`mq`).
#[must_use]
pub fn keeps_packets(qdiscs: &[Qdisc], interface: u32) -> bool {
    let of_interface = || qdiscs.iter().filter(move |qdisc| qdisc.interface == interface);
    let is_fq = |qdisc: &Qdisc| qdisc.fq.is_some_and(Fq::is_large_enough);
    let Some(root) = of_interface().find(|qdisc| qdisc.is_root) else { return false };
    if root.kind != "mq" {
        return is_fq(root);
    }
    let is_part = |qdisc: &&Qdisc| !qdisc.is_root && Handle::major(qdisc.parent) == root.handle.major();
    let mut parts = of_interface().filter(is_part).peekable();
    parts.peek().is_some() && parts.all(is_fq)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::{netlink::put, tc::Stats};

    const DEFAULT: Fq = Fq { limit: 10_000, flow_limit: 100, horizon: 10_000_000 };

    fn qdisc(kind: &str, handle: u16, parent: Option<Handle>) -> Qdisc {
        Qdisc {
            interface: 3,
            kind: kind.into(),
            handle: Handle::new(handle, 0),
            parent: parent.unwrap_or(Handle(u32::MAX)),
            is_root: parent.is_none(),
            htb: None,
            fq: (kind == "fq").then_some(DEFAULT),
            stats: Stats::default(),
        }
    }

    #[test]
    fn its_own_queue_counts_and_no_other() {
        // Numbers of an ingress queue and its parent (`TC_H_INGRESS`).
        let entrance = qdisc("clsact", 0xffff, Some(Handle(0xffff_fff1)));
        assert!(keeps_packets(&[entrance.clone(), qdisc("fq", 0x8001, None)], 3));
        assert!(!keeps_packets(&[qdisc("fq", 0x8001, None)], 4));
        assert!(!keeps_packets(&[entrance, qdisc("fq_codel", 0, None)], 3));
        let below = qdisc("fq", 0x10, Some(Handle::new(1, 0x20)));
        assert!(!keeps_packets(&[qdisc("htb", 1, None), below], 3), "what HTB lets through is not known");
        assert!(!keeps_packets(&[], 3));
    }

    #[test]
    fn each_queue_of_a_device_has_to_be_one() {
        // As the kernel makes it by itself: without numbers.
        let part = |kind, queue| qdisc(kind, 0, Some(Handle::new(0, queue)));
        let mut qdiscs = vec![qdisc("mq", 0, None), part("fq", 1), part("fq", 2)];
        assert!(keeps_packets(&qdiscs, 3));
        qdiscs.push(qdisc("clsact", 0xffff, Some(Handle(0xffff_fff1))));
        assert!(keeps_packets(&qdiscs, 3));
        qdiscs.push(part("pfifo_fast", 3));
        assert!(!keeps_packets(&qdiscs, 3));
        assert!(!keeps_packets(&qdiscs[..1], 3));
    }

    #[test]
    fn one_that_would_drop_what_waits_is_left_alone() {
        let with = |fq| Qdisc { fq: Some(fq), ..qdisc("fq", 1, None) };
        assert!(keeps_packets(&[with(DEFAULT)], 3));
        for fq in [
            Fq { flow_limit: 90, ..DEFAULT },
            Fq { limit: 90, ..DEFAULT },
            Fq { horizon: 100_000, ..DEFAULT },
        ] {
            assert!(!keeps_packets(&[with(fq)], 3), "{fq:?}");
        }
    }

    #[test]
    fn its_options_are_read() {
        let mut options = Vec::new();
        for (kind, value) in [(LIMIT, 10_000_u32), (FLOW_LIMIT, 100), (3, 3028), (HORIZON, 10_000_000)] {
            put(&mut options, kind, &value.to_ne_bytes());
        }
        assert_eq!(Fq::read(&options), DEFAULT);
        assert_eq!(Fq::read(&options[..16]), Fq { horizon: u32::MAX, ..DEFAULT });
    }
}
