//! What arrives: senders that windows hold.

use proptest::prelude::*;

use super::super::{
    Behind,
    control::{Control, Open, Seen},
    smooth::{real, whole},
};

/// Milliseconds from one tick to the next.
const TICK: usize = 50;

/// A connection whose sender is held by the window and by nothing else, in steps of a millisecond.
struct Sender {
    /// Milliseconds.
    round_trip: usize,
    /// Bytes a millisecond that the line takes.
    line: f64,
    /// Bytes a millisecond that it has to send.
    source: fn(usize) -> f64,
    unit: u32,
    window: u32,
    offered: f64,
    /// By millisecond: how far it may send, and how far it has sent.
    edge: Vec<f64>,
    sent: Vec<f64>,
}

impl Sender {
    fn new(round_trip: usize, unit: u32) -> Self {
        let (edge, sent) = (Vec::new(), Vec::new());
        Self {
            round_trip,
            line: 100_000.0,
            source: |_| f64::INFINITY,
            unit,
            window: 14_600,
            offered: 0.0,
            edge,
            sent,
        }
    }

    fn received(&self, now: usize) -> f64 {
        now.checked_sub(self.round_trip / 2).map_or(0.0, |then| self.sent[then])
    }

    /// Promised beyond the window and not used up.
    fn ahead(&self) -> f64 {
        let edge = self.edge.last().copied().unwrap_or_default();
        let received = self.sent.len().checked_sub(1).map_or(0.0, |now| self.received(now));
        (edge - received - f64::from(self.window)).max(0.0)
    }

    /// One millisecond passes.
    fn step(&mut self, now: usize) {
        let may = now.checked_sub(self.round_trip - self.round_trip / 2).map_or(0.0, |then| self.edge[then]);
        let before = self.sent.last().copied().unwrap_or_default();
        self.offered += (self.source)(now);
        self.offered = self.offered.max(before);
        self.sent.push(may.min(before + self.line).min(self.offered).max(before));
        // What was promised once is not taken back (RFC 9293, 3.8.6.2.1).
        let window = f64::from(self.window.next_multiple_of(self.unit));
        let edge = self.edge.last().copied().unwrap_or_default();
        self.edge.push(edge.max(self.received(now) + window));
    }
}

/// A target with several connections, and what it received, by millisecond.
struct Target {
    control: Control<Open>,
    senders: Vec<Sender>,
    last: Vec<f64>,
    received: Vec<f64>,
    /// The part of what comes that something behind drops, and whether that is told.
    dropped: f64,
    tells: bool,
}

impl Target {
    fn new(limit: u64, senders: Vec<Sender>) -> Self {
        let last = vec![0.0; senders.len()];
        Self { control: Control::new(limit), senders, last, received: Vec::new(), dropped: 0.0, tells: false }
    }

    fn seen(&self, number: usize, bytes: f64, dt: f64) -> Seen {
        let sender = &self.senders[number];
        Seen {
            socket: number as u64,
            dt,
            bytes: whole(bytes),
            refused: 0,
            round_trip: real(sender.round_trip as u64) / 1e3,
            least_trip: real(sender.round_trip as u64) / 1e3,
            window: sender.window,
            ahead: u32::try_from(whole(sender.ahead())).ok(),
            is_waiting: false,
            unit: sender.unit,
            segment: (1.0, 1.0),
            burst: 0.0,
        }
    }

    fn run(&mut self, milliseconds: usize) {
        for _ in 0..milliseconds {
            let now = self.received.len();
            if now == 0 {
                for number in 0..self.senders.len() {
                    self.control.admit(&self.seen(number, 1e5, 0.0));
                }
                self.set();
            } else if now.is_multiple_of(TICK) {
                let mut lost = 0.0;
                let seen: Vec<_> = (0..self.senders.len())
                    .map(|number| {
                        let received = self.senders[number].received(now - 1);
                        let bytes = received - std::mem::replace(&mut self.last[number], received);
                        lost += bytes * self.dropped;
                        self.seen(number, bytes * (1.0 - self.dropped), 0.05)
                    })
                    .collect();
                let dropped = if self.tells { whole(lost) } else { 0 };
                self.control.tick(0.05, &seen, Behind { dropped, ..Behind::default() });
                self.set();
            }
            for sender in &mut self.senders {
                sender.step(now);
            }
            self.received.push(self.senders.iter().map(|sender| sender.received(now)).sum());
        }
    }

    fn set(&mut self) {
        for (number, sender) in self.senders.iter_mut().enumerate() {
            let window = self.control.value(number as u64).unwrap_or_default();
            sender.window = u32::try_from(window).unwrap_or(u32::MAX >> 2);
        }
    }

    /// Bytes a second between two milliseconds.
    fn rate(&self, from: usize, to: usize) -> f64 {
        (self.received[to] - self.received[from]) / real((to - from) as u64) * 1e3
    }

    /// How far a second may be off: by 5 %, and by what comes at once. A sender sends its window in one burst each round
    /// trip, so that a second has one more or one less of them.
    fn band(&self) -> f64 {
        let trips: usize = self.senders.iter().map(|sender| sender.round_trip).sum();
        0.05 + 1.3 * real((trips / self.senders.len()) as u64) / 1e3
    }

    /// The least and the most in any second from `from` on.
    fn seconds(&self, from: usize) -> (f64, f64) {
        let rates =
            (from..self.received.len() - 1000).step_by(10).map(|start| self.rate(start, start + 1000));
        rates.fold((f64::INFINITY, 0.0), |(least, most), rate| (least.min(rate), most.max(rate)))
    }
}

