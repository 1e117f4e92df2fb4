//! The limiter's arithmetic: a token bucket kept as one virtual clock.
//!
//! The clock is the instant up to which everything that passed has been paid for at the limit's rate. A packet
//! passes while the clock is not ahead of now, and moves it on by what it costs, so that it may end ahead: the
//! bucket goes into **debt**. Without debt a packet larger than the bucket would never pass, and kernels hand
//! over packets of up to 128 KB at once. A clock that lags behind now by more than the burst is first set to
//! `now - burst`: that is the bucket's capacity. This is the virtual scheduling form of the generic cell rate
//! algorithm (ITU-T I.371, annex A) with the test on arrival instead of departure.
//!
//! One number instead of (tokens, time) is what makes it lock-free: the program adds the cost with one atomic
//! addition, and whatever several CPUs let through at the same instant is still paid for by the next packets.

use crate::{
    layout::{LimitSettings, LimitState, TokenBucket},
    waiting::Waiting,
};

/// Nanoseconds in a second.
pub const NS_PER_SEC: u64 = 1_000_000_000;

/// Longest time that one packet may cost. A rate so low that a packet costs more still gets one an hour; without
/// a bound the clock could be carried past `u64::MAX` and wrap into an open gate.
pub const MAX_COST_NS: u64 = 3600 * NS_PER_SEC;

/// Longest time that a packet waits for its turn, in nanoseconds, where it can. It is as much as a limit saves up: a
/// sender that is ahead by so much finds a queue as deep as the bucket, and what stands in queues leaves within that time
/// when the limit goes.
pub const LONGEST_WAIT_NS: u64 = NS_PER_SEC / 5;

/// What is to be done with a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// It may not pass: the clock is ahead of now, or nothing may pass at all.
    Over,
    /// It may pass, and its cost is to be added to the clock.
    Pass,
    /// It may pass, but the clock lags behind by more than the burst: it is to be set to this value first.
    PassFrom(u64),
}

/// Time that `bytes` take at `rate_bps` bytes a second, in nanoseconds, rounded up so that rounding never lets
/// more through than the limit. At most [`MAX_COST_NS`]; a rate of 0 costs that for anything.
#[inline(always)]
#[must_use]
pub const fn cost_ns(bytes: u64, rate_bps: u64) -> u64 {
    if rate_bps == 0 {
        return MAX_COST_NS;
    }
    // 18 GB in one packet would overflow the product. No packet is that large; a caller's mistake saturates.
    // (`checked_mul` would need a 128-bit product, which BPF does not have.)
    if bytes > u64::MAX / NS_PER_SEC {
        return MAX_COST_NS;
    }
    let product = bytes * NS_PER_SEC;
    let cost = product.div_ceil(rate_bps);
    if cost > MAX_COST_NS { MAX_COST_NS } else { cost }
}

/// Whether a packet may pass at `now_ns`, given the limit's clock, which may be ahead by `debt_ns`. What was not used
/// before `now_ns - burst_ns`, or before `since_ns`, is lost.
///
/// A clock of the machine that goes backwards closes the gate for as long as it went back, and never opens it.
#[inline(always)]
#[must_use]
pub const fn admit(settings: &LimitSettings, debt_ns: u64, clock_ns: u64, now_ns: u64) -> Admission {
    if settings.config.rate_bps == 0 || clock_ns > now_ns.saturating_add(debt_ns) {
        return Admission::Over;
    }
    let saved_from = now_ns.saturating_sub(settings.burst_ns);
    let floor = if saved_from > settings.since_ns { saved_from } else { settings.since_ns };
    if clock_ns < floor { Admission::PassFrom(floor) } else { Admission::Pass }
}

