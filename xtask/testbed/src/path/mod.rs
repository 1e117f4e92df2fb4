//! A path with a length: delay, rate, queue and loss, for each direction, where the bed has a plain link otherwise.
//!
//! ```text
//!   client ── router  ctrserver ═ this process ═ ctserver  server
//! ```
//!
//! The link between router and server is a pair of TUN devices, and threads of this process carry packets from one to
//! the other. The kernels that tests run on have no `netem`; and this takes super-packets as they are (one read
//! carries up to 64 KB), so that it costs little of two CPUs which the traffic itself needs too.
//!
//! What is counted is IP bytes and segments: a super-packet takes as long as all that it stands for, each of its
//! segments may be lost by itself, and where the rate is low it arrives in parts.

mod device;
mod emulator;
mod packet;
mod queues;
mod random;
mod wire;

use std::time::Duration;

pub use emulator::Carried;
pub(crate) use emulator::{Emulator, End};
pub(crate) use queues::Queues;

/// One direction of a path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// From the moment when a packet has left the queue to its arrival.
    pub delay: Duration,
    /// IP bytes a second; none is as fast as the machine goes.
    pub rate: Option<u64>,
    /// IP bytes that may wait for their turn at that rate; what comes on top is dropped.
    pub queue: u64,
    /// The share of segments that is lost, 0 to 1, each by chance, before the queue.
    pub loss: f64,
}

impl Link {
    /// Delay alone.
    #[must_use]
    pub const fn delay(delay: Duration) -> Self {
        Self { delay, rate: None, queue: u64::MAX, loss: 0.0 }
    }
}

/// Both directions.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Path {
    /// From the client, by the router, to the server.
    pub to_server: Link,
    /// The other way.
    pub to_client: Link,
    /// What chance begins with: the same seed and the same packets lose the same.
    pub seed: u64,
}

impl Path {
    /// A path with this round trip, half of it each way, that loses nothing.
    #[must_use]
    pub fn round_trip(time: Duration) -> Self {
        let link = Link::delay(time / 2);
        Self { to_server: link, to_client: link, seed: 1 }
    }

    /// The longer of the two delays.
    pub(crate) fn delay(&self) -> Duration {
        self.to_server.delay.max(self.to_client.delay)
    }

    /// The same path, losing a share of the segments in each direction.
    #[must_use]
    pub fn loss(mut self, share: f64) -> Self {
        self.to_server.loss = share;
        self.to_client.loss = share;
        self
    }

    /// The same path at so many IP bytes a second in each direction, with a queue of so many before it.
    #[must_use]
    pub fn rate(mut self, rate: u64, queue: u64) -> Self {
        for link in [&mut self.to_server, &mut self.to_client] {
            (link.rate, link.queue) = (Some(rate), queue);
        }
        self
    }
}
