//! What the monitor counts and how long it knows it, through the binary. How much, and for whom, is in `ownership`.

mod support;

use std::time::Duration;

use support::{Monitor, PATIENCE, number, process};
use testbed::{Family, Process, Testbed, traffic};

#[test]
fn a_process_that_is_gone_before_anybody_looks_keeps_its_name_and_bytes() -> anyhow::Result<()> {
    let bed = Testbed::new("short")?;
    // Longer than the sender lives.
    let mut command = support::chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "6s", "--count", "1", "-v"]);
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
    assert_eq!(row["user"], "root");
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
