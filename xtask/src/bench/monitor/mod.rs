//! What watching costs: us, and other monitors on the same work where they are installed.

mod idle;
mod line_rate;
mod packets;
mod subject;
mod table;

use std::time::Duration;

use clap::Args;

use subject::Subject;
use table::{Bound, Measure, Table};

/// How often everybody looks.
const TICK: Duration = Duration::from_secs(1);

/// How much of it.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Which of our monitors.
    #[arg(long, default_value = "ebpf")]
    monitor_backend: String,
    /// Runs of each measurement; medians and extremes are printed.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Seconds that are measured in each run.
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=60))]
    seconds: u32,
    /// Processes that hold the idle connections.
    #[arg(long, default_value_t = 500)]
    processes: u32,
    /// What to measure.
    #[arg(long, value_delimiter = ',', default_value = "line-rate,idle,packets")]
    #[arg(value_parser = ["line-rate", "idle", "packets"])]
    only: Vec<String>,
    /// Measure us alone, and not nethogs and bandwhich beside.
    #[arg(long)]
    alone: bool,
    /// Print one JSON object instead of a table.
    #[arg(long)]
    json: bool,
}

/// Everything that is measured, in the order of the table.
const MEASURES: [Measure; 13] = [
    LINE_RATE_CPU,
    THROUGHPUT,
    NOISE,
    LINE_RATE_PSS,
    IDLE_CPU,
    IDLE_CPU_OF_OLD,
    MANY_TICK,
    MANY_TICK_OF_OLD,
    MANY_PSS,
    TCP_RATIO,
    TCP_NS,
    UDP_RATIO,
    UDP_NS,
];

const LINE_RATE_CPU: Measure =
    Measure { what: "CPU at line rate, % of a core", digits: 2, bound: Some(Bound::AtMost(0.5)) };
const THROUGHPUT: Measure =
    Measure { what: "iperf3 with it / without", digits: 3, bound: Some(Bound::AtLeast(0.97)) };
const NOISE: Measure =
    Measure { what: "iperf3 without it / without it a moment before", digits: 3, bound: None };
const LINE_RATE_PSS: Measure =
    Measure { what: "PSS at line rate, MB", digits: 1, bound: Some(Bound::AtMost(12.0)) };
const IDLE_CPU: Measure = Measure {
    what: "CPU idle, 2000 connections made while it ran, % of a core",
    digits: 2,
    bound: Some(Bound::AtMost(0.1)),
};
const IDLE_CPU_OF_OLD: Measure = Measure {
    what: "CPU idle, 2000 connections made before it started, % of a core",
    digits: 2,
    bound: Some(Bound::AtMost(0.1)),
};
const MANY_TICK: Measure = Measure {
    what: "CPU of a tick, 20000 connections made while it ran, ms",
    digits: 2,
    bound: Some(Bound::AtMost(5.0)),
};
const MANY_TICK_OF_OLD: Measure = Measure {
    what: "CPU of a tick, 20000 connections made before it started, ms",
    digits: 2,
    bound: Some(Bound::AtMost(5.0)),
};
const MANY_PSS: Measure =
    Measure { what: "PSS with 20000 connections, MB", digits: 1, bound: Some(Bound::AtMost(12.0)) };
const TCP_RATIO: Measure =
    Measure { what: "both programs / empty ones, TCP", digits: 2, bound: Some(Bound::AtMost(2.0)) };
const TCP_NS: Measure = Measure { what: "ns a packet in both programs, TCP", digits: 0, bound: None };
const UDP_RATIO: Measure = Measure {
    what: "both programs / empty ones, UDP of 100 bytes",
    digits: 2,
    bound: Some(Bound::AtMost(2.0)),
};
const UDP_NS: Measure =
    Measure { what: "ns a packet in both programs, UDP of 100 bytes", digits: 0, bound: None };

/// The connections of the two idle measurements.
const CONNECTIONS: u32 = 2_000;
const MANY_CONNECTIONS: u32 = 20_000;

/// Measures everything and prints it.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let ours = Subject::Ours { program: super::program()?, backend: options.monitor_backend.clone() };
    let rivals = if options.alone { Vec::new() } else { Subject::installed_rivals() };
    let mut table = Table::new(&MEASURES);
    measure(&ours, options, &mut table)?;
    for rival in &rivals {
        if let Err(error) = measure(rival, options, &mut table) {
            eprintln!("{} could not be measured to the end: {error:#}", rival.name());
        }
    }
    if options.json {
        println!("{}", table.json(options));
    } else {
        print!("{}", table.markdown(options));
    }
    Ok(())
}

fn measure(subject: &Subject, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    table.begin(&subject.name());
    for round in 1..=options.rounds {
        eprintln!("{}, round {round} of {}", subject.name(), options.rounds);
        for what in &options.only {
            match what.as_str() {
                "line-rate" => line_rate::measure(subject, options, table)?,
                "idle" => idle::measure(subject, options, table)?,
                // Others have no programs in the kernel.
                _ if matches!(subject, Subject::Ours { .. }) => packets::measure(subject, options, table)?,
                _ => {}
            }
        }
    }
    Ok(())
}
