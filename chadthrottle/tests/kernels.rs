//! What has to work on every kernel that people run: a short look at everything, in which no time is asserted that a
//! machine under emulation could not keep. `cargo xtask vm` runs it on Debian's kernels.

mod support;

use std::{
    collections::BTreeSet,
    net::UdpSocket,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::programs::loaded_programs;
use chadthrottle::backends::{
    BackendOptions,
    ebpf::SharedEngine,
    throttle::{
        Subject, Target, ThrottleManager, TrafficType, ebpf_cgroup::EbpfCgroupUpload, flow::SharedFlow,
        manager::Limits,
    },
};
use chadthrottle_common::ThrottleStats;
use nix::sys::signal::Signal;
use serde_json::Value;
use support::{Monitor, PATIENCE, chadthrottle, number, process};
use testbed::{Family, Feature, KernelState, Path, Process, Testbed, is_to_be_tried, skip_unless, traffic};

/// An emulated machine verifies programs for seconds.
const LONG: Duration = Duration::from_mins(2);
/// Bytes of payload that a limited process transfers, at a limit that takes seconds for it.
const BYTES: u64 = 1_500_000;
const LIMIT: u64 = 500_000;

/// Steps that the kernel may take to verify one of our programs; it gives up at a million. Linux 6.1 takes three times as
/// many as 6.12 (185,000 and 60,000 for what leaves).
const STEPS: u32 = 400_000;

/// The names of backends in one column of `--list-backends --json`; all of them have to work that the kernel can run.
fn backends(column: &str) -> anyhow::Result<Vec<String>> {
    let bed = Testbed::new("kernel")?;
    let text = Process::spawn(chadthrottle(&bed).args(["--list-backends", "--json"]))?.success(LONG)?;
    let list: Value = serde_json::from_str(&text)?;
    let rows = list[column].as_array().context("no such column")?;
    let mut names = Vec::new();
    for row in rows {
        let name = row["name"].as_str().context("a backend has a name")?;
        let refusal = (row["available"] == false).then(|| row["reason"].as_str().unwrap_or_default());
        if is_to_be_tried(&bed, name, refusal)? {
            let tagger = row["tagger"].as_str().unwrap_or_default();
            let tags_packets = name == "tc_htb" && Feature::BpfReadsMemory.is_here(&bed)?;
            ensure!(!tags_packets || tagger.contains("eBPF"), "{name} tags by {tagger}");
            names.push(name.to_owned());
        }
    }
    Ok(names)
}

/// How long a transfer takes, with options of the program or without the program.
fn transfer(bed: &Testbed, is_upload: bool, limited: Option<&[&str]>) -> anyhow::Result<Duration> {
    let far = bed.server().socket_address(Family::V4, 0).to_string();
    let bytes = BYTES.to_string();
    let mut server = traffic::command(bed.server())?;
    let server = Process::spawn(if is_upload {
        server.args(["tcp-sink", "--listen", &far])
    } else {
        server.args(["tcp-source", "--listen", &far, "--bytes", &bytes])
    })?;
    let address = traffic::ready(&server)?.to_string();
    let words = if is_upload {
        vec!["tcp-send", "--to", &address, "--bytes", &bytes]
    } else {
        vec!["tcp-receive", "--from", &address]
    };
    let mut command = match limited {
        None => traffic::command(bed.client())?,
        Some(options) => {
            let mut command = chadthrottle(bed);
            command.args(options).arg("--").arg(traffic::traffic_binary()?);
            command
        }
    };
    let start = Instant::now();
    Process::spawn(command.args(words))?.success(LONG)?;
    Ok(start.elapsed())
}

fn every_backend_holds_a_transfer(direction: &str) -> anyhow::Result<()> {
    let is_upload = direction == "upload";
    for name in backends(direction)? {
        // With a round trip: who looks for new sockets now and then would find one that has sent everything already.
        let bed = Testbed::with_path("kernel", &Path::round_trip(Duration::from_millis(20)))?;
        let before = KernelState::capture(&bed)?;
        let free = transfer(&bed, is_upload, None)?;
        let (option, limit) = (format!("--{direction}-limit"), LIMIT.to_string());
        let backend = format!("--{direction}-backend");
        let held = transfer(&bed, is_upload, Some(&[&backend, &name, "run", &option, &limit]))
            .with_context(|| format!("{direction} by {name}"))?;
        println!("{direction} by {name}: {held:?}, {free:?} without a limit");
        // What a bucket saves up and a first window of 64 KB are a part of it.
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let least = 0.7 * BYTES as f64 / LIMIT as f64;
        ensure!(
            held.as_secs_f64() > least,
            "{direction} by {name} took {held:?}, at least {least} s were due"
        );
        ensure!(free < held / 2, "{direction} by {name} took {held:?}, and {free:?} without a limit");
        before.assert_returns(&bed, PATIENCE).with_context(|| format!("{direction} by {name}"))?;
    }
    Ok(())
}

#[test]
fn every_backend_holds_an_upload() -> anyhow::Result<()> {
    every_backend_holds_a_transfer("upload")
}

#[test]
fn every_backend_holds_a_download() -> anyhow::Result<()> {
    every_backend_holds_a_transfer("download")
}

#[test]
fn every_monitor_sees_what_a_process_sends() -> anyhow::Result<()> {
    for name in backends("monitor")? {
        let bed = Testbed::new("kernel")?;
        let monitor = Monitor::start_by(chadthrottle(&bed).args(["--monitor-backend", &name]), &[])?;
        let far = bed.server().socket_address(Family::V4, 0).to_string();
        let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &far]))?;
        let address = traffic::ready(&sink)?.to_string();
        let bytes = BYTES.to_string();
        // Slow enough to be seen by who looks now and then.
        let words = ["tcp-send", "--to", &address, "--bytes", &bytes, "--rate", "1000000"];
        let sender = Process::spawn(traffic::command(bed.client())?.args(words))?;
        let pid = sender.pid();
        sink.success(LONG)?;
        let counted = monitor.until(&format!("{name} has seen all of it"), |line| {
            let counted = number(process(line, pid)?, "upload_bytes_total");
            (counted >= BYTES).then_some(counted)
        })?;
        ensure!(counted < BYTES * 6 / 5, "{name} counted {counted} IP bytes for {BYTES} of payload");
    }
    Ok(())
}

