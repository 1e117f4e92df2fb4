//! A close look at one process: which part of it is shown, and what was found out.

use std::{net::IpAddr, time::Duration};

use super::{
    history::Span,
    hosts::Hosts,
    lines::{FactLine, Tone},
    text::{end, left, right},
    units::Units,
};
use crate::{
    connections::Connection,
    lookout::{Look, ProcessFacts, Question},
    process::ProcessId,
    stats::Traffic,
};

/// A part of the details.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Part {
    /// Who it is, and its limits.
    #[default]
    Overview,
    /// What it is connected to.
    Connections,
    /// What its rates were.
    History,
    /// Where its bytes went.
    Traffic,
}

impl Part {
    /// All of them, in their order.
    pub(super) const ALL: [Self; 4] = [Self::Overview, Self::Connections, Self::History, Self::Traffic];

    /// Its name on the screen.
    #[must_use]
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Overview => "overview",
            Self::Connections => "connections",
            Self::History => "history",
            Self::Traffic => "traffic",
        }
    }
}

/// The details that are open.
#[derive(Clone, Debug)]
pub(super) struct Details {
    process: ProcessId,
    pub(super) part: Part,
    pub(super) scroll: usize,
    pub(super) span: Span,
}

impl Details {
    pub(super) fn new(process: ProcessId) -> Self {
        Self { process, part: Part::default(), scroll: 0, span: Span::default() }
    }

    /// Whose.
    pub(super) const fn process(&self) -> ProcessId {
        self.process
    }

    /// Goes to the next part, or the one before.
    pub(super) fn turn(&mut self, next: bool) {
        let place = Part::ALL.iter().position(|part| *part == self.part).unwrap_or_default();
        let step = if next { 1 } else { Part::ALL.len() - 1 };
        self.part = Part::ALL[(place + step) % Part::ALL.len()];
        self.scroll = 0;
    }

    /// Looks further back, or less far.
    pub(super) fn zoom(&mut self, longer: bool) {
        if self.part == Part::History {
            self.span = self.span.zoomed(longer);
        }
    }
}

/// A connection, and what it did since the look before.
#[derive(Clone, Debug)]
struct Seen {
    connection: Connection,
    rate: Option<Traffic>,
}

/// What was found out.
#[derive(Clone, Debug, Default)]
pub(super) struct Looked {
    process: Option<ProcessId>,
    at: Duration,
    connections: Option<Result<Vec<Seen>, String>>,
    facts: Option<ProcessFacts>,
    /// Whether an answer is on its way.
    is_asking: bool,
}

impl Looked {
    /// What is to be asked, unless it has been.
    pub(super) fn question(&mut self, process: ProcessId) -> Option<Question> {
        if self.is_asking {
            return None;
        }
        self.is_asking = true;
        Some(Question::Look(process))
    }

    pub(super) fn take_in(&mut self, look: Look) {
        self.is_asking = false;
        let earlier = if self.process == Some(look.process) { self.connections.take() } else { None };
        let mut earlier: Vec<Seen> = earlier.and_then(Result::ok).unwrap_or_default();
        earlier.sort_by_key(|seen| name(&seen.connection));
        let passed = look.at.saturating_sub(self.at);
        let seen = |connection: Connection| {
            let before = earlier.binary_search_by_key(&name(&connection), |seen| name(&seen.connection));
            let before = before.ok().and_then(|place| earlier[place].connection.total);
            let moved = connection.total.zip(before).map(|(now, before)| now.since(before));
            Seen { rate: moved.map(|moved| moved.per_second(passed)), connection }
        };
        self.connections = Some(look.connections.map(|connections| {
            let mut seen: Vec<Seen> = connections.into_iter().map(seen).collect();
            // The busiest first, then those that did most; what ties keeps its place.
            seen.sort_by_key(|seen| {
                let sum = |traffic: Option<Traffic>| traffic.unwrap_or_default().sum();
                std::cmp::Reverse((sum(seen.rate), sum(seen.connection.total)))
            });
            seen
        }));
        // A process that has ended is still what it was.
        if look.facts.is_some() || self.process != Some(look.process) {
            self.facts = look.facts;
        }
        (self.process, self.at) = (Some(look.process), look.at);
    }

    /// What is known of a process.
    pub(super) fn facts(&self, process: ProcessId) -> Option<&ProcessFacts> {
        self.facts.as_ref().filter(|_| self.process == Some(process))
    }

    /// How many connections a process has, where that is known.
    pub(super) fn count(&self, process: ProcessId) -> Option<usize> {
        self.of(process)?.as_ref().ok().map(Vec::len)
    }

    /// Who is at the other ends of the connections on those lines.
    pub(super) fn peers(
        &self,
        process: ProcessId,
        from: usize,
        count: usize,
    ) -> impl Iterator<Item = IpAddr> {
        let seen = self.of(process).and_then(|seen| seen.as_ref().ok());
        let shown = seen.into_iter().flatten().skip(from.saturating_sub(1)).take(count);
        shown.filter_map(|seen| seen.connection.remote.map(|remote| remote.ip()))
    }

    fn of(&self, process: ProcessId) -> Option<&Result<Vec<Seen>, String>> {
        self.connections.as_ref().filter(|_| self.process == Some(process))
    }

