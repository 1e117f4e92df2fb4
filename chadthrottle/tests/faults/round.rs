//! One run of the program with one fault, and what has to hold then.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Command, ExitStatus},
    time::Duration,
};

use anyhow::{Context, bail, ensure};
use nix::sys::signal::Signal;
use testbed::{
    KernelState, Process, Testbed,
    fault::{Fault, Faults, Place},
};

use chadthrottle::backends::throttle::manager::Limits;

use super::{
    FREE, PATIENCE, Way,
    flow::{AllOptions, Flow},
    rules::Rules,
};

/// Where the program has its notes.
const NOTES: &str = "/run/chadthrottle";
/// Both directions, far below what is called free.
const LIMIT: u64 = 300_000;
/// What a rule says first, before that; and more than comes through any more when it does no longer.
const FIRST_LIMIT: u64 = 1_000_000;
const CHANGED: f64 = 650_000.0;
/// How long a limit may take to be felt: what is on its way comes first.
const FELT: Duration = Duration::from_secs(15);
/// How long it is in force then, so that what looks after it comes round some times.
const IN_FORCE: Duration = Duration::from_millis(450);
const LOOK: Duration = Duration::from_millis(50);
/// How the program may end: as asked, and with an error that it has told.
const STATUSES: [i32; 4] = [0, 1, 3, 4];

/// What came of a run. Whatever it was, nothing was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ended {
    /// The limit held, and nothing was said.
    Worked,
    /// The limit held, or did not, and something was said.
    Told,
    /// It refused.
    Refused,
    /// The fault never came: there were fewer such calls this time.
    Spared,
}

/// A flow to be limited, and how it is without.
pub(super) struct Bench<'a> {
    bed: &'a Testbed,
    flow: &'a Flow,
    pair: [&'static str; 2],
    program: &'a Path,
    tagger: Option<&'a str>,
    before: KernelState,
    options: AllOptions,
}

