//! Which receive window makes a socket receive at a given rate.
//!
//! A sender that is held by the window sends one window a round trip. The round trip that counts is not the path's
//! alone: with it come acknowledgements that wait, and a program that reads when it likes. So it is taken from what the
//! socket did under the window that it had, and the kernel's figure is only where that begins.
//!
//! A sender that is slow by itself must not be taken for a long round trip: the window would grow without holding
//! anything, until the sender has more to send. Beyond what the kernel's own figure explains, a window grows only as
//! long as it shows that the socket receives more by it.

use std::collections::VecDeque;

use super::smooth::Smooth;
use crate::sys::tcp_socket::LEAST_WINDOW;

/// How far above the kernel's figure a round trip is believed without proof: a part, and some seconds.
const BELIEVED: f64 = 1.4;
const BELIEVED_SECONDS: f64 = 0.000_5;
/// The same for a socket that has not been held by its window yet, because TCP begins slowly; for so many round
/// trips and seconds.
const BELIEVED_FIRST: f64 = 1.02;
const FIRST_TRIPS: f64 = 15.0;
const FIRST_SECONDS: f64 = 0.2;
/// How much longer a round trip is tried at a time, and how much more a socket has to receive by it.
const TRIAL: f64 = 1.1;
const PROOF: f64 = 1.05;
/// Between two trials that proved nothing, in seconds; doubled each time.
const FIRST_PAUSE: f64 = 0.5;
const LONGEST_PAUSE: f64 = 8.0;
/// The share of what it may receive from which on it is held by the window.
const HELD: f64 = 0.93;
/// A window of so many of the units that the peer is told it in needs no alternation between two of them.
const FINE: f64 = 64.0;
/// What was promised to the sender before the first window was set comes first, however small that window is (up to 32 MB,
/// as fast as the line goes). It is over when that has been used up, as far as the kernel tells, else when the rate is
/// down to this much of the cap, and so many seconds and round trips have passed since; where the kernel does not tell,
/// at the latest after the last of these.
const SETTLED: f64 = 1.5;
/// Of a window, what may be ahead of it and counts for nothing.
const SPARE: f64 = 0.1;
const SETTLING: f64 = 0.05;
const SETTLING_TRIPS: f64 = 1.5;
const LONGEST_SETTLING: f64 = 0.8;
/// A larger window takes a round trip to reach the peer, a smaller one does not: alternation has to be slower than that.
const DWELL: f64 = 4.0;
/// For the same reason a change by less than this part waits until so many round trips have passed since the last.
const SMALL: f64 = 0.15;
const CALM: f64 = 2.0;
/// Windows that are remembered, one a tick.
const HISTORY: usize = 32;

/// One socket's window.
#[derive(Clone, Debug)]
pub(super) struct Window {
    /// Seconds in which one window comes, in IP bytes.
    trip: f64,
    /// In which the peer is told the window, in bytes.
    unit: u32,
    /// The last windows, the newest last, with the time since each came into force.
    history: VecDeque<(f64, f64)>,
    /// Seconds until what arrives tells something about the window.
    settling: f64,
    age: f64,
    /// Whether it was ever held by its window.
    has_held: bool,
    offered: Smooth,
    received: Smooth,
    trial: Option<Trial>,
    pause: f64,
    /// Seconds until the next trial may be made.
    rest: f64,
    /// Runs through 0 to 1, for the alternation.
    phase: f64,
    since_phase: f64,
    /// The last window, and for how long it has been wanted.
    last: f64,
    since_change: f64,
}

#[derive(Clone, Copy, Debug)]
struct Trial {
    rate: f64,
    age: f64,
}

impl Window {
    /// Begins with a round trip in seconds, as the kernel has measured it.
    pub(super) fn new(trip: f64, phase: f64) -> Self {
        Self {
            trip: trip.max(1e-5),
            unit: 1,
            history: VecDeque::new(),
            settling: SETTLING + SETTLING_TRIPS * trip,
            age: 0.0,
            has_held: false,
            offered: Smooth::default(),
            received: Smooth::default(),
            trial: None,
            pause: FIRST_PAUSE,
            rest: 0.0,
            phase: phase.fract(),
            since_phase: 0.0,
            last: 0.0,
            since_change: 0.0,
        }
    }

