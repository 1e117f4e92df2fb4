//! A thousand targets of every kind, set, changed and taken away at random, against a model; and nothing is left.
//!
//! `CHADTHROTTLE_TEST_OPERATIONS=20000` makes it as many, instead of some ten seconds' worth.

mod maps;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context, ensure};
use chadthrottle::{
    backends::{
        BackendOptions,
        ebpf::{
            Engine,
            limits::{Asked, Direction, Leniency, Means},
        },
        throttle::{Subject, Target, TrafficType},
    },
    process::ProcessId,
};
use maps::Maps;
use proptest::{prelude::Rng, test_runner::TestRunner};
use testbed::{Process, Testbed};

const OPERATIONS: u64 = 1000;
/// Of each kind of subject.
const PROCESSES: usize = 60;
const PROGRAMS: usize = 280;
const CGROUPS: usize = 320;
const USERS: u32 = 340;
/// Users that nobody is.
const FIRST_USER: u32 = 3_000_000;

/// Who there is to be limited.
struct Subjects {
    all: Vec<Subject>,
    programs: Vec<std::path::PathBuf>,
    /// They end with it.
    _sleeping: Vec<Process>,
    _files: tempfile::TempDir,
}

impl Subjects {
    fn make(bed: &Testbed) -> anyhow::Result<Self> {
        let files = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        let mut all: Vec<_> = (0..USERS).map(|user| Subject::User(FIRST_USER + user)).collect();
        let root = bed.cgroup_root().file_name().and_then(|name| name.to_str()).context("it has a name")?;
        for number in 0..CGROUPS {
            // Some are in others.
            let name = format!("{}{number}", "0/".repeat(usize::from(number > CGROUPS / 2)));
            bed.cgroup(&name)?;
            all.push(Subject::Cgroup(format!("/{root}/{name}")));
        }
        let programs: Vec<_> =
            (0..PROGRAMS).map(|number| files.path().join(format!("program{number}"))).collect();
        let script = "for copy; do cp /bin/true \"$copy\" || exit; done";
        ensure!(Command::new("sh").args(["-c", script, "sh"]).args(&programs).status()?.success());
        all.extend(programs.iter().cloned().map(Subject::Program));
        let sleep = |_| Process::spawn(bed.client().command("sleep").arg("600"));
        let sleeping: Vec<_> = (0..PROCESSES / 2).map(sleep).collect::<Result<_, _>>()?;
        for process in &sleeping {
            let id = ProcessId::running(process.pid().cast_signed())?;
            all.extend([Subject::Process(id), Subject::Descendants(id)]);
        }
        Ok(Self { all, programs, _sleeping: sleeping, _files: files })
    }
}

/// What was asked for.
type Model = BTreeMap<Subject, BTreeMap<Direction, u64>>;

fn number(random: &mut impl Rng, below: usize) -> usize {
    usize::try_from(random.next_u64() % below.max(1) as u64).unwrap_or(0)
}

/// Sets or changes a limit.
fn set(
    engine: &mut Engine,
    model: &mut Model,
    subject: &Subject,
    random: &mut impl Rng,
) -> anyhow::Result<()> {
    let direction = if random.next_u64().is_multiple_of(2) { Direction::Upload } else { Direction::Download };
    let rate = random.next_u64() >> (random.next_u64() % 50 + 14);
    let target = Target { subject: subject.clone(), name: "it".into(), traffic: TrafficType::All };
    let asked = Asked { rate_bps: rate, leniency: Leniency::default(), means: Means::Sockets };
    engine.with_targets(|targets, engine| targets.set(engine, &target, direction, asked))?;
    model.entry(subject.clone()).or_default().insert(direction, rate);
    Ok(())
}

fn remove(
    engine: &mut Engine,
    model: &mut Model,
    subject: &Subject,
    direction: Direction,
) -> anyhow::Result<()> {
    engine.with_targets(|targets, engine| targets.remove(engine, subject, direction))?;
    if let Some(limits) = model.get_mut(subject) {
        limits.remove(&direction);
        if limits.is_empty() {
            model.remove(subject);
        }
    }
    Ok(())
}

