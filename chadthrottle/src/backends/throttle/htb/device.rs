//! One interface with a queue of ours, and the classes of targets in it.

use std::{thread, time::Duration};

use nix::errno::Errno;

use super::shape::{self, Kinds, Lengths};
use crate::sys::{
    links::Link,
    netlink::{Netlink, Refusal},
    tc::{self, Handle, HtbClass, HtbRoot, Leaf, Stats},
};

/// Least packets of what is not limited that may wait, as most interfaces have it.
const DIRECT_QUEUE: u32 = 1000;
const ALL_KINDS: Kinds = Kinds { fair: true, splitting: true };
/// What a class is opened to before it is taken away, so that what stands in it leaves: 100 Gbit/s.
const OPEN: HtbClass = HtbClass { rate: 12_500_000_000, burst: 1 << 30, quantum: 60_000 };
/// How long that may take, and how often to look. What a class was in debt by it has to wait for.
const DRAIN: Duration = Duration::from_millis(300);
/// The same where the queue goes at once with the program: a super-packet at 100 KB/s is a debt of 0.7 s.
const LAST_DRAIN: Duration = Duration::from_millis(700);
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// An interface that has our queue.
#[derive(Debug)]
pub(crate) struct Device {
    pub(crate) link: Link,
    /// What the kernel has for the leaves; as long as that is not known it is tried.
    kinds: Kinds,
    /// By what its classes are known to be ours.
    signature: u32,
    /// Whether the queue is somebody else's, and the classes alone are ours.
    #[cfg(feature = "throttle-tc-htb")]
    pub(crate) is_shared: bool,
}

/// What a target has on a device.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    /// The part of its limit, in IP bytes a second.
    pub(crate) part: u64,
    class: HtbClass,
    leaf: Leaf,
    lengths: Lengths,
    /// What had passed at the last look.
    pub(crate) stats: Stats,
    /// IP bytes since somebody asked.
    pub(crate) sent: u64,
}

impl Device {
    /// Gives an interface a queue of ours with this number, which nothing is limited by yet.
    pub(crate) fn claim(
        netlink: &mut Netlink,
        link: &Link,
        root: Handle,
        signature: u32,
    ) -> Result<Self, Refusal> {
        let direct_queue = link.queue_len.max(DIRECT_QUEUE);
        tc::add_root(netlink, link.index, root, HtbRoot { direct_queue, signature })?;
        Ok(Self {
            link: link.clone(),
            kinds: ALL_KINDS,
            signature,
            #[cfg(feature = "throttle-tc-htb")]
            is_shared: false,
        })
    }

    /// Takes an interface for one where classes are made in the HTB queue that somebody else gave it.
    #[cfg(feature = "throttle-tc-htb")]
    pub(crate) fn share(link: &Link, signature: u32) -> Self {
        Self { link: link.clone(), kinds: ALL_KINDS, signature, is_shared: true }
    }

    /// Makes a class for a target.
    pub(crate) fn add(&mut self, netlink: &mut Netlink, class: Handle, part: u64) -> Result<Place, Refusal> {
        let lengths = Lengths::new(&self.link);
        let shape = shape::class(part, &self.link, lengths);
        tc::add_class(netlink, self.link.index, class, shape, self.signature)?;
        match self.set_leaf(netlink, class, part, None) {
            Ok(leaf) => Ok(Place { part, class: shape, leaf, lengths, stats: Stats::default(), sent: 0 }),
            Err(refusal) => {
                let _ = tc::delete_class(netlink, self.link.index, class);
                Err(refusal)
            }
        }
    }

    /// Changes the part of the limit that a target has here.
    pub(crate) fn change(
        &mut self,
        netlink: &mut Netlink,
        class: Handle,
        place: &mut Place,
        part: u64,
    ) -> Result<(), Refusal> {
        let shape = shape::class(part, &self.link, place.lengths);
        tc::set_class(netlink, self.link.index, class, shape, self.signature)?;
        let leaf = self.set_leaf(netlink, class, part, Some(place.leaf))?;
        (place.part, place.class, place.leaf) = (part, shape, leaf);
        Ok(())
    }

