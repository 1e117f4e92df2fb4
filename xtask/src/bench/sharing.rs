//! A link that two rules share: one is busy, then both, then one again.

use std::{
    env, fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use clap::Args;
use serde_json::json;
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
};

use super::{
    limiter::{Common, limiter},
    median,
    path::{NamedPath, parse_path},
    recording::FULL_SEGMENT,
};

/// The two programs' servers.
const PORTS: [u16; 2] = [5201, 5202];
/// The cgroups that they are in.
const UNITS: [&str; 2] = ["one.scope", "two.scope"];
/// Whole seconds: what is looked at before the second one begins, while both run, and from when it has ended.
const ALONE: u32 = 3;
const AFTER: u32 = 3;
/// Until the first one has found its rate, in seconds.
const SETTLE: u32 = 3;
/// From one look at the counters to the next.
const STEP: Duration = Duration::from_millis(20);
const PATIENCE: Duration = Duration::from_secs(30);

/// Which combinations.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Who holds the limits of uploads.
    #[arg(long, value_delimiter = ',', default_value = "ebpf_cgroup,sockopt,tc_htb")]
    upload_backend: Vec<String>,
    /// Who holds the limits of downloads.
    #[arg(long, value_delimiter = ',', default_value = "ebpf_cgroup,sockopt")]
    download_backend: Vec<String>,
    /// The link's rate in IP bytes a second.
    #[arg(long, default_value_t = 10_000_000)]
    link: u32,
    /// What the second one has of the link beside its name: `priority = 1`.
    #[arg(long, default_value = "")]
    second: String,
    /// The path, as with `throttle`.
    #[arg(long, default_value = "20", value_parser = parse_path)]
    path: NamedPath,
    /// Seconds in which both are busy.
    #[arg(long, default_value_t = 5)]
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
    backend: &'a str,
}

/// What passed in a second, over the link's rate: on the path, and what each of both received.
type Second = [f64; 3];

/// Measures every combination and prints a line for each second.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let program = options.common.program()?;
    if !options.common.json {
        println!(
            "Two programs with one connection each on a link of {} B/s, {}; medians of {} runs. The second one sends \
             from second 0 on, for {} seconds.\n",
            options.link, options.path.name, options.runs, options.seconds
        );
        println!("| direction | backend | second | on the path | first | second one |");
        println!("|{}", " --- |".repeat(6));
    }
    for (direction, is_upload) in options.common.directions() {
        let backends = if is_upload { &options.upload_backend } else { &options.download_backend };
        for backend in backends {
            let cell = Cell { options, program: &program, is_upload, backend };
            let runs = (0..options.runs.max(1)).map(|_| cell.measure()).collect::<Result<Vec<_>, _>>()?;
            for (index, second) in medians(&runs).into_iter().enumerate() {
                let number = i64::try_from(index)? - i64::from(ALONE);
                if options.common.json {
                    let names = json!({ "direction": direction, "backend": backend, "second": number });
                    println!("{}", json!({ "sharing": names, "figures": second }));
                } else {
                    let figures = second.map(|figure| format!("{figure:.3}")).join(" | ");
                    println!("| {direction} | {backend} | {number} | {figures} |");
                }
            }
        }
    }
    Ok(())
}

/// Second by second.
fn medians(runs: &[Vec<Second>]) -> Vec<Second> {
    let count = runs.iter().map(Vec::len).min().unwrap_or_default();
    let of = |index: usize, which: usize| median(runs.iter().map(|run| run[index][which]).collect());
    (0..count).map(|index| [0, 1, 2].map(|which| of(index, which))).collect()
}

