//! What the program lives in gives way: it works on, or says why not, and leaves nothing.

mod support;

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use support::{BINARY, PATIENCE, chadthrottle, limit_pid};
use testbed::{KernelState, Process, Testbed};

const BOTH: [&str; 4] = ["--upload-limit", "1M", "--download-limit", "1M"];
const EBPF: [&str; 4] = ["--upload-backend", "ebpf_cgroup", "--download-backend", "ebpf_cgroup"];
const TC: [&str; 4] = ["--upload-backend", "tc_htb", "--download-backend", "ifb_tc"];

/// A process on the client with nothing to do.
fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("60"))
}

/// The program, started by a shell after it has run this.
fn after(bed: &Testbed, preparation: &str, wrapper: &[&str]) -> Command {
    let words = [wrapper, &["sh", "-c"]].concat();
    let mut command = bed.client().command(words[0]);
    command.args(&words[1..]).arg(format!("{preparation} && exec \"$@\"")).args(["sh", BINARY]);
    command.arg("--cgroup-root").arg(bed.cgroup_root()).arg("--no-config");
    command
}

/// Starts a limit and ends it again: what was said, and whether it was in force. However that ends, it must be by an error
/// that is told, and nothing may be left.
fn try_limit(bed: &Testbed, command: &mut Command, target: &Process) -> anyhow::Result<(String, bool)> {
    let before = KernelState::capture(bed)?;
    let mut program = Process::spawn(command.args(["--pid", &target.pid().to_string()]).args(BOTH))?;
    let is_held = program.wait_for_line(|line| line.contains("is held to"), PATIENCE).is_ok();
    if is_held {
        program.signal(Signal::SIGTERM)?;
    }
    let status = program.wait_timeout(PATIENCE)?;
    let said = program.stderr();
    let code = status.code().with_context(|| format!("{status}: {said}"))?;
    ensure!([0, 1, 3, 4].contains(&code), "{status}: {said}");
    ensure!((code == 0) == is_held, "{status}: {said}");
    ensure!(is_held || said.lines().any(|line| line.starts_with("chadthrottle: ")), "it said {said:?}");
    ensure!(!said.contains("panicked"), "{said}");
    before.assert_returns(bed, PATIENCE).with_context(|| format!("it said {said}"))?;
    Ok((said, is_held))
}

#[test]
fn what_needs_a_note_is_refused_where_none_can_be_written() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let target = idle(&bed)?;
    let read_only = "mount -t tmpfs none /run && mount -o remount,ro /run";
    let full = "mount -t tmpfs -o size=4k none /run && head -c 4096 /dev/zero >/run/all";
    for (preparation, cause) in [(read_only, "Read-only file system"), (full, "No space left on device")] {
        let unshared = || after(&bed, preparation, &["unshare", "--mount"]);
        // Nothing of this outlives us: it is done, and told that nobody sees it in `status`.
        let (said, is_held) = try_limit(&bed, unshared().args(EBPF), &target)?;
        assert!(is_held && said.contains(cause) && said.contains("status"), "{said}");
        let (said, is_held) = try_limit(&bed, unshared().args(TC), &target)?;
        assert!(!is_held && said.contains(cause) && said.contains("/run/chadthrottle"), "{said}");
        assert!(said.contains("--list-backends"), "{said}");
    }
    Ok(())
}

#[test]
fn few_descriptors_are_enough_or_told_to_be_too_few() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let target = idle(&bed)?;
    for backends in [EBPF, TC] {
        for most in [24, 64] {
            let mut command = after(&bed, &format!("ulimit -n {most}"), &[]);
            let limited = try_limit(&bed, command.args(backends), &target);
            let (said, is_held) = limited.with_context(|| format!("{backends:?} with {most}"))?;
            assert!(is_held || said.contains("Too many open files"), "{backends:?} with {most}: {said}");
            assert!(is_held || said.contains("ulimit -n"), "{backends:?} with {most}: {said}");
        }
    }
    Ok(())
}

/// Runs `ip` on the client.
fn ip(bed: &Testbed, line: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(["-n", bed.client().namespace()]).args(line.split(' '));
    Process::spawn(&mut command)?.success(PATIENCE).map(drop).with_context(|| line.to_owned())
}

fn has_our_queue(bed: &Testbed, interface: &str) -> anyhow::Result<bool> {
    let mut tc = Command::new("tc");
    tc.args(["-n", bed.client().namespace(), "qdisc", "show"]);
    let queues = Process::spawn(&mut tc)?.success(PATIENCE)?;
    Ok(queues.lines().any(|line| line.contains(" 7cad: ") && line.contains(&format!("dev {interface} "))))
}

