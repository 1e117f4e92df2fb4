//! Wrong usage, missing privilege, closed pipes: an answer in words and the right exit status, never a panic.

mod support;

use std::{
    os::unix::process::CommandExt,
    process::{Command, Output, Stdio},
    time::Duration,
};

use support::{BINARY, PATIENCE, chadthrottle};
use testbed::{Process, Testbed};

/// A pid that nobody has: beyond the largest that the kernel gives (`PID_MAX_LIMIT`, include/linux/threads.h).
const ABSENT: &str = "2147483647";

fn run(arguments: &[&str]) -> anyhow::Result<Output> {
    Ok(Command::new(BINARY).args(arguments).stdin(Stdio::null()).output()?)
}

/// Runs it and checks the exit status, and that stderr says `words` and nothing of a panic.
fn answers(arguments: &[&str], status: i32, words: &[&str]) -> anyhow::Result<()> {
    let output = run(arguments)?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(status), "{arguments:?}: {stderr}");
    for word in words {
        assert!(stderr.contains(word), "{arguments:?} does not say {word:?}: {stderr}");
    }
    assert!(!stderr.contains("panicked"), "{arguments:?}: {stderr}");
    assert!(output.stdout.is_empty(), "{arguments:?}: results and complaints are told apart");
    Ok(())
}

#[test]
fn wrong_usage_is_2_and_says_what_was_typed() -> anyhow::Result<()> {
    for (limit, words) in [
        ("abc", ["\"abc\"", "1.5M"]),
        ("-5", ["negative", "1.5M"]),
        ("1e400", ["\"1e400\"", "10mbit"]),
        ("99999999999999G", ["too large", "1.5M"]),
    ] {
        answers(&["--pid", "1", "--upload-limit", limit], 2, &words)?;
        answers(&["run", "--download-limit", limit, "--", "true"], 2, &words)?;
    }
    answers(&["--pid", "0", "--upload-limit", "1M"], 2, &["\"0\" is no process id"])?;
    answers(&["--pid", "-1", "--upload-limit", "1M"], 2, &["no process id"])?;
    answers(&["--pid", "x", "--upload-limit", "1M"], 2, &["no process id"])?;
    answers(&["--pid", "1"], 2, &["--upload-limit"])?;
    answers(&["--pid", "1", "--upload-limit", "1M", "--duration", "1x"], 2, &["1h30m"])?;
    answers(&["monitor", "--interval", "0"], 2, &["no time at all"])?;
    answers(&["monitor", "--count", "0"], 2, &["0"])?;
    answers(&["monitor", "--connections"], 2, &["--pid"])?;
    answers(&["frobnicate"], 2, &["frobnicate"])
}

#[test]
fn an_unknown_backend_is_2_and_lists_those_that_exist() -> anyhow::Result<()> {
    for option in ["--upload-backend", "--download-backend", "--monitor-backend"] {
        answers(&["--list-backends", option, "wondershaper"], 2, &["wondershaper", "auto", "ebpf"])?;
    }
    answers(&["--pid", "1", "--upload-limit", "1M", "--upload-backend", "x"], 2, &["\"x\"", "ebpf_cgroup"])?;
    answers(&["monitor", "--monitor-backend", "x"], 2, &["\"x\"", "ebpf"])
}

#[test]
fn a_process_that_does_not_exist_is_1() -> anyhow::Result<()> {
    answers(&["--pid", ABSENT, "--upload-limit", "1M"], 1, &["no process 2147483647"])
}

#[test]
fn the_session_that_one_is_typing_in_takes_force() -> anyhow::Result<()> {
    let bed = Testbed::new("force")?;
    let limit = |what: &str, status: i32| -> anyhow::Result<String> {
        let cgroup = bed.cgroup_root().display();
        // Not the last command, which some shells become instead of starting it.
        let script = format!("{BINARY} --cgroup-root {cgroup} {what} --upload-limit 1G; exit $?");
        let mut shell = Process::spawn(bed.client().command("sh").args(["-c", &script]))?;
        assert_eq!(shell.wait_timeout(PATIENCE)?.code(), Some(status), "{what}: {}", shell.stderr());
        Ok(shell.stderr())
    };
    for subject in [
        "--pid $$",
        "--pid $$ --children",
        "--pid 1 --children",
        "--program $(readlink -f /proc/$$/exe)",
        "--user $(id -u)",
        "--cgroup $(sed -n s/^0:://p /proc/$$/cgroup)",
    ] {
        let complaint = limit(subject, 2)?;
        for word in ["carries the session", "--force"] {
            assert!(complaint.contains(word), "{subject}: {complaint}");
        }
    }
    // The shell alone: nobody else on this machine is to be limited by a test.
    limit("--pid $$ --force --duration 100ms", 0)?;
    limit("--pid $$ --children --force --duration 100ms", 0)?;
    Ok(())
}

