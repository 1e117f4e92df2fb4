//! `cargo xtask bench …`: figures, in tables. Tests only check that things hold roughly; what "roughly" is worth on a
//! machine is measured here.

mod crash;
mod limiter;
mod mixed;
mod monitor;
mod neighbour;
mod path;
mod recording;
mod side;
mod throttle;
mod tui;

use std::path::PathBuf;

use clap::Subcommand;

use crate::process;

/// What to measure.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// Whether nothing limits anybody a second after the program was killed, and the host is as it was.
    Crash(crash::Options),
    /// One limit on 64 connections of eight processes with different demands: what they get, and how fairly.
    Mixed(mixed::Options),
    /// What watching costs, in CPU, memory, throughput and time a packet; beside nethogs and bandwhich where they are
    /// installed.
    Monitor(monitor::Options),
    /// What somebody who is not limited loses by a limit on somebody else in the same cgroup.
    Neighbour(neighbour::Options),
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
            Self::Mixed(options) => mixed::run(options),
            Self::Monitor(options) => monitor::run(options),
            Self::Neighbour(options) => neighbour::run(options),
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
