//! The monitor over packet sockets names the right process and counts every byte, through the binary.

mod support;

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::Context;
use pnet_datalink::{Channel, Config, MacAddr};
use pnet_packet::{
    ip::IpNextHeaderProtocols,
    ipv4::{self, MutableIpv4Packet},
    udp::MutableUdpPacket,
};
use serde_json::Value;
use support::{Monitor, PATIENCE, assert_close, number, process, tcp_ip_bytes};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    traffic,
};

const PNET: [&str; 2] = ["--monitor-backend", "pnet"];

fn start(bed: &Testbed, options: &[&str]) -> anyhow::Result<Monitor> {
    let monitor = Monitor::start(bed, &[&PNET[..], options].concat())?;
    assert_eq!(monitor.last()?["monitor"], "pnet");
    Ok(monitor)
}

/// The line of a process that has ended.
fn ended(monitor: &Monitor, pid: u32) -> anyhow::Result<Value> {
    monitor.until("the process has ended", |line| {
        process(line, pid).filter(|row| row["alive"] == false).cloned()
    })
}

/// A receiver of datagrams on the server, and where it is.
fn udp_sink(bed: &Testbed, family: Family) -> anyhow::Result<(Process, String)> {
    let listen = bed.server().socket_address(family, 0).to_string();
    let sink = ["udp-sink", "--listen", &listen, "--idle-exit", "500"];
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
    let to = traffic::ready(&sink)?.to_string();
    Ok((sink, to))
}

