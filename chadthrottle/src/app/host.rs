//! The interfaces and the whole host: whose bytes are whose, whether the books close, and what we cost.

use std::{sync::Arc, time::Duration};

use super::{
    App, Cost,
    lines::{FactLine, Tone},
    text::{left, right},
};
use crate::backends::{PacketCost, Runs};
use crate::stats::{Buckets, InterfaceTraffic, Snapshot, Traffic};

/// What interfaces counted in the last interval, bytes a second in their own bytes.
#[derive(Clone, Debug, Default)]
pub(super) struct InterfaceRates {
    earlier: Vec<(Arc<str>, Traffic)>,
    rates: Vec<(Arc<str>, Traffic)>,
}

impl InterfaceRates {
    pub(super) fn take_in(&mut self, snapshot: &Snapshot) {
        let rate = |interface: &InterfaceTraffic| {
            let earlier = self.earlier.iter().find(|(name, _)| *name == interface.name);
            let moved = interface.counted.since(earlier?.1);
            Some((Arc::clone(&interface.name), moved.per_second(snapshot.interval)))
        };
        self.rates = snapshot.interfaces.iter().filter_map(rate).collect();
        let counted = |interface: &InterfaceTraffic| (Arc::clone(&interface.name), interface.counted);
        self.earlier = snapshot.interfaces.iter().map(counted).collect();
    }

    fn of(&self, name: &str) -> Option<Traffic> {
        self.rates.iter().find(|(known, _)| &**known == name).map(|(_, rate)| *rate)
    }
}

/// What we ourselves take of the host.
#[derive(Clone, Debug, Default)]
pub(super) struct OwnCost {
    earlier: Option<Cost>,
    latest: Option<Cost>,
    packets: Option<Result<Option<PacketCost>, String>>,
}

impl OwnCost {
    pub(super) const fn take_in(&mut self, cost: Cost) {
        self.earlier = self.latest;
        self.latest = Some(cost);
    }

    pub(super) fn take_in_packets(&mut self, cost: Result<Option<PacketCost>, String>) {
        self.packets = Some(cost);
    }

    /// What our programs in the kernel take of a packet, in words.
    fn of_a_packet(&self) -> String {
        let each = |runs: Runs| runs.each().map_or_else(|| "no packet".into(), |each| format!("{each} ns"));
        match &self.packets {
            None => "not known yet".into(),
            Some(Err(words)) => format!("not known: {words}"),
            Some(Ok(None)) => "nothing: no programs in the kernel".into(),
            Some(Ok(Some(cost))) => {
                format!("{} sent, {} received, measuring included", each(cost.upload), each(cost.download))
            }
        }
    }

    /// Share of one CPU in the last interval.
    fn share(&self) -> Option<f64> {
        let (earlier, latest) = (self.earlier?, self.latest?);
        let passed = latest.at.saturating_sub(earlier.at);
        (!passed.is_zero())
            .then(|| latest.cpu.saturating_sub(earlier.cpu).as_secs_f64() / passed.as_secs_f64())
    }
}

/// The longest name that the kernel takes has 15 bytes.
const NAME: usize = 16;
/// `unattributed` and a space.
const WORD: usize = 15;

impl App {
    /// All interfaces.
    pub(super) fn interface_lines(&self, room: usize) -> Vec<FactLine> {
        let Some(snapshot) = &self.snapshot else {
            return vec![FactLine::text("Waiting for the first figures…")];
        };
        if snapshot.interfaces.is_empty() {
            let words =
                format!("The monitor {} does not tell interfaces apart.", self.setup.backends.monitor);
            return super::text::wrap(&words, room).into_iter().map(FactLine::text).collect();
        }
        let mut lines = Vec::new();
        for interface in &snapshot.interfaces {
            lines.extend(self.books(snapshot, interface));
            lines.push(FactLine::default());
        }
        lines.extend(
            super::text::wrap(
                "Counted by the interface: with link-layer headers. Others: IP bytes. Residual: what nobody is known \
                 for, such as ARP.",
                room,
            )
            .into_iter()
            .map(|line| FactLine::text(line).toned(Tone::Faint)),
        );
        lines
    }

