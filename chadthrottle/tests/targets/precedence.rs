//! A process is held by one limit alone, the most specific one.

use std::{path::Path, process::Command, time::Duration};

use anyhow::Context;
use chadthrottle::{backends::throttle::Subject, process::ProcessId};
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    inside::Inside,
    rig::{Copies, Meter, Sink, holds, send_few, send_for},
    support::PATIENCE,
};

/// A sender that is in all of it: a child of this shell, nobody's, of a program of its own, in a cgroup of its own.
struct Everything {
    _parent: Process,
    subjects: [Subject; 5],
}

fn start(bed: &Testbed, copies: &Copies, arguments: &[String]) -> anyhow::Result<Everything> {
    let (program, cgroup) = (copies.traffic("sender")?, bed.cgroup("in.service")?);
    let mut command: Command = bed.client().command_in(&cgroup, "setpriv")?;
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).current_dir("/");
    command.args(["sh", "-c", "\"$@\" & echo child $!; wait", "sh"]).arg(&program).args(arguments);
    let parent = Process::spawn(&mut command)?;
    let child = parent.wait_for_line(|line| line.starts_with("child "), PATIENCE)?;
    traffic::ready(&parent)?;
    let id = |pid: i32| ProcessId::running(pid);
    let child = id(child.trim_start_matches("child ").parse()?)?;
    let name = bed.cgroup_root().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    let subjects = [
        Subject::Process(child),
        Subject::Descendants(id(parent.pid().cast_signed())?),
        Subject::Program(program),
        Subject::Cgroup(format!("/{name}/in.service")),
        Subject::User(65534),
    ];
    Ok(Everything { _parent: parent, subjects })
}

/// Until what had been saved up under a limit that was not in use has gone.
fn settle() {
    std::thread::sleep(Duration::from_millis(400));
}

#[test]
fn the_most_specific_limit_holds_and_the_next_one_when_it_goes() -> anyhow::Result<()> {
    const LIMITS: [u64; 5] = [400_000, 700_000, 1_000_000, 1_300_000, 1_600_000];
    let (bed, copies) = (Testbed::new("precedence")?, Copies::new()?);
    let sink = Sink::start(bed.server(), Family::V4)?;
    let everything = start(&bed, &copies, &send_for(sink.address, 2_500_000, "60"))?;
    let mut limits = Inside::alone(&bed)?;
    // From the general one to the most specific, and back.
    let all: Vec<_> = everything.subjects.iter().zip(LIMITS).collect();
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    for &(subject, limit) in all.iter().rev() {
        limits.set(subject, Some(limit), None)?;
        settle();
        holds(&bed, limit as f64, &format!("with {subject}"))?;
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    for pair in all.windows(2) {
        limits.set(pair[0].0, None, None)?;
        settle();
        holds(&bed, pair[1].1 as f64, &format!("without {}", pair[0].0))?;
    }
    limits.set(all[4].0, None, None)?;
    let free = Meter::rate(&bed, Duration::from_millis(600))?;
    assert!(free > 2.2e6, "{free} B/s without limits");
    Ok(())
}

#[test]
fn flow_control_keeps_to_it_too() -> anyhow::Result<()> {
    let path = testbed::Path::round_trip(Duration::from_millis(20));
    let (bed, copies) = (Testbed::with_path("precedence", &path)?, Copies::new()?);
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    let send = ["tcp-send", "--to", &to, "--seconds", "60"].map(str::to_owned);
    let everything = start(&bed, &copies, &send)?;
    let mut limits = Inside::with_flow(&bed)?;
    let [process, _, program, cgroup, _] = &everything.subjects;
    // What is the most specific allows more than what is not.
    for (subject, limit) in [(cgroup, 500_000), (program, 1_000_000), (process, 4_000_000)] {
        limits.set(subject, Some(limit), None)?;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        comes_to_hold(&bed, limit as f64).with_context(|| format!("with {subject}"))?;
    }
    limits.set(process, None, None)?;
    comes_to_hold(&bed, 1e6).context("without the process")
}

/// Waits until TCP, which takes a while to become faster, has come to its limit.
fn comes_to_hold(bed: &Testbed, cap: f64) -> anyhow::Result<()> {
    testbed::until("the rate is what the limit allows", PATIENCE, || {
        let rate = Meter::rate(bed, Duration::from_secs(1))?;
        println!("{rate} B/s, limited to {cap}");
        Ok((0.85..1.1).contains(&(rate / cap)).then_some(()))
    })
}

#[test]
fn a_child_of_a_limited_process_is_free_of_its_program_when_it_executes_another() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("precedence")?, Copies::new()?);
    let (shell, other) = (copies.of(Path::new("/bin/sh"), "shell")?, copies.traffic("other")?);
    let sink = Sink::start(bed.server(), Family::V4)?;
    let mut command = bed.client().command(&shell);
    command.args(["-c", "echo started; read line; \"$@\"; exit", "sh"]).arg(&other);
    let mut parent = Process::spawn(command.args(send_few(sink.address)))?;
    parent.wait_for_line(|line| line == "started", PATIENCE)?;
    let mut limits = Inside::alone(&bed)?;
    limits.set(&Subject::Program(shell), Some(0), None)?;
    limits.set(&Subject::Process(ProcessId::running(parent.pid().cast_signed())?), Some(0), None)?;
    parent.send_line("")?;
    parent.success(PATIENCE)?;
    assert!(sink.report()?.datagrams > 20, "the child is held for what it was");
    Ok(())
}

#[test]
fn one_file_by_two_names_keeps_the_limit_of_one_when_that_of_the_other_goes() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("precedence")?, Copies::new()?);
    let one = copies.traffic("one")?;
    let two = one.with_file_name("two");
    std::fs::hard_link(&one, &two)?;
    let mut limits = Inside::alone(&bed)?;
    for subject in [&one, &two] {
        limits.set(&Subject::Program(subject.clone()), Some(0), None)?;
    }
    for gone in [&one, &two] {
        for program in [&one, &two] {
            assert!(!crate::rig::comes_through(&bed, &mut bed.client().command(program))?);
        }
        limits.set(&Subject::Program(gone.clone()), None, None)?;
    }
    assert!(crate::rig::comes_through(&bed, &mut bed.client().command(&one))?);
    Ok(())
}