/// When a packet that is no TCP's may leave that can wait, given the limit's clock and the one of what is no TCP: at
/// `now_ns` exactly where [`admit`] has it pass by both. `None` where it would wait for longer than [`LONGEST_WAIT_NS`],
/// or for ever.
#[inline(always)]
#[must_use]
pub const fn departure(
    settings: &LimitSettings,
    clock_ns: u64,
    datagram_clock_ns: u64,
    now_ns: u64,
) -> Option<u64> {
    if settings.config.rate_bps == 0 {
        return None;
    }
    let clock_ns = clock_ns.saturating_sub(settings.debt_ns);
    let due_ns = if clock_ns > datagram_clock_ns { clock_ns } else { datagram_clock_ns };
    if due_ns <= now_ns {
        return Some(now_ns);
    }
    if due_ns - now_ns > LONGEST_WAIT_NS { None } else { Some(due_ns) }
}

/// The clock of a limit whose rate has just changed: what had passed and was not paid for yet is paid at the new rate.
/// Where that is slower it is left as it is, since under the limit that it passed it was nothing wrong.
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "it is less than the debt was in u64")]
pub const fn debt_at_rate(clock_ns: u64, now_ns: u64, before_bps: u64, rate_bps: u64) -> u64 {
    if clock_ns <= now_ns || rate_bps <= before_bps {
        return clock_ns;
    }
    let debt_ns = (clock_ns - now_ns) as u128 * before_bps as u128;
    now_ns + debt_ns.div_ceil(rate_bps as u128) as u64
}

impl LimitState {
    /// The same decision and its effect in one step, for one thread: what the program does with atomics.
    pub const fn offer(&mut self, settings: &LimitSettings, debt_ns: u64, bytes: u64, now_ns: u64) -> bool {
        let from = match admit(settings, debt_ns, self.clock_ns, now_ns) {
            Admission::Over => return false,
            Admission::Pass => self.clock_ns,
            Admission::PassFrom(floor) => floor,
        };
        self.clock_ns = from.saturating_add(cost_ns(bytes, settings.config.rate_bps));
        true
    }

    /// The same for a packet that is no TCP's and can wait: when it leaves, or `None` where it is dropped.
    pub const fn offer_datagram(
        &mut self,
        settings: &LimitSettings,
        waiting: &mut Waiting,
        bytes: u64,
        now_ns: u64,
    ) -> Option<u64> {
        let Some(departs_ns) = departure(settings, self.clock_ns, self.datagram_clock_ns, now_ns) else {
            return None;
        };
        if departs_ns > now_ns {
            if !waiting.has_room(now_ns) {
                return None;
            }
            waiting.join(departs_ns);
            self.waits_until_ns = departs_ns;
            self.datagram_clock_ns = departs_ns;
        }
        let (mut clock_ns, mut datagram_clock_ns) = (self.clock_ns, self.datagram_clock_ns);
        if let Admission::PassFrom(floor) = admit(settings, settings.debt_ns, clock_ns, now_ns) {
            clock_ns = floor;
        }
        if let Admission::PassFrom(floor) = admit(settings, 0, datagram_clock_ns, now_ns) {
            datagram_clock_ns = floor;
        }
        let cost_ns = cost_ns(bytes, settings.config.rate_bps);
        self.clock_ns = clock_ns.saturating_add(cost_ns);
        self.datagram_clock_ns = datagram_clock_ns.saturating_add(cost_ns);
        Some(departs_ns)
    }
}

impl TokenBucket {
    /// The bucket that a limit's clock stands for at `now_ns`.
    #[must_use]
    pub fn from_clock(settings: &LimitSettings, clock_ns: u64, now_ns: u64) -> Self {
        let config = &settings.config;
        let paid_until = clock_ns.max(settings.since_ns);
        let saved_ns = now_ns.saturating_sub(paid_until).min(settings.burst_ns);
        let tokens = u128::from(saved_ns) * u128::from(config.rate_bps) / u128::from(NS_PER_SEC);
        Self {
            capacity: config.burst_size,
            tokens: u64::try_from(tokens).unwrap_or(u64::MAX).min(config.burst_size),
            last_update_ns: now_ns.max(clock_ns),
            rate_bps: config.rate_bps,
        }
    }
}
