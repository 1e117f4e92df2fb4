//! The screen on a real terminal: keys in, characters out, through tmux.

mod support;

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use support::{BINARY, PATIENCE, interface_rate, terminal::Terminal};
use testbed::{
    Family, Process, Testbed, at_least,
    iperf3::{Iperf3, Iperf3Server},
};

/// An iperf3 client that receives, and reports twice a second.
struct Download {
    iperf3: Process,
}

impl Download {
    fn start(bed: &Testbed) -> anyhow::Result<Self> {
        let server = bed.server().address(Family::V4).to_string();
        let mut command = bed.client().command("iperf3");
        command.args(["--client", &server, "--port", "5201", "--reverse", "--time", "120"]);
        let iperf3 = Process::spawn(command.args(["--interval", "0.5", "--format", "k", "--forceflush"]))?;
        Ok(Self { iperf3 })
    }

    /// What it has reported last, in payload bytes a second.
    fn reported(&self) -> Option<f64> {
        let report = self.iperf3.stdout();
        let mut words = report.lines().rfind(|line| line.contains("bits/sec"))?.split_whitespace();
        let mut before = "";
        let rate = words.find_map(|word| {
            let is_rate = word == "Kbits/sec";
            let number = std::mem::replace(&mut before, word);
            is_rate.then(|| number.parse::<f64>())
        });
        Some(rate?.ok()? * 1000.0 / 8.0)
    }

    /// Waits until it reports what is wanted, twice in a row.
    fn until(&self, what: &str, is_wanted: impl Fn(f64) -> bool) -> anyhow::Result<f64> {
        let mut last = None;
        let seen = testbed::until(what, PATIENCE, || {
            let now = self.iperf3.stdout().len();
            let Some(rate) = self.reported().filter(|rate| is_wanted(*rate)) else {
                last = None;
                return Ok(None);
            };
            let first = *last.get_or_insert(now);
            Ok((now > first).then_some(rate))
        });
        seen.with_context(|| format!("iperf3 says\n{}", self.iperf3.stdout()))
    }
}

/// How exactly a limit is held other tests tell: this is about the screen, on a machine that may be busy.
fn is_two_megabytes(rate: f64) -> bool {
    (1.2e6..2.6e6).contains(&rate)
}

fn is_fast(rate: f64) -> bool {
    rate > at_least(20e6)
}

/// A rate as the screen writes it, in bytes a second.
fn figure(text: &str) -> Option<f64> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let times = match &text[digits.len()..] {
        "" => 1.0,
        "K" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return None,
    };
    Some(digits.parse::<f64>().ok()? * times)
}

#[test]
fn a_process_is_seen_limited_and_freed_by_keys() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let download = Download::start(&bed)?;
    download.until("iperf3 runs at full speed", is_fast)?;

    let terminal = Terminal::open(&bed, 80, 24)?;
    let before = terminal.settings()?;
    terminal.start()?;
    // On top, with the rate that it has. It is another instant that iperf3 tells of.
    testbed::until("iperf3 is on top with its rate", PATIENCE, || {
        let text = terminal.text()?;
        let top = text.lines().find(|line| line.starts_with("> ")).unwrap_or_default();
        let words: Vec<&str> = top.split_whitespace().collect();
        let shown = words.get(1) == Some(&"iperf3");
        let down = words.iter().rev().nth(1).and_then(|word| figure(word));
        let is_right =
            down.zip(download.reported()).is_some_and(|(down, told)| (0.6..1.7).contains(&(down / told)));
        Ok((shown && is_right).then_some(()))
    })
    .with_context(|| terminal.text().unwrap_or_default())?;

    terminal.keys(&["d"])?;
    terminal.keys(&["2M", "Enter"])?;
    let text = terminal.wait_for("download limited to 2M a second")?;
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    download.until("iperf3 reports the limit", is_two_megabytes)?;
    let text = terminal.text()?;
    let line = text.lines().find(|line| line.contains("iperf3")).context("iperf3 is listed")?;
    assert!(line.contains("2M"), "the limit stays on the process's line: {text}");

    terminal.keys(&["r"])?;
    download.until("iperf3 is free again", is_fast)?;

    // Nothing that is typed wrong gets past the dialog.
    terminal.keys(&["d"])?;
    terminal.keys(&["abc", "Enter"])?;
    terminal.wait_for("not a rate")?;
    terminal.keys(&["Escape"])?;
    // Before the next key, which would be Alt with it otherwise.
    terminal.wait_for("q quit")?;

    // What packets cost is measured while somebody looks.
    terminal.keys(&["y", "End"])?;
    let text = terminal.wait_for("ns received, measuring included")?;
    assert!(text.contains("ns sent"), "{text}");
    terminal.keys(&["Escape"])?;
    terminal.wait_for("PROCESS")?;

    // Tests record nothing on the host, and the view of the history says why it is empty.
    terminal.keys(&["H"])?;
    terminal.wait_for("history is off")?;
    terminal.keys(&["Escape"])?;
    terminal.wait_for("PROCESS")?;

    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    assert_eq!(terminal.settings()?, before);
    Ok(())
}

