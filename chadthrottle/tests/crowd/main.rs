//! Thousands of processes come and go under limits: the limits hold on, and nothing grows or is left.
//!
//! By itself some hundred a second for as long as that takes; `cargo xtask bench crowd` has ten thousand with each backend,
//! waits until the kernel's table of them is empty again, and prints figures.
//!
//! No harness of the compiler's, because of that.

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use aya::maps::{HashMap as Table, Map, MapData, MapInfo};
use chadthrottle_common::{Membership, ProcessKey};
use nix::sys::signal::Signal;
use support::{BINARY, Everybodys, PATIENCE};
use testbed::{Family, KernelState, Process, Testbed, traffic};

/// How many there are by themselves, with each backend.
const PROCESSES: usize = 600;
/// So many at once.
const SIDE_BY_SIDE: usize = 4;
/// A limit, in IP bytes a second; far more than they send, and less than the one that comes after them.
const CAP: f64 = 1e6;
/// How many descriptors and how many kilobytes more it may have afterwards than before.
const MORE_DESCRIPTORS: usize = 4;
const MORE_MEMORY: u64 = 16 << 10;
/// A member that has ended is forgotten at the second look after that, each half a minute.
const FORGOTTEN: Duration = Duration::from_secs(150);

/// Waits for a line, starts them, waits for another line, and becomes one that sends all the time.
const SHELL: &str = r#"
read line; all=
for side in $(seq "$1"); do
    (for one in $(seq "$2"); do
        "$3" udp-send --to "$4" --rate 1000000 --size 100 --datagrams 1 > /dev/null || exit 1
    done) &
    all="$all $!"
done
for side in $all; do wait "$side" || exit 1; done
echo all have ended; read line
exec "$3" udp-send --to "$4" --rate 4000000 --size 1372 --seconds 300
"#;

