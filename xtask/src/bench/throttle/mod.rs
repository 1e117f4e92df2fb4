//! What limits do to connections on paths with a round trip.

mod cell;
mod outcome;
mod promise;
mod udp;

use clap::Args;
use serde_json::{Value, json};
use testbed::Family;

use self::{
    cell::{Cell, Order},
    outcome::Outcome,
};
use super::{
    limiter::{Common, Holders},
    median,
    path::{NamedPath, parse_path},
};

/// Which combinations.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    holders: Holders,
    /// Limits in IP bytes a second.
    #[arg(long, value_delimiter = ',', default_value = "64000,1000000,10000000,50000000")]
    limit: Vec<u32>,
    /// Connections of the one process.
    #[arg(long, value_delimiter = ',', default_value = "1,8,64")]
    flows: Vec<u32>,
    /// The sender's congestion control.
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr")]
    congestion: Vec<String>,
    /// Protocols. Of UDP there is one sender, which offers three times the limit.
    #[arg(long, value_delimiter = ',', default_value = "tcp", value_parser = ["tcp", "udp"])]
    protocol: Vec<String>,
    /// Whether the limit is there when connections are opened, or comes to open ones.
    #[arg(long, value_delimiter = ',', default_value = "limit,connection", value_parser = ["limit", "connection"])]
    first: Vec<String>,
    /// Paths: `direct`, which is a router alone; or round trip in milliseconds, and after a slash the percentage of
    /// segments that are lost on the way to the receiver.
    #[arg(long, value_delimiter = ',', default_value = "2,20,150,20/0.5", value_parser = parse_path)]
    path: Vec<NamedPath>,
    /// IP versions.
    #[arg(long, value_delimiter = ',', default_value = "4", value_parser = ["4", "6"])]
    ip: Vec<String>,
    /// Seconds a run.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Runs of each combination; medians are printed.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    /// Measure as on a kernel before 5.15, which has no `SO_BUF_LOCK`.
    #[arg(long)]
    without_buffer_lock: bool,
    #[command(flatten)]
    common: Common,
}

/// A figure of an outcome: its heading, decimals, and how to find it.
type Figure = (&'static str, usize, fn(&Outcome) -> Option<f64>);

const FIGURES: [Figure; 23] = [
    ("achieved", 3, |outcome| Some(outcome.achieved)),
    ("worst second", 3, |outcome| Some(outcome.worst_second)),
    ("worst second, first included", 3, |outcome| Some(outcome.worst_of_all)),
    ("received", 3, |outcome| outcome.received),
    ("worst second received, first included", 3, |outcome| outcome.received_worst),
    ("least half second of the first two", 2, |outcome| Some(outcome.undershoot)),
    ("retransmits %", 3, |outcome| outcome.retransmits),
    ("retransmits a MB", 1, |outcome| outcome.retransmits_a_mb),
    ("added RTT ms", 1, |outcome| outcome.added_round_trip),
    ("longest stall ms", 0, |outcome| outcome.stall),
    ("takes hold ms", 0, |outcome| outcome.takes_hold),
    ("lets go ms", 0, |outcome| outcome.lets_go),
    ("fairness", 3, |outcome| outcome.fairness),
    ("free MB/s", 1, |outcome| outcome.free),
    ("offered", 2, |outcome| outcome.offered),
    ("sender's errors", 0, |outcome| outcome.errors),
    ("CPU %", 2, |outcome| Some(outcome.cpu)),
    ("promised MB", 2, |outcome| Some(outcome.after.as_ref()?.promised)),
    ("used up ms", 0, |outcome| Some(outcome.after.as_ref()?.used_up)),
    ("achieved after", 3, |outcome| Some(outcome.after.as_ref()?.achieved)),
    ("worst second after", 3, |outcome| Some(outcome.after.as_ref()?.worst_second)),
    ("takes hold after ms", 0, |outcome| Some(outcome.after.as_ref()?.takes_hold)),
    ("fairness after", 3, |outcome| outcome.after.as_ref()?.fairness),
];

/// Measures every combination and prints a line for each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = options.common.program()?;
    if !options.common.json {
        println!("IP bytes as a share of the limit; medians of {} runs.\n", options.runs);
        println!(
            "| direction | limit B/s | flows | congestion | first | path | {} |",
            FIGURES.map(|(name, ..)| name).join(" | ")
        );
        println!("|{}", " --- |".repeat(6 + FIGURES.len()));
    }
    // Not all in one: others wait for their turn on this machine.
    for cells in cells(options).chunk_by(Cell::shares_bed) {
        let (server, bed) = cells[0].bed()?;
        for cell in cells {
            let outcomes = (0..options.runs.max(1)).map(|_| cell.measure(&bed, &server, &program));
            match outcomes.collect::<Result<Vec<_>, _>>() {
                Ok(outcomes) => report(cell, &outcomes, options.common.json),
                Err(error) => eprintln!("{}: {error:#}", cell.name()),
            }
        }
        drop(server);
        bed.close()?;
    }
    Ok(())
}

fn cells(options: &Options) -> Vec<Cell<'_>> {
    let mut cells = Vec::new();
    for (_, is_upload) in options.common.directions() {
        for path in &options.path {
            for &limit in &options.limit {
                for first in &options.first {
                    for ip in &options.ip {
                        let cell = Cell {
                            backends: options.holders.backends(),
                            is_upload,
                            is_udp: true,
                            limit,
                            flows: 1,
                            congestion: "",
                            order: if first == "limit" { Order::LimitFirst } else { Order::ConnectionFirst },
                            family: if ip == "4" { Family::V4 } else { Family::V6 },
                            path,
                            seconds: options.seconds,
                            without_buffer_lock: options.without_buffer_lock,
                        };
                        cells.extend(senders(options, &cell));
                    }
                }
            }
        }
    }
    cells
}

/// A cell with each of the senders that are asked for.
fn senders<'a>(options: &'a Options, cell: &Cell<'a>) -> Vec<Cell<'a>> {
    let has = |protocol: &str| options.protocol.iter().any(|name| name == protocol);
    let mut cells = Vec::new();
    if has("udp") {
        cells.push(cell.clone());
    }
    for &flows in options.flows.iter().filter(|_| has("tcp")) {
        for congestion in &options.congestion {
            cells.push(Cell { is_udp: false, flows, congestion, ..cell.clone() });
        }
    }
    cells
}

/// Prints the medians of some runs.
fn report(cell: &Cell<'_>, outcomes: &[Outcome], json: bool) {
    let figures = FIGURES.map(|(name, digits, pick)| {
        let values: Vec<f64> = outcomes.iter().filter_map(pick).collect();
        (name, digits, (!values.is_empty()).then(|| median(values)))
    });
    if json {
        let mut line = cell.json();
        for (name, _, value) in figures {
            line[name] = value.map_or(Value::Null, |value| json!(value));
        }
        println!("{line}");
        return;
    }
    let figures = figures
        .map(|(_, digits, value)| value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}")));
    println!("| {} | {} |", cell.name(), figures.join(" | "));
}
