//! Limits in force are known to who asks, and to another instance that would set the same ones.

mod support;

use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use support::{BINARY, Everybodys, PATIENCE, limit_pid};
use testbed::{Process, Testbed};

/// What `status --json` says, run by this command.
fn status(mut command: Command) -> anyhow::Result<Value> {
    Ok(serde_json::from_str(&Process::spawn(command.args(["status", "--json"]))?.success(PATIENCE)?)?)
}

/// Those of its limits that this instance holds.
fn limits_of(status: &Value, instance: u32) -> Vec<Value> {
    let limits = status["limits"].as_array().into_iter().flatten();
    limits.filter(|limit| limit["instance"]["pid"] == instance).cloned().collect()
}

fn is_stale(status: &Value, instance: u32) -> bool {
    status["stale"].as_array().into_iter().flatten().any(|stale| stale["pid"] == instance)
}

fn program() -> Command {
    Command::new(BINARY)
}

fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("60"))
}

#[test]
fn a_limit_is_listed_for_as_long_as_it_is_in_force() -> anyhow::Result<()> {
    let bed = Testbed::new("status")?;
    let target = idle(&bed)?;
    let options = ["--upload-limit", "1M", "--download-limit", "0", "--traffic", "internet"];
    let mut limiter = limit_pid(&bed, target.pid(), &options)?;
    let limits = limits_of(&status(program())?, limiter.pid());
    assert_eq!(limits.len(), 2, "{limits:?}");
    for (limit, direction, rate) in [(&limits[0], "upload", 1_000_000), (&limits[1], "download", 0)] {
        assert_eq!((&limit["direction"], &limit["limit"]), (&json!(direction), &json!(rate)), "{limit}");
        assert_eq!(
            (&limit["subject"]["kind"], &limit["subject"]["pid"]),
            (&json!("process"), &json!(target.pid()))
        );
        assert_eq!((&limit["name"], &limit["traffic"]), (&json!("sleep"), &json!("internet")));
        assert_eq!((&limit["backend"], &limit["instance"]["uid"]), (&json!("ebpf_cgroup"), &json!(0)));
        assert!(limit["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{limit}");
    }
    let text = Process::spawn(program().arg("status"))?.success(PATIENCE)?;
    let of_target = format!("sleep ({})", target.pid());
    let line = text.lines().find(|line| line.ends_with(&of_target)).context("it has a line")?;
    assert!(line.contains("1M") && line.contains("internet"), "{line}");
    limiter.signal(Signal::SIGTERM)?;
    limiter.wait_timeout(PATIENCE)?;
    let after = status(program())?;
    assert!(limits_of(&after, limiter.pid()).is_empty() && !is_stale(&after, limiter.pid()), "{after}");
    Ok(())
}

#[test]
fn what_a_killed_one_said_is_not_believed_and_taken_away() -> anyhow::Result<()> {
    let bed = Testbed::new("status")?;
    let target = idle(&bed)?;
    let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
    limiter.signal(Signal::SIGKILL)?;
    limiter.wait_timeout(PATIENCE)?;
    testbed::until("its guard takes the note away", PATIENCE, || {
        let after = status(program())?;
        assert!(limits_of(&after, limiter.pid()).is_empty(), "{after}");
        Ok((!is_stale(&after, limiter.pid())).then_some(()))
    })?;

    let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
    support::kill_with_guards(&mut limiter)?;
    let after = status(program())?;
    assert!(limits_of(&after, limiter.pid()).is_empty() && is_stale(&after, limiter.pid()), "{after}");
    let removed = Process::spawn(program().arg("cleanup"))?.success(PATIENCE)?;
    assert!(removed.contains(&format!("of process {}", limiter.pid())), "{removed}");
    assert!(!is_stale(&status(program())?, limiter.pid()));
    Ok(())
}

#[test]
fn two_instances_share_a_process_but_not_a_direction() -> anyhow::Result<()> {
    let bed = Testbed::new("status")?;
    let target = idle(&bed)?;
    let first = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
    let mut command = support::chadthrottle(&bed);
    command.args(["--pid", &target.pid().to_string(), "--upload-limit", "2M", "--download-limit", "2M"]);
    let mut second = Process::spawn(&mut command)?;
    assert_eq!(second.wait_timeout(PATIENCE)?.code(), Some(4), "{}", second.stderr());
    for word in [format!("process {}", first.pid()), "1MB/s".to_owned(), "upload".to_owned()] {
        assert!(second.stderr().contains(&word), "no {word:?} in {}", second.stderr());
    }
    let second = limit_pid(&bed, target.pid(), &["--download-limit", "2M"])?;
    let both = status(program())?;
    assert_eq!((limits_of(&both, first.pid()).len(), limits_of(&both, second.pid()).len()), (1, 1), "{both}");
    Ok(())
}

#[test]
fn without_root_ones_own_limits_are_listed() -> anyhow::Result<()> {
    let bed = Testbed::new("status")?;
    let everybodys = Everybodys::new()?;
    let runtime = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    chown(runtime.path(), Some(65534), Some(65534))?;
    fs::set_permissions(runtime.path(), PermissionsExt::from_mode(0o700))?;
    let command = |runtime: Option<&std::path::Path>| -> anyhow::Result<Command> {
        let mut command = everybodys.command(&bed, BINARY.as_ref())?;
        command.env_remove("XDG_RUNTIME_DIR").envs(runtime.map(|path| ("XDG_RUNTIME_DIR", path)));
        Ok(command)
    };
    let mut run = command(Some(runtime.path()))?;
    let run =
        Process::spawn(run.args(["run", "--upload-limit", "1M", "--", "sh", "-c", "echo ready; sleep 60"]))?;
    run.wait_for_line(|line| line == "ready", PATIENCE)?;
    let limits = limits_of(&status(command(Some(runtime.path()))?)?, run.pid());
    assert_eq!(limits.len(), 1, "{limits:?}");
    assert_eq!(
        (&limits[0]["backend"], &limits[0]["subject"]["kind"]),
        (&json!("sockopt"), &json!("descendants"))
    );
    // Others do not look there.
    let mut other = Process::spawn(command(None)?.arg("status"))?;
    assert!(other.wait_timeout(PATIENCE)?.success());
    assert!(other.stderr().contains("sudo"), "{}", other.stderr());
    assert!(!other.stdout().contains(&run.pid().to_string()), "{}", other.stdout());
    Ok(())
}

/// A daemon with a rule for a user whom nobody is.
fn daemon(bed: &Testbed, directory: &Path, socket: &str) -> anyhow::Result<Process> {
    let config = directory.join("config.toml");
    let rule = "[[rule]]\nname = \"guests\"\nmatch.user = \"54300\"\nupload = \"1M\"\n";
    fs::write(&config, format!("history.enabled = false\n{rule}"))?;
    let mut command = support::chadthrottle(bed);
    let daemon = Process::spawn(command.arg("--config").arg(config).args(["--socket", socket, "daemon"]))?;
    daemon.wait_for_line(|line| line.contains("1 limits in force"), PATIENCE)?;
    Ok(daemon)
}

#[test]
fn what_a_daemon_holds_for_its_rules_is_listed_wherever_it_listens() -> anyhow::Result<()> {
    let (bed, everybodys) = (Testbed::new("status")?, Everybodys::new()?);
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
    let socket = directory.path().join("run/daemon.sock");
    for (socket, everybody_sees) in [(socket.to_str().context("it is text")?, false), ("none", true)] {
        let mut daemon = daemon(&bed, directory.path(), socket)?;
        let limits = limits_of(&status(support::chadthrottle(&bed))?, daemon.pid());
        assert_eq!(limits.len(), 1, "at {socket}: {limits:?}");
        assert_eq!((&limits[0]["subject"]["uid"], &limits[0]["limit"]), (&json!(54300), &json!(1_000_000)));
        let rule = limits[0]["rule"].as_str().context("it has a rule")?;
        assert!(rule.starts_with("\"guests\" (") && rule.contains("config.toml"), "{rule}");
        let others = limits_of(&status(everybodys.command(&bed, BINARY.as_ref())?)?, daemon.pid());
        assert_eq!(!others.is_empty(), everybody_sees, "at {socket}: {others:?}");
        // It is in nobody's way.
        let mut command = support::chadthrottle(&bed);
        let by_hand =
            Process::spawn(command.args(["--socket", "none", "--user", "54300", "--upload-limit", "2M"]))?;
        by_hand.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
        daemon.signal(Signal::SIGTERM)?;
        daemon.wait_timeout(PATIENCE)?;
        let after = status(program())?;
        assert!(limits_of(&after, daemon.pid()).is_empty() && !is_stale(&after, daemon.pid()), "{after}");
    }
    Ok(())
}