    fn books(&self, snapshot: &Snapshot, interface: &InterfaceTraffic) -> Vec<FactLine> {
        let units = self.setup.units;
        let width = units.width() + 5;
        let head = format!("{}{}{}", left(&interface.name, NAME), right("UP", width), right("DOWN", width));
        let mut lines = vec![FactLine::title(head)];
        let mut both = |name: &str, up: String, down: String| {
            lines.push(FactLine::text(format!(
                " {}{}{}",
                left(name, NAME - 1),
                right(&up, width),
                right(&down, width)
            )));
        };
        let rate = self.interfaces.of(&interface.name);
        let known = |pick: fn(Traffic) -> u64| rate.map_or_else(|| "-".into(), |rate| units.rate(pick(rate)));
        both("now, a second", known(|rate| rate.upload), known(|rate| rate.download));
        let mut amount = |name: &str, traffic: Traffic| {
            both(name, units.amount(traffic.upload), units.amount(traffic.download));
        };
        amount("counted", interface.counted);
        amount("processes", interface.processes);
        for (name, traffic) in of_nobody(&interface.buckets) {
            if traffic != Traffic::default() {
                amount(name, traffic);
            }
        }
        match interface.residual {
            Some(residual) => {
                let signed = |bytes: i64| {
                    let sign = if bytes < 0 { "-" } else { "" };
                    format!("{sign}{}", units.amount(bytes.unsigned_abs()))
                };
                both("residual", signed(residual.upload), signed(residual.download));
            }
            None => both("residual", "shared".into(), "shared".into()),
        }
        lines.extend(self.most_on(snapshot, &interface.name));
        lines
    }

    /// Whose most of an interface's bytes are.
    fn most_on(&self, snapshot: &Snapshot, interface: &str) -> Option<FactLine> {
        let on = |row: &crate::stats::ProcessRow| {
            let (_, traffic) = row.interfaces.iter().find(|(name, _)| &**name == interface)?;
            Some((traffic.sum(), row.info.name.clone(), row.info.id))
        };
        let mut most: Vec<_> =
            snapshot.processes.iter().filter_map(on).filter(|(sum, ..)| *sum > 0).collect();
        most.sort_by_key(|(sum, _, id)| (std::cmp::Reverse(*sum), *id));
        most.truncate(3);
        let words =
            most.into_iter().map(|(sum, name, id)| format!("{name} ({id}) {}", self.setup.units.amount(sum)));
        let words = words.collect::<Vec<_>>().join(", ");
        (!words.is_empty()).then(|| FactLine::text(format!(" {}   {words}", left("most", NAME - 1))))
    }

    /// The whole host.
    pub(super) fn system_lines(&self, room: usize) -> Vec<FactLine> {
        let Some(snapshot) = &self.snapshot else {
            return vec![FactLine::text("Waiting for the first figures…")];
        };
        let units = self.setup.units;
        let width = units.width() + 5;
        let both = |name: &str, up: &str, down: &str| {
            FactLine::text(format!(" {}{}{}", left(name, WORD), right(up, width), right(down, width)))
        };
        let amount =
            |name: &str, all: Traffic| both(name, &units.amount(all.upload), &units.amount(all.download));
        let processes = snapshot.processes.iter().fold(Traffic::default(), |sum, row| sum.plus(row.total));
        let heading = format!(" {}{}{}", left("Traffic", WORD), right("UP", width), right("DOWN", width));
        let mut lines = vec![
            FactLine::title(heading),
            both("now, a second", &self.rate(snapshot.rate.upload), &self.rate(snapshot.rate.download)),
            amount("processes", processes),
        ];
        lines.extend(of_nobody(&snapshot.buckets).into_iter().map(|(name, traffic)| amount(name, traffic)));
        lines.push(FactLine::default());
        lines.extend(self.health(snapshot, room));
        lines.push(FactLine::default());
        lines.extend(self.own_cost(room));
        lines
    }

