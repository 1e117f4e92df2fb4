//! The program with a limit, on the client of a bed, and what all that measures limits is told alike.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use clap::Args;
use testbed::Testbed;

/// Who holds limits, `--upload-backend` and `--download-backend`.
pub(super) type Backends<'a> = [&'a str; 2];

/// One backend for each direction.
#[derive(Args, Debug)]
pub(super) struct Holders {
    /// Who holds upload limits.
    #[arg(long, default_value = "auto")]
    upload_backend: String,
    /// Who holds download limits.
    #[arg(long, default_value = "auto")]
    download_backend: String,
}

impl Holders {
    pub(super) fn backends(&self) -> Backends<'_> {
        [&self.upload_backend, &self.download_backend]
    }
}

/// Which way, which program, and how it is told.
#[derive(Args, Debug)]
pub(super) struct Common {
    /// Directions.
    #[arg(long, value_delimiter = ',', default_value = "up,down", value_parser = ["up", "down"])]
    direction: Vec<String>,
    /// One JSON object a line instead of a table.
    #[arg(long)]
    pub(super) json: bool,
    /// Measure this program instead of one built from the sources.
    #[arg(long)]
    program: Option<PathBuf>,
}

impl Common {
    /// The directions by name, and whether that is up.
    pub(super) fn directions(&self) -> impl Iterator<Item = (&str, bool)> {
        self.direction.iter().map(|direction| (direction.as_str(), direction == "up"))
    }

    /// The program, built where none is named.
    pub(super) fn program(&self) -> anyhow::Result<PathBuf> {
        self.program.clone().map_or_else(super::program, Ok)
    }
}

/// The program with its backends, still without a command.
pub(super) fn limiter(bed: &Testbed, program: &Path, backends: Backends<'_>) -> Command {
    let mut command = bed.client().command(program);
    command.arg("--cgroup-root").arg(bed.cgroup_root());
    command.args(["--upload-backend", backends[0], "--download-backend", backends[1]]);
    command
}

/// The option for a limit in bytes a second.
pub(super) fn limit_option(is_upload: bool, limit: u32) -> [String; 2] {
    let name = if is_upload { "--upload-limit" } else { "--download-limit" };
    [name.to_owned(), limit.to_string()]
}

/// What a process has taken of CPUs so far, children not counted, in seconds.
pub(super) fn cpu_seconds(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").context("an unknown /proc/PID/stat")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    // Fields 14 and 15, in hundredths of a second (proc_pid_stat(5)).
    let ticks =
        |index: usize| fields.get(index).and_then(|field| field.parse::<f64>().ok()).context("too short");
    Ok((ticks(11)? + ticks(12)?) / 100.0)
}

/// The child of a process that has this name.
pub(super) fn child(pid: u32, name: &str) -> Option<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?.flatten();
    let children = threads
        .filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok())
        .collect::<String>();
    children.split_ascii_whitespace().filter_map(|child| child.parse().ok()).find(|child: &u32| {
        fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|comm| comm.trim_end() == name)
    })
}
