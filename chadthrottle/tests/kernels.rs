//! What has to work on every kernel that people run: a short look at everything, in which no time is asserted that a
//! machine under emulation could not keep. `cargo xtask vm` runs it on Debian's kernels.

mod support;

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::programs::loaded_programs;
use chadthrottle::sys::kernel_version::kernel_version;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Monitor, PATIENCE, chadthrottle, number, process};
use testbed::{Family, KernelState, Path, Process, Testbed, traffic};

/// An emulated machine verifies programs for seconds.
const LONG: Duration = Duration::from_mins(2);
/// Bytes of payload that a limited process transfers, at a limit that takes seconds for it.
const BYTES: u64 = 1_500_000;
const LIMIT: u64 = 500_000;

/// Steps that the kernel may take to verify one of our programs; it gives up at a million. Linux 6.1 takes three times as
/// many as 6.12 (185,000 and 60,000 for what leaves).
const STEPS: u32 = 400_000;

/// What may not work where the kernel is older than that: backend, and its version.
const LATER: [(&str, (u32, u32)); 1] = [("ifb_tc", (6, 4))];

/// The names of backends in one column of `--list-backends --json`; all of them have to work that the kernel can run.
fn backends(column: &str) -> anyhow::Result<Vec<String>> {
    let bed = Testbed::new("kernel")?;
    let text = Process::spawn(chadthrottle(&bed).args(["--list-backends", "--json"]))?.success(LONG)?;
    let list: Value = serde_json::from_str(&text)?;
    let rows = list[column].as_array().context("no such column")?;
    let version = kernel_version().context("the kernel has no version")?;
    let mut names = Vec::new();
    for row in rows {
        let name = row["name"].as_str().context("a backend has a name")?;
        if LATER.iter().any(|&(later, needs)| name == later && version < needs) {
            ensure!(row["available"] == false, "{name} says that it works, and this kernel cannot do it");
            println!("skipped: {name}: {}", row["reason"]);
            continue;
        }
        ensure!(row["available"] == true, "{name} does not work here: {}", row["reason"]);
        names.push(name.to_owned());
    }
    Ok(names)
}

/// How long a transfer takes, with options of the program or without the program.
fn transfer(bed: &Testbed, is_upload: bool, limited: Option<&[&str]>) -> anyhow::Result<Duration> {
    let far = bed.server().socket_address(Family::V4, 0).to_string();
    let bytes = BYTES.to_string();
    let mut server = traffic::command(bed.server())?;
    let server = Process::spawn(if is_upload {
        server.args(["tcp-sink", "--listen", &far])
    } else {
        server.args(["tcp-source", "--listen", &far, "--bytes", &bytes])
    })?;
    let address = traffic::ready(&server)?.to_string();
    let words = if is_upload {
        vec!["tcp-send", "--to", &address, "--bytes", &bytes]
    } else {
        vec!["tcp-receive", "--from", &address]
    };
    let mut command = match limited {
        None => traffic::command(bed.client())?,
        Some(options) => {
            let mut command = chadthrottle(bed);
            command.args(options).arg("--").arg(traffic::traffic_binary()?);
            command
        }
    };
    let start = Instant::now();
    Process::spawn(command.args(words))?.success(LONG)?;
    Ok(start.elapsed())
}

fn every_backend_holds_a_transfer(direction: &str) -> anyhow::Result<()> {
    let is_upload = direction == "upload";
    for name in backends(direction)? {
        // With a round trip: who looks for new sockets now and then would find one that has sent everything already.
        let bed = Testbed::with_path("kernel", &Path::round_trip(Duration::from_millis(20)))?;
        let before = KernelState::capture(&bed)?;
        let free = transfer(&bed, is_upload, None)?;
        let (option, limit) = (format!("--{direction}-limit"), LIMIT.to_string());
        let backend = format!("--{direction}-backend");
        let held = transfer(&bed, is_upload, Some(&[&backend, &name, "run", &option, &limit]))
            .with_context(|| format!("{direction} by {name}"))?;
        println!("{direction} by {name}: {held:?}, {free:?} without a limit");
        // What a bucket saves up and a first window of 64 KB are a part of it.
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let least = 0.7 * BYTES as f64 / LIMIT as f64;
        ensure!(
            held.as_secs_f64() > least,
            "{direction} by {name} took {held:?}, at least {least} s were due"
        );
        ensure!(free < held / 2, "{direction} by {name} took {held:?}, and {free:?} without a limit");
        before.assert_returns(&bed, PATIENCE).with_context(|| format!("{direction} by {name}"))?;
    }
    Ok(())
}