    fn set_leaf(
        &mut self,
        netlink: &mut Netlink,
        class: Handle,
        part: u64,
        before: Option<Leaf>,
    ) -> Result<Leaf, Refusal> {
        loop {
            let leaf = shape::leaf(part, &self.link, self.kinds, before);
            let Err(refusal) = tc::set_leaf(netlink, self.link.index, class, leaf) else { return Ok(leaf) };
            let (lacks, has) = match leaf {
                Leaf::Segments { .. } => ("tbf; super-packets stay whole", &mut self.kinds.splitting),
                Leaf::FairQueue { .. } => ("fq_codel; what waits there waits in order", &mut self.kinds.fair),
                Leaf::Fifo { .. } | Leaf::Blackhole => return Err(refusal),
            };
            if refusal.errno != Errno::ENOENT {
                return Err(refusal);
            }
            log::debug!("{}: this kernel has no {lacks}", self.link.name);
            *has = false;
        }
    }

    /// Takes in what a class has counted, and makes its rate what its packets are long.
    pub(crate) fn count(
        &self,
        netlink: &mut Netlink,
        class: Handle,
        place: &mut Place,
        stats: Stats,
    ) -> Result<(), Refusal> {
        let before = std::mem::replace(&mut place.stats, stats);
        let (bytes, packets) =
            (stats.bytes - before.bytes.min(stats.bytes), stats.packets - before.packets.min(stats.packets));
        place.sent += shape::ip_bytes(Stats { bytes, packets, ..stats }, &self.link);
        place.lengths.count(bytes, packets);
        let shape = shape::class(place.part, &self.link, place.lengths);
        if place.part > 0 && !shape::is_close(shape, place.class) {
            tc::set_class(netlink, self.link.index, class, shape, self.signature)?;
            place.class = shape;
        }
        Ok(())
    }

    /// Takes the class of a target away, once what stands in it has left. Says what had passed.
    pub(crate) fn remove(
        &self,
        netlink: &mut Netlink,
        class: Handle,
        place: &Place,
    ) -> Result<Stats, Refusal> {
        let mut stats = place.stats;
        let mut open = || tc::set_class(netlink, self.link.index, class, OPEN, self.signature);
        if place.part > 0 && open().is_ok() {
            let mut left = DRAIN;
            while let Some(now) = stats_of(&tc::classes(netlink, self.link.index)?, class) {
                stats = now;
                if now.queued == 0 || left.is_zero() {
                    break;
                }
                thread::sleep(DRAIN_LOOK);
                left = left.saturating_sub(DRAIN_LOOK);
            }
        }
        tc::delete_class(netlink, self.link.index, class)?;
        Ok(stats)
    }
}

/// Opens these classes of an interface's queue, and waits for what stands in them to leave: what is lost with them has
/// to be sent again, and where that was all that was on its way, not before a timer of up to seconds has run out.
pub(crate) fn drain(
    netlink: &mut Netlink,
    interface: u32,
    classes: &[Handle],
    signature: u32,
) -> Result<(), Refusal> {
    for class in classes {
        tc::set_class(netlink, interface, *class, OPEN, signature)?;
    }
    let stands = |class: &tc::Class| class.stats.queued > 0 && classes.contains(&class.handle);
    let mut left = LAST_DRAIN;
    while tc::classes(netlink, interface)?.iter().any(stands) && !left.is_zero() {
        thread::sleep(DRAIN_LOOK);
        left = left.saturating_sub(DRAIN_LOOK);
    }
    Ok(())
}

/// What a class has counted.
pub(crate) fn stats_of(classes: &[tc::Class], handle: Handle) -> Option<Stats> {
    classes.iter().find(|class| class.handle == handle).map(|class| class.stats)
}
