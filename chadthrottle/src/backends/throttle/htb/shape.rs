//! Which parameters hold a limit. Pure.
//!
//! A limit is IP bytes as they travel; HTB counts those and the link's header of each packet (`qdisc_pkt_len_init`,
//! net/core/dev.c: a super-packet as all that it stands for). So its rate is the limit times what packets of this
//! target have been longer by, on average: 14 bytes in 1,514 at first, and as counted later.

use crate::sys::{
    links::Link,
    tc::{HtbClass, Leaf, Stats},
};

/// What may be sent at once after a pause, as a part of a second: long enough to outlast a timer that comes late, short
/// enough not to be seen in any second.
const BURST: u64 = 100;
/// What may stand in the queue, as a part of a second, and in microseconds.
const QUEUE: u64 = 20;
const QUEUE_US: u32 = 50_000;
/// `fq_codel` counts the memory of packets (`skb->truesize`, `fq_codel_enqueue`), which is up to so many times what those
/// carry that drivers have received: a merged one of 64 KB would be dropped where there is room for 72 KB.
const MEMORY_OF_BYTES: u32 = 4;
/// Of what was counted before, so much counts still after a tick.
const MEMORY: f64 = 0.8;
/// Less than this is too little to tell how long packets are, in bytes.
const ENOUGH: f64 = 20_000.0;
/// So few super-packets a second make single seconds differ by a fifth.
const FEW: u64 = 5;
/// What headers may be longer by than the interface says, such as tags of VLANs, in bytes.
const TAGS: u32 = 64;
/// The longest super-packet where the kernel does not tell, in bytes.
const USUAL_SUPER_PACKET: u32 = 65_536;
/// Most that one class sends before another has its turn: what the kernel does not complain of is below 200,000.
const LONGEST_TURN: u64 = 60_000;

/// What flow control aims at, in parts of a thousand of the limit: at first, at most, and how much more or less next time.
pub(crate) const AIM: u64 = 1000;
const MOST_AIM: u64 = 1300;
const AIM_STEP: u64 = 20;
/// How much lower it aims at most where what is received fills the queue.
const LEAST_AIM_BELOW: u64 = 100;
/// Which part of a second what is received may wait.
const SHORT_PARTS: u64 = 125;
/// A queue of some packets is none, in bytes.
const SHORT_QUEUE: u64 = 6000;

/// How long the packets of a target are on an interface.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Lengths {
    bytes: f64,
    packets: f64,
    header: f64,
}

impl Lengths {
    /// Those of full packets, until others are counted.
    pub(crate) fn new(link: &Link) -> Self {
        let (header, mtu) = (f64::from(link.header_len()), f64::from(link.mtu.max(64)));
        // As if so many had been counted.
        let packets = ENOUGH / mtu;
        Self { bytes: packets * (mtu + header), packets, header }
    }

    /// Takes in what has been counted since the last time.
    pub(crate) fn count(&mut self, bytes: u64, packets: u64) {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let (bytes, packets) = (bytes as f64, packets as f64);
        self.bytes += bytes;
        self.packets += packets;
        if self.bytes > ENOUGH {
            let kept = MEMORY.max(ENOUGH / self.bytes);
            self.bytes *= kept;
            self.packets *= kept;
        }
    }

    /// By how much what HTB counts is longer than IP packets.
    fn ratio(self) -> f64 {
        let ip = self.bytes - self.header * self.packets;
        // An IP packet has at least 20 bytes.
        if ip > 0.0 { (self.bytes / ip).min((20.0 + self.header) / 20.0) } else { 1.0 }
    }
}

/// The class that holds a limit, in IP bytes a second.
pub(crate) fn class(limit: u64, link: &Link, lengths: Lengths) -> HtbClass {
    let rate = scaled(limit, lengths.ratio()).max(1);
    let packet = u64::from(link.mtu) + u64::from(link.header_len());
    HtbClass {
        rate,
        burst: saturated((rate / BURST).max(packet)),
        quantum: saturated((rate / 1000).clamp(packet, LONGEST_TURN.max(packet))),
    }
}

/// Whether a class is as good as another one.
pub(crate) const fn is_close(one: HtbClass, other: HtbClass) -> bool {
    one.rate.abs_diff(other.rate) <= other.rate / 500
}

/// What the kernel is known to have, or not known to lack.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kinds {
    /// `fq_codel`.
    pub(crate) fair: bool,
    /// `tbf`.
    pub(crate) splitting: bool,
}