/// That the kernel's tables have what the model has, and nothing else.
fn check(engine: &Engine, model: &Model, subjects: &Subjects, maps: &Maps) -> anyhow::Result<()> {
    for subject in &subjects.all {
        for direction in [Direction::Upload, Direction::Download] {
            let expected = model.get(subject).and_then(|limits| limits.get(&direction)).copied();
            ensure!(engine.targets().limit(subject, direction) == expected, "{subject}, {direction:?}");
        }
    }
    let count = |is: fn(&Subject) -> bool| model.keys().filter(|subject| is(subject)).count();
    let programs = count(|subject| matches!(subject, Subject::Program(_)));
    let cgroups = count(|subject| matches!(subject, Subject::Cgroup(_)));
    let users = count(|subject| matches!(subject, Subject::User(_)));
    ensure!(maps.places()? == [programs, programs, cgroups, cgroups, users], "{:?}", maps.places()?);
    let control = maps.control()?;
    let told = [control.limits, control.limited_programs, control.limited_cgroups, control.limited_users];
    ensure!(told.map(|count| count as usize) == [model.len(), programs, cgroups, users], "{control:?}");

    // Of each sleeping process, what holds it. Who executes a program for a moment may be in here too.
    let members: BTreeMap<_, _> = maps.members()?.into_iter().collect();
    let sleeping: BTreeSet<_> = subjects.all.iter().filter_map(Subject::process).collect();
    let mut rates = Vec::new();
    for id in sleeping {
        let holds =
            [Subject::Process(id), Subject::Descendants(id)].into_iter().find(|it| model.contains_key(it));
        let membership = members.get(&(id.pid.unsigned_abs(), id.start_time)).copied().unwrap_or_default();
        ensure!((membership.target() != 0) == holds.is_some(), "{id}: {membership:?}, held by {holds:?}");
        if let Some(holds) = holds {
            ensure!(maps.rates(membership.target())? == both(&model[&holds]), "{holds}: {membership:?}");
        }
    }
    // Of the others, the limits that their places lead to, in any order.
    let by_place = |subject: &&Subject| subject.process().is_none();
    let mut expected: Vec<_> = model.keys().filter(by_place).map(|subject| both(&model[subject])).collect();
    for target in maps.targets_of_places()? {
        rates.push(maps.rates(target)?);
    }
    rates.sort();
    expected.sort();
    ensure!(rates == expected, "other limits than were asked for");
    Ok(())
}

fn both(limits: &BTreeMap<Direction, u64>) -> [Option<u64>; 2] {
    [Direction::Upload, Direction::Download].map(|direction| limits.get(&direction).copied())
}

#[test]
fn a_thousand_targets_at_random_leave_nothing() -> anyhow::Result<()> {
    let asked = std::env::var("CHADTHROTTLE_TEST_OPERATIONS").ok();
    let operations = asked.map_or(Ok(OPERATIONS), |text| text.parse())?;
    let bed = Testbed::new("many")?;
    let subjects = Subjects::make(&bed)?;
    ensure!(subjects.all.len() == 1000, "{}", subjects.all.len());
    let options =
        BackendOptions { cgroup_root: Some(bed.cgroup_root().to_owned()), ..BackendOptions::default() };
    let (mut engine, mut model) = (Engine::load(&options)?, Model::new());
    let maps = Maps::of_this_process()?;
    let mut runner = TestRunner::default();
    let random = runner.rng();
    for subject in &subjects.all {
        set(&mut engine, &mut model, subject, random)?;
    }
    check(&engine, &model, &subjects, &maps).context("after all were set")?;
    for operation in 0..operations {
        let subject = &subjects.all[number(random, subjects.all.len())];
        match number(random, 100) {
            0..50 => set(&mut engine, &mut model, subject, random)?,
            50..70 => remove(&mut engine, &mut model, subject, Direction::Upload)?,
            70..90 => remove(&mut engine, &mut model, subject, Direction::Download)?,
            90..99 => execute(&bed, &subjects.programs[number(random, PROGRAMS)])?,
            _ => {
                check(&engine, &model, &subjects, &maps).with_context(|| format!("operation {operation}"))?;
            }
        }
    }
    check(&engine, &model, &subjects, &maps).context("at the end")?;
    for direction in [Direction::Upload, Direction::Download] {
        engine.with_targets(|targets, engine| targets.remove_all(engine, direction, Means::Sockets))?;
    }
    check(&engine, &Model::new(), &subjects, &maps).context("after all were taken away")?;
    // Those that ended a moment ago may not have been seen to.
    testbed::until("nobody is a member", Duration::from_secs(5), || {
        Ok(maps.members()?.is_empty().then_some(()))
    })?;
    maps.check_no_limits()
}

/// Executes a program that may be limited, for a moment.
fn execute(bed: &Testbed, program: &Path) -> anyhow::Result<()> {
    ensure!(fs::exists(program)? && bed.client().command(program).status()?.success());
    Ok(())
}
