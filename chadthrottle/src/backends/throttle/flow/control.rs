//! What each socket of a target is to be set to, from what each has moved. Pure: no clock, no socket.

use std::collections::BTreeMap;

use super::{
    Behind,
    ledger::{Beat, Ledger},
    share::{Appetite, Done, Wish, divide},
    smooth::{Smooth, real, whole},
    window::Window,
};
use crate::sys::tcp_socket::UNPACED;

/// Bursts that are further apart than this, in seconds, are kept from coming together; the first wait is at least this
/// part of the others.
const LONG_LUMP: f64 = 0.05;
const LEAST_WAIT: f64 = 0.25;
/// Bursts that are further apart than this, in seconds, are reckoned to be as far apart: what is out of balance is to be made
/// up for in some seconds all the same.
const LONGEST_GAP: f64 = 2.0;
/// How long what passes beside connections is remembered, in seconds.
const OTHERS: f64 = 0.3;
/// What is left at least for those that can be held, of the whole.
const LEAST_PART: f64 = 0.1;
/// The golden ratio, for values that are spread evenly however few are taken.
const GOLDEN: f64 = 0.618_033_988_75;

/// What a socket has done since it was last looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// Its cookie.
    pub(super) socket: u64,
    /// How long that is, in seconds.
    pub(super) dt: f64,
    /// IP bytes in the direction that is limited.
    pub(super) bytes: u64,
    /// Of those that it sends, IP bytes that were dropped before they left this host: they are still in the socket, which
    /// offers them again.
    pub(super) refused: u64,
    /// What the kernel measures as its round trip, in seconds.
    pub(super) round_trip: f64,
    /// The least of those that it measures: without the queue that the traffic itself has filled.
    pub(super) least_trip: f64,
    /// The receive window that was in force, in bytes, and the unit in which the peer is told it.
    pub(super) window: u32,
    /// What the sender was promised beyond that window before it was set and has not used up, in bytes, where the kernel
    /// tells.
    pub(super) ahead: Option<u32>,
    pub(super) unit: u32,
    /// Whether the program has given it more than it has sent.
    pub(super) is_waiting: bool,
    /// Payload in a full segment, and IP bytes in it.
    pub(super) segment: (f64, f64),
    /// How much of it is sent at once, in IP bytes.
    pub(super) burst: f64,
}

impl Seen {
    /// Without what was refused.
    pub(super) const fn taken(&self) -> u64 {
        self.bytes.saturating_sub(self.refused)
    }
}

/// The controller of one target in one direction.
#[derive(Debug)]
pub(super) struct Control<A> {
    ledger: Ledger,
    sockets: BTreeMap<u64, Controlled<A>>,
    /// How many sockets there have been.
    count: u32,
    /// What passes beside them, in bytes a second.
    others: Smooth,
}

/// One socket.
#[derive(Debug)]
struct Controlled<A> {
    appetite: Appetite,
    wish: Wish,
    /// IP bytes a second.
    cap: f64,
    round_trip: f64,
    actuator: A,
}

/// How a cap becomes a setting.
pub(super) trait Actuator {
    /// For a new socket, the how-manieth of its target.
    fn new(seen: &Seen, number: f64) -> Self;
    /// Takes in what the socket did under its cap.
    fn add(&mut self, seen: &Seen, cap: f64);
    /// Chooses the setting for a cap.
    fn set(&mut self, cap: f64);
    /// How long one burst takes at this cap, in seconds.
    fn lump(&self, cap: f64) -> f64;
    /// The setting.
    fn value(&self) -> u64;
    /// The least rate that it can hold, in IP bytes a second.
    fn floor(&self) -> f64;
}

impl<A: Actuator> Control<A> {
    /// A limit in IP bytes a second.
    pub(super) fn new(limit: u64) -> Self {
        Self {
            ledger: Ledger::new(real(limit.max(1))),
            sockets: BTreeMap::new(),
            count: 0,
            others: Smooth::default(),
        }
    }

    /// Never aims above the limit, not even to make up for what was missed.
    pub(super) fn capped(mut self, is_capped: bool) -> Self {
        self.ledger = self.ledger.capped(is_capped);
        self
    }

    /// The limit that it holds.
    pub(super) fn limit(&self) -> u64 {
        whole(self.ledger.limit())
    }

    /// Whether no more has passed than may.
    pub(super) fn has_room(&self) -> bool {
        !self.ledger.is_exceeded()
    }

