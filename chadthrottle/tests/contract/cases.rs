//! The cases. Bands are wide, because they must hold on any loaded machine.

use std::time::Duration;

use anyhow::ensure;
use chadthrottle::{
    backends::throttle::{Target, ThrottleManager},
    process::ProcessId,
    sys::proc_children::children,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use testbed::{Family, Process, Testbed, at_least, is_emulated, traffic};

use super::{
    PATIENCE, Subject,
    bystander::options,
    holder,
    peer::{Peer, busy, bytes},
    subjects, target,
};

/// A case, run on a thread that is on the client's network.
pub(super) type Check = fn(&Testbed, Subject) -> anyhow::Result<()>;

/// All of them, by name.
pub(super) const ALL: [(&str, Check); 8] = [
    ("an_open_connection_is_held_and_freed", an_open_connection_is_held_and_freed),
    ("a_limit_is_changed", a_limit_is_changed),
    ("two_targets_are_held_and_freed_in_any_order", two_targets_are_held_and_freed_in_any_order),
    ("datagrams_are_held_where_it_says_so", datagrams_are_held_where_it_says_so),
    ("limits_are_taken_over", limits_are_taken_over),
    ("children_are_held_together", children_are_held_together),
    ("cleanup_takes_everything_back", cleanup_takes_everything_back),
    ("a_kill_leaves_nothing_after_the_next_start", a_kill_leaves_nothing_after_the_next_start),
];

/// Those in which it matters how packets are tagged. `nftables` has its sockets tagged in all of them.
pub(super) const BY_SOCKETS: [&str; 2] =
    ["an_open_connection_is_held_and_freed", "a_kill_leaves_nothing_after_the_next_start"];

/// Rates in bytes a second, of IP or of payload, in which nothing here is exact.
#[derive(Clone, Copy)]
pub(super) struct Rates {
    /// Limits: above what a receive window can hold on this path, far below what it carries.
    low: u64,
    high: u64,
    /// What is not limited is at least so fast, and faster than any limit.
    pub(super) free: u64,
    /// Of datagrams, each of which is a call and a packet, so many bytes are offered, and three quarters of them come.
    datagrams: u64,
}

/// Those for this machine. All bounds are relative to them.
pub(super) fn rates() -> Rates {
    if is_emulated() {
        Rates { low: 500_000, high: 2_000_000, free: 3_000_000, datagrams: 1_500_000 }
    } else {
        Rates { low: 1_000_000, high: 4_000_000, free: 15_000_000, datagrams: 8_000_000 }
    }
}

fn an_open_connection_is_held_and_freed(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, free, .. } = rates();
    for family in Family::ALL {
        let (process, peer) = busy(bed, subject, family)?;
        let (_neighbour, other) = busy(bed, subject, family)?;
        let before = options(process.pid())?;
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limited = target(process.pid())?;
        manager.throttle_process(&limited, subject.limits(low))?;
        ensure!(manager.limits(&limited.subject) == subject.limits(low), "it tells of another limit");
        peer.is_held(low, "limited")?;
        other.is_free(free)?;
        let stats = manager.limited()?;
        let stats = if subject.is_upload { stats[0].upload_stats } else { stats[0].download_stats };
        let least = at_least(bytes(low));
        ensure!(
            bytes(stats.bytes_total) > least,
            "it has counted {} bytes in two seconds",
            stats.bytes_total
        );
        manager.remove_throttle(&limited.subject)?;
        ensure!(manager.limits(&limited.subject).is_empty(), "it tells of a limit that is gone");
        peer.is_free(free)?;
        let now = options(process.pid())?;
        ensure!(now == before, "sockets were {before:?} and are {now:?}");
    }
    Ok(())
}

fn a_limit_is_changed(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, high, free, .. } = rates();
    let (process, peer) = busy(bed, subject, Family::V4)?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    let limited = target(process.pid())?;
    for limit in [high, low, high] {
        manager.throttle_process(&limited, subject.limits(limit))?;
        peer.is_held(limit, "changed")?;
    }
    manager.cleanup()?;
    peer.is_free(free)
}

fn two_targets_are_held_and_freed_in_any_order(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, high, free, .. } = rates();
    for first in [0, 1] {
        let ends = [busy(bed, subject, Family::V4)?, busy(bed, subject, Family::V6)?];
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limits = [low, high];
        for ((process, _), limit) in ends.iter().zip(limits) {
            manager.throttle_process(&target(process.pid())?, subject.limits(limit))?;
        }
        for ((_, peer), limit) in ends.iter().zip(limits) {
            peer.is_held(limit, "one of two")?;
        }
        let second = 1 - first;
        manager.remove_throttle(&target(ends[first].0.pid())?.subject)?;
        ends[first].1.is_free(free)?;
        ends[second].1.is_held(limits[second], "the one that is left")?;
        manager.remove_throttle(&target(ends[second].0.pid())?.subject)?;
        ends[second].1.is_free(free)?;
    }
    Ok(())
}

