//! What every test through the binary needs.
#![allow(
    dead_code,
    unreachable_pub,
    missing_docs,
    clippy::allow_attributes,
    reason = "each test binary has a copy of its own and uses a part of it"
)]

pub mod terminal;

use std::{
    net::{TcpListener, TcpStream},
    os::{fd::AsFd, unix::fs::PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::{Family, Process, Testbed};

/// Long enough for anything here on a slow machine, short enough for a hang to be noticed.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// The program on the bed's client, with its programs attached to the bed's cgroup and nowhere else.
pub fn chadthrottle(bed: &Testbed) -> Command {
    let mut command = bed.client().command(BINARY);
    command.arg("--cgroup-root").arg(bed.cgroup_root());
    command
}

/// `chadthrottle run OPTION LIMIT -- COMMAND`.
pub fn run_limited(bed: &Testbed, limit: [&str; 2], command: impl IntoIterator<Item = String>) -> Command {
    let mut run = chadthrottle(bed);
    run.arg("run").args(limit).arg("--").args(command);
    run
}

/// Starts `chadthrottle --pid` and waits until the limit is in force.
pub fn limit_pid(bed: &Testbed, pid: u32, options: &[&str]) -> anyhow::Result<Process> {
    let mut command = chadthrottle(bed);
    command.args(["--pid", &pid.to_string()]).args(options);
    let limiter = Process::spawn(&mut command)?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// Kills the program and, before, who would undo what it leaves.
pub fn kill_with_guards(limiter: &mut Process) -> anyhow::Result<()> {
    // Held, so that it starts no other one.
    limiter.signal(Signal::SIGSTOP)?;
    let pid = limiter.pid();
    let mut all = Vec::new();
    // Children are their thread's.
    for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
        let children = std::fs::read_to_string(task?.path().join("children"))?;
        all.extend(children.split_ascii_whitespace().map(str::to_owned));
    }
    for child in all {
        let line = std::fs::read_to_string(format!("/proc/{child}/cmdline")).unwrap_or_default();
        if line.contains("--guard") {
            nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.parse()?), Signal::SIGKILL)?;
        }
    }
    limiter.signal(Signal::SIGKILL)?;
    limiter.wait_timeout(PATIENCE)?;
    Ok(())
}

/// `chadthrottle monitor --json`, with its first line already printed: it counts.
pub struct Monitor(Process);

impl Monitor {
    pub fn start(bed: &Testbed, options: &[&str]) -> anyhow::Result<Self> {
        Self::start_by(&mut chadthrottle(bed), options)
    }

    /// The same by a command of the program that may have options already.
    pub fn start_by(command: &mut Command, options: &[&str]) -> anyhow::Result<Self> {
        command.args(["monitor", "--json", "--interval", "100ms"]).args(options);
        let process = Process::spawn(command)?;
        process.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
        Ok(Self(process))
    }

    pub fn pid(&self) -> u32 {
        self.0.pid()
    }

    /// What it has complained about so far.
    pub fn stderr(&self) -> String {
        self.0.stderr()
    }

    /// The last line so far.
    pub fn last(&self) -> anyhow::Result<Value> {
        let text = self.0.stdout();
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        Ok(serde_json::from_str(complete.lines().last().context("no line yet")?)?)
    }

    /// The first line from now on that `wanted` takes something from.
    pub fn until<T>(&self, what: &str, wanted: impl Fn(&Value) -> Option<T>) -> anyhow::Result<T> {
        let line = || self.last().ok();
        testbed::until(what, PATIENCE, || Ok(line().and_then(|line| wanted(&line))))
            .with_context(|| format!("the last line is {:?}", line().map(|line| line.to_string())))
    }
}

/// Programs where every user can reach them: where tests are built, others may not look.
pub struct Everybodys(tempfile::TempDir);

