//! `--pid`, with `--children` and without.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Context;
use chadthrottle::{backends::throttle::Subject, process::ProcessId};
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    inside::Inside,
    rig::{BURST, CAP, Copies, DATAGRAM, PAYLOAD, Sink, limit},
    support::PATIENCE,
};

/// A shell that starts a sender now and, at a line of input, another one; both send when they get a signal that a file
/// is there.
const PARENT: &str = "send() { \"$1\" udp-send --to \"$2\" --rate 1000000 --size 1372 --datagrams 40 --wait-stdin; }; \
                      (while ! [ -e \"$4\" ]; do sleep 0.01; done; echo) | send \"$1\" \"$2\" & \
                      echo started; read line; echo | send \"$1\" \"$3\"; wait";

/// What comes from a child that was there when a limit was set, and from one that came later.
fn children(options: &[&str]) -> anyhow::Result<[u64; 2]> {
    let (bed, copies) = (Testbed::new("children")?, Copies::new()?);
    let program = copies.traffic("child")?;
    let sinks = [Sink::start(bed.server(), Family::V4)?, Sink::start(bed.server(), Family::V4)?];
    let go = program.with_file_name("go");
    let mut command = bed.client().command("sh");
    command.args(["-c", PARENT, "sh"]).arg(&program);
    command.args(sinks.iter().map(|sink| sink.address.to_string())).arg(&go);
    let mut parent = Process::spawn(&mut command)?;
    parent.wait_for_line(|line| line == "started", PATIENCE)?;
    parent.wait_for_line(|line| line.starts_with(r#"{"ready":"#), PATIENCE)?;
    let pid = parent.pid().to_string();
    let _limiter = limit(&bed, &[&["--pid", &pid, "--upload-limit", "0"], options].concat())?;
    std::fs::write(&go, "")?;
    parent.send_line("")?;
    parent.success(PATIENCE)?;
    let [before, after] = sinks.map(|sink| anyhow::Ok(sink.report()?.datagrams));
    Ok([before?, after?])
}

#[test]
fn children_that_are_there_and_that_come_are_covered_on_request() -> anyhow::Result<()> {
    assert_eq!(children(&["--children"])?, [0, 0]);
    Ok(())
}

#[test]
fn children_are_not_covered_otherwise() -> anyhow::Result<()> {
    let [before, after] = children(&[])?;
    assert!(before > 20 && after > 20, "{before} and {after} datagrams");
    Ok(())
}

#[test]
fn a_pid_that_is_used_again_is_somebody_else() -> anyhow::Result<()> {
    let bed = Testbed::new("reborn")?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = ["tcp-sink", "--listen", &listen, "--connections", "2"];
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
    let to = traffic::ready(&sink)?.to_string();
    let reborn = ["reborn", "--to", &to, "--bytes", "1000", "--more", "1000000", "--wait-stdin"];
    let mut parent = Process::spawn(traffic::command(bed.client())?.args(reborn))?;
    let first = parent.wait_for_line(|line| line.starts_with(r#"{"first":"#), PATIENCE)?;
    let first: serde_json::Value = serde_json::from_str(&first)?;
    let pid = i32::try_from(first["first"].as_i64().context("no pid")?)?;
    // The limit outlives the process that it is named for.
    let mut limits = Inside::alone(&bed)?;
    limits.set(&Subject::Process(ProcessId::running(pid)?), Some(10_000), None)?;
    let start = Instant::now();
    parent.send_line("")?;
    let parts = parent.success(PATIENCE)?;
    let took = start.elapsed();
    sink.success(PATIENCE)?;
    assert_eq!(parts.matches(&format!("\"pid\":{pid},")).count(), 2, "{parts}");
    assert!(limits.figures()?.upload_stats.bytes_total > 1000, "the first one was not held");
    assert!(took < Duration::from_secs(3), "1 MB took {took:?}: it is held to the first one's 10 KB/s");
    Ok(())
}

#[test]
fn a_process_that_forks_while_it_is_limited_shares_its_limit() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("forks")?, Copies::new()?);
    let program = copies.traffic("child")?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let send = "for one in 1 2 3 4 5 6 7 8; do (for two in 1 2 3 4; do \
                \"$1\" udp-send --to \"$2\" --rate 500000 --size 1372 --seconds 0.2 > /dev/null & done; wait) & done; wait";
    let mut command: Command = bed.client().command("sh");
    command.args(["-c", &format!("echo started; read line; {send}"), "sh"]);
    let mut parent = Process::spawn(command.arg(&program).arg(sink.address.to_string()))?;
    parent.wait_for_line(|line| line == "started", PATIENCE)?;
    let pid = parent.pid().to_string();
    let _limiter = limit(&bed, &["--pid", &pid, "--children", "--upload-limit", "1M"])?;
    let start = Instant::now();
    parent.send_line("")?;
    parent.success(PATIENCE)?;
    let seconds = start.elapsed().as_secs_f64();
    let received = sink.report()?.bytes;
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let bytes = (received / PAYLOAD * DATAGRAM) as f64;
    println!("32 processes: {bytes} bytes in {seconds} s");
    assert!(bytes < 1.05 * CAP * (seconds + BURST), "{bytes} bytes in {seconds} s");
    Ok(())
}
