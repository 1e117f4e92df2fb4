//! What the programs in the kernel cost a packet, beside programs that do nothing.

use std::time::Duration;

use testbed::{
    Family, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
    program_runs::{self, EmptyPrograms, RunStatistics, Runs},
    require_program,
};

use super::{Options, TCP_NS, TCP_RATIO, UDP_NS, UDP_RATIO, subject::Subject, table::Table};

const PORT: u16 = 5201;
/// Payload of a small datagram.
const DATAGRAM: u32 = 100;
/// 50,000 of them a second.
const DATAGRAM_RATE: u64 = 50_000 * DATAGRAM as u64;

/// Both kinds of work, up and then down. Nothing where the monitor has no programs in the kernel.
pub(crate) fn measure(subject: &Subject, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let client = |bed: &Testbed| Iperf3::client(bed.server(), Family::V4, PORT).seconds(options.seconds);
    if let Some([ours, empty]) = cost(subject, options, &client)? {
        table.add(&TCP_NS, ours);
        table.add(&TCP_RATIO, ours / empty);
    }
    let client = |bed: &Testbed| client(bed).udp(DATAGRAM_RATE).length(DATAGRAM);
    if let Some([ours, empty]) = cost(subject, options, &client)? {
        table.add(&UDP_NS, ours);
        table.add(&UDP_RATIO, ours / empty);
    }
    Ok(())
}

/// Nanoseconds a packet in our programs and in empty ones, which the same packets pass: theirs is a cgroup below that
/// of ours.
fn cost(
    subject: &Subject,
    options: &Options,
    client: &impl Fn(&Testbed) -> Iperf3,
) -> anyhow::Result<Option<[f64; 2]>> {
    let bed = Testbed::new("bench")?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let monitor = subject.start(&bed)?;
    let cgroup = bed.cgroup("empty")?;
    let empty = EmptyPrograms::attach(&cgroup)?;
    let ours = for_packets(program_runs::programs_of(monitor.pid())?)?;
    if ours.is_empty() {
        return Ok(None);
    }
    let _statistics = RunStatistics::enable()?;
    let before = [total(&ours)?, total(empty.ids())?];
    for client in [client(&bed), client(&bed).reverse()] {
        let mut command = bed.client().command_in(&cgroup, require_program("iperf3")?)?;
        let mut transfer = Process::spawn(command.args(client.args()))?;
        transfer.wait_timeout(Duration::from_secs(u64::from(options.seconds) + 20))?;
        Iperf3Report::parse(&transfer.stdout())?;
    }
    let after = [total(&ours)?, total(empty.ids())?];
    Ok(Some(std::array::from_fn(|index| nanoseconds_a_run(&after[index].since(&before[index])))))
}

fn for_packets(ids: Vec<u32>) -> anyhow::Result<Vec<u32>> {
    let mut found = Vec::new();
    for id in ids {
        if program_runs::runs(id)?.is_for_packets {
            found.push(id);
        }
    }
    Ok(found)
}

/// All of them together.
fn total(ids: &[u32]) -> anyhow::Result<Runs> {
    let mut total = Runs::default();
    for id in ids {
        let runs = program_runs::runs(*id)?;
        total.nanoseconds += runs.nanoseconds;
        total.count += runs.count;
    }
    Ok(total)
}

#[expect(clippy::cast_precision_loss, reason = "exact up to a hundred days")]
fn nanoseconds_a_run(runs: &Runs) -> f64 {
    runs.nanoseconds as f64 / runs.count.max(1) as f64
}
