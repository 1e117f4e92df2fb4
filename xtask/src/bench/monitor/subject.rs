//! The monitors that are measured, and what of the machine one of them takes.

use std::{
    env, fs,
    path::PathBuf,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use testbed::{Process, Testbed};

use super::TICK;
use crate::process;

/// How long a monitor may take to print its first line.
const FIRST_LINE: Duration = Duration::from_secs(20);

/// A monitor.
#[derive(Debug)]
pub(crate) enum Subject {
    /// This repository's.
    Ours { program: PathBuf, backend: String },
    /// One that was found in `PATH`, with its arguments.
    Rival { program: PathBuf, arguments: &'static [&'static str] },
}

/// Others, with arguments that have them print every second what they see on the client's interface.
const RIVALS: [(&str, &[&str]); 2] = [
    ("nethogs", &["-t", "-d", "1", "ctclient"]),
    ("bandwhich", &["--raw", "--no-resolve", "--interface", "ctclient"]),
];

impl Subject {
    /// The others that this machine has.
    pub(crate) fn installed_rivals() -> Vec<Self> {
        let path = env::var_os("PATH").unwrap_or_default();
        let find = |(name, arguments)| {
            let program = process::find_in(&path, name);
            if program.is_none() {
                eprintln!("{name} is not in PATH and will not be measured");
            }
            Some(Self::Rival { program: program?, arguments })
        };
        RIVALS.into_iter().filter_map(find).collect()
    }

    /// For people.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Ours { backend, .. } => format!("chadthrottle ({backend})"),
            Self::Rival { program, .. } => {
                program.file_name().unwrap_or_default().to_string_lossy().into_owned()
            }
        }
    }

    /// Starts it on the client, where it sees all that the client's programs do.
    pub(crate) fn start(&self, bed: &Testbed) -> anyhow::Result<Running> {
        let mut command = self.command(bed);
        let process = Process::spawn(&mut command)?;
        process.wait_for_line(|_| true, FIRST_LINE)?;
        Ok(Running { process, first_line: Instant::now() })
    }

    fn command(&self, bed: &Testbed) -> Command {
        match self {
            Self::Ours { program, backend } => {
                let mut command = bed.client().command(program);
                command.arg("--cgroup-root").arg(bed.cgroup_root()).args(["--monitor-backend", backend]);
                command.args(["monitor", "--json", "--interval", &format!("{}ms", TICK.as_millis())]);
                command
            }
            Self::Rival { program, arguments } => {
                let mut command = bed.client().command(program);
                command.args(*arguments);
                command
            }
        }
    }
}

/// A monitor at work.
pub(crate) struct Running {
    process: Process,
    first_line: Instant,
}

impl Running {
    /// Its pid.
    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The share of a core that it takes over so many of its ticks, from the middle between two of them on. 1 is a
    /// whole core.
    pub(crate) fn cpu_over(&self, ticks: u32) -> anyhow::Result<f64> {
        let since_tick = (self.first_line.elapsed() + TICK / 2).as_nanos() % TICK.as_nanos();
        thread::sleep(TICK.saturating_sub(Duration::from_nanos(u64::try_from(since_tick)?)));
        let (start, before) = (Instant::now(), self.cpu_time()?);
        thread::sleep(TICK * ticks);
        let used = self.cpu_time()?.saturating_sub(before);
        Ok(used.as_secs_f64() / start.elapsed().as_secs_f64())
    }

    /// CPU time of all its threads. What utime and stime in /proc/PID/stat add up to, but in nanoseconds: a tick of
    /// those is as much as we may take in two seconds.
    fn cpu_time(&self) -> anyhow::Result<Duration> {
        let directory = format!("/proc/{}/task", self.pid());
        let mut nanoseconds = 0;
        for thread in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
            let path = thread?.path().join("schedstat");
            let text = fs::read_to_string(&path)
                .with_context(|| format!("cannot read {}: has it ended?", path.display()))?;
            let first = text.split_ascii_whitespace().next().context("an empty schedstat")?;
            nanoseconds += first.parse::<u64>().with_context(|| format!("{text:?} in {}", path.display()))?;
        }
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Its share of the memory that it uses with others, and all of what it uses alone, in MB.
    pub(crate) fn pss(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/smaps_rollup", self.pid());
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        let line = text.lines().find_map(|line| line.strip_prefix("Pss:")).context("no Pss")?;
        let kibibytes = line.trim().trim_end_matches("kB").trim().parse::<f64>()?;
        Ok(kibibytes * 1024.0 / 1e6)
    }
}
