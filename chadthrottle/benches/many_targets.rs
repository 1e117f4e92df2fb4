//! What a packet costs in the programs with one limited target, and with a thousand: `cargo bench --bench many_targets`,
//! as root.

use std::time::Duration;

use anyhow::{Context, ensure};
use chadthrottle::backends::{
    BackendOptions,
    ebpf::SharedEngine,
    throttle::{
        Subject, Target, ThrottleManager, TrafficType,
        ebpf_cgroup::{EbpfCgroupDownload, EbpfCgroupUpload},
        flow::SharedFlow,
        manager::Limits,
    },
};
use testbed::{
    Family, Process, Testbed,
    program_runs::{self, RunStatistics, Runs},
    traffic,
};

const RUNS: usize = 3;
const SECONDS: &str = "3";
/// Who sends: the least specific subject, so that every other one is looked for first.
const USER: u32 = 0;
/// Users that nobody is.
const FIRST_OTHER: u32 = 3_000_000;
/// Far more than anybody sends here.
const LIMIT: u64 = 100_000_000_000;

fn main() -> anyhow::Result<()> {
    // Cargo runs it as a test, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    println!(
        "Nanoseconds a packet in the programs, medians of {RUNS} runs; what a target costs to set, in milliseconds.\n"
    );
    println!("| targets | UDP, 50,000 datagrams/s | TCP, unlimited in effect | setting one |");
    println!("| --- | --- | --- | --- |");
    let mut first = None;
    for targets in [1, 1000] {
        let runs = (0..RUNS).map(|_| measure(targets)).collect::<anyhow::Result<Vec<_>>>()?;
        let figures: [f64; 3] =
            std::array::from_fn(|figure| median(runs.iter().map(|run| run[figure]).collect()));
        let [udp, tcp, set] = figures;
        println!("| {targets} | {udp:.0} | {tcp:.0} | {set:.2} |");
        let [udp_before, tcp_before, _] = *first.get_or_insert(figures);
        if targets > 1 {
            println!("\nOf what it is with one: UDP {:.3}, TCP {:.3}", udp / udp_before, tcp / tcp_before);
        }
    }
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// Time a packet, of datagrams and of a stream, and time to set a target.
fn measure(targets: u32) -> anyhow::Result<[f64; 3]> {
    let bed = Testbed::new("bench")?;
    let options =
        BackendOptions { cgroup_root: Some(bed.cgroup_root().to_owned()), ..BackendOptions::default() };
    let mut manager = bed.client().run(|| {
        let (engine, flow) = (SharedEngine::default(), SharedFlow::default());
        let upload = EbpfCgroupUpload::new(&options, &engine, &flow);
        let download = EbpfCgroupDownload::new(&options, &engine, &flow);
        Ok(ThrottleManager::new(Box::new(upload), Some(Box::new(download)))?)
    })?;
    let mut set = |subject: Subject, limit| {
        let target = Target { subject, name: "it".into(), traffic: TrafficType::All };
        let limits = Limits { upload: Some(limit), download: Some(limit) };
        bed.client().run(|| Ok(manager.throttle_process(&target, limits)?))
    };
    let start = std::time::Instant::now();
    set(Subject::User(USER), LIMIT)?;
    let root = bed.cgroup_root().file_name().and_then(|name| name.to_str()).context("it has a name")?;
    // Blocked, so that flow control leaves them alone.
    for number in 1..targets {
        if number % 2 == 0 {
            set(Subject::User(FIRST_OTHER + number), 0)?;
        } else {
            bed.cgroup(&number.to_string())?;
            set(Subject::Cgroup(format!("/{root}/{number}")), 0)?;
        }
    }
    let each = start.elapsed().as_secs_f64() * 1000.0 / f64::from(targets);
    let _statistics = RunStatistics::enable()?;
    let udp = cost(&bed, "udp-sink --idle-exit 500", "udp-send --rate 5000000 --size 100")?;
    let tcp = cost(&bed, "tcp-sink", "tcp-send")?;
    Ok([udp, tcp, each])
}

/// Nanoseconds a packet while `send` sends to `sink`.
fn cost(bed: &Testbed, sink: &str, send: &str) -> anyhow::Result<f64> {
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let sink =
        Process::spawn(traffic::command(bed.server())?.args(sink.split(' ')).args(["--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    let before = packets()?;
    let mut command = traffic::command(bed.client())?;
    command.args(send.split(' ')).args(["--to", &to, "--seconds", SECONDS]);
    Process::spawn(&mut command)?.success(Duration::from_secs(20))?;
    let runs = packets()?.since(&before);
    drop(sink);
    ensure!(runs.count > 1000, "{runs:?}");
    #[expect(clippy::cast_precision_loss, reason = "exact up to a hundred days")]
    Ok(runs.nanoseconds as f64 / runs.count as f64)
}

/// The programs of this process that see packets, together.
fn packets() -> anyhow::Result<Runs> {
    let mut total = Runs::default();
    for id in program_runs::programs_of(std::process::id())? {
        let runs = program_runs::runs(id)?;
        if runs.is_for_packets {
            total.nanoseconds += runs.nanoseconds;
            total.count += runs.count;
        }
    }
    Ok(total)
}
