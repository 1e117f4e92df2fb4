//! The thread that owns the backends.

use std::{
    any::Any,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use jiff::Timestamp;
use procfs::{WithCurrentSystemInfo, process::Process};

use super::Message;
use crate::{
    app::{BackendNames, Cost, Event, LimitOutcome},
    backends::{
        monitor::MonitorBackend,
        registry::Kind,
        supply::Supply,
        throttle::{
            Subject, Target, ThrottleManager,
            manager::{Limits, MAINTENANCE_INTERVAL},
        },
    },
    rules::{edit::NewRule, keeper::RuleFiles},
    stats::Stats,
};

/// After this long, somebody who waits for the end is told why.
const PATIENCE: Duration = Duration::from_secs(1);

/// Something to be done between two ticks.
#[derive(Debug)]
pub(super) struct Command {
    /// Whom to limit.
    pub(super) target: Target,
    /// To what; nothing is removal.
    pub(super) limits: Limits,
}

/// What is ordered.
#[derive(Debug)]
enum Order {
    Limit(Command),
    Use(Kind, &'static str),
    Save(NewRule),
    MeasurePackets(bool),
}

/// Makes the backends ready. That may take its time: loading programs into the kernel does.
pub(super) type Start =
    Box<dyn FnOnce() -> anyhow::Result<(Box<dyn MonitorBackend>, ThrottleManager)> + Send>;

/// The engine as others see it: commands go in, and at the end one result comes out.
pub(super) struct Engine {
    orders: Option<Sender<Order>>,
    result: Receiver<Result<(), String>>,
}

impl Engine {
    /// Starts it, with the backends that `start` makes ready. Figures come as messages, at once and then every `interval`.
    pub(super) fn start(
        start: Start,
        supply: Box<dyn Supply>,
        rules: Option<RuleFiles>,
        interval: Duration,
        send: Sender<Message>,
    ) -> anyhow::Result<Self> {
        let (give, orders) = mpsc::channel();
        let (report, result) = mpsc::channel();
        let work = move || {
            let begun = catch_unwind(AssertUnwindSafe(start));
            let begun =
                begun.unwrap_or_else(|panic| Err(anyhow!("the engine failed: {}", words(panic.as_ref()))));
            let (monitor, manager) = match begun {
                Ok(backends) => backends,
                Err(error) => {
                    // Nothing has been set up that somebody would have to take back.
                    let _ = report.send(Ok(()));
                    let _ = send.send(Message::NotStarted(error));
                    return;
                }
            };
            let stats = Stats::default();
            let (known, measures_packets) = (Vec::new(), false);
            let mut work = Work { monitor, manager, supply, rules, known, stats, measures_packets, send };
            // A panic must not keep the limits from being taken back.
            let worked = catch_unwind(AssertUnwindSafe(|| work.until_told(interval, &orders)));
            let worked = worked.map_err(|panic| format!("the engine failed: {}", words(panic.as_ref())));
            let taken_back = take_back(work.monitor.as_mut(), &mut work.manager);
            // Writes the last of the history, which nobody would wait for once the result is told.
            drop(work.rules.take());
            // A failed send means that nobody waits for it.
            let _ = report.send(worked.and(taken_back));
            let _ = work.send.send(Message::EngineEnded);
        };
        thread::Builder::new().name("engine".into()).spawn(work).context("cannot start a thread")?;
        Ok(Self { orders: Some(give), result })
    }

    /// Orders a change. It is made as soon as the engine is done with what it is at.
    pub(super) fn order(&self, command: Command) {
        // An engine that has ended has said so: the message is on its way.
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::Limit(command)));
    }

    /// Orders another backend.
    pub(super) fn use_backend(&self, kind: Kind, name: &'static str) {
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::Use(kind, name)));
    }

    /// Orders a rule to be saved.
    pub(super) fn save_rule(&self, rule: NewRule) {
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::Save(rule)));
    }

    /// Orders that what packets cost is measured and told, or no more.
    pub(super) fn measure_packets(&self, wanted: bool) {
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::MeasurePackets(wanted)));
    }

    /// Ends it, and waits until everything has been taken back.
    pub(super) fn stop(&mut self) -> Result<(), String> {
        if self.orders.take().is_none() {
            return Ok(());
        }
        let result = match self.result.recv_timeout(PATIENCE) {
            Err(RecvTimeoutError::Timeout) => {
                // A terminal that is gone is no reason to leave them.
                let _ = writeln!(io::stderr(), "chadthrottle: taking the limits back…");
                self.result.recv().map_err(|_| ())
            }
            result => result.map_err(|_| ()),
        };
        result.unwrap_or_else(|()| Err("the engine ended without taking anything back".into()))
    }
}

impl Drop for Engine {
    /// A panic in the main thread must not keep the limits from being taken back.
    fn drop(&mut self) {
        if let Err(error) = self.stop() {
            log::error!("{error}");
        }
    }
}

/// Takes back everything that the backends did, one after the other whatever fails.
pub(super) fn take_back(
    monitor: &mut dyn MonitorBackend,
    manager: &mut ThrottleManager,
) -> Result<(), String> {
    let manager = catch_unwind(AssertUnwindSafe(|| manager.cleanup()));
    let monitor = catch_unwind(AssertUnwindSafe(|| monitor.cleanup()));
    let problems: Vec<String> = [manager, monitor]
        .into_iter()
        .filter_map(|result| match result {
            Ok(result) => result.err().map(|error| error.to_string()),
            Err(panic) => Some(words(panic.as_ref())),
        })
        .collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref().copied());
    said.unwrap_or("a panic without words").to_owned()
}

/// What the thread owns.
struct Work {
    monitor: Box<dyn MonitorBackend>,
    manager: ThrottleManager,
    supply: Box<dyn Supply>,
    rules: Option<RuleFiles>,
    /// By which rules limits are in force, as was told last.
    known: Vec<(Subject, String)>,
    stats: Stats,
    measures_packets: bool,
    send: Sender<Message>,
}

impl Work {
    /// Ticks and carries out orders until nobody gives any.
    fn until_told(&mut self, interval: Duration, orders: &Receiver<Order>) {
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
        let Some(rules) = &mut self.rules else { return };
        let saved = rules.save(rule).map_err(|error| format!("The rule was not saved: {error:#}"));
        self.tell(Event::RuleSaved(saved));
        self.keep_rules();
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
pub(super) fn carry_out(
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
pub(super) fn limits(manager: &ThrottleManager) -> Event {
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