fn tcp_sink(bed: &Testbed, family: Family) -> anyhow::Result<(Process, String)> {
    let listen = bed.server().socket_address(family, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    Ok((sink, to))
}

fn udp_send(bed: &Testbed, to: &str, size: &str, seconds: &str) -> anyhow::Result<Command> {
    let mut command = traffic::command(bed.client())?;
    command.args(["udp-send", "--to", to, "--rate", "1000000", "--size", size, "--seconds", seconds]);
    Ok(command)
}

#[test]
fn iperf3_is_named_and_counted_in_both_directions() -> anyhow::Result<()> {
    for family in Family::ALL {
        for reverse in [false, true] {
            let bed = Testbed::new("pnet-iperf3")?;
            let _server = Iperf3Server::start(bed.server(), 5201)?;
            let monitor = start(&bed, &[])?;
            let client = Iperf3::client(bed.server(), family, 5201).bytes(200_000_000).rate(100_000_000);
            let client = if reverse { client.reverse() } else { client };
            let mut iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
            let pid = iperf3.pid();
            assert!(iperf3.wait_timeout(PATIENCE)?.success());
            let report = Iperf3Report::parse(&iperf3.stdout())?;
            drop(iperf3);
            let row = ended(&monitor, pid)?;
            assert_eq!(row["name"], "iperf3");
            let (field, other) = if reverse {
                ("download_bytes_total", "upload_bytes_total")
            } else {
                ("upload_bytes_total", "download_bytes_total")
            };
            let expected = tcp_ip_bytes(report.received_bytes, family);
            assert_close(number(&row, field), expected, &format!("{family:?} {field}"));
            // The other way went only acknowledgements.
            assert!(number(&row, other) < number(&row, field) / 10);
            assert_eq!(monitor.last()?["lost_events"], 0);
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_was_open_before_has_its_owner() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-before")?;
    let (_sink, to) = tcp_sink(&bed, Family::V4)?;
    // Not at full speed, where TCP takes what is only late for lost, and sends (and we count) it twice.
    let send = ["tcp-send", "--to", &to, "--bytes", "30000000", "--rate", "50000000", "--wait-stdin"];
    let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    traffic::ready(&sender)?;

    let monitor = start(&bed, &[])?;
    sender.send_line("go")?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let row = ended(&monitor, sender.pid())?;
    assert_close(number(&row, "upload_bytes_total"), tcp_ip_bytes(30_000_000, Family::V4), "open before");
    assert_eq!((&row["name"], &row["user"]), (&Value::from("traffic"), &Value::from("root")));
    Ok(())
}

#[test]
fn an_accepted_connection_belongs_to_who_accepted_it() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-accept")?;
    let monitor = start(&bed, &[])?;
    // On all addresses: its IPv4 connections have addresses that are mapped into IPv6.
    for family in Family::ALL {
        // Not at full speed, where TCP takes what is only late for lost, and sends (and we count) it twice.
        let source = ["tcp-source", "--listen", "[::]:0", "--bytes", "20000000", "--rate", "40000000"];
        let mut source = Process::spawn(traffic::command(bed.client())?.args(source))?;
        let port = traffic::ready(&source)?.port();
        let from = bed.client().socket_address(family, port).to_string();
        let receive = ["tcp-receive", "--from", &from];
        let received = Process::spawn(traffic::command(bed.server())?.args(receive))?.success(PATIENCE)?;
        assert_eq!(traffic::Report::parse(&received)?.bytes, 20_000_000);
        assert!(source.wait_timeout(PATIENCE)?.success());
        let row = ended(&monitor, source.pid())?;
        let expected = tcp_ip_bytes(20_000_000, family);
        assert_close(number(&row, "upload_bytes_total"), expected, &format!("accepted {family:?}"));
    }
    Ok(())
}

#[test]
fn udp_is_counted_to_the_byte() -> anyhow::Result<()> {
    for (family, unconnected) in
        [(Family::V4, false), (Family::V6, false), (Family::V4, true), (Family::V6, true)]
    {
        let bed = Testbed::new("pnet-udp")?;
        let monitor = start(&bed, &[])?;
        let (_sink, to) = udp_sink(&bed, family)?;
        let mut send = udp_send(&bed, &to, "500", "1")?;
        if unconnected {
            send.arg("--unconnected");
        }
        let mut sender = Process::spawn(&mut send)?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let report = traffic::Report::parse(&sender.stdout())?;
        let headers = match family {
            Family::V4 => 28,
            Family::V6 => 48,
        };
        let row = ended(&monitor, sender.pid())?;
        assert_eq!(number(&row, "upload_bytes_total"), report.datagrams * (500 + headers));
    }
    Ok(())
}

#[test]
fn datagrams_in_fragments_are_counted_to_the_byte() -> anyhow::Result<()> {
    for family in Family::ALL {
        let bed = Testbed::new("pnet-fragments")?;
        let monitor = start(&bed, &[])?;
        let (_sink, to) = udp_sink(&bed, family)?;
        let mut sender = Process::spawn(&mut udp_send(&bed, &to, "4000", "0.5")?)?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let report = traffic::Report::parse(&sender.stdout())?;
        // 4008 bytes with the UDP header, in pieces of at most 1480 or 1448 bytes behind 20 or 48 of headers.
        let headers = match family {
            Family::V4 => 8 + 3 * 20,
            Family::V6 => 8 + 3 * 48,
        };
        let row = ended(&monitor, sender.pid())?;
        assert_eq!(number(&row, "upload_bytes_total"), report.datagrams * (4000 + headers));
    }
    Ok(())
}

#[test]
fn received_datagrams_belong_to_who_has_the_port() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-udpin")?;
    let monitor = start(&bed, &[])?;
    let sink = ["udp-sink", "--listen", "[::]:0", "--idle-exit", "500"];
    let mut sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
    let port = traffic::ready(&sink)?.port();
    let to = bed.client().socket_address(Family::V4, port).to_string();
    let send = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "700", "--seconds", "0.5"];
    Process::spawn(traffic::command(bed.server())?.args(send))?.success(PATIENCE)?;
    assert!(sink.wait_timeout(PATIENCE)?.success());
    let report = traffic::Report::parse(&sink.stdout())?;
    let row = ended(&monitor, sink.pid())?;
    assert_eq!(number(&row, "download_bytes_total"), report.datagrams * 728);
    assert_eq!(number(&row, "upload_bytes_total"), 0);
    Ok(())
}

/// Runs `ip` on the client, a line at a time.
fn ip(bed: &Testbed, lines: &[&str]) -> anyhow::Result<()> {
    for line in lines {
        Process::spawn(bed.client().command("ip").args(line.split(' ')))?.success(PATIENCE)?;
    }
    Ok(())
}