    /// Changes the limit.
    pub(super) fn set_limit(&mut self, limit: u64) {
        self.ledger = Ledger::new(real(limit.max(1))).capped(self.ledger.is_capped());
    }

    /// A new socket, with all that it has moved so far: it gets its part at once, without waiting for the next tick.
    pub(super) fn admit(&mut self, seen: &Seen) {
        let number = f64::from(self.count);
        self.count = self.count.wrapping_add(1);
        let appetite = Appetite::new(real(seen.bytes));
        let controlled = Controlled {
            wish: if appetite.has_begun() { Wish::More } else { Wish::New },
            appetite,
            cap: 0.0,
            round_trip: seen.round_trip,
            actuator: A::new(seen, (number * GOLDEN).fract()),
        };
        self.sockets.insert(seen.socket, controlled);
        self.divide();
    }

    /// Whether it has been told of a socket.
    pub(super) fn knows(&self, socket: u64) -> bool {
        self.sockets.contains_key(&socket)
    }

    /// A socket is gone.
    pub(super) fn forget(&mut self, socket: u64) {
        self.sockets.remove(&socket);
    }

    /// Takes in what sockets did, `dt` seconds after the last time, and what was seen `behind`, and divides anew. Sockets
    /// that were not looked at stay as they were.
    pub(super) fn tick(&mut self, dt: f64, seen: &[Seen], behind: Behind) {
        self.others.add(real(behind.datagrams) / dt, dt, OTHERS);
        // What was dropped has to come again: to the limit it is as good as passed.
        let arrived: u64 = seen.iter().map(Seen::taken).sum();
        let bytes = behind.passed.unwrap_or(arrived + behind.datagrams + behind.dropped);
        // And windows have let it come, whose it was is not known: they are not as small as it seems.
        let came = 1.0 + real(behind.dropped) / real(arrived.max(1));
        for seen in seen {
            let seen = &Seen { bytes: whole(real(seen.bytes) * came), ..*seen };
            let Some(socket) = self.sockets.get_mut(&seen.socket) else { continue };
            // One that is idle tells nothing about its window.
            if socket.appetite.has_begun() && socket.wish != Wish::Nothing {
                socket.actuator.add(seen, socket.cap);
            }
            socket.round_trip = seen.round_trip;
            // What it does shows what it was given some time ago.
            let cap = socket.cap;
            let lump = socket.actuator.lump(socket.appetite.could(cap));
            let done = Done { bytes: real(seen.bytes), dt: seen.dt, is_waiting: seen.is_waiting };
            socket.wish = socket.appetite.add(done, cap, seen.round_trip, lump);
        }
        let is_wanted = self.sockets.values().any(|socket| socket.wish == Wish::More);
        let is_told = behind.passed.is_some();
        self.ledger.add(real(bytes), dt, is_wanted, is_told, self.beat());
        self.divide();
    }

    /// How far what comes together is apart.
    fn beat(&self) -> Beat {
        let mut beat = Beat { round_trip: self.round_trip(), ..Beat::default() };
        for socket in self.sockets.values().filter(|socket| socket.wish == Wish::More) {
            let lump = |rate| socket.actuator.lump(rate).min(LONGEST_GAP);
            beat.gap = beat.gap.max(lump(socket.cap));
            beat.burst = beat.burst.max(lump(self.ledger.limit()));
        }
        beat
    }

    /// The longest of those that move something, in seconds.
    fn round_trip(&self) -> f64 {
        let active = self.sockets.values().filter(|socket| !matches!(socket.wish, Wish::Nothing | Wish::New));
        active.map(|socket| socket.round_trip).fold(0.0, f64::max)
    }

    fn divide(&mut self) {
        let wishes: Vec<Wish> = self.sockets.values().map(|socket| socket.wish).collect();
        let limit = self.ledger.limit();
        let rate = self.ledger.rate(self.beat());
        // What is beside them takes its part first: nobody can ask that to go slower.
        let rate = (rate - self.others.get().min(limit)).max(limit * LEAST_PART);
        let mut caps = divide(rate, &wishes);
        // Whoever cannot be held to its part takes more, at the cost of the others.
        let floors = self.sockets.values().map(|socket| socket.actuator.floor());
        let stubborn: Vec<(f64, bool)> = floors
            .zip(&wishes)
            .zip(&caps)
            .map(|((floor, wish), cap)| (floor, *wish == Wish::More && floor > *cap))
            .collect();
        let taken: f64 =
            stubborn.iter().filter(|(_, is_stubborn)| *is_stubborn).map(|(floor, _)| floor).sum();
        if taken > 0.0 {
            let others: Vec<Wish> = wishes
                .iter()
                .zip(&stubborn)
                .map(|(wish, (_, is_stubborn))| if *is_stubborn { Wish::Nothing } else { *wish })
                .collect();
            caps = divide((rate - taken).max(rate * LEAST_PART), &others);
        }
        for ((socket, cap), (floor, is_stubborn)) in self.sockets.values_mut().zip(caps).zip(stubborn) {
            socket.cap = if is_stubborn { floor } else { cap };
            socket.actuator.set(socket.cap);
        }
    }

