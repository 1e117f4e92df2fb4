//! `cargo xtask vm`: what was built, on kernels that people run.
//!
//! Debian's stock kernels boot under QEMU without KVM, which is slow, and so this is for function: whether programs load,
//! limits hold and nothing is left. Nothing of it is installed on this machine but QEMU and what packs the image.

mod image;
mod kernel;
mod machine;
mod results;

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::{
    image::{Image, Tests},
    kernel::Kernel,
    results::Results,
};
use crate::{process, test};

/// What this runs, and the Debian packages that have it.
const PROGRAMS: [(&str, &str); 6] = [
    ("qemu-system-x86_64", "qemu-system-x86"),
    ("busybox", "busybox-static"),
    ("modprobe", "kmod"),
    ("cpio", "cpio"),
    ("dpkg-deb", "dpkg"),
    ("strip", "binutils"),
];

/// Tests that say most about a kernel, where none are named.
const SMOKE: &str = "kernels";

const MEMORY: &str = "2G";
/// All that needs no clock: the contract of every limiter, the tagging that other kernels have more of, ends by SIGKILL and
/// otherwise, the monitor's scenarios, the screen, `doctor`.
const MATRIX: [&str; 15] = [
    SMOKE,
    "doctor",
    "leftovers",
    "contract",
    "crash",
    "ownership",
    "accounting",
    "monitor",
    "screen",
    "screen_ends",
    "entrance",
    "marks",
    "membership",
    "ends",
    "lifetimes",
];

/// Seconds. A machine that is emulated on two busy processors has taken five minutes for the smoke test.
const PATIENCE: u64 = 900;

/// How long a machine may take besides its tests.
const BOOT: Duration = Duration::from_mins(2);
/// How many times as long it may take here as by a clock in the machine that counts instructions.
const SLOWNESS: u32 = 8;
/// How control groups are mounted where tests can run.
const TESTED: [Layout; 2] = [Layout::Unified, Layout::Hybrid];

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Debian's kernel of this version (6.1 or 6.12), or the directory that a kernel's package was unpacked in; all of
    /// Debian's if not given
    #[arg(long, value_name = "6.1|6.12|PATH")]
    kernel: Vec<String>,
    /// How the control groups are mounted; unified and hybrid if not given
    #[arg(long, value_enum, value_name = "LAYOUT")]
    cgroups: Vec<Layout>,
    /// Test programs of `chadthrottle` to run (the names of the files in its `tests`)
    #[arg(long, value_name = "NAME", default_value = SMOKE)]
    test: Vec<String>,
    /// All test programs that need no clock, instead of those of `--test`
    #[arg(long, conflicts_with_all = ["test", "shell"])]
    matrix: bool,
    /// Run this in the machine's shell instead of the tests, which are there all the same
    #[arg(long, value_name = "LINE")]
    shell: Option<String>,
    /// Bytes of memory, as QEMU takes them
    #[arg(long, default_value = MEMORY)]
    memory: String,
    /// More for the kernel's command line, such as `lockdown=confidentiality`
    #[arg(long, value_name = "WORDS", default_value = "")]
    append: String,
    /// Seconds that each test program may take
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    patience: u64,
    /// Have the machine's clock count its instructions, and jump where it waits: what this host is busy with changes
    /// nothing then, but one processor of this host does all the work
    #[arg(long)]
    counted: bool,
    /// Cargo's profile to build tests and program with; `emulated` has them optimised, for which everything is built anew
    #[arg(long, value_name = "PROFILE", default_value = "dev")]
    profile: String,
    /// How many machines run at once
    #[arg(long, value_name = "MACHINES", default_value_t = 1)]
    jobs: usize,
    /// Passed on to each test program
    #[arg(last = true, value_name = "FILTER")]
    arguments: Vec<OsString>,
}

/// How systemd mounts control groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Layout {
    /// Version 2 alone, at `/sys/fs/cgroup`
    Unified,
    /// Version 2 at `/sys/fs/cgroup/unified`, and controllers of version 1 beside it
    Hybrid,
    /// Version 1 alone, where no program can be attached; tests cannot run there, `--shell` can
    Legacy,
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::Hybrid => "hybrid",
            Self::Legacy => "legacy",
        }
    }
}

/// Each kernel with the control groups that its systems mount more often: Debian 12 and older ones both ways.
pub(crate) fn smoke() -> Result<()> {
    for (kernel, cgroups) in [("6.1", Layout::Hybrid), ("6.12", Layout::Unified)] {
        run(&Options {
            kernel: vec![kernel.to_owned()],
            cgroups: vec![cgroups],
            test: vec![SMOKE.to_owned()],
            matrix: false,
            append: String::new(),
            shell: None,
            memory: MEMORY.to_owned(),
            patience: PATIENCE,
            counted: false,
            profile: "dev".to_owned(),
            jobs: 1,
            arguments: Vec::new(),
        })?;
    }
    Ok(())
}

