//! One combination, and what a run of it gives.

use std::{fs, path::Path, process::Command, thread, time::Duration};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
};

use super::{NamedPath, promise::Promise, recording::Recording, udp::Datagrams};

const PORT: u16 = 5201;
/// Of an open connection before the limit comes, and after it has gone, in seconds.
const FREE: u32 = 2;
const AFTER: u32 = 2;
/// A window that is short enough to see when a limit takes hold, in seconds: at least two round trips, because a sender
/// that is held by its window sends it at once.
const SHORT: f64 = 0.1;

/// Which comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    /// The limit.
    LimitFirst,
    /// The connection.
    ConnectionFirst,
}

/// One combination.
#[derive(Clone, Debug)]
pub(super) struct Cell<'a> {
    pub(super) backends: [&'a str; 2],
    pub(super) is_upload: bool,
    pub(super) is_udp: bool,
    pub(super) limit: u32,
    pub(super) flows: u32,
    pub(super) congestion: &'a str,
    pub(super) order: Order,
    pub(super) path: &'a NamedPath,
    pub(super) seconds: u32,
    pub(super) without_buffer_lock: bool,
}

/// What one run gave. Rates are shares of the limit, in IP bytes as the path counts them.
#[derive(Debug)]
pub(super) struct Outcome {
    /// From one second after the limit on.
    pub(super) achieved: f64,
    /// The most in any second, from half a second after the limit on.
    pub(super) worst_second: f64,
    /// The least in any half second of the first two.
    pub(super) undershoot: f64,
    /// Segments that were sent again while the limit was there, in percent.
    pub(super) retransmits: Option<f64>,
    /// The sender's round trip above that of the path, in milliseconds.
    pub(super) added_round_trip: Option<f64>,
    /// Until the rate is below 1.5 of the limit for good, in milliseconds.
    pub(super) takes_hold: Option<f64>,
    /// Until the rate is above twice the limit, in milliseconds.
    pub(super) lets_go: Option<f64>,
    /// Jain's index over the flows.
    pub(super) fairness: Option<f64>,
    /// Before the limit, in megabytes a second.
    pub(super) free: Option<f64>,
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
struct Moments {
    began: f64,
    limited: f64,
    freed: f64,
    promise: Option<Promise>,
}

impl Cell<'_> {
    /// The first columns of the table.
    pub(super) fn name(&self) -> String {
        format!(
            "{} | {} | {} | {} | {} | {}",
            if self.is_upload { "up" } else { "down" },
            self.limit,
            self.flows,
            self.sender(),
            self.first(),
            self.path.name
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "direction": if self.is_upload { "up" } else { "down" },
            "limit": self.limit,
            "flows": self.flows,
            "congestion": self.sender(),
            "first": self.first(),
            "path": self.path.name,
        })
    }

    const fn sender(&self) -> &str {
        if self.is_udp { "UDP" } else { self.congestion }
    }

    const fn first(&self) -> &'static str {
        match self.order {
            Order::LimitFirst => "limit",
            Order::ConnectionFirst => "connection",
        }
    }

    /// Whether both can be measured in one bed.
    pub(super) fn shares_bed(&self, other: &Self) -> bool {
        let key = |cell: &Self| (cell.is_upload, cell.path.name.clone(), cell.limit);
        key(self) == key(other)
    }

    /// A bed for this one, and what is to run in it.
    pub(super) fn bed(&self) -> anyhow::Result<(Iperf3Server, Testbed)> {
        let bed = Testbed::with_path("bench", &self.path.path(self.is_upload))?;
        Ok((Iperf3Server::start(bed.server(), PORT)?, bed))
    }

    pub(super) fn measure(&self, bed: &Testbed, program: &Path) -> anyhow::Result<Outcome> {
        if self.is_udp {
            return Recording::during(bed, self.is_upload, |recording| {
                self.datagrams(bed, program, recording)
            });
        }
        Recording::during(bed, self.is_upload, |recording| match self.order {
            Order::LimitFirst => self.limit_first(bed, program, recording),
            Order::ConnectionFirst => self.connection_first(bed, program, recording),
        })
    }

    fn client(&self, bed: &Testbed, seconds: u32) -> Iperf3 {
        let client = Iperf3::client(bed.server(), Family::V4, PORT)
            .seconds(seconds)
            .flows(self.flows)
            .congestion(self.congestion);
        if self.is_upload { client } else { client.reverse() }
    }

    fn limiter(&self, bed: &Testbed, program: &Path) -> Command {
        let mut command = bed.client().command(program);
        if self.without_buffer_lock {
            testbed::without_buffer_lock(&mut command);
        }
        command.arg("--cgroup-root").arg(bed.cgroup_root());
        command.args(["--upload-backend", self.backends[0], "--download-backend", self.backends[1]]);
        command
    }

    fn option(&self) -> [String; 2] {
        let name = if self.is_upload { "--upload-limit" } else { "--download-limit" };
        [name.to_owned(), self.limit.to_string()]
    }

    fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds + FREE + AFTER) + 60)
    }

    fn limit_first(&self, bed: &Testbed, program: &Path, recording: &Recording) -> anyhow::Result<Outcome> {
        let mut command = self.limiter(bed, program);
        command.arg("run").args(self.option()).args(["--", "iperf3"]);
        command.args(self.client(bed, self.seconds).args());
        let mut run = Process::spawn(&mut command)?;
        // The first data, after the handshakes of all connections.
        let enough = f64::from(self.limit) * 0.01 + 20_000.0;
        testbed::until("data flows", self.patience(), || {
            Ok((recording.rate(0.0, recording.now()) * recording.now() > enough).then_some(()))
        })?;
        let began = recording.now();
        thread::sleep(Duration::from_secs_f64(f64::from(self.seconds) - 0.3));
        let cpu = cpu_seconds(run.pid())?;
        let moments = Moments { began, limited: began, freed: recording.now(), promise: None };
        let status = run.wait_timeout(self.patience())?;
        let report = parse(&run.stdout()).with_context(|| format!("{status}: {}", run.stderr()))?;
        Ok(self.outcome(recording, moments, &report, cpu))
    }

    fn connection_first(
        &self,
        bed: &Testbed,
        program: &Path,
        recording: &Recording,
    ) -> anyhow::Result<Outcome> {
        let client = self.client(bed, self.seconds + FREE + AFTER);
        let mut iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
        testbed::until("data flows", self.patience(), || {
            Ok((recording.rate(0.0, recording.now()) * recording.now() > 100_000.0).then_some(()))
        })?;
        let began = recording.now();
        thread::sleep(Duration::from_secs(FREE.into()));
        let mut command = self.limiter(bed, program);
        command.args(["--pid", &iperf3.pid().to_string()]).args(self.option());
        let mut limiter = Process::spawn(&mut command)?;
        limiter.wait_for_line(|line| line.contains("is held to"), self.patience())?;
        let came = recording.now();
        let end = came + f64::from(self.seconds);
        // Windows are told to the sender half a round trip after they were set.
        let late = self.path.round_trip / 2 + Duration::from_millis(5);
        let promise =
            if self.is_upload { None } else { Promise::watch(bed.server(), recording, late, end - 1.5) };
        thread::sleep(Duration::from_secs_f64((end - recording.now()).max(0.0)));
        let cpu = cpu_seconds(limiter.pid())?;
        // Before it is, lest the first bytes after it count.
        let freed = recording.now() - 0.05;
        limiter.signal(Signal::SIGTERM)?;
        iperf3.wait_timeout(self.patience())?;
        let report = parse(&iperf3.stdout())?;
        Ok(self.outcome(recording, Moments { began, limited: came, freed, promise }, &report, cpu))
    }

    /// Datagrams instead of connections, in either order.
    fn datagrams(&self, bed: &Testbed, program: &Path, recording: &Recording) -> anyhow::Result<Outcome> {
        let is_open = self.order == Order::ConnectionFirst;
        let seconds = self.seconds + if is_open { FREE + AFTER } else { 0 };
        let ends = Datagrams::start(bed, self.is_upload, self.limit, seconds)?;
        let flows = || {
            testbed::until("data flows", self.patience(), || {
                Ok((recording.rate(0.0, recording.now()) * recording.now() > 5_000.0).then_some(()))
            })
        };
        let mut command = self.limiter(bed, program);
        let (mut limiter, near, moments) = if is_open {
            let near = Process::spawn(&mut ends.near_command(bed))?;
            flows()?;
            let began = recording.now();
            thread::sleep(Duration::from_secs(FREE.into()));
            let limiter =
                Process::spawn(command.args(["--pid", &near.pid().to_string()]).args(self.option()))?;
            limiter.wait_for_line(|line| line.contains("is held to"), self.patience())?;
            (limiter, Some(near), (began, recording.now()))
        } else {
            let limiter = Process::spawn(command.arg("run").args(self.option()).arg("--").args(ends.near()))?;
            flows()?;
            (limiter, None, (recording.now(), recording.now()))
        };
        thread::sleep(Duration::from_secs_f64(f64::from(self.seconds) - if is_open { 0.0 } else { 0.5 }));
        let cpu = cpu_seconds(limiter.pid())?;
        let (began, came) = moments;
        let freed = recording.now() - 0.05;
        let moments = Moments { began, limited: came, freed, promise: None };
        if is_open {
            limiter.signal(Signal::SIGTERM)?;
            thread::sleep(Duration::from_secs(1));
        }
        let status = limiter.wait_timeout(self.patience())?;
        anyhow::ensure!(status.success(), "{status}: {}", limiter.stderr());
        drop((near, ends));
        let outcome = self.outcome(recording, moments, &Value::Null, cpu);
        // It sends no faster than twice the limit.
        Ok(Outcome { retransmits: None, added_round_trip: None, lets_go: None, ..outcome })
    }

    fn outcome(&self, recording: &Recording, moments: Moments, report: &Value, cpu: f64) -> Outcome {
        let limit = f64::from(self.limit);
        let Moments { began, limited, freed, promise } = moments;
        let worst_second = |from: f64| most(recording.windows(from, freed, 1.0)) / limit;
        let least = |windows: Vec<(f64, f64)>| {
            windows.into_iter().map(|(_, rate)| rate).fold(f64::INFINITY, f64::min)
        };
        let is_open = self.order == Order::ConnectionFirst;
        let short = SHORT.max(2.0 * self.path.round_trip.as_secs_f64());
        let settled = limited + self.path.round_trip.as_secs_f64() + 0.2;
        let takes_hold = |from: f64| {
            let windows = recording.windows(from, freed, short);
            let early = windows.iter().take_while(|(start, _)| start - from < 3.0);
            let over = early.filter(|(_, rate)| *rate > 1.5 * limit).last();
            over.map_or(0.0, |(start, _)| (start + short - from) * 1e3)
        };
        let sender = Side::new(report, self.is_upload);
        let receiver = Side::new(report, !self.is_upload);
        let (from, to) = (limited - began + 0.5, freed - began);
        let base = self.path.round_trip.as_secs_f64() * 1e3;
        Outcome {
            achieved: recording.rate(limited + 1.0, freed) / limit,
            worst_second: worst_second(limited + 0.5),
            undershoot: least(recording.windows(settled, limited + 2.0, 0.5)) / limit,
            retransmits: sender.retransmits(from, to).map(|count| {
                // Of what was sent meanwhile, in full segments.
                100.0 * count
                    / (recording.rate(limited + 0.5, freed) * (freed - limited - 0.5) / 1500.0).max(1.0)
            }),
            added_round_trip: sender.round_trip(from, to).map(|milliseconds| milliseconds - base),
            takes_hold: is_open.then(|| takes_hold(limited)),
            lets_go: is_open.then(|| {
                let windows = recording.windows(freed, recording.now(), short);
                let first = windows.iter().find(|(_, rate)| *rate > 2.0 * limit);
                first.map_or(f64::INFINITY, |(start, _)| (start + short - freed) * 1e3)
            }),
            fairness: (self.flows > 1).then(|| receiver.fairness(from, to)).flatten(),
            free: is_open.then(|| recording.rate(limited - 1.0, limited - 0.1) / 1e6),
            cpu: 100.0 * cpu / (freed - limited),
            after: promise.map(|Promise { bytes, used_up }| After {
                promised: bytes / 1e6,
                used_up: (used_up - limited) * 1e3,
                achieved: recording.rate(used_up.max(limited + 1.0), freed) / limit,
                worst_second: worst_second(used_up.max(limited + 0.5)),
                takes_hold: takes_hold(used_up),
                fairness: (self.flows > 1)
                    .then(|| receiver.fairness(used_up.max(limited + 0.5) - began, to))
                    .flatten(),
            }),
        }
    }
}

