//! The daemon's socket: who may do what, what clients can do no harm with, and what lasts how long.

mod support;

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::unix::{fs::PermissionsExt, net::UnixStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use support::{BINARY, Everybodys, PATIENCE, chadthrottle, terminal::Terminal};
use testbed::{Family, Process, Testbed, traffic};

/// Groups that nobody is in, but for tests.
const VIEW: &str = "54321";
const CHANGE: &str = "54322";
/// A limit, in IP bytes a second.
const CAP: f64 = 1e6;

/// A daemon with a socket and a configuration of its own.
struct Daemon {
    directory: tempfile::TempDir,
    process: Process,
}

impl Daemon {
    fn start(bed: &Testbed, rules: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        // Others may come as far as the socket.
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755))?;
        write_config(directory.path(), rules)?;
        let process = spawn(bed, directory.path())?;
        Ok(Self { directory, process })
    }

    fn socket(&self) -> PathBuf {
        self.directory.path().join("run/daemon.sock")
    }

    /// A command of the program that asks this daemon.
    fn asked(&self, bed: &Testbed, words: &[&str]) -> Command {
        let mut command = chadthrottle(bed);
        command.arg("--socket").arg(self.socket()).args(words);
        command
    }

    fn status(&self, bed: &Testbed) -> anyhow::Result<Vec<Value>> {
        let text = Process::spawn(&mut self.asked(bed, &["status", "--json"]))?.success(PATIENCE)?;
        let status: Value = serde_json::from_str(&text)?;
        let limits = status["limits"].as_array().context("there is a list")?.iter();
        Ok(limits.filter(|limit| limit["instance"]["pid"] == self.process.pid()).cloned().collect())
    }

    fn connect(&self) -> anyhow::Result<Line> {
        let stream = UnixStream::connect(self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        Ok(Line(BufReader::new(stream)))
    }

    fn greeted(&self) -> anyhow::Result<Line> {
        let mut line = self.connect()?;
        let answer = line.ask(&json!({ "ask": "hello", "version": 1 }))?;
        ensure!(answer["hello"]["pid"] == self.process.pid(), "{answer}");
        Ok(line)
    }
}

fn write_config(directory: &Path, rules: &str) -> anyhow::Result<()> {
    let groups = format!("daemon = {{ view_group = \"{VIEW}\", change_group = \"{CHANGE}\" }}");
    // The host keeps no record of tests, but where one has a place for it.
    let history = if rules.starts_with("history.path") { "" } else { "history.enabled = false\n" };
    fs::write(directory.join("config.toml"), format!("{history}{groups}\n{rules}"))?;
    Ok(())
}

fn daemon(bed: &Testbed, directory: &Path) -> Command {
    let mut command = chadthrottle(bed);
    command.arg("--config").arg(directory.join("config.toml"));
    command.arg("--socket").arg(directory.join("run/daemon.sock")).arg("daemon");
    command
}

fn spawn(bed: &Testbed, directory: &Path) -> anyhow::Result<Process> {
    let process = Process::spawn(&mut daemon(bed, directory))?;
    process.wait_for_line(|line| line.contains("in force"), PATIENCE)?;
    Ok(process)
}

/// A connection, by hand.
struct Line(BufReader<UnixStream>);

impl Line {
    fn say(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        Ok(self.0.get_mut().write_all(bytes)?)
    }

    fn hear(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        self.0.read_line(&mut line)?;
        serde_json::from_str(&line).with_context(|| format!("it says {line:?}"))
    }

    fn ask(&mut self, request: &Value) -> anyhow::Result<Value> {
        self.say(format!("{request}\n").as_bytes())?;
        self.hear()
    }

    /// Whether the other end is closed.
    fn is_closed(&mut self) -> bool {
        let mut line = String::new();
        !matches!(self.0.read_line(&mut line), Ok(1..))
    }
}

/// The request to limit a process.
fn limit_on(pid: u32) -> anyhow::Result<Value> {
    let id = chadthrottle::process::ProcessId::running(pid.cast_signed())?;
    let subject = json!({ "kind": "process", "pid": id.pid, "start_time": id.start_time });
    Ok(json!({ "ask": "set", "subject": subject, "name": "x", "traffic": "all", "upload": 5_000_000 }))
}

