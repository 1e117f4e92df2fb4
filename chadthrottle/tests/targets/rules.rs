//! Rules, kept by `daemon`.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    cgroups::in_tree,
    rig::{CAP, Copies, Meter, Sink, comes_through, holds, send_for, text},
    support::{PATIENCE, chadthrottle},
};

const SH: &str = "/bin/sh";

/// A file of rules, and who keeps them.
pub(crate) struct Kept {
    directory: tempfile::TempDir,
    daemon: Process,
    /// How often rules have been read.
    read: usize,
}

impl Kept {
    pub(crate) fn start(bed: &Testbed, rules: &str) -> anyhow::Result<Self> {
        Self::start_by(&mut chadthrottle(bed), rules)
    }

    /// The same by a command of the program that may have options already.
    pub(crate) fn start_by(command: &mut Command, rules: &str) -> anyhow::Result<Self> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("config.toml");
        fs::write(&file, Self::text(rules))?;
        let daemon = Process::spawn(command.args(["--config", text(&file), "--socket", "none", "daemon"]))?;
        let mut kept = Self { directory, daemon, read: 0 };
        kept.wait_until_read()?;
        Ok(kept)
    }

    /// What they are recorded to would be the host's.
    fn text(rules: &str) -> String {
        format!("history.enabled = false\n{rules}")
    }

    pub(crate) fn file(&self) -> PathBuf {
        self.directory.path().join("config.toml")
    }

    /// What the daemon has told so far.
    pub(crate) fn stderr(&self) -> String {
        self.daemon.stderr()
    }

    /// Has other rules read.
    pub(crate) fn replace(&mut self, rules: &str) -> anyhow::Result<()> {
        fs::write(self.file(), Self::text(rules))?;
        self.daemon.signal(Signal::SIGHUP)?;
        self.wait_until_read()
    }

    fn wait_until_read(&mut self) -> anyhow::Result<()> {
        self.read += 1;
        let is_read = || self.daemon.stderr().matches("in force\n").count() >= self.read;
        testbed::until("the rules are read", PATIENCE, || Ok(is_read().then_some(())))
    }
}

fn wait_for(what: &str, is_so: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    testbed::until(what, PATIENCE, || Ok(is_so()?.then_some(())))
}

pub(crate) fn rule(name: &str, conditions: &str, limits: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {conditions} }}\n{limits}\n")
}

#[test]
fn a_rule_by_path_holds_for_each_of_a_hundred_short_processes() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("rule")?, Copies::new()?);
    let (program, neighbour) = (copies.traffic("blocked")?, copies.traffic("neighbour")?);
    let conditions = format!("program = \"{}\"", text(&program));
    let _kept = Kept::start(&bed, &rule("short", &conditions, "upload = \"0\""))?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let rush = "for ten in 1 2 3 4 5 6 7 8 9 10; do for one in 1 2 3 4 5 6 7 8 9 10; do \
                \"$1\" udp-send --to \"$2\" --rate 1000000 --size 1372 --datagrams 5 > /dev/null & done; wait; done";
    let before = Meter::uploads(&bed)?;
    let to = sink.address.to_string();
    let mut shell = bed.client().command(SH);
    Process::spawn(shell.args(["-c", rush, "sh", text(&program), &to]))?.success(PATIENCE)?;
    let (bytes, _) = before.read()?;
    // What the hosts say to find each other.
    assert!(bytes < 1000.0, "{bytes} bytes have come through");
    assert_eq!(sink.report()?.datagrams, 0);
    assert!(comes_through(&bed, &mut bed.client().command(&neighbour))?, "the neighbour is held");
    Ok(())
}

#[test]
fn a_rule_by_unit_holds_from_the_first_packet_also_where_the_unit_comes_later() -> anyhow::Result<()> {
    let bed = Testbed::new("rule")?;
    let there = bed.cgroup("there.service")?;
    let later = format!("{}/later.service", in_tree(bed.cgroup_root())?);
    let rules = rule("unit", "unit = \"there.*\"", "upload = \"0\"")
        + &rule("cgroup", &format!("cgroup = \"{later}\""), "upload = \"0\"");
    let kept = Kept::start(&bed, &rules)?;
    let program = traffic::traffic_binary()?;
    assert!(!comes_through(&bed, &mut bed.client().command_in(&there, program)?)?);
    assert!(comes_through(&bed, &mut bed.client().command(program))?, "others are not held");
    let later = bed.cgroup("later.service")?;
    assert!(
        !comes_through(&bed, &mut bed.client().command_in(&later, program)?)?,
        "{}",
        kept.daemon.stderr()
    );
    Ok(())
}

#[test]
fn who_is_looked_for_is_held_soon_and_others_are_not() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("rule")?, Copies::new()?);
    let program = copies.traffic("worker")?;
    let conditions = format!("program = \"{}\", command = \"*--rate 6000000 *\"", text(&program));
    let _kept = Kept::start(&bed, &rule("busy", &conditions, "upload = \"1M\""))?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let sender =
        Process::spawn(bed.client().command(&program).args(send_for(sink.address, 6_000_000, "60")))?;
    traffic::ready(&sender)?;
    wait_for("it is found", || Ok(Meter::rate(&bed, Duration::from_millis(400))? < 1.5 * CAP))?;
    holds(&bed, CAP, "a process that was looked for")?;
    drop(sender);
    let other = Process::spawn(bed.client().command(&program).args(send_for(sink.address, 3_000_000, "60")))?;
    traffic::ready(&other)?;
    wait_for("another command is free", || Ok(Meter::rate(&bed, Duration::from_millis(400))? > 2.0 * CAP))
}

#[test]
fn rules_that_are_read_again_lose_no_limit_and_wrong_ones_change_nothing() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("rule")?, Copies::new()?);
    let program = copies.traffic("steady")?;
    let steady = rule("steady", &format!("program = \"{}\"", text(&program)), "upload = \"0\"");
    let mut kept = Kept::start(&bed, &steady)?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let sender =
        Process::spawn(bed.client().command(&program).args(send_for(sink.address, 3_000_000, "60")))?;
    traffic::ready(&sender)?;
    let meter = Meter::uploads(&bed)?;
    for round in 0..10 {
        // Others come and go before it, so that it stands on another line each time.
        let other =
            rule(&format!("other {round}"), &format!("user = \"{}\"", 50_000 + round), "upload = \"1M\"");
        kept.replace(&if round % 2 == 0 { other + &steady } else { steady.clone() })?;
    }
    fs::write(kept.file(), "[[rule]]\nname = 5\n")?;
    kept.daemon.signal(Signal::SIGHUP)?;
    wait_for("the file is refused", || {
        let told = kept.daemon.stderr();
        Ok(told.contains("stay as they are") && told.contains("config.toml:2:8: name of [[rule]]"))
    })?;
    let (bytes, seconds) = meter.read()?;
    assert!(bytes < 1000.0, "{bytes} bytes have come through in {seconds} s");
    kept.replace("")?;
    wait_for("it is free", || Ok(Meter::rate(&bed, Duration::from_millis(400))? > CAP))?;
    kept.daemon.signal(Signal::SIGTERM)?;
    assert_eq!(kept.daemon.wait_timeout(PATIENCE)?.code(), Some(0), "{}", kept.daemon.stderr());
    Ok(())
}
