//! Datagrams instead of connections: a sender that offers three times the limit, whatever becomes of it.

use std::{path::Path, process::Command, thread, time::Duration};

use anyhow::Context;
use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::{Process, Testbed, traffic};

use super::{
    cell::{AFTER, Cell, FREE, Order},
    outcome::{Moments, Outcome},
};
use crate::bench::{limiter::cpu_seconds, recording::Recording};

/// Where the client receives.
const PORT: u16 = 5301;
/// Bytes of payload in a datagram.
pub(super) const SIZE: u32 = 1400;
/// What is offered, as a multiple of the limit.
const OFFERED: f64 = 3.0;
/// A receiver ends when nothing has come for so long, in milliseconds; the first may take longer.
const IDLE: u32 = 1500;

/// The two ends of a run.
struct Datagrams {
    /// At the server; ends by itself, or with us.
    far: Process,
    /// Whether that one waits until the near end is there.
    far_waits: bool,
    /// What is to be run on the client.
    near: Vec<String>,
}

impl Datagrams {
    /// Starts the far end: a receiver, or a sender that begins when the near end is ready.
    fn start(cell: &Cell<'_>, bed: &Testbed, seconds: u32) -> anyhow::Result<Self> {
        let binary = traffic::traffic_binary()?.display().to_string();
        let send = |to: String| {
            let payload = f64::from(SIZE) / cell.receiver(0).unit;
            let rate = (f64::from(cell.limit) * OFFERED * payload).round().to_string();
            let options = ["--rate", &rate, "--size", &SIZE.to_string(), "--seconds", &seconds.to_string()];
            [&["udp-send", "--to", &to][..], &options]
                .concat()
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>()
        };
        let receive = |address: String| {
            let words =
                ["udp-sink", "--listen", &address, "--idle-exit", &IDLE.to_string(), "--first-wait", "20000"];
            words.iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let mut command = traffic::command(bed.server())?;
        let (far, near) = if cell.is_upload {
            let any = bed.server().socket_address(cell.family, 0).to_string();
            let sink = Process::spawn(command.args(receive(any)))?;
            let to = traffic::ready(&sink)?.to_string();
            (sink, send(to))
        } else {
            let to = bed.client().socket_address(cell.family, PORT).to_string();
            (Process::spawn(command.args(send(to.clone())).arg("--wait-stdin"))?, receive(to))
        };
        Ok(Self { far, far_waits: !cell.is_upload, near: [vec![binary], near].concat() })
    }

    /// The near end without a limit.
    fn near_command(&self, bed: &Testbed) -> Command {
        let mut command = bed.client().command(Path::new(&self.near[0]));
        command.args(&self.near[1..]);
        command
    }
}

/// Runs datagrams, in either order.
pub(super) fn measure(
    cell: &Cell<'_>,
    bed: &Testbed,
    program: &Path,
    recording: &Recording,
) -> anyhow::Result<Outcome> {
    let is_open = cell.order == Order::ConnectionFirst;
    let seconds = cell.seconds + if is_open { FREE + AFTER } else { 0 };
    let mut ends = Datagrams::start(cell, bed, seconds)?;
    let (mut run, near, moments) = if is_open {
        come_to(cell, bed, program, recording, &mut ends)?
    } else {
        begin(cell, bed, program, recording, &mut ends)?
    };
    let (began, limited) = moments;
    let end = limited + f64::from(cell.seconds) - if is_open { 0.0 } else { 0.5 };
    thread::sleep(Duration::from_secs_f64((end - recording.now()).max(0.0)));
    let cpu = cpu_seconds(run.pid())?;
    let freed = recording.now() - 0.05;
    if is_open {
        run.signal(Signal::SIGTERM)?;
        thread::sleep(Duration::from_secs(1));
    }
    let status = run.wait_timeout(cell.patience())?;
    anyhow::ensure!(status.success(), "{status}: {}", run.stderr());
    let outcome =
        Outcome::new(cell, recording, Moments { began, limited, freed, promise: None }, &Value::Null, cpu);
    let limit = f64::from(cell.limit);
    if !cell.is_upload {
        return Ok(Outcome { offered: Some(recording.carried.rate(limited, freed) / limit), ..outcome });
    }
    let printed = near.map_or_else(|| Ok(run.stdout()), |near| near.success(cell.patience()))?;
    let sent = traffic::Report::parse(printed.trim_end())?;
    #[expect(clippy::cast_precision_loss, reason = "some million")]
    let [datagrams, errors] = [sent.datagrams as f64, sent.errors.values().sum::<u64>() as f64];
    let offered = (datagrams + errors) * cell.receiver(0).unit / sent.seconds / limit;
    Ok(Outcome { offered: Some(offered), errors: Some(errors), ..outcome })
}

/// A limiter, who it limits where that is another process, and since when datagrams are sent, and are limited.
type Limited = (Process, Option<Process>, (f64, f64));

/// With the limit first.
fn begin(
    cell: &Cell<'_>,
    bed: &Testbed,
    program: &Path,
    recording: &Recording,
    ends: &mut Datagrams,
) -> anyhow::Result<Limited> {
    let mut command = cell.limiter(bed, program);
    let limiter = Process::spawn(command.arg("run").args(cell.option()).arg("--").args(&ends.near))?;
    flows(cell, recording, ends, &limiter)?;
    Ok((limiter, None, (recording.now(), recording.now())))
}

/// With datagrams first.
fn come_to(
    cell: &Cell<'_>,
    bed: &Testbed,
    program: &Path,
    recording: &Recording,
    ends: &mut Datagrams,
) -> anyhow::Result<Limited> {
    let near = Process::spawn(&mut ends.near_command(bed))?;
    flows(cell, recording, ends, &near)?;
    let began = recording.now();
    thread::sleep(Duration::from_secs(FREE.into()));
    let limiter = cell.limit(bed, program, &near)?;
    Ok((limiter, Some(near), (began, recording.now())))
}

/// Waits until datagrams get through to where they are counted: at a process on the client, or what it runs, where that
/// receives.
fn flows(cell: &Cell<'_>, recording: &Recording, ends: &mut Datagrams, near: &Process) -> anyhow::Result<()> {
    if ends.far_waits {
        near.wait_for_line(|line| line.starts_with(r#"{"ready":"#), cell.patience())?;
        recording.receives(cell.receiver(near.pid()));
        ends.far.send_line("")?;
    }
    testbed::until("data flows", cell.patience(), || {
        let flows = if cell.is_upload {
            recording.carried.so_far() > 5_000.0
        } else {
            recording.received.so_far() > 0.0
        };
        Ok(flows.then_some(()))
    })
    .context("no datagrams come through")
}
