//! Sending at a rate, by the clock.

use std::time::{Duration, Instant};

/// When the next bytes are due. After a stall it lets through at once what was due meanwhile, so that the average is
/// what was asked for.
pub(crate) struct Pace {
    start: Instant,
    /// Bytes per second; none for as fast as possible.
    rate: Option<u64>,
    offered: u64,
}

impl Pace {
    pub(crate) fn new(rate: Option<u64>) -> Self {
        Self { start: Instant::now(), rate, offered: 0 }
    }

    /// How long it has gone on.
    pub(crate) fn elapsed(&self) -> Duration {
        self.start.elapsed()
    }

    /// Waits until bytes that follow those offered so far are due.
    pub(crate) fn wait(&self) {
        let due = self.rate.map_or(Duration::ZERO, |rate| time(self.offered, rate));
        let left = due.saturating_sub(self.start.elapsed());
        if !left.is_zero() {
            std::thread::sleep(left);
        }
    }

    /// Counts bytes that were offered to the kernel, taken or not.
    pub(crate) fn offered(&mut self, bytes: usize) {
        self.offered += bytes as u64;
    }
}

/// How long these bytes take.
fn time(bytes: u64, bytes_per_second: u64) -> Duration {
    // In u128, since bytes * 10^9 overflows a u64 after 18 GB.
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(bytes_per_second.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_become_time() {
        assert_eq!(time(500, 1000), Duration::from_millis(500));
        assert_eq!(time(100_000_000_000, 1_000_000_000), Duration::from_secs(100));
    }
}