#[test]
fn every_backend_holds_an_upload() -> anyhow::Result<()> {
    every_backend_holds_a_transfer("upload")
}

#[test]
fn every_backend_holds_a_download() -> anyhow::Result<()> {
    every_backend_holds_a_transfer("download")
}

#[test]
fn every_monitor_sees_what_a_process_sends() -> anyhow::Result<()> {
    for name in backends("monitor")? {
        let bed = Testbed::new("kernel")?;
        let monitor = Monitor::start_by(chadthrottle(&bed).args(["--monitor-backend", &name]), &[])?;
        let far = bed.server().socket_address(Family::V4, 0).to_string();
        let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &far]))?;
        let address = traffic::ready(&sink)?.to_string();
        let bytes = BYTES.to_string();
        // Slow enough to be seen by who looks now and then.
        let words = ["tcp-send", "--to", &address, "--bytes", &bytes, "--rate", "1000000"];
        let sender = Process::spawn(traffic::command(bed.client())?.args(words))?;
        let pid = sender.pid();
        sink.success(LONG)?;
        let counted = monitor.until(&format!("{name} has seen all of it"), |line| {
            let counted = number(process(line, pid)?, "upload_bytes_total");
            (counted >= BYTES).then_some(counted)
        })?;
        ensure!(counted < BYTES * 6 / 5, "{name} counted {counted} IP bytes for {BYTES} of payload");
    }
    Ok(())
}

#[test]
fn a_kill_leaves_nothing_that_the_next_cleanup_does_not_undo() -> anyhow::Result<()> {
    for name in backends("upload")? {
        let bed = Testbed::new("kernel")?;
        let mut idle = Process::spawn(bed.client().command("sleep").arg("300"))?;
        let before = KernelState::capture(&bed)?;
        let pid = idle.pid().to_string();
        let mut limiter = Process::spawn(chadthrottle(&bed).args([
            "--upload-backend",
            &name,
            "--download-backend",
            "none",
            "--pid",
            &pid,
            "--upload-limit",
            "1M",
        ]))?;
        limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
        limiter.signal(Signal::SIGKILL)?;
        limiter.wait_timeout(LONG)?;
        Process::spawn(chadthrottle(&bed).arg("cleanup"))?.success(LONG)?;
        before.assert_returns(&bed, PATIENCE).with_context(|| format!("after {name}"))?;
        idle.signal(Signal::SIGKILL)?;
        idle.wait_timeout(PATIENCE)?;
    }
    Ok(())
}

#[test]
fn the_kernel_verifies_every_program_with_little_work() -> anyhow::Result<()> {
    let known: BTreeSet<u32> = loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect();
    let bed = Testbed::new("kernel")?;
    let target = Process::spawn(bed.client().command("sleep").arg("300"))?;
    let mut limiter = chadthrottle(&bed);
    limiter.args([
        "--upload-backend",
        "ebpf_cgroup",
        "--pid",
        &target.pid().to_string(),
        "--upload-limit",
        "1M",
    ]);
    let limiter = Process::spawn(&mut limiter)?;
    limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
    let mut seen = BTreeSet::new();
    for program in loaded_programs() {
        let program = program?;
        let Some(name) = program.name_as_str() else { continue };
        let Some(steps) = program.verified_instruction_count().filter(|_| !known.contains(&program.id()))
        else {
            continue;
        };
        println!("{name:<16} {steps:>6} steps, {:>5} bytes", program.size_translated().unwrap_or_default());
        ensure!(steps < STEPS, "{name} takes {steps} steps to verify");
        seen.insert(name.to_owned());
    }
    // The kernel keeps fifteen characters.
    for name in ["packet_leaves", "packet_arrives", "socket_created", "process_forked"] {
        ensure!(seen.contains(name), "{name} is not among {seen:?}");
    }
    Ok(())
}