impl<'a> Bench<'a> {
    pub(super) fn new(
        bed: &'a Testbed,
        flow: &'a Flow,
        pair: [&'static str; 2],
        program: &'a Path,
        tagger: Option<&'a str>,
    ) -> anyhow::Result<Self> {
        let (before, options) = (KernelState::capture(bed)?, flow.options()?);
        Ok(Self { bed, flow, pair, program, tagger, before, options })
    }

    /// That nothing at all is left, BPF programs included.
    pub(super) fn close(&self) -> anyhow::Result<()> {
        self.before.assert_returns(self.bed, PATIENCE)
    }

    /// Runs the program, with a fault or without one, and ends it by a signal. Which calls it has made.
    pub(super) fn round(
        &self,
        way: Way,
        fault: Option<&Fault>,
        end: Signal,
    ) -> anyhow::Result<(Ended, BTreeMap<Place, usize>)> {
        self.until_free()?;
        let rules = (way == Way::Rules).then(|| Rules::of(self.flow.pid(), both(FIRST_LIMIT))).transpose()?;
        let mut command = match &rules {
            Some(rules) => rules.daemon(self.bed, self.program, self.pair),
            None => self.by_pid(),
        };
        command.args(self.tagger.map(|tagger| ["--tagger", tagger]).into_iter().flatten());
        let faults = Faults::in_command(&mut command, fault.cloned())?;
        let mut program = Process::spawn(&mut command)?;
        let is_felt = match &rules {
            Some(rules) => {
                let is_felt = self.hold_by_rules(&mut program, rules, end);
                // It may have ended by itself.
                let _ = program.signal(end);
                is_felt
            }
            None => self.hold(&mut program, end),
        };
        let status = program.wait_timeout(PATIENCE);
        // One that hangs has a guard, which can do its work as long as we decide on its calls.
        let _ = program.signal(Signal::SIGKILL);
        faults.wait_until_all_have_ended(PATIENCE)?;
        let said = program.stderr();
        let checked =
            status.and_then(|status| self.check(&program, status, is_felt, &said, end).map(|()| status));
        let socket =
            rules.as_ref().map(Rules::socket).filter(|socket| end != Signal::SIGKILL && socket.exists());
        // Whatever was wrong, the next round begins as this one.
        let tidied = self.tidy_up(program.pid());
        let status = checked.with_context(|| format!("it said: {said}"))?;
        tidied?;
        ensure!(socket.is_none(), "its socket is left, and it said: {said}");
        let ended = match status.code() {
            _ if fault.is_some() && !faults.has_struck() => Ended::Spared,
            None | Some(0) if has_complained(&said) => Ended::Told,
            None | Some(0) => Ended::Worked,
            _ => Ended::Refused,
        };
        Ok((ended, faults.calls()))
    }

    /// The program, with limits for the process and nothing else.
    fn by_pid(&self) -> Command {
        let mut command = self.bed.client().command(self.program);
        command.arg("--cgroup-root").arg(self.bed.cgroup_root());
        let ([upload, download], limit) = (self.pair, LIMIT.to_string());
        command.args(["--no-config", "--upload-backend", upload, "--download-backend", download]);
        command.args(["--upload-limit", &limit, "--download-limit", &limit]);
        command.args(["--pid", &self.flow.pid().to_string()]);
        command
    }

    /// Waits until both directions are free.
    fn until_free(&self) -> anyhow::Result<()> {
        testbed::until("both directions are free", PATIENCE, || {
            Ok(self.flow.rates(LOOK)?.iter().all(|rate| *rate > FREE).then_some(()))
        })
    }

    /// Lets the limit be in force for a while, and ends it. Whether it was felt; none where it was not set.
    fn hold(&self, program: &mut Process, end: Signal) -> Option<bool> {
        program.wait_for_line(|line| line.contains("is held to"), PATIENCE).ok()?;
        let held = testbed::until("the limit is felt", FELT, || {
            Ok(self.flow.rates(LOOK)?.iter().all(|rate| *rate < FREE).then_some(()))
        });
        std::thread::sleep(IN_FORCE);
        // It may have ended by itself.
        let _ = program.signal(end);
        Some(held.is_ok())
    }

    /// Has a daemon set limits, change them and, where it is not killed under them, take them away again. Whether all that
    /// was felt; none where it did not come as far as that.
    fn hold_by_rules(&self, program: &mut Process, rules: &Rules, end: Signal) -> Option<bool> {
        let is_removed = end != Signal::SIGKILL;
        let stages = [(None, FREE), (Some(both(LIMIT)), CHANGED), (Some(Limits::default()), f64::INFINITY)];
        let mut all_felt = true;
        for (read, (limits, below)) in stages.into_iter().take(if is_removed { 3 } else { 2 }).enumerate() {
            if let Some(limits) = limits {
                rules.say(limits).ok()?;
                program.signal(Signal::SIGHUP).ok()?;
            }
            let is_read = |program: &Process| program.stderr().matches(" limits in force\n").count() > read;
            testbed::until("the rules are read", PATIENCE, || {
                let is_read = is_read(program);
                ensure!(is_read || program.signal(Signal::SIGCONT).is_ok(), "it has ended");
                Ok(is_read.then_some(()))
            })
            .ok()?;
            let felt = testbed::until("the limit is felt", FELT, || {
                let rates = self.flow.rates(LOOK)?;
                let is_felt =
                    rates.iter().all(|rate| if below.is_finite() { *rate < below } else { *rate > FREE });
                // What is told to be lost need not come; what is to be taken away has to, be it later.
                let is_told = below.is_finite() && has_complained(&program.stderr());
                Ok((is_felt || is_told).then_some(is_felt))
            });
            all_felt &= felt.unwrap_or(false);
            std::thread::sleep(IN_FORCE);
        }
        Some(all_felt)
    }

    fn check(
        &self,
        program: &Process,
        status: ExitStatus,
        is_felt: Option<bool>,
        said: &str,
        end: Signal,
    ) -> anyhow::Result<()> {
        let is_killed = end == Signal::SIGKILL && status.signal() == Some(end as i32);
        let code = if is_killed { 0 } else { status.code().unwrap_or(i32::MAX) };
        ensure!(STATUSES.contains(&code), "{status}");
        ensure!(!said.contains("panicked"), "it has panicked");
        ensure!(
            code == 0 || said.lines().any(|line| line.starts_with("chadthrottle: ")),
            "it does not say why"
        );
        match is_felt {
            None => ensure!(code != 0, "it does not say that there is no limit"),
            Some(true) => {}
            Some(false) => ensure!(has_complained(said), "the limit is lost, and it does not say so"),
        }
        self.is_as_before().or_else(|error| {
            // What the guard could not put back either is the next start's, or that of `cleanup`.
            let has_note = !notes(program.pid()).is_empty();
            ensure!(has_note && (has_complained(said) || is_killed), "{error:#}");
            self.clean_up()?;
            self.is_as_before().context("after cleanup")
        })?;
        let notes = notes(program.pid());
        ensure!(notes.is_empty(), "notes are left: {notes:?}");
        Ok(())
    }

    /// Everybody whom the program had started has ended by now: what is not as before stays so.
    fn is_as_before(&self) -> anyhow::Result<()> {
        let difference = self.before.difference_in_bed(&KernelState::capture(self.bed)?);
        ensure!(difference.is_empty(), "left in the kernel:\n{difference}");
        let options = self.flow.options()?;
        ensure!(options.are_as(&self.options), "sockets were {:?} and are {options:?}", self.options);
        Ok(())
    }

    fn clean_up(&self) -> anyhow::Result<()> {
        let mut command = self.bed.client().command(self.program);
        Process::spawn(command.arg("cleanup"))?.success(PATIENCE)?;
        Ok(())
    }

    /// Has the next round begin as this one, also after a failure.
    fn tidy_up(&self, pid: u32) -> anyhow::Result<()> {
        if self.is_as_before().is_ok() && notes(pid).is_empty() {
            return Ok(());
        }
        self.clean_up()?;
        for note in notes(pid) {
            fs::remove_file(note)?;
        }
        self.is_as_before().context("not even cleanup helps")?;
        bail!("something was left")
    }
}

/// The same in both directions.
const fn both(limit: u64) -> Limits {
    Limits { upload: Some(limit), download: Some(limit) }
}

/// Notes of a process.
fn notes(pid: u32) -> Vec<std::path::PathBuf> {
    let part = format!("-{pid}-");
    let all = fs::read_dir(NOTES).into_iter().flatten().flatten().map(|entry| entry.path());
    all.filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().contains(&part))).collect()
}

/// Whether more was said than what is said when all is well.
fn has_complained(said: &str) -> bool {
    said.lines().any(|line| {
        let usual = [" is held to ", " is free again", " limits TCP alone", " limits in force"];
        !usual.iter().any(|usual| line.contains(usual))
    })
}
