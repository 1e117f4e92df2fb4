//! The cases. Bands are wide, because they must hold on any loaded machine.

use std::time::Duration;

use anyhow::ensure;
use chadthrottle::{backends::throttle::Target, process::ProcessId, sys::proc_children::children};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{Family, Process, Testbed, traffic};

use super::{
    PATIENCE, Subject,
    bystander::options,
    holder,
    peer::{Peer, busy},
    target,
};

/// A case, run on a thread that is on the client's network.
pub(super) type Check = fn(&Testbed, Subject) -> anyhow::Result<()>;

/// All of them, by name.
pub(super) const ALL: [(&str, Check); 7] = [
    ("an_open_connection_is_held_and_freed", an_open_connection_is_held_and_freed),
    ("a_limit_is_changed", a_limit_is_changed),
    ("two_targets_are_held_and_freed_in_any_order", two_targets_are_held_and_freed_in_any_order),
    ("datagrams_are_held_where_it_says_so", datagrams_are_held_where_it_says_so),
    ("children_are_held_together", children_are_held_together),
    ("cleanup_takes_everything_back", cleanup_takes_everything_back),
    ("a_kill_leaves_nothing_after_the_next_start", a_kill_leaves_nothing_after_the_next_start),
];

/// IP bytes a second: above what a receive window can hold on this path, far below what it carries.
const LOW: u64 = 1_000_000;
const HIGH: u64 = 4_000_000;
/// As payload, in which nothing here is exact.
const LOW_RATE: f64 = 1e6;
const HIGH_RATE: f64 = 4e6;
/// What is not limited is at least so fast, in bytes a second.
pub(super) const FREE: f64 = 15e6;

fn an_open_connection_is_held_and_freed(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    for family in Family::ALL {
        let (process, peer) = busy(bed, subject, family)?;
        let (_neighbour, other) = busy(bed, subject, family)?;
        let before = options(process.pid())?;
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limited = target(process.pid())?;
        manager.throttle_process(&limited, subject.limits(LOW))?;
        ensure!(manager.limits(&limited.subject) == subject.limits(LOW), "it tells of another limit");
        peer.is_held(LOW_RATE, "limited")?;
        other.is_free(FREE)?;
        let stats = manager.limited()?;
        let stats = if subject.is_upload { stats[0].upload_stats } else { stats[0].download_stats };
        ensure!(stats.bytes_total > LOW, "it has counted {} bytes in two seconds", stats.bytes_total);
        manager.remove_throttle(&limited.subject)?;
        ensure!(manager.limits(&limited.subject).is_empty(), "it tells of a limit that is gone");
        peer.is_free(FREE)?;
        let now = options(process.pid())?;
        ensure!(now == before, "sockets were {before:?} and are {now:?}");
    }
    Ok(())
}

fn a_limit_is_changed(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let (process, peer) = busy(bed, subject, Family::V4)?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    let limited = target(process.pid())?;
    for (limit, rate) in [(HIGH, HIGH_RATE), (LOW, LOW_RATE), (HIGH, HIGH_RATE)] {
        manager.throttle_process(&limited, subject.limits(limit))?;
        peer.is_held(rate, "changed")?;
    }
    manager.cleanup()?;
    peer.is_free(FREE)
}

fn two_targets_are_held_and_freed_in_any_order(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    for first in [0, 1] {
        let ends = [busy(bed, subject, Family::V4)?, busy(bed, subject, Family::V6)?];
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limits = [(LOW, LOW_RATE), (HIGH, HIGH_RATE)];
        for ((process, _), (limit, _)) in ends.iter().zip(limits) {
            manager.throttle_process(&target(process.pid())?, subject.limits(limit))?;
        }
        for ((_, peer), (_, rate)) in ends.iter().zip(limits) {
            peer.is_held(rate, "one of two")?;
        }
        let second = 1 - first;
        manager.remove_throttle(&target(ends[first].0.pid())?.subject)?;
        ends[first].1.is_free(FREE)?;
        ends[second].1.is_held(limits[second].1, "the one that is left")?;
        manager.remove_throttle(&target(ends[second].0.pid())?.subject)?;
        ends[second].1.is_free(FREE)?;
    }
    Ok(())
}

/// Only what is sent: what is received is counted at the wrong side of whoever drops it.
fn datagrams_are_held_where_it_says_so(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    if !subject.is_upload || !subject.covers_udp {
        return Ok(());
    }
    for family in Family::ALL {
        let peer = Peer::datagrams(bed, family)?;
        let mut command = traffic::command(bed.client())?;
        let process = Process::spawn(command.args(peer.datagram_arguments(HIGH * 2)))?;
        peer.is_free(HIGH_RATE * 1.5)?;
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limited = target(process.pid())?;
        manager.throttle_process(&limited, subject.limits(LOW))?;
        peer.is_held(LOW_RATE, "datagrams")?;
        manager.remove_throttle(&limited.subject)?;
        peer.is_free(HIGH_RATE * 1.5)?;
    }
    Ok(())
}

fn children_are_held_together(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let peer = Peer::start(bed, subject.is_upload, Family::V4)?;
    let binary = traffic::traffic_binary()?.display().to_string();
    let words = [vec![binary], peer.arguments(subject.is_upload)].concat().join(" ");
    // Two children, which are started once the limit is there.
    let script = format!("read line; {words} & {words} & wait");
    let mut shell = Process::spawn(bed.client().command("sh").args(["-c", &script]))?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    manager.throttle_process(
        &Target::descendants(ProcessId::running(i32::try_from(shell.pid())?)?, "sh"),
        subject.limits(HIGH),
    )?;
    shell.send_line("go")?;
    testbed::until("data flows", PATIENCE, || {
        Ok((peer.rate(Duration::from_millis(100)) > HIGH_RATE / 10.0).then_some(()))
    })?;
    peer.is_held(HIGH_RATE, "two children")?;
    manager.cleanup()?;
    peer.is_free(FREE)?;
    for child in children(i32::try_from(shell.pid())?) {
        kill(Pid::from_raw(child), Signal::SIGKILL)?;
    }
    Ok(())
}

fn cleanup_takes_everything_back(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let ends = [busy(bed, subject, Family::V4)?, busy(bed, subject, Family::V6)?];
    let state = || ends.iter().map(|(process, _)| options(process.pid())).collect::<anyhow::Result<Vec<_>>>();
    let before = state()?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    for (process, _) in &ends {
        manager.throttle_process(&target(process.pid())?, subject.limits(LOW))?;
    }
    manager.cleanup()?;
    ensure!(manager.limited()?.is_empty(), "limits are left");
    ends[0].1.is_free(FREE)?;
    ends[1].1.is_free(FREE)?;
    let now = state()?;
    ensure!(now == before, "sockets were {before:?} and are {now:?}");
    Ok(())
}

fn a_kill_leaves_nothing_after_the_next_start(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let (process, peer) = busy(bed, subject, Family::V4)?;
    let mut holder = holder(bed, subject, process.pid(), LOW)?;
    peer.is_held(LOW_RATE, "before the kill")?;
    holder.signal(Signal::SIGKILL)?;
    holder.wait_timeout(PATIENCE)?;
    // The next start, of which nothing is left either.
    let mut manager = subject.manager(bed.cgroup_root())?;
    // Of flow control alone, which has no guard, options outlive a kill.
    if subject.name != "sockopt" {
        peer.is_free(FREE)?;
    }
    manager.cleanup()?;
    Ok(())
}
