//! What a run gives.

use serde_json::Value;

use super::{
    cell::{Cell, Order},
    promise::Promise,
};
use crate::bench::{
    recording::{Recording, Series},
    side::Side,
};

/// A window that is short enough to see when a limit takes hold, in seconds: at least two round trips, because a sender
/// that is held by its window sends it at once.
const SHORT: f64 = 0.1;

/// What one run gave. Rates are shares of the limit, in IP bytes as the path counts them; of datagrams that arrive, as
/// their receiver gets them.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From one second after the limit on.
    pub(super) achieved: f64,
    /// The most in any second, from half a second after the limit on.
    pub(super) worst_second: f64,
    /// The same from the limit on.
    pub(super) worst_of_all: f64,
    /// As achieved, of what came out at the receiver.
    pub(super) received: Option<f64>,
    /// The most in any second of that, from the limit on.
    pub(super) received_worst: Option<f64>,
    /// The least in any half second of the first two.
    pub(super) undershoot: f64,
    /// Segments that were sent again while the limit was there, in percent.
    pub(super) retransmits: Option<f64>,
    /// The same for each megabyte of payload that was received.
    pub(super) retransmits_a_mb: Option<f64>,
    /// The sender's round trip above that of the path, in milliseconds.
    pub(super) added_round_trip: Option<f64>,
    /// The longest time in which the receiver got nothing, in milliseconds.
    pub(super) stall: Option<f64>,
    /// Until the rate is below 1.5 of the limit for good, in milliseconds.
    pub(super) takes_hold: Option<f64>,
    /// Until the rate is above twice the limit, in milliseconds.
    pub(super) lets_go: Option<f64>,
    /// Jain's index over the flows.
    pub(super) fairness: Option<f64>,
    /// Before the limit, in megabytes a second.
    pub(super) free: Option<f64>,
    /// What a sender of datagrams offered, as a share of the limit.
    pub(super) offered: Option<f64>,
    /// Calls of a limited sender of datagrams that failed.
    pub(super) errors: Option<f64>,
    /// What the program took of one CPU, in percent.
    pub(super) cpu: f64,
    /// Downloads that were open before: what there is once nothing that was promised is left.
    pub(super) after: Option<After>,
}

/// The same figures from the moment on when all that had been promised to senders when the limit came was used up.
#[derive(Debug)]
pub(super) struct After {
    /// Megabytes.
    pub(super) promised: f64,
    /// Milliseconds from the limit to that moment.
    pub(super) used_up: f64,
    pub(super) achieved: f64,
    pub(super) worst_second: f64,
    pub(super) takes_hold: f64,
    pub(super) fairness: Option<f64>,
}

/// Moments of a run, in seconds of the recording: when the limit came, and when it went.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moments {
    pub(super) began: f64,
    pub(super) limited: f64,
    pub(super) freed: f64,
    pub(super) promise: Option<Promise>,
}

impl Outcome {
    /// From what was recorded, what iperf3 says, and the time that the program took of a CPU, in seconds.
    pub(super) fn new(
        cell: &Cell<'_>,
        recording: &Recording,
        moments: Moments,
        report: &Value,
        cpu: f64,
    ) -> Self {
        let limit = f64::from(cell.limit);
        let Moments { began, limited, freed, promise } = moments;
        let round_trip = cell.path.round_trip.as_secs_f64();
        let series = cell.counted(recording);
        let worst_second = |from: f64| series.most(from, freed, 1.0) / limit;
        let takes_hold = |from: f64| cell.takes_hold(series, from, freed);
        let is_open = cell.order == Order::ConnectionFirst;
        let settled = limited + round_trip + 0.2;
        let halves = series.windows(settled, limited + 2.0, 0.5);
        let (sender, far_end) = (Side::new(report, cell.is_upload), Side::new(report, !cell.is_upload));
        let (from, to) = (limited - began + 0.5, freed - began);
        let fairness = |from: f64| (cell.flows > 1).then(|| far_end.fairness(from, to)).flatten();
        let retransmits = sender.retransmits(from, to);
        let received = &recording.received;
        let of_limit = |rate: f64| (!received.is_empty()).then(|| rate / limit);
        Self {
            achieved: series.rate(limited + 1.0, freed) / limit,
            worst_second: worst_second(limited + 0.5),
            worst_of_all: worst_second(limited),
            received: of_limit(received.rate(limited + 1.0, freed)),
            received_worst: of_limit(received.most(limited, freed, 1.0)),
            undershoot: halves.into_iter().map(|(_, rate)| rate).fold(f64::INFINITY, f64::min) / limit,
            retransmits: retransmits.map(|count| {
                // Of what was sent meanwhile, in full segments.
                let sent = recording.carried.rate(limited + 0.5, freed) * (freed - limited - 0.5);
                100.0 * count / (sent / 1500.0).max(1.0)
            }),
            retransmits_a_mb: retransmits.map(|count| count / (far_end.bytes(from, to) / 1e6).max(1e-3)),
            added_round_trip: sender.round_trip(from, to).map(|milliseconds| milliseconds - round_trip * 1e3),
            stall: (!received.is_empty()).then(|| received.longest_pause(limited, freed) * 1e3),
            takes_hold: is_open.then(|| takes_hold(limited)),
            lets_go: is_open.then(|| cell.lets_go(series, freed, recording.now())),
            fairness: fairness(from),
            free: is_open.then(|| series.rate(limited - 1.0, limited - 0.1) / 1e6),
            offered: None,
            errors: None,
            cpu: 100.0 * cpu / (freed - limited),
            after: promise.map(|Promise { bytes, used_up }| After {
                promised: bytes / 1e6,
                used_up: (used_up - limited) * 1e3,
                achieved: series.rate(used_up.max(limited + 1.0), freed) / limit,
                worst_second: worst_second(used_up.max(limited + 0.5)),
                takes_hold: takes_hold(used_up),
                fairness: fairness(used_up.max(limited + 0.5) - began),
            }),
        }
    }
}

impl Cell<'_> {
    /// Where a share of the limit is counted.
    fn counted<'a>(&self, recording: &'a Recording) -> &'a Series {
        // What a limit drops of arriving datagrams has passed the path, and nobody slows down because of it.
        if self.is_udp && !self.is_upload { &recording.received } else { &recording.carried }
    }

    fn short(&self) -> f64 {
        SHORT.max(2.0 * self.path.round_trip.as_secs_f64())
    }

    /// In milliseconds.
    fn takes_hold(&self, series: &Series, from: f64, freed: f64) -> f64 {
        let windows = series.windows(from, freed, self.short());
        let early = windows.iter().take_while(|(start, _)| start - from < 3.0);
        let over = early.filter(|(_, rate)| *rate > 1.5 * f64::from(self.limit)).last();
        over.map_or(0.0, |(start, _)| (start + self.short() - from) * 1e3)
    }

    /// In milliseconds.
    fn lets_go(&self, series: &Series, freed: f64, now: f64) -> f64 {
        let windows = series.windows(freed, now, self.short());
        let first = windows.iter().find(|(_, rate)| *rate > 2.0 * f64::from(self.limit));
        first.map_or(f64::INFINITY, |(start, _)| (start + self.short() - freed) * 1e3)
    }
}
