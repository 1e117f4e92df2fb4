//! Killed at any moment, under limits that change: the flow is free again, and the host as it was.
//!
//! No harness of the compiler's: this program is also started as the one that is killed, as its guard, and as the process
//! that is limited. By itself it does one round with each pair of backends; `cargo xtask bench crash` does many, and
//! asks that everything is over within a second.

mod dice;
mod flow;
mod rules;
mod victim;

use std::{io::Write, path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, ensure};
use chadthrottle::{
    backends::registry::{Backends, Listed, NO_BACKEND, Wanted},
    headless::cleanup,
    instances,
};
use testbed::{KernelState, Path, Testbed, at_least, is_to_be_tried};

use self::{dice::Dice, flow::Flow, victim::Victim};

/// Long enough for anything here on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the path carries, in bytes a second, and what is more than any limit in force leaves.
const CAPACITY: u64 = 8_000_000;
const FREE: f64 = 1_500_000.0;
/// Over how long that is looked at.
const LOOK: Duration = Duration::from_millis(100);
/// When it is killed: within so long after its limits are in force, or before.
const LIFE: Duration = Duration::from_millis(600);
/// What is promised.
const PROMISE: Duration = Duration::from_secs(1);

/// What a round took.
#[derive(Clone, Copy, Debug, Default)]
struct Took {
    /// From the kill until each direction was free, and until the options of sockets were as before.
    free: [Duration; 2],
    options: Duration,
    /// Until it had ended, and whoever undoes things for it, too.
    ended: Duration,
    undone: Duration,
    /// From its start until its limits were in force, where they were when it was killed.
    ready: Option<Duration>,
}

impl Took {
    /// Until the last of what is promised was so.
    fn last(&self) -> Duration {
        self.free[0].max(self.free[1]).max(self.options)
    }
}

