//! `cargo xtask vm`: what was built, on kernels that people run.
//!
//! Debian's stock kernels boot under QEMU without KVM, which is slow, and so this is for function: whether programs load,
//! limits hold and nothing is left. Nothing of it is installed on this machine but QEMU and what packs the image.

mod image;
mod kernel;
mod machine;

use std::{
    ffi::OsString,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use clap::{Args, ValueEnum};

use self::{image::Image, kernel::Kernel};
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
/// Seconds. A machine that is emulated on two busy processors has taken five minutes for the smoke test.
const PATIENCE: u64 = 900;

/// The command line.
#[derive(Args)]
pub(crate) struct Options {
    /// Debian's kernel of this version (6.1 or 6.12), or the directory that a kernel's package was unpacked in; all of
    /// Debian's if not given
    #[arg(long, value_name = "6.1|6.12|PATH")]
    kernel: Vec<String>,
    /// How the control groups are mounted; both if not given
    #[arg(long, value_enum)]
    cgroups: Vec<Layout>,
    /// Test programs of `chadthrottle` to run (the names of the files in its `tests`)
    #[arg(long, value_name = "NAME", default_value = SMOKE)]
    test: Vec<String>,
    /// Run this in the machine's shell instead of the tests, which are there all the same
    #[arg(long, value_name = "LINE")]
    shell: Option<String>,
    /// Bytes of memory, as QEMU takes them
    #[arg(long, default_value = MEMORY)]
    memory: String,
    /// Seconds after which a machine is switched off
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE)]
    patience: u64,
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
}

impl Layout {
    fn name(self) -> &'static str {
        match self {
            Self::Unified => "unified",
            Self::Hybrid => "hybrid",
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
            shell: None,
            memory: MEMORY.to_owned(),
            patience: PATIENCE,
            arguments: Vec::new(),
        })?;
    }
    Ok(())
}

/// Boots every kernel asked for, and runs the tests in it.
pub(crate) fn run(options: &Options) -> Result<()> {
    test::require_programs(&PROGRAMS)?;
    let root = process::root()?;
    let work = process::target_dir(&root).join("vm");
    let kernels =
        if options.kernel.is_empty() { &kernel::DEBIAN.map(str::to_owned)[..] } else { &options.kernel };
    let layouts = if options.cgroups.is_empty() { Layout::value_variants() } else { &options.cgroups };
    let tests = image::build_tests(&root, &options.test)?;
    let script = options.shell.clone().unwrap_or_else(|| tests.script(&options.arguments));
    let mut failed = Vec::new();
    for named in kernels {
        let kernel = Kernel::find(named, &work)?;
        let image = Image::make(&kernel, &tests, &script, &work)?;
        for &layout in layouts {
            println!("\n==> Linux {}, {} control groups", kernel.release, layout.name());
            let start = Instant::now();
            let machine = machine::Machine {
                kernel: &kernel,
                image: &image.path,
                layout,
                memory: &options.memory,
                patience: Duration::from_secs(options.patience),
            };
            let result = machine.run();
            let took = start.elapsed().as_secs();
            match result {
                Ok(()) => println!("==> Linux {}, {}: passed in {took} s", kernel.release, layout.name()),
                Err(error) => {
                    println!(
                        "==> Linux {}, {}: FAILED after {took} s: {error:#}",
                        kernel.release,
                        layout.name()
                    );
                    failed.push(format!("Linux {} ({})", kernel.release, layout.name()));
                }
            }
        }
    }
    if !failed.is_empty() {
        bail!("failed on {}", failed.join(", "));
    }
    Ok(())
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
