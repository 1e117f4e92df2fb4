//! One combination, and how it is run.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
};

use super::{
    outcome::{Moments, Outcome},
    promise::Promise,
    udp,
};
use crate::bench::{
    limiter::{child, cpu_seconds, limit_option, limiter},
    path::NamedPath,
    recording::{Count, Receiver, Recording},
    side,
};

const PORT: u16 = 5201;
/// How long to look whether iperf3 has been sent away.
const BUSY: Duration = Duration::from_millis(20);
/// Of an open connection before the limit comes, and after it has gone, in seconds.
pub(super) const FREE: u32 = 2;
pub(super) const AFTER: u32 = 3;

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
    pub(super) family: Family,
    pub(super) path: &'a NamedPath,
    pub(super) seconds: u32,
    pub(super) without_buffer_lock: bool,
}

impl Cell<'_> {
    /// The first columns of the table.
    pub(super) fn name(&self) -> String {
        format!(
            "{} | {} | {} | {} | {} | {}",
            self.direction(),
            self.limit,
            self.flows,
            self.sender(),
            self.first(),
            self.path.name
        )
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "direction": self.direction(),
            "limit": self.limit,
            "flows": self.flows,
            "congestion": self.sender(),
            "first": self.first(),
            "path": self.path.name,
        })
    }

    const fn direction(&self) -> &str {
        match (self.is_upload, self.family) {
            (true, Family::V4) => "up",
            (false, Family::V4) => "down",
            (true, Family::V6) => "up, IPv6",
            (false, Family::V6) => "down, IPv6",
        }
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
        let bed = self.path.bed(self.is_upload)?;
        Ok((Iperf3Server::start(bed.server(), PORT)?, bed))
    }

    pub(super) fn measure(
        &self,
        bed: &Testbed,
        server: &Iperf3Server,
        program: &Path,
    ) -> anyhow::Result<Outcome> {
        Recording::during(bed, self.is_upload, |recording| {
            if self.is_udp {
                return udp::measure(self, bed, program, recording);
            }
            if self.is_upload {
                recording.receives(self.receiver(server.process().pid()));
            }
            match self.order {
                Order::LimitFirst => self.limit_first(bed, program, recording),
                Order::ConnectionFirst => self.connection_first(bed, program, recording),
            }
        })
    }

    /// The process at the end of the data.
    pub(super) fn receiver(&self, pid: u32) -> Receiver {
        let headers = if self.family == Family::V4 { 20.0 } else { 40.0 };
        if self.is_udp {
            let unit = f64::from(udp::SIZE) + 8.0 + headers;
            return Receiver { pid, count: Count::Datagrams, unit };
        }
        // Full segments, with timestamps.
        Receiver { pid, count: Count::Payload, unit: 1500.0 / (1500.0 - 32.0 - headers) }
    }

    fn client(&self, bed: &Testbed, seconds: u32) -> Iperf3 {
        let client = Iperf3::client(bed.server(), self.family, PORT)
            .seconds(seconds)
            .flows(self.flows)
            .congestion(self.congestion);
        if self.is_upload { client } else { client.reverse() }
    }

    pub(super) fn limiter(&self, bed: &Testbed, program: &Path) -> Command {
        let mut command = limiter(bed, program, self.backends);
        if self.without_buffer_lock {
            testbed::without_buffer_lock(&mut command);
        }
        command
    }

    pub(super) fn option(&self) -> [String; 2] {
        limit_option(self.is_upload, self.limit)
    }

    pub(super) fn patience(&self) -> Duration {
        Duration::from_secs(u64::from(self.seconds + FREE + AFTER) + 60)
    }

    fn limit_first(&self, bed: &Testbed, program: &Path, recording: &Recording) -> anyhow::Result<Outcome> {
        let mut command = self.limiter(bed, program);
        command.arg("run").args(self.option()).args(["--", "iperf3"]);
        command.args(self.client(bed, self.seconds).args());
        let mut run = Process::spawn(&mut command)?;
        if !self.is_upload {
            let receiver = testbed::until("iperf3 runs", self.patience(), || Ok(child(run.pid(), "iperf3")))?;
            recording.receives(self.receiver(receiver));
        }
        // The first data, after the handshakes of all connections.
        let enough = f64::from(self.limit) * 0.01 + 20_000.0;
        testbed::until("data flows", self.patience(), || {
            Ok((recording.carried.so_far() > enough).then_some(()))
        })?;
        let began = recording.now();
        thread::sleep(Duration::from_secs_f64(f64::from(self.seconds) - 0.3));
        let cpu = cpu_seconds(run.pid())?;
        let moments = Moments { began, limited: began, freed: recording.now(), promise: None };
        let status = run.wait_timeout(self.patience())?;
        let report = side::parse(&run.stdout()).with_context(|| format!("{status}: {}", run.stderr()))?;
        Ok(Outcome::new(self, recording, moments, &report, cpu))
    }

    fn connection_first(
        &self,
        bed: &Testbed,
        program: &Path,
        recording: &Recording,
    ) -> anyhow::Result<Outcome> {
        let client = self.client(bed, self.seconds + FREE + AFTER);
        let mut iperf3 = self.start(&client, bed, recording)?;
        testbed::until("data flows", self.patience(), || {
            // The server is busy as long as what the cell before has left in sockets is on its way, at the pace of its limit.
            if iperf3.wait_timeout(BUSY).is_ok() {
                iperf3 = self.start(&client, bed, recording)?;
            }
            Ok((recording.carried.so_far() > 100_000.0).then_some(()))
        })?;
        let began = recording.now();
        thread::sleep(Duration::from_secs(FREE.into()));
        let mut limiter = self.limit(bed, program, &iperf3)?;
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
        let report = side::parse(&iperf3.stdout())?;
        let moments = Moments { began, limited: came, freed, promise };
        Ok(Outcome::new(self, recording, moments, &report, cpu))
    }

    fn start(&self, client: &Iperf3, bed: &Testbed, recording: &Recording) -> anyhow::Result<Process> {
        let iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
        if !self.is_upload {
            recording.receives(self.receiver(iperf3.pid()));
        }
        Ok(iperf3)
    }

    /// Limits a process that runs, and returns when the limit is in force.
    pub(super) fn limit(&self, bed: &Testbed, program: &Path, process: &Process) -> anyhow::Result<Process> {
        let mut command = self.limiter(bed, program);
        command.args(["--pid", &process.pid().to_string()]).args(self.option());
        let limiter = Process::spawn(&mut command)?;
        limiter.wait_for_line(|line| line.contains("is held to"), self.patience())?;
        Ok(limiter)
    }
}
