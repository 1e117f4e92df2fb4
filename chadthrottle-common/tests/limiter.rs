//! What the limiter promises, for any sequence of packets.

use chadthrottle_common::{
    CgroupThrottleConfig, LimitSettings, LimitState, TRAFFIC_TYPE_ALL, TokenBucket,
    clock::{Admission, MAX_COST_NS, NS_PER_SEC, admit, cost_ns, debt_at_rate},
};
use proptest::prelude::*;

/// A limit with its clock, as the programs have them.
struct Limit {
    settings: LimitSettings,
    state: LimitState,
}

impl Limit {
    fn offer(&mut self, bytes: u64, now_ns: u64) -> bool {
        self.state.offer(&self.settings, self.settings.debt_ns, bytes, now_ns)
    }
}

/// A limit as userspace makes it: with an empty bucket, at `now_ns`.
fn limit(rate_bps: u64, burst_ns: u64, now_ns: u64) -> Limit {
    let burst_size = u64::try_from(u128::from(rate_bps) * u128::from(burst_ns) / u128::from(NS_PER_SEC));
    let config = CgroupThrottleConfig {
        cgroup_id: 1,
        pid: 1,
        traffic_type: TRAFFIC_TYPE_ALL,
        _padding: [0; 3],
        rate_bps,
        burst_size: burst_size.expect("a burst of less than 2^64 bytes"),
    };
    let settings = LimitSettings { config, burst_ns, since_ns: now_ns, ..LimitSettings::default() };
    Limit { settings, state: LimitState::default() }
}

/// Bytes that `rate_bps` allows in `ns`.
fn allowance(rate_bps: u64, ns: u64) -> u128 {
    u128::from(rate_bps) * u128::from(ns) / u128::from(NS_PER_SEC)
}

/// A packet: how long after the one before, and how large. Up to the largest super-packet seen on loopback.
fn packets() -> impl Strategy<Value = Vec<(u64, u64)>> {
    proptest::collection::vec((0..50_000_000_u64, 40..131_072_u64), 1..400)
}

const RATES: std::ops::Range<u64> = 1_000..2_000_000_000;

