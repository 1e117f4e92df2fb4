//! Whether the host is left as it was, however often the program is killed.

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
}

/// Runs the matrix of the tests, with more rounds, figures, and the promise of a second.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut cargo = process::host_cargo(&root);
    cargo.args(["test", "--release", "--package", "chadthrottle", "--test", "crash", "--"]);
    cargo.args(["--rounds", &options.rounds.to_string()]);
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
