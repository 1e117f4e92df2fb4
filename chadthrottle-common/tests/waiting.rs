//! What is promised of packets that wait for their turn instead of being dropped.

use chadthrottle_common::{
    CgroupThrottleConfig, LimitSettings, LimitState, TRAFFIC_TYPE_ALL, Waiting,
    clock::{Admission, LONGEST_WAIT_NS, NS_PER_SEC, admit, cost_ns, departure},
    waiting::MOST_WAITING,
};
use proptest::prelude::*;

const START: u64 = NS_PER_SEC;

fn settings(rate_bps: u64, burst_ns: u64, debt_ns: u64) -> LimitSettings {
    let config = CgroupThrottleConfig {
        cgroup_id: 1,
        pid: 1,
        traffic_type: TRAFFIC_TYPE_ALL,
        _padding: [0; 3],
        rate_bps,
        burst_size: 0,
    };
    LimitSettings { config, burst_ns, debt_ns, since_ns: START, ..LimitSettings::default() }
}

/// A packet that was offered: when, of how many bytes, and when it leaves, if it does.
#[derive(Clone, Copy, Debug)]
struct Offered {
    now: u64,
    bytes: u64,
    departs: Option<u64>,
}

fn offer_all(settings: &LimitSettings, packets: &[(u64, u64)]) -> Vec<Offered> {
    let (mut state, mut waiting, mut now) = (LimitState::default(), Waiting::NONE, START);
    let offer = |&(gap, bytes): &(u64, u64)| {
        now += gap;
        Offered { now, bytes, departs: state.offer_datagram(settings, &mut waiting, bytes, now) }
    };
    packets.iter().map(offer).collect()
}

/// How long after the one before, and how large.
fn packets() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0..10_000_000_u64, 40..9_000_u64), 1..600)
}

const RATES: std::ops::Range<u64> = 1_000..200_000_000;

proptest! {
    #[test]
    fn they_leave_in_turn_soon_and_no_faster_than_the_limit(
        rate in RATES, burst_ns in 0..500_000_000_u64, packets in packets(),
    ) {
        let offered = offer_all(&settings(rate, burst_ns, 0), &packets);
        let left: Vec<_> = offered.iter().filter_map(|packet| Some((packet.departs?, *packet))).collect();
        prop_assert!(left.is_sorted_by_key(|(departs, _)| *departs), "{left:?}");
        for (first, &(start, _)) in left.iter().enumerate() {
            let mut sum = 0_u128;
            for &(at, packet) in &left[first..] {
                prop_assert!((packet.now..=packet.now + LONGEST_WAIT_NS).contains(&at), "{packet:?}");
                sum += u128::from(packet.bytes);
                let time = u128::from(at - start + burst_ns);
                let bound = u128::from(rate) * time / u128::from(NS_PER_SEC) + u128::from(packet.bytes) + 1;
                prop_assert!(sum <= bound, "{sum} > {bound} in {time} ns");
            }
        }
    }

    #[test]
    fn never_do_more_of_them_wait_than_the_queue_holds(rate in RATES, packets in packets()) {
        let offered = offer_all(&settings(rate, 0, 0), &packets);
        for (index, packet) in offered.iter().enumerate() {
            let waits = |other: &&Offered| other.departs.is_some_and(|departs| departs > packet.now);
            let waiting = offered[..=index].iter().filter(waits).count() as u64;
            prop_assert!(waiting <= MOST_WAITING, "{waiting} at {packet:?}");
        }
    }

    #[test]
    fn one_is_dropped_only_when_the_queue_is_long_or_full(rate in RATES, packets in packets()) {
        let offered = offer_all(&settings(rate, 0, 0), &packets);
        for (index, packet) in offered.iter().enumerate().filter(|(_, packet)| packet.departs.is_none()) {
            let before = offered[..index].iter().rev().filter(|other| other.departs.is_some());
            let last = before.clone().next().expect("the first one finds nobody in front of it");
            let due = last.departs.expect("it leaves") + cost_ns(last.bytes, rate);
            let waiting = before.filter(|other| other.departs.is_some_and(|departs| departs > packet.now));
            let is_full = waiting.count() as u64 == MOST_WAITING;
            prop_assert!(is_full || due > packet.now + LONGEST_WAIT_NS, "{packet:?} due at {due}");
        }
    }

    #[test]
    fn who_offers_too_much_gets_the_rate(rate in 20_000..100_000_000_u64, bytes in 500..1_500_u64, times in 2..10_u64) {
        let gap = cost_ns(bytes, rate) / times;
        let offered = offer_all(&settings(rate, 0, 0), &vec![(gap, bytes); 2_000]);
        let end = START + gap * 2_000;
        let left = offered.iter().filter(|packet| packet.departs.is_some_and(|departs| departs <= end));
        let sum = u128::from(left.count() as u64 * bytes);
        let due = u128::from(rate) * u128::from(end - START) / u128::from(NS_PER_SEC);
        // A packet at either end, and the rounding of each cost to whole nanoseconds.
        let rounding = due / u128::from(cost_ns(bytes, rate)) + 1;
        prop_assert!(sum + 2 * u128::from(bytes) + rounding >= due, "{sum} of {due}");
    }

    #[test]
    fn one_that_need_not_wait_is_one_that_passes(
        rate: u64, burst: u64, debt: u64, clock: u64, datagram_clock: u64, now: u64,
    ) {
        let settings = settings(rate, burst, debt);
        let passes = admit(&settings, debt, clock, now) != Admission::Over
            && admit(&settings, 0, datagram_clock, now) != Admission::Over;
        let departs = departure(&settings, clock, datagram_clock, now);
        prop_assert_eq!(passes, departs == Some(now));
        prop_assert!(departs.is_none_or(|at| at >= now && at - now <= LONGEST_WAIT_NS));
    }

    #[test]
    fn what_tcp_owes_holds_it_up_when_it_is_more_than_tcp_may(debt in 0..500_000_000_u64, owed in 0..800_000_000_u64) {
        let now = 10 * NS_PER_SEC;
        let departs = departure(&settings(1_000_000, 0, debt), now + owed, now, now);
        let due = now + owed.saturating_sub(debt);
        prop_assert_eq!(departs, (due <= now + LONGEST_WAIT_NS).then_some(due));
    }
}

#[test]
fn nothing_waits_for_a_limit_of_nothing() {
    assert_eq!(departure(&settings(0, 0, 0), 0, 0, 10 * NS_PER_SEC), None);
}
