//! One socket with its tag.

use std::{io, os::fd::RawFd};

use super::super::MARKS;
use crate::{
    backends::throttle::{
        flow::members::Members,
        guard::{Guard, Note, OriginalTags, Replaced},
    },
    sys::socket_tag::{Field, TaggedSocket},
};

/// A socket with its tag.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) cookie: u64,
    pub(super) inode: u32,
    /// Which processes have it open, and as what.
    pub(super) holders: Vec<(i32, RawFd)>,
    pub(super) options: Vec<Set>,
}

/// An option, as it is and as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Set {
    pub(super) field: Field,
    pub(super) value: u32,
    pub(super) original: u32,
}

impl Socket {
    /// What was there before our tag.
    pub(super) fn originals(&self) -> OriginalTags {
        let of = |field| {
            let mut options = self.options.iter();
            let Set { value, original, .. } = *options.find(|option| option.field == field)?;
            Some(Replaced { value, original })
        };
        OriginalTags { priority: of(Field::Priority), mark: of(Field::Mark) }
    }

    /// Tells the guard what is to be put back.
    pub(super) fn tell(&self, guard: Option<&Guard>, originals: OriginalTags) {
        // One that has ended puts nothing back; the next check starts another.
        let _ = guard.map(|guard| guard.note(&Note::tags(self.cookie, self.inode, originals)));
    }

    /// Leaves it to the guard: whom we had it from has it no more.
    pub(super) fn leave_to(&self, guard: Option<&Guard>) {
        let note = Note::tags(self.cookie, self.inode, self.originals()).lost();
        let _ = guard.map(|guard| guard.note(&note));
    }

    /// To be dropped at once. None where nobody has it any more.
    pub(super) fn duplicate(&self, members: &Members) -> Option<TaggedSocket> {
        // The descriptor may be another socket's by now.
        self.holders.iter().find_map(|&(pid, fd)| {
            let duplicate = TaggedSocket::new(members.get(pid)?.duplicate_any(fd).ok()?)?;
            (duplicate.cookie().ok()? == self.cookie).then_some(duplicate)
        })
    }

    /// Puts back what was there, but for what the application has set itself meanwhile. What cannot be put back from here
    /// is left to the guard: the socket may be elsewhere, or we without a descriptor.
    pub(super) fn restore(&self, members: &Members, guard: Option<&Guard>) {
        let put_back = |duplicate: TaggedSocket| {
            self.options.iter().try_for_each(|option| {
                if duplicate.field(option.field)? == option.value {
                    duplicate.set_field(option.field, option.original)?;
                }
                Ok::<(), io::Error>(())
            })
        };
        match self.duplicate(members).map(put_back) {
            Some(Ok(())) => self.tell(guard, OriginalTags::default()),
            Some(Err(error)) => {
                log::debug!("a socket refuses to give up its tag: {error}");
                self.leave_to(guard);
            }
            None => self.leave_to(guard),
        }
    }
}

/// What is to be put back in the end of what a socket was found with. None where that has to stay. One that was accepted
/// has inherited its mark, so that ours was 0 before.
pub(super) const fn original(field: Field, found: u32) -> Option<u32> {
    match field {
        Field::Priority => Some(found),
        Field::Mark if found & !MARKS == 0 => Some(0),
        Field::Mark => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_of_somebody_elses_stays() {
        assert_eq!(original(Field::Priority, 6), Some(6));
        assert_eq!(original(Field::Mark, 0), Some(0));
        assert_eq!(original(Field::Mark, 0x1200_0000), Some(0), "inherited from a socket that listens");
        for theirs in [1, 0xca6c, 0x8000_0000, 0x7f00_0001, u32::MAX] {
            assert_eq!(original(Field::Mark, theirs), None, "{theirs:#x}");
        }
    }
}