proptest! {
    #[test]
    fn a_debt_is_the_same_in_bytes_at_a_faster_rate_and_in_time_at_a_slower_one(
        before in RATES, rate in RATES, now in NS_PER_SEC..1000 * NS_PER_SEC, debt in 0..MAX_COST_NS,
    ) {
        let paid = debt_at_rate(now + debt, now, before, rate);
        if rate <= before {
            prop_assert_eq!(paid, now + debt);
        } else {
            let (owed, left) = (allowance(before, debt), allowance(rate, paid - now));
            prop_assert!(left + 1 >= owed && left <= owed + u128::from(rate / NS_PER_SEC) + 2, "{} {}", owed, left);
        }
        prop_assert_eq!(debt_at_rate(now.saturating_sub(debt), now, before, rate), now.saturating_sub(debt));
    }

    #[test]
    fn no_window_gets_more_than_the_rate_the_burst_and_one_packet(
        rate in RATES, burst_ns in 0..1_000_000_000_u64, packets in packets(),
    ) {
        let mut state = limit(rate, burst_ns, NS_PER_SEC);
        let mut now = NS_PER_SEC;
        let mut passed = Vec::new();
        for (gap, bytes) in packets {
            now += gap;
            if state.offer(bytes, now) {
                passed.push((now, bytes));
            }
        }
        for (first, &(start, _)) in passed.iter().enumerate() {
            let mut sum = 0_u128;
            for &(at, bytes) in &passed[first..] {
                sum += u128::from(bytes);
                // The packet that goes into debt is the last one of its window.
                let bound = allowance(rate, at - start) + allowance(rate, burst_ns) + u128::from(bytes) + 1;
                prop_assert!(sum <= bound, "{sum} > {bound} in {} ns", at - start);
            }
        }
    }

    #[test]
    fn a_new_limit_starts_with_an_empty_bucket(rate in RATES, packets in packets()) {
        let mut state = limit(rate, NS_PER_SEC, NS_PER_SEC);
        let mut now = NS_PER_SEC;
        let mut sum = 0_u128;
        for (gap, bytes) in packets {
            now += gap;
            if state.offer(bytes, now) {
                let bound = allowance(rate, now - NS_PER_SEC) + u128::from(bytes) + 1;
                sum += u128::from(bytes);
                prop_assert!(sum <= bound);
            }
        }
    }

    #[test]
    fn who_always_offers_gets_the_rate(rate in 10_000..2_000_000_000_u64, bytes in 40..131_072_u64) {
        // Offered every tenth of what a packet costs, for a thousand packets' time.
        let cost = cost_ns(bytes, rate);
        let mut state = limit(rate, NS_PER_SEC / 5, 0);
        let (mut now, mut sum) = (0, 0_u128);
        while now < cost * 1000 {
            now += cost / 10 + 1;
            if state.offer(bytes, now) {
                sum += u128::from(bytes);
            }
        }
        // One packet for the start, and the rounding of each cost to whole nanoseconds.
        let due = allowance(rate, now);
        let rounding = due / u128::from(cost) + 1;
        prop_assert!(sum + u128::from(bytes) + rounding >= due, "{sum} of {due}");
    }

    #[test]
    fn a_packet_larger_than_the_bucket_passes_into_debt(rate in RATES, bytes in 40..1_000_000_u64) {
        let mut state = limit(rate, 0, NS_PER_SEC);
        prop_assert!(state.offer(bytes, NS_PER_SEC));
        let cost = cost_ns(bytes, rate);
        prop_assert!(!state.offer(1, NS_PER_SEC + cost - 1));
        prop_assert!(state.offer(1, NS_PER_SEC + cost));
    }

    #[test]
    fn a_clock_going_backwards_never_opens_the_gate(
        rate in RATES, steps in proptest::collection::vec((-50_000_000..50_000_000_i64, 40..70_000_u64), 1..300),
    ) {
        let burst_ns = NS_PER_SEC / 5;
        let start = 100 * NS_PER_SEC;
        let mut state = limit(rate, burst_ns, start);
        let (mut now, mut latest, mut sum, mut largest) = (start, start, 0_u128, 0_u128);
        for (step, bytes) in steps {
            now = now.saturating_add_signed(step);
            latest = latest.max(now);
            if state.offer(bytes, now) {
                sum += u128::from(bytes);
                largest = largest.max(u128::from(bytes));
                // Whatever way time took, it cannot have bought more than its furthest point is worth.
                prop_assert!(sum <= allowance(rate, latest - start) + largest + 1);
            }
        }
    }

    #[test]
    fn nothing_overflows(
        rate: u64, burst: u64, debt: u64, since: u64, clock: u64, now: u64, bytes: u64,
    ) {
        prop_assert!(cost_ns(bytes, rate) <= MAX_COST_NS);
        let mut limit = limit(0, 0, since);
        (limit.settings.config.rate_bps, limit.settings.burst_ns) = (rate, burst);
        (limit.settings.debt_ns, limit.state.clock_ns) = (debt, clock);
        let passed = limit.offer(bytes, now);
        if passed {
            // Paid for, whatever the clock was before.
            prop_assert!(limit.state.clock_ns >= clock);
        } else {
            prop_assert_eq!(limit.state.clock_ns, clock);
        }
        let bucket = TokenBucket::from_clock(&limit.settings, limit.state.clock_ns, now);
        prop_assert!(bucket.tokens <= bucket.capacity);
        prop_assert!(bucket.last_update_ns >= now);
    }

    #[test]
    fn a_change_lets_no_burst_through(
        before in RATES, after in RATES, burst_ns in 0..1_000_000_000_u64, packets in packets(),
    ) {
        // Idle for long under the old limit; then it is changed, at the end of the first minute.
        let changed = 60 * NS_PER_SEC;
        let mut limit = limit(before, burst_ns, NS_PER_SEC);
        limit.offer(1500, 2 * NS_PER_SEC);
        (limit.settings.config.rate_bps, limit.settings.since_ns) = (after, changed);
        let (mut now, mut sum) = (changed, 0_u128);
        for (gap, bytes) in packets {
            now += gap;
            if limit.offer(bytes, now) {
                sum += u128::from(bytes);
                prop_assert!(sum <= allowance(after, now - changed) + u128::from(bytes) + 1);
            }
        }
    }

    #[test]
    fn debt_is_evened_out_by_what_follows(
        rate in RATES, debt_ns in 0..500_000_000_u64, packets in packets(),
    ) {
        let mut limit = limit(rate, 0, NS_PER_SEC);
        limit.settings.debt_ns = debt_ns;
        let (mut now, mut sum) = (NS_PER_SEC, 0_u128);
        for (gap, bytes) in packets {
            now += gap;
            if limit.offer(bytes, now) {
                sum += u128::from(bytes);
                let bound = allowance(rate, now - NS_PER_SEC + debt_ns) + u128::from(bytes) + 1;
                prop_assert!(sum <= bound);
            }
        }
    }

    #[test]
    fn the_clock_is_a_token_bucket(rate in RATES, burst_ns in 1_000..1_000_000_000_u64, packets in packets()) {
        // The textbook's bucket, with debt, in bytes scaled by a second so that nothing is rounded.
        let scale = i128::from(NS_PER_SEC);
        let capacity = i128::from(rate) * i128::from(burst_ns);
        let mut tokens = 0_i128;
        let mut state = limit(rate, burst_ns, 0);
        let mut now = 0;
        // Each cost is rounded up to a whole nanosecond: so far may the two be apart.
        let mut rounding = 0_i128;
        for (gap, bytes) in packets {
            now += gap;
            tokens = (tokens + i128::from(gap) * i128::from(rate)).min(capacity);
            let would_pass = tokens >= 0;
            let passes = state.offer(bytes, now);
            if tokens.abs() > rounding {
                prop_assert_eq!(passes, would_pass, "at {} with {} tokens", now, tokens / scale);
            }
            if passes {
                tokens -= i128::from(bytes) * scale;
                rounding += i128::from(rate);
            }
        }
    }
}

