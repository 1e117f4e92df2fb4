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
        BackendOptions,
        registry::{Backends, NO_BACKEND, Wanted},
        throttle::{Target, ThrottleManager, manager::Limits},
    },
    process::ProcessId,
};
use testbed::{KernelState, Path, Process, Testbed};

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
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            println!("\ntest result: FAILED. {failed} failed");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs what was asked for, and says how much of it failed.
fn run_all(words: &[String]) -> anyhow::Result<usize> {
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let only_lists = words.iter().any(|word| word == "--list");
    let mut failed = 0;
    for subject in subjects()? {
        for (case, check) in cases::ALL {
            let direction = if subject.is_upload { "upload" } else { "download" };
            let name = format!("{}::{direction}::{case}", subject.name);
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
                Ok(()) => println!("ok ({:.1} s)", start.elapsed().as_secs_f64()),
                Err(error) => {
                    println!("FAILED\n{error:#}");
                    failed += 1;
                }
            }
        }
    }
    Ok(failed)
}

/// Every backend in this build. All of them have to work here.
fn subjects() -> anyhow::Result<Vec<Subject>> {
    let listing = Backends::default().list(&Wanted::default())?;
    let rows = listing.upload.into_iter().map(|row| (row, true));
    let rows = rows.chain(listing.download.into_iter().map(|row| (row, false)));
    rows.map(|(row, is_upload)| {
        if let Some(reason) = row.reason {
            bail!("{} does not work here: {reason}", row.name);
        }
        Ok(Subject { name: row.name, is_upload, covers_udp: row.capabilities.udp })
    })
    .collect()
}

/// Runs a case in a bed of its own, on the client's network, and checks that the client is as it was.
fn in_bed(subject: Subject, check: cases::Check) -> anyhow::Result<()> {
    let bed = Testbed::with_path("contract", &Path::round_trip(Duration::from_millis(10)))?;
    let before = KernelState::capture(&bed)?;
    bed.client().run(|| check(&bed, subject))?;
    before.assert_returns(&bed, PATIENCE)?;
    bed.close()
}

impl Subject {
    /// Made ready, with programs attached to the bed's cgroup and nowhere else.
    fn manager(self, cgroup: &std::path::Path) -> anyhow::Result<ThrottleManager> {
        let options = BackendOptions { cgroup_root: Some(cgroup.to_owned()), ..BackendOptions::default() };
        let backends = Backends::new(options);
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
    command.args([HOLD, subject.name, direction]).arg(bed.cgroup_root());
    let holder = Process::spawn(command.args([pid.to_string(), limit.to_string()]))?;
    holder.wait_for_line(|line| line == "held", PATIENCE)?;
    Ok(holder)
}

fn hold_until_killed(words: &[String]) -> anyhow::Result<()> {
    let [name, direction, cgroup, pid, limit] = words else { bail!("five arguments, not {words:?}") };
    let is_upload = direction == "up";
    let subject =
        subjects()?.into_iter().find(|subject| subject.name == name && subject.is_upload == is_upload);
    let subject = subject.context("there is no such backend")?;
    let mut manager = subject.manager(cgroup.as_ref())?;
    manager.throttle_process(&target(pid.parse()?)?, subject.limits(limit.parse()?))?;
    println!("held");
    std::thread::sleep(PATIENCE * 2);
    ensure!(false, "nobody has killed us");
    Ok(())
}