/// How much faster than the limit a sender is for a moment, and then not.
fn holds(bed: &Testbed, what: &str) -> anyhow::Result<()> {
    let client = bed.server();
    testbed::until(what, PATIENCE, || {
        let rate = support::interface_rate(client, client.interfaces()[0], "rx", Duration::from_millis(400))?;
        Ok((rate > 0.6 * CAP && rate < 1.3 * CAP).then_some(()))
    })
}

/// Somebody who sends all the time, and the server's sink.
fn sender(bed: &Testbed) -> anyhow::Result<(Process, Process)> {
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let until = ["--until-told", "--idle-exit", "300", "--first-wait", "120000"];
    let mut sink = traffic::command(bed.server())?;
    let sink = Process::spawn(sink.args(["udp-sink", "--listen", &listen]).args(until))?;
    let to = traffic::ready(&sink)?.to_string();
    let words = ["udp-send", "--to", &to, "--rate", "4000000", "--size", "1372", "--seconds", "300"];
    let sender = Process::spawn(traffic::command(bed.client())?.args(words))?;
    traffic::ready(&sender)?;
    Ok((sender, sink))
}

#[test]
fn looking_and_changing_are_rights_of_their_own() -> anyhow::Result<()> {
    let (bed, everybodys) = (Testbed::new("socket")?, Everybodys::new()?);
    let daemon = Daemon::start(&bed, "")?;
    assert_eq!(fs::metadata(daemon.socket())?.permissions().mode() & 0o777, 0o660);
    let program = everybodys.copy(BINARY.as_ref())?;
    let target = Process::spawn(bed.client().command("sleep").arg("60"))?;
    let pid = target.pid().to_string();
    let somebody = |groups: &str, words: &[&str]| -> anyhow::Result<Process> {
        let mut command = bed.client().command("setpriv");
        let groups = format!("--groups={groups}");
        command.args(["--reuid=65534", "--regid=65534", &groups, "--"]).arg(&program).current_dir("/");
        Process::spawn(command.arg("--socket").arg(daemon.socket()).args(words))
    };
    let limit = ["--pid", &pid, "--upload-limit", "1M"];
    let other = "54399";
    let member = format!("{VIEW},{CHANGE}");
    for (groups, words, status, said) in [
        (other, &["status"][..], 3, "Permission denied"),
        (other, &limit, 3, "Permission denied"),
        // Who is not in the first group does not come as far as being asked for the second.
        (CHANGE, &limit, 3, "Permission denied"),
        (VIEW, &["status"], 0, ""),
        (VIEW, &["monitor", "--count", "1", "--interval", "50ms", "--json"], 0, ""),
        (VIEW, &limit, 3, "change_group"),
    ] {
        let mut process = somebody(groups, words)?;
        let ended = process.wait_timeout(PATIENCE)?.code();
        assert_eq!(ended, Some(status), "{groups} {words:?}: {}", process.stderr());
        assert!(process.stderr().contains(said), "{groups} {words:?}: {}", process.stderr());
    }
    // Nobody believes a program about what it may: the daemon refuses the request itself.
    let uid = nix::unistd::Uid::from_raw(65534);
    assert!(daemon.status(&bed)?.is_empty());
    let limiter = somebody(&member, &limit)?;
    limiter.wait_for_line(|line| line.contains("by the daemon"), PATIENCE)?;
    let limits = daemon.status(&bed)?;
    assert_eq!(limits.len(), 1, "{limits:?}");
    assert_eq!((&limits[0]["set_by"]["uid"], &limits[0]["limit"]), (&json!(uid.as_raw()), &json!(1_000_000)));
    Ok(())
}

