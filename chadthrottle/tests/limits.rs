//! Limits hold: real programs, real kernel, through the binary.
//!
//! The bands here are wide, because they must hold on any loaded machine; `cargo xtask bench throttle` has the figures.

mod support;

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use anyhow::Context;
use nix::sys::signal::Signal;
use support::{PATIENCE, interface_rate, limit_pid, run_limited};
use testbed::{
    Family, Host, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    traffic,
};

/// 10M: IP bytes a second.
const LIMIT: f64 = 10e6;
/// The port of iperf3 servers here.
const PORT: u16 = 5201;

/// Runs a limited iperf3 and checks what was received, from the second second on and in the worst second.
fn holds(direction: &str, family: Family, congestion: &str, flows: u32) -> anyhow::Result<()> {
    let bed = Testbed::new("limit")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), family, PORT).seconds(4).flows(flows).congestion(congestion);
    let (option, client) = match direction {
        "up" => ("--upload-limit", client),
        _ => ("--download-limit", client.reverse()),
    };
    let command = ["iperf3".to_owned()].into_iter().chain(client.args());
    let stdout = Process::spawn(&mut run_limited(&bed, [option, "10M"], command))?.success(PATIENCE)?;
    let report = Iperf3Report::parse(&stdout)?;
    let achieved = report.rate_after_first_second() / LIMIT;
    let worst = report.max_second() / LIMIT;
    // The least was 0.56, with seven runnable processes a CPU.
    assert!((0.4..1.1).contains(&achieved), "{direction} {family:?} {congestion} {flows}: {achieved:.3}");
    assert!(worst < 1.3, "{direction} {family:?} {congestion} {flows}: worst second {worst:.3}");
    Ok(())
}

#[test]
fn uploads_cubic_one_flow_ipv4() -> anyhow::Result<()> {
    holds("up", Family::V4, "cubic", 1)
}

#[test]
fn uploads_bbr_eight_flows_ipv6() -> anyhow::Result<()> {
    holds("up", Family::V6, "bbr", 8)
}

#[test]
fn downloads_cubic_eight_flows_ipv6() -> anyhow::Result<()> {
    holds("down", Family::V6, "cubic", 8)
}

#[test]
fn downloads_bbr_one_flow_ipv4() -> anyhow::Result<()> {
    holds("down", Family::V4, "bbr", 1)
}

/// How a limit on a running process may end.
#[derive(Clone, Copy, Debug)]
enum End {
    Signal(Signal),
    Duration,
}

/// An iperf3 that has been running for a while is held, and free again when the limit ends.
fn takes_hold_and_lets_go(reverse: bool, end: End) -> anyhow::Result<()> {
    let bed = Testbed::new("pid")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(60);
    let (client, direction, option) =
        if reverse { (client.reverse(), "rx", "--download-limit") } else { (client, "tx", "--upload-limit") };
    let iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    // At the far side of the router: what was dropped on the way in has passed the client's own interface.
    let (host, interface, direction) = match direction {
        "tx" => (bed.server(), bed.server().interfaces()[0], "rx"),
        _ => (bed.server(), bed.server().interfaces()[0], "tx"),
    };
    let rate = |milliseconds| interface_rate(host, interface, direction, Duration::from_millis(milliseconds));
    testbed::until("iperf3 runs at full speed", PATIENCE, || Ok((rate(200)? > 100e6).then_some(())))?;

    let mut options = vec![option, "10M"];
    if let End::Duration = end {
        options.extend(["--duration", "3s"]);
    }
    let mut limiter = limit_pid(&bed, iperf3.pid(), &options)?;
    std::thread::sleep(Duration::from_secs(1));
    let held = rate(1000)?;
    assert!(held < 1.6 * LIMIT, "{end:?}: {held} B/s a second after a limit of {LIMIT}");

    if let End::Signal(signal) = end {
        limiter.signal(signal)?;
    }
    let status = limiter.wait_timeout(PATIENCE)?;
    match end {
        End::Signal(Signal::SIGKILL) => assert!(!status.success()),
        _ => assert_eq!(status.code(), Some(0), "{end:?}: {}", limiter.stderr()),
    }
    testbed::until("it is free again", PATIENCE, || Ok((rate(200)? > 5.0 * LIMIT).then_some(())))
        .with_context(|| format!("{end:?}"))
}

#[test]
fn a_running_upload_is_held_until_sigterm() -> anyhow::Result<()> {
    takes_hold_and_lets_go(false, End::Signal(Signal::SIGTERM))
}

