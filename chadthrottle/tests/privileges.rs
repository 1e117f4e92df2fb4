//! Capabilities instead of root: those that docs/PRIVILEGES.md lists are enough, each of them is missed by its name, and
//! what is not needed is given up.

mod support;

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::{Context, ensure};
use nix::sys::signal::Signal;
use support::{BINARY, Everybodys, PATIENCE, interface_rate, limit_pid};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
};

const PORT: u16 = 5201;
/// 10M: IP bytes a second.
const LIMIT: f64 = 10e6;

/// What docs/PRIVILEGES.md lists for the programs in the kernel, as setpriv calls them.
const PROGRAMS: [&str; 5] = ["bpf", "perfmon", "net_admin", "sys_ptrace", "dac_read_search"];
/// `CAP_DAC_READ_SEARCH`, `CAP_NET_ADMIN`, `CAP_SYS_PTRACE`, `CAP_PERFMON`, `CAP_BPF` (capabilities(7)).
const PROGRAMS_MASK: u64 = 1 << 2 | 1 << 12 | 1 << 19 | 1 << 38 | 1 << 39;
/// `CAP_SYS_NICE`, which is of use where it is there.
const NICE: u64 = 1 << 23;
const KILL: u64 = 1 << 5;

/// The program, by nobody, with these capabilities and no others.
fn by_nobody(bed: &Testbed, copy: &Path, capabilities: &[&str], backend: &str) -> Command {
    let list = [&["-all"], capabilities].concat().join(",+");
    let mut command = bed.client().command("setpriv");
    command
        .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
        .args([format!("--inh-caps={list}"), format!("--ambient-caps={list}"), "--".into()])
        .arg(copy)
        .arg("--cgroup-root")
        .arg(bed.cgroup_root())
        .args(["--no-config", "--upload-backend", backend, "--download-backend", backend])
        .current_dir("/");
    command
}

/// A field of /proc/PID/status that is bits.
fn bits(pid: u32, field: &str) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let value = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    Ok(u64::from_str_radix(value.with_context(|| format!("no {field}"))?.trim(), 16)?)
}

/// Every thread's, since each has its own.
fn effective(pid: u32) -> anyhow::Result<Vec<u64>> {
    let threads: Vec<u32> = fs::read_dir(format!("/proc/{pid}/task"))?
        .filter_map(|thread| thread.ok()?.file_name().to_string_lossy().parse().ok())
        .collect();
    // One that has ended between two looks has none.
    let all: Vec<u64> = threads.into_iter().filter_map(|thread| bits(thread, "CapEff").ok()).collect();
    ensure!(!all.is_empty(), "no thread of {pid} can be looked at");
    Ok(all)
}

#[test]
fn nobody_limits_anothers_process_with_the_capabilities_that_are_listed() -> anyhow::Result<()> {
    let bed = Testbed::new("caps")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(300);
    // Root's, open before the limit.
    let iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    let pid = iperf3.pid().to_string();
    let rate = |milliseconds| {
        let interface = bed.server().interfaces()[0];
        interface_rate(bed.server(), interface, "rx", Duration::from_millis(milliseconds))
    };
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate(200)? > 50e6).then_some(())))?;
    let programs = Everybodys::new()?;
    let copy = programs.copy(BINARY.as_ref())?;
    let limit = |capabilities: &[&str], backend: &str| -> anyhow::Result<Process> {
        let mut command = by_nobody(&bed, &copy, capabilities, backend);
        Process::spawn(command.args(["--pid", &pid, "--upload-limit", "10M"]))
    };

    let refused = |others: &[&str], backend: &str, missing: &str| -> anyhow::Result<()> {
        let mut limiter = limit(others, backend)?;
        let status = limiter.wait_timeout(PATIENCE)?;
        let name = format!("CAP_{}", missing.to_uppercase());
        assert!(limiter.stderr().contains(&name), "{backend} without {missing}: {}", limiter.stderr());
        assert_eq!(status.code(), Some(3), "{backend} without {missing}: {}", limiter.stderr());
        Ok(())
    };
    for missing in PROGRAMS {
        let others: Vec<&str> = PROGRAMS.into_iter().filter(|name| *name != missing).collect();
        refused(&others, "ebpf_cgroup", missing)?;
    }
    // Of another user's process it could not see which sockets there are.
    refused(&["sys_ptrace"], "sockopt", "dac_read_search")?;

    let mut limiter = limit(&PROGRAMS, "ebpf_cgroup")?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    assert_eq!(bits(limiter.pid(), "CapPrm")?, PROGRAMS_MASK);
    testbed::until("the limit holds", PATIENCE, || Ok((rate(500)? < 1.6 * LIMIT).then_some(())))?;
    limiter.signal(Signal::SIGTERM)?;
    let status = limiter.wait_timeout(PATIENCE)?;
    ensure!(status.success(), "{status}: {}", limiter.stderr());
    testbed::until("iperf3 is free again", PATIENCE, || Ok((rate(200)? > 3.0 * LIMIT).then_some(())))
}

#[test]
fn root_gives_up_what_is_not_needed_and_its_command_does_not() -> anyhow::Result<()> {
    let bed = Testbed::new("caps")?;
    let ours = bits(std::process::id(), "CapEff")?;
    let bound = bits(std::process::id(), "CapBnd")?;
    let sleep = Process::spawn(bed.client().command("sleep").arg("60"))?;
    let options = ["--upload-limit", "1M", "--upload-backend", "ebpf_cgroup", "--download-backend", "none"];
    let limiter = limit_pid(&bed, sleep.pid(), &options)?;
    let wanted = ours & (PROGRAMS_MASK | NICE);
    let of_threads = effective(limiter.pid())?;
    assert!(of_threads.iter().all(|held| *held == wanted), "{of_threads:x?} and not {wanted:x}");
    assert_eq!(bits(limiter.pid(), "CapBnd")?, bound & (PROGRAMS_MASK | NICE));
    drop(limiter);

    let mut run = support::chadthrottle(&bed);
    run.args(["run"]).args(options).args(["--", "sh", "-c", "cat /proc/$PPID/status /proc/self/status"]);
    let text = Process::spawn(&mut run)?.success(PATIENCE)?;
    let both = |field: &str| -> Vec<u64> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        lines.filter_map(|value| u64::from_str_radix(value.trim(), 16).ok()).collect()
    };
    assert_eq!(both("CapEff"), [ours & (PROGRAMS_MASK | NICE | KILL), ours], "{text}");
    assert_eq!(both("CapBnd"), [bound & (PROGRAMS_MASK | NICE | KILL), bound], "{text}");
    assert_eq!(both("NoNewPrivs"), [0, 0], "{text}");
    Ok(())
}
