//! While iperf3 sends as fast as it can.

use std::{thread, time::Duration};

use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

use super::{LINE_RATE_CPU, LINE_RATE_PSS, Options, THROUGHPUT, subject::Subject, table::Table};

const PORT: u16 = 5201;
/// iperf3's connection has come to speed.
const START: Duration = Duration::from_millis(500);
/// What of a run is not measured: the start, and the wait for the middle between two ticks.
const MARGIN_SECONDS: u32 = 2;

/// A pair of transfers, one with the monitor and one without, each first in every other round.
pub(crate) fn measure(
    subject: &Subject,
    options: &Options,
    round: u32,
    table: &mut Table,
) -> anyhow::Result<()> {
    let bed = Testbed::new("bench")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(options.seconds + MARGIN_SECONDS);
    let patience = Duration::from_secs(u64::from(options.seconds) + 20);
    let without = || anyhow::Ok(rate(&client.run(bed.client(), patience)?));
    let mut with = || {
        let monitor = subject.start(&bed)?;
        let mut transfer = Process::spawn(&mut client.command(bed.client())?)?;
        thread::sleep(START);
        table.add(&LINE_RATE_CPU, 100.0 * monitor.cpu_over(options.seconds)?);
        table.add(&LINE_RATE_PSS, monitor.pss()?);
        transfer.wait_timeout(patience)?;
        anyhow::Ok(rate(&Iperf3Report::parse(&transfer.stdout())?))
    };
    let (with, without) = if round.is_multiple_of(2) {
        let with = with()?;
        (with, without()?)
    } else {
        let without = without()?;
        (with()?, without)
    };
    table.add(&THROUGHPUT, with / without);
    table.note_line_rate(without);
    Ok(())
}

/// Received bytes of payload a second.
fn rate(report: &Iperf3Report) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let bytes = report.received_bytes as f64;
    bytes / report.seconds
}