#[test]
fn a_running_upload_is_held_until_sigkill() -> anyhow::Result<()> {
    takes_hold_and_lets_go(false, End::Signal(Signal::SIGKILL))
}

#[test]
fn a_running_download_is_held_for_the_duration() -> anyhow::Result<()> {
    takes_hold_and_lets_go(true, End::Duration)
}

#[test]
fn a_running_download_is_held_until_sigint() -> anyhow::Result<()> {
    takes_hold_and_lets_go(true, End::Signal(Signal::SIGINT))
}

/// UDP payload of a packet of 1400 IP bytes.
const DATAGRAM: u64 = 1400 - 28;

/// Arguments of `traffic` for a receiver of datagrams: a sender that does not get the CPU for a while does not end it.
fn sink(listen: &str) -> Vec<String> {
    let until = ["--until-told", "--idle-exit", "300", "--first-wait", "120000"];
    ["udp-sink", "--listen", listen].into_iter().chain(until).map(str::to_owned).collect()
}

/// What a receiver on a host got, once nobody sends any more.
fn received(host: &Host, sink: Process, address: SocketAddr) -> anyhow::Result<traffic::Report> {
    let teller = host.run(|| Ok(UdpSocket::bind(SocketAddr::new(address.ip(), 0))?))?;
    teller.send_to(&[], address)?;
    traffic::Report::parse(&sink.success(PATIENCE)?)
}

/// What is achieved, of a limit of 2 MB/s and in packets of `length` IP bytes. A sender that does not get the CPU offers
/// less, and then for a moment what it has saved up.
fn assert_achieved(report: &traffic::Report, length: f64, what: &str) {
    let achieved = report.timeline.rate_after(1.0) / 2e6 * length / 1372.0;
    println!("{what}: {achieved:.3} of the limit");
    assert!((0.6..1.1).contains(&achieved), "{what}: {achieved:.3}");
}

#[test]
fn a_udp_sender_at_three_times_its_limit_gets_no_error_and_is_held() -> anyhow::Result<()> {
    for unconnected in [false, true] {
        let bed = Testbed::new("udp")?;
        let listen = bed.server().socket_address(Family::V4, 0).to_string();
        let sink = Process::spawn(traffic::command(bed.server())?.args(sink(&listen)))?;
        let address = traffic::ready(&sink)?;
        let to = address.to_string();
        let size = DATAGRAM.to_string();
        let mut sender = vec![traffic::traffic_binary()?.display().to_string()];
        sender.extend(
            ["udp-send", "--to", &to, "--rate", "6000000", "--size", &size, "--seconds", "4"]
                .map(str::to_owned),
        );
        if unconnected {
            sender.push("--unconnected".into());
        }
        let sent =
            Process::spawn(&mut run_limited(&bed, ["--upload-limit", "2M"], sender))?.success(PATIENCE)?;
        let sent = traffic::Report::parse(&sent)?;
        assert!(sent.errors.is_empty(), "unconnected {unconnected}: {:?}", sent.errors);
        let received = received(bed.server(), sink, address)?;
        assert_achieved(&received, 1400.0, &format!("unconnected {unconnected}"));
    }
    Ok(())
}

#[test]
fn a_udp_receiver_is_held() -> anyhow::Result<()> {
    let bed = Testbed::new("udp")?;
    let listen = bed.client().socket_address(Family::V6, 4000).to_string();
    let sink = [vec![traffic::traffic_binary()?.display().to_string()], sink(&listen)].concat();
    let sink = Process::spawn(&mut run_limited(&bed, ["--download-limit", "2M"], sink))?;
    let address = traffic::ready(&sink)?;
    let size = DATAGRAM.to_string();
    let send = ["udp-send", "--to", &listen, "--rate", "6000000", "--size", &size, "--seconds", "4"];
    Process::spawn(traffic::command(bed.server())?.args(send))?.success(PATIENCE)?;
    assert_achieved(&received(bed.client(), sink, address)?, 1420.0, "a receiver");
    Ok(())
}

