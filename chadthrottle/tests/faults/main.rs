//! One call of the program to the kernel fails: it works all the same or says why not, and the host is left as it was.
//!
//! The program itself is run, with `--pid` or as a daemon whose rules set limits, change them and take them away, on a process
//! that sends and receives as fast as it can. First without a fault,
//! to see which calls there are; then once for each that is chosen. By itself a fixed sample with two pairs of backends;
//! `cargo xtask bench faults` takes every kind of call with every error.
//!
//! No harness of the compiler's: this program is also started as the process that is limited.

#[path = "../crash/flow.rs"]
mod flow;
mod round;
#[path = "../crash/rules.rs"]
mod rules;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use nix::{errno::Errno, sys::signal::Signal};
use testbed::{
    Path, Testbed,
    fault::{Fault, How, Place},
};

use self::{
    flow::Flow,
    round::{Bench, Ended},
};

/// Long enough for anything here on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the path carries, in bytes a second, and what is more than any limit in force leaves.
const CAPACITY: u64 = 8_000_000;
const FREE: f64 = 1_500_000.0;

/// The program under test, where no other one is.
const BINARY: &str = env!("CARGO_BIN_EXE_chadthrottle");

/// How it is told of limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `--pid`: they are as they are until it ends.
    Pid,
    /// Rules of a daemon: they change, and are gone before it ends.
    Rules,
}

const WAYS: [(Way, &str); 2] = [(Way::Pid, "pid"), (Way::Rules, "rules")];

/// Each backend is in one of these.
const PAIRS: [[&str; 2]; 4] =
    [["ebpf_cgroup", "ebpf_cgroup"], ["tc_htb", "ifb_tc"], ["nftables", "sockopt"], ["sockopt", "tc_police"]];