    /// What a socket is to be set to.
    pub(super) fn value(&self, socket: u64) -> Option<u64> {
        self.sockets.get(&socket).map(|socket| socket.actuator.value())
    }

    /// Whether a socket has moved nothing for a while.
    pub(super) fn is_idle(&self, socket: u64) -> bool {
        self.sockets.get(&socket).is_some_and(|socket| socket.appetite.is_idle())
    }

    /// The least rate that those who want more than they have can be held to together, in IP bytes a second.
    pub(super) fn floor(&self) -> u64 {
        let pressing = self.sockets.values().filter(|socket| socket.wish == Wish::More);
        whole(pressing.map(|socket| socket.actuator.floor()).sum())
    }

    /// What sockets move now, in IP bytes a second.
    #[cfg(test)]
    pub(super) fn rates(&self) -> Vec<f64> {
        self.sockets.values().map(|socket| socket.appetite.rate()).collect()
    }
}

/// Paces what is sent.
#[derive(Debug)]
pub(super) struct Pace {
    /// Of the IP bytes, those that are paced.
    payload: f64,
    /// IP bytes that come at once.
    burst: f64,
    value: u64,
    /// Since it began, in seconds, and what it was given last.
    age: f64,
    cap: f64,
    /// 0 to 1, each socket's own.
    phase: f64,
}

impl Pace {
    /// Connections that begin together would send their bursts together for ever, a target with many of them six
    /// bursts in one second and five in the next. So each waits for another part of the time after its first one: the
    /// kernel reckons the wait when a burst leaves.
    fn stagger(&self) -> f64 {
        let lump = self.lump(self.cap);
        let part = self.phase.max(LEAST_WAIT);
        if lump < LONG_LUMP || self.age >= part * lump { 1.0 } else { part }
    }
}

impl Actuator for Pace {
    fn new(seen: &Seen, number: f64) -> Self {
        let payload = seen.segment.0 / seen.segment.1;
        Self { payload, burst: seen.burst, value: UNPACED, age: 0.0, cap: 0.0, phase: number }
    }

    fn add(&mut self, seen: &Seen, _: f64) {
        self.payload = seen.segment.0 / seen.segment.1;
        self.burst = seen.burst;
        self.age += seen.dt;
    }

    fn set(&mut self, cap: f64) {
        self.cap = cap;
        self.value = whole(cap * self.payload / self.stagger()).max(1);
    }

    fn lump(&self, cap: f64) -> f64 {
        self.burst / cap.max(1.0)
    }

    fn value(&self) -> u64 {
        self.value
    }

    fn floor(&self) -> f64 {
        0.0
    }
}

/// Opens a window for what is received.
#[derive(Debug)]
pub(super) struct Open {
    window: Window,
    unit: u32,
    value: u32,
}

/// Windows count payload: seconds in which one comes, in IP bytes.
fn payload_trip(seen: &Seen, trip: f64) -> f64 {
    trip * seen.segment.0 / seen.segment.1
}

impl Actuator for Open {
    fn new(seen: &Seen, number: f64) -> Self {
        let window = Window::new(payload_trip(seen, seen.least_trip), number);
        Self { window, unit: seen.unit, value: u32::MAX }
    }

    fn add(&mut self, seen: &Seen, cap: f64) {
        self.unit = seen.unit;
        let trips = [seen.round_trip, seen.least_trip].map(|trip| payload_trip(seen, trip));
        let ahead = seen.ahead.map(f64::from);
        self.window.add(real(seen.bytes), seen.dt, f64::from(seen.window), cap, trips, ahead);
    }

    fn set(&mut self, cap: f64) {
        self.value = self.window.bytes(cap, self.unit);
    }

    fn lump(&self, _: f64) -> f64 {
        0.0
    }

    fn value(&self) -> u64 {
        self.value.into()
    }

    fn floor(&self) -> f64 {
        self.window.floor(self.unit)
    }
}
