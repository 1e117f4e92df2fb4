//! Connections that are opened while the limit is used up.

use std::fs;

use anyhow::Context;
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    rig::{CAP, Copies, Meter, limit, send_for, text},
    support::PATIENCE,
};

/// Connections, and how many segments that open them may be sent twice, for which a slow machine is enough.
const CONNECTIONS: u64 = 20;
const TWICE: u64 = 2;

/// A number of `/proc/PID/net/netstat`: two lines of each kind, names and values.
fn netstat(pid: u32, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/netstat"))?;
    let lines: Vec<_> = text.lines().collect();
    let mut pairs = lines.chunks(2).flat_map(|pair| pair[0].split(' ').zip(pair[1].split(' ')));
    Ok(pairs.find(|(found, _)| *found == name).context("no such number")?.1.parse()?)
}

#[test]
fn connections_are_opened_under_a_limit_that_is_used_up() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("opening")?, Copies::new()?);
    let program = copies.traffic("opener")?;
    let _limiter = limit(&bed, &["--program", text(&program), "--download-limit", "1M"])?;
    let listen = bed.client().socket_address(Family::V4, 0).to_string();
    let sink = ["udp-sink", "--listen", &listen, "--idle-exit", "1000", "--first-wait", "60000"];
    let sink = Process::spawn(bed.client().command(&program).args(sink))?;
    let flood = send_for(traffic::ready(&sink)?, 5_000_000, "60");
    let flood = Process::spawn(traffic::command(bed.server())?.args(flood))?;
    traffic::ready(&flood)?;
    // More than may come at once.
    let meter = Meter::new(bed.client(), "rx")?;
    testbed::until("the limit is used up", PATIENCE, || Ok((meter.read()?.0 > CAP).then_some(())))?;

    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let accept = ["hold", "--listen", &listen, "--processes", "1"];
    let accepts = Process::spawn(traffic::command(bed.server())?.args(accept))?;
    let (to, connections) = (traffic::ready(&accepts)?.to_string(), CONNECTIONS.to_string());
    let before = netstat(sink.pid(), "TCPSynRetrans")?;
    let hold = ["hold", "--to", &to, "--connections", &connections, "--processes", "1"];
    let holds = Process::spawn(bed.client().command(&program).args(hold))?;
    holds.wait_for_line(|line| line.starts_with(r#"{"ready":"#), PATIENCE)?;
    let twice = netstat(sink.pid(), "TCPSynRetrans")? - before;
    println!("{twice} segments that open one of {CONNECTIONS} connections were sent again");
    assert!(twice <= TWICE, "{twice} segments that open one of {CONNECTIONS} connections were sent again");
    Ok(())
}
