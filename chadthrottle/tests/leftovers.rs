//! Nothing is left in the kernel, whatever ended the program.

mod support;

use nix::sys::signal::Signal;
use support::{Monitor, PATIENCE, limit_pid};
use testbed::{KernelState, Process, Testbed};

/// A process on the client with nothing to do.
fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("60"))
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
    let command = ["sh", "-c", "echo started; sleep 60"].map(str::to_owned);
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
