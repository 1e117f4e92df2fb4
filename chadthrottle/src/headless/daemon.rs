//! `daemon`: keeps the rules, in the foreground and without a screen.

use std::time::{Duration, Instant};

use jiff::{Timestamp, tz::TimeZone};
use nix::sys::signal::Signal;

use super::{screen::recorded, select_throttles};
use crate::{
    backends::{
        monitor::MonitorBackend,
        registry::{Backends, Wanted},
        throttle::{
            ThrottleManager,
            manager::{Limits, MAINTENANCE_INTERVAL},
        },
    },
    config::{Config, Files},
    rules::{
        Rule,
        keeper::{Keeper, RuleFiles},
    },
    stats::Stats,
    sys::{cgroup::CgroupRoot, signals::Signals},
};

/// Holds the limits of the rules until SIGTERM or SIGINT. SIGHUP reads the files again: what both say stays in force
/// without a gap, and where the new ones are wrong the rules in force stay so.
///
/// # Errors
/// When the files are wrong at the start, or no backend works here.
pub fn run(backends: &Backends, wanted: &Wanted, files: &Files) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let Config { rules, history, .. } = Config::load(files)?;
    let has_quota = rules.iter().any(|rule| rule.enabled && rule.quota.is_some());
    let (upload, download) = select_throttles(backends, wanted, asked_for(&rules))?;
    let root = CgroupRoot::open(backends.options().cgroup_root.as_deref()).ok();
    let mut manager = ThrottleManager::new(upload, download)?;
    if let Some(missing) = manager.not_covered(asked_for(&rules)) {
        eprintln!("chadthrottle: {missing}");
    }
    let keeper = Keeper::new(rules, root, TimeZone::system());
    let history = recorded(&history);
    let mut counter = match history {
        Some(_) => Some(Counter::new(backends, wanted)?),
        None => None,
    };
    if history.is_none() && has_quota {
        eprintln!("chadthrottle: no quota is counted, since nothing is recorded here");
    }
    let mut rules = RuleFiles { files: files.clone(), keeper, history };
    let kept = keep(&mut rules, &mut manager, counter.as_mut(), &signals);
    manager.cleanup()?;
    counter.map_or(Ok(()), Counter::end)?;
    kept
}

/// How often what is used is read.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);

/// Counts what is used.
struct Counter {
    monitor: Box<dyn MonitorBackend>,
    stats: Stats,
    start: Instant,
    /// Whether it has been told that nothing can be counted.
    told: bool,
}

impl Counter {
    fn new(backends: &Backends, wanted: &Wanted) -> anyhow::Result<Self> {
        let mut monitor = backends.select_monitor_backend(wanted.monitor.as_deref())?;
        monitor.init()?;
        Ok(Self { monitor, stats: Stats::default(), start: Instant::now(), told: false })
    }

    fn count(&mut self, rules: &mut RuleFiles) {
        match self.monitor.update() {
            Ok(sample) => {
                self.told = false;
                rules.take_in(&self.stats.advance(self.start.elapsed(), &sample));
            }
            Err(error) if !self.told => {
                self.told = true;
                eprintln!("chadthrottle: nothing is recorded: {error}");
            }
            Err(_) => {}
        }
    }

    fn end(mut self) -> anyhow::Result<()> {
        Ok(self.monitor.cleanup()?)
    }
}

/// Every direction in which some rule limits something.
fn asked_for(rules: &[Rule]) -> Limits {
    let all = rules.iter().flat_map(|rule| [Some(rule.limits), rule.quota.map(|quota| quota.then)]).flatten();
    all.fold(Limits::default(), |sum, limits| Limits {
        upload: sum.upload.or(limits.upload),
        download: sum.download.or(limits.download),
    })
}

fn keep(
    rules: &mut RuleFiles,
    manager: &mut ThrottleManager,
    mut counter: Option<&mut Counter>,
    signals: &Signals,
) -> anyhow::Result<()> {
    look(&mut rules.keeper, manager);
    tell(&rules.keeper);
    let mut due = Instant::now() + rules.keeper.interval();
    let mut maintenance = Instant::now() + MAINTENANCE_INTERVAL;
    let mut count = Instant::now();
    loop {
        let next = if counter.is_some() { due.min(count) } else { due };
        match signals.wait(Some(next.min(maintenance)))? {
            Some(Signal::SIGCHLD) => continue,
            Some(Signal::SIGHUP) => {
                read_again(rules);
                look(&mut rules.keeper, manager);
                tell(&rules.keeper);
            }
            Some(_) => return Ok(()),
            None => {}
        }
        let now = Instant::now();
        if now >= due {
            look(&mut rules.keeper, manager);
            due = later(due, rules.keeper.interval());
        }
        if let Some(counter) = counter.as_mut().filter(|_| now >= count) {
            counter.count(rules);
            count = later(count, COUNT_INTERVAL);
        }
        if now >= maintenance {
            maintenance = later(maintenance, MAINTENANCE_INTERVAL);
            // What was not looked after this time will be the next; the limits themselves are in force.
            if let Err(error) = manager.maintain() {
                log::warn!("{error}");
            }
        }
    }
}

fn look(keeper: &mut Keeper, manager: &mut ThrottleManager) {
    for words in keeper.look(manager, Timestamp::now()) {
        eprintln!("chadthrottle: {words}");
    }
}

/// What is in force.
fn tell(keeper: &Keeper) {
    let (rules, limits) = (keeper.rules().len(), keeper.held().len());
    eprintln!("chadthrottle: {rules} rules, {limits} limits in force");
}

fn read_again(rules: &mut RuleFiles) {
    if let Err(error) = rules.read_again() {
        eprintln!("chadthrottle: the rules in force stay as they are: {error}");
    }
}

/// The next time, in the same steps, that is still to come.
fn later(due: Instant, interval: Duration) -> Instant {
    (due + interval).max(Instant::now())
}