#[track_caller]
fn assert_holds(target: &Target, limit: f64, from: usize) {
    let (least, most) = target.seconds(from);
    let mean = target.rate(from, target.received.len() - 1);
    let band = target.band();
    // One burst more or less within some seconds.
    assert!((mean / limit - 1.0).abs() < 0.01 + band / 10.0, "mean {}", mean / limit);
    assert!(least / limit > 1.0 - band && most / limit < 1.0 + band, "{} to {}", least / limit, most / limit);
}

#[test]
fn one_connection_is_held_from_the_first_second_on() {
    for (limit, round_trip) in [(1e6, 20), (10e6, 20), (50e6, 2), (1e6, 150), (10e6, 300)] {
        let mut target = Target::new(whole(limit), vec![Sender::new(round_trip, 128)]);
        target.run(10_000);
        println!("{limit} {round_trip}: {:?} {}", target.seconds(1000), target.rate(1000, 9999));
        assert_holds(&target, limit, 1000);
    }
}

#[test]
fn coarse_windows_are_right_in_the_mean() {
    // 2,444 bytes a round trip, in units of 1,024.
    let senders = (0..8).map(|_| Sender::new(20, 1024)).collect();
    let mut target = Target::new(977_600, senders);
    target.run(15_000);
    assert_holds(&target, 977_600.0, 2000);
    let mut target = Target::new(130_000, vec![Sender::new(20, 1024)]);
    target.run(15_000);
    assert_holds(&target, 130_000.0, 2000);
}

#[test]
fn what_was_promised_before_is_neither_paid_for_nor_taken_for_a_round_trip() {
    // Ten connections with 10 MB each, and a line that takes 50 MB/s: two seconds.
    let senders = (0..10).map(|_| Sender { line: 5000.0, edge: vec![1e7; 40], ..Sender::new(20, 1024) });
    let mut target = Target::new(10_000_000, senders.collect());
    target.senders.iter_mut().for_each(|sender| sender.sent = vec![0.0; 40]);
    target.received = vec![0.0; 40];
    for number in 0..target.senders.len() {
        target.control.admit(&target.seen(number, 1e5, 0.0));
    }
    target.last = vec![0.0; 10];
    target.set();
    target.run(5000);
    assert!(target.rate(500, 1500) > 4e7, "it is not taken back");
    for start in (2100..4000).step_by(50) {
        let rate = target.rate(start, start + 500) / 1e7;
        assert!((0.9..1.1).contains(&rate), "{rate} from {start} ms on");
    }
}

#[test]
fn what_is_dropped_behind_opens_no_window_when_it_is_told() {
    let comes = |tells| {
        let mut target = Target::new(1_000_000, vec![Sender::new(20, 128), Sender::new(20, 128)]);
        target.control = Control::new(1_000_000).capped(true);
        (target.dropped, target.tells) = (0.3, tells);
        target.run(10_000);
        target.rate(4000, 9999) / 1e6
    };
    assert!((comes(true) - 1.0).abs() < 0.03, "{}", comes(true));
    assert!(comes(false) > 1.15, "{}", comes(false));
}

#[test]
fn a_round_trip_that_changes_is_followed() {
    let mut target = Target::new(5_000_000, vec![Sender::new(20, 128)]);
    target.run(5000);
    target.senders[0].round_trip = 60;
    target.run(10_000);
    assert_holds(&target, 5e6, 8000);
    target.senders[0].round_trip = 20;
    target.run(6000);
    let (_, most) = target.seconds(15_000);
    assert!(most < 2.5 * 5e6, "{most}");
    assert_holds(&target, 5e6, 17_000);
}

#[test]
fn a_sender_that_is_slow_by_itself_does_not_burst_when_it_is_not() {
    let mut sender = Sender::new(20, 128);
    // 1 MB/s for six seconds, then anything.
    sender.source = |now| if now < 6000 { 1000.0 } else { f64::INFINITY };
    let mut target = Target::new(5_000_000, vec![sender]);
    target.run(12_000);
    let (_, most) = target.seconds(5000);
    assert!(most < 1.15 * 5e6, "{most}");
    assert_holds(&target, 5e6, 8000);
}

#[test]
fn what_a_slow_one_leaves_goes_to_the_others() {
    let mut slow = Sender::new(20, 128);
    slow.source = |_| 500.0;
    let mut target = Target::new(5_000_000, vec![slow, Sender::new(20, 128), Sender::new(40, 128)]);
    target.run(10_000);
    assert_holds(&target, 5e6, 3000);
    let rates = target.control.rates();
    assert!((rates[0] / 5e5 - 1.0).abs() < 0.1, "{rates:?}");
    assert!(rates[1] / rates[2] < 1.15 && rates[2] / rates[1] < 1.15, "{rates:?}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn it_converges_and_starves_nobody(
        // From 100 KB/s to 50 MB/s.
        exponent in 5.0..7.7_f64,
        round_trips in prop::collection::vec(2_usize..300, 1..12),
        scale in 0_u32..8,
    ) {
        let limit = 10_f64.powf(exponent);
        let unit = 1 << scale;
        let senders: Vec<_> = round_trips.iter().map(|&trip| Sender::new(trip, unit)).collect();
        let mut target = Target::new(whole(limit), senders);
        target.run(1);
        // Below the floor there is nothing to hold.
        prop_assume!(real(target.control.floor()) < 0.5 * limit);
        target.run(20_000);
        let mean = target.rate(8000, 20_000) / limit;
        let (least, most) = target.seconds(8000);
        let band = target.band();
        prop_assert!((mean - 1.0).abs() < 0.01 + band / 10.0, "mean {mean}");
        prop_assert!(least / limit > 1.0 - band && most / limit < 1.0 + band, "{} to {}", least / limit, most / limit);
        let fair = limit / real(target.senders.len() as u64);
        for rate in target.control.rates() {
            prop_assert!(rate > 0.5 * fair, "{rate} of {fair}");
        }
    }
}