/// What the kernel may say of any call.
const ERRORS: [Errno; 5] = [Errno::ENOMEM, Errno::EPERM, Errno::EBUSY, Errno::EEXIST, Errno::ENODEV];
/// What the tests take by themselves: pair, way, whose call it is, kind, which of them (0 is the last), error.
const SAMPLE: &[(usize, Way, bool, &str, usize, Errno)] = &[
    (0, Way::Pid, false, "bpf PROG_LOAD", 0, Errno::ENOMEM),
    (0, Way::Pid, false, "bpf MAP_UPDATE_ELEM", 0, Errno::ENOMEM),
    (0, Way::Pid, false, "setsockopt 1/47", 1, Errno::ENOMEM),
    // What the kernel has made of the first window that was set.
    (0, Way::Pid, false, "getsockopt 6/10", 3, Errno::ENOMEM),
    (0, Way::Pid, true, "unlink", 1, Errno::EPERM),
    (0, Way::Rules, false, "bpf MAP_DELETE_ELEM", 1, Errno::ENOMEM),
    // The daemon's socket.
    (0, Way::Rules, false, "unlink", 3, Errno::EBUSY),
    (1, Way::Pid, false, "netlink NEWLINK", 1, Errno::EBUSY),
    (1, Way::Pid, false, "netlink GETLINK", 3, Errno::ENOMEM),
    (1, Way::Pid, false, "netlink DELLINK", 1, Errno::EBUSY),
    (1, Way::Pid, false, "netlink DELQDISC", 1, Errno::ENODEV),
    (1, Way::Pid, true, "pidfd_open", 1, Errno::ENOMEM),
    // The note of queues, when they are gone.
    (1, Way::Pid, true, "unlink", 4, Errno::EBUSY),
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [flow::MODE] => flow::carry(),
        ["--list", ..] => {
            println!("sample: test");
            Ok(())
        }
        _ => Asked::read(&words).and_then(|asked| all(&asked)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What is to be done.
struct Asked<'a> {
    /// Every kind of call; of each kind so many, from the first to the last.
    each: Option<usize>,
    /// Each with every error, and not with one error each by turns.
    with_all_errors: bool,
    /// With these backends alone.
    upload: Option<&'a str>,
    download: Option<&'a str>,
    /// Only calls whose names begin so, and of these only this one.
    only: Option<&'a str>,
    number: Option<usize>,
    /// Limits set in this way alone.
    by: Option<&'a str>,
    /// By what backends that want to be told know whose a packet is.
    tagger: Option<&'a str>,
    program: PathBuf,
}

impl<'a> Asked<'a> {
    fn read(words: &[&'a str]) -> anyhow::Result<Self> {
        let value = |option: &str| {
            let place = words.iter().position(|word| *word == option)?;
            words.get(place + 1).copied()
        };
        let each = value("--each").map(str::parse).transpose().context("--each wants a number")?;
        let number = value("--number").map(str::parse).transpose().context("--number wants a number")?;
        let [upload, download, only] = ["--upload", "--download", "--only"].map(value);
        let with_all_errors = words.contains(&"--all-errors");
        let [by, tagger] = ["--by", "--tagger"].map(value);
        let program = PathBuf::from(value("--program").unwrap_or(BINARY));
        Ok(Self { each, with_all_errors, upload, download, only, number, by, tagger, program })
    }

    fn wants(&self, [upload, download]: [&str; 2]) -> bool {
        self.upload.is_none_or(|wanted| wanted == upload)
            && self.download.is_none_or(|wanted| wanted == download)
    }

    /// Which faults, of the calls that there are with a pair.
    fn faults(&self, pair: usize, way: Way, calls: &[(Place, usize)]) -> anyhow::Result<Vec<Fault>> {
        let Some(each) = self.each else { return sample(pair, way, calls) };
        let chosen =
            calls.iter().filter(|(place, _)| self.only.is_none_or(|only| place.call.starts_with(only)));
        let numbered = chosen
            .flat_map(|(place, count)| spread(*count, each).into_iter().map(move |number| (place, number)));
        let numbered = numbered.filter(|(_, number)| self.number.is_none_or(|wanted| wanted == *number));
        let mut faults = Vec::new();
        for ((place, number), turn) in numbered.zip(ERRORS.into_iter().cycle()) {
            let errors = if self.with_all_errors { ERRORS.to_vec() } else { vec![turn] };
            faults.extend(errors.into_iter().map(|errno| Fault {
                place: place.clone(),
                number,
                how: how(place, errno),
            }));
        }
        Ok(faults)
    }
}

fn sample(pair: usize, way: Way, calls: &[(Place, usize)]) -> anyhow::Result<Vec<Fault>> {
    let of_pair = SAMPLE.iter().filter(|(of, by, ..)| (*of, *by) == (pair, way));
    of_pair
        .map(|&(_, _, is_childs, call, number, errno)| {
            let place = Place { is_childs, call: call.to_owned() };
            let known = calls.iter().find(|(known, _)| *known == place);
            let count = known.with_context(|| format!("{place} is never called, but {calls:?}"))?.1;
            Ok(Fault { number: if number == 0 { count } else { number }, how: how(&place, errno), place })
        })
        .collect()
}

/// At most so many numbers from 1 up to `count`, the first and the last among them.
fn spread(count: usize, most: usize) -> Vec<usize> {
    if count <= most || most < 2 {
        return (1..=count.min(most)).collect();
    }
    (0..most).map(|step| 1 + step * (count - 1) / (most - 1)).collect()
}

/// A request over netlink is refused by its answer, everything else at once.
fn how(place: &Place, errno: Errno) -> How {
    if place.call.starts_with("netlink ") { How::Answered(errno) } else { How::Fails(errno) }
}

fn all(asked: &Asked) -> anyhow::Result<()> {
    let mut wrong = 0;
    for (number, pair) in PAIRS.into_iter().enumerate() {
        let is_wanted = |(way, name): &(Way, &str)| {
            let is_in_sample = SAMPLE.iter().any(|(of, by, ..)| (*of, *by) == (number, *way));
            asked.by.is_none_or(|by| by == *name) && (asked.each.is_some() || is_in_sample)
        };
        let ways: Vec<_> = WAYS.into_iter().filter(is_wanted).collect();
        if !asked.wants(pair) || ways.is_empty() {
            continue;
        }
        let path = Path::round_trip(Duration::from_millis(10)).rate(CAPACITY, 200_000);
        let bed = Testbed::with_path("faults", &path)?;
        let flow = Flow::start(&bed)?;
        let bench = Bench::new(&bed, &flow, pair, &asked.program, asked.tagger)?;
        for (way, name) in ways {
            println!("\n{} and {} by {name}", pair[0], pair[1]);
            wrong += one_pair(&bench, asked, number, way)?;
        }
        bench.close()?;
        drop(flow);
        bed.close()?;
    }
    ensure!(wrong == 0, "{wrong} faults had consequences that they must not have");
    Ok(())
}

fn one_pair(bench: &Bench, asked: &Asked, number: usize, way: Way) -> anyhow::Result<usize> {
    let (mut ended, mut calls) = bench.round(way, None, Signal::SIGTERM)?;
    if ended != Ended::Worked {
        // A warning may come of a busy machine, once.
        (ended, calls) = bench.round(way, None, Signal::SIGTERM)?;
    }
    ensure!(ended == Ended::Worked, "without any fault: {ended:?}");
    // What the guard does it does when the program is killed.
    calls.retain(|place, _| !place.is_childs);
    if asked.each.is_some()
        || SAMPLE.iter().any(|(of, by, is_childs, ..)| (*of, *by) == (number, way) && *is_childs)
    {
        let (_, of_killed) = bench.round(way, None, Signal::SIGKILL)?;
        calls.extend(of_killed.into_iter().filter(|(place, _)| place.is_childs));
    }
    let calls: Vec<_> = calls.into_iter().collect();
    println!("{} calls of {} kinds", calls.iter().map(|(_, count)| count).sum::<usize>(), calls.len());
    let mut tally = std::collections::BTreeMap::<Ended, usize>::new();
    let mut wrong = 0;
    for fault in asked.faults(number, way, &calls)? {
        let end = if fault.place.is_childs { Signal::SIGKILL } else { Signal::SIGTERM };
        match bench.round(way, Some(&fault), end) {
            Ok((ended, _)) => {
                if asked.each.is_none() {
                    println!("{fault}: {ended:?}");
                }
                *tally.entry(ended).or_default() += 1;
            }
            Err(error) => {
                println!("{fault}: WRONG: {error:#}");
                wrong += 1;
            }
        }
    }
    println!("{tally:?}, {wrong} wrong");
    Ok(wrong)
}
