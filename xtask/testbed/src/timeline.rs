//! When bytes arrived, and the rates that follow from it.

/// Bytes that arrived within a stretch of time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// Seconds since the transfer began.
    pub start: f64,
    /// Seconds since the transfer began.
    pub end: f64,
    /// Bytes of payload that arrived in between.
    pub bytes: u64,
}

/// A transfer as its receiver saw it: intervals in the order of time.
///
/// Where an interval lies in a window only in part, its bytes are taken as spread evenly over it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Timeline(pub Vec<Interval>);

impl Timeline {
    /// Bytes of payload in all.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().map(|interval| interval.bytes).sum()
    }

    /// Seconds from the beginning to the end of the last interval.
    #[must_use]
    pub fn end(&self) -> f64 {
        self.0.last().map_or(0.0, |interval| interval.end)
    }

    /// Bytes that arrived between two points in time, in seconds since the beginning.
    #[must_use]
    pub fn bytes_between(&self, from: f64, to: f64) -> f64 {
        self.0.iter().map(|interval| share(interval, from, to)).sum()
    }

    /// Bytes per second between two points in time, in seconds since the beginning.
    #[must_use]
    pub fn rate_between(&self, from: f64, to: f64) -> f64 {
        if to > from { self.bytes_between(from, to) / (to - from) } else { 0.0 }
    }

    /// Bytes per second from `from` seconds to the end. `rate_after(1.0)` leaves out how a transfer begins.
    #[must_use]
    pub fn rate_after(&self, from: f64) -> f64 {
        self.rate_between(from, self.end())
    }

    /// The bytes of every window of `length` seconds that begins or ends where an interval does and lies between
    /// `from` seconds and the end. The extremes over all windows are among these, since in between the sum changes
    /// linearly.
    #[must_use]
    pub fn windows(&self, from: f64, length: f64) -> Vec<f64> {
        // Half a microsecond (what iperf3 prints is rounded to one) must not cost us the last window.
        const ROUNDING: f64 = 0.5e-6;
        let edges = self.0.iter().flat_map(|interval| [interval.start, interval.end - length]).chain([from]);
        edges
            .filter(|start| *start >= from - ROUNDING && start + length <= self.end() + ROUNDING)
            .map(|start| self.bytes_between(start, start + length))
            .collect()
    }

    /// The most bytes in any window of `length` seconds. All of them where the transfer was shorter than that.
    #[must_use]
    pub fn max_window(&self, length: f64) -> f64 {
        let begin = self.0.first().map_or(0.0, |interval| interval.start);
        let most = self.windows(begin, length).into_iter().fold(0.0, f64::max);
        if self.end() - begin < length { self.bytes_between(begin, self.end()) } else { most }
    }
}

/// The part of an interval's bytes that lies between two points in time.
fn share(interval: &Interval, from: f64, to: f64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53 bytes, which is 8 petabytes")]
    let bytes = interval.bytes as f64;
    let length = interval.end - interval.start;
    if length <= 0.0 {
        return if interval.start >= from && interval.start < to { bytes } else { 0.0 };
    }
    let overlap = interval.end.min(to) - interval.start.max(from);
    bytes * (overlap / length).clamp(0.0, 1.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(bytes: &[u64]) -> Timeline {
        let interval =
            |(i, bytes)| Interval { start: f64::from(i) * 0.5, end: f64::from(i) * 0.5 + 0.5, bytes };
        Timeline((0_u32..).zip(bytes.iter().copied()).map(interval).collect())
    }

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() < 1e-6, "{a} is not {b}");
    }

    #[test]
    fn sums_and_rates() {
        let t = timeline(&[100, 0, 30, 30, 30]);
        assert_eq!(t.bytes(), 190);
        close(t.end(), 2.5);
        close(t.bytes_between(0.25, 1.25), 65.0);
        close(t.rate_after(1.0), 60.0);
        close(t.rate_after(9.0), 0.0);
    }

    #[test]
    fn the_largest_window_may_begin_anywhere() {
        close(timeline(&[0, 10, 50, 50, 10]).max_window(1.0), 100.0);
        close(timeline(&[10, 20, 10]).max_window(0.75), 25.0);
        close(timeline(&[10, 20]).max_window(5.0), 30.0);
        close(Timeline::default().max_window(1.0), 0.0);
    }

    #[test]
    fn windows_stay_within_the_transfer() {
        let windows = timeline(&[99, 99, 10, 10, 10]).windows(1.0, 1.0);
        assert!(!windows.is_empty());
        for bytes in windows {
            close(bytes, 20.0);
        }
    }
}
