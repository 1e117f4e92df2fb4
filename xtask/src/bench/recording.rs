//! When bytes passed the path between the hosts, and when the program at its end received them.

use std::{
    fs,
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use testbed::Testbed;

/// IP bytes for each of payload, in full segments.
pub(super) const FULL_SEGMENT: f64 = 1500.0 / 1448.0;
/// From one look to the next.
const STEP: Duration = Duration::from_millis(10);

/// IP bytes by time, in seconds since the recording began.
#[derive(Debug, Default)]
pub(super) struct Series(Mutex<Vec<(f64, f64)>>);

/// One direction of a bed.
#[derive(Debug)]
pub(super) struct Recording {
    start: Instant,
    /// What passed the path.
    pub(super) carried: Series,
    /// What came out at the receiver: see [`Receiver`].
    pub(super) received: Series,
    receiver: OnceLock<Receiver>,
}

/// Who receives, behind whatever a limit drops.
#[derive(Clone, Copy, Debug)]
pub(super) struct Receiver {
    pub(super) pid: u32,
    pub(super) count: Count,
    /// IP bytes for each that is counted.
    pub(super) unit: f64,
}

/// What is known of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Count {
    /// Bytes of payload that it reads, from TCP sockets and not much else (`rchar` of `proc_pid_io(5)`).
    Payload,
    /// Datagrams, where it is the only one in its network namespace that receives any.
    Datagrams,
}

impl Receiver {
    /// IP bytes so far.
    fn read(self) -> Option<f64> {
        let counters = |name| fs::read_to_string(format!("/proc/{}/{name}", self.pid)).ok();
        let count: f64 = match self.count {
            Count::Payload => {
                counters("io")?.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()?
            }
            Count::Datagrams => {
                let counters = counters("net/snmp")?;
                // A line of names and one of numbers.
                let mut lines = counters.lines().filter_map(|line| line.strip_prefix("Udp: "));
                let mut named =
                    lines.next()?.split_ascii_whitespace().zip(lines.next()?.split_ascii_whitespace());
                named.find(|(name, _)| *name == "InDatagrams")?.1.parse().ok()?
            }
        };
        Some(count * self.unit)
    }
}

impl Recording {
    /// Records one direction of a bed's path for as long as `work` takes.
    pub(super) fn during<T>(bed: &Testbed, is_upload: bool, work: impl FnOnce(&Self) -> T) -> T {
        let recording = Self {
            start: Instant::now(),
            carried: Series::default(),
            received: Series::default(),
            receiver: OnceLock::new(),
        };
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
        if let Some([to_server, to_client]) = bed.carried() {
            let bytes = if is_upload { to_server.bytes } else { to_client.bytes };
            #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
            self.carried.note(self.now(), bytes as f64);
        }
        if let Some(bytes) = self.receiver.get().and_then(|receiver| receiver.read()) {
            self.received.note(self.now(), bytes);
        }
    }

    /// Has the receiver recorded from now on.
    pub(super) fn receives(&self, receiver: Receiver) {
        // The first one is it.
        let _ = self.receiver.set(receiver);
    }

    /// Now, in seconds since it began.
    pub(super) fn now(&self) -> f64 {
        self.start.elapsed().as_secs_f64()
    }
}

impl Series {
    fn note(&self, at: f64, bytes: f64) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push((at, bytes));
    }

    fn with<T>(&self, work: impl FnOnce(&[(f64, f64)]) -> T) -> T {
        work(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Whether nothing was recorded.
    pub(super) fn is_empty(&self) -> bool {
        self.with(<[_]>::is_empty)
    }

    /// Bytes so far.
    pub(super) fn so_far(&self) -> f64 {
        self.with(|looks| match (looks.first(), looks.last()) {
            (Some((_, first)), Some((_, last))) => last - first,
            _ => 0.0,
        })
    }

    /// Bytes until a moment; in between two looks they are taken as spread evenly.
    fn until(looks: &[(f64, f64)], at: f64) -> f64 {
        let next = looks.partition_point(|(time, _)| *time < at);
        match (next.checked_sub(1).and_then(|index| looks.get(index)), looks.get(next)) {
            (Some(&(before, bytes)), Some(&(after, more))) => {
                bytes + (more - bytes) * (at - before) / (after - before).max(1e-9)
            }
            (Some(&(_, bytes)), None) | (None, Some(&(_, bytes))) => bytes,
            (None, None) => 0.0,
        }
    }

    /// Bytes a second between two moments.
    pub(super) fn rate(&self, from: f64, to: f64) -> f64 {
        self.with(|looks| Self::until(looks, to) - Self::until(looks, from)) / (to - from)
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

    /// The highest rate of all windows of `length` seconds between two moments.
    pub(super) fn most(&self, from: f64, to: f64, length: f64) -> f64 {
        self.windows(from, to, length).into_iter().map(|(_, rate)| rate).fold(0.0, f64::max)
    }

    /// The longest time between two moments in which nothing came, in seconds, to the length of two looks.
    pub(super) fn longest_pause(&self, from: f64, to: f64) -> f64 {
        self.with(|looks| {
            let inside: Vec<_> = looks.iter().filter(|(at, _)| (from..=to).contains(at)).collect();
            let arrivals = inside.windows(2).filter(|pair| pair[1].1 > pair[0].1).map(|pair| pair[1].0);
            let (last, longest) =
                arrivals.fold((from, 0.0_f64), |(before, longest), at| (at, longest.max(at - before)));
            longest.max(to - last)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn series(looks: &[(f64, f64)]) -> Series {
        let series = Series::default();
        for &(at, count) in looks {
            series.note(at, count);
        }
        series
    }

    #[test]
    fn rates_and_pauses() {
        let series =
            series(&[(0.0, 100.0), (0.1, 200.0), (0.2, 200.0), (0.5, 200.0), (0.6, 300.0), (0.7, 300.0)]);
        assert!((series.so_far() - 200.0).abs() < 1e-9);
        assert!((series.rate(0.0, 0.1) - 1000.0).abs() < 1e-6);
        assert!((series.rate(0.05, 0.1) - 1000.0).abs() < 1e-6);
        assert!((series.longest_pause(0.0, 0.7) - 0.5).abs() < 1e-9);
        // It counts to the end, and from the beginning.
        assert!((series.longest_pause(0.6, 0.9) - 0.3).abs() < 1e-9);
        assert!((series.longest_pause(0.15, 0.65) - 0.45).abs() < 1e-9);
        assert!((series.most(0.0, 0.7, 0.1) - 1000.0).abs() < 1e-6);
    }

    #[test]
    fn a_process_that_reads_is_seen() {
        let receiver = |pid, count| Receiver { pid, count, unit: 2.0 };
        let reader = receiver(std::process::id(), Count::Payload);
        let before = reader.read().expect("the kernel counts");
        fs::read("/proc/self/status").expect("it is there");
        assert!(reader.read().expect("the kernel counts") > before);
        assert!(receiver(std::process::id(), Count::Datagrams).read().is_some());
        assert!(receiver(u32::MAX, Count::Payload).read().is_none());
    }
}