#[test]
fn a_limit_lasts_as_long_as_whoever_asked_for_it() -> anyhow::Result<()> {
    let bed = Testbed::new("socket")?;
    let daemon = Daemon::start(&bed, "")?;
    let (sender, _sink) = sender(&bed)?;
    let pid = sender.pid().to_string();
    let ask =
        |limit: &str| Process::spawn(&mut daemon.asked(&bed, &["--pid", &pid, "--upload-limit", limit]));
    let mut first = ask("1M")?;
    first.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    holds(&bed, "the limit holds")?;
    let mut second = ask("2M")?;
    assert_eq!(second.wait_timeout(PATIENCE)?.code(), Some(4), "{}", second.stderr());
    assert!(second.stderr().contains(&format!("by process {}", first.pid())), "{}", second.stderr());
    // What is known of the client is gone with it, however it ends.
    first.signal(Signal::SIGKILL)?;
    testbed::until("it is free again", PATIENCE, || Ok(daemon.status(&bed)?.is_empty().then_some(())))?;
    let mut third = ask("1M")?;
    third.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    third.signal(Signal::SIGINT)?;
    assert_eq!(third.wait_timeout(PATIENCE)?.code(), Some(0));
    assert!(third.stderr().contains("is free again; of "), "{}", third.stderr());
    assert!(daemon.status(&bed)?.is_empty());
    Ok(())
}

#[test]
fn what_clients_do_wrong_harms_nobody() -> anyhow::Result<()> {
    let bed = Testbed::new("socket")?;
    let mut daemon = Daemon::start(&bed, "")?;
    let (sender, _sink) = sender(&bed)?;
    let pid = sender.pid().to_string();
    let mut limiter = Process::spawn(&mut daemon.asked(&bed, &["--pid", &pid, "--upload-limit", "1M"]))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;

    // Nothing that is no request is taken for one, and each is told what is wrong.
    let hello = &b"{\"ask\":\"hello\",\"version\":1}\n"[..];
    let (deep, long) = (vec![b'['; 65_536], vec![b'x'; 70_000]);
    for (words, kind) in [
        (&b"GET / HTTP/1.1\r\n\r\n"[..], "malformed"),
        (b"\0\xff\xfe\n", "malformed"),
        (b"{\"ask\":\"hello\",\"version\":99}\n", "version"),
        (b"{\"ask\":\"status\"}\n", "version"),
        (&[hello, b"{\"ask\":\"status\"\n"].concat(), "malformed"),
        (&deep, "too_long"),
        (&long, "too_long"),
    ] {
        let mut line = daemon.connect()?;
        // It may be refused before all of it is said.
        let _ = line.say(words);
        let mut answer = line.hear()?;
        if words.starts_with(hello) {
            answer = line.hear()?;
        }
        assert_eq!(answer["error"]["kind"], kind, "{answer}");
        assert!(line.is_closed());
    }
    // Who begins and does not go on, and who asks and does not listen.
    let mut slow = daemon.greeted()?;
    slow.say(b"{\"ask\":")?;
    let mut deaf = daemon.greeted()?;
    deaf.0.get_ref().set_write_timeout(Some(Duration::from_millis(100)))?;
    for _ in 0..2000 {
        if deaf.say(b"{\"ask\":\"sample\"}\n").is_err() {
            break;
        }
    }
    // Many at once, each of whom asks, and some of whom set limits that go with them.
    let mut crowd = (0..200).map(|_| daemon.greeted()).collect::<Result<Vec<_>, _>>()?;
    let (status, sample) = (json!({ "ask": "status" }), json!({ "ask": "sample" }));
    for line in &mut crowd {
        line.say(format!("{status}\n{sample}\n").as_bytes())?;
    }
    let idle = |_| Process::spawn(bed.client().command("sleep").arg("300"));
    let idle = (0..5).map(idle).collect::<Result<Vec<_>, _>>()?;
    for (line, process) in crowd.iter_mut().zip(&idle) {
        line.say(format!("{}\n", limit_on(process.pid())?).as_bytes())?;
    }
    for (place, line) in crowd.iter_mut().enumerate() {
        let last = (place < idle.len()).then_some("done");
        for answer in ["status", "sample"].into_iter().chain(last) {
            let said = line.hear()?;
            assert!(said.get(answer).is_some(), "{said}");
        }
    }
    assert_eq!(daemon.status(&bed)?.len(), 1 + idle.len());
    holds(&bed, "the limit holds meanwhile")?;
    drop(crowd);
    testbed::until("limits go with those who set them", PATIENCE, || {
        Ok((daemon.status(&bed)?.len() == 1).then_some(()))
    })?;
    let is_told = |daemon: &Daemon| daemon.process.stderr().matches("too slow").count() >= 2;
    testbed::until("who is too slow is left", PATIENCE, || Ok(is_told(&daemon).then_some(())))?;
    assert!(slow.is_closed());
    holds(&bed, "the limit holds to the end")?;

    daemon.process.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.process.wait_timeout(PATIENCE)?.code(), Some(0), "{}", daemon.process.stderr());
    assert!(!daemon.socket().exists());
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(1));
    assert!(limiter.stderr().contains("the daemon has ended"), "{}", limiter.stderr());
    Ok(())
}

