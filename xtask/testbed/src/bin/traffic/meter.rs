//! Counts bytes, in all and over time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use serde_json::{Value, json};

/// How long a bucket is.
const BUCKET: Duration = Duration::from_millis(100);

/// The bytes of one receiver or sender.
#[derive(Default)]
pub(crate) struct Meter {
    pub(crate) bytes: u64,
    pub(crate) datagrams: u64,
    /// Bytes that TCP sent more than once.
    pub(crate) retransmitted: u64,
    first: Option<Instant>,
    last: Option<Instant>,
    /// Bytes by number of 100 ms since the first one. A bucket in which nothing came is zero, not missing.
    buckets: Vec<u64>,
    errors: BTreeMap<String, u64>,
}

impl Meter {
    /// That of a sender, which has no times of arrival.
    pub(crate) fn of_sender(bytes: u64, retransmitted: u64) -> Self {
        Self { bytes, retransmitted, ..Self::default() }
    }

    /// Counts what has just been received.
    pub(crate) fn received(&mut self, bytes: usize) {
        self.received_at(bytes, Instant::now());
    }

    pub(crate) fn received_at(&mut self, bytes: usize, now: Instant) {
        let first = *self.first.get_or_insert(now);
        self.last = Some(now);
        self.bytes += bytes as u64;
        let bucket =
            usize::try_from(now.duration_since(first).as_millis() / BUCKET.as_millis()).unwrap_or(usize::MAX);
        self.buckets.resize(self.buckets.len().max(bucket + 1), 0);
        self.buckets[bucket] += bytes as u64;
    }

    /// Counts a call that failed.
    pub(crate) fn failed(&mut self, error: &std::io::Error) {
        let name = error
            .raw_os_error()
            .map_or_else(|| error.to_string(), |raw| format!("{:?}", Errno::from_raw(raw)));
        *self.errors.entry(name).or_default() += 1;
    }

    /// From the first byte received to the last.
    pub(crate) fn elapsed(&self) -> Duration {
        self.last.zip(self.first).map_or(Duration::ZERO, |(last, first)| last.duration_since(first))
    }

    /// The line to print at the end.
    pub(crate) fn report(&self, elapsed: Duration) -> Value {
        json!({
            "bytes": self.bytes,
            "seconds": elapsed.as_secs_f64(),
            "datagrams": self.datagrams,
            "retransmitted": self.retransmitted,
            "errors": self.errors,
            "bucket_seconds": BUCKET.as_secs_f64(),
            "buckets": self.buckets,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_to_the_bucket_of_their_time() {
        let (mut meter, start) = (Meter::default(), Instant::now());
        for (after, bytes) in [(0, 5), (99, 5), (100, 7), (399, 1)] {
            meter.received_at(bytes, start + Duration::from_millis(after));
        }
        assert_eq!(meter.buckets, [10, 7, 0, 1]);
        assert_eq!((meter.bytes, meter.elapsed()), (18, Duration::from_millis(399)));
    }
}
