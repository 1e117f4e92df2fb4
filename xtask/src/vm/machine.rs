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
use testbed::ends_with_its_parent;

use super::{Layout, kernel::Kernel, results::Results};

/// How the machine says how its tests ended, before their number of failures.
pub(super) const VERDICT: &str = "xtask-vm-failed:";

/// An instruction takes two nanoseconds of the machine's clock (2 to the power of 1), and nothing is what waiting takes.
const COUNTED: &str = "shift=1,sleep=off";

/// What to boot, and how.
pub(super) struct Machine<'a> {
    pub(super) kernel: &'a Kernel,
    pub(super) image: &'a Path,
    pub(super) layout: Layout,
    pub(super) memory: &'a str,
    /// More for the kernel's command line.
    pub(super) append: &'a str,
    /// Whether its clock goes by the instructions that it has carried out.
    pub(super) is_counted: bool,
    /// Before each line that it prints.
    pub(super) prefix: String,
    pub(super) patience: Duration,
}

/// Switched off, whatever happens here; where this process is killed, by the kernel.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Machine<'_> {
    /// Runs to the end, printing what the machine prints; `results` has what it said of tests, whatever happened.
    pub(super) fn run(&self, results: &mut Results) -> Result<()> {
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
                Ok(line) => {
                    if let Some(failed) = line.strip_prefix(VERDICT) {
                        verdict = Some(failed.trim().to_owned());
                    } else {
                        results.take_line(&line);
                        println!("{}{line}", self.prefix);
                    }
                }
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
        if self.is_counted {
            // Counting is for one thread alone (docs/devel/tcg-icount.rst). With two processors Linux 6.1 was not up after
            // two minutes of the host's time, with one after a few seconds.
            command.args(["-accel", "tcg,thread=single", "-smp", "1", "-icount", COUNTED]);
        } else {
            command.args(["-accel", "tcg,thread=multi", "-smp", "2"]);
        }
        command
            .args(["-cpu", "max", "-m", self.memory])
            .args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-serial", "stdio"])
            .arg("-kernel")
            .arg(&self.kernel.image)
            .arg("-initrd")
            .arg(self.image)
            // A panic ends it (`-no-reboot`). Nothing of the tests is about speculation.
            .args([
                "-append",
                &format!(
                    "console=ttyS0 quiet panic=-1 mitigations=off chad.cgroups={} {}",
                    self.layout.name(),
                    self.append
                ),
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        // It would go on for hours, and nobody would look for it.
        ends_with_its_parent(&mut command);
        command
    }
}
