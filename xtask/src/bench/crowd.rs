//! What thousands of processes that come and go do to the program that limits them.

use std::path::PathBuf;

use clap::Args;

use crate::process;

/// How many.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Processes with each backend.
    #[arg(long, default_value_t = 10_000)]
    processes: u32,
    /// Try this program instead of one built from the sources.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Runs what the tests run, with more of them, figures, and until they are forgotten.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut cargo = super::harness(&root, "crowd", options.program.as_deref())?;
    cargo.args(["--processes", &options.processes.to_string()]);
    process::run(&mut cargo)
}
