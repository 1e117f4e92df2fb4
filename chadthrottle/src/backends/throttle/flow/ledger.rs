//! What a target has had too much or too little, so that in the long run it has exactly its limit.
//!
//! Everything else here works with estimates: of round trips, of headers, of what sockets want. They may be wrong by
//! some percent, and a second of it is no harm; the sum is.

use super::smooth::Smooth;

/// After a limit was set, what was on its way or promised already does not count: it would have to be paid for by what
/// comes. From the first traffic on, that is until the rate has been below this much of the limit for so many seconds,
/// at the latest after the last of these.
const GRACE: f64 = 0.3;
const HELD: f64 = 1.3;
/// What passes is a mean over at least so many seconds, and over the time that so many bytes take: at a low limit it
/// comes in bursts of two segments, further apart than one looks.
const PASSING: f64 = 0.1;
const PASSING_BYTES: f64 = 24_000.0;
/// Less than this share of the limit is no traffic.
const SILENT: f64 = 0.1;
/// The rate from which on too little is the fault of windows and paces, as a share of the limit: below it senders are
/// slow, or have only begun.
const NEARLY: f64 = 0.6;
const LONGEST_GRACE: f64 = 4.0;
/// What is out of balance is made up for in about this many seconds, and at least in so many round trips.
const MEMORY: f64 = 1.0;
const ROUND_TRIPS: f64 = 6.0;
/// The most that is saved up, in seconds of the limit: what nobody wanted is gone. What somebody wanted and did not get
/// is more, because windows or paces must have been reckoned too small.
const MOST_SAVED: f64 = 0.03;
const MOST_MISSED: f64 = 0.2;
/// The most that is owed, in seconds of the limit.
const MOST_OWED: f64 = 0.3;

/// How far what comes together is apart, in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Beat {
    /// The longest of the connections: a window's worth comes once in it, and a change is felt after it.
    pub(super) round_trip: f64,
    /// From one super-packet of a paced socket to the next. The kernel reckons the wait when one leaves, by the lowest pace
    /// since the last acknowledgement: it takes a lower one at once, and a higher one with the next acknowledgement
    /// (`sk_setsockopt`, `tcp_update_pacing_rate`), which comes after the next super-packet. So a pace that falls for a part
    /// of the gap counts for all of the next one.
    pub(super) gap: f64,
    /// How long the whole limit takes to let one of them through.
    pub(super) burst: f64,
}

impl Beat {
    fn longest(self) -> f64 {
        self.round_trip.max(self.gap)
    }
}

/// The books of one limit. Rates are IP bytes a second.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ledger {
    limit: f64,
    /// Bytes too many.
    owed: f64,
    /// The same without the bursts in which a round trip's window comes.
    felt: Smooth,
    /// What passes, in bytes a second.
    passes: Smooth,
    /// Whether what was missed is never made up for.
    is_capped: bool,
    grace: f64,
    age: f64,
}

impl Ledger {
    pub(super) fn new(limit: f64) -> Self {
        let (felt, passes) = (Smooth::default(), Smooth::default());
        Self { limit, owed: 0.0, felt, passes, is_capped: false, grace: GRACE, age: 0.0 }
    }

    /// For who has something behind that drops what is over its own limit: what was lost there looks as if windows were
    /// too small, and to open them would lose more. Where it tells what passed, it shows.
    pub(super) const fn capped(mut self, is_capped: bool) -> Self {
        self.is_capped = is_capped;
        self
    }

    pub(super) const fn is_capped(&self) -> bool {
        self.is_capped
    }

    pub(super) const fn limit(&self) -> f64 {
        self.limit
    }

    /// Whether too much has passed.
    pub(super) const fn is_exceeded(&self) -> bool {
        self.owed > 0.0
    }

    /// Takes in what has passed within `dt` seconds, whether anybody wanted more, and whether what passed `is_told` by who is
    /// behind.
    pub(super) fn add(&mut self, bytes: f64, dt: f64, is_wanted: bool, is_told: bool, beat: Beat) {
        let memory = (2.0 * beat.longest()).max(PASSING).max(PASSING_BYTES / self.limit);
        let passes = self.passes.add(bytes / dt, dt, memory);
        if self.grace > 0.0 && self.age < LONGEST_GRACE {
            if passes > self.limit * SILENT {
                self.age += dt;
                if bytes < self.limit * dt * HELD {
                    self.grace -= dt;
                }
            }
            return;
        }
        let most = if self.is_capped && !is_told {
            0.0
        } else if is_wanted && passes > self.limit * NEARLY {
            MOST_MISSED + beat.burst
        } else {
            MOST_SAVED
        };
        let owed = self.owed + bytes - self.limit * dt;
        self.owed = owed.clamp(-most * self.limit, (MOST_OWED + beat.burst) * self.limit);
        self.felt.add(self.owed, dt, beat.longest());
    }

    /// What may pass now.
    pub(super) fn rate(&self, beat: Beat) -> f64 {
        self.limit - self.felt.get() / MEMORY.max(ROUND_TRIPS * beat.longest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_at_a_low_limit_are_not_taken_for_idleness() {
        let mut ledger = Ledger::new(64_000.0);
        let (mut sent, mut due) = (0.0, 0.0);
        for _ in 0..400 {
            // Two segments at a time of four sockets, by a pace that is 5 % too slow.
            due += 0.95 * ledger.rate(Beat::default()) * 0.05;
            let bytes = (due / 12_000.0_f64).floor() * 12_000.0;
            due -= bytes;
            sent += bytes;
            ledger.add(bytes, 0.05, true, false, Beat::default());
        }
        assert!((sent / 20.0 / 64_000.0 - 1.0).abs() < 0.02, "{sent}");
    }

    #[test]
    fn what_was_missed_is_made_up_for_except_where_something_behind_drops_in_silence() {
        for (is_capped, is_told, is_more) in
            [(false, false, true), (true, false, false), (true, true, true), (false, true, true)]
        {
            let mut ledger = Ledger::new(1000.0).capped(is_capped);
            for _ in 0..40 {
                ledger.add(40.0, 0.05, true, is_told, Beat::default());
            }
            assert_eq!(ledger.rate(Beat::default()) > 1000.0, is_more);
            for _ in 0..40 {
                ledger.add(60.0, 0.05, true, is_told, Beat::default());
            }
            assert!(ledger.rate(Beat::default()) < 1000.0);
        }
    }
}