fn main() -> ExitCode {
    if let Some(status) = chadthrottle::backends::throttle::guard::run_if_asked() {
        return status;
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let done = match words[..] {
        [victim::MODE, ref rest @ ..] => victim::run(rest),
        [flow::MODE] => flow::carry(),
        ["--list", ..] => {
            println!("rounds: test");
            Ok(())
        }
        _ => all(&words),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `--rounds N` for so many with each pair, and figures; `--seed N` to repeat what chance did; `--upload NAME` and
/// `--download NAME` for these backends alone; `--program PATH` to kill that, and not ourselves;
/// `--shared` where others use this kernel meanwhile: what is listed for the whole of it (BPF) is not compared.
fn all(words: &[&str]) -> anyhow::Result<()> {
    let number = |name: &str| -> anyhow::Result<Option<u64>> {
        let Some(place) = words.iter().position(|word| *word == name) else { return Ok(None) };
        let word = words.get(place + 1).with_context(|| format!("{name} wants a number"))?;
        Ok(Some(word.parse()?))
    };
    let rounds = number("--rounds")?;
    let mut dice = Dice::new(number("--seed")?);
    println!("seed {}", dice.seed);
    if rounds.is_some() {
        println!(
            "| upload | download | rounds | held when killed | upload free after ms: median, longest | download | options | ended | undone | later than {PROMISE:?} |"
        );
        println!("|{}", " --- |".repeat(10));
    }
    let (mut late, mut wrong) = (0, 0);
    let program = words.iter().position(|word| *word == "--program");
    let program = program.and_then(|place| words.get(place + 1)).map(PathBuf::from);
    let wants = |option: &str, name: &str| {
        let place = words.iter().position(|word| *word == option);
        place.and_then(|place| words.get(place + 1)).is_none_or(|wanted| *wanted == name)
    };
    let is_wanted = |pair: &(&str, &str)| wants("--upload", pair.0) && wants("--download", pair.1);
    for (upload, download) in pairs()?.into_iter().filter(is_wanted) {
        let bed = Testbed::with_path(
            "crash",
            &Path::round_trip(Duration::from_millis(10)).rate(CAPACITY, 200_000),
        )?;
        let mut round = Round {
            bed: &bed,
            backends: [upload, download],
            program: program.as_deref(),
            ready: None,
            is_shared: words.contains(&"--shared"),
        };
        let mut took: Vec<Took> = Vec::new();
        for number in 0..rounds.unwrap_or(1) {
            match round.run(&mut dice) {
                Ok(one) => {
                    if one.last() > PROMISE {
                        println!("{upload} and {download}, round {number}: {one:?}");
                    }
                    took.push(one);
                }
                Err(error) => {
                    println!("{upload} and {download}, round {number}, seed {}: WRONG: {error:#}", dice.seed);
                    wrong += 1;
                }
            }
        }
        bed.close()?;
        if rounds.is_some() {
            late += report([upload, download], &took);
        } else {
            println!("{upload} and {download}: {took:?}");
        }
    }
    ensure!(wrong == 0, "{wrong} rounds went wrong");
    ensure!(late == 0, "{late} rounds took longer than {PROMISE:?}");
    Ok(())
}

/// Prints a line, and says how many were too late.
fn report([upload, download]: [&str; 2], took: &[Took]) -> usize {
    let sorted = |pick: fn(&Took) -> Duration| {
        let mut all: Vec<u128> = took.iter().map(|took| pick(took).as_millis()).collect();
        all.sort_unstable();
        (all.get(all.len() / 2).copied().unwrap_or_default(), all.last().copied().unwrap_or_default())
    };
    let [up, down] = [sorted(|took| took.free[0]), sorted(|took| took.free[1])];
    let options = sorted(|took| took.options);
    let [ended, undone] = [sorted(|took| took.ended), sorted(|took| took.undone)];
    let late = took.iter().filter(|took| took.last() > PROMISE).count();
    let held = took.iter().filter(|took| took.ready.is_some()).count();
    let rounds = took.len();
    println!(
        "| {upload} | {download} | {rounds} | {held} | {}, {} | {}, {} | {}, {} | {}, {} | {}, {} | {late} |",
        up.0, up.1, down.0, down.1, options.0, options.1, ended.0, ended.1, undone.0, undone.1
    );
    let _ = std::io::stdout().flush();
    late
}

/// Every upload backend of this build with every download backend, as far as this kernel can run them.
fn pairs() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let bed = Testbed::new("crash")?;
    let listing = Backends::default().list(&Wanted::default())?;
    let here = |rows: &[Listed]| -> anyhow::Result<Vec<&'static str>> {
        let mut names = Vec::new();
        for row in rows {
            if is_to_be_tried(&bed, row.name, row.reason.as_deref())? {
                names.push(row.name);
            }
        }
        Ok(names)
    };
    let (uploads, downloads) = (here(&listing.upload)?, here(&listing.download)?);
    bed.close()?;
    let with_all = |upload| downloads.iter().map(move |&download| (upload, download));
    let pairs: Vec<_> = uploads.into_iter().flat_map(with_all).collect();
    ensure!(
        !pairs.is_empty() && pairs.iter().all(|(_, download)| *download != NO_BACKEND),
        "nothing to be killed"
    );
    Ok(pairs)
}

/// What TCP on both hosts waits for, and in which queues, where there is somebody who tells that.
fn connections(bed: &Testbed) -> String {
    let told = [bed.client(), bed.server()].into_iter().flat_map(|host| {
        let [mut sockets, mut queues] = ["ss", "tc"].map(|program| host.command(program));
        [sockets.arg("-Htino").output(), queues.args(["-s", "qdisc"]).output()]
    });
    told.flatten().map(|told| String::from_utf8_lossy(&told.stdout).into_owned()).collect()
}

/// One life and death.
struct Round<'a> {
    bed: &'a Testbed,
    backends: [&'a str; 2],
    program: Option<&'a std::path::Path>,
    /// How long it takes until limits are in force, once that is known.
    ready: Option<Duration>,
    is_shared: bool,
}

impl Round<'_> {
    /// It is killed once its limits are in force or, where it is known how long that takes, maybe before.
    fn run(&mut self, dice: &mut Dice) -> anyhow::Result<Took> {
        let bed = self.bed;
        let flow = Flow::start(bed)?;
        let before = KernelState::capture(bed)?;
        let options = flow.options()?;
        let mut victim = Victim::start(bed, &flow, self.backends, dice, self.program)?;
        // Starting takes longer than a change: as often in the one as in the other.
        let (ready, life) = if let Some(ready) = self.ready.filter(|_| dice.below(2) == 0) {
            (ready, dice.duration(ready))
        } else {
            let ready = victim.wait_until_ready(PATIENCE)?;
            (ready, ready + dice.duration(LIFE))
        };
        self.ready = self.ready.or(Some(ready));
        victim.live(life, dice)?;
        let is_ready = victim.is_ready();
        let (killed, ended, undone) = victim.kill()?;
        let ready = is_ready.then_some(ready);
        let mut took = Took { ended, ready, ..Took::default() };
        testbed::until("the options of sockets are as before", PATIENCE, || {
            Ok(flow.options()?.are_as(&options).then(|| took.options = killed.elapsed()))
        })
        .with_context(|| format!("{options:?} before, {:?} now", flow.options()))?;
        let mut free = [None; 2];
        let mut is_late = false;
        testbed::until("both directions are free", PATIENCE, || {
            if !is_late && killed.elapsed() > PROMISE {
                is_late = true;
                println!("after {PROMISE:?} {free:?}: {}", connections(bed));
            }
            // When it was so for the whole of the last look it was so when that began.
            let begun = killed.elapsed();
            for (free, rate) in free.iter_mut().zip(flow.rates(LOOK)?) {
                *free = free.or((rate > at_least(FREE)).then_some(begun));
            }
            Ok(free.iter().all(Option::is_some).then_some(()))
        })?;
        took.free = free.map(Option::unwrap_or_default);
        took.undone = undone.join().ok().context("the watch of its end has panicked")?;
        drop(flow);
        // In the notes there is nothing of it, or `cleanup` takes it away.
        let pid = victim.process.pid().cast_signed();
        bed.client().run(|| cleanup::run(false, &mut Vec::new()))?;
        let left = instances::all();
        ensure!(!left.stale.iter().any(|stale| stale.process.pid == pid), "a note of {pid} is left");
        if !self.is_shared {
            before.assert_returns(bed, PATIENCE)?;
            return Ok(took);
        }
        let difference = || Ok::<_, anyhow::Error>(before.difference_in_bed(&KernelState::capture(bed)?));
        testbed::until("the bed is as before", PATIENCE, || Ok(difference()?.is_empty().then_some(())))
            .with_context(|| format!("{:?}", difference()))?;
        Ok(took)
    }
}