impl Everybodys {
    pub fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        Ok(Self(directory))
    }

    /// A copy of the program as a command that nobody runs on the bed's client.
    pub fn command(&self, bed: &Testbed, program: &Path) -> anyhow::Result<Command> {
        let copy = self.0.path().join(program.file_name().expect("a program has a name"));
        // By another process, so that no descriptor here that writes to it is inherited by anybody (ETXTBSY).
        if !copy.exists() {
            anyhow::ensure!(Command::new("cp").arg(program).arg(&copy).status()?.success());
        }
        // After the namespace has been entered, which takes root.
        let mut command = bed.client().command("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(copy).current_dir("/");
        Ok(command)
    }

    /// A copy of the program.
    pub fn copy(&self, program: &Path) -> anyhow::Result<PathBuf> {
        let copy = self.0.path().join(program.file_name().expect("a program has a name"));
        // By another process, so that no descriptor here that writes to it is inherited by anybody (ETXTBSY).
        anyhow::ensure!(Command::new("cp").arg(program).arg(&copy).status()?.success());
        Ok(copy)
    }
}

/// The line of a process in a line of the monitor.
pub fn process(line: &Value, pid: u32) -> Option<&Value> {
    line["processes"].as_array()?.iter().find(|process| process["pid"] == pid)
}

/// A number in it.
pub fn number(process: &Value, field: &str) -> u64 {
    process[field].as_u64().unwrap_or_else(|| panic!("no {field} in {process}"))
}

/// How fast a sink on the bed receives right now: bytes that an interface of a host has sent, over `window`.
///
/// Read from the kernel's own counters, and so independent of the program under test.
pub fn interface_rate(
    host: &testbed::Host,
    interface: &str,
    direction: &str,
    window: Duration,
) -> anyhow::Result<f64> {
    let before = (Instant::now(), interface_bytes(host, interface, direction)?);
    std::thread::sleep(window);
    let bytes = interface_bytes(host, interface, direction)? - before.1;
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let bytes = bytes as f64;
    Ok(bytes / before.0.elapsed().as_secs_f64())
}

/// What an interface has sent (`tx`) or received (`rx`) in bytes, by /proc/net/dev.
pub fn interface_bytes(host: &testbed::Host, interface: &str, direction: &str) -> anyhow::Result<u64> {
    let table = host.run(|| Ok(std::fs::read_to_string(Path::new("/proc/thread-self/net/dev"))?))?;
    let line = table.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:")));
    let field = match direction {
        "rx" => 0,
        "tx" => 8,
        other => anyhow::bail!("{other:?} is neither rx nor tx"),
    };
    let fields: Vec<_> = line.context("no such interface")?.split_ascii_whitespace().collect();
    Ok(fields.get(field).context("short line")?.parse()?)
}

/// IP bytes for so many bytes of TCP payload on a path of 1500 bytes: 40 or 60 bytes of headers and 12 of timestamps
/// for each full segment.
pub fn tcp_ip_bytes(payload: u64, family: Family) -> f64 {
    let headers = match family {
        Family::V4 => 52,
        Family::V6 => 72,
    };
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let payload = payload as f64;
    payload * 1500.0 / f64::from(1500 - headers)
}

/// That what was counted is within 2 % of what was expected.
pub fn assert_close(counted: u64, expected: f64, what: &str) {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let ratio = counted as f64 / expected;
    // Shown when a test fails elsewhere, and with --nocapture.
    println!("{what}: {ratio:.5} of what was expected");
    assert!((0.98..1.02).contains(&ratio), "{what}: counted {counted}, expected {expected}: {ratio:.4}");
}

/// A process that does nothing but have a socket open, as a worker has that got it from another.
pub struct Holder(Child);

impl Holder {
    pub fn start(command: &mut Command, socket: &impl AsFd) -> anyhow::Result<Self> {
        Ok(Self(command.stdin(Stdio::from(socket.as_fd().try_clone_to_owned()?)).spawn()?))
    }

    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One connection from the client to the server, both ends in this process.
pub fn connection(bed: &Testbed) -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let to = listener.local_addr()?;
    let near = bed.client().run(move || Ok(TcpStream::connect(to)?))?;
    Ok((near, listener.accept()?.0))
}

/// What flow control sets on a socket: pacing, window clamp, lock.
#[cfg(feature = "limits")]
pub fn socket_options(stream: &TcpStream) -> anyhow::Result<(u64, u32, bool)> {
    let socket = stream.as_fd().try_clone_to_owned()?;
    let socket = chadthrottle::sys::tcp_socket::TcpSocket::new(socket).context("it is of TCP")?;
    Ok((socket.info()?.max_pacing_rate, socket.window_clamp()?, socket.receive_buffer_locked()?))
}