#[test]
fn interfaces_come_and_go_and_change_their_names_under_a_limit() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let before = KernelState::capture(&bed)?;
    for backends in [TC, EBPF] {
        let target = idle(&bed)?;
        let is_tc = backends == TC;
        let mut limiter = limit_pid(&bed, target.pid(), &[&BOTH[..], &backends].concat())?;
        let taken = |interface: &str| {
            testbed::until(&format!("{interface} is taken"), PATIENCE, || {
                Ok((!is_tc || has_our_queue(&bed, interface)?).then_some(()))
            })
        };
        ip(&bed, "link add extra type veth peer name extra0")?;
        ip(&bed, "link set extra0 up")?;
        ip(&bed, "link set extra up")?;
        ip(&bed, "addr add 10.99.0.1/24 dev extra")?;
        taken("extra")?;
        ip(&bed, "link set extra down")?;
        ip(&bed, "link set extra name other")?;
        ip(&bed, "link set other up")?;
        taken("other")?;
        ip(&bed, "link del other")?;
        ip(&bed, "link set ctclient down")?;
        ip(&bed, "link set ctclient up")?;
        taken("ctclient")?;
        limiter.signal(Signal::SIGTERM)?;
        let status = limiter.wait_timeout(PATIENCE)?;
        assert!(status.success(), "{status}: {}", limiter.stderr());
        before.assert_returns(&bed, PATIENCE)?;
    }
    bed.close()
}

#[test]
fn a_cgroup_that_is_deleted_takes_its_limit_along_and_nothing_else() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let before = KernelState::capture(&bed)?;
    let cgroup = bed.cgroup("goes")?;
    let mut target = Process::spawn(bed.client().command_in(&cgroup, "sleep")?.arg("60"))?;
    let mut command = chadthrottle(&bed);
    let mut limiter = Process::spawn(command.arg("--cgroup").arg(&cgroup).args(BOTH).args(EBPF))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    target.signal(Signal::SIGKILL)?;
    target.wait_timeout(PATIENCE)?;
    testbed::until("it is deleted", PATIENCE, || Ok(fs::remove_dir(&cgroup).ok()))?;
    let again = bed.cgroup("goes")?;
    fs::remove_dir(again)?;
    limiter.signal(Signal::SIGTERM)?;
    let status = limiter.wait_timeout(PATIENCE)?;
    assert!(status.success(), "{status}: {}", limiter.stderr());
    before.assert_returns(&bed, PATIENCE)
}

/// Also the one that ends before anybody has looked at it.
#[test]
fn a_target_may_end_at_any_step() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let before = KernelState::capture(&bed)?;
    for round in 0..8_u32 {
        // From nothing up to longer than it takes until the limit is in force.
        let life = Duration::from_millis(u64::from(round * round * 6));
        let script = format!("sleep {}", life.as_secs_f64());
        let mut target = Process::spawn(bed.client().command("sh").args(["-c", &script]))?;
        let mut command = chadthrottle(&bed);
        let backends = if round % 2 == 0 { EBPF } else { TC };
        command.args(["--pid", &target.pid().to_string()]).args(BOTH).args(backends);
        let mut limiter = Process::spawn(&mut command)?;
        // Waited for in time, or a zombie for a while.
        target.wait_timeout(PATIENCE)?;
        let status = limiter.wait_timeout(PATIENCE)?;
        let said = limiter.stderr();
        assert!(matches!(status.code(), Some(0 | 1)), "after {life:?}: {status}: {said}");
        assert!(said.contains("chadthrottle: ") && !said.contains("panicked"), "after {life:?}: {said}");
    }
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn hundreds_of_short_processes_of_a_limited_program_are_no_burden() -> anyhow::Result<()> {
    let bed = Testbed::new("around")?;
    let before = KernelState::capture(&bed)?;
    let everybodys = support::Everybodys::new()?;
    let program = everybodys.copy(Path::new("/bin/true"))?;
    for backends in [EBPF, TC] {
        let mut command = chadthrottle(&bed);
        command.arg("--program").arg(&program).args(BOTH).args(backends);
        let mut limiter = Process::spawn(&mut command)?;
        limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
        let script = "for number in $(seq 300); do \"$0\" || exit 1; done";
        let mut shell = bed.client().command("sh");
        Process::spawn(shell.args(["-c", script]).arg(&program))?.success(PATIENCE)?;
        limiter.signal(Signal::SIGTERM)?;
        let status = limiter.wait_timeout(PATIENCE)?;
        let said = limiter.stderr();
        assert!(status.success(), "{status}: {said}");
        let expected = |line: &str| line.contains("is held to") || line.contains("is free again");
        let complaints = said.lines().filter(|line| line.starts_with("chadthrottle: ") && !expected(line));
        assert_eq!(complaints.count(), 0, "{said}");
        // A busy machine may be late once; that each of 300 is told of is what must not be.
        assert!(said.lines().filter(|line| line.contains("WARN")).count() < 10, "{said}");
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}
