//! How exactly limits hold.

use std::{path::Path, time::Duration};

use anyhow::Context;
use clap::Args;
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

use super::{median, program};

/// Which combinations.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Directions.
    #[arg(long, value_delimiter = ',', default_value = "up,down", value_parser = ["up", "down"])]
    direction: Vec<String>,
    /// Limits in bytes a second.
    #[arg(long, value_delimiter = ',', default_value = "10000000,1000000")]
    limit: Vec<u32>,
    /// Connections of the one process.
    #[arg(long, value_delimiter = ',', default_value = "1,8")]
    flows: Vec<u32>,
    /// The sender's congestion control.
    #[arg(long, value_delimiter = ',', default_value = "cubic,bbr")]
    congestion: Vec<String>,
    /// IP versions.
    #[arg(long, value_delimiter = ',', default_value = "4,6", value_parser = ["4", "6"])]
    ip: Vec<String>,
    /// Seconds a run; the first one is left out of "achieved".
    #[arg(long, default_value_t = 10)]
    seconds: u32,
    /// Runs of each combination; medians and extremes are printed.
    #[arg(long, default_value_t = 3)]
    runs: u32,
}

/// One combination.
struct Cell<'a> {
    direction: &'a str,
    limit: u32,
    flows: u32,
    congestion: &'a str,
    family: Family,
}

/// What one run gave. Shares of the limit, as received payload: 0.965 (IPv4) or 0.952 (IPv6) is the limit itself in
/// IP bytes.
struct Outcome {
    achieved: f64,
    first_second: f64,
    worst_second: f64,
    retransmits_per_mb: f64,
}

/// Measures every combination and prints a line for each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = program()?;
    println!("Received payload as a share of the limit; medians of {} runs (least–most).\n", options.runs);
    println!(
        "| direction | limit B/s | flows | congestion | IP | achieved after 1 s | first second | worst second | retransmits/MB |"
    );
    println!("| --- | --- | --- | --- | --- | --- | --- | --- | --- |");
    for direction in &options.direction {
        for &limit in &options.limit {
            for &flows in &options.flows {
                for congestion in &options.congestion {
                    for ip in &options.ip {
                        let family = if ip == "4" { Family::V4 } else { Family::V6 };
                        let cell = Cell { direction, limit, flows, congestion, family };
                        let runs = (0..options.runs.max(1)).map(|_| cell.measure(&program, options.seconds));
                        cell.print(&runs.collect::<Result<Vec<_>, _>>()?);
                    }
                }
            }
        }
    }
    Ok(())
}

impl Cell<'_> {
    fn measure(&self, program: &Path, seconds: u32) -> anyhow::Result<Outcome> {
        const PORT: u16 = 5201;
        let bed = Testbed::new("bench")?;
        let _server = Iperf3Server::start(bed.server(), PORT)?;
        let client = Iperf3::client(bed.server(), self.family, PORT)
            .seconds(seconds)
            .flows(self.flows)
            .congestion(self.congestion);
        let is_upload = self.direction == "up";
        let client = if is_upload { client } else { client.reverse() };
        let mut command = bed.client().command(program);
        command.arg("--cgroup-root").arg(bed.cgroup_root()).arg("run");
        command.arg(if is_upload { "--upload-limit" } else { "--download-limit" });
        command.args([&self.limit.to_string(), "--", "iperf3"]).args(client.args());
        let patience = Duration::from_secs(u64::from(seconds) + 20);
        let stdout = Process::spawn(&mut command)?.success(patience).context("the limited iperf3")?;
        let report = Iperf3Report::parse(&stdout)?;
        let limit = f64::from(self.limit);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        let retransmits = report.retransmits.unwrap_or_default() as f64;
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
        let megabytes = report.received_bytes as f64 / 1e6;
        Ok(Outcome {
            achieved: report.rate_after_first_second() / limit,
            first_second: report.intervals.rate_between(0.0, 1.0) / limit,
            worst_second: report.max_second() / limit,
            retransmits_per_mb: retransmits / megabytes,
        })
    }

    fn print(&self, outcomes: &[Outcome]) {
        let figure = |digits: usize, pick: fn(&Outcome) -> f64| {
            let values: Vec<f64> = outcomes.iter().map(pick).collect();
            let least = values.iter().copied().fold(f64::INFINITY, f64::min);
            let most = values.iter().copied().fold(0.0, f64::max);
            format!("{:.digits$} ({least:.digits$}–{most:.digits$})", median(values))
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            self.direction,
            self.limit,
            self.flows,
            self.congestion,
            if self.family == Family::V4 { 4 } else { 6 },
            figure(3, |outcome| outcome.achieved),
            figure(3, |outcome| outcome.first_second),
            figure(3, |outcome| outcome.worst_second),
            figure(1, |outcome| outcome.retransmits_per_mb),
        );
    }
}
