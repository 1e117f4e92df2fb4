//! The clock of the wall is set under a daemon, back and ahead: what holds is what its rules say of the time that the clock
//! shows, and what has been counted stays counted.
//!
//! Only the daemon's clock is another: a library in front of the C library's adds to it what stands in a file. The kernel
//! has no such thing (time namespaces have clocks of their own for all but this one, `time_namespaces(7)`).

mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{PATIENCE, chadthrottle};
use testbed::{Family, Process, Testbed, traffic};

/// The library: `CLOCK_REALTIME` and so many seconds.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *time) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(clock, time);
    char text[32] = {0};
    int file = clock == CLOCK_REALTIME ? open(getenv("CLOCK_AHEAD"), O_RDONLY | O_CLOEXEC) : -1;
    if (file >= 0) {
        if (read(file, text, sizeof text - 1) > 0) time->tv_sec += atoll(text);
        close(file);
    }
    return result;
}
"#;

/// A Wednesday's noon, long after this test will be run for the last time, in seconds since 1970.
const NOON: u64 = 1_905_076_800;
const HOUR: u64 = 3600;
const DAY: u64 = 24 * HOUR;

/// A daemon with a clock of its own.
struct Clocked<'a> {
    bed: &'a Testbed,
    directory: tempfile::TempDir,
}

impl Clocked<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn set(&self, to: u64) -> anyhow::Result<()> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let ahead = i128::from(to) - i128::from(now);
        fs::write(self.path("new"), ahead.to_string())?;
        Ok(fs::rename(self.path("new"), self.path("ahead"))?)
    }

    /// With the library, built now.
    fn daemon(&self) -> anyhow::Result<Process> {
        fs::write(self.path("shim.c"), SHIM)?;
        let mut cc = Command::new("cc");
        cc.args(["-shared", "-fPIC", "-o"]).arg(self.path("shim.so")).arg(self.path("shim.c")).arg("-ldl");
        Process::spawn(&mut cc)?.success(PATIENCE).context("what linked this test builds no library")?;
        let mut command = self.asked(&["daemon"]);
        command
            .env("LD_PRELOAD", self.path("shim.so"))
            .env("CLOCK_AHEAD", self.path("ahead"))
            .env("TZ", "UTC");
        let daemon = Process::spawn(&mut command)?;
        daemon.wait_for_line(|line| line.contains("in force"), PATIENCE)?;
        Ok(daemon)
    }

    fn asked(&self, words: &[&str]) -> Command {
        let mut command = chadthrottle(self.bed);
        command
            .arg("--config")
            .arg(self.path("config.toml"))
            .arg("--socket")
            .arg(self.path("run/daemon.sock"));
        command.args(words);
        command
    }

    /// Waits until just these rules hold somebody.
    fn holds(&self, rules: &[&str]) -> anyhow::Result<()> {
        let held = || -> anyhow::Result<Vec<String>> {
            let text = Process::spawn(&mut self.asked(&["status", "--json"]))?.success(PATIENCE)?;
            let status: Value = serde_json::from_str(&text)?;
            let limits = status["limits"].as_array().context("there is a list")?.iter();
            let mut rules: Vec<String> =
                limits.filter_map(|limit| limit["rule"].as_str()).map(str::to_owned).collect();
            rules.sort();
            Ok(rules)
        };
        let is_so = |held: Vec<String>| {
            let both = held.iter().zip(rules);
            held.len() == rules.len()
                && both.into_iter().all(|(held, name)| held.starts_with(&format!("\"{name}\"")))
        };
        testbed::until("the rules of this time hold", PATIENCE, || Ok(is_so(held()?).then_some(())))
            .with_context(|| format!("{rules:?} are to hold, and {:?} do", held()))
    }
}

/// Sends some datagrams, of which a quota has enough, from the bed's own cgroup.
fn send(bed: &Testbed) -> anyhow::Result<()> {
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink =
        ["udp-sink", "--listen", &listen, "--until-told", "--idle-exit", "300", "--first-wait", "120000"];
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
    let to = traffic::ready(&sink)?.to_string();
    let words = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "1000", "--datagrams", "20"];
    Process::spawn(traffic::command(bed.client())?.args(words))?.success(PATIENCE)?;
    Ok(())
}

fn in_tree(cgroup: &Path, process: &Process) -> anyhow::Result<String> {
    let lines = fs::read_to_string(format!("/proc/{}/cgroup", process.pid()))?;
    let path = lines.lines().find_map(|line| line.strip_prefix("0::"));
    path.map(str::to_owned).with_context(|| format!("nobody is in {}", cgroup.display()))
}

#[test]
fn rules_and_quotas_are_those_of_the_time_that_the_clock_shows() -> anyhow::Result<()> {
    let bed = Testbed::new("clock")?;
    let office = bed.cgroup("office")?;
    let sleeper = Process::spawn(bed.client().command_in(&office, "sleep")?.arg("120"))?;
    let office = in_tree(&office, &sleeper)?;
    let all = office.trim_end_matches("/office");
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir()?;
    let clocked = Clocked { bed: &bed, directory };
    let config = format!(
        "history.path = \"{}\"\ndaemon.view_group = \"0\"\n\
         [[rule]]\nname = \"office\"\nmatch.cgroup = \"{office}\"\nupload = \"1M\"\nwhen = \"Mon-Fri 08:00-18:00\"\n\
         [[rule]]\nname = \"quota\"\nmatch.cgroup = \"{all}\"\n\
         quota = {{ after = \"10K\", per = \"day\", download = \"9M\" }}\n",
        clocked.path("history.db").display(),
    );
    fs::write(clocked.path("config.toml"), config)?;
    clocked.set(NOON)?;
    let mut daemon = clocked.daemon()?;
    clocked.holds(&["office"])?;
    send(&bed)?;
    clocked.holds(&["office", "quota"])?;
    for (to, rules) in [
        // Back by an hour: the same day, of which so much is used. By a day: another one.
        (NOON - HOUR, &["office", "quota"][..]),
        (NOON - DAY, &["office"]),
        (NOON - DAY + 8 * HOUR, &[]),
        (NOON + 8 * HOUR, &["quota"]),
        // Years ahead, and back: what passed is used up once more, on its day alone.
        (NOON + 364 * 10 * DAY, &["office"]),
        (0, &[]),
        (NOON, &["office", "quota"]),
    ] {
        clocked.set(to)?;
        clocked.holds(rules).with_context(|| format!("at {to}"))?;
    }
    daemon.signal(Signal::SIGTERM)?;
    let status = daemon.wait_timeout(PATIENCE)?;
    let said = daemon.stderr();
    assert!(status.success() && !said.contains("panicked") && !said.contains("WARN"), "{status}: {said}");
    Ok(())
}
