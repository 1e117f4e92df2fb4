//! One limit on eight processes with eight connections each, of which some want nothing, some little and some all they can
//! get.

use std::{collections::BTreeMap, path::Path, thread, time::Duration};

use anyhow::Context;
use clap::Args;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
    traffic,
};

use super::{
    limiter::{Common, Holders, limit_option, limiter},
    median,
    path::{NamedPath, parse_path},
    recording::{FULL_SEGMENT, Recording},
    side::jain,
};

/// Connections of a process.
const CONNECTIONS: u32 = 8;
/// Processes of each kind.
const IDLE: usize = 2;
const SLOW: u16 = 2;
const GREEDY: u16 = 4;
/// Ports of the slow ones' servers, one for each; those of the greedy ones follow.
const PORT: u16 = 5201;
/// What a slow connection sends in a second is the limit divided by this: less than its part of it.
const SLOWNESS: u32 = 200;
/// Until connections have found their rates, in seconds.
const SETTLE: f64 = 2.0;
const PATIENCE: Duration = Duration::from_mins(1);

/// Which combinations.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    holders: Holders,
    /// Limits in IP bytes a second.
    #[arg(long, value_delimiter = ',', default_value = "10000000")]
    limit: Vec<u32>,
    /// Paths, as with `throttle`.
    #[arg(long, value_delimiter = ',', default_value = "direct,20", value_parser = parse_path)]
    path: Vec<NamedPath>,
    /// Seconds a run.
    #[arg(long, default_value_t = 8)]
    seconds: u32,
    /// Runs of each combination; medians are printed.
    #[arg(long, default_value_t = 3)]
    runs: u32,
    #[command(flatten)]
    common: Common,
}

/// One combination.
struct Cell<'a> {
    options: &'a Options,
    program: &'a Path,
    is_upload: bool,
    limit: u32,
    path: &'a NamedPath,
}

/// What one run gave.
struct Outcome {
    /// IP bytes on the path over the limit, once connections have found their rates.
    achieved: f64,
    /// The same of what came out at the receivers.
    received: f64,
    /// The most in any second, from the limit on.
    worst_second: f64,
    /// Jain's index over the greedy connections.
    fairness: f64,
    /// What the slow ones got of what they wanted.
    slow: f64,
}

type Figure = (&'static str, fn(&Outcome) -> f64);

const FIGURES: [Figure; 5] = [
    ("achieved", |outcome| outcome.achieved),
    ("received", |outcome| outcome.received),
    ("worst second, first included", |outcome| outcome.worst_second),
    ("fairness of the greedy", |outcome| outcome.fairness),
    ("slow ones get of what they want", |outcome| outcome.slow),
];

/// Measures every combination and prints a line for each.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = options.common.program()?;
    if !options.common.json {
        println!(
            "{IDLE} idle, {SLOW} slow and {GREEDY} greedy processes of {CONNECTIONS} connections each; medians of {} runs.\n",
            options.runs
        );
        println!("| direction | limit B/s | path | {} |", FIGURES.map(|(name, _)| name).join(" | "));
        println!("|{}", " --- |".repeat(3 + FIGURES.len()));
    }
    for (direction, is_upload) in options.common.directions() {
        for path in &options.path {
            for &limit in &options.limit {
                let cell = Cell { options, program: &program, is_upload, limit, path };
                let outcomes: Vec<_> =
                    (0..options.runs.max(1)).map(|_| cell.measure()).collect::<Result<_, _>>()?;
                let figures = FIGURES.map(|(name, pick)| (name, median(outcomes.iter().map(pick).collect())));
                if options.common.json {
                    let mut line = json!({ "direction": direction, "limit": limit, "path": path.name });
                    for (name, value) in figures {
                        line[name] = Value::from(value);
                    }
                    println!("{line}");
                } else {
                    let figures = figures.map(|(_, value)| format!("{value:.3}")).join(" | ");
                    println!("| {direction} | {limit} | {} | {figures} |", path.name);
                }
            }
        }
    }
    Ok(())
}

