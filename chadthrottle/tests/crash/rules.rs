//! The program itself as a daemon, and the file of rules by which its limits change.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context;
use chadthrottle::backends::throttle::manager::Limits;
use testbed::Testbed;

/// A file of rules with one for the cgroup of a process, or none.
pub(super) struct Rules {
    directory: tempfile::TempDir,
    cgroup: String,
}

impl Rules {
    /// For the cgroup that this process is in.
    pub(super) fn of(pid: u32, limits: Limits) -> anyhow::Result<Self> {
        let lines = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
        let cgroup = lines.lines().find_map(|line| line.strip_prefix("0::"));
        let cgroup = cgroup.context("it is in no cgroup")?.to_owned();
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir()?;
        let rules = Self { directory, cgroup };
        rules.say(limits)?;
        Ok(rules)
    }

    /// Has the file say this, as a whole. A daemon reads it with its next SIGHUP.
    pub(super) fn say(&self, limits: Limits) -> anyhow::Result<()> {
        let line = |direction: &str, limit: Option<u64>| {
            limit.map(|limit| format!("{direction} = \"{limit}\"\n")).unwrap_or_default()
        };
        let both = [line("upload", limits.upload), line("download", limits.download)].concat();
        let rule = if limits.is_empty() {
            String::new()
        } else {
            format!("[[rule]]\nname = \"flow\"\nmatch.cgroup = \"{}\"\n{both}", self.cgroup)
        };
        // What is recorded would be the host's, and its group may not be there.
        let text = format!("history.enabled = false\ndaemon.view_group = \"0\"\n{rule}");
        let new = self.directory.path().join("new.toml");
        fs::write(&new, text)?;
        Ok(fs::rename(new, self.directory.path().join("config.toml"))?)
    }

    /// Where the daemon can be asked.
    pub(super) fn socket(&self) -> PathBuf {
        self.directory.path().join("run/daemon.sock")
    }

    /// The daemon on the bed's client.
    pub(super) fn daemon(&self, bed: &Testbed, program: &Path, [upload, download]: [&str; 2]) -> Command {
        let mut command = bed.client().command(program);
        command.arg("--cgroup-root").arg(bed.cgroup_root());
        command.arg("--config").arg(self.directory.path().join("config.toml"));
        command.arg("--socket").arg(self.socket());
        command.args(["--upload-backend", upload, "--download-backend", download, "daemon"]);
        command
    }
}
