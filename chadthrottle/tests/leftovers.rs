//! Nothing is left in the kernel, whatever ended the program.

mod support;

use std::time::Duration;

use chadthrottle::sys::tcp_socket::UNPACED;
use nix::sys::signal::Signal;
use support::{Holder, Monitor, PATIENCE, connection, limit_pid, socket_options};
use testbed::{KernelState, Path, Process, Testbed};

/// A process on the client with nothing to do.
fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("600"))
}

#[test]
fn a_limit_leaves_nothing_behind() -> anyhow::Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let bed = Testbed::new("left")?;
        let target = idle(&bed)?;
        let before = KernelState::capture(&bed)?;
        let options = ["--upload-limit", "1M", "--download-limit", "1M"];
        let mut limiter = limit_pid(&bed, target.pid(), &options)?;
        let during = KernelState::capture(&bed)?;
        assert!(!before.difference(&during).is_empty(), "the capture does not see our programs");
        limiter.signal(signal)?;
        limiter.wait_timeout(PATIENCE)?;
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn a_killed_run_and_a_killed_monitor_leave_nothing_behind() -> anyhow::Result<()> {
    let bed = Testbed::new("left")?;
    let before = KernelState::capture(&bed)?;
    let command = ["sh", "-c", "echo started; sleep 600"].map(str::to_owned);
    let mut run = Process::spawn(&mut support::run_limited(&bed, ["--upload-limit", "1M"], command))?;
    run.wait_for_line(|line| line == "started", PATIENCE)?;
    let monitor = Monitor::start(&bed, &[])?;
    run.signal(Signal::SIGKILL)?;
    run.wait_timeout(PATIENCE)?;
    drop(monitor);
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn listing_backends_changes_nothing() -> anyhow::Result<()> {
    let bed = Testbed::new("left")?;
    let before = KernelState::capture(&bed)?;
    let mut list = bed.client().command(support::BINARY);
    Process::spawn(list.arg("--list-backends"))?.success(PATIENCE)?;
    let difference = before.difference(&KernelState::capture(&bed)?);
    assert!(difference.is_empty(), "{difference}");
    Ok(())
}

const SLOW: [&str; 4] = ["--upload-limit", "200K", "--download-limit", "200K"];

#[test]
fn sockets_are_as_they_were_whatever_ended_the_limit() -> anyhow::Result<()> {
    for signal in [Signal::SIGKILL, Signal::SIGTERM] {
        let bed = Testbed::with_path("left", &Path::round_trip(Duration::from_millis(20)))?;
        let (stream, _far) = connection(&bed)?;
        let before = socket_options(&stream)?;
        assert_eq!((before.0, before.2), (UNPACED, false));
        let holder = Holder::start(bed.client().command("sleep").arg("600"), &stream)?;
        let mut limiter = limit_pid(&bed, holder.pid(), &SLOW)?;
        let (pacing, window, lock) = socket_options(&stream)?;
        assert!(pacing < 250_000 && window < before.1 && lock, "{pacing} {window} {lock}");
        limiter.signal(signal)?;
        limiter.wait_timeout(PATIENCE)?;
        testbed::until("the options are put back", Duration::from_secs(1), || {
            Ok((socket_options(&stream)? == before).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn a_socket_that_outlives_the_limited_process_is_put_back() -> anyhow::Result<()> {
    let bed = Testbed::with_path("left", &Path::round_trip(Duration::from_millis(20)))?;
    let (stream, _far) = connection(&bed)?;
    let before = socket_options(&stream)?;
    let holder = Holder::start(bed.client().command("sleep").arg("600"), &stream)?;
    let limiter = limit_pid(&bed, holder.pid(), &SLOW)?;
    assert_ne!(socket_options(&stream)?, before);
    drop(holder);
    testbed::until("the options are put back", PATIENCE, || {
        Ok((socket_options(&stream)? == before).then_some(()))
    })?;
    drop(limiter);
    Ok(())
}