#[test]
fn what_passes_two_interfaces_is_counted_once() -> anyhow::Result<()> {
    let moved = ["addr flush dev ctclient", "addr add 10.77.1.2/24 dev above", "link set above up"];
    let bridge = ["link add above type bridge", "link set ctclient master above"];
    let macvlan = ["link add above link ctclient type macvlan mode bridge"];
    for (kind, lines) in [("bridge", &bridge[..]), ("macvlan", &macvlan[..])] {
        let bed = Testbed::new("pnet-above")?;
        let monitor = start(&bed, &[])?;
        // After the start: interfaces come and go.
        ip(&bed, lines)?;
        ip(&bed, &moved)?;
        ip(&bed, &["route add default via 10.77.1.1"])?;
        // The monitor looks once a second. Longer than that, so that nothing is counted that was sent before.
        std::thread::sleep(Duration::from_millis(1500));
        let (_sink, to) = udp_sink(&bed, Family::V4)?;
        let mut sender = Process::spawn(&mut udp_send(&bed, &to, "500", "0.5")?)?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let report = traffic::Report::parse(&sender.stdout())?;
        let row = ended(&monitor, sender.pid())?;
        assert_eq!(number(&row, "upload_bytes_total"), report.datagrams * 528, "{kind}");

        let sink = ["udp-sink", "--listen", "0.0.0.0:0", "--idle-exit", "500"];
        let mut sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
        let to = format!("10.77.1.2:{}", traffic::ready(&sink)?.port());
        let send = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "700", "--seconds", "0.3"];
        Process::spawn(traffic::command(bed.server())?.args(send))?.success(PATIENCE)?;
        assert!(sink.wait_timeout(PATIENCE)?.success());
        let report = traffic::Report::parse(&sink.stdout())?;
        let row = ended(&monitor, sink.pid())?;
        assert_eq!(number(&row, "download_bytes_total"), report.datagrams * 728, "{kind}");
    }
    Ok(())
}

/// A frame with a VLAN tag and 100 bytes of IP in it: UDP from the router.
fn tagged(to: MacAddr, from: MacAddr, bed: &Testbed, port: u16, vlan: u16) -> anyhow::Result<Vec<u8>> {
    let (IpAddr::V4(source), IpAddr::V4(destination)) =
        (bed.router().address(Family::V4), bed.client().address(Family::V4))
    else {
        anyhow::bail!("the addresses of a family are of that family");
    };
    let mut ip = vec![0; 100];
    let mut header = MutableIpv4Packet::new(&mut ip).context("too short")?;
    header.set_version(4);
    header.set_header_length(5);
    header.set_total_length(100);
    header.set_ttl(64);
    header.set_next_level_protocol(IpNextHeaderProtocols::Udp);
    header.set_source(source);
    header.set_destination(destination);
    header.set_checksum(ipv4::checksum(&header.to_immutable()));
    // No checksum of its own.
    let mut udp = MutableUdpPacket::new(&mut ip[20..]).context("too short")?;
    udp.set_source(9);
    udp.set_destination(port);
    udp.set_length(80);
    let mut frame = [to.octets(), from.octets()].concat();
    frame.extend([0x81, 0x00]);
    frame.extend(vlan.to_be_bytes());
    frame.extend([0x08, 0x00]);
    frame.extend(ip);
    Ok(frame)
}

