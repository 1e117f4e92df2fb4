//! Uploads in an HTB queue, through the binary: limits hold for TCP and UDP, bystanders are not slowed, other people's
//! queues are left alone, and interfaces are as they were afterwards, also after a kill.
//!
//! The bands are wide, because they must hold on any loaded machine; `cargo xtask bench throttle` has the figures.

mod chosen;
#[path = "../support/mod.rs"]
mod support;

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use support::PATIENCE;
use testbed::{
    Family, Host, KernelState, Path, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    traffic,
};

const PORT: u16 = 5201;
const LIMIT: f64 = 2e6;
const OPTIONS: [&str; 4] = ["--upload-backend", "tc_htb", "--download-backend", "none"];

fn chadthrottle(bed: &Testbed) -> Command {
    let mut command = support::chadthrottle(bed);
    command.args(OPTIONS);
    command
}

/// Starts `chadthrottle --pid` and waits until the limit is in force.
fn limit_pid(bed: &Testbed, pid: u32, options: &[&str]) -> anyhow::Result<Process> {
    let mut command = chadthrottle(bed);
    let limiter = Process::spawn(command.args(["--pid", &pid.to_string()]).args(options))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// Runs a command of iproute2 on a host, which must succeed.
fn ip(host: &Host, words: &[&str]) -> anyhow::Result<String> {
    Process::spawn(host.command(words[0]).args(&words[1..]))?.success(PATIENCE)
}

fn idle(bed: &Testbed) -> anyhow::Result<Process> {
    Process::spawn(bed.client().command("sleep").arg("60"))
}

#[test]
fn tcp_is_held_without_loss_on_open_connections_and_beside_others() -> anyhow::Result<()> {
    let bed = Testbed::with_path("htb", &Path::round_trip(Duration::from_millis(5)))?;
    let servers = [PORT, PORT + 1].map(|port| Iperf3Server::start(bed.server(), port));
    let client = |family, port, seconds| Iperf3::client(bed.server(), family, port).seconds(seconds);
    let open = Process::spawn(&mut client(Family::V6, PORT, 60).flows(4).command(bed.client())?)?;
    let interface = bed.client().interfaces()[0];
    testbed::until("it runs at full speed", PATIENCE, || {
        let rate = support::interface_rate(bed.client(), interface, "tx", Duration::from_millis(100))?;
        Ok((rate > 20e6).then_some(()))
    })?;
    let mut limiter = limit_pid(&bed, open.pid(), &["--upload-limit", "2M"])?;
    let rate = support::interface_rate(bed.client(), interface, "tx", Duration::from_secs(2))? / LIMIT;
    println!("{rate:.3} on connections that were open");
    assert!((0.5..1.2).contains(&rate), "{rate:.3}");
    // A neighbour is not slowed.
    let other = Process::spawn(&mut client(Family::V4, PORT + 1, 1).command(bed.client())?)?;
    let report = Iperf3Report::parse(&other.success(PATIENCE)?)?;
    // In one second, on a new connection.
    assert!(report.received_bytes > 20_000_000, "the neighbour sent {} bytes", report.received_bytes);
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    drop((open, servers));
    Ok(())
}

#[test]
fn udp_is_held_whatever_its_datagrams_are_long() -> anyhow::Result<()> {
    for (size, family) in [(1400, Family::V4), (100, Family::V6)] {
        let bed = Testbed::new("htb")?;
        let listen = bed.server().socket_address(family, 0).to_string();
        let mut sink = traffic::command(bed.server())?;
        let sink = Process::spawn(sink.args(["udp-sink", "--listen", &listen, "--idle-exit", "1000"]))?;
        let to = traffic::ready(&sink)?.to_string();
        let send = ["udp-send", "--to", &to, "--rate", "6000000", "--seconds", "4"];
        let mut command = chadthrottle(&bed);
        command.args(["run", "--upload-limit", "2M", "--"]).arg(traffic::traffic_binary()?).args(send);
        let run = Process::spawn(command.args(["--size", &size.to_string()]))?;
        let report = traffic::Report::parse(&run.success(PATIENCE)?)?;
        // A program that is limited is not told of errors.
        assert!(report.errors.is_empty(), "{:?}", report.errors);
        let received = traffic::Report::parse(&sink.success(PATIENCE)?)?;
        let headers = if family == Family::V4 { 28.0 } else { 48.0 };
        let rate = received.timeline.rate_between(1.0, 3.5) * (f64::from(size) + headers) / f64::from(size);
        println!("{:.3} with datagrams of {size} bytes", rate / LIMIT);
        assert!((0.5..1.2).contains(&(rate / LIMIT)), "{:.3} with {size} bytes", rate / LIMIT);
    }
    Ok(())
}

/// Whether datagrams that a new process in a cgroup sends to an address of the server, its first ones, arrive there.
#[cfg(feature = "ebpf")]
fn first_ones_arrive(bed: &Testbed, cgroup: &std::path::Path, to: &str) -> anyhow::Result<bool> {
    let until = ["--until-told", "--idle-exit", "300", "--first-wait", "120000"];
    let mut sink = traffic::command(bed.server())?;
    let sink = Process::spawn(sink.args(["udp-sink", "--listen", &format!("{to}:0")]).args(until))?;
    let address = traffic::ready(&sink)?;
    let mut sender = bed.client().command_in(cgroup, traffic::traffic_binary()?)?;
    sender.args(["udp-send", "--to", &address.to_string(), "--rate", "1000000", "--size", "1000"]);
    Process::spawn(sender.args(["--datagrams", "40"]))?.success(PATIENCE)?;
    let teller = bed.server().run(|| Ok(std::net::UdpSocket::bind("0.0.0.0:0")?))?;
    teller.send_to(&[], address)?;
    Ok(traffic::Report::parse(&sink.success(PATIENCE)?)?.datagrams > 0)
}

/// By the programs: a socket's own priority would come too late, and be for all that it sends.
#[cfg(feature = "ebpf")]
#[test]
fn whoever_comes_later_is_held_from_the_first_packet_and_its_other_traffic_is_not() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    let (near, far) = (bed.server().address(Family::V4).to_string(), "11.22.33.44");
    let far_network = format!("{far}/32");
    ip(bed.server(), &["ip", "address", "add", &far_network, "dev", bed.server().interfaces()[0]])?;
    ip(bed.router(), &["ip", "route", "add", &far_network, "via", &near])?;
    let listed = Process::spawn(chadthrottle(&bed).arg("--list-backends"))?.success(PATIENCE)?;
    let row = listed.lines().find(|line| line.contains("tc_htb")).unwrap_or_default();
    assert!(row.contains("(eBPF)"), "{listed}");
    let unit = bed.cgroup("held")?;
    let mut command = chadthrottle(&bed);
    command.arg("--cgroup").arg(&unit).args(["--traffic", "internet", "--upload-limit", "0"]);
    let mut limiter = Process::spawn(&mut command)?;
    limiter.wait_for_line(|line| line.contains("held to"), PATIENCE)?;
    assert!(!first_ones_arrive(&bed, &unit, far)?, "what goes to the internet is not held");
    assert!(first_ones_arrive(&bed, &unit, &near)?, "what stays near is held");
    assert!(first_ones_arrive(&bed, bed.cgroup_root(), far)?, "somebody else is held");
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    Ok(())
}