#[test]
fn a_limit_of_nothing_blocks() {
    let limit = limit(0, NS_PER_SEC, 0);
    assert_eq!(admit(&limit.settings, 0, 0, u64::MAX), Admission::Over);
    assert_eq!(cost_ns(1, 0), MAX_COST_NS);
}

#[test]
fn a_week_without_traffic_is_worth_one_burst() {
    // `rate × elapsed` overflowed 64 bits after 147 s at 1 Gbit/s in limiters that kept tokens instead of time.
    let rate = 125_000_000;
    let week = 7 * 86_400 * NS_PER_SEC;
    let mut state = limit(rate, NS_PER_SEC / 5, 0);
    let passed = (0..100_000).filter(|_| state.offer(1500, week)).count() as u64 * 1500;
    assert!((rate / 5..=rate / 5 + 1500).contains(&passed), "{passed}");
}

#[test]
fn small_frequent_packets_are_not_starved() {
    // A refill that rounds down to nothing while the time of the refill moves on never gives anything.
    let mut state = limit(1000, NS_PER_SEC / 5, 0);
    let passed = (1..=10_000_u64).filter(|step| state.offer(10, step * 1_000_000)).count() as u64 * 10;
    // 10 s at 1000 bytes a second.
    assert!((9_980..=10_010).contains(&passed), "{passed}");
}

#[test]
fn a_bucket_in_debt_says_when_it_will_be_paid() {
    let mut state = limit(1_000_000, NS_PER_SEC / 5, NS_PER_SEC);
    assert!(state.offer(500_000, NS_PER_SEC));
    let bucket = TokenBucket::from_clock(&state.settings, state.state.clock_ns, NS_PER_SEC);
    let debt_is_paid = NS_PER_SEC + NS_PER_SEC / 2;
    assert_eq!(
        bucket,
        TokenBucket { capacity: 200_000, tokens: 0, last_update_ns: debt_is_paid, rate_bps: 1_000_000 }
    );
    let later =
        TokenBucket::from_clock(&state.settings, state.state.clock_ns, debt_is_paid + NS_PER_SEC / 10);
    assert_eq!(later.tokens, 100_000);
}
