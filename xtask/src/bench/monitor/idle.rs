//! While nothing happens on a great many connections.

use std::{thread, time::Duration};

use testbed::{Family, Process, Testbed, traffic};

use super::{
    CONNECTIONS, IDLE_CPU, IDLE_CPU_OF_OLD, MANY_CONNECTIONS, MANY_PSS, MANY_TICK, MANY_TICK_OF_OLD, Options,
    TICK,
    subject::{Running, Subject},
    table::Table,
};

/// How long twenty thousand connections may take.
const CONNECTED: Duration = Duration::from_mins(1);
/// Until everybody has taken in what the making of the connections was.
const SETTLED: Duration = TICK.saturating_mul(2);
/// So many processes share what is accepted: no one of them may have twenty thousand files open.
const ACCEPTING: &str = "8";

/// With some connections and with many, which the monitor saw being made or found.
pub(crate) fn measure(subject: &Subject, options: &Options, table: &mut Table) -> anyhow::Result<()> {
    let (_, cpu) = settled(subject, options, CONNECTIONS, Since::Start)?;
    table.add(&IDLE_CPU, 100.0 * cpu);
    let (_, cpu) = settled(subject, options, CONNECTIONS, Since::Before)?;
    table.add(&IDLE_CPU_OF_OLD, 100.0 * cpu);
    let tick = TICK.as_secs_f64() * 1e3;
    let (pss, cpu) = settled(subject, options, MANY_CONNECTIONS, Since::Start)?;
    table.add(&MANY_TICK, tick * cpu);
    table.add(&MANY_PSS, pss);
    let (_, cpu) = settled(subject, options, MANY_CONNECTIONS, Since::Before)?;
    table.add(&MANY_TICK_OF_OLD, tick * cpu);
    Ok(())
}

/// Since when there are connections.
#[derive(Clone, Copy)]
enum Since {
    /// They were made while the monitor ran, so that each process is one that it has counted for.
    Start,
    /// It found them.
    Before,
}

/// PSS in MB, and the share of a core.
fn settled(
    subject: &Subject,
    options: &Options,
    connections: u32,
    since: Since,
) -> anyhow::Result<(f64, f64)> {
    let bed = Testbed::new("bench")?;
    let to = bed.server().socket_address(Family::V4, 0).to_string();
    let mut accepting = traffic::command(bed.server())?;
    let accepting = Process::spawn(accepting.args(["hold", "--processes", ACCEPTING, "--listen", &to]))?;
    let to = traffic::ready(&accepting)?.to_string();
    let connect = || {
        let each = connections.div_ceil(options.processes.max(1)).to_string();
        let processes = options.processes.to_string();
        let mut command = traffic::command(bed.client())?;
        command.args(["hold", "--to", &to, "--processes", &processes, "--connections", &each]);
        let holding = Process::spawn(&mut command)?;
        holding.wait_for_line(|line| line.starts_with(r#"{"ready":"#), CONNECTED)?;
        anyhow::Ok(holding)
    };
    let (_holding, monitor): (Process, Running) = match since {
        Since::Start => {
            let monitor = subject.start(&bed)?;
            (connect()?, monitor)
        }
        Since::Before => (connect()?, subject.start(&bed)?),
    };
    thread::sleep(SETTLED);
    let cpu = monitor.cpu_over(options.seconds)?;
    Ok((monitor.pss()?, cpu))
}