    /// Whether the figures are to be trusted.
    fn health(&self, snapshot: &Snapshot, room: usize) -> Vec<FactLine> {
        let units = self.setup.units;
        let pair = |name: &str, value: String| FactLine::text(format!(" {}  {value}", left(name, WORD)));
        let mut lines = vec![FactLine::title(" Books")];
        let residuals: Vec<_> =
            snapshot.interfaces.iter().filter_map(|one| Some((one, one.residual?))).collect();
        let missing: u64 = residuals.iter().map(|(_, residual)| residual.sum().unsigned_abs()).sum();
        let counted: u64 = residuals.iter().map(|(one, _)| one.counted.sum()).sum();
        let words = match counted {
            0 => "nothing to compare with".to_owned(),
            #[expect(clippy::cast_precision_loss, reason = "two digits are shown")]
            counted => format!(
                "{} of {} that interfaces counted, {:.2} %",
                units.amount(missing),
                units.amount(counted),
                missing as f64 * 100.0 / counted as f64
            ),
        };
        lines.extend(pairs("residual", &words, room));
        let lost = snapshot.lost_events;
        let tone = if lost > 0 { Tone::Error } else { Tone::Plain };
        lines.push(pair("lost events", format!("{lost} in {}", clock(self.elapsed))).toned(tone));
        let running = snapshot.processes.iter().filter(|row| row.alive).count();
        let ended = snapshot.processes.len() - running;
        lines.push(pair(
            "processes",
            format!("{running} running, {ended} ended, {} limited", self.limited.len()),
        ));
        let names = self.setup.backends;
        let download = names.download.unwrap_or("none");
        let backends = format!("monitor {}, upload {}, download {download}", names.monitor, names.upload);
        lines.extend(pairs("backends", &backends, room));
        lines
    }

    fn own_cost(&self, room: usize) -> Vec<FactLine> {
        let pair = |name: &str, value: String| FactLine::text(format!(" {}  {value}", left(name, WORD)));
        let unknown = || "not known yet".to_owned();
        let latest = self.cost.latest;
        let cpu = latest.map_or_else(unknown, |cost| {
            let share = self.cost.share().map(|share| format!("{:.1} % of one core, ", share * 100.0));
            format!("{}{:.2} s since the start", share.unwrap_or_default(), cost.cpu.as_secs_f64())
        });
        let memory = latest.map_or_else(unknown, |cost| self.setup.units.amount(cost.resident) + "B");
        let mut lines = vec![
            FactLine::title(" What chadthrottle itself takes"),
            pair("CPU", cpu),
            pair("memory", memory),
        ];
        lines.extend(pairs("of each packet", &self.cost.of_a_packet(), room));
        lines
    }
}

/// A name, and what it stands for in as many lines as that takes.
fn pairs(name: &str, value: &str, room: usize) -> Vec<FactLine> {
    let value = super::text::wrap(value, room.saturating_sub(WORD + 3).max(20)).into_iter().enumerate();
    let line = |(index, line)| {
        FactLine::text(format!(" {}  {line}", left(if index == 0 { name } else { "" }, WORD)))
    };
    value.map(line).collect()
}

/// What belongs to no process, and why.
const fn of_nobody(buckets: &Buckets) -> [(&'static str, Traffic); 5] {
    [
        ("kernel", buckets.kernel),
        ("replies", buckets.replies),
        ("unknown", buckets.unknown),
        ("ended long ago", buckets.ended),
        ("passed on", buckets.forwarded),
    ]
}

fn clock(time: Duration) -> String {
    let seconds = time.as_secs();
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}