    /// The lines from `from` on, no more than `count` of them, and how many there are in all. Only these are made: a
    /// process may have tens of thousands of connections.
    pub(super) fn lines(
        &self,
        process: ProcessId,
        units: Units,
        room: usize,
        (from, count): (usize, usize),
        hosts: &Hosts,
    ) -> (Vec<FactLine>, usize) {
        let one = |line: FactLine| (vec![line], 1);
        match self.of(process) {
            None => one(FactLine::text("Looking…")),
            Some(Err(words)) => {
                let lines = super::text::wrap(words, room).into_iter();
                let lines: Vec<_> = lines.map(|line| FactLine::text(line).toned(Tone::Error)).collect();
                let length = lines.len();
                (lines, length)
            }
            Some(Ok(seen)) if seen.is_empty() => one(FactLine::text("It has no TCP or UDP socket open.")),
            Some(Ok(seen)) => {
                let columns = Columns::new(room, units, hosts.is_on());
                let headings = std::iter::once_with(|| columns.headings());
                let lines = headings.chain(seen.iter().map(|seen| columns.line(seen, hosts)));
                (lines.skip(from).take(count).collect(), seen.len() + 1)
            }
        }
    }
}

/// What tells two connections apart, as far as it can be seen.
fn name(connection: &Connection) -> impl Ord + use<> {
    (connection.protocol, connection.local, connection.remote)
}

/// What there is room for.
struct Columns {
    peer: usize,
    local: usize,
    units: Units,
    totals: bool,
    quality: bool,
    /// The address beside the name that stands for it.
    address: usize,
}

/// Protocol, state, age and both rates with the spaces between them.
const ALWAYS: usize = 5 + 12 + 6;
/// `192.168.100.200:65535`.
const PEER: usize = 21;
/// `[2001:db8:1111:2222:3333:4444:5555:6666]:65535`.
const ADDRESS: usize = 47;

impl Columns {
    fn new(room: usize, units: Units, has_names: bool) -> Self {
        let figures = 2 * (units.width() + 1);
        let mut left = room.saturating_sub(ALWAYS + figures + PEER);
        let mut take = |wanted: usize| match left.checked_sub(wanted) {
            Some(rest) => {
                left = rest;
                true
            }
            None => false,
        };
        let quality = take(15);
        let totals = take(figures);
        let has_address = has_names && take(24);
        let has_local = take(24);
        let peer = PEER + left.min(ADDRESS - PEER);
        let spare = left.saturating_sub(peer - PEER);
        let local = if has_local { 23 + spare.min(ADDRESS - 23) } else { 0 };
        Self { peer, local, units, totals, quality, address: if has_address { 23 } else { 0 } }
    }

    fn headings(&self) -> FactLine {
        let width = self.units.width();
        let mut line = vec![format!("{:5}{}", "", left("PEER", self.peer))];
        line.push(format!(" {:11} {:>5}", "STATE", "AGE"));
        line.push(format!(" {:>width$} {:>width$}", "UP/s", "DN/s"));
        if self.quality {
            line.push(format!(" {:>8} {:>5}", "RTT ms", "AGAIN"));
        }
        if self.totals {
            line.push(format!(" {:>width$} {:>width$}", "UP", "DOWN"));
        }
        if self.address > 0 {
            line.push(format!(" {}", left("ADDRESS", self.address)));
        }
        if self.local > 0 {
            line.push(format!(" {}", left("OWN END", self.local)));
        }
        FactLine::title(line.concat())
    }

    fn line(&self, seen: &Seen, hosts: &Hosts) -> FactLine {
        let connection = &seen.connection;
        let known = |text: Option<String>| text.unwrap_or_else(|| "-".into());
        let width = self.units.width();
        let peer = connection.remote.map_or_else(
            // Of what waits for anybody, its own end tells the most.
            || format!("* at {}", connection.local.port()),
            |remote| match hosts.name(remote.ip()) {
                Some(name) => {
                    let port = format!(":{}", remote.port());
                    // Of a name, the end tells the most.
                    format!("{}{port}", end(name, self.peer.saturating_sub(port.len())))
                }
                None => remote.to_string(),
            },
        );
        let mut line = vec![format!("{:5}{}", connection.protocol.name(), left(&peer, self.peer))];
        let age = connection.age.map_or_else(|| format!(">{}", short(connection.seen)), short);
        line.push(format!(" {:11} {}", connection.state.name(), right(&age, 5)));
        let rate = |pick: fn(Traffic) -> u64| known(seen.rate.map(|rate| self.units.rate(pick(rate))));
        line.push(format!(" {:>width$} {:>width$}", rate(|rate| rate.upload), rate(|rate| rate.download)));
        if self.quality {
            let rtt = known(connection.rtt.map(|rtt| format!("{:.1}", rtt.as_secs_f64() * 1e3)));
            let again = known(connection.retransmits.map(|count| count.to_string()));
            line.push(format!(" {} {}", right(&rtt, 8), right(&again, 5)));
        }
        if self.totals {
            let total = |pick: fn(Traffic) -> u64| {
                known(connection.total.map(|total| self.units.amount(pick(total))))
            };
            line.push(format!(" {:>width$} {:>width$}", total(|all| all.upload), total(|all| all.download)));
        }
        if self.address > 0 {
            let address = connection.remote.map(|remote| remote.to_string()).unwrap_or_default();
            line.push(format!(" {}", left(&address, self.address)));
        }
        if self.local > 0 {
            line.push(format!(" {}", left(&connection.local.to_string(), self.local)));
        }
        FactLine::text(line.concat())
    }
}

/// A time in its largest unit.
fn short(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=99 => format!("{seconds}s"),
        100..=5_999 => format!("{}m", seconds / 60),
        6_000..=359_999 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86400),
    }
}
