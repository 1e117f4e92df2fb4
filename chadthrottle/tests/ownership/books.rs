//! What the programs say that they did, what the monitor says, and whether that is the same.

use anyhow::{Context, ensure};
use serde_json::Value;
use testbed::{Host, Process, Testbed, traffic};

use crate::{
    backend::Backend,
    peer::Flow,
    support::{Monitor, PATIENCE, number, process},
};

/// One percent of what a process did may be missing, or too much.
const PERCENT: u64 = 100;
/// A tenth where it cannot be told better.
const TENTH: u64 = 10;
/// And a thousandth of all that there was.
const THOUSANDTH: u64 = 1000;

/// A bed whose TCP segments all have headers of the same length: an acknowledgement that names what it has (SACK) would
/// be longer, and nobody counts those.
pub(crate) fn bed(name: &str) -> anyhow::Result<Testbed> {
    let bed = Testbed::new(name)?;
    for host in [bed.client(), bed.server()] {
        host.set_sysctl("net.ipv4.tcp_sack", "0")?;
    }
    Ok(bed)
}

/// Starts the `traffic` program.
pub(crate) fn start(host: &Host, arguments: &str) -> anyhow::Result<Process> {
    Process::spawn(traffic::command(host)?.args(arguments.split(' ')))
}

/// Runs `ip` on a host, a line at a time.
pub(crate) fn ip(host: &Host, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        Process::spawn(host.command("ip").args(line.split(' ')))?.success(PATIENCE)?;
    }
    Ok(())
}

/// What one process of the `traffic` program did, in bytes of payload.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    pub(crate) pid: u32,
    pub(crate) sent: u64,
    pub(crate) received: u64,
    pub(crate) receipts: u64,
    pub(crate) retransmitted: u64,
    pub(crate) ports: Vec<u16>,
}

/// Waits for the end of the program, and returns its pid and what it printed.
pub(crate) fn end(program: Process) -> anyhow::Result<(u32, String)> {
    Ok((program.pid(), program.success(PATIENCE)?))
}

/// Waits for the end of the program and returns what its processes did: itself first, then its children.
pub(crate) fn parts<const PROCESSES: usize>(program: Process) -> anyhow::Result<[Part; PROCESSES]> {
    let parts = all_parts(program)?;
    parts.try_into().map_err(|parts| anyhow::anyhow!("not {PROCESSES} processes, but {parts:?}"))
}

/// The same where it is not known how many it has.
pub(crate) fn all_parts(program: Process) -> anyhow::Result<Vec<Part>> {
    let (pid, lines) = end(program)?;
    let mut parts: Vec<_> = lines.lines().filter_map(part).collect();
    parts.sort_by_key(|part| part.pid != pid);
    Ok(parts)
}

/// What was sent and received, with what was sent again.
pub(crate) fn with_retransmissions(flow: Flow, parts: &[Part]) -> Flow {
    Flow { up: flow.up + parts.iter().map(|part| part.retransmitted).sum::<u64>(), ..flow }
}

fn part(line: &str) -> Option<Part> {
    let line: Value = serde_json::from_str(line).ok()?;
    let count = |name: &str| line[name].as_u64();
    let ports = line["ports"].as_array()?;
    Some(Part {
        pid: u32::try_from(count("pid")?).ok()?,
        sent: count("sent")?,
        received: count("received")?,
        receipts: count("receipts")?,
        retransmitted: count("retransmitted")?,
        ports: ports.iter().filter_map(|port| u16::try_from(port.as_u64()?).ok()).collect(),
    })
}

/// What is no IP: neighbours are looked for, and a handful of these frames is no error in the books.
const NO_IP: u64 = 1000;

/// That what each interface counted by itself is accounted for, but for a thousandth.
fn check_interfaces(line: &Value) -> anyhow::Result<()> {
    for interface in line["interfaces"].as_array().context("no interfaces")? {
        let Some(residual) = interface["residual_bytes"].as_i64() else { continue };
        let counted: u64 =
            ["upload_bytes_total", "download_bytes_total"].map(|field| number(interface, field)).iter().sum();
        let missing = residual.unsigned_abs();
        ensure!(
            missing <= counted / 1000 + NO_IP,
            "{missing} of {counted} bytes are not accounted for: {interface}"
        );
    }
    Ok(())
}

/// A line of the monitor.
pub(crate) struct Books {
    line: Value,
    /// Whether it is that of the monitor whose figures are no estimates, and have to close.
    is_exact: bool,
}

impl Books {
    /// The first line that has all that has happened so far, and with it all that the interfaces counted.
    pub(crate) fn close(monitor: &Monitor) -> anyhow::Result<Self> {
        let books = Self::close_partly(monitor)?;
        if books.is_exact {
            check_interfaces(&books.line)?;
        }
        Ok(books)
    }

