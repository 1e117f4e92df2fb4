//! Packets known by the mark of their connection, without any program in the kernel.
//!
//! - The sockets of a target carry a mark, which a [tagger](SocketTagger) sets.
//! - A rule of our own table gives it to the connection of what they send, where that has none but ours (`table`).
//! - At the entrance of interfaces one filter takes it from there to what arrives, and one for each target sends what has its
//!   mark to the IFB (`filters`).
//!
//! What others have set is never written over: neither a socket's mark, nor a connection's, nor a packet's.

mod filters;
mod table;
mod trial;
mod unmark;

pub(in crate::backends::throttle) use self::filters::FILTERS;
pub(super) use self::trial::obstacle;

use std::{collections::BTreeMap, time::Duration};

use chadthrottle_common::ThrottleStats;

use self::{filters::Filters, table::Marking};
use super::{
    NAME, Sender, kernel,
    queue::{Queue, Way},
};
use crate::{
    backends::{
        BackendError, BackendOptions,
        throttle::{
            Subject, Target,
            entrances::{Entrances, remove_leftovers},
            flow::{self, Direction, SharedFlow},
            tagger::{MARKS, SocketTagger, Tag, Tagger, untaggable},
        },
    },
    sys::tc::marks::Filter,
};

/// How `--list-backends` calls it.
pub(super) const TAGGER: &str = "marks of connections (socket options)";
/// The lowest of our bits.
const LOWEST: u32 = 1 << MARKS.trailing_zeros();

/// Marks of connections.
pub(super) struct Marks {
    options: BackendOptions,
    flow: SharedFlow,
    tagger: SocketTagger,
    /// As long as there are limits.
    at_work: Option<AtWork>,
    given: BTreeMap<Subject, u32>,
    /// The one that was given last.
    last: u32,
}

/// What there is of the kernel's. The filters go first: without the table their marks do not change any more.
struct AtWork {
    entrances: Entrances<Filters>,
    marking: Marking,
}

impl Marks {
    /// With flow control (guarded) in front.
    pub(super) fn new(options: &BackendOptions, flow: &SharedFlow) -> Self {
        Self {
            options: options.clone(),
            flow: flow.clone(),
            tagger: SocketTagger::default(),
            at_work: None,
            given: BTreeMap::new(),
            last: 0,
        }
    }

    fn at_work(&mut self, queue: &Queue) -> Result<&mut AtWork, BackendError> {
        let at_work = match self.at_work.take() {
            Some(at_work) => at_work,
            None => AtWork::begin(&self.options, queue)?,
        };
        Ok(self.at_work.insert(at_work))
    }
}

impl AtWork {
    fn begin(options: &BackendOptions, queue: &Queue) -> Result<Self, BackendError> {
        let marking = Marking::begin()?;
        // Of one that had the slot until now.
        remove_leftovers(NAME)?;
        let filters = Filters::new(marking.slot(), queue.made())
            .map_err(|error| kernel("know the number of this process", error))?;
        Ok(Self { entrances: Entrances::open(NAME, options, filters)?, marking })
    }

    /// A mark that no target has.
    fn free_mark(&mut self, last: u32, taken: &[u32], target: &Target) -> Result<u32, BackendError> {
        if let Some(mark) = next_mark(&self.marking.marks(), last, taken) {
            return Ok(mark);
        }
        let has_more = self.marking.take_slot().map_err(|refusal| kernel("make another table", refusal))?;
        let mark = if has_more { next_mark(&self.marking.marks(), last, taken) } else { None };
        mark.ok_or_else(|| BackendError::Unenforceable {
            backend: NAME,
            subject: target.subject.clone(),
            reason: "its connections would need a mark, and all 127 are taken; ebpf_cgroup has no such bound"
                .into(),
        })
    }
}

/// The mark after the last one that was given which is free: as late as possible one again that connections may have.
fn next_mark(marks: &[u32], last: u32, taken: &[u32]) -> Option<u32> {
    let free = || marks.iter().copied().filter(|mark| !taken.contains(mark));
    free().find(|mark| *mark > last).or_else(|| free().next())
}

impl Sender for Marks {
    fn init(&mut self) -> Result<(), BackendError> {
        Ok(())
    }

    fn check(&self, target: &Target) -> Result<(), BackendError> {
        self.tagger.check(NAME, target)
    }

    fn slow_down(&mut self, target: &Target, limit: u64) -> Duration {
        flow::slow_down(&self.flow, target, Direction::Download, limit, &self.options, || true);
        // All that a mark is on waits in the queue, however long ago it was promised.
        Duration::ZERO
    }

    fn send(
        &mut self,
        target: &Target,
        _: u64,
        _: Duration,
        queue: &Queue,
        way: Way,
    ) -> Result<(), BackendError> {
        let subject = &target.subject;
        if self.given.contains_key(subject) {
            return Ok(());
        }
        let (last, taken): (_, Vec<u32>) = (self.last, self.given.values().copied().collect());
        let at_work = self.at_work(queue)?;
        let mark = at_work.free_mark(last, &taken, target)?;
        let redirect = Filter::Redirect { mark, class: way.class, to: way.interface };
        at_work
            .entrances
            .with(|filters, netlink| filters.set(netlink, mark, redirect))
            .unwrap_or(Ok(()))
            .map_err(|refusal| kernel("set a filter", refusal))?;
        self.given.insert(subject.clone(), mark);
        self.last = mark;
        let tag = Tag { priority: None, mark: Some(mark) };
        self.tagger.tag(target, tag).map_err(|error| untaggable(NAME, subject, error))
    }

    fn free(&mut self, subject: &Subject) -> Result<(), BackendError> {
        let Some(mark) = self.given.remove(subject) else { return Ok(()) };
        let untagged = self.tagger.untag(subject);
        let untagged = untagged.map_err(|error| kernel("put back what sockets were marked with", error));
        let removed = self
            .at_work
            .as_ref()
            .and_then(|at_work| at_work.entrances.with(|filters, netlink| filters.remove(netlink, mark)));
        let removed = removed.unwrap_or(Ok(())).map_err(|refusal| kernel("remove a filter", refusal));
        unmark::connections(mark);
        BackendError::all_of([untagged, removed])
    }

    fn release(&mut self, subject: &Subject) {
        self.flow.release(subject, Direction::Download);
    }

    fn leave(&mut self) {
        self.at_work = None;
    }

    fn passed(&self, _: &Subject) -> Result<ThrottleStats, BackendError> {
        Ok(ThrottleStats::default())
    }

    fn maintain(&mut self) -> Result<(), BackendError> {
        self.tagger.maintain()
    }
}

impl Drop for Marks {
    /// Also where nobody cleans up.
    fn drop(&mut self) {
        self.flow.release_all(Direction::Download);
    }
}

#[cfg(test)]
mod tests {
    use super::next_mark;

    #[test]
    fn a_mark_is_given_again_as_late_as_possible() {
        let marks = [1, 2, 3];
        assert_eq!(next_mark(&marks, 0, &[]), Some(1));
        assert_eq!(next_mark(&marks, 1, &[]), Some(2));
        assert_eq!(next_mark(&marks, 3, &[1]), Some(2));
        assert_eq!(next_mark(&marks, 2, &[3]), Some(1));
        assert_eq!(next_mark(&marks, 2, &marks), None);
    }
}