#[test]
fn a_killed_daemon_leaves_nothing_in_force_and_the_next_one_has_its_rules_back() -> anyhow::Result<()> {
    let bed = Testbed::new("socket")?;
    let (sender, _sink) = sender(&bed)?;
    let program = fs::read_link(format!("/proc/{}/exe", sender.pid()))?;
    let rule = |limit: &str| {
        format!(
            "[[rule]]\nname = \"steady\"\nmatch.program = \"{}\"\nupload = \"{limit}\"\n",
            program.display()
        )
    };
    let mut daemon = Daemon::start(&bed, &rule("1M"))?;
    holds(&bed, "the rule holds")?;
    let limits = daemon.status(&bed)?;
    assert!(limits.len() == 1 && limits[0]["rule"].as_str().is_some_and(|rule| rule.contains("steady")));
    daemon.process.signal(Signal::SIGKILL)?;
    daemon.process.wait_timeout(PATIENCE)?;
    assert!(daemon.socket().exists(), "nobody was there to take it away");
    let (server, window) = (bed.server(), Duration::from_millis(300));
    testbed::until("nobody is limited", PATIENCE, || {
        let rate = support::interface_rate(server, server.interfaces()[0], "rx", window)?;
        Ok((rate > 2.0 * CAP).then_some(()))
    })?;
    let mut asks = daemon.asked(&bed, &["status"]);
    assert_eq!(Process::spawn(&mut asks)?.wait_timeout(PATIENCE)?.code(), Some(1));
    let start = Instant::now();
    daemon.process = spawn(&bed, daemon.directory.path())?;
    println!("rules are in force {:?} after the start", start.elapsed());
    holds(&bed, "the rule holds again")?;

    // What is written while it runs is read, and what is set by hand gives the rule its place back when it ends.
    let config = daemon.directory.path().join("config.toml");
    let mut add =
        daemon.asked(&bed, &["rules", "add", "--name", "more", "--user", "54321", "--upload-limit", "5M"]);
    Process::spawn(add.arg("--config").arg(config))?.success(PATIENCE)?;
    assert_eq!(daemon.status(&bed)?.len(), 2);
    let path = program.to_str().context("it is text")?;
    let mut by_hand = Process::spawn(&mut daemon.asked(&bed, &["--program", path, "--upload-limit", "3M"]))?;
    by_hand.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    let limit = |daemon: &Daemon| -> anyhow::Result<Option<Value>> {
        Ok(daemon.status(&bed)?.into_iter().find(|limit| limit["subject"]["kind"] == "program"))
    };
    let now = limit(&daemon)?.context("it is limited")?;
    assert!(now["limit"] == 3_000_000 && now["rule"].is_null(), "{now}");
    by_hand.signal(Signal::SIGINT)?;
    assert_eq!(by_hand.wait_timeout(PATIENCE)?.code(), Some(0), "{}", by_hand.stderr());
    let now = limit(&daemon)?.context("it is limited")?;
    assert!(now["limit"] == 1_000_000 && now["rule"].is_string(), "{now}");
    Ok(())
}

