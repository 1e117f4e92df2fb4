//! However the program ends, stops or loses its terminal: what it leaves behind.

mod support;

use std::{fs, process::Command, time::Duration};

use anyhow::{Context, ensure};
use support::{BINARY, PATIENCE, interface_rate, terminal::Terminal};
use testbed::{
    Family, Process, Testbed, at_least,
    iperf3::{Iperf3, Iperf3Server},
};

fn send(pid: u32, signal: &str) -> anyhow::Result<()> {
    let kill = Command::new("kill").args([&format!("-{signal}"), &pid.to_string()]).status()?;
    ensure!(kill.success(), "{pid} cannot be sent {signal}");
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
        send(terminal.pid()?, signal)?;
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
    send(terminal.pid()?, "TSTP")?;
    terminal.wait_for("status=")?;
    terminal.keys(&["clear; fg; echo again=$?", "Enter"])?;
    terminal.wait_for("firefox")?;
    terminal.keys(&["q"])?;
    terminal.wait_for("again=0")?;
    Ok(())
}

/// A file that a shell writes an exit status to: where the terminal is gone nobody else can tell it.
struct Status(tempfile::TempDir);

impl Status {
    fn new() -> anyhow::Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("chadtest-").tempdir()?))
    }

    /// Runs the program, and tells its status even if the terminal goes away.
    fn line(&self, program: &str) -> String {
        let path = self.0.path().join("status");
        let path = path.display();
        format!("clear; sh -c 'trap : HUP; {program}; echo $? > {path}.new; mv {path}.new {path}'")
    }

    fn wait(&self) -> anyhow::Result<String> {
        let path = self.0.path().join("status");
        testbed::until("the program has ended", PATIENCE, || Ok(fs::read_to_string(&path).ok()))
            .map(|status| status.trim().to_owned())
    }
}

#[test]
fn a_terminal_that_vanishes_ends_the_program_and_its_limits() -> anyhow::Result<()> {
    let bed = Testbed::new("vanish")?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(600);
    let _iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    let rate =
        || interface_rate(bed.server(), bed.server().interfaces()[0], "rx", Duration::from_millis(500));
    let terminal = Terminal::open(&bed, 80, 24)?;
    let status = Status::new()?;
    terminal.keys(&[&status.line(&terminal.program()), "Enter"])?;
    terminal.wait_for("iperf3")?;
    terminal.keys(&["u"])?;
    terminal.keys(&["5M", "Enter"])?;
    testbed::until("iperf3 is held", PATIENCE, || Ok((rate()? < 8e6).then_some(())))?;
    let pid = terminal.pid()?;
    terminal.tmux(&["kill-server"])?;
    // 128 and SIGHUP, whatever failed first: reading keys, drawing, or telling of it.
    assert_eq!(status.wait()?, "129");
    assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    testbed::until("iperf3 is free again", PATIENCE, || Ok((rate()? > at_least(50e6)).then_some(())))?;
    Ok(())
}

#[test]
fn a_storm_of_new_sizes_leaves_a_whole_picture_and_a_sane_terminal() -> anyhow::Result<()> {
    let bed = Testbed::new("storm")?;
    let terminal = Terminal::open(&bed, 80, 24)?;
    let before = terminal.settings()?;
    terminal.keys(&[&format!("clear; {BINARY} --demo; echo status=$?"), "Enter"])?;
    terminal.wait_for("firefox")?;
    // With each a key that goes to the next column to sort by: none may be lost.
    for round in 0..54_u32 {
        let (width, height) = (1 + round * 37 % 170, 1 + round * 23 % 55);
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["resize-window", "-x", &width, "-y", &height, ";", "send-keys", "s"])?;
    }
    terminal.tmux(&["resize-window", "-x", "100", "-y", "30"])?;
    let is_whole = || {
        let text = terminal.text()?;
        let lines: Vec<&str> = text.lines().collect();
        let has_all = lines.first().is_some_and(|line| line.starts_with("  DEMO "))
            && lines.iter().any(|line| line.starts_with(" ? help"))
            && text.matches("PROCESS").count() == 1
            && text.contains("PID▲");
        Ok(has_all.then_some(()))
    };
    testbed::until("the picture is whole", PATIENCE, is_whole)
        .with_context(|| terminal.text().unwrap_or_default())?;
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    assert_eq!(terminal.settings()?, before);
    Ok(())
}

#[test]
fn a_panic_gives_the_terminal_back_and_says_what_it_was() -> anyhow::Result<()> {
    let bed = Testbed::new("panic")?;
    let terminal = Terminal::open(&bed, 100, 30)?;
    let before = terminal.settings()?;
    for part in ["monitor", "lookout"] {
        let line = format!("clear; {BINARY} --demo --demo-panic {part}; echo status=$?");
        terminal.keys(&[&line, "Enter"])?;
        if part == "lookout" {
            terminal.wait_for("firefox")?;
            terminal.keys(&["Enter"])?;
        }
        // The words of the panic, and then those of the error that comes of it.
        terminal.wait_for("on purpose")?;
        let text = terminal.wait_for("status=1")?;
        assert!(text.contains("chadthrottle: ") && !text.contains("status=101"), "{text}");
        assert_eq!(terminal.settings()?, before, "{part}");
    }
    Ok(())
}
