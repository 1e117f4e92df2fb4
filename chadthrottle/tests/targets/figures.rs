//! What is told of a limit: offered, dropped, marked.

use std::time::Duration;

use anyhow::ensure;
use chadthrottle::backends::throttle::Subject;
use chadthrottle_common::ThrottleStats;
use testbed::{
    Family, Path, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    traffic,
};

use crate::{
    inside::Inside,
    rig::{Copies, DATAGRAM, Sink, in_three_attempts, send_for},
    support::PATIENCE,
};

#[test]
fn what_was_offered_is_what_passed_and_what_was_dropped() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("figures")?, Copies::new()?);
    let program = copies.traffic("sender")?;
    let mut limits = Inside::alone(&bed)?;
    limits.set(&Subject::Program(program.clone()), Some(1_000_000), None)?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let mut sender = bed.client().command(&program);
    let sent = Process::spawn(sender.args(send_for(sink.address, 3_000_000, "1")))?.success(PATIENCE)?;
    let sent = traffic::Report::parse(&sent)?;
    let received = sink.report()?;
    let figures = limits.figures()?.upload_stats;
    assert_eq!((figures.packets_total, figures.bytes_total), (sent.datagrams, sent.datagrams * DATAGRAM));
    assert_eq!(figures.packets_dropped, sent.datagrams - received.datagrams, "{figures:?}");
    assert_eq!(figures.bytes_dropped, figures.packets_dropped * DATAGRAM, "{figures:?}");
    assert_eq!(figures.packets_marked, 0);
    assert!(figures.packets_dropped > sent.datagrams / 2, "{figures:?}");
    Ok(())
}

/// IP bytes a second that are received.
const LIMIT: u64 = 4_000_000;

/// A bed whose hosts tell each other of congestion by marks.
fn with_ecn() -> anyhow::Result<Testbed> {
    let bed = Testbed::with_path("ecn", &Path::round_trip(Duration::from_millis(20)))?;
    for host in [bed.client(), bed.server()] {
        host.set_sysctl("net.ipv4.tcp_ecn", "1")?;
    }
    Ok(bed)
}

/// Everybody on the bed's client.
fn everybody(bed: &Testbed) -> Subject {
    let name = bed.cgroup_root().file_name().and_then(|name| name.to_str()).unwrap_or_default();
    Subject::Cgroup(format!("/{name}"))
}

/// A download by cubic: what it achieved of the limit from the second second on, as payload, and what was told of it then
/// and at the end. How it begins may be too fast for anybody to be told in time.
fn download(has_flow_control: bool) -> anyhow::Result<(f64, [ThrottleStats; 2])> {
    let bed = with_ecn()?;
    let mut limits = if has_flow_control { Inside::with_flow(&bed)? } else { Inside::alone(&bed)? };
    limits.set(&everybody(&bed), None, Some(LIMIT))?;
    let _server = Iperf3Server::start(bed.server(), 5201)?;
    let client = Iperf3::client(bed.server(), Family::V4, 5201).seconds(5).congestion("cubic").reverse();
    let transfer = Process::spawn(&mut client.command(bed.client())?)?;
    std::thread::sleep(Duration::from_secs(2));
    let begun = limits.figures()?.download_stats;
    let report = Iperf3Report::parse(&transfer.success(PATIENCE)?)?;
    let ended = limits.figures()?.download_stats;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    let achieved = report.intervals.rate_after(2.0) / LIMIT as f64;
    println!("{achieved:.3} of the limit as payload, {begun:?}, {ended:?}");
    Ok((achieved, [begun, ended]))
}

#[test]
fn where_both_sides_know_ecn_nothing_of_a_download_is_dropped() -> anyhow::Result<()> {
    in_three_attempts(|| {
        let (achieved, [begun, ended]) = download(true)?;
        ensure!(ended.packets_dropped == begun.packets_dropped, "{begun:?}, {ended:?}");
        ensure!((0.8..1.0).contains(&achieved), "{achieved}");
        Ok(())
    })
}

#[test]
fn a_download_is_marked_instead_of_dropped_once_it_has_begun() -> anyhow::Result<()> {
    in_three_attempts(|| {
        let (achieved, [begun, ended]) = download(false)?;
        ensure!(ended.packets_marked > begun.packets_marked, "{begun:?}, {ended:?}");
        ensure!(ended.packets_dropped == begun.packets_dropped, "{begun:?}, {ended:?}");
        // The programs alone mark whatever is over the limit, which slows a sender down for longer than it would have to.
        ensure!((0.4..1.05).contains(&achieved), "{achieved}");
        Ok(())
    })
}
