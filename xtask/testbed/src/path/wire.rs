//! What becomes of packets on one direction of a path, without a clock and without packets of a real device.

use std::collections::VecDeque;
use std::time::Duration;

use super::Link;
use super::packet::Packet;
use super::random::Random;

/// A super-packet that takes longer than this at the link's rate arrives in parts: a real one would not be there all
/// at once either.
const PART: Duration = Duration::from_micros(500);

/// Packets on their way. Times are counted from any one moment.
#[derive(Debug)]
pub(super) struct Wire {
    link: Link,
    random: Random,
    /// When the last packet in the queue will have been sent.
    busy_until: Duration,
    on_the_way: VecDeque<(Duration, Packet)>,
}

impl Wire {
    pub(super) fn new(link: Link, seed: u64) -> Self {
        Self { link, random: Random::new(seed), busy_until: Duration::ZERO, on_the_way: VecDeque::new() }
    }

    /// A packet comes in.
    pub(super) fn send(&mut self, now: Duration, packet: Packet) {
        if self.link.loss <= 0.0 {
            return self.queue(now, packet);
        }
        let kept: Vec<bool> = (0..packet.segments()).map(|_| !self.random.happens(self.link.loss)).collect();
        if !kept.contains(&false) {
            return self.queue(now, packet);
        }
        // Neighbours that are left stay together.
        let mut start = 0;
        for run in kept.chunk_by(|a, b| a == b) {
            if run[0] {
                self.queue(now, packet.part(start..start + run.len()));
            }
            start += run.len();
        }
    }

    fn queue(&mut self, now: Duration, packet: Packet) {
        let Some(rate) = self.link.rate else {
            self.on_the_way.push_back((now + self.link.delay, packet));
            return;
        };
        let together = usize::try_from(bytes_in(PART, rate) / packet.longest()).unwrap_or(usize::MAX).max(1);
        let count = packet.segments();
        let mut start = 0;
        while start < count {
            let end = start.saturating_add(together).min(count);
            let part = packet.part(start..end);
            let waiting = bytes_in(self.busy_until.saturating_sub(now), rate);
            if waiting.saturating_add(part.length()) <= self.link.queue {
                self.busy_until = self.busy_until.max(now) + time_for(part.length(), rate);
                self.on_the_way.push_back((self.busy_until + self.link.delay, part));
            }
            start = end;
        }
    }

    /// The next packet that has arrived.
    pub(super) fn arrived(&mut self, now: Duration) -> Option<Packet> {
        self.on_the_way.pop_front_if(|(due, _)| *due <= now).map(|(_, packet)| packet)
    }

    /// When the next one arrives.
    pub(super) fn due(&self) -> Option<Duration> {
        self.on_the_way.front().map(|(due, _)| *due)
    }
}

fn time_for(bytes: u64, rate: u64) -> Duration {
    let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(rate.max(1));
    Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX))
}

fn bytes_in(time: Duration, rate: u64) -> u64 {
    u64::try_from(time.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::super::packet::tests::packet;
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Everything that arrives, with the time when it does.
    fn arrivals(wire: &mut Wire) -> Vec<(Duration, Packet)> {
        std::iter::from_fn(|| wire.due().and_then(|due| Some((due, wire.arrived(due)?)))).collect()
    }

    #[test]
    fn delay_alone_keeps_packets_whole_and_in_order() {
        let mut wire = Wire::new(Link::delay(10 * MS), 1);
        wire.send(MS, packet(50_000));
        wire.send(2 * MS, packet(100));
        assert_eq!(wire.arrived(Duration::from_micros(10_999)), None);
        let arrived = arrivals(&mut wire);
        assert_eq!(arrived, [(11 * MS, packet(50_000)), (12 * MS, packet(100))]);
    }

    #[test]
    fn a_slow_link_takes_its_time_in_parts_and_drops_what_has_no_room() {
        // 1,040 bytes a millisecond, and room for ten segments.
        let link = Link { delay: MS, rate: Some(1_040_000), queue: 10_400, loss: 0.0 };
        let mut wire = Wire::new(link, 1);
        wire.send(Duration::ZERO, packet(15_000));
        let arrived = arrivals(&mut wire);
        assert_eq!(arrived.len(), 10);
        for ((due, part), number) in arrived.iter().zip(1..) {
            assert_eq!((*due, part.length()), (MS * (number + 1), 1040));
        }
        // The queue is empty by now.
        wire.send(20 * MS, packet(1000));
        assert_eq!(arrivals(&mut wire)[0].0, 22 * MS);
    }

    #[test]
    fn each_segment_may_be_lost_and_the_same_ones_again() {
        let link = Link { loss: 0.1, ..Link::delay(MS) };
        let lost = |seed| {
            let mut wire = Wire::new(link, seed);
            for _ in 0..200 {
                wire.send(Duration::ZERO, packet(50_000));
            }
            arrivals(&mut wire).iter().map(|(_, packet)| packet.segments()).collect::<Vec<_>>()
        };
        let segments: usize = lost(3).iter().sum();
        // Five standard deviations: 5 √(10⁴ · 0.1 · 0.9) = 150.
        assert!(segments.abs_diff(9000) < 150, "{segments} of 10,000 have arrived");
        assert_eq!(lost(3), lost(3));
        assert_ne!(lost(3), lost(4));
    }
}