/// Backends, and whether two instances may share them.
const BACKENDS: [([&str; 2], bool); 3] =
    [(["ebpf_cgroup", "ebpf_cgroup"], true), (["tc_htb", "sockopt"], false), (["nftables", "sockopt"], true)];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.first().is_some_and(|word| word == "--list") {
        println!("crowd: test");
        return ExitCode::SUCCESS;
    }
    match all(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--processes N` for so many with each backend, all that can be waited for, and figures; `--program PATH` for another
/// program than the one built with this.
fn all(words: &[String]) -> anyhow::Result<()> {
    let value = |option: &str| {
        let place = words.iter().position(|word| word == option)?;
        words.get(place + 1)
    };
    let asked = value("--processes").map(|number| number.parse()).transpose()?;
    let program = PathBuf::from(value("--program").map_or(BINARY, String::as_str));
    for (backends, are_shared) in BACKENDS {
        // Looked at by /proc alone, which takes longer: left to whoever asks.
        if asked.is_none() && backends[0] == "nftables" {
            continue;
        }
        let bed = Testbed::new("crowd")?;
        let crowd = Crowd { bed: &bed, program: &program, backends, processes: asked.unwrap_or(PROCESSES) };
        crowd.run(are_shared, asked.is_some()).with_context(|| backends.join(" and "))?;
        bed.close()?;
    }
    Ok(())
}

struct Crowd<'a> {
    bed: &'a Testbed,
    program: &'a Path,
    backends: [&'static str; 2],
    processes: usize,
}

impl Crowd<'_> {
    fn run(&self, are_shared: bool, is_long: bool) -> anyhow::Result<()> {
        let (bed, everybodys) = (self.bed, Everybodys::new()?);
        let copy = everybodys.copy(traffic::traffic_binary()?)?;
        let listen = bed.server().socket_address(Family::V4, 0).to_string();
        let sink =
            ["udp-sink", "--listen", &listen, "--until-told", "--idle-exit", "300", "--first-wait", "120000"];
        let sink = Process::spawn(traffic::command(bed.server())?.args(sink))?;
        let to = traffic::ready(&sink)?.to_string();
        let before = KernelState::capture(bed)?;
        let mut shell = bed.client().command("sh");
        let counts = [SIDE_BY_SIDE, self.processes / SIDE_BY_SIDE].map(|count| count.to_string());
        let mut shell = Process::spawn(shell.args(["-c", SHELL, "sh"]).args(counts).arg(&copy).arg(&to))?;
        let mut limiters = vec![self.limiter(&["--pid", &shell.pid().to_string(), "--children"])?];
        if are_shared {
            limiters.push(self.limiter(&["--program", &copy.to_string_lossy()])?);
        }
        let sizes = limiters.iter().map(|limiter| size(limiter.pid())).collect::<anyhow::Result<Vec<_>>>()?;
        let start = Instant::now();
        shell.send_line("")?;
        // Ten thousand take a minute, or on a busy machine some.
        shell.wait_for_line(|line| line == "all have ended", PATIENCE * 20)?;
        let took = start.elapsed();
        for (limiter, (descriptors, memory)) in limiters.iter().zip(sizes) {
            let last = || size(limiter.pid());
            testbed::until("it is as small as before", PATIENCE, || {
                let (now, memory_now) = last()?;
                let is_small = now <= descriptors + MORE_DESCRIPTORS && memory_now <= memory + MORE_MEMORY;
                Ok(is_small.then_some(()))
            })
            .with_context(|| format!("descriptors and kB: {descriptors} and {memory}, then {:?}", last()))?;
            if is_long {
                let (now, memory_now) = last()?;
                println!(
                    "{}: {} processes in {:.1} s; descriptors {descriptors}, then {now}; memory {memory} kB, then {memory_now}",
                    self.backends.join(" and "),
                    self.processes,
                    took.as_secs_f64()
                );
                forgotten(limiter.pid())?;
            }
        }
        shell.send_line("")?;
        self.holds()?;
        for limiter in &mut limiters {
            ended(limiter)?;
        }
        drop((shell, sink));
        let left = || Ok::<_, anyhow::Error>(before.difference_in_bed(&KernelState::capture(bed)?));
        testbed::until("the bed is as before", PATIENCE, || Ok(left()?.is_empty().then_some(())))
            .with_context(|| format!("{:?}", left()))
    }

    fn limiter(&self, whom: &[&str]) -> anyhow::Result<Process> {
        let mut command = self.bed.client().command(self.program);
        command.arg("--cgroup-root").arg(self.bed.cgroup_root());
        let [upload, download] = self.backends;
        command.args(["--no-config", "--upload-backend", upload, "--download-backend", download]);
        command.args(["--upload-limit", "1M", "--download-limit", "1M"]).args(whom);
        let limiter = Process::spawn(&mut command)?;
        limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
        Ok(limiter)
    }

    /// That the limit is in force after all of them as it was before.
    fn holds(&self) -> anyhow::Result<()> {
        let server = self.bed.server();
        let rate =
            || support::interface_rate(server, server.interfaces()[0], "rx", Duration::from_millis(400));
        testbed::until("the limit holds", PATIENCE, || {
            let rate = rate()?;
            Ok((rate > 0.6 * CAP && rate < 1.3 * CAP).then_some(()))
        })
    }
}

/// Open descriptors, and kilobytes of memory.
fn size(pid: u32) -> anyhow::Result<(usize, u64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok((fs::read_dir(format!("/proc/{pid}/fd"))?.count(), memory.context("it has memory")?.trim().parse()?))
}

/// Waits until nobody who has ended is a member in the kernel any more.
fn forgotten(limiter: u32) -> anyhow::Result<()> {
    let Some(members) = members(limiter)? else { return Ok(()) };
    let ended = || -> anyhow::Result<usize> {
        let keys = members.keys().collect::<Result<Vec<_>, _>>()?;
        Ok(keys.iter().filter(|key| !Path::new(&format!("/proc/{}", key.tgid())).exists()).count())
    };
    println!("of them {} are members when they have ended", ended()?);
    testbed::until("they are forgotten", FORGOTTEN, || {
        std::thread::sleep(Duration::from_millis(500));
        Ok((ended()? == 0).then_some(()))
    })
    .with_context(|| format!("{:?} are left", ended()))
}

/// The table of a process's engine, where it has one.
fn members(pid: u32) -> anyhow::Result<Option<Table<MapData, ProcessKey, Membership>>> {
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:"));
        let Some(id) = id.and_then(|id| id.trim().parse().ok()) else { continue };
        if MapInfo::from_id(id)?.name_as_str() == Some("CHAD_MEMBERS") {
            return Ok(Some(Table::try_from(Map::HashMap(MapData::from_id(id)?))?));
        }
    }
    Ok(None)
}

/// Ends it, and looks at what it has said.
fn ended(limiter: &mut Process) -> anyhow::Result<()> {
    limiter.signal(Signal::SIGTERM)?;
    let status = limiter.wait_timeout(PATIENCE)?;
    let said = limiter.stderr();
    ensure!(status.success() && !said.contains("panicked"), "{status}: {said}");
    let usual = ["is held to", "is free again", "limits TCP alone"];
    let is_usual = |line: &str| usual.iter().any(|usual| line.contains(usual));
    let complaints = said.lines().filter(|line| line.starts_with("chadthrottle: ") && !is_usual(line));
    ensure!(complaints.count() == 0, "{said}");
    // A busy machine may be late once; that each of them is told of is what must not be.
    ensure!(said.lines().filter(|line| line.contains("WARN")).count() < 10, "{said}");
    Ok(())
}