#[test]
fn a_daemon_that_nobody_hears_any_more_goes_on() -> anyhow::Result<()> {
    let bed = Testbed::new("socket")?;
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    let say = |limit: &str| {
        let rule = format!("[[rule]]\nname = \"one\"\nmatch.user = \"54321\"\nupload = \"{limit}\"\n");
        write_config(directory.path(), &rule)
    };
    say("1M")?;
    let mut command = daemon(&bed, directory.path());
    let mut daemon = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut said = BufReader::new(daemon.stderr.take().context("a pipe")?);
    let mut line = String::new();
    while !line.contains("in force") {
        line.clear();
        ensure!(said.read_line(&mut line)? > 0, "it has ended");
    }
    // From now on whatever it says is an error (EPIPE).
    drop(said);
    let pid = Pid::from_raw(daemon.id().cast_signed());
    for limit in ["2M", "3M"] {
        say(limit)?;
        kill(pid, Signal::SIGHUP)?;
        let words = format!("\"limit\":{}000000,", &limit[..1]);
        testbed::until("the rule is read", PATIENCE, || {
            let mut command = chadthrottle(&bed);
            command.arg("--socket").arg(directory.path().join("run/daemon.sock")).args(["status", "--json"]);
            Ok(Process::spawn(&mut command)?.success(PATIENCE)?.contains(&words).then_some(()))
        })?;
    }
    kill(pid, Signal::SIGTERM)?;
    let status = testbed::until("it ends", PATIENCE, || Ok(daemon.try_wait()?))?;
    assert_eq!(status.code(), Some(0));
    Ok(())
}

#[test]
fn the_screen_shows_and_sets_what_the_daemon_holds() -> anyhow::Result<()> {
    let bed = Testbed::new("socket")?;
    let recorded = tempfile::tempdir()?;
    let history = recorded.path().join("history.db");
    let daemon = Daemon::start(&bed, &format!("history.path = {:?}", history.display().to_string()))?;
    let (sender, _sink) = sender(&bed)?;
    let pid = sender.pid().to_string();
    let terminal = Terminal::open(&bed, 120, 24)?;
    let line =
        format!("clear; {} --socket {}; echo status=$?", terminal.program(), daemon.socket().display());
    terminal.keys(&[&line, "Enter"])?;
    terminal.wait_for("The daemon counts and limits here")?;
    let is_on_top = |words: &str| {
        testbed::until(&format!("the sender is on top with {words:?}"), PATIENCE, || {
            let text = terminal.text()?;
            let top = text.lines().find(|line| line.starts_with("> ")).unwrap_or_default();
            Ok((top.contains(&pid) && top.contains(words)).then_some(()))
        })
        .with_context(|| terminal.text().unwrap_or_default())
    };
    is_on_top("")?;
    terminal.keys(&["u"])?;
    terminal.keys(&["1M", "Enter"])?;
    terminal.wait_for("upload limited to 1M a second")?;
    holds(&bed, "the screen's limit holds")?;
    let limits = daemon.status(&bed)?;
    assert!(limits.len() == 1 && limits[0]["limit"] == 1_000_000, "{limits:?}");
    terminal.keys(&["r"])?;
    testbed::until("it is free", PATIENCE, || Ok(daemon.status(&bed)?.is_empty().then_some(())))?;

    // What somebody else sets is there as well, and stays when the screen goes.
    let other = Process::spawn(&mut daemon.asked(&bed, &["--pid", &pid, "--upload-limit", "1300K"]))?;
    other.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    is_on_top("1.3M")?;

    // What the daemon records, though this screen itself has no history.
    terminal.keys(&["H"])?;
    let text = terminal.wait_for("sent  all together")?;
    let program = fs::read_link(format!("/proc/{pid}/exe"))?;
    let name = program.file_name().context("it has a name")?.to_string_lossy().into_owned();
    assert!(text.contains(&name), "{name}: {text}");
    terminal.keys(&["Escape"])?;
    is_on_top("")?;
    terminal.keys(&["q"])?;
    terminal.wait_for("status=0")?;
    assert_eq!(daemon.status(&bed)?.len(), 1);
    Ok(())
}