#[test]
fn a_thread_is_told_from_its_process() -> anyhow::Result<()> {
    let (tell, tid) = std::sync::mpsc::channel();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || {
        tell.send(nix::unistd::gettid()).ok();
        wait.recv().ok();
    });
    let tid = tid.recv()?.to_string();
    let outcome = answers(&["--pid", &tid, "--upload-limit", "1M"], 1, &["is a thread of process"]);
    drop(done);
    thread.join().expect("the thread ends");
    outcome
}

#[test]
fn a_cgroup_root_that_is_none_is_2() -> anyhow::Result<()> {
    for path in ["/tmp", "/no/such/place", "/etc/passwd"] {
        answers(&["--cgroup-root", path, "monitor", "--count", "1"], 2, &[path])?;
        answers(&["--cgroup-root", path, "run", "--upload-limit", "1M", "--", "true"], 2, &[path])?;
    }
    Ok(())
}

#[test]
fn a_download_limit_without_a_download_backend_is_refused() -> anyhow::Result<()> {
    answers(
        &["--download-backend", "none", "run", "--download-limit", "1M", "--", "true"],
        4,
        &["--download-backend none"],
    )
}

#[test]
fn sockopt_cannot_tell_interfaces_apart_and_says_so() -> anyhow::Result<()> {
    let words = ["--interface", "ebpf_cgroup"];
    for kind in ["upload", "download"] {
        let (backend, limit) = (format!("--{kind}-backend"), format!("--{kind}-limit"));
        let common = ["--interface", "lo", &backend, "sockopt"];
        answers(&[&common[..], &["run", &limit, "1M", "--", "true"]].concat(), 4, &words)?;
        answers(&[&common[..], &["--pid", "1", &limit, "1M"]].concat(), 4, &words)?;
    }
    // Without privilege it is what is left, and is not taken.
    let output = unprivileged(&["--interface", "lo", "run", "--upload-limit", "1M", "--", "true"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("CAP_BPF"), "{stderr}");
    Ok(())
}

#[test]
fn a_process_outside_the_cgroup_root_is_refused() -> anyhow::Result<()> {
    let bed = Testbed::new("outside")?;
    let other = Process::spawn(Command::new("sleep").arg("60"))?;
    let pid = other.pid().to_string();
    let mut command = chadthrottle(&bed);
    let mut refused = Process::spawn(command.args(["--pid", &pid, "--upload-limit", "1G"]))?;
    assert_eq!(refused.wait_timeout(PATIENCE)?.code(), Some(4));
    assert!(refused.stderr().contains("outside"), "{}", refused.stderr());
    Ok(())
}

/// The program as a user without any privilege.
fn unprivileged(arguments: &[&str]) -> anyhow::Result<Output> {
    // Where tests are built, others may not look: hand the program over under a name that they can reach.
    let copy = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    let program = copy.path().join("chadthrottle");
    // By another process: a descriptor that writes to it here would be inherited by what other tests start at that
    // moment, and while one is open anywhere the copy cannot be run (ETXTBSY).
    anyhow::ensure!(Command::new("cp").arg(BINARY).arg(&program).status()?.success());
    let everybody = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(copy.path(), everybody)?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir("/").stdin(Stdio::null());
    Ok(command.uid(65534).gid(65534).output()?)
}

#[test]
fn without_privilege_it_is_3_and_one_sentence_names_the_capability() -> anyhow::Result<()> {
    for arguments in [
        &["monitor", "--count", "1", "--monitor-backend", "ebpf"][..],
        &["run", "--upload-limit", "1M", "--upload-backend", "ebpf_cgroup", "--", "true"],
        &["--pid", "1", "--upload-limit", "1M"],
    ] {
        let output = unprivileged(arguments)?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{arguments:?}: {stderr}");
        let capability = if arguments.contains(&"ebpf") || arguments.contains(&"ebpf_cgroup") {
            "CAP_BPF"
        } else {
            "CAP_SYS_PTRACE"
        };
        assert!(stderr.contains(capability), "{arguments:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{arguments:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn in_a_pid_namespace_of_its_own_it_is_4_and_says_so() -> anyhow::Result<()> {
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc", BINARY, "run", "--upload-limit", "1M"]);
    // By name: by itself it would choose one that can work there, and that takes hold of this host's interfaces.
    unshare.args(["--upload-backend", "ebpf_cgroup", "--download-backend", "none", "--", "true"]);
    let output = unshare.stdin(Stdio::null()).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{stderr}");
    assert!(stderr.contains("pid namespace") && stderr.contains("--pid=host"), "{stderr}");
    Ok(())
}

#[test]
fn backends_are_listed_with_reasons() -> anyhow::Result<()> {
    let output = run(&["--list-backends", "--json"])?;
    assert!(output.status.success());
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    for (kind, name) in [("monitor", "ebpf"), ("upload", "ebpf_cgroup"), ("download", "ebpf_cgroup")] {
        let row = listing[kind].as_array().and_then(|rows| rows.iter().find(|row| row["name"] == name));
        let row = row.unwrap_or_else(|| panic!("no {kind} backend {name}"));
        assert_eq!(row["available"], true, "{row}");
        assert_eq!(row["selected"], true, "{row}");
        assert_eq!(row["priority"], "best");
        assert!(row["reason"].is_null());
        assert_eq!(row["capabilities"]["udp"], true);
    }
    let output = unprivileged(&["--list-backends", "--json"])?;
    assert!(output.status.success());
    let listing: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    assert_eq!(listing["upload"][0]["available"], false);
    assert_eq!(listing["upload"][0]["selected"], false);
    for kind in ["upload", "download"] {
        let last = listing[kind].as_array().and_then(|rows| rows.last()).expect("there are some");
        assert_eq!((&last["name"], &last["selected"]), (&"sockopt".into(), &true.into()), "{listing}");
        assert_eq!(last["capabilities"]["udp"], false);
    }
    assert!(listing["upload"][0]["reason"].as_str().is_some_and(|reason| reason.contains("CAP_BPF")));

    let text = String::from_utf8(run(&["--list-backends"])?.stdout)?;
    assert!(text.contains("* ebpf_cgroup"), "{text}");
    Ok(())
}

#[test]
fn the_commands_own_status_is_passed_on() -> anyhow::Result<()> {
    let bed = Testbed::new("status")?;
    for (command, status) in [
        (&["true"][..], 0),
        (&["sh", "-c", "exit 42"], 42),
        (&["sh", "-c", "kill -TERM $$"], 128 + 15),
        (&["/no/such/command"], 127),
        (&["no-such-command-anywhere"], 127),
        (&["/etc/passwd"], 126),
    ] {
        let mut run =
            support::run_limited(&bed, ["--upload-limit", "1M"], command.iter().map(|&s| s.to_owned()));
        let mut process = Process::spawn(&mut run)?;
        assert_eq!(process.wait_timeout(PATIENCE)?.code(), Some(status), "{command:?}: {}", process.stderr());
    }
    Ok(())
}

#[test]
fn a_signal_reaches_the_command_and_its_end_is_told() -> anyhow::Result<()> {
    let bed = Testbed::new("signal")?;
    let script = "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.05; done";
    let command = ["sh", "-c", script].map(str::to_owned);
    let mut run = Process::spawn(&mut support::run_limited(&bed, ["--upload-limit", "1M"], command))?;
    run.wait_for_line(|line| line == "ready", PATIENCE)?;
    run.signal(nix::sys::signal::Signal::SIGTERM)?;
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(9));
    assert!(run.stdout().contains("caught"));
    Ok(())
}

#[test]
fn a_closed_pipe_ends_it_quietly() -> anyhow::Result<()> {
    let bed = Testbed::new("pipe")?;
    let mut command = chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "50ms"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    drop(child.stdout.take());
    let status = testbed::until("it ends", Duration::from_secs(10), || Ok(child.try_wait()?))?;
    let mut stderr = String::new();
    std::io::Read::read_to_string(&mut child.stderr.take().expect("piped"), &mut stderr)?;
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""));

    // `--list-backends >&-`
    let mut command = Command::new("sh");
    let output = command.args(["-c", &format!("{BINARY} --list-backends >&-")]).output()?;
    assert!(!String::from_utf8_lossy(&output.stderr).contains("panicked"));
    Ok(())
}

#[test]
fn the_screen_needs_a_terminal_and_says_so() -> anyhow::Result<()> {
    answers(&[], 2, &["terminal", "monitor"])
}

#[test]
fn help_and_version_go_to_stdout() -> anyhow::Result<()> {
    for option in ["--help", "--version"] {
        let output = run(&[option])?;
        assert!(output.status.success());
        assert!(String::from_utf8(output.stdout)?.contains("chadthrottle"));
    }
    Ok(())
}
