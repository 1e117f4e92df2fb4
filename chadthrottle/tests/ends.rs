//! Whatever ends the program, its limits end with it, the rest of the teardown is not kept from being done, and the exit
//! status says what happened. SIGKILL and SIGABRT are in `lifetimes`.

mod support;

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::{BINARY, PATIENCE, chadthrottle, limit_pid};
use testbed::{KernelState, Process, Testbed};

const BOTH: [&str; 4] = ["--upload-limit", "1M", "--download-limit", "1M"];
const QUEUE: [&str; 6] = ["--upload-limit", "1M", "--upload-backend", "tc_htb", "--download-backend", "none"];

fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("600"))
}

#[test]
fn a_limit_ends_with_every_signal() -> anyhow::Result<()> {
    for options in [&BOTH[..], &QUEUE] {
        let bed = Testbed::new("ends")?;
        let target = idle(&bed)?;
        let before = KernelState::capture(&bed)?;
        for signal in [Signal::SIGINT, Signal::SIGHUP, Signal::SIGQUIT] {
            let mut limiter = limit_pid(&bed, target.pid(), options)?;
            limiter.signal(signal)?;
            assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{signal}: {}", limiter.stderr());
            assert!(limiter.stderr().contains("is free again"), "{signal}: {}", limiter.stderr());
        }
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn a_command_ends_by_the_signal_that_was_meant_for_it() -> anyhow::Result<()> {
    let bed = Testbed::new("ends")?;
    for (signal, status) in [(Signal::SIGHUP, 129), (Signal::SIGQUIT, 131), (Signal::SIGTERM, 143)] {
        // No shell: some ignore one of these until they have become somebody else.
        let command = ["cat".to_owned()];
        let mut run = Process::spawn(&mut support::run_limited(&bed, ["--upload-limit", "1M"], command))?;
        run.send_line("ready")?;
        run.wait_for_line(|line| line == "ready", PATIENCE)?;
        run.signal(signal)?;
        assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(status), "{}", run.stderr());
    }
    Ok(())
}

#[test]
fn a_limit_ends_as_it_should_where_nobody_hears_of_it() -> anyhow::Result<()> {
    for options in [&BOTH[..], &QUEUE] {
        let bed = Testbed::new("ends")?;
        let target = idle(&bed)?;
        let before = KernelState::capture(&bed)?;
        let mut command = chadthrottle(&bed);
        command.args(["--pid", &target.pid().to_string()]).args(options);
        let mut limiter =
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut said = BufReader::new(limiter.stderr.take().context("a pipe")?);
        let mut line = String::new();
        while !line.contains("is held to") {
            line.clear();
            ensure!(said.read_line(&mut line)? > 0, "it has ended");
        }
        // From now on whatever it says is an error (EPIPE).
        drop(said);
        kill(Pid::from_raw(limiter.id().cast_signed()), Signal::SIGTERM)?;
        let status = testbed::until("it ends", PATIENCE, || Ok(limiter.try_wait()?))?;
        assert_eq!(status.code(), Some(0), "{options:?}");
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn a_limit_ends_with_its_terminal() -> anyhow::Result<()> {
    testbed::require_program("tmux")?;
    let bed = Testbed::new("ends")?;
    let target = idle(&bed)?;
    let before = KernelState::capture(&bed)?;
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir()?;
    let socket = directory.path().join("tmux");
    let tmux = |arguments: &[&str]| -> anyhow::Result<String> {
        let output = bed.client().command("tmux").arg("-S").arg(&socket).args(arguments).output()?;
        ensure!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    };
    let (pid, cgroup) = (target.pid(), bed.cgroup_root().display().to_string());
    let line = format!("{BINARY} --cgroup-root {cgroup} --pid {pid} {}", QUEUE.join(" "));
    tmux(&["-f", "/dev/null", "new-session", "-d", "-x", "160", "-y", "24", &line])?;
    let held = testbed::until("the limit is in force", PATIENCE, || {
        Ok(tmux(&["capture-pane", "-p"])?.contains("is held to").then_some(()))
    });
    let during = KernelState::capture(&bed)?;
    // The server goes, and with it the terminal.
    tmux(&["kill-server"])?;
    held?;
    assert!(before.difference(&during).contains("htb"), "the queue is not seen");
    before.assert_returns(&bed, PATIENCE)?;
    let status = Process::spawn(Command::new(BINARY).args(["status", "--json"]))?.success(PATIENCE)?;
    assert!(!status.contains(&format!("\"pid\":{pid},")), "{status}");
    Ok(())
}