#[test]
fn a_neighbour_in_the_same_cgroup_is_not_held() -> anyhow::Result<()> {
    let bed = Testbed::new("neighbour")?;
    let _limited_server = Iperf3Server::start(bed.server(), PORT)?;
    let _free_server = Iperf3Server::start(bed.server(), PORT + 1)?;
    let client = |port| Iperf3::client(bed.server(), Family::V4, port).seconds(4);
    let command = ["iperf3".to_owned()].into_iter().chain(client(PORT).args());
    let limited = Process::spawn(&mut run_limited(&bed, ["--upload-limit", "10M"], command))?;
    let free = client(PORT + 1).run(bed.client(), PATIENCE)?;
    let limited = Iperf3Report::parse(&limited.success(PATIENCE)?)?;
    assert!(limited.rate_after_first_second() < 1.1 * LIMIT);
    assert!(free.rate_after_first_second() > 10.0 * LIMIT, "{}", free.rate_after_first_second());
    Ok(())
}

#[test]
fn what_a_command_starts_shares_its_limit() -> anyhow::Result<()> {
    let bed = Testbed::new("children")?;
    let _one = Iperf3Server::start(bed.server(), PORT)?;
    let _two = Iperf3Server::start(bed.server(), PORT + 1)?;
    let line = |port| {
        let args = Iperf3::client(bed.server(), Family::V4, port).seconds(4).args().join(" ");
        format!("iperf3 {args}")
    };
    // Two children at once, one of them a grandchild; the second one's report comes after the first one's.
    let script = format!("sh -c '{} > /dev/null; :' & {}; wait", line(PORT), line(PORT + 1));
    let command = ["sh".to_owned(), "-c".to_owned(), script];
    let started = std::time::Instant::now();
    let interface = bed.server().interfaces()[0];
    let before = support::interface_bytes(bed.server(), interface, "rx")?;
    let shell = Process::spawn(&mut run_limited(&bed, ["--upload-limit", "10M"], command))?;
    shell.success(PATIENCE)?;
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let bytes = (support::interface_bytes(bed.server(), interface, "rx")? - before) as f64;
    let rate = bytes / started.elapsed().as_secs_f64();
    assert!(rate < 1.15 * LIMIT, "two children together: {rate} B/s");
    assert!(rate > 0.5 * LIMIT, "two children together: {rate} B/s");
    Ok(())
}

#[test]
fn a_limit_of_nothing_blocks() -> anyhow::Result<()> {
    let bed = Testbed::new("block")?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink(&listen)))?;
    let address = traffic::ready(&sink)?;
    let to = address.to_string();
    let mut sender = vec![traffic::traffic_binary()?.display().to_string()];
    sender.extend(
        ["udp-send", "--to", &to, "--rate", "100000", "--size", "100", "--seconds", "1"].map(str::to_owned),
    );
    let sent = Process::spawn(&mut run_limited(&bed, ["--upload-limit", "0"], sender))?.success(PATIENCE)?;
    assert!(traffic::Report::parse(&sent)?.datagrams > 20);
    assert_eq!(received(bed.server(), sink, address)?.datagrams, 0);
    Ok(())
}

#[test]
fn a_command_started_from_outside_the_cgroup_root_starts_inside() -> anyhow::Result<()> {
    let bed = Testbed::new("outside")?;
    // The server's programs stay in the cgroup of the test.
    let mut run = bed.server().command(support::BINARY);
    run.arg("--cgroup-root").arg(bed.cgroup_root()).args(["run", "--upload-limit", "1M", "--"]);
    let cgroups = Process::spawn(run.args(["cat", "/proc/self/cgroup"]))?.success(PATIENCE)?;
    let name = bed.cgroup_root().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    assert!(cgroups.lines().any(|line| line == format!("0::/{name}")), "{cgroups}");
    Ok(())
}

#[test]
fn the_programs_in_the_kernel_speak_when_asked() -> anyhow::Result<()> {
    let bed = Testbed::new("messages")?;
    let sender = [
        traffic::traffic_binary()?.to_str().unwrap_or_default(),
        "udp-send",
        "--to",
        &bed.server().socket_address(Family::V4, 9).to_string(),
        "--rate",
        "100000",
        "--size",
        "100",
        "--seconds",
        "0.2",
    ]
    .map(str::to_owned);
    for (options, expected) in
        [(&[][..], [false, false]), (&["-vv"], [true, false]), (&["-vvv"], [true, true])]
    {
        let mut command = support::chadthrottle(&bed);
        command.args(options).args(["run", "--upload-limit", "1K", "--"]).args(&sender);
        let mut run = Process::spawn(&mut command)?;
        assert!(run.wait_timeout(PATIENCE)?.success(), "{}", run.stderr());
        let said = ["socket made by", "over the limit"].map(|words| run.stderr().contains(words));
        assert_eq!(said, expected, "{options:?}: {}", run.stderr());
    }
    Ok(())
}
