//! What somebody who is not limited loses by a limit on somebody else in the same cgroup.

use std::{path::Path, time::Duration};

use clap::Args;
use serde_json::json;
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

use super::{
    limiter::{Common, Holders, child, limit_option, limiter},
    median,
    path::{NamedPath, parse_path},
};

/// The neighbour's server, and that of who is limited.
const PORTS: [u16; 2] = [5201, 5202];
/// Who is limited runs so much longer than the neighbour, in seconds: both ways, they take a moment to begin.
const LONGER: u32 = 2;

/// Which combinations.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    holders: Holders,
    /// The limit of the other process in bytes a second; without us it keeps to that by itself.
    #[arg(long, default_value_t = 10_000_000)]
    limit: u32,
    /// Paths, as with `throttle`.
    #[arg(long, value_delimiter = ',', default_value = "direct,20", value_parser = parse_path)]
    path: Vec<NamedPath>,
    /// Seconds a run; the first one is left out.
    #[arg(long, default_value_t = 4)]
    seconds: u32,
    /// Pairs of runs, with us and without; medians are compared.
    #[arg(long, default_value_t = 5)]
    runs: u32,
    #[command(flatten)]
    common: Common,
}

/// Measures every combination and prints a line for each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = options.common.program()?;
    if !options.common.json {
        println!(
            "A neighbour's rate while another process is held to {} B/s, by us and by itself; medians of {} pairs.\n",
            options.limit, options.runs
        );
        println!("| direction | path | without us MB/s | with us MB/s | with over without |");
        println!("|{}", " --- |".repeat(5));
    }
    for (direction, is_upload) in options.common.directions() {
        for path in &options.path {
            let bed = path.bed(is_upload)?;
            let pair = Pair { options, bed: &bed, program: &program, is_upload };
            let [without, with] = pair.rates()?;
            let ratio = with / without;
            if options.common.json {
                let names = json!({ "direction": direction, "path": path.name, "limit": options.limit });
                let figures = json!({ "without": without, "with": with, "ratio": ratio });
                println!("{}", json!({ "neighbour": names, "figures": figures }));
            } else {
                let [without, with] = [without, with].map(|rate| rate / 1e6);
                println!("| {direction} | {} | {without:.1} | {with:.1} | {ratio:.3} |", path.name);
            }
            bed.close()?;
        }
    }
    Ok(())
}

/// A neighbour, and another process.
struct Pair<'a> {
    options: &'a Options,
    bed: &'a Testbed,
    program: &'a Path,
    is_upload: bool,
}

impl Pair<'_> {
    /// Medians of the neighbour's rate in bytes of payload a second, without us and with us.
    fn rates(&self) -> anyhow::Result<[f64; 2]> {
        let _servers = PORTS
            .map(|port| Iperf3Server::start(self.bed.server(), port))
            .into_iter()
            .collect::<Result<Vec<_>, _>>()?;
        let mut rates = [Vec::new(), Vec::new()];
        for run in 0..self.options.runs.max(1) {
            // What drifts is not to be on one side: the first of each pair is another one each time.
            let order = if run % 2 == 0 { [false, true] } else { [true, false] };
            for with_us in order {
                rates[usize::from(with_us)].push(self.rate(with_us)?);
            }
        }
        Ok(rates.map(median))
    }

    fn rate(&self, with_us: bool) -> anyhow::Result<f64> {
        let patience = Duration::from_secs(u64::from(self.options.seconds) + 30);
        let seconds = self.options.seconds + LONGER;
        let other = self.client(1, seconds);
        let mut other = if with_us {
            let mut command = limiter(self.bed, self.program, self.options.holders.backends());
            command.arg("run").args(limit_option(self.is_upload, self.options.limit)).args(["--", "iperf3"]);
            let run = Process::spawn(command.args(other.args()))?;
            // The limit is there before the command is.
            testbed::until("iperf3 runs", patience, || Ok(child(run.pid(), "iperf3")))?;
            run
        } else {
            // As much payload as the limit would let through.
            let rate = u64::from(self.options.limit) * 1448 / 1500;
            Process::spawn(&mut other.rate(rate).command(self.bed.client())?)?
        };
        let neighbour =
            Process::spawn(&mut self.client(0, self.options.seconds).command(self.bed.client())?)?;
        let report = Iperf3Report::parse(&neighbour.success(patience)?)?;
        other.wait_timeout(patience)?;
        Ok(report.rate_after_first_second())
    }

    fn client(&self, which: usize, seconds: u32) -> Iperf3 {
        let client = Iperf3::client(self.bed.server(), Family::V4, PORTS[which]).seconds(seconds);
        if self.is_upload { client } else { client.reverse() }
    }
}
