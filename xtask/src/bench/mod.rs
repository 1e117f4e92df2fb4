//! `cargo xtask bench …`: figures, in tables. Tests only check that things hold roughly; what "roughly" is worth on a
//! machine is measured here.

mod crash;
mod crowd;
mod faults;
mod limiter;
mod mixed;
mod monitor;
mod neighbour;
mod path;
mod recording;
mod sharing;
mod side;
mod throttle;
mod tui;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use clap::Subcommand;

use crate::process;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Whether nothing limits anybody a second after the program was killed, and the host is as it was.
    Crash(crash::Options),
    /// Whether anything grows, is lost or is left when thousands of processes come and go under limits.
    Crowd(crowd::Options),
    /// Whether the program says so, and leaves nothing, when any one of its calls to the kernel fails.
    Faults(faults::Options),
    /// One limit on 64 connections of eight processes with different demands: what they get, and how fairly.
    Mixed(mixed::Options),
    /// What watching costs, in CPU, memory, throughput and time a packet; beside nethogs and bandwhich where they are
    /// installed.
    Monitor(monitor::Options),
    /// What somebody who is not limited loses by a limit on somebody else in the same cgroup.
    Neighbour(neighbour::Options),
    /// A link that two rules share: how soon its parts follow, and whether they come to it.
    Sharing(sharing::Options),
    /// What limits do to connections and datagrams, through a router and on paths with a round trip: accuracy,
    /// retransmits, delay, stalls, fairness, cost.
    Throttle(Box<throttle::Options>),
    /// What the screen takes with thousands of processes: pictures, keys, CPU, the first picture.
    Tui(tui::Options),
}

impl Bench {
    /// Measures, and prints a table.
    ///
    /// # Errors
    /// When something could not be run.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        match self {
            Self::Crash(options) => crash::run(options),
            Self::Crowd(options) => crowd::run(options),
            Self::Faults(options) => faults::run(options),
            Self::Mixed(options) => mixed::run(options),
            Self::Monitor(options) => monitor::run(options),
            Self::Neighbour(options) => neighbour::run(options),
            Self::Sharing(options) => sharing::run(options),
            Self::Throttle(options) => throttle::run(options),
            Self::Tui(options) => tui::run(options),
        }
    }
}

/// The program, built as users build it.
fn program() -> anyhow::Result<PathBuf> {
    let root = process::root()?;
    process::run(process::host_cargo(&root).args(["build", "--release", "--package", "chadthrottle"]))?;
    Ok(process::target_dir(&root).join("release/chadthrottle"))
}

/// A test that has figures of its own, with no arguments yet: of this program, or else of one that is built for it as users
/// build it.
fn harness(root: &Path, test: &str, program: Option<&Path>) -> anyhow::Result<Command> {
    let mut cargo = process::host_cargo(root);
    cargo.args(["test", "--package", "chadthrottle", "--test", test]);
    match program {
        // What only drives it need not be optimized.
        Some(program) => {
            let program = program.canonicalize().with_context(|| program.display().to_string())?;
            cargo.args(["--", "--program"]).arg(program);
        }
        None => {
            cargo.args(["--release", "--"]);
        }
    }
    Ok(cargo)
}

/// The one in the middle; of an even number, the lower one of the two.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        for (values, expected) in [(vec![3.0, 1.0, 2.0], 2.0), (vec![4.0, 1.0], 1.0), (vec![7.0], 7.0)] {
            assert!((median(values) - expected).abs() < f64::EPSILON);
        }
    }
}
