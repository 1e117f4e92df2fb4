//! Killed at any moment, under limits that change: the flow is free again, and the host as it was.
//!
//! No harness of the compiler's: this program is also started as the one that is killed, as its guard, and as the process
//! that is limited. By itself it does one round with each pair of backends; `cargo xtask bench crash` does many, and
//! asks that everything is over within a second.

mod dice;
mod flow;
mod victim;

use std::{
    io::Write,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use chadthrottle::{
    backends::registry::{Backends, NO_BACKEND, Wanted},
    headless::cleanup,
    instances,
};
use testbed::{KernelState, Path, Process, Testbed};

use self::{dice::Dice, flow::Flow};

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
    /// From its start until its limits were in force, where they were when it was killed.
    ready: Option<Duration>,
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
/// `--download NAME` for these backends alone.
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
            "| upload | download | rounds | held when killed | upload free after ms: median, longest | download | options |"
        );
        println!("| --- | --- | --- | --- | --- | --- | --- |");
    }
    let mut late = 0;
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
        let mut took: Vec<Took> = Vec::new();
        for round in 0..rounds.unwrap_or(1) {
            let name = format!("{upload} and {download}, round {round}, seed {}", dice.seed);
            // The first time it is waited for, so as to know how long that takes.
            let ready = took.first().and_then(|first| first.ready);
            took.push(one(&bed, [upload, download], &mut dice, ready).context(name)?);
        }
        bed.close()?;
        if rounds.is_some() {
            late += report([upload, download], &took);
        } else {
            println!("{upload} and {download}: {took:?}");
        }
    }
    ensure!(late == 0, "{late} rounds took longer than {PROMISE:?}");
    Ok(())
}

/// Prints a line, and says how many were too late.
fn report([upload, download]: [&str; 2], took: &[Took]) -> usize {
    let sorted = |pick: fn(&Took) -> Duration| {
        let mut all: Vec<u128> = took.iter().map(|took| pick(took).as_millis()).collect();
        all.sort_unstable();
        (all[all.len() / 2], all[all.len() - 1])
    };
    let [up, down] = [sorted(|took| took.free[0]), sorted(|took| took.free[1])];
    let options = sorted(|took| took.options);
    let held = took.iter().filter(|took| took.ready.is_some()).count();
    let rounds = took.len();
    println!(
        "| {upload} | {download} | {rounds} | {held} | {}, {} | {}, {} | {}, {} |",
        up.0, up.1, down.0, down.1, options.0, options.1
    );
    let _ = std::io::stdout().flush();
    took.iter().filter(|took| took.free[0].max(took.free[1]).max(took.options) > PROMISE).count()
}

/// Every upload backend of this build with every download backend.
fn pairs() -> anyhow::Result<Vec<(&'static str, &'static str)>> {
    let listing = Backends::default().list(&Wanted::default())?;
    let mut pairs = Vec::new();
    for upload in &listing.upload {
        for download in &listing.download {
            for row in [upload, download] {
                if let Some(reason) = &row.reason {
                    bail!("{} does not work here: {reason}", row.name);
                }
            }
            pairs.push((upload.name, download.name));
        }
    }
    ensure!(
        !pairs.is_empty() && pairs.iter().all(|(_, download)| *download != NO_BACKEND),
        "nothing to be killed"
    );
    Ok(pairs)
}

/// One life and death. It is killed once its limits are in force or, where it is known how long that takes, maybe before.
fn one(bed: &Testbed, backends: [&str; 2], dice: &mut Dice, ready: Option<Duration>) -> anyhow::Result<Took> {
    let flow = Flow::start(bed)?;
    let before = KernelState::capture(bed)?;
    let options = flow.options()?;
    let mut command = bed.client().command(std::env::current_exe()?);
    command.arg(victim::MODE).args(backends).arg(bed.cgroup_root());
    let (start, seed) = (Instant::now(), dice.below(u64::MAX));
    let mut victim = Process::spawn(command.args([flow.pid().to_string(), seed.to_string()]))?;
    let held = |line: &str| line == "held";
    // Starting takes longer than a change: as often in the one as in the other.
    let (ready, life) = if let Some(ready) = ready.filter(|_| dice.below(2) == 0) {
        (ready, dice.duration(ready))
    } else {
        victim.wait_for_line(held, PATIENCE)?;
        let ready = start.elapsed();
        (ready, ready + dice.duration(LIFE))
    };
    std::thread::sleep(life.saturating_sub(start.elapsed()));
    let is_ready = victim.stdout().lines().any(held);
    victim.signal(nix::sys::signal::Signal::SIGKILL)?;
    let killed = Instant::now();
    victim.wait_timeout(PATIENCE)?;
    let ready = is_ready.then_some(ready);
    let mut took = Took { ready, ..Took::default() };
    testbed::until("the options of sockets are as before", PATIENCE, || {
        Ok(flow.options()?.are_as(&options).then(|| took.options = killed.elapsed()))
    })
    .with_context(|| format!("{options:?} before, {:?} now", flow.options()))?;
    let mut free = [None; 2];
    testbed::until("both directions are free", PATIENCE, || {
        // When it was so for the whole of the last look it was so when that began.
        let begun = killed.elapsed();
        for (free, rate) in free.iter_mut().zip(flow.rates(LOOK)?) {
            *free = free.or((rate > FREE).then_some(begun));
        }
        Ok(free.iter().all(Option::is_some).then_some(()))
    })?;
    took.free = free.map(Option::unwrap_or_default);
    drop(flow);
    // In the notes there is nothing of it, or `cleanup` takes it away.
    let pid = victim.pid().cast_signed();
    bed.client().run(|| cleanup::run(false, &mut Vec::new()))?;
    let left = instances::all();
    ensure!(!left.stale.iter().any(|stale| stale.process.pid == pid), "a note of {pid} is left");
    before.assert_returns(bed, PATIENCE)?;
    Ok(took)
}
