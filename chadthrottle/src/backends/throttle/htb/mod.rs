//! HTB queues with a class for each target, for whichever backend brings packets to them: `shape` decides on parameters,
//! and is pure; `device` is one queue, `limited` one target with its classes.

mod device;
mod limited;
mod shape;

pub(crate) use device::{Device, drain, stats_of};
pub(crate) use limited::{HtbError, Limited, failed, unnoted};
pub(crate) use shape::AIM;

use std::{fs, ops::Range, path::Path};

use crate::sys::tc::Handle;

/// The first number of a class, and the last.
const MINORS: Range<u16> = 1..u16::MAX;
/// And the first one among those of others.
#[cfg(feature = "throttle-tc-htb")]
const FAR: u16 = 0xcad1;

/// Numbers for the classes of a queue: as late as possible one again that somebody may remember.
#[derive(Debug)]
pub(crate) struct Classes {
    root: Handle,
    next: u16,
}

impl Classes {
    pub(crate) const fn of(root: Handle) -> Self {
        Self { root, next: MINORS.start }
    }

    /// Those of a queue where others have theirs: far from what people choose.
    #[cfg(feature = "throttle-tc-htb")]
    pub(crate) const fn among_others(root: Handle) -> Self {
        Self { root, next: FAR }
    }

    /// The number of the queue.
    #[cfg(feature = "throttle-tc-htb")]
    pub(crate) const fn root(&self) -> Handle {
        self.root
    }

    /// The next number that nobody has.
    pub(crate) fn free(&mut self, is_taken: impl Fn(Handle) -> bool) -> Result<Handle, HtbError> {
        for _ in MINORS {
            let class = Handle::new(self.root.major(), self.next);
            self.next = if self.next + 1 < MINORS.end { self.next + 1 } else { MINORS.start };
            if !is_taken(class) {
                return Ok(class);
            }
        }
        Err(HtbError::Obstacle("an HTB queue has no more than 65,534 classes".into()))
    }
}

/// Whether this kernel may have HTB, as far as can be told without making one.
pub(crate) fn is_in_kernel() -> bool {
    // Also where it is built in, because it has a parameter.
    Path::new("/sys/module/sch_htb").exists() || may_have_module("sch_htb")
}

/// Whether there is a module of that name, or what it has is built in, as far as can be told: in a container the lists of
/// the host are not to be seen.
pub(crate) fn may_have_module(name: &str) -> bool {
    let Ok(release) = fs::read_to_string("/proc/sys/kernel/osrelease") else { return true };
    let directory = Path::new("/lib/modules").join(release.trim());
    let lists = ["modules.dep", "modules.builtin"].map(|list| fs::read_to_string(directory.join(list)));
    let file = format!("/{name}.ko");
    lists.iter().all(Result::is_err) || lists.iter().flatten().any(|list| list.contains(&file))
}