#[test]
fn a_tree_and_a_unit_are_limited_and_freed_by_keys() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let download = Download::start(&bed)?;
    download.until("iperf3 runs at full speed", is_fast)?;

    let terminal = Terminal::open(&bed, 100, 30)?;
    let before = terminal.settings()?;
    terminal.start()?;
    terminal.wait_for("iperf3")?;
    for (steps, whom) in [(1, "it and all that it starts"), (3, "all of ")] {
        terminal.keys(&["d"])?;
        terminal.keys(&["2M", "Tab"])?;
        terminal.keys(&vec!["Right"; steps])?;
        terminal.wait_for(&format!("< {whom}"))?;
        terminal.keys(&["Enter"])?;
        terminal.wait_for("download limited to 2M a second")?;
        download.until("iperf3 reports the limit", is_two_megabytes)?;
        terminal.keys(&["R"])?;
        terminal.wait_for("Remove the limits of")?;
        terminal.keys(&["y"])?;
        download.until("iperf3 is free again", is_fast)?;
    }
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    assert_eq!(terminal.settings()?, before);
    Ok(())
}

#[test]
fn a_tiny_window_is_answered_in_words_and_can_be_left() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let terminal = Terminal::open(&bed, 80, 24)?;
    terminal.start()?;
    terminal.wait_for("UP")?;
    terminal.tmux(&["resize-window", "-x", "5", "-y", "3"])?;
    std::thread::sleep(Duration::from_millis(500));
    let text = terminal.text()?;
    assert!(!text.trim().is_empty(), "nothing is said");
    terminal.keys(&["q"])?;
    terminal.tmux(&["resize-window", "-x", "80", "-y", "24"])?;
    terminal.wait_for("status=0")?;
    Ok(())
}

#[test]
fn without_privilege_ones_own_programs_are_shown_and_limited() -> anyhow::Result<()> {
    const NOBODY: [&str; 4] = ["--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    // Where tests are built, others may not look.
    let copy = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    std::fs::set_permissions(copy.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
    let program = copy.path().join("chadthrottle");
    ensure!(Command::new("cp").arg(BINARY).arg(&program).status()?.success());

    let bed = Testbed::with_path("screen", &testbed::Path::round_trip(Duration::from_millis(20)))?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(600);
    let mut command = bed.client().command("setpriv");
    let _iperf3 = Process::spawn(command.args(NOBODY).arg("iperf3").args(client.args()))?;
    let rate =
        || interface_rate(bed.server(), bed.server().interfaces()[0], "rx", Duration::from_millis(500));
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate()? > at_least(20e6)).then_some(())))?;

    let terminal = Terminal::open(&bed, 120, 40)?;
    let line = format!("cd /; clear; setpriv {} {}; echo status=$?", NOBODY.join(" "), program.display());
    terminal.keys(&[&line, "Enter"])?;
    let text = terminal.wait_for("Without privilege")?;
    assert!(text.contains("sudo") && text.contains("UDP"), "{text}");
    terminal.wait_for("iperf3")?;
    terminal.keys(&["u"])?;
    terminal.keys(&["5M", "Enter"])?;
    terminal.wait_for("sockopt limits TCP alone")?;
    testbed::until("iperf3 is held", PATIENCE, || Ok((rate()? < 8e6).then_some(())))?;
    // What it writes faster than that waits in its own socket, and the screen says how much.
    terminal.keys(&["Enter"])?;
    testbed::until("what is held back is told", PATIENCE, || {
        let text = terminal.text()?;
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix("held back"));
        let waits = line.and_then(|line| figure(line.split_whitespace().next()?));
        Ok(waits.filter(|waits| *waits > 0.0))
    })
    .with_context(|| terminal.text().unwrap_or_default())?;
    terminal.keys(&["Escape"])?;
    terminal.wait_for("PROCESS")?;
    terminal.keys(&["r"])?;
    testbed::until("iperf3 is free again", PATIENCE, || Ok((rate()? > at_least(20e6)).then_some(())))?;
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    Ok(())
}