/// Datagrams of the bed's client under an upload limit, more than that lets through.
struct Flood<'a> {
    bed: &'a Testbed,
    target: Target,
    manager: ThrottleManager,
    limit: u64,
}

/// What has become of them.
#[derive(Debug)]
struct Outcome {
    sent: u64,
    received: u64,
    figures: ThrottleStats,
}

/// IP bytes of a datagram.
const DATAGRAM: u64 = 1400;
/// How long they are sent.
const SECONDS: f64 = 2.0;

impl<'a> Flood<'a> {
    fn new(bed: &'a Testbed) -> anyhow::Result<Self> {
        let cgroup_root = Some(bed.cgroup_root().to_owned());
        let options = BackendOptions { cgroup_root, ..BackendOptions::default() };
        let upload = EbpfCgroupUpload::new(&options, &SharedEngine::default(), &SharedFlow::default());
        let name = bed.cgroup_root().file_name().and_then(|name| name.to_str()).context("no name")?;
        let subject = Subject::Cgroup(format!("/{name}"));
        let target = Target { subject, name: "it".into(), traffic: TrafficType::All };
        let manager = bed.client().run(|| Ok(ThrottleManager::new(Box::new(upload), None)?))?;
        Ok(Self { bed, target, manager, limit: 0 })
    }

    fn set(&mut self, limit: u64) -> anyhow::Result<()> {
        self.limit = limit;
        let limits = Limits { upload: Some(limit), download: None };
        self.bed.client().run(|| Ok(self.manager.throttle_process(&self.target, limits)?))
    }

    /// Looks at the queue again.
    fn maintain(&mut self) -> anyhow::Result<()> {
        self.bed.client().run(|| Ok(self.manager.maintain()?))
    }

