//! The thread that owns the backends, as others see it: how it starts, takes orders, and ends. `work` is what it does.

mod work;

use std::{
    any::Any,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc::{self, Receiver, RecvTimeoutError, Sender},
    thread,
    time::Duration,
};

use anyhow::{Context, anyhow};

use self::work::Work;
pub(super) use self::work::{carry_out, limits};
use super::{Keeping, Message};
use crate::{
    backends::{
        monitor::MonitorBackend,
        registry::Kind,
        supply::Supply,
        throttle::{Target, ThrottleManager, manager::Limits},
    },
    rules::edit::NewRule,
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
    Save(Box<NewRule>),
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
        rules: Option<Keeping>,
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
            let mut work = Work::new(monitor, manager, supply, rules, send);
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
        let _ = self.orders.as_ref().map(|orders| orders.send(Order::Save(Box::new(rule))));
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
