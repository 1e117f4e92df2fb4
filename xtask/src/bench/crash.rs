//! Whether the host is left as it was, however often the program is killed.

use std::path::PathBuf;

use clap::Args;

use crate::process;

/// How often.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Kills with each pair of backends.
    #[arg(long, default_value_t = 25)]
    rounds: u32,
    /// Repeats what chance did the last time that it printed this.
    #[arg(long)]
    seed: Option<u64>,
    /// This upload backend alone.
    #[arg(long)]
    upload: Option<String>,
    /// This download backend alone.
    #[arg(long)]
    download: Option<String>,
    /// Kill this program, as a daemon whose rules change, instead of what the tests are built from.
    #[arg(long)]
    program: Option<PathBuf>,
    /// Others use this kernel meanwhile: what is listed for the whole of it (BPF) is not compared.
    #[arg(long)]
    shared: bool,
}

/// Runs the matrix of the tests, with more rounds, figures, and the promise of a second.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut cargo = super::harness(&root, "crash", options.program.as_deref())?;
    cargo.args(["--rounds", &options.rounds.to_string()]);
    if options.shared {
        cargo.arg("--shared");
    }
    if let Some(seed) = options.seed {
        cargo.args(["--seed", &seed.to_string()]);
    }
    for (option, name) in [("--upload", &options.upload), ("--download", &options.download)] {
        if let Some(name) = name {
            cargo.args([option, name]);
        }
    }
    process::run(&mut cargo)
}
