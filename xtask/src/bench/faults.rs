//! What comes of it when one call of the program to the kernel fails.

use std::path::PathBuf;

use clap::Args;

use crate::process;

/// Which calls, and how.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Of each kind of call so many fail, one after the other: the first, the last, and what is between.
    #[arg(long, default_value_t = 3)]
    each: u32,
    /// Each with every error, and not with one error each by turns; takes five times as long.
    #[arg(long)]
    all_errors: bool,
    /// Only calls whose names begin so, e.g. `bpf` or `netlink NEW`.
    #[arg(long)]
    only: Option<String>,
    /// Of these only this one.
    #[arg(long)]
    number: Option<u32>,
    /// This upload backend alone.
    #[arg(long)]
    upload: Option<String>,
    /// Have `tc_htb` and `nftables` know by this whose a packet is.
    #[arg(long)]
    tagger: Option<String>,
    /// This way of setting limits alone.
    #[arg(long, value_parser = ["pid", "rules"])]
    by: Option<String>,
    /// Try this program instead of one built from the sources.
    #[arg(long)]
    program: Option<PathBuf>,
}

/// Runs the sample of the tests, with far more calls.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    let root = process::root()?;
    let mut cargo = super::harness(&root, "faults", options.program.as_deref())?;
    cargo.args(["--each", &options.each.to_string()]);
    if options.all_errors {
        cargo.arg("--all-errors");
    }
    if let Some(number) = options.number {
        cargo.args(["--number", &number.to_string()]);
    }
    let Options { only, upload, by, tagger, .. } = options;
    for (option, value) in [("--only", only), ("--upload", upload), ("--by", by), ("--tagger", tagger)] {
        if let Some(value) = value {
            cargo.args([option, value]);
        }
    }
    process::run(&mut cargo)
}
