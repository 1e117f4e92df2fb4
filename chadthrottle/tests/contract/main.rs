//! What every backend that limits has to do, whichever it is: one suite, run for each that is in this build.
//!
//! Here backends are used as the program uses them, through [`ThrottleManager`], because one process of the program
//! without a screen limits one target. No harness of the compiler's: this program is also started as a guard of sockets,
//! and as the one that is killed. Arguments that are no option are parts of names of what is to be run.

mod bystander;
mod cases;
mod peer;

use std::{
    io::Write,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use chadthrottle::{
    backends::{
        BackendOptions, TaggerChoice,
        registry::{Backends, NO_BACKEND, Wanted},
        throttle::{Target, ThrottleManager, manager::Limits},
    },
    process::ProcessId,
};
use testbed::{KernelState, Path, Process, Testbed, is_emulated, is_to_be_tried};

/// Long enough for anything here on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// Makes this program limit a process until it is killed: backend, direction, cgroup, pid, bytes a second.
const HOLD: &str = "hold-until-killed";

/// One backend in one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Subject {
    name: &'static str,
    is_upload: bool,
    covers_udp: bool,
    /// Although programs could know packets.
    tags_sockets: bool,
}

fn main() -> ExitCode {
    if let Some(status) = chadthrottle::backends::throttle::flow::run_if_asked() {
        return status;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == HOLD) {
        return match hold_until_killed(&words[1..]) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error:#}");
                ExitCode::FAILURE
            }
        };
    }
    match run_all(&words) {
        Ok((passed, failed)) => {
            let verdict = if failed == 0 { "ok" } else { "FAILED" };
            println!("\ntest result: {verdict}. {passed} passed; {failed} failed");
            if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, and says how much of it passed and failed.
fn run_all(words: &[String]) -> anyhow::Result<(usize, usize)> {
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let only_lists = words.iter().any(|word| word == "--list");
    let (mut passed, mut failed) = (0, 0);
    for subject in subjects_here()? {
        for (case, check) in cases::ALL {
            if subject.tags_sockets && subject.is_upload && !cases::BY_SOCKETS.contains(&case) {
                continue;
            }
            let direction = if subject.is_upload { "upload" } else { "download" };
            let name = format!("{}::{direction}::{case}", subject.label());
            if !filters.is_empty() && !filters.iter().any(|filter| name.contains(filter.as_str())) {
                continue;
            }
            if only_lists {
                println!("{name}: test");
                continue;
            }
            print!("test {name} ... ");
            std::io::stdout().flush()?;
            let start = Instant::now();
            match in_bed(subject, check) {
                Ok(()) => {
                    println!("ok ({:.1} s)", start.elapsed().as_secs_f64());
                    passed += 1;
                }
                Err(error) => {
                    println!("FAILED\n{error:#}");
                    failed += 1;
                }
            }
        }
    }
    Ok((passed, failed))
}

/// Every backend in this build that this kernel can run: the program has to offer these and refuse the others.
fn subjects_here() -> anyhow::Result<Vec<Subject>> {
    let bed = Testbed::new("contract")?;
    let mut here = Vec::new();
    for (subject, refusal) in subjects()? {
        let name = if subject.is_upload { subject.name.to_owned() } else { subject.label() };
        if is_to_be_tried(&bed, &name, refusal.as_deref())? {
            here.push(subject);
        }
    }
    bed.close()?;
    Ok(here)
}

/// Every backend in this build, with every way to tag, and why it does not work here where it does not.
fn subjects() -> anyhow::Result<Vec<(Subject, Option<String>)>> {
    let listing = Backends::default().list(&Wanted::default())?;
    let rows = listing.upload.into_iter().map(|row| (row, true));
    let rows = rows.chain(listing.download.into_iter().map(|row| (row, false)));
    let mut subjects = Vec::new();
    for (row, is_upload) in rows {
        let covers_udp = row.capabilities.udp;
        let subject = Subject { name: row.name, is_upload, covers_udp, tags_sockets: false };
        subjects.push((subject, row.reason.clone()));
        if row.tagger.is_some_and(|tagger| tagger.starts_with("packet priority")) {
            subjects.push((Subject { tags_sockets: true, ..subject }, row.reason));
        }
    }
    // The one that sends what arrives elsewhere, by filters.
    let tagger = TaggerChoice::Sockets;
    let options = BackendOptions { tagger, ..BackendOptions::default() };
    let by_sockets = Backends::new(options).list(&Wanted::default())?.download;
    for row in
        by_sockets.into_iter().filter(|row| row.tagger.is_some_and(|tagger| tagger.starts_with("marks")))
    {
        let covers_udp = row.capabilities.udp;
        subjects
            .push((Subject { name: row.name, is_upload: false, covers_udp, tags_sockets: true }, row.reason));
    }
    Ok(subjects)
}

/// A receive window of a few packets holds the rates of the cases by it.
fn round_trip() -> Duration {
    Duration::from_millis(if is_emulated() { 20 } else { 10 })
}

/// Runs a case in a bed of its own, on the client's network, and checks that the client is as it was.
fn in_bed(subject: Subject, check: cases::Check) -> anyhow::Result<()> {
    let bed = Testbed::with_path("contract", &Path::round_trip(round_trip()))?;
    let before = KernelState::capture(&bed)?;
    bed.client().run(|| check(&bed, subject))?;
    before.assert_returns(&bed, PATIENCE)?;
    bed.close()
}

impl Subject {
    /// What it is called here.
    fn label(self) -> String {
        let how = match (self.tags_sockets, self.is_upload) {
            (false, _) => "",
            (true, true) => "_by_sockets",
            (true, false) => "_by_marks",
        };
        format!("{}{how}", self.name)
    }

    /// With programs attached to the bed's cgroup and nowhere else.
    fn backends(self, cgroup: &std::path::Path) -> Backends {
        let tagger = if self.tags_sockets { TaggerChoice::Sockets } else { TaggerChoice::Auto };
        let cgroup_root = Some(cgroup.to_owned());
        Backends::new(BackendOptions { cgroup_root, tagger, ..BackendOptions::default() })
    }

    /// Made ready.
    fn manager(self, cgroup: &std::path::Path) -> anyhow::Result<ThrottleManager> {
        let backends = self.backends(cgroup);
        // Each direction by itself; a manager has an upload backend in any case, and `sockopt` changes nothing unasked.
        let upload = if self.is_upload { self.name } else { idle_upload(&backends)? };
        let download = if self.is_upload { NO_BACKEND } else { self.name };
        let upload = backends.select_upload_backend(Some(upload))?;
        Ok(ThrottleManager::new(upload, backends.select_download_backend(Some(download))?)?)
    }

    /// This limit in this direction, and none in the other.
    fn limits(self, limit: u64) -> Limits {
        if self.is_upload {
            Limits { upload: Some(limit), download: None }
        } else {
            Limits { upload: None, download: Some(limit) }
        }
    }
}

fn idle_upload(backends: &Backends) -> anyhow::Result<&'static str> {
    let listing = backends.list(&Wanted::default())?;
    listing.upload.last().map(|row| row.name).context("no upload backend is in this build")
}

fn target(pid: u32) -> anyhow::Result<Target> {
    Ok(Target::process(ProcessId::running(i32::try_from(pid)?)?, "traffic"))
}

/// This program on the bed's client, holding a limit. In force when this returns.
fn holder(bed: &Testbed, subject: Subject, pid: u32, limit: u64) -> anyhow::Result<Process> {
    let mut command: Command = bed.client().command(std::env::current_exe()?);
    let direction = if subject.is_upload { "up" } else { "down" };
    command.args([HOLD, &subject.label(), direction]).arg(bed.cgroup_root());
    let holder = Process::spawn(command.args([pid.to_string(), limit.to_string()]))?;
    holder.wait_for_line(|line| line == "held", PATIENCE)?;
    Ok(holder)
}

fn hold_until_killed(words: &[String]) -> anyhow::Result<()> {
    let [name, direction, cgroup, pid, limit] = words else { bail!("five arguments, not {words:?}") };
    let is_upload = direction == "up";
    let mut subjects = subjects()?.into_iter().map(|(subject, _)| subject);
    let subject = subjects.find(|subject| subject.label() == *name && subject.is_upload == is_upload);
    let subject = subject.context("there is no such backend")?;
    let mut manager = subject.manager(cgroup.as_ref())?;
    manager.throttle_process(&target(pid.parse()?)?, subject.limits(limit.parse()?))?;
    println!("held");
    std::thread::sleep(PATIENCE * 2);
    ensure!(false, "nobody has killed us");
    Ok(())
}