/// The queue for what waits: a twentieth of a second, but room for a super-packet in any case, or else none would ever
/// pass. A super-packet of which there are only a few a second comes apart: whole, it would be a burst of up to a second's
/// worth. Where they come apart already, they do up to twice that: what stands in a queue is lost with its kind. A block takes
/// nothing.
pub(crate) fn leaf(limit: u64, link: &Link, kinds: Kinds, before: Option<Leaf>) -> Leaf {
    if limit == 0 {
        return Leaf::Blackhole;
    }
    let longest = match link.longest_super_packet {
        0 => USUAL_SUPER_PACKET,
        known => known,
    };
    // With the headers of all that it stands for.
    let room = longest.saturating_add(longest / 8);
    let bytes = saturated(limit / QUEUE).max(room);
    let few = if matches!(before, Some(Leaf::Segments { .. })) { 2 * FEW } else { FEW };
    if kinds.splitting && limit < u64::from(longest) * few {
        Leaf::Segments { longest: link.mtu.saturating_add(link.header_len()).saturating_add(TAGS), bytes }
    } else if kinds.fair {
        Leaf::FairQueue { delay: QUEUE_US, bytes: bytes.saturating_mul(MEMORY_OF_BYTES) }
    } else {
        Leaf::Fifo { bytes }
    }
}

/// What flow control aims at next, in parts of a thousand of the limit, by what a target has sent since the last time in
/// IP bytes a second, and the bytes that stand in its queues.
///
/// By itself it comes out below the limit where the round trip is very short or a packet takes long, since it can only
/// tell sockets how fast to go. The queue tells whether they go too fast.
pub(crate) fn aim(before: u64, limit: u64, sent: u64, queued: u64) -> u64 {
    if queued > (limit / 50).max(SHORT_QUEUE) {
        before.saturating_sub(2 * AIM_STEP).max(AIM)
    } else if sent > limit / 2 && sent < limit / 1000 * 993 {
        (before + AIM_STEP).min(MOST_AIM)
    } else {
        before
    }
}

/// The same for what is received: senders are told how much may be on its way, and what stands in the queue is a part of
/// that. So it lasts until flow control aims lower than the queue lets through.
pub(crate) fn aim_down(before: u64, limit: u64, sent: u64, queued: u64) -> u64 {
    let short = (limit / SHORT_PARTS).max(SHORT_QUEUE);
    if queued <= short {
        return aim(before.max(AIM), limit, sent, 0);
    }
    let full = (limit / QUEUE).max(SHORT_QUEUE * 4);
    AIM - LEAST_AIM_BELOW.min(mul_div(queued - short, LEAST_AIM_BELOW, full - short))
}

/// IP bytes of what HTB has counted.
pub(crate) fn ip_bytes(stats: Stats, link: &Link) -> u64 {
    stats.bytes.saturating_sub(stats.packets.saturating_mul(link.header_len().into()))
}

/// Which part of a limit each interface gets, by what a target has sent by each in IP bytes a second since the last time
/// and what it might have sent. All that use none get all: whoever begins there is seen at the next tick.
pub(crate) fn parts(limit: u64, used: &[(u64, u64)]) -> Vec<u64> {
    let is_busy = |(sent, _): (u64, u64)| sent > limit / 50;
    if used.iter().filter(|used| is_busy(**used)).count() < 2 {
        return vec![limit; used.len()];
    }
    // What uses nearly all that it may wants more.
    let wants_more = |(sent, might): (u64, u64)| sent >= might / 10 * 9;
    let modest = |(sent, _): (u64, u64)| sent + sent / 5;
    let busy = || used.iter().copied().filter(|used| is_busy(*used));
    let taken: u64 = busy().filter(|used| !wants_more(*used)).map(modest).sum();
    let hungry = busy().filter(|used| wants_more(*used)).count() as u64;
    let equal = limit / busy().count() as u64;
    let share = limit.saturating_sub(taken).checked_div(hungry).unwrap_or(equal).max(equal);
    let part = |&one: &(u64, u64)| match (is_busy(one), wants_more(one)) {
        (false, _) => limit,
        (true, true) => share,
        (true, false) => modest(one).min(limit),
    };
    let parts: Vec<u64> = used.iter().map(part).collect();
    // All together no more than the limit.
    let sum: u64 = used.iter().zip(&parts).filter(|(used, _)| is_busy(**used)).map(|(_, part)| part).sum();
    let fits = |(one, part): (&(u64, u64), u64)| {
        if is_busy(*one) && sum > limit { mul_div(part, limit, sum).max(1) } else { part }
    };
    used.iter().zip(parts).map(fits).collect()
}

fn mul_div(value: u64, by: u64, over: u64) -> u64 {
    u64::try_from(u128::from(value) * u128::from(by) / u128::from(over.max(1))).unwrap_or(u64::MAX)
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "positive; some bytes in 2^53 are nothing"
)]
fn scaled(value: u64, by: f64) -> u64 {
    (value as f64 * by).round() as u64
}