    /// Sends so many times what the limit allows. Never more of it comes than that, what is saved up, and as much again, which
    /// may wait. (An emulated machine may not manage to send as much as it is told.)
    fn run(&self, times: u64) -> anyhow::Result<Outcome> {
        let before = self.figures()?;
        let far = self.bed.server().socket_address(Family::V4, 0).to_string();
        let mut sink = traffic::command(self.bed.server())?;
        sink.args(["udp-sink", "--listen", &far, "--until-told", "--idle-exit", "1000"]);
        let sink = Process::spawn(sink.args(["--first-wait", "120000"]))?;
        let address = traffic::ready(&sink)?;
        let teller = self.bed.server().run(|| Ok(UdpSocket::bind((address.ip(), 0))?))?;
        let (to, address) = (address, address.to_string());
        let (rate, size) = ((times * self.limit).to_string(), (DATAGRAM - 28).to_string());
        let seconds = SECONDS.to_string();
        let words = ["udp-send", "--to", &address, "--rate", &rate, "--size", &size, "--seconds", &seconds];
        let sender = Process::spawn(traffic::command(self.bed.client())?.args(words))?;
        let sent = traffic::Report::parse(&sender.success(LONG)?)?;
        teller.send_to(&[], to)?;
        let received = traffic::Report::parse(&sink.success(LONG)?)?;
        ensure!(sent.errors.is_empty(), "{sent:?}");
        let after = self.figures()?;
        let outcome = Outcome {
            sent: sent.datagrams,
            received: received.datagrams,
            figures: ThrottleStats {
                packets_dropped: after.packets_dropped - before.packets_dropped,
                packets_delayed: after.packets_delayed - before.packets_delayed,
                bytes_delayed: after.bytes_delayed - before.bytes_delayed,
                ..ThrottleStats::default()
            },
        };
        println!("{} B/s: {outcome:?}", self.limit);
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let (bytes, limit) = ((outcome.received * DATAGRAM) as f64, self.limit as f64);
        ensure!(bytes <= limit * (sent.seconds + 0.45), "{bytes} bytes in {} s: {outcome:?}", sent.seconds);
        let is_slow = outcome.figures.packets_dropped == 0;
        ensure!(
            bytes >= limit * SECONDS / 2.0 || is_slow,
            "{bytes} bytes in {} s: {outcome:?}",
            sent.seconds
        );
        ensure!(outcome.received == outcome.sent - outcome.figures.packets_dropped, "{outcome:?}");
        ensure!(outcome.figures.bytes_delayed == outcome.figures.packets_delayed * DATAGRAM, "{outcome:?}");
        Ok(outcome)
    }

    fn figures(&self) -> anyhow::Result<ThrottleStats> {
        Ok(self.manager.limited()?.first().context("there is a limit")?.upload_stats)
    }
}

/// Replaces the queue by which the bed's client sends. Whether this kernel has that kind.
fn set_queue(bed: &Testbed, kind: &str) -> anyhow::Result<bool> {
    let words = ["qdisc", "replace", "dev", bed.client().interfaces()[0], "root", kind];
    let output = bed.client().command("tc").args(words).output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("qdisc kind is unknown") {
        return Ok(false);
    }
    ensure!(output.status.success(), "tc: {said}");
    Ok(true)
}

#[test]
fn datagrams_wait_where_the_queue_is_fq_and_are_dropped_where_it_is_not() -> anyhow::Result<()> {
    let bed = Testbed::new("kernel")?;
    if skip_unless(&bed, Feature::BpfReadsMemory)? {
        return Ok(());
    }
    let mut flood = Flood::new(&bed)?;
    flood.set(30_000)?;
    let dropped = flood.run(10)?;
    ensure!(dropped.figures.packets_dropped > dropped.sent / 4, "{dropped:?}");
    ensure!(dropped.figures.packets_delayed == 0, "nothing waits in a queue that is no fq: {dropped:?}");
    if !set_queue(&bed, "fq")? {
        println!("skipped: this kernel has no fq (CONFIG_NET_SCH_FQ)");
        return Ok(());
    }
    flood.maintain()?;
    let delayed = flood.run(10)?;
    ensure!(delayed.figures.packets_delayed > delayed.received / 2, "{delayed:?}");
    // So few fit in 0.2 s of this limit that the rest is dropped all the same.
    ensure!(delayed.figures.packets_dropped > 0, "{delayed:?}");
    // Of this one more fit than the sender's buffer holds, so that the sender waits.
    flood.set(1_000_000)?;
    let waited = flood.run(3)?;
    ensure!(waited.figures.packets_dropped <= waited.sent / 100, "{waited:?}");
    // What was to wait is not kept any more, before anybody has looked: the limit holds all the same.
    set_queue(&bed, "pfifo")?;
    flood.run(3)?;
    Ok(())
}

