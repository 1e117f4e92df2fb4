//! A machine that is switched off when its tests have run.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use super::{Layout, kernel::Kernel};

/// How the machine says how its tests ended, before their number of failures.
pub(super) const VERDICT: &str = "xtask-vm-failed:";

/// What to boot, and how.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) layout: Layout,
    pub(super) memory: &'a str,
    pub(super) patience: Duration,
}

/// Switched off, whatever happens.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Runs to the end, printing what the machine prints.
    pub(super) fn run(&self) -> Result<()> {
        let deadline = Instant::now() + self.patience;
        let mut machine = Running(self.command().spawn().context("cannot start qemu-system-x86_64")?);
        let console = machine.0.stdout.take().context("QEMU has no console")?;
        let (lines, printed) = mpsc::channel();
        thread::spawn(move || {
            // A console is not always UTF-8.
            for line in BufReader::new(console).split(b'\n').map_while(Result::ok) {
                if lines.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                    return;
                }
            }
        });
        let mut verdict = None;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match printed.recv_timeout(left) {
                Ok(line) => match line.strip_prefix(VERDICT) {
                    Some(failed) => verdict = Some(failed.trim().to_owned()),
                    None => println!("{line}"),
                },
                Err(mpsc::RecvTimeoutError::Disconnected) => break,
                Err(mpsc::RecvTimeoutError::Timeout) => {
                    bail!("it was still running after {} s", self.patience.as_secs())
                }
            }
        }
        let verdict = verdict.context("it ended before its tests did")?;
        ensure!(verdict == "0", "{verdict} test programs failed");
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("qemu-system-x86_64");
        command
            .args(["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", self.memory])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.image)
            // A panic ends it (`-no-reboot`). Nothing of the tests is about speculation.
            .args([
                "-append",
                &format!("console=ttyS0 quiet panic=-1 mitigations=off chad.cgroups={}", self.layout.name()),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }
}
