//! When bytes passed, as the path between the hosts counts them.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use testbed::Testbed;

/// From one look to the next.
const STEP: Duration = Duration::from_millis(10);

/// Bytes by time, in seconds since the recording began.
#[derive(Debug)]
pub(super) struct Recording {
    start: Instant,
    looks: Mutex<Vec<(f64, u64)>>,
}

impl Recording {
    /// Records one direction of a bed's path for as long as `work` takes.
    pub(super) fn during<T>(bed: &Testbed, is_upload: bool, work: impl FnOnce(&Self) -> T) -> T {
        let recording = Self { start: Instant::now(), looks: Mutex::default() };
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    recording.look(bed, is_upload);
                    thread::sleep(STEP);
                }
            });
            let result = work(&recording);
            over.store(true, Ordering::Relaxed);
            result
        })
    }

    fn look(&self, bed: &Testbed, is_upload: bool) {
        let [to_server, to_client] = bed.carried().unwrap_or_default();
        let bytes = if is_upload { to_server.bytes } else { to_client.bytes };
        let at = self.now();
        self.looks.lock().unwrap_or_else(PoisonError::into_inner).push((at, bytes));
    }

    /// Now, in seconds since it began.
    pub(super) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }

    /// IP bytes until a moment; in between two looks they are taken as spread evenly.
    fn bytes_until(looks: &[(f64, u64)], at: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let real = |bytes: u64| bytes as f64;
        let next = looks.partition_point(|(time, _)| *time < at);
        match (next.checked_sub(1).and_then(|index| looks.get(index)), looks.get(next)) {
            (Some(&(before, bytes)), Some(&(after, more))) => {
                real(bytes) + (real(more) - real(bytes)) * (at - before) / (after - before).max(1e-9)
            }
            (Some(&(_, bytes)), None) | (None, Some(&(_, bytes))) => real(bytes),
            (None, None) => 0.0,
        }
    }

    /// Bytes a second between two moments.
    pub(super) fn rate(&self, from: f64, to: f64) -> f64 {
        let looks = self.looks.lock().unwrap_or_else(PoisonError::into_inner);
        (Self::bytes_until(&looks, to) - Self::bytes_until(&looks, from)) / (to - from)
    }

    /// The rates of all windows of `length` seconds between two moments, each 20 ms after the one before.
    pub(super) fn windows(&self, from: f64, to: f64, length: f64) -> Vec<(f64, f64)> {
        let mut windows = Vec::new();
        let mut start = from;
        while start + length <= to {
            windows.push((start, self.rate(start, start + length)));
            start += 0.02;
        }
        windows
    }
}