impl Cell<'_> {
    fn measure(&self) -> anyhow::Result<Outcome> {
        let bed = self.path.bed(self.is_upload)?;
        let servers = (PORT..PORT + SLOW + GREEDY).map(|port| Iperf3Server::start(bed.server(), port));
        let servers = servers.collect::<Result<Vec<_>, _>>()?;
        let outcome = Recording::during(&bed, self.is_upload, |recording| self.record(&bed, recording));
        drop(servers);
        bed.close()?;
        outcome
    }

    fn record(&self, bed: &Testbed, recording: &Recording) -> anyhow::Result<Outcome> {
        let listen = bed.server().socket_address(Family::V4, 0).to_string();
        let hold = ["hold", "--listen", &listen, "--processes", "1"];
        let listener = Process::spawn(traffic::command(bed.server())?.args(hold))?;
        let script = self.script(bed, &traffic::ready(&listener)?.to_string())?;

        let mut command = limiter(bed, self.program, self.options.holders.backends());
        command.arg("run").args(limit_option(self.is_upload, self.limit)).args(["--", "sh", "-c", &script]);
        let limited = recording.now();
        let mut run = Process::spawn(&mut command)?;
        let all = usize::from(SLOW + GREEDY) * CONNECTIONS as usize;
        testbed::until("all connections are there", PATIENCE, || {
            let connections = self.connections(bed)?;
            Ok((connections.values().filter(|(port, _)| *port < PORT + SLOW + GREEDY).count() >= all)
                .then_some(()))
        })
        .with_context(|| run.stderr())?;
        thread::sleep(Duration::from_secs_f64(SETTLE));
        let (from, before) = (recording.now(), self.connections(bed)?);
        thread::sleep(Duration::from_secs_f64((f64::from(self.options.seconds) - SETTLE).max(1.0)));
        let (to, after) = (recording.now(), self.connections(bed)?);
        run.signal(Signal::SIGTERM)?;
        run.wait_timeout(PATIENCE)?;

        let limit = f64::from(self.limit);
        let rates = rates(&before, &after, to - from);
        let of = |ports: std::ops::Range<u16>| -> Vec<f64> {
            rates.range(ports).flat_map(|(_, rates)| rates.iter().copied()).collect()
        };
        let slow = of(PORT..PORT + SLOW);
        Ok(Outcome {
            achieved: recording.carried.rate(from, to) / limit,
            received: of(PORT..PORT + SLOW + GREEDY).iter().sum::<f64>() * FULL_SEGMENT / limit,
            worst_second: recording.carried.most(limited, to, 1.0) / limit,
            fairness: jain(&of(PORT + SLOW..PORT + SLOW + GREEDY))
                .context("no greedy connection got anything")?,
            slow: slow.iter().sum::<f64>()
                / (f64::from(self.slow_rate()) * f64::from(u32::from(SLOW) * CONNECTIONS)),
        })
    }

    /// Of one slow connection, in bytes of payload a second.
    const fn slow_rate(&self) -> u32 {
        self.limit / SLOWNESS
    }

    /// What the limited shell starts.
    fn script(&self, bed: &Testbed, idle_to: &str) -> anyhow::Result<String> {
        // Until all are there, and a little longer than is measured.
        let seconds = self.options.seconds + 20;
        let traffic = traffic::traffic_binary()?.display();
        let hold = format!(
            "sleep {seconds} | {traffic} hold --to {idle_to} --connections {CONNECTIONS} --processes 1"
        );
        let iperf3 = (PORT..PORT + SLOW + GREEDY).map(|port| {
            let client = Iperf3::client(bed.server(), Family::V4, port).seconds(seconds).flows(CONNECTIONS);
            let client = if self.is_upload { client } else { client.reverse() };
            // Short writes, or a slow one would be silent for seconds.
            let client =
                if port < PORT + SLOW { client.rate(self.slow_rate().into()).length(1000) } else { client };
            format!("iperf3 {}", client.args().join(" "))
        });
        let commands = (0..IDLE).map(|_| hold.clone()).chain(iperf3);
        let silent: Vec<_> = commands.map(|command| format!("{command} > /dev/null 2>&1")).collect();
        Ok(silent.join(" & ") + " & wait")
    }

    /// The connections of the client by their own ends: the server's port, and bytes of payload that have arrived.
    fn connections(&self, bed: &Testbed) -> anyhow::Result<Connections> {
        let ss = Process::spawn(bed.client().command("ss").args(["-tinHO", "state", "established"]))?;
        let bytes = if self.is_upload { "bytes_acked:" } else { "bytes_received:" };
        Ok(ss.success(PATIENCE)?.lines().filter_map(|line| connection(line, bytes)).collect())
    }
}

type Connections = BTreeMap<String, (u16, u64)>;

/// From a line of `ss -tinHO state established`.
fn connection(line: &str, bytes: &str) -> Option<(String, (u16, u64))> {
    // Without the state there are the two queues, and then the addresses.
    let words: Vec<_> = line.split_ascii_whitespace().collect();
    let port = words.get(3)?.rsplit_once(':')?.1.parse().ok()?;
    let count = words.iter().find_map(|word| word.strip_prefix(bytes)?.parse().ok()).unwrap_or_default();
    Some(((*words.get(2)?).to_owned(), (port, count)))
}

/// Bytes a second of each connection by the server's port, without those that only control.
fn rates(before: &Connections, after: &Connections, seconds: f64) -> BTreeMap<u16, Vec<f64>> {
    let mut rates: BTreeMap<u16, Vec<f64>> = BTreeMap::new();
    for (end, (port, bytes)) in after {
        let since = before.get(end).map_or(0, |(_, bytes)| *bytes);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
        rates.entry(*port).or_default().push(bytes.saturating_sub(since) as f64 / seconds);
    }
    for rates in rates.values_mut() {
        // iperf3 has one connection more, on which next to nothing passes.
        rates.sort_by(|one, other| other.total_cmp(one));
        rates.truncate(CONNECTIONS as usize);
    }
    rates
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_ss() {
        let line = "0 14480 10.77.1.2:40912 10.77.2.2:5203 cubic wscale:10,10 bytes_sent:900 bytes_acked:701";
        let expected = ("10.77.1.2:40912".to_owned(), (5203, 701));
        assert_eq!(connection(line, "bytes_acked:"), Some(expected.clone()));
        assert_eq!(connection(line, "bytes_received:"), Some((expected.0, (5203, 0))));
        assert_eq!(connection("", "bytes_acked:"), None);
    }

    #[test]
    fn the_connection_that_controls_is_left_out() {
        let connections = |bytes: u64| -> Connections {
            (0..9).map(|number| (number.to_string(), (PORT, if number == 4 { 300 } else { bytes }))).collect()
        };
        let rates = rates(&connections(1000), &connections(3000), 2.0);
        assert_eq!(rates[&PORT], [1000.0; 8]);
    }
}