/// Only what is sent: what is received is counted at the wrong side of whoever drops it.
fn datagrams_are_held_where_it_says_so(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, datagrams, .. } = rates();
    if !subject.is_upload || !subject.covers_udp {
        return Ok(());
    }
    for family in Family::ALL {
        let peer = Peer::datagrams(bed, family)?;
        let mut command = traffic::command(bed.client())?;
        let process = Process::spawn(command.args(peer.datagram_arguments(datagrams)))?;
        peer.is_free(datagrams * 3 / 4)?;
        let mut manager = subject.manager(bed.cgroup_root())?;
        let limited = target(process.pid())?;
        manager.throttle_process(&limited, subject.limits(low))?;
        peer.is_held(low, "datagrams")?;
        manager.remove_throttle(&limited.subject)?;
        peer.is_free(datagrams * 3 / 4)?;
    }
    Ok(())
}

/// Between two that hold by the same programs: each leaves alone what the other holds there.
fn limits_are_taken_over(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    const OTHER: &str = "ebpf_cgroup";
    let there_is_another =
        subjects()?.iter().any(|(other, refusal)| other.name == OTHER && refusal.is_none());
    if subject.name != "tc_htb" || !there_is_another {
        return Ok(());
    }
    let Rates { low, datagrams, .. } = rates();
    // Datagrams, which flow control does not hold.
    let peer = Peer::datagrams(bed, Family::V4)?;
    let mut command = traffic::command(bed.client())?;
    let process = Process::spawn(command.args(peer.datagram_arguments(datagrams)))?;
    peer.is_free(datagrams * 3 / 4)?;
    let backends = subject.backends(bed.cgroup_root());
    let other = backends.select_upload_backend(Some(OTHER))?;
    let mut manager = ThrottleManager::new(other, None)?;
    manager.throttle_process(&target(process.pid())?, subject.limits(low))?;
    for name in [subject.name, OTHER] {
        manager.use_upload(backends.select_upload_backend(Some(name))?)?;
        peer.is_held(low, name)?;
    }
    manager.cleanup()?;
    peer.is_free(datagrams * 3 / 4)
}

fn children_are_held_together(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { high, free, .. } = rates();
    let peer = Peer::start(bed, subject.is_upload, Family::V4)?;
    let binary = traffic::traffic_binary()?.display().to_string();
    let words = [vec![binary], peer.arguments(subject.is_upload)].concat().join(" ");
    // Two children, which are started once the limit is there.
    let script = format!("read line; {words} & {words} & wait");
    let mut shell = Process::spawn(bed.client().command("sh").args(["-c", &script]))?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    manager.throttle_process(
        &Target::descendants(ProcessId::running(i32::try_from(shell.pid())?)?, "sh"),
        subject.limits(high),
    )?;
    shell.send_line("go")?;
    testbed::until("data flows", PATIENCE, || {
        Ok((peer.rate(Duration::from_millis(100)) > bytes(high) / 10.0).then_some(()))
    })?;
    peer.is_held(high, "two children")?;
    manager.cleanup()?;
    peer.is_free(free)?;
    for child in children(i32::try_from(shell.pid())?) {
        kill(Pid::from_raw(child), Signal::SIGKILL)?;
    }
    Ok(())
}

fn cleanup_takes_everything_back(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, free, .. } = rates();
    let ends = [busy(bed, subject, Family::V4)?, busy(bed, subject, Family::V6)?];
    let state = || ends.iter().map(|(process, _)| options(process.pid())).collect::<anyhow::Result<Vec<_>>>();
    let before = state()?;
    let mut manager = subject.manager(bed.cgroup_root())?;
    for (process, _) in &ends {
        manager.throttle_process(&target(process.pid())?, subject.limits(low))?;
    }
    manager.cleanup()?;
    ensure!(manager.limited()?.is_empty(), "limits are left");
    ends[0].1.is_free(free)?;
    ends[1].1.is_free(free)?;
    let now = state()?;
    ensure!(now == before, "sockets were {before:?} and are {now:?}");
    Ok(())
}

fn a_kill_leaves_nothing_after_the_next_start(bed: &Testbed, subject: Subject) -> anyhow::Result<()> {
    let Rates { low, free, .. } = rates();
    let (process, peer) = busy(bed, subject, Family::V4)?;
    let mut holder = holder(bed, subject, process.pid(), low)?;
    peer.is_held(low, "before the kill")?;
    holder.signal(Signal::SIGKILL)?;
    holder.wait_timeout(PATIENCE)?;
    // The next start, of which nothing is left either.
    let mut manager = subject.manager(bed.cgroup_root())?;
    // Of flow control alone, which has no guard, options outlive a kill.
    if subject.name != "sockopt" {
        peer.is_free(free)?;
    }
    manager.cleanup()?;
    Ok(())
}