/// Flow control takes hold of sockets, and what waits for their locks then leaves in our context: that makes none of them
/// ours. It happens where a queue overflows and TCP has to be asked to try again.
#[cfg(feature = "ebpf")]
#[test]
fn no_packet_goes_past_its_class_while_flow_control_sets_options() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    let server = Iperf3Server::start(bed.server(), PORT)?;
    let arguments = Iperf3::client(bed.server(), Family::V4, PORT).seconds(6).flows(8).args();
    let mut command = chadthrottle(&bed);
    command.args(["run", "--upload-limit", "64000", "--", "iperf3"]).args(arguments);
    let run = Process::spawn(&mut command)?;
    let interface = bed.client().interfaces()[0];
    // ` Sent 3028 bytes …`, in the line below that of the queue or class.
    let sent = |what: &str| -> anyhow::Result<u64> {
        let shown = ip(bed.client(), &["tc", "-s", what, "show", "dev", interface])?;
        let ours = shown.lines().skip_while(|line| !line.contains(" htb ")).nth(1).unwrap_or_default();
        Ok(ours.split_whitespace().nth(1).map_or(Ok(0), str::parse)?)
    };
    testbed::until("the limit has passed 150 KB", PATIENCE, || Ok((sent("class")? > 150_000).then_some(())))?;
    // What has no class beside ARP and the like.
    let past = sent("qdisc")?.saturating_sub(sent("class")?);
    println!("{past} bytes without a class");
    assert!(past < 8000, "{past} bytes without a class");
    drop((run, server));
    Ok(())
}

