//! A child process that cannot outlive its guard, and whose output never blocks it.

use std::fmt::Write as _;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;

use crate::{emulated, poll};

/// How long to wait for the rest of the output of a process that has ended: a grandchild may hold the pipe open.
const REST_OF_OUTPUT: Duration = Duration::from_secs(1);

/// A running child: its output is read by threads, and it is killed, by pid, when the guard is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    line: String,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    stdout: Vec<u8>,
    stderr: Vec<u8>,
    closed: u8,
}

impl Process {
    /// Starts the command with its three standard streams in pipes.
    ///
    /// # Errors
    ///
    /// That it cannot be started.
    pub fn spawn(command: &mut Command) -> anyhow::Result<Self> {
        let line = format!("{command:?}");
        // Who runs the tests by nohup(1), or in the background of a script, has all that they start ignore these.
        // SAFETY: the child calls one function, which is async-signal-safe (signal-safety(7)).
        unsafe {
            command.pre_exec(|| {
                for ignored in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT] {
                    signal(ignored, SigHandler::SigDfl)?;
                }
                Ok(())
            });
        }
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {line}"))?;
        let output = Arc::new(Output::default());
        drain(&output, child.stdout.take(), |state| &mut state.stdout);
        drain(&output, child.stderr.take(), |state| &mut state.stderr);
        Ok(Self { child, line, output })
    }

    /// Its pid.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().stdout).into_owned()
    }

    /// What it has printed to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.output.lock().stderr).into_owned()
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    ///
    /// That it has closed it, or ended.
    pub fn send_line(&mut self, line: &str) -> anyhow::Result<()> {
        let Some(stdin) = &mut self.child.stdin else { bail!("{}: its input is closed", self.line) };
        writeln!(stdin, "{line}").with_context(|| format!("cannot write to {}", self.line))
    }

    /// Ends its standard input.
    pub fn close_stdin(&mut self) {
        self.child.stdin = None;
    }

    /// Sends it a signal.
    ///
    /// # Errors
    ///
    /// That it has ended.
    pub fn signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        // Once it has been waited for, its pid may be another's.
        if let Some(status) = self.child.try_wait()? {
            bail!("cannot send {signal} to {}: it has ended: {status}{}", self.line, self.printed());
        }
        let pid = Pid::from_raw(self.child.id().cast_signed());
        kill(pid, signal).with_context(|| format!("cannot send {signal} to {}", self.line))
    }

    /// Waits for a line, on standard output or else on standard error, old lines included, and returns it.
    ///
    /// # Errors
    ///
    /// That the output ended, or the time was up, without such a line; what was printed instead.
    pub fn wait_for_line(&self, wanted: impl Fn(&str) -> bool, timeout: Duration) -> anyhow::Result<String> {
        let deadline = Instant::now() + emulated::patience(timeout);
        let mut state = self.output.lock();
        loop {
            if let Some(line) =
                [&state.stdout, &state.stderr].into_iter().find_map(|text| find(text, &wanted))
            {
                return Ok(line);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || state.closed == 2 {
                let reason = if left.is_zero() { "in time" } else { "before it closed its output" };
                drop(state);
                bail!("{} did not print what was waited for {reason}{}", self.line, self.printed());
            }
            let woken = self.output.changed.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    ///
    /// That it still runs after `timeout`; what it has printed.
    pub fn wait_timeout(&mut self, timeout: Duration) -> anyhow::Result<ExitStatus> {
        let ended = poll::until("it ends", timeout, || Ok(self.child.try_wait()?));
        let status = ended.with_context(|| format!("{}{}", self.line, self.printed()))?;
        // Its last words may still be in the pipes.
        poll::until("its output ends", REST_OF_OUTPUT, || Ok((self.output.lock().closed == 2).then_some(())))
            .ok();
        Ok(status)
    }

    /// Waits for its end and returns what it printed to standard output.
    ///
    /// # Errors
    ///
    /// That it still runs after `timeout`, or ended in failure; what it has printed.
    pub fn success(mut self, timeout: Duration) -> anyhow::Result<String> {
        let status = self.wait_timeout(timeout)?;
        if !status.success() {
            bail!("{}: {status}{}", self.line, self.printed());
        }
        Ok(self.stdout())
    }

    /// All that it has printed, for error messages.
    fn printed(&self) -> String {
        let mut text = String::new();
        for (name, output) in [("stdout", self.stdout()), ("stderr", self.stderr())] {
            let _ = write!(text, "\n--- {name} ---\n{}", output.trim_end());
        }
        text
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both do nothing to one that has been waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a pipe to its end, on a thread that is never joined: a grandchild may hold the pipe open for as long as it
/// likes.
fn drain(
    output: &Arc<Output>,
    mut pipe: Option<impl Read + Send + 'static>,
    stream: fn(&mut State) -> &mut Vec<u8>,
) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        let mut buffer = [0; 16 * 1024];
        loop {
            let read = pipe.as_mut().map_or(Ok(0), |pipe| pipe.read(&mut buffer));
            let mut state = output.lock();
            match read {
                Ok(length @ 1..) => stream(&mut state).extend_from_slice(&buffer[..length]),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Ok(0) | Err(_) => {
                    state.closed += 1;
                    output.changed.notify_all();
                    return;
                }
            }
            output.changed.notify_all();
        }
    });
}

/// The first complete line that is wanted.
fn find(text: &[u8], wanted: &impl Fn(&str) -> bool) -> Option<String> {
    let text = String::from_utf8_lossy(text);
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().find(|line| wanted(line)).map(str::to_owned)
}
