//! A terminal to type in and to read from.

use std::path::Path;

use anyhow::{Context, ensure};
use tempfile::TempDir;
use testbed::Testbed;

use super::{BINARY, PATIENCE};

/// A configuration without a history.
const UNRECORDED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/unrecorded.toml");

/// A terminal of its own, by a tmux server of its own, on the bed's client.
pub struct Terminal<'a> {
    bed: &'a Testbed,
    /// Where the server's socket is, which it leaves behind.
    directory: TempDir,
}

impl<'a> Terminal<'a> {
    /// Opens a terminal of this size with a shell in it.
    pub fn open(bed: &'a Testbed, columns: u16, rows: u16) -> anyhow::Result<Self> {
        testbed::require_program("tmux")?;
        let terminal = Self { bed, directory: tempfile::Builder::new().prefix("chadtest-").tempdir()? };
        let (columns, rows) = (columns.to_string(), rows.to_string());
        // `-f /dev/null`: nobody's configuration; `exec sh` with a prompt that is known.
        terminal.tmux(&[
            "-f",
            "/dev/null",
            "new-session",
            "-d",
            "-x",
            &columns,
            "-y",
            &rows,
            "env PS1='ready> ' ENV= sh",
        ])?;
        terminal.wait_for("ready>")?;
        Ok(terminal)
    }

    pub fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut tmux = self.bed.client().command("tmux");
        let output = tmux.arg("-S").arg(self.directory.path().join("tmux")).args(arguments).output()?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Types keys, by tmux's names for them.
    pub fn keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    pub fn text(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    pub fn wait_for(&self, words: &str) -> anyhow::Result<String> {
        let seen = testbed::until(&format!("{words:?} is on the screen"), PATIENCE, || {
            let text = self.text()?;
            Ok(text.contains(words).then_some(text))
        });
        seen.with_context(|| format!("the screen is\n{}", self.text().unwrap_or_default()))
    }

    /// Starts the program on the screen, and tells its exit status afterwards.
    pub fn start(&self) -> anyhow::Result<()> {
        self.keys(&[&format!("clear; {}; echo status=$?", self.program()), "Enter"])
    }

    /// The program's command line. It records nothing on the host.
    pub fn program(&self) -> String {
        format!("{BINARY} --config {UNRECORDED} --cgroup-root {}", self.bed.cgroup_root().display())
    }

    /// The program's pid, once it runs.
    pub fn pid(&self) -> anyhow::Result<u32> {
        testbed::until("the program runs", PATIENCE, || {
            let pids = std::fs::read_to_string(self.bed.cgroup_root().join("cgroup.procs"))?;
            let is_ours = |pid: &&str| {
                std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == Path::new(BINARY))
            };
            // Its guard is of the same file, and starts later.
            Ok(pids.lines().filter(is_ours).filter_map(|pid| pid.parse().ok()).min())
        })
    }

    /// How the terminal is set: what `stty -g` says, and it says so where a shell still answers.
    pub fn settings(&self) -> anyhow::Result<String> {
        self.keys(&["clear; echo is=$(stty -g)=", "Enter"])?;
        testbed::until("stty answers", PATIENCE, || {
            let text = self.text()?.replace('\n', "");
            // What was typed has no figures in it.
            Ok(text.split("is=").skip(1).find_map(|rest| {
                let (settings, _) = rest.split_once('=')?;
                settings.contains(':').then(|| settings.to_owned())
            }))
        })
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // Ends what runs in it as well.
        let _ = self.tmux(&["kill-server"]);
    }
}