    /// The same where the test itself, which is not watched, uses one of those interfaces.
    pub(crate) fn close_partly(monitor: &Monitor) -> anyhow::Result<Self> {
        let mut line = monitor.last()?;
        // The next one may have been on its way already.
        for _ in 0..Backend::lines_behind(line["monitor"].as_str().unwrap_or_default()) {
            line = monitor
                .until("the next line", |next| (next["time"] != line["time"]).then(|| next.clone()))?;
        }
        let is_exact = line["monitor"] == Backend::Ebpf.name();
        eprintln!("{} events were lost", line["lost_events"]);
        ensure!(!is_exact || line["lost_events"] == 0, "events were lost: {line}");
        Ok(Self { line, is_exact })
    }

    /// The row of a process.
    pub(crate) fn row(&self, pid: u32) -> anyhow::Result<&Value> {
        process(&self.line, pid).with_context(|| format!("no row for {pid} in {}", self.line))
    }

    /// What was counted for a process; nothing where it has no row.
    pub(crate) fn counted(&self, pid: u32) -> Flow {
        process(&self.line, pid).map_or_else(Flow::default, totals)
    }

    /// What a process is accounted for is within one percent of what it did, in both directions.
    pub(crate) fn check(&self, what: &str, pid: u32, expected: Flow) -> anyhow::Result<()> {
        compare(&format!("{what}, process {pid}"), self.counted(pid), expected, PERCENT)
    }

    /// What the one sent the other one received.
    pub(crate) fn check_mirrored(&self, what: &str, one: u32, other: u32) -> anyhow::Result<()> {
        let sent = self.counted(other);
        self.check_packets(what, one, Flow { up: sent.down, down: sent.up })
    }

    /// Who opens a connection, or listens for it, and leaves it to others has the handshake. Few monitors can tell: the
    /// others may count it for who uses the connection.
    pub(crate) fn check_handshake(&self, what: &str, pid: u32, expected: Flow) -> anyhow::Result<()> {
        let counted = self.counted(pid);
        if !self.is_exact && counted.up <= expected.up && counted.down <= expected.down {
            return Ok(());
        }
        self.check(what, pid, expected)
    }

    /// The same within ten percent.
    pub(crate) fn check_roughly(&self, what: &str, pid: u32, expected: Flow) -> anyhow::Result<()> {
        compare(&format!("{what}, process {pid}"), self.counted(pid), expected, TENTH)
    }

    /// The same where each packet is known, and no percent is to be missing.
    pub(crate) fn check_packets(&self, what: &str, pid: u32, expected: Flow) -> anyhow::Result<()> {
        let part = if self.is_exact { u64::MAX } else { PERCENT };
        compare(&format!("{what}, process {pid}"), self.counted(pid), expected, part)
    }

    /// All that was counted, of whomever, is within a thousandth of all that there was. Not every monitor promises
    /// that.
    pub(crate) fn check_sum(&self, what: &str, expected: Flow) -> anyhow::Result<()> {
        if !self.is_exact {
            return Ok(());
        }
        let rows = self.line["processes"].as_array().context("no rows")?;
        let of_nobody = &self.line["unattributed"];
        let sum = rows.iter().chain([of_nobody]).map(totals).sum();
        compare(&format!("{what}, all together"), sum, expected, THOUSANDTH)
    }

    /// The same for several processes that have had this pid, in this order. Each has a row.
    pub(crate) fn check_in_turn(&self, what: &str, pid: u32, expected: &[Flow]) -> anyhow::Result<()> {
        let rows = self.line["processes"].as_array().context("no rows")?;
        let mut rows: Vec<_> = rows.iter().filter(|row| row["pid"] == pid).collect();
        rows.sort_by_key(|row| row["start_time"].as_u64());
        ensure!(rows.len() == expected.len(), "{what}: not {} rows: {rows:?}", expected.len());
        rows.iter().zip(expected).try_for_each(|(row, expected)| {
            let what = format!("{what}, process {pid} since {}", row["start_time"]);
            compare(&what, totals(row), *expected, PERCENT)
        })
    }

    /// What the process is called.
    pub(crate) fn check_name(&self, pid: u32, name: &str) -> anyhow::Result<()> {
        let row = self.row(pid)?;
        ensure!(row["name"] == name, "this is not called {name:?}: {row}");
        Ok(())
    }
}

fn totals(row: &Value) -> Flow {
    Flow { up: number(row, "upload_bytes_total"), down: number(row, "download_bytes_total") }
}

/// That each direction differs by one in `part` at most.
fn compare(what: &str, counted: Flow, expected: Flow, part: u64) -> anyhow::Result<()> {
    for (direction, counted, expected) in
        [("up", counted.up, expected.up), ("down", counted.down, expected.down)]
    {
        eprintln!("{what}: {direction} {counted} of {expected}");
        ensure!(
            counted.abs_diff(expected) <= expected / part,
            "{what}: {direction}: counted {counted}, expected {expected}"
        );
    }
    Ok(())
}