impl Cell<'_> {
    fn measure(&self) -> anyhow::Result<Vec<Second>> {
        let bed = self.options.path.bed(self.is_upload)?;
        let seconds = self.seconds(&bed).with_context(|| format!("with {}", self.backend))?;
        bed.close()?;
        Ok(seconds)
    }

    fn seconds(&self, bed: &Testbed) -> anyhow::Result<Vec<Second>> {
        let cgroups = [bed.cgroup(UNITS[0])?, bed.cgroup(UNITS[1])?];
        let servers =
            [Iperf3Server::start(bed.server(), PORTS[0])?, Iperf3Server::start(bed.server(), PORTS[1])?];
        let file = env::temp_dir().join(format!("chadbench-sharing-{}.toml", std::process::id()));
        fs::write(&file, self.rules())?;
        let backends = if self.is_upload { [self.backend, "auto"] } else { ["auto", self.backend] };
        let mut daemon = limiter(bed, self.program, backends);
        let daemon = Process::spawn(daemon.arg("--config").arg(&file).args(["--socket", "none", "daemon"]))?;
        testbed::until("the rules are kept", PATIENCE, || {
            Ok(daemon.stderr().contains("limits in force\n").then_some(()))
        })
        .with_context(|| daemon.stderr())?;
        fs::remove_file(&file)?;

        let both = self.options.seconds;
        let first = self.client(bed, 0, &cgroups[0], SETTLE + ALONE + both + AFTER + 1)?;
        thread::sleep(Duration::from_secs(SETTLE.into()));
        let pids = |second: Option<u32>| {
            if self.is_upload {
                [Some(servers[0].process().pid()), Some(servers[1].process().pid())]
            } else {
                [Some(first.pid()), second]
            }
        };
        let (mut looks, start) = (Looks::new(), Instant::now());
        let mut look = |second: Option<u32>, until: u32| {
            while start.elapsed() < Duration::from_secs(until.into()) {
                looks.push((start.elapsed().as_secs_f64(), counters(bed, self.is_upload, pids(second))));
                thread::sleep(STEP);
            }
        };
        look(None, ALONE);
        let mut second = self.client(bed, 1, &cgroups[1], both)?;
        // Of one that has ended nothing is read any more, and nothing comes.
        look(Some(second.pid()), ALONE + both + AFTER);
        second.wait_timeout(PATIENCE)?;
        drop((first, daemon));
        let rate = f64::from(self.options.link);
        let of = |which: usize, from: u32| (at(&looks, which, from + 1) - at(&looks, which, from)) / rate;
        Ok((0..ALONE + both + AFTER).map(|from| [0, 1, 2].map(|which| of(which, from))).collect())
    }

    fn rules(&self) -> String {
        let way = if self.is_upload { "upload" } else { "download" };
        let rule = |unit: &str, more: &str| {
            format!("[[rule]]\nname = \"{unit}\"\nmatch.unit = \"{unit}\"\nlink = \"bench\"\n{more}\n")
        };
        format!(
            "history.enabled = false\n[[link]]\nname = \"bench\"\n{way} = \"{}\"\n{}{}",
            self.options.link,
            rule(UNITS[0], ""),
            rule(UNITS[1], &self.options.second)
        )
    }

    /// A client in its cgroup.
    fn client(&self, bed: &Testbed, which: usize, cgroup: &Path, seconds: u32) -> anyhow::Result<Process> {
        let client = Iperf3::client(bed.server(), Family::V4, PORTS[which]).seconds(seconds);
        let client = if self.is_upload { client } else { client.reverse() };
        Process::spawn(bed.client().command_in(cgroup, "iperf3")?.args(client.args()))
    }
}

/// IP bytes so far: on the path, and received by each of the processes.
fn counters(bed: &Testbed, is_upload: bool, pids: [Option<u32>; 2]) -> [Option<f64>; 3] {
    let [to_server, to_client] = bed.carried().map_or([None; 2], |carried| carried.map(Some));
    let carried = if is_upload { to_server } else { to_client };
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let carried = carried.map(|carried| carried.bytes as f64);
    let [first, second] = pids.map(|pid| read_by(pid?));
    [carried, first, second]
}

/// IP bytes of the payload that a process has read (`rchar` of `proc_pid_io(5)`): it reads sockets and not much else.
fn read_by(pid: u32) -> Option<f64> {
    let counters = fs::read_to_string(format!("/proc/{pid}/io")).ok()?;
    let read: f64 = counters.lines().find_map(|line| line.strip_prefix("rchar: "))?.trim().parse().ok()?;
    Some(read * FULL_SEGMENT)
}

/// Counters by time, in seconds.
type Looks = Vec<(f64, [Option<f64>; 3])>;

/// What one of the counters was at a moment: that of the last look before, and nothing before the first one.
fn at(looks: &Looks, which: usize, moment: u32) -> f64 {
    let before = looks.iter().take_while(|(time, _)| *time <= f64::from(moment) + 1e-3);
    let last = before.filter_map(|(_, counters)| counters[which]).last();
    last.or_else(|| looks.iter().find_map(|(_, counters)| counters[which])).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_by_time() {
        let looks = vec![
            (0.0, [Some(1.0), None, None]),
            (0.9, [Some(2.0), Some(5.0), None]),
            (1.1, [Some(4.0), Some(7.0), None]),
        ];
        let read = |which, moment| at(&looks, which, moment);
        let expected = [(0, 0, 1.0), (0, 1, 2.0), (0, 2, 4.0), (1, 0, 5.0), (1, 2, 7.0), (2, 1, 0.0)];
        for (which, moment, expected) in expected {
            assert!((read(which, moment) - expected).abs() < 1e-9, "{which} {moment}");
        }
        assert!(read_by(std::process::id()).is_some() && read_by(u32::MAX).is_none());
    }

    #[test]
    fn medians_are_of_each_second_and_figure() {
        let runs = [vec![[1.0, 4.0, 7.0], [0.0; 3]], vec![[3.0, 5.0, 8.0]], vec![[2.0, 6.0, 9.0]]];
        assert_eq!(medians(&runs), [[2.0, 5.0, 8.0]]);
    }
}
