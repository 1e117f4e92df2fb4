//! Chance that can be repeated.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Numbers by chance (xorshift64*).
pub(super) struct Dice {
    pub(super) seed: u64,
    state: u64,
}

impl Dice {
    /// With the same seed the same numbers come; without one others each time.
    pub(super) fn new(seed: Option<u64>) -> Self {
        let now =
            || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.subsec_nanos().into());
        let seed = seed.unwrap_or_else(now);
        // Never 0, where it would stay.
        Self { seed, state: seed ^ 0x9e37_79b9_7f4a_7c15 | 1 }
    }

    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.state ^= self.state >> 12;
        self.state ^= self.state << 25;
        self.state ^= self.state >> 27;
        self.state.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit.max(1)
    }

    /// To the millisecond.
    pub(super) fn duration(&mut self, limit: Duration) -> Duration {
        let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        Duration::from_millis(self.below(limit))
    }
}
