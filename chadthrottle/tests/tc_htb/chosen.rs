//! An HTB queue that somebody chose: used where he says so, and as it was afterwards but for what he does himself.

use std::time::Duration;

use anyhow::Context;
use nix::sys::signal::Signal;
use testbed::{
    Family, KernelState, Path, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

use super::{
    LIMIT, OPTIONS, PORT, chadthrottle, idle, ip, limit_pid,
    support::{self, PATIENCE},
};

/// Gives the client an HTB queue as people do, with a default class, a leaf and a filter.
fn choose_htb(bed: &Testbed) -> anyhow::Result<()> {
    let interface = bed.client().interfaces()[0];
    for line in [
        "qdisc add dev IF root handle 1: htb default 30",
        "class add dev IF parent 1: classid 1:1 htb rate 4gbit burst 1m cburst 1m",
        "class add dev IF parent 1:1 classid 1:10 htb rate 8mbit",
        "class add dev IF parent 1:1 classid 1:30 htb rate 3gbit ceil 4gbit burst 1m cburst 1m",
        "qdisc add dev IF parent 1:10 handle 10: pfifo limit 77",
        "filter add dev IF parent 1: protocol ip prio 5 u32 match ip dport 9 0xffff flowid 1:10",
    ] {
        let line = line.replace("IF", interface);
        let words: Vec<&str> = std::iter::once("tc").chain(line.split(' ')).collect();
        ip(bed.client(), &words)?;
    }
    Ok(())
}

/// All that is in the queue of the client, a line each, without what is counted.
fn queue(bed: &Testbed) -> anyhow::Result<Vec<String>> {
    // Of classes `tc` makes no JSON.
    let classes = ip(bed.client(), &["tc", "class", "show", "dev", bed.client().interfaces()[0]])?;
    let mut lines: Vec<String> = classes.lines().map(str::to_owned).collect();
    for what in ["qdisc", "filter"] {
        let text = ip(bed.client(), &["tc", "-j", what, "show", "dev", bed.client().interfaces()[0]])?;
        let mut all: Vec<serde_json::Value> = serde_json::from_str(&text)?;
        for one in all.iter_mut().filter_map(serde_json::Value::as_object_mut) {
            // How many classes there are.
            one.remove("refcnt");
            if let Some(options) = one.get_mut("options").and_then(|options| options.as_object_mut()) {
                options.remove("direct_packets_stat");
            }
        }
        lines.extend(all.iter().map(ToString::to_string));
    }
    lines.sort();
    Ok(lines)
}

#[test]
fn an_htb_queue_that_somebody_chose_is_used_where_he_says_so() -> anyhow::Result<()> {
    let bed = Testbed::with_path("htb", &Path::round_trip(Duration::from_millis(5)))?;
    choose_htb(&bed)?;
    let (state, before) = (KernelState::capture(&bed)?, queue(&bed)?);
    let interface = bed.client().interfaces()[0];
    let target = idle(&bed)?;
    let mut command = chadthrottle(&bed);
    command.args(["--pid", &target.pid().to_string(), "--upload-limit", "1M"]);
    let mut refused = Process::spawn(&mut command)?;
    assert_eq!(refused.wait_timeout(PATIENCE)?.code(), Some(4), "{}", refused.stderr());
    for word in [interface, "htb 1:", "--use-existing-htb"] {
        assert!(refused.stderr().contains(word), "no {word:?} in {}", refused.stderr());
    }

    let _servers = [PORT, PORT + 1].map(|port| Iperf3Server::start(bed.server(), port));
    let client = |family, port, seconds| Iperf3::client(bed.server(), family, port).seconds(seconds);
    let open = Process::spawn(&mut client(Family::V4, PORT, 60).flows(4).command(bed.client())?)?;
    testbed::until("it runs at full speed", PATIENCE, || {
        let rate = support::interface_rate(bed.client(), interface, "tx", Duration::from_millis(100))?;
        Ok((rate > 20e6).then_some(()))
    })?;
    let mut limiter = limit_pid(&bed, open.pid(), &["--upload-limit", "2M", "--use-existing-htb"])?;
    let rate = support::interface_rate(bed.client(), interface, "tx", Duration::from_secs(2))? / LIMIT;
    println!("{rate:.3} in somebody's queue");
    assert!((0.5..1.15).contains(&rate), "{rate:.3}");
    let during = queue(&bed)?;
    assert!(before.iter().all(|line| during.contains(line)), "{before:?}\n{during:?}");
    assert!(during.iter().any(|line| line.starts_with("class htb 1:cad1 root")), "{during:?}");
    // Who is not limited has his class as before, and more than the limit.
    let default = || -> anyhow::Result<u64> {
        let text = ip(bed.client(), &["tc", "-s", "class", "show", "dev", interface, "classid", "1:30"])?;
        let bytes = text.split("Sent ").nth(1).and_then(|rest| rest.split(' ').next());
        Ok(bytes.context("it has counted nothing")?.parse()?)
    };
    let passed = default()?;
    let other = Process::spawn(&mut client(Family::V6, PORT + 1, 1).command(bed.client())?)?;
    let report = Iperf3Report::parse(&other.success(PATIENCE)?)?;
    assert!(report.received_bytes > 5_000_000, "the neighbour sent {} bytes", report.received_bytes);
    assert!(default()? - passed > 5_000_000, "it did not pass the default class");
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    assert_eq!(queue(&bed)?, before);
    drop(open);
    state.assert_returns(&bed, PATIENCE)
}

#[test]
fn of_somebodys_queue_only_our_classes_are_removed_after_a_kill() -> anyhow::Result<()> {
    for way in ["guard", "cleanup", "next start", "his class of that number"] {
        let bed = Testbed::new("htb")?;
        choose_htb(&bed)?;
        let (before, interface) = (queue(&bed)?, bed.client().interfaces()[0]);
        let target = idle(&bed)?;
        let start = || limit_pid(&bed, target.pid(), &["--upload-limit", "1M", "--use-existing-htb"]);
        let cleanup = || -> anyhow::Result<String> {
            Process::spawn(bed.client().command(support::BINARY).arg("cleanup"))?.success(PATIENCE)
        };
        let mut limiter = start()?;
        if way == "guard" {
            limiter.signal(Signal::SIGKILL)?;
            limiter.wait_timeout(PATIENCE)?;
            let is_back = || Ok((queue(&bed)? == before).then_some(()));
            testbed::until("the guard has removed the class", PATIENCE, is_back)?;
            continue;
        }
        support::kill_with_guards(&mut limiter)?;
        let left = queue(&bed)?;
        assert!(left.iter().any(|line| line.starts_with("class htb 1:cad1 root")), "{left:?}");
        let of_class = |what| ["tc", "class", what, "dev", interface, "parent", "1:", "classid", "1:cad1"];
        match way {
            "cleanup" => {
                let told = cleanup()?;
                let expected = format!("our classes in the queue htb 1: of {interface}");
                assert!(told.contains(&expected), "{told}");
            }
            "next start" => {
                let mut limiter = start()?;
                limiter.signal(Signal::SIGTERM)?;
                limiter.wait_timeout(PATIENCE)?;
            }
            _ => {
                ip(bed.client(), &of_class("del"))?;
                ip(bed.client(), &[&of_class("add")[..], &["htb", "rate", "1mbit"]].concat())?;
                cleanup()?;
                assert_eq!(queue(&bed)?.len(), before.len() + 1);
                ip(bed.client(), &of_class("del"))?;
            }
        }
        assert_eq!(queue(&bed)?, before, "{way}");
    }
    Ok(())
}

#[test]
fn a_class_that_somebody_uses_is_removed_when_he_does_not_any_more() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    choose_htb(&bed)?;
    let (before, interface) = (queue(&bed)?, bed.client().interfaces()[0]);
    let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
    let config = directory.path().join("config.toml");
    std::fs::write(&config, "history.enabled = false\n")?;
    let program = || {
        let mut command = support::chadthrottle(&bed);
        command.arg("--config").arg(&config).arg("--socket").arg(directory.path().join("run/daemon.sock"));
        command
    };
    let mut daemon = Process::spawn(program().args(OPTIONS).args(["--use-existing-htb", "daemon"]))?;
    daemon.wait_for_line(|line| line.contains("in force"), PATIENCE)?;
    let targets = [idle(&bed)?, idle(&bed)?];
    let limit = |target: &Process| -> anyhow::Result<Process> {
        let words = ["--pid", &target.pid().to_string(), "--upload-limit", "1M"];
        let limiter = Process::spawn(program().args(words))?;
        limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
        Ok(limiter)
    };
    let (mut first, mut second) = (limit(&targets[0])?, limit(&targets[1])?);
    let class = |number| -> anyhow::Result<Option<String>> {
        let start = format!("class htb 1:{number} root");
        Ok(queue(&bed)?.into_iter().find(|line| line.starts_with(&start)))
    };
    assert!(class("cad1")?.is_some() && class("cad2")?.is_some(), "{:?}", queue(&bed)?);

    let filter = |line: &str| {
        let line = format!("tc filter {line}").replace("IF", interface);
        ip(bed.client(), &line.split(' ').collect::<Vec<_>>())
    };
    filter("add dev IF parent 1: protocol ip prio 7 u32 match ip dport 10 0xffff flowid 1:cad1")?;
    first.signal(Signal::SIGTERM)?;
    first.wait_timeout(PATIENCE)?;
    testbed::until("the class holds nobody any more", PATIENCE, || {
        Ok(class("cad1")?.filter(|line| line.contains("100Gbit")))
    })?;
    filter("del dev IF parent 1: protocol ip prio 7")?;
    testbed::until("it is removed", PATIENCE, || Ok(class("cad1")?.is_none().then_some(())))?;
    assert!(class("cad2")?.is_some());

    second.signal(Signal::SIGTERM)?;
    second.wait_timeout(PATIENCE)?;
    testbed::until("all is as before", PATIENCE, || Ok((queue(&bed)? == before).then_some(())))?;
    daemon.signal(Signal::SIGTERM)?;
    assert_eq!(daemon.wait_timeout(PATIENCE)?.code(), Some(0), "{}", daemon.stderr());
    Ok(())
}