fn saturated(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use nix::libc::ARPHRD_ETHER;
    use proptest::prelude::*;

    use super::*;

    fn ethernet() -> Link {
        Link { mtu: 1500, link_type: ARPHRD_ETHER, longest_super_packet: 65_536, ..Link::default() }
    }

    #[test]
    fn full_packets_are_expected_and_others_are_learned() {
        let link = ethernet();
        let mut lengths = Lengths::new(&link);
        assert_eq!(class(1_500_000, &link, lengths).rate, 1_514_000);
        for _ in 0..30 {
            // Datagrams of 100 bytes of IP.
            lengths.count(114 * 1000, 1000);
        }
        assert!(class(1_000_000, &link, lengths).rate.abs_diff(1_140_000) < 1000);
        // Pure acknowledgements, and a tunnel, which has no header.
        assert!(Lengths::new(&Link { mtu: 1420, ..Link::default() }).ratio() < 1.000_001);
    }

    #[test]
    fn a_queue_has_room_for_a_super_packet_and_a_twentieth_of_a_second() {
        let after =
            |limit, fair, splitting, before| leaf(limit, &ethernet(), Kinds { fair, splitting }, before);
        let leaf = |limit, fair, splitting| after(limit, fair, splitting, None);
        assert_eq!(leaf(64_000, false, false), Leaf::Fifo { bytes: 73_728 });
        let split = Leaf::Segments { longest: 1578, bytes: 73_728 };
        assert_eq!(
            (leaf(64_000, true, true), leaf(400_000, false, true)),
            (split, Leaf::Fifo { bytes: 73_728 })
        );
        assert_eq!(after(400_000, false, true, Some(split)), split);
        assert_eq!(after(700_000, false, true, Some(split)), Leaf::Fifo { bytes: 73_728 });
        assert_eq!(leaf(100_000_000, false, true), Leaf::Fifo { bytes: 5_000_000 });
        assert_eq!(leaf(0, true, true), Leaf::Blackhole);
        assert_eq!(leaf(100_000_000, true, true), Leaf::FairQueue { delay: 50_000, bytes: 20_000_000 });
    }

    #[test]
    fn bursts_and_turns_are_at_least_a_packet() {
        let slow = class(64_000, &ethernet(), Lengths::new(&ethernet()));
        assert_eq!((slow.burst, slow.quantum), (1514, 1514));
        let fast = class(125_000_000, &ethernet(), Lengths::new(&ethernet()));
        assert_eq!((fast.burst, fast.quantum), (1_261_666, 60_000));
    }

    #[test]
    fn flow_control_aims_higher_where_nothing_waits() {
        assert_eq!(aim(1000, 1_000_000, 900_000, 3000), 1020);
        assert_eq!(aim(1290, 1_000_000, 900_000, 0), 1300);
        // What holds, and what does not want more, stays.
        assert_eq!(aim(1020, 1_000_000, 995_000, 0), 1020);
        assert_eq!(aim(1000, 1_000_000, 10_000, 0), 1000);
        assert_eq!(aim(1020, 1_000_000, 1_000_000, 40_000), 1000);
        assert_eq!(aim(1200, 1_000_000, 900_000, 40_000), 1160);
    }

    #[test]
    fn interfaces_share_a_limit_by_what_they_use() {
        assert_eq!(parts(1000, &[(990, 1000), (0, 1000)]), [1000, 1000]);
        assert_eq!(parts(1000, &[(990, 1000), (990, 1000)]), [500, 500]);
        // One that uses a tenth leaves the rest to the other.
        assert_eq!(parts(1000, &[(100, 500), (490, 500)]), [120, 880]);
        assert_eq!(parts(1000, &[(490, 500), (490, 500), (0, 1000)]), [500, 500, 1000]);
    }

    proptest! {
        #[test]
        fn what_is_busy_has_no_more_than_the_limit_together(
            limit in 1_000_u64..1 << 40,
            used in prop::collection::vec((0_u64..1 << 40, 1_u64..1 << 40), 1..6),
        ) {
            let parts = parts(limit, &used);
            let busy = || used.iter().zip(&parts).filter(|((sent, _), _)| *sent > limit / 50);
            prop_assert!(busy().count() < 2 || busy().map(|(_, part)| part).sum::<u64>() <= limit + 6);
            prop_assert!(parts.iter().all(|part| (1..=limit).contains(part)));
        }

        #[test]
        fn parameters_are_sound(limit in 1_u64..u64::MAX / 4, bytes in any::<u32>(), packets in any::<u32>()) {
            let mut lengths = Lengths::new(&ethernet());
            lengths.count(bytes.into(), packets.into());
            let class = class(limit, &ethernet(), lengths);
            prop_assert!(class.rate >= limit - limit / 1000 && class.quantum >= 1514 && class.burst >= 1514);
        }
    }
}
