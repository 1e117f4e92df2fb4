//! A simulated host behind the same traits as a real one: for trying the screen without privileges, for pictures of it
//! and for tests. It touches nothing of the real one.

mod books;
mod lookout;
mod members;
mod names;
mod past;
mod programs;
mod throttle;
mod world;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::bail;

pub use self::{lookout::DemoLookout, names::DemoNames, world::World};
use self::{throttle::DemoThrottle, world::Way};
use super::{
    Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority,
    monitor::MonitorBackend,
    supply::Supply,
    throttle::{DownloadThrottleBackend, ThrottleManager, UploadThrottleBackend},
};
use crate::stats::Sample;

/// Its name among the backends, though nothing lists it there.
const NAME: &str = "demo";

/// Whatever is asked of it.
const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { shapes: true, ..BackendCapabilities::ALL_TRAFFIC };

/// The host, and how its time passes.
#[derive(Clone)]
pub struct Demo {
    world: Arc<Mutex<World>>,
    clock: Clock,
    panics: Option<Part>,
}

/// A part of it that can be made to fail, to see what becomes of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// Who counts, the third time.
    Monitor,
    /// Who answers questions, when it is asked for connections.
    Lookout,
}

#[derive(Clone, Copy, Debug)]
enum Clock {
    /// As ours does, since this instant, when the host was that old.
    Real(Instant, Duration),
    /// So much with each look.
    Steps(Duration),
}

impl Demo {
    /// A host that is `age` old, and lives on as we do.
    #[must_use]
    pub fn new(seed: u64, age: Duration, crowd: usize) -> Self {
        let mut world = World::new(seed, crowd);
        world.advance(age);
        Self { world: Arc::new(Mutex::new(world)), clock: Clock::Real(Instant::now(), age), panics: None }
    }

    /// A host at its first instant, with so many processes more, that is `step` older with each look of the monitor.
    #[must_use]
    pub fn stepping(seed: u64, step: Duration, crowd: usize) -> Self {
        Self { world: Arc::new(Mutex::new(World::new(seed, crowd))), clock: Clock::Steps(step), panics: None }
    }

    /// The same, with a part that panics.
    #[must_use]
    pub fn panicking(self, part: Option<Part>) -> Self {
        Self { panics: part, ..self }
    }

    fn panic_as_told(&self, part: Part) {
        assert!(self.panics != Some(part), "on purpose");
    }

    /// Who counts on it.
    #[must_use]
    pub fn monitor(&self) -> Box<dyn MonitorBackend> {
        Box::new(DemoMonitor { demo: self.clone(), looks: 0 })
    }

    /// Who limits on it.
    ///
    /// # Errors
    /// Never: its backends do not refuse to be made ready.
    pub fn manager(&self) -> Result<ThrottleManager, BackendError> {
        let throttle = |way| DemoThrottle { demo: self.clone(), way };
        ThrottleManager::new(Box::new(throttle(Way::Up)), Some(Box::new(throttle(Way::Down))))
    }

    /// Who answers questions about it.
    #[must_use]
    pub fn lookout(&self) -> DemoLookout {
        DemoLookout::new(self.clone())
    }

    /// Who knows what hosts are called there.
    #[must_use]
    pub const fn names(&self) -> DemoNames {
        DemoNames
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Supply for Demo {
    fn monitor(&self, name: &str) -> anyhow::Result<Box<dyn MonitorBackend>> {
        bail!("there is no {name} on a simulated host")
    }

    fn upload(&self, name: &str) -> anyhow::Result<Box<dyn UploadThrottleBackend>> {
        bail!("there is no {name} on a simulated host")
    }

    fn download(&self, name: &str) -> anyhow::Result<Box<dyn DownloadThrottleBackend>> {
        bail!("there is no {name} on a simulated host")
    }
}

/// Counts what is simulated.
struct DemoMonitor {
    demo: Demo,
    looks: u32,
}

impl MonitorBackend for DemoMonitor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        BackendPriority::Fallback
    }

    fn probe(_: &BackendOptions) -> Availability {
        Availability::Available
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let now = match self.demo.clock {
            Clock::Real(start, age) => start.elapsed() + age,
            Clock::Steps(step) => step * self.looks,
        };
        self.looks += 1;
        if self.looks == 3 {
            self.demo.panic_as_told(Part::Monitor);
        }
        let mut world = self.demo.world();
        world.advance(now);
        Ok(world.sample())
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        Ok(())
    }
}
