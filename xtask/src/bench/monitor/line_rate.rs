//! While iperf3 sends as fast as it can.

use std::{thread, time::Duration};

use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

use super::{LINE_RATE_CPU, LINE_RATE_PSS, NOISE, Options, THROUGHPUT, subject::Subject, table::Table};

const PORT: u16 = 5201;
/// iperf3's connection has come to speed.
const START: Duration = Duration::from_millis(500);
/// What of a run is not measured: the start, and the wait for the middle between two ticks.
const MARGIN_SECONDS: u32 = 2;

/// A transfer with the monitor between two without: what the machine does by itself meanwhile is in both of those, and how
/// much that is tell the two of each other.
pub(crate) fn measure(subject: &Subject, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let bed = Testbed::new("bench")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(options.seconds + MARGIN_SECONDS);
    let patience = Duration::from_secs(u64::from(options.seconds) + 20);
    let without = || anyhow::Ok(rate(&client.run(bed.client(), patience)?));
    let before = without()?;
    let with = {
        let monitor = subject.start(&bed)?;
        let mut transfer = Process::spawn(&mut client.command(bed.client())?)?;
        thread::sleep(START);
        table.add(&LINE_RATE_CPU, 100.0 * monitor.cpu_over(options.seconds)?);
        table.add(&LINE_RATE_PSS, monitor.pss()?);
        transfer.wait_timeout(patience)?;
        rate(&Iperf3Report::parse(&transfer.stdout())?)
    };
    let after = without()?;
    table.add(&THROUGHPUT, with / f64::midpoint(before, after));
    table.add(&NOISE, after / before);
    table.note_line_rate(before);
    Ok(())
}

/// Received bytes of payload a second.
fn rate(report: &Iperf3Report) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let bytes = report.received_bytes as f64;
    bytes / report.seconds
}
