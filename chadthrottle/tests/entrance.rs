//! `ifb_tc` and `tc_police` on real traffic, through the binary: datagrams are held where they arrive, on interfaces that
//! come later too, others are not touched, and everything is as it was afterwards.

mod support;

use std::{fs, path::Path, process::Command};

use chadthrottle::sys::proc_children::children;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use support::PATIENCE;
use testbed::{Family, Feature, Host, KernelState, Process, Testbed, at_least, skip_unless, traffic};

const BACKENDS: [&str; 2] = ["ifb_tc", "tc_police"];
const LIMIT: f64 = 2e6;
/// Bytes of payload in a datagram, and what each sender offers.
const SIZE: u32 = 1000;
const OFFERED: &str = "5000000";

fn chadthrottle(bed: &Testbed, backend: &str) -> Command {
    let mut command = support::chadthrottle(bed);
    command.args(["--download-backend", backend]);
    command
}

/// The same on a kernel that says that it is of another release.
fn on_kernel(bed: &Testbed, version: &str, backend: &str) -> anyhow::Result<Command> {
    let release = tempfile::NamedTempFile::new()?;
    fs::write(&release, format!("{version}-test\n"))?;
    let (_, path) = release.keep()?;
    let script = "mount --bind \"$0\" /proc/sys/kernel/osrelease && rm \"$0\" && exec \"$@\"";
    let mut command = bed.client().command("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(path).arg(support::BINARY);
    command.arg("--cgroup-root").arg(bed.cgroup_root()).args(["--download-backend", backend]);
    Ok(command)
}

/// Whether to leave a backend out because this kernel cannot send packets to an IFB.
fn skip(bed: &Testbed, backend: &str) -> anyhow::Result<bool> {
    Ok(backend == "ifb_tc" && skip_unless(bed, Feature::RedirectToIfb)?)
}

/// Starts `chadthrottle --pid` and waits until the limit is in force.
fn limit_pid(mut command: Command, pid: u32) -> anyhow::Result<Process> {
    let limiter = Process::spawn(command.args(["--pid", &pid.to_string(), "--download-limit", "2M"]))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// The same for all in a cgroup.
fn limit_cgroup(mut command: Command, cgroup: &Path) -> anyhow::Result<Process> {
    let limiter = Process::spawn(command.arg("--cgroup").arg(cgroup).args(["--download-limit", "2M"]))?;
    limiter.wait_for_line(|line| line.contains("held to"), PATIENCE)?;
    Ok(limiter)
}

fn ip(host: &Host, words: &[&str]) -> anyhow::Result<String> {
    Process::spawn(host.command(words[0]).args(&words[1..]))?.success(PATIENCE)
}

/// A receiver of datagrams, once it receives.
fn sink(mut command: Command, listen: &str) -> anyhow::Result<Process> {
    // The limiter may take its time to begin.
    let until = ["--idle-exit", "1500", "--first-wait", "60000"];
    let sink = Process::spawn(command.args(["udp-sink", "--listen", listen]).args(until))?;
    traffic::ready(&sink)?;
    Ok(sink)
}

fn send(bed: &Testbed, to: &str) -> anyhow::Result<Process> {
    send_sized(bed, to, SIZE, &[])
}

fn send_sized(bed: &Testbed, to: &str, size: u32, options: &[&str]) -> anyhow::Result<Process> {
    let words = ["udp-send", "--to", to, "--rate", OFFERED, "--size", &size.to_string(), "--seconds", "3"];
    Process::spawn(traffic::command(bed.server())?.args(words).args(options))
}

/// IP bytes a second that arrived, from a second and a half on, over the limit: less than that where a sender that comes late to the
/// CPU sends more at once than the queue takes.
fn achieved(sink: Process, family: Family) -> anyhow::Result<f64> {
    achieved_sized(sink, SIZE, if family == Family::V4 { 28 } else { 48 })
}

/// The same of datagrams with so many bytes of headers in all of their fragments.
fn achieved_sized(sink: Process, size: u32, headers: u32) -> anyhow::Result<f64> {
    let report = traffic::Report::parse(&sink.success(PATIENCE)?)?;
    Ok(report.timeline.rate_between(1.5, 2.8) * f64::from(size + headers) / f64::from(size) / LIMIT)
}

#[test]
fn datagrams_are_held_where_they_arrive_and_others_are_not() -> anyhow::Result<()> {
    for (backend, family) in BACKENDS.into_iter().zip(Family::ALL) {
        let bed = Testbed::new("enter")?;
        if skip(&bed, backend)? {
            continue;
        }
        let before = KernelState::capture(&bed)?;
        let [to, other] = [4000, 4001].map(|port| bed.client().socket_address(family, port).to_string());
        let receiver = sink(traffic::command(bed.client())?, &to)?;
        let neighbour = sink(traffic::command(bed.client())?, &other)?;
        let mut limiter = limit_pid(chadthrottle(&bed, backend), receiver.pid())?;
        let senders = [send(&bed, &to)?, send(&bed, &other)?];
        let (held, free) = (achieved(receiver, family)?, achieved(neighbour, family)?);
        println!("{backend}: {held:.3}, and {free:.3} beside it");
        assert!((0.2..1.1).contains(&held), "{backend}: {held:.3}");
        assert!(free > at_least(1.3), "{backend}: a neighbour had {free:.3}");
        limiter.signal(Signal::SIGTERM)?;
        limiter.wait_timeout(PATIENCE)?;
        drop(senders);
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

/// Of which the first of six fragments alone has ports, and that of IPv6 behind two extension headers and one between.
#[test]
fn datagrams_in_fragments_are_held_as_wholes() -> anyhow::Result<()> {
    let size = 8000;
    for (backend, family) in BACKENDS.into_iter().zip(Family::ALL) {
        let bed = Testbed::new("enter")?;
        if skip(&bed, backend)? {
            continue;
        }
        let to = bed.client().socket_address(family, 4000).to_string();
        let receiver = sink(traffic::command(bed.client())?, &to)?;
        let limiter = limit_pid(chadthrottle(&bed, backend), receiver.pid())?;
        let (options, headers) = match family {
            Family::V4 => (&[][..], 6 * 20 + 8),
            Family::V6 => (&["--extended"][..], 6 * (40 + 8 + 8) + 8 + 8),
        };
        let sender = send_sized(&bed, &to, size, options)?;
        let held = achieved_sized(receiver, size, headers)?;
        println!("{backend}: {held:.3}");
        // Were they dropped one by one, next to none would be whole.
        assert!((0.2..1.1).contains(&held), "{backend}: {held:.3}");
        drop((sender, limiter));
    }
    Ok(())
}

#[test]
fn a_unit_is_held_on_an_interface_that_comes_later() -> anyhow::Result<()> {
    let bed = Testbed::new("enter")?;
    let unit = bed.cgroup("held")?;
    let receiver = sink(bed.client().command_in(&unit, traffic::traffic_binary()?)?, "0.0.0.0:4000")?;
    let limiter = limit_cgroup(chadthrottle(&bed, "tc_police"), &unit)?;

    let (near, far) = (bed.client(), bed.server());
    let peer = ["peer", "name", "other", "netns", far.namespace()];
    ip(near, &[&["ip", "link", "add", "late", "type", "veth"][..], &peer].concat())?;
    for (host, name, network) in [(near, "late", "10.99.1.1/24"), (far, "other", "10.99.1.2/24")] {
        ip(host, &["ip", "address", "add", network, "dev", name])?;
        ip(host, &["ip", "link", "set", name, "up"])?;
    }
    let sender = send(&bed, "10.99.1.1:4000")?;
    let held = achieved(receiver, Family::V4)?;
    println!("{held:.3}");
    assert!((0.2..1.1).contains(&held), "{held:.3}");
    drop((sender, limiter));
    Ok(())
}

#[test]
fn filters_that_somebody_else_has_at_the_entrance_stay() -> anyhow::Result<()> {
    for (backend, has_links) in [("ifb_tc", true), ("tc_police", false)] {
        let bed = Testbed::new("enter")?;
        if skip(&bed, backend)? {
            continue;
        }
        let interface = bed.client().interfaces()[0];
        ip(bed.client(), &["tc", "qdisc", "add", "dev", interface, "clsact"])?;
        let filter = ["tc", "filter", "add", "dev", interface, "ingress", "protocol", "ip", "prio", "7"];
        let what = ["u32", "match", "ip", "dport", "9", "0xffff", "flowid", "1:1"];
        ip(bed.client(), &[&filter[..], &what].concat())?;
        let before = KernelState::capture(&bed)?;
        let idle = Process::spawn(bed.client().command("sleep").arg("600"))?;
        let command =
            if has_links { chadthrottle(&bed, backend) } else { on_kernel(&bed, "6.5.0", backend)? };
        let mut limiter = limit_pid(command, idle.pid())?;
        let filters = ip(bed.client(), &["tc", "filter", "show", "dev", interface, "ingress"])?;
        assert!(filters.contains("pref 7 "), "{filters}");
        assert_eq!(filters.contains("chadthrottle"), !has_links, "{filters}");
        limiter.signal(Signal::SIGTERM)?;
        limiter.wait_timeout(PATIENCE)?;
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

#[test]
fn without_links_filters_do_the_same_and_are_taken_back() -> anyhow::Result<()> {
    let bed = Testbed::new("enter")?;
    if skip(&bed, "ifb_tc")? {
        return Ok(());
    }
    let before = KernelState::capture(&bed)?;
    let to = bed.client().socket_address(Family::V4, 4000).to_string();
    let unit = bed.cgroup("held")?;
    let receiver = sink(bed.client().command_in(&unit, traffic::traffic_binary()?)?, &to)?;
    let mut limiter = limit_cgroup(on_kernel(&bed, "6.5.0", "ifb_tc")?, &unit)?;
    let sender = send(&bed, &to)?;
    let held = achieved(receiver, Family::V4)?;
    println!("{held:.3}");
    assert!((0.2..1.1).contains(&held), "{held:.3}");
    drop(sender);
    limiter.signal(Signal::SIGKILL)?;
    limiter.wait_timeout(PATIENCE)?;
    fs::remove_dir(unit)?;
    // By the guard.
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn cleanup_removes_the_ifb_of_one_that_was_killed_with_its_guard_and_no_other() -> anyhow::Result<()> {
    let bed = Testbed::new("enter")?;
    if skip(&bed, "ifb_tc")? {
        return Ok(());
    }
    ip(bed.client(), &["ip", "link", "add", "chadifb1", "type", "ifb"])?;
    let before = KernelState::capture(&bed)?;
    let idle = Process::spawn(bed.client().command("sleep").arg("600"))?;
    let mut limiter = limit_pid(chadthrottle(&bed, "ifb_tc"), idle.pid())?;
    let cleanup = |options: &[&str]| -> anyhow::Result<String> {
        Process::spawn(bed.client().command(support::BINARY).arg("cleanup").args(options))?.success(PATIENCE)
    };
    // Of one that runs nothing is removed, but what others left may be.
    assert!(!cleanup(&[])?.contains("chadifb"));
    let name = format!("chadifb{}", limiter.pid());
    // And what somebody else removes comes back.
    ip(bed.client(), &["ip", "link", "delete", &name])?;
    testbed::until("it is made again", PATIENCE, || {
        let classes = ip(bed.client(), &["tc", "class", "show", "dev", &name]);
        Ok(classes.is_ok_and(|classes| classes.contains("htb 7caf:1")).then_some(()))
    })?;
    // Nobody is left to undo it.
    for guard in children(i32::try_from(limiter.pid())?) {
        kill(Pid::from_raw(guard), Signal::SIGKILL)?;
    }
    limiter.signal(Signal::SIGKILL)?;
    limiter.wait_timeout(PATIENCE)?;
    assert!(cleanup(&["--dry-run"])?.contains(&name));
    let removed = cleanup(&[])?;
    assert!(removed.contains(&format!("removed the interface {name}")), "{removed}");
    before.assert_returns(&bed, PATIENCE)?;
    assert!(!cleanup(&[])?.contains("chadifb"));
    Ok(())
}

/// It would not hold but lose everything: `__bpf_tx_skb` (net/core/filter.c) marks no packet as redirected before Linux 6.4.
#[test]
fn before_the_kernel_can_send_to_an_ifb_it_is_refused() -> anyhow::Result<()> {
    let bed = Testbed::new("enter")?;
    let idle = Process::spawn(bed.client().command("sleep").arg("600"))?;
    let mut command = on_kernel(&bed, "6.3.9", "ifb_tc")?;
    let mut limiter =
        Process::spawn(command.args(["--pid", &idle.pid().to_string(), "--download-limit", "2M"]))?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(4), "{}", limiter.stderr());
    assert!(limiter.stderr().contains("Linux 6.4"), "{}", limiter.stderr());
    Ok(())
}
