//! The one that is killed: limits a process, differently all the time, until that happens.
//!
//! It is this program, which does so as fast as it can, or a build of the real one as a daemon whose rules change.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use chadthrottle::{
    backends::{
        BackendOptions,
        registry::Backends,
        throttle::{Target, ThrottleManager, manager::Limits},
    },
    process::ProcessId,
    sys::{pidfd::PidFd, proc_fd},
};
use nix::sys::signal::Signal;
use testbed::{Process, Testbed};

use super::{dice::Dice, flow::Flow, rules::Rules};

/// Makes this program that: upload backend, download backend, cgroup, pid, seed.
pub(super) const MODE: &str = "live-until-killed";
/// What it is held to, in bytes a second: far below what is called free.
const LIMITS: std::ops::Range<u64> = 100_000..400_000;
/// It ends by itself should nobody kill it.
const CHANGES: u32 = 10_000;

/// Who is killed, as whoever kills it sees it.
pub(super) struct Victim {
    pub(super) process: Process,
    started: Instant,
    /// What the daemon reads; we ourselves need nothing.
    rules: Option<Rules>,
}

impl Victim {
    /// Starts this program, or `program`, on the bed's client.
    pub(super) fn start(
        bed: &Testbed,
        flow: &Flow,
        backends: [&str; 2],
        dice: &mut Dice,
        program: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let rules = program.map(|_| Rules::of(flow.pid(), next(dice, 0))).transpose()?;
        let mut command = if let (Some(program), Some(rules)) = (program, &rules) {
            rules.daemon(bed, program, backends)
        } else {
            let mut command = bed.client().command(std::env::current_exe()?);
            command.arg(MODE).args(backends).arg(bed.cgroup_root());
            command.args([flow.pid().to_string(), dice.below(u64::MAX).to_string()]);
            command
        };
        let started = Instant::now();
        Ok(Self { process: Process::spawn(&mut command)?, started, rules })
    }

    /// Waits until it holds limits, and says how long that took.
    pub(super) fn wait_until_ready(&self, patience: Duration) -> anyhow::Result<Duration> {
        self.process.wait_for_line(is_ready, patience)?;
        Ok(self.started.elapsed())
    }

    /// Whether it holds limits, or has.
    pub(super) fn is_ready(&self) -> bool {
        [self.process.stdout(), self.process.stderr()].iter().any(|said| said.lines().any(is_ready))
    }

    /// Kills it. Says when, how long it took to end, and once it is so, how long whoever undoes things for it took as well:
    /// from then on nothing of ours is there, whatever TCP has still to make up for.
    pub(super) fn kill(&mut self) -> anyhow::Result<(Instant, Duration, thread::JoinHandle<Duration>)> {
        self.process.signal(Signal::SIGKILL)?;
        let killed = Instant::now();
        let guards = guards_of(self.process.pid());
        self.process.wait_timeout(super::PATIENCE)?;
        let ended = killed.elapsed();
        let undone = thread::spawn(move || {
            // It ends, or else the round finds what it has not undone.
            while killed.elapsed() < super::PATIENCE && !guards.iter().all(PidFd::has_ended) {
                thread::sleep(Duration::from_millis(2));
            }
            killed.elapsed()
        });
        Ok((killed, ended, undone))
    }

    /// Lets it live for so long since its start.
    pub(super) fn live(&mut self, life: Duration, dice: &mut Dice) -> anyhow::Result<()> {
        let left = |started: Instant| life.saturating_sub(started.elapsed());
        for change in 1..CHANGES {
            let Some(rules) = self.rules.as_ref().filter(|_| self.is_ready()) else { break };
            thread::sleep(left(self.started).min(Duration::from_millis(dice.below(30))));
            if left(self.started).is_zero() {
                break;
            }
            rules.say(next(dice, change))?;
            self.process.signal(Signal::SIGHUP)?;
        }
        thread::sleep(left(self.started));
        Ok(())
    }
}

/// Those whom a process has started to undo things when it is killed.
fn guards_of(pid: u32) -> Vec<PidFd> {
    let wanted = format!("\0--guard\0{pid}\0");
    let is_one = |guard: &i32| {
        let line = fs::read(format!("/proc/{guard}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(&wanted)
    };
    // One that has ended since has undone all.
    proc_fd::pids().into_iter().flatten().filter(is_one).filter_map(|guard| PidFd::open(guard).ok()).collect()
}

/// What we print, or the daemon.
fn is_ready(line: &str) -> bool {
    line == "held" || line.ends_with(" 1 limits in force")
}

/// The limits after so many changes.
fn next(dice: &mut Dice, change: u32) -> Limits {
    // The first ones are what is waited for: not so low that the receive windows of two connections cannot hold them.
    let least = if change == 0 { LIMITS.end / 4 * 3 } else { LIMITS.start };
    let mut limit = || least + dice.below(LIMITS.end - least);
    let limits = Limits { upload: Some(limit()), download: Some(limit()) };
    // Now and then one direction is free, or both are.
    match dice.below(8) {
        0 if change > 0 => Limits::default(),
        1 if change > 0 => Limits { upload: None, ..limits },
        2 if change > 0 => Limits { download: None, ..limits },
        _ => limits,
    }
}

pub(super) fn run(words: &[&str]) -> anyhow::Result<()> {
    let [upload, download, cgroup, pid, seed] = words else { bail!("five arguments, not {words:?}") };
    let mut dice = Dice::new(Some(seed.parse()?));
    let options = BackendOptions { cgroup_root: Some(PathBuf::from(cgroup)), ..BackendOptions::default() };
    let backends = Backends::new(options);
    let upload = backends.select_upload_backend(Some(upload))?;
    let download = backends.select_download_backend(Some(download))?.context("there is one")?;
    let mut manager = ThrottleManager::new(upload, Some(download))?.announced();
    let target = Target::process(ProcessId::running(pid.parse()?)?, "flow");
    for change in 0..CHANGES {
        let limits = next(&mut dice, change);
        // A download that the receive window cannot hold is refused; the limits before are in force then.
        if let Err(error) = manager.throttle_process(&target, limits) {
            eprintln!("{error}");
        }
        if change == 0 {
            println!("held");
        }
        thread::sleep(Duration::from_millis(dice.below(30)));
    }
    bail!("nobody has killed us")
}
