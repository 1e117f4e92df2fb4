//! The screen on a real terminal: keys in, characters out, through tmux.

mod support;

use std::{process::Command, time::Duration};

use anyhow::{Context, ensure};
use support::{BINARY, PATIENCE, interface_rate};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Server},
};

/// A terminal of its own, by a tmux server of its own, on the bed's client.
struct Terminal<'a> {
    bed: &'a Testbed,
    socket: String,
}

impl<'a> Terminal<'a> {
    /// Opens a terminal of this size with a shell in it.
    fn open(bed: &'a Testbed, columns: u16, rows: u16) -> anyhow::Result<Self> {
        testbed::require_program("tmux")?;
        let terminal = Self { bed, socket: format!("chadtest-{}-{columns}x{rows}", std::process::id()) };
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

    fn tmux(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let mut tmux = self.bed.client().command("tmux");
        let output = tmux.args(["-L", &self.socket]).args(arguments).output()?;
        ensure!(output.status.success(), "tmux {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }

    /// Types keys, by tmux's names for them.
    fn keys(&self, keys: &[&str]) -> anyhow::Result<()> {
        self.tmux(&[&["send-keys"], keys].concat()).map(drop)
    }

    fn text(&self) -> anyhow::Result<String> {
        self.tmux(&["capture-pane", "-p"])
    }

    fn wait_for(&self, words: &str) -> anyhow::Result<String> {
        let seen = testbed::until(&format!("{words:?} is on the screen"), PATIENCE, || {
            let text = self.text()?;
            Ok(text.contains(words).then_some(text))
        });
        seen.with_context(|| format!("the screen is\n{}", self.text().unwrap_or_default()))
    }

    /// Starts the program on the screen.
    fn start(&self) -> anyhow::Result<()> {
        let root = self.bed.cgroup_root().display().to_string();
        self.keys(&[&format!("clear; {BINARY} --cgroup-root {root}; echo status=$?"), "Enter"])
    }
}

impl Drop for Terminal<'_> {
    fn drop(&mut self) {
        // Ends what runs in it as well.
        let _ = self.tmux(&["kill-server"]);
    }
}

#[test]
fn a_process_is_seen_limited_and_freed_by_keys() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(60);
    let _iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    let rate =
        || interface_rate(bed.server(), bed.server().interfaces()[0], "rx", Duration::from_millis(500));
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate()? > 100e6).then_some(())))?;

    let terminal = Terminal::open(&bed, 80, 24)?;
    terminal.start()?;
    terminal.wait_for("iperf3")?;
    terminal.keys(&["u"])?;
    terminal.keys(&["5M", "Enter"])?;
    let text = terminal.wait_for("5M")?;
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    testbed::until("iperf3 is held", PATIENCE, || Ok((rate()? < 8e6).then_some(())))?;
    // Two more snapshots: the limit stays on the process's line.
    std::thread::sleep(Duration::from_secs(2));
    let text = terminal.text()?;
    let line = text.lines().find(|line| line.contains("iperf3")).context("iperf3 is listed")?;
    assert!(line.contains("5M"), "{text}");

    terminal.keys(&["r"])?;
    testbed::until("iperf3 is free again", PATIENCE, || Ok((rate()? > 50e6).then_some(())))?;

    // Nothing that is typed wrong gets past the dialog.
    terminal.keys(&["d"])?;
    terminal.keys(&["abc", "Enter"])?;
    terminal.wait_for("not a rate")?;
    terminal.keys(&["Escape"])?;

    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    Ok(())
}

#[test]
fn a_tree_and_a_unit_are_limited_and_freed_by_keys() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(60);
    let _iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    let rate =
        || interface_rate(bed.server(), bed.server().interfaces()[0], "rx", Duration::from_millis(500));
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate()? > 100e6).then_some(())))?;

    let terminal = Terminal::open(&bed, 100, 30)?;
    terminal.start()?;
    terminal.wait_for("iperf3")?;
    for (steps, whom) in [(1, "it and all that it starts"), (3, "all of ")] {
        terminal.keys(&["u"])?;
        terminal.keys(&["5M", "Tab"])?;
        terminal.keys(&vec!["Right"; steps])?;
        terminal.wait_for(&format!("< {whom}"))?;
        terminal.keys(&["Enter"])?;
        terminal.wait_for("upload limited to 5M a second")?;
        testbed::until("iperf3 is held", PATIENCE, || Ok((rate()? < 8e6).then_some(())))?;
        terminal.keys(&["R"])?;
        terminal.wait_for("Remove the limits of")?;
        terminal.keys(&["y"])?;
        testbed::until("iperf3 is free again", PATIENCE, || Ok((rate()? > 50e6).then_some(())))?;
    }
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    Ok(())
}