#[test]
fn a_block_takes_nothing_and_goes() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    let before = KernelState::capture(&bed)?;
    let target = idle(&bed)?;
    let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "0"])?;
    let classes = ip(bed.client(), &["tc", "class", "show", "dev", bed.client().interfaces()[0]])?;
    assert_eq!(classes.lines().count(), 1, "{classes}");
    let qdiscs = ip(bed.client(), &["tc", "qdisc", "show"])?;
    assert!(qdiscs.contains("blackhole"), "{qdiscs}");
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn a_queue_that_somebody_chose_is_refused_and_kept() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    let interface = bed.client().interfaces()[0];
    ip(bed.client(), &["tc", "qdisc", "add", "dev", interface, "root", "handle", "1:", "pfifo"])?;
    let before = KernelState::capture(&bed)?;
    let target = idle(&bed)?;
    let mut command = chadthrottle(&bed);
    command.args(["--pid", &target.pid().to_string(), "--upload-limit", "1M"]);
    let mut refused = Process::spawn(&mut command)?;
    assert_eq!(refused.wait_timeout(PATIENCE)?.code(), Some(4), "{}", refused.stderr());
    for word in [interface, "pfifo 1:", "tc qdisc del", "--interface"] {
        assert!(refused.stderr().contains(word), "no {word:?} in {}", refused.stderr());
    }
    let listed = Process::spawn(chadthrottle(&bed).arg("--list-backends"))?.success(PATIENCE)?;
    let row = listed.lines().find(|line| line.contains("tc_htb")).unwrap_or_default();
    assert!(row.contains("pfifo 1:"), "{listed}");
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn several_queues_of_a_device_come_back() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    // A device with a queue for each of its four ways out, and one that has no length, which gets one with a queue.
    ip(bed.client(), &["ip", "link", "add", "many", "numtxqueues", "4", "type", "ifb"])?;
    ip(
        bed.client(),
        &["ip", "link", "add", "short", "txqueuelen", "0", "type", "veth", "peer", "name", "other"],
    )?;
    for (name, network) in [("many", "10.99.1.1/24"), ("short", "10.99.2.1/24")] {
        ip(bed.client(), &["ip", "address", "add", network, "dev", name])?;
        ip(bed.client(), &["ip", "link", "set", name, "up"])?;
    }
    let queues = || -> anyhow::Result<String> {
        let mut text = ip(bed.client(), &["tc", "-j", "qdisc", "show"])?;
        text += &ip(bed.client(), &["ip", "-o", "link", "show"])?;
        Ok(text)
    };
    let before = queues()?;
    assert!(before.contains("\"mq\""), "{before}");
    let target = idle(&bed)?;
    let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
    for name in ["many", "short", bed.client().interfaces()[0]] {
        let during = ip(bed.client(), &["tc", "qdisc", "show", "dev", name])?;
        assert!(during.starts_with("qdisc htb 7cad: root"), "{during}");
    }
    limiter.signal(Signal::SIGTERM)?;
    limiter.wait_timeout(PATIENCE)?;
    assert_eq!(queues()?, before);
    Ok(())
}

#[test]
fn what_a_killed_one_left_is_removed_by_cleanup_and_by_the_next_start() -> anyhow::Result<()> {
    for by_cleanup in [true, false] {
        let bed = Testbed::new("htb")?;
        let before = KernelState::capture(&bed)?;
        let target = idle(&bed)?;
        let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
        // Of one that runs nothing is removed, and a second one is refused.
        let cleanup = |options: &[&str]| -> anyhow::Result<String> {
            let mut command = bed.client().command(support::BINARY);
            let told = Process::spawn(command.arg("cleanup").args(options))?.success(PATIENCE)?;
            // What others that were killed had said of themselves is of the whole host.
            let lines: Vec<_> = told.lines().filter(|line| !line.contains(" the note ")).collect();
            Ok(lines.join("\n"))
        };
        assert_eq!(cleanup(&[])?, "");
        let mut command = chadthrottle(&bed);
        let mut second =
            Process::spawn(command.args(["--pid", &target.pid().to_string(), "--upload-limit", "1M"]))?;
        assert_eq!(second.wait_timeout(PATIENCE)?.code(), Some(4), "{}", second.stderr());
        let owner = format!("process {}", limiter.pid());
        assert!(second.stderr().contains(&owner), "{}", second.stderr());

        support::kill_with_guards(&mut limiter)?;
        assert!(cleanup(&["--dry-run"])?.contains(bed.client().interfaces()[0]));
        if by_cleanup {
            assert!(cleanup(&[])?.starts_with("removed the queue htb 7cad:"));
        } else {
            let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
            limiter.signal(Signal::SIGTERM)?;
            limiter.wait_timeout(PATIENCE)?;
        }
        before.assert_returns(&bed, PATIENCE)?;
        assert_eq!(cleanup(&[])?, "");
    }
    Ok(())
}

#[test]
fn interfaces_that_come_are_limited_and_those_that_go_are_forgotten() -> anyhow::Result<()> {
    let bed = Testbed::new("htb")?;
    let target = idle(&bed)?;
    let mut limiter = limit_pid(&bed, target.pid(), &["--upload-limit", "1M"])?;
    ip(bed.client(), &["ip", "link", "add", "late", "type", "veth", "peer", "name", "other"])?;
    ip(bed.client(), &["ip", "address", "add", "10.99.1.1/24", "dev", "late"])?;
    ip(bed.client(), &["ip", "link", "set", "other", "up"])?;
    ip(bed.client(), &["ip", "link", "set", "late", "up"])?;
    testbed::until("the new interface is limited", PATIENCE, || {
        let classes = ip(bed.client(), &["tc", "class", "show", "dev", "late"])?;
        Ok(classes.contains("htb 7cad:1").then_some(()))
    })?;
    ip(bed.client(), &["ip", "link", "delete", "late"])?;
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    assert!(!limiter.stderr().contains("WARN"), "{}", limiter.stderr());
    Ok(())
}
