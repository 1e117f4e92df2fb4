//! `daemon`: keeps the rules, in the foreground and without a screen, and does what is asked of it through its socket.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::tz::TimeZone;
use nix::sys::signal::Signal;

use super::{all_of, give_up_others, screen::recorded, select_throttles, tell};
use crate::{
    backends::{
        registry::{Backends, Wanted},
        throttle::{
            ThrottleManager,
            manager::{Limits, MAINTENANCE_INTERVAL},
        },
    },
    config::{Config, DaemonSettings, Files},
    daemon::{
        client::Place,
        counter::{COUNT_INTERVAL, Counter},
        desk::{Desk, Socket},
        rights::Rights,
        server::Server,
    },
    rules::{
        Rule,
        keeper::{Keeper, RuleFiles},
    },
    sys::{
        capability::{CHOWN, DAC_OVERRIDE},
        cgroup::CgroupRoot,
        service::Manager,
        signals::Signals,
    },
};

/// Holds the limits of the rules until SIGTERM or SIGINT. SIGHUP reads the files again: what both say stays in force
/// without a gap, and where the new ones are wrong the rules in force stay so.
///
/// # Errors
/// When the files are wrong at the start, no backend works here, or it cannot listen where it was told to.
pub fn run(backends: &Backends, wanted: &Wanted, files: &Files, place: &Place) -> anyhow::Result<()> {
    let signals = Signals::hold()?;
    let service = Manager::from_environment();
    let Config { rules, history, daemon, .. } = Config::load(files)?;
    let has_quota = rules.iter().any(|rule| rule.enabled && rule.quota.is_some());
    let (upload, download) = select_throttles(backends, wanted, asked_for(&rules))?;
    // Before others are given up: the socket may belong to a group.
    let mut server = listen(place, &daemon)?;
    // The history may be kept where others' files are, and what SQLite puts beside it is to be whose it is.
    give_up_others(&[], &[DAC_OVERRIDE, CHOWN]);
    let root = CgroupRoot::open(backends.options().cgroup_root.as_deref()).ok();
    let manager = ThrottleManager::new(upload, download)?;
    if let Some(missing) = manager.not_covered(asked_for(&rules)) {
        tell(missing);
    }
    let keeper = Keeper::new(rules, root, TimeZone::system());
    let history = recorded(&history);
    if history.is_none() && has_quota {
        tell("no quota is counted, since nothing is recorded here");
    }
    let counter = Counter::new(backends, wanted, history.is_some())?;
    let rules = RuleFiles { files: files.clone(), keeper, history };
    let is_usual = |path: &Path| Place::Usual.to_listen().is_some_and(|usual| usual == path);
    let socket = server
        .as_ref()
        .map(|server| Socket { path: server.path().to_owned(), is_usual: is_usual(server.path()) });
    let mut desk = Desk::new(manager, rules, counter, socket)?;
    desk.look();
    tell(desk.in_short());
    service.is_ready(&desk.in_short());
    let kept = keep(&mut desk, &mut server, &signals, &service);
    service.is_stopping();
    // Whoever has asked for limits learns that they end before they do.
    drop(server);
    let ended = desk.end();
    all_of([kept, ended])
}

/// Listens for others. Where that fails at the usual place the rules are kept all the same.
fn listen(place: &Place, settings: &DaemonSettings) -> anyhow::Result<Option<Server>> {
    let Some(path) = place.to_listen() else { return Ok(None) };
    let (rights, missing) = Rights::configured(settings);
    for words in missing {
        tell(words);
    }
    match Server::open(&path, rights) {
        Ok(server) => Ok(Some(server)),
        Err(error) if *place == Place::Usual => {
            tell(format_args!("nobody can ask this daemon: {error}"));
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Every direction in which some rule limits something.
fn asked_for(rules: &[Rule]) -> Limits {
    rules.iter().map(Rule::directions).fold(Limits::default(), |sum, limits| Limits {
        upload: sum.upload.or(limits.upload),
        download: sum.download.or(limits.download),
    })
}

/// What is done again and again, and when next.
struct Times {
    look: Instant,
    maintenance: Instant,
    /// None where nothing is recorded.
    count: Option<Instant>,
    /// None where nobody wants to know that we are well.
    watchdog: Option<Instant>,
}

fn keep(
    desk: &mut Desk,
    server: &mut Option<Server>,
    signals: &Signals,
    service: &Manager,
) -> anyhow::Result<()> {
    let now = Instant::now();
    let mut times = Times {
        look: now + desk.rules.keeper.interval(),
        maintenance: now + MAINTENANCE_INTERVAL,
        count: desk.rules.history.is_some().then_some(now),
        watchdog: service.watchdog().map(|_| now),
    };
    loop {
        let now = Instant::now();
        let asked = server.as_ref().and_then(|server| server.deadline(now));
        let others = [Some(times.maintenance), times.count, times.watchdog, asked];
        let next = others.into_iter().flatten().fold(times.look, Instant::min);
        let interests = server.as_ref().map(Server::interests).unwrap_or_default();
        let (signal, ready) = signals.wait_beside(Some(next), interests)?;
        match signal {
            Some(Signal::SIGHUP) => {
                service.is_reloading();
                // What is wrong has been told.
                let _ = desk.read_again();
                service.is_ready(&desk.in_short());
            }
            Some(Signal::SIGCHLD) | None => {}
            Some(_) => return Ok(()),
        }
        if let Some(server) = server {
            let ended = server.turn(&ready, Instant::now(), |caller, request| desk.answer(caller, request));
            desk.leave(&ended);
        }
        times.work(desk, service);
    }
}

impl Times {
    /// Does what it is time for.
    fn work(&mut self, desk: &mut Desk, service: &Manager) {
        let now = Instant::now();
        if now >= self.look {
            desk.look();
            self.look = later(self.look, desk.rules.keeper.interval());
        }
        if let Some(count) = self.count.as_mut().filter(|count| now >= **count) {
            desk.counter.count(&mut desk.rules);
            *count = later(*count, COUNT_INTERVAL);
        }
        if now >= self.maintenance {
            self.maintenance = later(self.maintenance, MAINTENANCE_INTERVAL);
            // What was not looked after this time will be the next; the limits themselves are in force.
            if let Err(error) = desk.manager.maintain() {
                log::warn!("{error}");
            }
        }
        if let (Some(watchdog), Some(interval)) = (&mut self.watchdog, service.watchdog())
            && now >= *watchdog
        {
            service.is_well();
            *watchdog = later(*watchdog, interval);
        }
    }
}

/// The next time, in the same steps, that is still to come.
fn later(due: Instant, interval: Duration) -> Instant {
    (due + interval).max(Instant::now())
}