    /// Takes in what was received within `dt` seconds, in IP bytes, under `window` bytes and a cap in IP bytes a
    /// second; the kernel measures these round trips now, the second one without the queue that the traffic makes.
    /// `ahead` is what the sender may still send beyond the window, in bytes, where that is known.
    pub(super) fn add(
        &mut self,
        bytes: f64,
        dt: f64,
        window: f64,
        cap: f64,
        [kernel, least]: [f64; 2],
        ahead: Option<f64>,
    ) {
        let then = self.past(window, dt);
        self.age += dt;
        self.since_phase += dt;
        self.since_change += dt;
        if self.settling > 0.0 && (ahead.is_some() || self.age < LONGEST_SETTLING) {
            let is_used_up = match ahead {
                Some(ahead) => ahead <= (window * SPARE).max(2.0 * f64::from(self.unit)),
                None => bytes / dt < cap * SETTLED,
            };
            if is_used_up {
                self.settling -= dt;
            }
            self.trip = self.trip.min(least.max(1e-5));
            self.offered = Smooth::from(then);
            self.received = Smooth::from(then / self.trip);
            return;
        }
        let memory = (2.0 * self.trip).max(0.1);
        let window = self.offered.add(then, dt, memory);
        let rate = self.received.add(bytes / dt, dt, memory);
        self.rest -= dt;
        if rate <= 0.0 || cap <= 0.0 {
            return;
        }
        let measured = window / rate;
        self.has_held |= rate >= cap * HELD || self.age > FIRST_TRIPS * kernel + FIRST_SECONDS;
        let part = if self.has_held { BELIEVED } else { BELIEVED_FIRST };
        // Of a coarse window one unit may be in vain.
        let believed = kernel * part + BELIEVED_SECONDS + f64::from(self.unit) / cap;
        let gain = (dt / memory).min(0.5);
        if rate >= cap * HELD || measured < self.trip {
            self.trial = None;
            self.trip += gain * (measured.min(self.trip.max(believed)) - self.trip);
        } else if self.trip < believed {
            self.trip += gain * (measured.min(believed) - self.trip);
        } else if self.has_held {
            self.try_longer(rate, dt);
        }
        self.trip = self.trip.clamp(1e-5, 10.0);
    }

    /// Whether a longer round trip makes it receive more.
    fn try_longer(&mut self, rate: f64, dt: f64) {
        let long_enough = (6.0 * self.trip).max(0.3);
        match &mut self.trial {
            None if self.rest <= 0.0 => {
                self.trial = Some(Trial { rate, age: 0.0 });
                self.trip *= TRIAL;
            }
            None => {}
            Some(trial) => {
                trial.age += dt;
                if trial.age < long_enough {
                    return;
                }
                if rate >= trial.rate * PROOF {
                    self.pause = FIRST_PAUSE;
                } else {
                    self.trip /= TRIAL;
                    self.rest = self.pause;
                    self.pause = (self.pause * 2.0).min(LONGEST_PAUSE);
                }
                self.trial = None;
            }
        }
    }

    /// The window that was in force a round trip ago, which is what is arriving now.
    fn past(&mut self, window: f64, dt: f64) -> f64 {
        for (age, _) in &mut self.history {
            *age += dt;
        }
        self.history.push_back((dt, window));
        while self.history.len() > HISTORY {
            self.history.pop_front();
        }
        let trip = self.trip;
        let before = self.history.iter().rev().find(|(age, _)| *age >= trip + dt / 2.0);
        before.or(self.history.front()).map_or(window, |(_, window)| *window)
    }

    /// The window for a cap in IP bytes a second, in bytes, as a multiple of the `unit` that the peer is told it in.
    ///
    /// Where units are coarse it alternates between two multiples, so that the mean is right.
    pub(super) fn bytes(&mut self, cap: f64, unit: u32) -> u32 {
        self.unit = unit.max(1);
        let unit = f64::from(self.unit);
        let units = cap * self.trip / unit;
        if self.since_phase >= (DWELL * self.trip).max(0.1) {
            // The golden ratio: values spread evenly however few are taken.
            self.phase = (self.phase + 0.618_033_988_75).fract();
            self.since_phase = 0.0;
        }
        let whole = if units >= FINE { units.round() } else { (units + self.phase).floor() };
        let least = (f64::from(LEAST_WINDOW) / unit).ceil();
        let bytes = whole.max(least) * unit;
        // What jitters by some percent is as small as its smallest values.
        let is_small = (bytes - self.last).abs() <= self.last * SMALL + unit;
        if is_small && self.since_change < (CALM * self.trip).max(0.1) {
            return super::smooth::whole(self.last).try_into().unwrap_or(1 << 30);
        }
        (self.last, self.since_change) = (bytes.min(f64::from(1 << 30)), 0.0);
        // At most what a window can be.
        super::smooth::whole(bytes.min(f64::from(1 << 30))).try_into().unwrap_or(1 << 30)
    }

    /// The least that it can be held to, in IP bytes a second.
    pub(super) fn floor(&self, unit: u32) -> f64 {
        f64::from(LEAST_WINDOW.next_multiple_of(unit.max(1))) / self.trip
    }
}