/// Boots every kernel asked for, runs the tests in it, and prints a table of them at the end.
pub(crate) fn run(options: &Options) -> Result<()> {
    test::require_programs(&PROGRAMS)?;
    let root = process::root()?;
    let work = process::target_dir(&root).join("vm");
    let kernels =
        if options.kernel.is_empty() { &kernel::DEBIAN.map(str::to_owned)[..] } else { &options.kernel };
    let layouts = if options.cgroups.is_empty() { &TESTED } else { &options.cgroups[..] };
    let names = if options.matrix { MATRIX.map(str::to_owned).to_vec() } else { options.test.clone() };
    let tests = image::build_tests(&root, &options.profile, &names)?;
    let mut images = Vec::new();
    for named in kernels {
        let kernel = Kernel::find(named, &work)?;
        let image = image(options, &kernel, &tests, &work)?;
        images.push((kernel, image));
    }
    let machines: Vec<_> = images
        .iter()
        .flat_map(|(kernel, image)| layouts.iter().map(move |&layout| Asked { kernel, image, layout }))
        .collect();
    let outcomes = run_machines(options, &machines, &names);
    let mut table = results::TABLE_HEAD.to_owned() + "\n";
    let mut failed = Vec::new();
    for (machine, outcome) in machines.iter().zip(outcomes) {
        let Some(Outcome { results, is_passed }) = outcome else { bail!("{} was not run", machine.name()) };
        table += &results::rows(&machine.name(), &names, &results);
        if !is_passed {
            failed.push(format!("Linux {}", machine.name()));
        }
    }
    if options.shell.is_none() {
        println!("\n{table}");
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join("; "));
    }
    Ok(())
}

/// A machine that is to be booted.
struct Asked<'a> {
    kernel: &'a Kernel,
    image: &'a Image,
    layout: Layout,
}

impl Asked<'_> {
    fn name(&self) -> String {
        format!("{}, {}", self.kernel.release, self.layout.name())
    }
}

/// What became of one.
struct Outcome {
    results: Results,
    is_passed: bool,
}

/// Runs all of them, as many at once as was asked for, and says in their order what became of them.
fn run_machines(options: &Options, machines: &[Asked], names: &[String]) -> Vec<Option<Outcome>> {
    let outcomes = Mutex::new(machines.iter().map(|_| None).collect::<Vec<_>>());
    let next = AtomicUsize::new(0);
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(machine) = machines.get(number) else { return };
            let outcome = run_machine(options, machine, names);
            outcomes.lock().unwrap_or_else(PoisonError::into_inner)[number] = Some(outcome);
        }
    };
    thread::scope(|scope| {
        for _ in 0..options.jobs.clamp(1, machines.len().max(1)) {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run_machine(options: &Options, machine: &Asked, names: &[String]) -> Outcome {
    let name = machine.name();
    println!("\n==> Linux {name} control groups");
    let start = Instant::now();
    let mut results = Results::default();
    let result = boot(options, machine, names.len(), &mut results);
    let took = start.elapsed().as_secs();
    match &result {
        Ok(()) => println!("==> Linux {name}: passed in {took} s"),
        Err(error) => println!("==> Linux {name}: FAILED after {took} s: {error:#}"),
    }
    Outcome { results, is_passed: result.is_ok() }
}

fn image(options: &Options, kernel: &Kernel, tests: &Tests, work: &Path) -> Result<Image> {
    let script = options.shell.clone();
    let script = script.unwrap_or_else(|| tests.script(&options.arguments, options.patience));
    Image::make(kernel, tests, &script, work)
}

fn boot(options: &Options, asked: &Asked, programs: usize, results: &mut Results) -> Result<()> {
    let mut patience = Duration::from_secs(options.patience) * u32::try_from(programs)? + BOOT;
    if options.counted {
        patience *= SLOWNESS;
    }
    // Which machine it is that says something.
    let prefix = if options.jobs > 1 { format!("[{}] ", asked.name()) } else { String::new() };
    let (memory, append, is_counted) = (&options.memory, &options.append, options.counted);
    let (kernel, image, layout) = (asked.kernel, &asked.image.path, asked.layout);
    machine::Machine { kernel, image, layout, memory, append, is_counted, prefix, patience }.run(results)
}

/// A directory of our own in `target`, made anew.
fn fresh_directory(path: &PathBuf) -> Result<()> {
    if path.exists() {
        std::fs::remove_dir_all(path)?;
    }
    std::fs::create_dir_all(path)?;
    ensure!(path.is_dir(), "{} is no directory", path.display());
    Ok(())
}