#[test]
fn the_terminal_is_given_back_on_a_signal() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let terminal = Terminal::open(&bed, 100, 30)?;
    for (signal, status) in
        [("TERM", "status=143"), ("HUP", "status=129"), ("INT", "status=130"), ("QUIT", "status=131")]
    {
        terminal.start()?;
        terminal.wait_for("UP")?;
        let pids = std::fs::read_to_string(bed.cgroup_root().join("cgroup.procs"))?;
        let ours = pids.lines().find(|pid| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe"));
            exe.is_ok_and(|exe| exe == std::path::Path::new(BINARY))
        });
        let kill = Command::new("kill").args([&format!("-{signal}"), ours.context("it runs")?]).status()?;
        ensure!(kill.success());
        terminal.wait_for(status)?;
        // Echo and line mode are back: what is typed is seen and answered.
        terminal.keys(&["echo back-$((40+2))", "Enter"])?;
        terminal.wait_for("back-42")?;
        terminal.keys(&["clear", "Enter"])?;
        terminal.wait_for("ready>")?;
    }
    Ok(())
}

#[test]
fn stopping_gives_the_terminal_back_and_going_on_takes_it_again() -> anyhow::Result<()> {
    let bed = Testbed::new("screen")?;
    let terminal = Terminal::open(&bed, 100, 30)?;
    terminal.keys(&[&format!("clear; {BINARY} --demo; echo stopped"), "Enter"])?;
    terminal.wait_for("firefox")?;
    terminal.keys(&["C-z"])?;
    terminal.wait_for("stopped")?;
    terminal.keys(&["echo back-$((40+2))", "Enter"])?;
    terminal.wait_for("back-42")?;
    terminal.keys(&["clear; fg; echo status=$?", "Enter"])?;
    terminal.wait_for("firefox")?;
    // From outside as well.
    let pids = std::fs::read_to_string(bed.cgroup_root().join("cgroup.procs"))?;
    let exe = |pid: &&str| {
        std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe == std::path::Path::new(BINARY))
    };
    let ours = pids.lines().find(exe).context("it runs")?;
    ensure!(Command::new("kill").args(["-TSTP", ours]).status()?.success());
    terminal.wait_for("status=")?;
    terminal.keys(&["clear; fg; echo again=$?", "Enter"])?;
    terminal.wait_for("firefox")?;
    terminal.keys(&["q"])?;
    terminal.wait_for("again=0")?;
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
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(60);
    let mut command = bed.client().command("setpriv");
    let _iperf3 = Process::spawn(command.args(NOBODY).arg("iperf3").args(client.args()))?;
    let rate =
        || interface_rate(bed.server(), bed.server().interfaces()[0], "rx", Duration::from_millis(500));
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate()? > 20e6).then_some(())))?;

    let terminal = Terminal::open(&bed, 120, 24)?;
    let line = format!("cd /; clear; setpriv {} {}; echo status=$?", NOBODY.join(" "), program.display());
    terminal.keys(&[&line, "Enter"])?;
    let text = terminal.wait_for("Without privilege")?;
    assert!(text.contains("sudo") && text.contains("UDP"), "{text}");
    terminal.wait_for("iperf3")?;
    terminal.keys(&["u"])?;
    terminal.keys(&["5M", "Enter"])?;
    terminal.wait_for("sockopt limits TCP alone")?;
    testbed::until("iperf3 is held", PATIENCE, || Ok((rate()? < 8e6).then_some(())))?;
    terminal.keys(&["r"])?;
    testbed::until("iperf3 is free again", PATIENCE, || Ok((rate()? > 20e6).then_some(())))?;
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    Ok(())
}