#[test]
fn a_kill_leaves_nothing_that_the_next_cleanup_does_not_undo() -> anyhow::Result<()> {
    for name in backends("upload")? {
        let bed = Testbed::new("kernel")?;
        let mut idle = Process::spawn(bed.client().command("sleep").arg("300"))?;
        let before = KernelState::capture(&bed)?;
        let pid = idle.pid().to_string();
        let mut limiter = Process::spawn(chadthrottle(&bed).args([
            "--upload-backend",
            &name,
            "--download-backend",
            "none",
            "--pid",
            &pid,
            "--upload-limit",
            "1M",
        ]))?;
        limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
        limiter.signal(Signal::SIGKILL)?;
        limiter.wait_timeout(LONG)?;
        Process::spawn(chadthrottle(&bed).arg("cleanup"))?.success(LONG)?;
        before.assert_returns(&bed, PATIENCE).with_context(|| format!("after {name}"))?;
        idle.signal(Signal::SIGKILL)?;
        idle.wait_timeout(PATIENCE)?;
    }
    Ok(())
}

/// It may be a module that nobody has loaded yet.
#[test]
fn the_queue_of_a_limit_is_a_fair_one_where_the_kernel_has_it() -> anyhow::Result<()> {
    let bed = Testbed::new("kernel")?;
    if skip_unless(&bed, Feature::FairQueue)? {
        return Ok(());
    }
    let idle = Process::spawn(bed.client().command("sleep").arg("300"))?;
    let mut limiter = chadthrottle(&bed);
    limiter.args(["--upload-backend", "tc_htb", "--download-backend", "none", "--upload-limit", "1M"]);
    let limiter = Process::spawn(limiter.args(["--pid", &idle.pid().to_string()]))?;
    limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
    let queues = Process::spawn(bed.client().command("tc").args(["qdisc", "show"]))?.success(PATIENCE)?;
    ensure!(queues.contains("qdisc htb") && queues.contains("qdisc fq_codel"), "{queues}");
    Ok(())
}

#[test]
fn the_kernel_verifies_every_program_with_little_work() -> anyhow::Result<()> {
    let known: BTreeSet<u32> = loaded_programs().filter_map(|program| Some(program.ok()?.id())).collect();
    let bed = Testbed::new("kernel")?;
    if skip_unless(&bed, Feature::BpfReadsMemory)? {
        return Ok(());
    }
    let target = Process::spawn(bed.client().command("sleep").arg("300"))?;
    let mut limiter = chadthrottle(&bed);
    limiter.args([
        "--upload-backend",
        "ebpf_cgroup",
        "--download-backend",
        "tc_police",
        "--pid",
        &target.pid().to_string(),
        "--upload-limit",
        "1M",
        "--download-limit",
        "1M",
    ]);
    let limiter = Process::spawn(&mut limiter)?;
    limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
    let mut seen = BTreeSet::new();
    for program in loaded_programs() {
        // Other tests' come and go.
        let Ok(program) = program else { continue };
        let Some(name) = program.name_as_str() else { continue };
        let Some(steps) = program.verified_instruction_count().filter(|_| !known.contains(&program.id()))
        else {
            continue;
        };
        println!("{name:<16} {steps:>6} steps, {:>5} bytes", program.size_translated().unwrap_or_default());
        ensure!(steps < STEPS, "{name} takes {steps} steps to verify");
        seen.insert(name.to_owned());
    }
    // The kernel keeps fifteen characters.
    for name in ["packet_leaves", "packet_arrives", "packet_enters", "socket_created", "process_forked"] {
        ensure!(seen.contains(name), "{name} is not among {seen:?}");
    }
    Ok(())
}
