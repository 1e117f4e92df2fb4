//! The `traffic` program: senders and receivers that count every byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, anyhow};
use serde_json::Value;

use crate::{Host, Interval, Process, Timeline};

/// How long a program may take to open its sockets.
const READY: Duration = Duration::from_secs(5);

/// The program, built where it has to be: cargo builds no programs of a crate's dev-dependencies.
///
/// # Errors
///
/// That it cannot be built.
pub fn traffic_binary() -> anyhow::Result<&'static Path> {
    static BINARY: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = BINARY.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("cannot build `traffic`: {error}"))
}

/// Where `traffic` is, on a machine that has no cargo.
pub const TRAFFIC_VARIABLE: &str = "TESTBED_TRAFFIC";

fn build() -> anyhow::Result<PathBuf> {
    if let Some(built) = std::env::var_os(TRAFFIC_VARIABLE) {
        return Ok(built.into());
    }
    // Cargo sets this for the tests that it runs, and so does nextest.
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    // The target directory comes from the environment or the workspace, as it did for the test itself.
    command.current_dir(env!("CARGO_MANIFEST_DIR")).args(["build", "--package=testbed", "--bin=traffic"]);
    command.arg("--message-format=json-render-diagnostics");
    if !cfg!(debug_assertions) {
        command.arg("--release");
    }
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        return Err(anyhow!("{}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
    }
    let messages = String::from_utf8(output.stdout)?;
    let executable = messages.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let ours = message.pointer("/target/name")?.as_str()? == "traffic";
        ours.then(|| message.get("executable")?.as_str().map(PathBuf::from))?
    });
    executable.context("cargo did not name the executable")
}

/// The program as a command on a host, to be given its arguments:
///
/// | arguments | what it does |
/// | --- | --- |
/// | `tcp-sink --listen ADDR [--connections N]` | receives from N connections (1), each to its end |
/// | `tcp-send --to ADDR (--bytes N \| --seconds S) [--rate B] [--quit]` | sends, and waits until all has been received; or ends at once |
/// | `tcp-source --listen ADDR (--bytes N \| --seconds S) [--rate B] [--connections N] [--become UID]` | sends to who connects, as another user than the one that listens |
/// | `tcp-receive --from ADDR` | receives to the end of the connection |
/// | `udp-sink --listen ADDR --idle-exit MS [--first-wait MS] [--until-told]` | receives until nothing comes any more; or not before an empty datagram has come |
/// | `udp-send --to ADDR --rate B --size N (--seconds S \| --datagrams N) [--from ADDR] [--unconnected]` | sends datagrams of N bytes of payload |
/// | `prefork --listen ADDR --workers N --connections N --answer N` | processes accept from one listener, each so many connections; each sends an answer, then receives to the end |
/// | `pass --to ADDR --bytes N [--first N] [--wait-stdin]` | connects, and a process that gets the connection sends, then receives to the end; before that the first one sends something that has to wait |
/// | `turns --to ADDR --bytes N --rounds N [--wait-stdin]` | two processes by turns send, and receive as much; the child three times as much |
/// | `orphan --to ADDR --bytes N --more N` | sends and ends; its child sends more, then receives to the end |
/// | `reuseport --listen ADDR --workers N [--inherited] [--silent]` | processes with a socket each on one port send datagrams back, or none; or with sockets that their parent opened |
/// | `many --to ADDR --connections N --bytes N` | opens connections, then sends on each and receives to its end |
/// | `hold (--to ADDR --connections N \| --listen ADDR) --processes N` | processes with idle connections each, or that accept any number, until a line of input |
/// | `zerocopy --to ADDR --bytes N --by (sendfile \| splice)` | sends out of a file, then receives to the end by `splice` |
/// | `uring --to ADDR --bytes N [--worker]` | sends and then receives to the end by `io_uring`; or has a kernel thread do it |
/// | `icmp --to IPV4 --count N --size N` | sends echo requests, each when the one before was answered |
/// | `rename --to ADDR --bytes N --program PATH` | sends, and on a line of input becomes the program, given `tcp-send … --wait-stdin` |
/// | `reborn --to ADDR --bytes N --more N [--wait-stdin]` | a child sends and ends; another one, which has its pid, sends more |
/// | `tunnel --device NAME (--listen ADDR \| --to ADDR)` | makes a tun device and carries its packets in datagrams, until it is killed |
///
/// Rates are in bytes of payload per second. With `--wait-stdin` whatever sends waits for a line on its standard input
/// when its socket is open. All print a line when their socket is open ([`ready`]), and a report at the end:
/// a [`Report`], or, from `prefork` on, a line for each process with its `pid`, the bytes of payload that it `sent` and
/// `received`, the number of `receipts`, the bytes that TCP `retransmitted`, and the `ports` of those whose connections
/// it accepted.
///
/// # Errors
///
/// That it cannot be built.
pub fn command(host: &Host) -> anyhow::Result<Command> {
    Ok(host.command(traffic_binary()?))
}

