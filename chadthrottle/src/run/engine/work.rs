//! What the thread that owns the backends does between its start and its end.

use std::{
    sync::mpsc::{Receiver, RecvTimeoutError, Sender},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use procfs::{WithCurrentSystemInfo, process::Process};

use super::{
    super::{Keeping, Message},
    Command, Order,
};
use crate::{
    app::{BackendNames, Cost, Event, LimitOutcome},
    backends::{
        monitor::MonitorBackend,
        registry::Kind,
        supply::Supply,
        throttle::{Subject, ThrottleManager, manager::MAINTENANCE_INTERVAL},
    },
    daemon::remote::Remote,
    rules::{edit::NewRule, keeper::RuleFiles},
    stats::Stats,
};

/// What the thread owns.
pub(super) struct Work {
    pub(super) monitor: Box<dyn MonitorBackend>,
    pub(super) manager: ThrottleManager,
    supply: Box<dyn Supply>,
    /// Those that are kept here.
    pub(super) rules: Option<RuleFiles>,
    /// Whose limits and rules are shown, where they are not ours.
    daemon: Option<Remote>,
    /// By which rules limits are in force, as was told last.
    known: Vec<(Subject, String)>,
    stats: Stats,
    measures_packets: bool,
    pub(super) send: Sender<Message>,
}

impl Work {
    pub(super) fn new(
        monitor: Box<dyn MonitorBackend>,
        manager: ThrottleManager,
        supply: Box<dyn Supply>,
        rules: Option<Keeping>,
        send: Sender<Message>,
    ) -> Self {
        let (rules, daemon) = match rules {
            Some(Keeping::Here(files)) => (Some(*files), None),
            Some(Keeping::Daemon(daemon)) => (None, Some(daemon)),
            None => (None, None),
        };
        let (known, stats, measures_packets) = (Vec::new(), Stats::default(), false);
        Self { monitor, manager, supply, rules, daemon, known, stats, measures_packets, send }
    }

    /// Ticks and carries out orders until nobody gives any.
    pub(super) fn until_told(&mut self, interval: Duration, orders: &Receiver<Order>) {
        let start = Instant::now();
        let mut due = Duration::ZERO;
        let mut maintenance = MAINTENANCE_INTERVAL;
        let mut look = Duration::ZERO;
        loop {
            let now = start.elapsed();
            if now >= due {
                self.tick(now);
                due = next_tick(due, interval, start.elapsed());
            }
            if now >= look {
                self.keep_rules();
                let interval =
                    self.rules.as_ref().map_or(MAINTENANCE_INTERVAL, |rules| rules.keeper.interval());
                look = next_tick(look, interval, start.elapsed());
            }
            if now >= maintenance {
                // What was not looked after this time will be the next; the limits themselves are in force.
                if let Err(error) = self.manager.maintain() {
                    log::warn!("{error}");
                }
                maintenance = next_tick(maintenance, MAINTENANCE_INTERVAL, start.elapsed());
            }
            match orders.recv_timeout(due.min(maintenance).min(look).saturating_sub(start.elapsed())) {
                Ok(Order::Limit(command)) => self.carry_out(command),
                Ok(Order::Use(kind, name)) => self.use_backend(kind, name),
                Ok(Order::Save(rule)) => self.save_rule(&rule),
                Ok(Order::MeasurePackets(wanted)) => self.measure_packets(wanted),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn tick(&mut self, now: Duration) {
        let figures = match self.monitor.update() {
            Ok(sample) => {
                let snapshot = self.stats.advance(now, &sample);
                if let Some(rules) = &mut self.rules {
                    rules.take_in(&snapshot);
                }
                Event::Snapshot(snapshot)
            }
            Err(error) => Event::EngineFailed(error.to_string()),
        };
        self.read_daemon();
        // Both at once: they are drawn together. Limits first: with the figures all is put together.
        self.tell(self.limits());
        self.tell(figures);
        if let Some(cost) = own_cost(now) {
            self.tell(Event::Cost(cost));
        }
        if self.measures_packets {
            self.tell(Event::PacketCost(self.supply.packet_cost()));
        }
    }

    /// Has the limits be those of the daemon, whoever set them.
    fn read_daemon(&mut self) {
        let Some(daemon) = &self.daemon else { return };
        if let Err(error) = daemon.show_to(&mut self.manager) {
            self.tell(Event::EngineFailed(error.to_string()));
            return;
        }
        let held = daemon.rules();
        if held != self.known {
            self.known.clone_from(&held);
            self.tell(Event::Rules(held));
        }
    }

    fn measure_packets(&mut self, wanted: bool) {
        self.measures_packets = wanted;
        if wanted {
            self.tell(Event::PacketCost(self.supply.packet_cost()));
        } else {
            self.supply.stop_measuring();
        }
    }

    fn carry_out(&mut self, command: Command) {
        for event in carry_out(&mut self.manager, command) {
            self.tell(event);
        }
    }

    /// Has the limits be those of the rules.
    fn keep_rules(&mut self) {
        let Some(rules) = &mut self.rules else { return };
        let told = rules.keeper.look(&mut self.manager, Timestamp::now());
        let held = rules.keeper.held().iter().map(|(subject, held)| (subject.clone(), held.rule.clone()));
        let held: Vec<_> = held.collect();
        for words in told {
            self.tell(Event::Notice(format!("{words}.")));
        }
        if held != self.known {
            self.known.clone_from(&held);
            self.tell(Event::Rules(held));
            self.tell(self.limits());
        }
    }

    fn save_rule(&mut self, rule: &NewRule) {
        let saved = match (&mut self.rules, &self.daemon) {
            (Some(rules), _) => rules.save(rule),
            (None, Some(daemon)) => daemon.save(rule),
            (None, None) => return,
        };
        let saved = saved.map_err(|error| format!("The rule was not saved: {error:#}"));
        self.tell(Event::RuleSaved(saved));
        self.keep_rules();
        self.read_daemon();
    }

    /// Puts another backend in the place of one, which keeps its place where that fails.
    fn use_backend(&mut self, kind: Kind, name: &'static str) {
        let switched = match kind {
            Kind::Monitor => self.use_monitor(name),
            Kind::Upload => self.supply.upload(name).and_then(|new| Ok(self.manager.use_upload(new)?)),
            Kind::Download => {
                self.supply.download(name).and_then(|new| Ok(self.manager.use_download(new)?))
            }
        };
        self.tell(match switched {
            Ok(()) => Event::Backends(BackendNames {
                monitor: self.monitor.name(),
                upload: self.manager.upload_backend(),
                download: self.manager.download_backend(),
            }),
            Err(error) => Event::NotSwitched(format!("{error:#}")),
        });
        self.tell(self.limits());
    }

    /// The new one counts from nothing.
    fn use_monitor(&mut self, name: &str) -> anyhow::Result<()> {
        let mut new = self.supply.monitor(name)?;
        new.init()?;
        let mut old = std::mem::replace(&mut self.monitor, new);
        self.stats = Stats::default();
        Ok(old.cleanup()?)
    }

    fn limits(&self) -> Event {
        limits(&self.manager)
    }

    fn tell(&self, event: Event) {
        // Nobody listens any more: the next wait for orders ends it.
        let _ = self.send.send(Message::Event(event));
    }
}

/// Carries out an order, and tells what came of it.
pub(in crate::run) fn carry_out(
    manager: &mut ThrottleManager,
    Command { target, limits: wanted }: Command,
) -> Vec<Event> {
    let result = if wanted.is_empty() {
        manager.remove_throttle(&target.subject)
    } else {
        manager.throttle_process(&target, wanted)
    };
    let result = result.map_err(|error| error.to_string());
    let missing = result.as_ref().ok().and_then(|()| manager.not_covered(wanted));
    let outcome = Event::LimitResult(LimitOutcome { target, limits: wanted, result });
    let notice = missing.map(|missing| Event::Notice(format!("{missing}.")));
    [Some(outcome), notice, Some(limits(manager))].into_iter().flatten().collect()
}

/// The limits in force.
pub(in crate::run) fn limits(manager: &ThrottleManager) -> Event {
    match manager.limited() {
        Ok(limited) => Event::Limits(limited),
        Err(error) => Event::EngineFailed(error.to_string()),
    }
}

/// What this program has taken so far.
fn own_cost(now: Duration) -> Option<Cost> {
    let stat = Process::myself().and_then(|process| process.stat()).ok()?;
    let ticks = (stat.utime + stat.stime) * 1000 / procfs::ticks_per_second().max(1);
    Some(Cost { at: now, cpu: Duration::from_millis(ticks), resident: stat.rss_bytes().get() })
}

/// When to tick next. Ticks stand at multiples of the interval after the first, so that being late once does not
/// make all later ones late; those that were missed are left out.
fn next_tick(due: Duration, interval: Duration, now: Duration) -> Duration {
    let interval = interval.max(Duration::from_millis(1));
    let late = now.saturating_sub(due).as_nanos() / interval.as_nanos();
    let steps = u32::try_from(late).unwrap_or(u32::MAX).saturating_add(1);
    due.saturating_add(interval.saturating_mul(steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_do_not_drift() {
        let next = |due: u64, now: u64| {
            let next =
                next_tick(Duration::from_millis(due), Duration::from_secs(1), Duration::from_millis(now));
            next.as_millis()
        };
        assert_eq!(next(0, 0), 1000);
        assert_eq!(next(1000, 1030), 2000);
        assert_eq!(next(1000, 1999), 2000);
        assert_eq!(next(1000, 2000), 3000);
        assert_eq!(next(1000, 4200), 5000);
        assert!(next_tick(Duration::ZERO, Duration::ZERO, Duration::from_secs(5)) > Duration::from_secs(5));
    }
}