#[test]
fn a_tag_without_a_number_is_no_vlan() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-vlan")?;
    let monitor = start(&bed, &[])?;
    let sink = ["udp-sink", "--listen", "0.0.0.0:0", "--idle-exit", "1000"];
    let mut sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
    let port = traffic::ready(&sink)?.port();
    let interface = |name: &str| {
        let found = pnet_datalink::interfaces().into_iter().find(|interface| interface.name == name);
        found.context("no such interface")
    };
    let to = bed.client().run(|| interface("ctclient")?.mac.context("it has an address"))?;
    bed.router().run(|| {
        let interface = interface("ctrclient")?;
        let from = interface.mac.context("it has an address")?;
        let Channel::Ethernet(mut sender, _) = pnet_datalink::channel(&interface, Config::default())? else {
            anyhow::bail!("no Ethernet");
        };
        // Of priority 7; and of VLAN 5, which the client is not in.
        for vlan in [0xe000, 5] {
            let frame = tagged(to, from, &bed, port, vlan)?;
            for _ in 0..20 {
                sender.send_to(&frame, None).context("too long")??;
            }
        }
        Ok(())
    })?;
    assert!(sink.wait_timeout(PATIENCE)?.success());
    assert_eq!(
        traffic::Report::parse(&sink.stdout())?.datagrams,
        20,
        "the kernel takes those with a priority"
    );
    let row = ended(&monitor, sink.pid())?;
    assert_eq!(number(&row, "download_bytes_total"), 20 * 100);
    Ok(())
}

#[test]
fn a_process_that_is_gone_before_anybody_looks_keeps_its_name_and_bytes() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-short")?;
    // Longer than the sender lives.
    let mut command = support::chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "3s", "--count", "1", "-v"]).args(PNET);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.contains("is counting"), PATIENCE)?;
    let (_sink, to) = udp_sink(&bed, Family::V4)?;
    let mut sender = Process::spawn(&mut udp_send(&bed, &to, "500", "0.2")?)?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let report = traffic::Report::parse(&sender.stdout())?;
    let stdout = monitor.success(PATIENCE)?;
    let line: Value = serde_json::from_str(stdout.trim())?;
    let row = process(&line, sender.pid()).expect("listed although it is gone");
    assert_eq!((&row["alive"], &row["name"]), (&Value::from(false), &Value::from("traffic")));
    assert_eq!(number(row, "upload_bytes_total"), report.datagrams * 528);
    Ok(())
}

#[test]
fn loopback_counts_only_on_request() -> anyhow::Result<()> {
    for (options, expected) in [(&[][..], false), (&["--include-loopback"][..], true)] {
        let bed = Testbed::new("pnet-loopback")?;
        let monitor = start(&bed, options)?;
        let sink = ["tcp-sink", "--listen", "127.0.0.1:0"];
        let mut sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
        let to = traffic::ready(&sink)?.to_string();
        let send = ["tcp-send", "--to", &to, "--bytes", "10000000"];
        let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        assert!(sink.wait_timeout(PATIENCE)?.success());
        if expected {
            // Once for who sends, once for who receives.
            for (pid, field) in [(sender.pid(), "upload_bytes_total"), (sink.pid(), "download_bytes_total")] {
                assert_close(number(&ended(&monitor, pid)?, field), 10_000_000.0, field);
            }
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert!(process(&monitor.last()?, sender.pid()).is_none());
        }
    }
    Ok(())
}

#[test]
fn only_processes_below_the_cgroup_are_listed() -> anyhow::Result<()> {
    let bed = Testbed::new("pnet-cgroup")?;
    let (inside, outside) = (bed.cgroup("inside")?, bed.cgroup("outside")?);
    let mut command = bed.client().command(support::BINARY);
    command.args(["monitor", "--json", "--interval", "1s", "--count", "1", "-v"]).args(PNET);
    command.arg("--cgroup-root").arg(&inside);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.contains("is counting"), PATIENCE)?;
    let (_sink, to) = udp_sink(&bed, Family::V4)?;
    let mut pids = Vec::new();
    for cgroup in [&inside, &outside] {
        let mut send = bed.client().command_in(cgroup, traffic::traffic_binary()?)?;
        send.args(["udp-send", "--to", &to, "--rate", "1000000", "--size", "500", "--seconds", "0.1"]);
        let mut sender = Process::spawn(&mut send)?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        pids.push(sender.pid());
    }
    let line: Value = serde_json::from_str(monitor.success(PATIENCE)?.trim())?;
    assert!(process(&line, pids[0]).is_some(), "{line}");
    assert!(process(&line, pids[1]).is_none(), "{line}");
    assert_eq!(line["unattributed"]["upload_bytes_total"], 0);
    Ok(())
}
