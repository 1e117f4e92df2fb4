//! Chance that can be had again.

/// `SplitMix64` (Steele, Lea, Flood 2014): small, fast, and good enough to lose packets by.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Whether something of this probability happens.
    pub(super) fn happens(&mut self, probability: f64) -> bool {
        #[expect(clippy::cast_precision_loss, reason = "the upper 53 bits fit a double exactly")]
        let unit = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        unit < probability
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_and_the_share_is_right() {
        let count = |seed| {
            let mut random = Random::new(seed);
            (0..1_000_000).filter(|_| random.happens(0.005)).count()
        };
        assert_eq!(count(7), count(7));
        assert_ne!(count(7), count(8));
        // Five standard deviations of a binomial distribution: 5 √(10⁶ · 0.005 · 0.995) = 353.
        assert!(count(7).abs_diff(5000) < 353, "{}", count(7));
    }
}
