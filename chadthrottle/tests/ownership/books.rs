//! What the programs say that they did, what the monitor says, and whether that is the same.

use anyhow::Context;
use serde_json::Value;
use testbed::{Host, Process, Testbed, traffic};

use crate::{
    peer::Flow,
    support::{Monitor, PATIENCE, number, process},
};

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

/// Waits for the end of the program and returns what its processes did: itself first, then its children.
pub(crate) fn parts(mut program: Process) -> anyhow::Result<Vec<Part>> {
    let status = program.wait_timeout(PATIENCE)?;
    anyhow::ensure!(status.success(), "{status}: {}{}", program.stdout(), program.stderr());
    let lines = program.stdout();
    let mut parts: Vec<_> = lines.lines().filter_map(part).collect();
    parts.sort_by_key(|part| part.pid != program.pid());
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

/// A line of the monitor.
pub(crate) struct Books(Value);

impl Books {
    /// The first line that has all that has happened so far.
    pub(crate) fn close(monitor: &Monitor) -> anyhow::Result<Self> {
        let mut line = monitor.last()?;
        // The next one may have been on its way already.
        for _ in 0..2 {
            line = monitor
                .until("the next line", |next| (next["time"] != line["time"]).then(|| next.clone()))?;
        }
        assert_eq!(line["lost_events"], 0);
        Ok(Self(line))
    }

    /// The row of a process.
    pub(crate) fn row(&self, pid: u32) -> anyhow::Result<&Value> {
        process(&self.0, pid).with_context(|| format!("no row for {pid} in {}", self.0))
    }

    /// What was counted for a process; nothing where it has no row.
    pub(crate) fn counted(&self, pid: u32) -> Flow {
        process(&self.0, pid).map_or_else(Flow::default, totals)
    }

    /// What a process is accounted for is within one percent of what it did, in both directions.
    pub(crate) fn check(&self, what: &str, pid: u32, expected: Flow) {
        compare(&format!("{what}, process {pid}"), self.counted(pid), expected, 100);
    }

    /// All that was counted, of whomever, is within a thousandth of all that there was.
    pub(crate) fn check_sum(&self, what: &str, expected: Flow) {
        let rows = self.0["processes"].as_array().expect("rows");
        let of_nobody = &self.0["unattributed"];
        let sum = rows.iter().chain([of_nobody]).map(totals).sum();
        compare(&format!("{what}, all together"), sum, expected, 1000);
    }
}

fn totals(row: &Value) -> Flow {
    Flow { up: number(row, "upload_bytes_total"), down: number(row, "download_bytes_total") }
}

#[track_caller]
fn compare(what: &str, counted: Flow, expected: Flow, part: u64) {
    for (direction, counted, expected) in
        [("up", counted.up, expected.up), ("down", counted.down, expected.down)]
    {
        eprintln!("{what}: {direction} {counted} of {expected}");
        assert!(
            counted.abs_diff(expected) * part <= expected,
            "{what}: {direction}: counted {counted}, expected {expected}"
        );
    }
}
