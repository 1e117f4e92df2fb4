//! A figure that jumps, made calm.

/// An exponentially weighted mean over samples of unequal length.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Smooth {
    value: Option<f64>,
}

impl Smooth {
    /// Takes in a sample that stands for `dt` seconds; what is older than `memory` seconds counts for little.
    pub(super) fn add(&mut self, sample: f64, dt: f64, memory: f64) -> f64 {
        let before = self.value.unwrap_or(sample);
        let weight = 1.0 - (-dt / memory.max(1e-6)).exp();
        let value = before + weight * (sample - before);
        self.value = Some(value);
        value
    }

    /// The mean so far.
    pub(super) fn get(self) -> f64 {
        self.value.unwrap_or_default()
    }
}

/// A count as a figure to calculate with.
#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53, which are 9 petabytes")]
pub(super) fn real(count: u64) -> f64 {
    count as f64
}

/// A figure as a count; what is less than nothing, or none at all, is 0.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates at both ends"
)]
pub(super) fn whole(figure: f64) -> u64 {
    figure.round() as u64
}