/// Waits until the program's socket is open and returns its address, for one that listens with the port that it got.
///
/// # Errors
///
/// That it fails, with what it printed.
pub fn ready(process: &Process) -> anyhow::Result<SocketAddr> {
    let line = process.wait_for_line(|line| line.starts_with(r#"{"ready":"#), READY)?;
    let line: Value = serde_json::from_str(&line)?;
    Ok(line["ready"].as_str().context("no address")?.parse()?)
}

/// What the program counted.
#[derive(Debug, Clone, PartialEq)]
pub struct Report {
    /// Bytes of payload that were received, or accepted for sending by the kernel.
    pub bytes: u64,
    /// From the first byte received to the last; or from the beginning of sending to the end.
    pub seconds: f64,
    /// A receiver's bytes, in pieces of 100 ms from the first byte on; of all its connections together.
    pub timeline: Timeline,
    /// Datagrams that were received, or accepted for sending by the kernel.
    pub datagrams: u64,
    /// Bytes of payload that TCP sent more than once.
    pub retransmitted: u64,
    /// Calls that failed, by the name of the error, e.g. `EPERM`.
    pub errors: BTreeMap<String, u64>,
}

impl Report {
    /// Reads the last line of the program's standard output.
    ///
    /// # Errors
    ///
    /// That there is no report.
    pub fn parse(stdout: &str) -> anyhow::Result<Self> {
        let line = stdout.lines().last().unwrap_or_default();
        parse(line).with_context(|| format!("this is no report of `traffic`: {line:?}"))
    }
}

fn parse(line: &str) -> anyhow::Result<Report> {
    let report: Value = serde_json::from_str(line)?;
    let seconds = report["seconds"].as_f64().context("no seconds")?;
    let width = report["bucket_seconds"].as_f64().context("no width of buckets")?;
    let buckets = report["buckets"].as_array().context("no buckets")?;
    let mut timeline = Timeline::default();
    for (number, bytes) in (0_u32..).zip(buckets) {
        let start = f64::from(number) * width;
        // The last one ends where the transfer does, or else its end would count as time in which nothing came.
        let end = (start + width).min(seconds.max(start));
        timeline.0.push(Interval { start, end, bytes: bytes.as_u64().context("not a count")? });
    }
    let errors = report["errors"].as_object().context("no errors")?.iter();
    Ok(Report {
        bytes: report["bytes"].as_u64().context("no bytes")?,
        seconds,
        timeline,
        datagrams: report["datagrams"].as_u64().context("no datagrams")?,
        retransmitted: report["retransmitted"].as_u64().context("no retransmissions")?,
        errors: errors.map(|(name, count)| (name.clone(), count.as_u64().unwrap_or_default())).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_bucket_ends_with_the_transfer() {
        let line = r#"{"bytes":30,"seconds":0.15,"datagrams":3,"retransmitted":4,"errors":{"EPERM":2},"bucket_seconds":0.1,"buckets":[20,10]}"#;
        let report = Report::parse(&format!("{{\"ready\":\"10.77.1.2:1\"}}\n{line}\n")).unwrap();
        assert_eq!(
            (report.bytes, report.datagrams, report.retransmitted, report.errors["EPERM"]),
            (30, 3, 4, 2)
        );
        assert!((report.timeline.end() - 0.15).abs() < 1e-9);
        assert_eq!(report.timeline.bytes(), 30);
        assert!(Report::parse("").is_err());
    }
}
