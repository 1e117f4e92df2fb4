//! What the screen takes with thousands of processes: pictures, keys, CPU, and the time to the first picture.

use std::{
    fs,
    io::{Read, Write},
    path::Path,
    process::{Child, ChildStdin, Command, Stdio},
    sync::mpsc::{self, Receiver, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;
use testbed::Testbed;

use super::{median, program};

/// How much.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Processes of the simulated host; 300 of them change each second, and one has 20,000 connections.
    #[arg(long, default_value_t = 5_000)]
    processes: u32,
    /// Seconds over which CPU time is measured.
    #[arg(long, default_value_t = 20)]
    seconds: u64,
    /// Keys that are pressed, and starts on the real kernel.
    #[arg(long, default_value_t = 15)]
    rounds: u32,
    /// A program to measure instead of the one that is built for it.
    #[arg(long)]
    program: Option<std::path::PathBuf>,
}

/// What is accepted, in milliseconds, and of CPU time in hundredths of a core.
const FRAME: f64 = 4.0;
const KEY: f64 = 30.0;
const FIRST_PICTURE: f64 = 150.0;
const CPU: f64 = 3.0;

/// Nothing here takes longer.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two keys: longer than a picture, and no divisor of a second.
const PAUSE: Duration = Duration::from_millis(370);
/// The terminal is this large.
const SIZE: &str = "stty cols 160 rows 50";

/// Measures, and prints a table.
pub(crate) fn run(options: &Options) -> anyhow::Result<()> {
    testbed::require_program("script")?;
    let program = options.program.clone().map_or_else(program, Ok)?;
    println!("{:<44} {:>9} {:>9} {:>9}", "", "median", "longest", "accepted");
    in_process(&program, options)?;
    on_a_terminal(&program, options)?;
    first_pictures(&program, options)
}

fn print(what: &str, values: [f64; 2], accepted: Option<f64>) {
    let accepted = accepted.map(|most| format!("<= {most}")).unwrap_or_default();
    println!("{what:<44} {:>9.2} {:>9.2} {accepted:>9}", values[0], values[1]);
}

fn longest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}

/// Without a terminal: what the program itself needs of a CPU.
fn in_process(program: &Path, options: &Options) -> anyhow::Result<()> {
    let crowd = options.processes.to_string();
    let output = Command::new(program).args(["--demo", "--demo-measure", "--demo-crowd", &crowd]).output()?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    for line in String::from_utf8(output.stdout)?.lines() {
        let measured: Value = serde_json::from_str(line)?;
        let view = measured["view"].as_str().context("a view has a name")?;
        for (figure, what, accepted) in [
            ("figures_ms", "figures of a second, ms CPU", None),
            ("frame_ms", "a picture, ms CPU", Some(FRAME)),
            ("key_ms", "a key and its picture, ms CPU", Some(KEY)),
        ] {
            let value = |name: &str| measured[figure][name].as_f64().context("a figure is missing");
            print(&format!("{view}: {what}"), [value("median")?, value("longest")?], accepted);
        }
    }
    Ok(())
}

/// On a terminal: how long keys take from end to end, and the CPU time of the whole program.
fn on_a_terminal(program: &Path, options: &Options) -> anyhow::Result<()> {
    let line = format!("{SIZE}; exec {} --demo --demo-crowd {}", program.display(), options.processes);
    let mut terminal = Terminal::open(Command::new("script"), &line)?;
    terminal.wait_for("PROCESS")?;
    thread::sleep(Duration::from_secs(2));
    let mut keys = Vec::new();
    for _ in 0..options.rounds {
        thread::sleep(PAUSE);
        keys.push(terminal.pressed("j")?.as_secs_f64() * 1e3);
    }
    print("a key, end to end, ms", [median(keys.clone()), longest(&keys)], Some(KEY));
    let pid = terminal.program()?;
    let before = cpu_time(pid)?;
    thread::sleep(Duration::from_secs(options.seconds));
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let share = (cpu_time(pid)? - before) * 100.0 / options.seconds as f64;
    print("CPU at one refresh a second, % of a core", [share, share], Some(CPU));
    terminal.close()
}

/// On the real kernel: from the start of the program to its first picture.
fn first_pictures(program: &Path, options: &Options) -> anyhow::Result<()> {
    testbed::require_root()?;
    let bed = Testbed::new("bench")?;
    let root = bed.cgroup_root().display().to_string();
    let line = format!("{SIZE}; exec {} --cgroup-root {root}", program.display());
    let mut times = Vec::new();
    for _ in 0..options.rounds {
        let start = Instant::now();
        let mut terminal = Terminal::open(bed.client().command("script"), &line)?;
        terminal.wait_for("PROCESS")?;
        times.push(start.elapsed().as_secs_f64() * 1e3);
        terminal.close()?;
    }
    print("first picture on this kernel, ms", [median(times.clone()), longest(&times)], Some(FIRST_PICTURE));
    Ok(())
}

/// A terminal of its own, by `script(1)`.
struct Terminal {
    script: Child,
    keys: ChildStdin,
    output: Receiver<(Instant, Vec<u8>)>,
}

impl Terminal {
    fn open(mut script: Command, line: &str) -> anyhow::Result<Self> {
        script.args(["-q", "-f", "-c", line, "/dev/null"]);
        script.env("TERM", "xterm-256color").env("SHELL", "/bin/sh").env("LC_ALL", "C.UTF-8");
        script.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut script = script.spawn().context("cannot start script")?;
        let keys = script.stdin.take().context("it has a keyboard")?;
        let mut screen = script.stdout.take().context("it has a screen")?;
        let (send, output) = mpsc::channel();
        thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(length @ 1..) = screen.read(&mut buffer) {
                if send.send((Instant::now(), buffer[..length].to_vec())).is_err() {
                    return;
                }
            }
        });
        Ok(Self { script, keys, output })
    }

    fn wait_for(&mut self, words: &str) -> anyhow::Result<()> {
        let mut seen = Vec::new();
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok((_, bytes)) => seen.extend(bytes),
                Err(_) => bail!("{words:?} never came on the screen: {}", String::from_utf8_lossy(&seen)),
            }
            if String::from_utf8_lossy(&seen).contains(words) {
                return Ok(());
            }
        }
    }

    /// Presses a key, and waits for what changes on the screen.
    fn pressed(&mut self, key: &str) -> anyhow::Result<Duration> {
        while self.output.try_recv().is_ok() {}
        let start = Instant::now();
        self.keys.write_all(key.as_bytes())?;
        self.keys.flush()?;
        let (at, _) = self.output.recv_timeout(PATIENCE).context("the key changed nothing")?;
        Ok(at.duration_since(start))
    }

    /// The program's pid: it took the shell's place, which script started.
    fn program(&self) -> anyhow::Result<u32> {
        let pid = self.script.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(children.split_whitespace().next().context("script runs nothing")?.parse()?)
    }

    fn close(mut self) -> anyhow::Result<()> {
        self.keys.write_all(b"q")?;
        self.keys.flush()?;
        loop {
            match self.output.recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => bail!("the program does not end"),
            }
        }
        self.script.wait()?;
        Ok(())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}

/// Seconds of CPU time so far: fields 14 and 15 of /proc/PID/stat, in hundredths.
fn cpu_time(pid: u32) -> anyhow::Result<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, fields) = stat.rsplit_once(") ").context("no fields")?;
    let ticks: f64 = fields.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Ok(ticks / 100.0)
}