fn most(windows: Vec<(f64, f64)>) -> f64 {
    windows.into_iter().map(|(_, rate)| rate).fold(0.0, f64::max)
}

/// What iperf3 says of its connections at one end.
struct Side<'a> {
    intervals: Vec<&'a Value>,
}

impl<'a> Side<'a> {
    fn new(report: &'a Value, is_client: bool) -> Self {
        let side = if is_client { report } else { &report["server_output_json"] };
        Self { intervals: side["intervals"].as_array().map(|all| all.iter().collect()).unwrap_or_default() }
    }

    fn between(&self, from: f64, to: f64) -> impl Iterator<Item = &&'a Value> {
        self.intervals.iter().filter(move |interval| {
            let at = |what: &str| interval["sum"][what].as_f64().unwrap_or_default();
            at("start") >= from && at("end") <= to
        })
    }

    fn retransmits(&self, from: f64, to: f64) -> Option<f64> {
        self.between(from, to).map(|interval| interval["sum"]["retransmits"].as_f64()).sum()
    }

    /// The mean, in milliseconds.
    fn round_trip(&self, from: f64, to: f64) -> Option<f64> {
        let streams = self.between(from, to).filter_map(|interval| interval["streams"].as_array()).flatten();
        let trips: Vec<f64> =
            streams.filter_map(|stream| stream["rtt"].as_f64()).map(|rtt| rtt / 1e3).collect();
        #[expect(clippy::cast_precision_loss, reason = "some thousand")]
        let mean = trips.iter().sum::<f64>() / trips.len() as f64;
        (!trips.is_empty()).then_some(mean)
    }

    /// Jain's index: 1 where all get the same, 1/n where one gets everything.
    fn fairness(&self, from: f64, to: f64) -> Option<f64> {
        let mut flows: Vec<f64> = Vec::new();
        for interval in self.between(from, to) {
            for (number, stream) in interval["streams"].as_array()?.iter().enumerate() {
                flows.resize(flows.len().max(number + 1), 0.0);
                flows[number] += stream["bytes"].as_f64()?;
            }
        }
        #[expect(clippy::cast_precision_loss, reason = "some dozen")]
        let count = flows.len() as f64;
        let (sum, squares) =
            (flows.iter().sum::<f64>(), flows.iter().map(|bytes| bytes * bytes).sum::<f64>());
        (squares > 0.0).then(|| sum * sum / (count * squares))
    }
}

fn parse(stdout: &str) -> anyhow::Result<Value> {
    let report: Value = serde_json::from_str(stdout).context("iperf3 printed no report")?;
    anyhow::ensure!(report["error"].is_null(), "iperf3 failed: {}", report["error"]);
    Ok(report)
}

/// What a process has taken of CPUs so far, children not counted, in seconds.
fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("an unknown /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)).
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).context("too short");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}
