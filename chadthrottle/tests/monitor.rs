//! The monitor names the right process and counts every byte, through the binary.

mod support;

use std::time::Duration;

use support::{Monitor, PATIENCE, assert_close, number, process, tcp_ip_bytes};
use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    traffic,
};

#[test]
fn iperf3_is_named_and_counted_in_both_directions() -> anyhow::Result<()> {
    for family in Family::ALL {
        for reverse in [false, true] {
            let bed = Testbed::new("iperf3")?;
            let _server = Iperf3Server::start(bed.server(), 5201)?;
            let monitor = Monitor::start(&bed, &[])?;
            let client = Iperf3::client(bed.server(), family, 5201).bytes(200_000_000).rate(100_000_000);
            let client = if reverse { client.reverse() } else { client };
            let mut iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
            let pid = iperf3.pid();
            assert!(iperf3.wait_timeout(PATIENCE)?.success());
            let report = Iperf3Report::parse(&iperf3.stdout())?;
            drop(iperf3);
            let line = monitor.until("iperf3 has ended", |line| {
                (process(line, pid)?["alive"] == false).then(|| line.clone())
            })?;
            let row = process(&line, pid).expect("still listed");
            assert_eq!(row["name"], "iperf3");
            let (field, other) = if reverse {
                ("download_bytes_total", "upload_bytes_total")
            } else {
                ("upload_bytes_total", "download_bytes_total")
            };
            let expected = tcp_ip_bytes(report.received_bytes, family);
            assert_close(number(row, field), expected, &format!("{family:?} {field}"));
            // The other way went only acknowledgements.
            assert!(number(row, other) < number(row, field) / 10);
        }
    }
    Ok(())
}

#[test]
fn a_connection_that_was_open_before_has_its_owner() -> anyhow::Result<()> {
    let bed = Testbed::new("before")?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    let send = ["tcp-send", "--to", &to, "--bytes", "30000000", "--wait-stdin"];
    let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    traffic::ready(&sender)?;

    let monitor = Monitor::start(&bed, &[])?;
    sender.send_line("go")?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let pid = sender.pid();
    let line = monitor.until("the sender has ended", |line| {
        (process(line, pid)?["alive"] == false).then(|| line.clone())
    })?;
    let row = process(&line, pid).expect("still listed");
    assert_close(number(row, "upload_bytes_total"), tcp_ip_bytes(30_000_000, Family::V4), "upload");
    assert_eq!(row["name"], "traffic");
    assert_eq!(row["user"], "root");
    assert_eq!(line["lost_events"], 0);
    Ok(())
}

#[test]
fn an_accepted_connection_belongs_to_who_listens() -> anyhow::Result<()> {
    let bed = Testbed::new("accept")?;
    let monitor = Monitor::start(&bed, &[])?;
    let listen = bed.client().socket_address(Family::V6, 0).to_string();
    let source = ["tcp-source", "--listen", &listen, "--bytes", "20000000"];
    let mut source = Process::spawn(traffic::command(bed.client())?.args(source))?;
    let from = traffic::ready(&source)?.to_string();
    let receive = ["tcp-receive", "--from", &from];
    let received = Process::spawn(traffic::command(bed.server())?.args(receive))?.success(PATIENCE)?;
    assert_eq!(traffic::Report::parse(&received)?.bytes, 20_000_000);
    assert!(source.wait_timeout(PATIENCE)?.success());
    let pid = source.pid();
    let row = monitor.until("the source has ended", |line| {
        process(line, pid).filter(|row| row["alive"] == false).cloned()
    })?;
    assert_close(number(&row, "upload_bytes_total"), tcp_ip_bytes(20_000_000, Family::V6), "upload");
    Ok(())
}

#[test]
fn udp_is_counted_to_the_byte() -> anyhow::Result<()> {
    for (family, unconnected) in [(Family::V4, false), (Family::V6, true)] {
        let bed = Testbed::new("udp")?;
        let monitor = Monitor::start(&bed, &[])?;
        let listen = bed.server().socket_address(family, 0).to_string();
        let sink = ["udp-sink", "--listen", &listen, "--idle-exit", "500"];
        let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
        let to = traffic::ready(&sink)?.to_string();
        let send = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "500", "--seconds", "1"];
        let mut send = send.to_vec();
        if unconnected {
            send.push("--unconnected");
        }
        let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
        let pid = sender.pid();
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let report = traffic::Report::parse(&sender.stdout())?;
        drop(sender);
        let headers = match family {
            Family::V4 => 28,
            Family::V6 => 48,
        };
        let row = monitor.until("the sender has ended", |line| {
            process(line, pid).filter(|row| row["alive"] == false).cloned()
        })?;
        assert_eq!(number(&row, "upload_bytes_total"), report.datagrams * (500 + headers));
        drop(sink);
    }
    Ok(())
}

#[test]
fn a_process_that_is_gone_before_anybody_looks_keeps_its_name_and_bytes() -> anyhow::Result<()> {
    let bed = Testbed::new("short")?;
    // Longer than the sender lives.
    let mut command = support::chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "3s", "--count", "1", "-v"]);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.contains("is counting"), PATIENCE)?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink = ["udp-sink", "--listen", &listen, "--idle-exit", "300"];
    let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
    let to = traffic::ready(&sink)?.to_string();
    let send = ["udp-send", "--to", &to, "--rate", "1000000", "--size", "500", "--seconds", "0.2"];
    let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let pid = sender.pid();
    let report = traffic::Report::parse(&sender.stdout())?;
    drop(sender);
    let stdout = monitor.success(PATIENCE)?;
    let line: serde_json::Value = serde_json::from_str(stdout.trim())?;
    let row = process(&line, pid).expect("listed although it is gone");
    assert_eq!(row["alive"], false);
    assert_eq!(row["name"], "traffic");
    assert_eq!(number(row, "upload_bytes_total"), report.datagrams * 528);
    Ok(())
}

#[test]
fn loopback_counts_only_on_request() -> anyhow::Result<()> {
    for (options, expected) in [(&[][..], false), (&["--include-loopback"][..], true)] {
        let bed = Testbed::new("loopback")?;
        let monitor = Monitor::start(&bed, options)?;
        let sink = ["tcp-sink", "--listen", "127.0.0.1:0"];
        let sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
        let to = traffic::ready(&sink)?.to_string();
        let send = ["tcp-send", "--to", &to, "--bytes", "1000000"];
        let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let pid = sender.pid();
        if expected {
            monitor.until("loopback traffic is counted", |line| {
                (number(process(line, pid)?, "upload_bytes_total") > 1_000_000).then_some(())
            })?;
        } else {
            std::thread::sleep(Duration::from_millis(300));
            assert!(process(&monitor.last()?, pid).is_none());
        }
    }
    Ok(())
}
