//! What the guard is told: a note of fixed length each, so that a pipe carries it whole or not at all.

/// What a socket's flow control is without us. We only ever make it less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backends::throttle) struct Originals {
    /// The pacing rate, where we set one.
    pub(in crate::backends::throttle) pacing: Option<u64>,
    /// How far its window opens, and whether its buffer is to be unlocked, where we set that.
    pub(in crate::backends::throttle) window: Option<(u32, bool)>,
}

/// A number that we put in the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backends::throttle) struct Replaced {
    /// Ours.
    pub(in crate::backends::throttle) value: u32,
    /// What was there.
    pub(in crate::backends::throttle) original: u32,
}

/// What a socket's packets carry without us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::backends::throttle) struct OriginalTags {
    /// The priority, where we set one.
    pub(in crate::backends::throttle) priority: Option<Replaced>,
    /// The mark, where we set one.
    pub(in crate::backends::throttle) mark: Option<Replaced>,
}

/// What is to be put back of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backends::throttle) enum Kept {
    /// Its flow control; nothing, when we have done it ourselves.
    Flow(Originals),
    /// What its packets carry; likewise.
    Tags(OriginalTags),
}

/// Something that the guard is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::backends::throttle) enum Note {
    /// A socket has, or is about to have, options of ours.
    Socket {
        cookie: u64,
        inode: u32,
        kept: Kept,
        /// We cannot find it any more: it is to be put back now, if anybody has it.
        is_lost: bool,
    },
    /// Whether there is something in the journal that is to be undone when we end.
    Journal(bool),
}

/// The upper half is who tells it.
const KIND: u32 = 3;
const FLOW: u32 = 0;
const TAGS: u32 = 1;
const JOURNAL: u32 = 2;
const LOST: u32 = 4;
/// Of flow: paced, clamped, to be unlocked. Of tags: priority, mark. Of the journal: there is something.
const FIRST: u32 = 8;
const SECOND: u32 = 16;
const UNLOCK: u32 = 32;

const fn flag(is_set: bool, flag: u32) -> u32 {
    if is_set { flag } else { 0 }
}

impl Note {
    /// In bytes. Shorter than `PIPE_BUF` (pipe(7)).
    pub(super) const LENGTH: usize = 32;

    /// As it is sent: flags and who tells it, inode, cookie, and two times 64 bits of what is to be put back.
    pub(super) fn bytes(&self, author: u16) -> [u8; Self::LENGTH] {
        let (flags, inode, cookie, first, second) = match *self {
            Self::Socket { cookie, inode, kept, is_lost } => {
                let (flags, first, second) = kept.parts();
                (flags | flag(is_lost, LOST), inode, cookie, first, second)
            }
            Self::Journal(is_there) => (JOURNAL | flag(is_there, FIRST), 0, 0, 0, 0),
        };
        let mut bytes = [0; Self::LENGTH];
        let flags = flags | u32::from(author) << 16;
        bytes[..4].copy_from_slice(&flags.to_ne_bytes());
        bytes[4..8].copy_from_slice(&inode.to_ne_bytes());
        for (place, value) in bytes[8..].chunks_exact_mut(8).zip([cookie, first, second]) {
            place.copy_from_slice(&value.to_ne_bytes());
        }
        bytes
    }

    /// Who tells it, and what. None where it is nothing that we send.
    pub(super) fn read(bytes: &[u8; Self::LENGTH]) -> Option<(u16, Self)> {
        let short = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let long = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let (flags, inode, cookie) = (short(0)?, short(4)?, long(8)?);
        let (first, second) = (long(16)?, long(24)?);
        let author = u16::try_from(flags >> 16).ok()?;
        let kept = match flags & KIND {
            FLOW => Kept::Flow(Originals {
                pacing: (flags & FIRST != 0).then_some(first),
                window: (flags & SECOND != 0).then(|| (halves(second).0, flags & UNLOCK != 0)),
            }),
            TAGS => Kept::Tags(OriginalTags {
                priority: (flags & FIRST != 0).then(|| Replaced::read(first)),
                mark: (flags & SECOND != 0).then(|| Replaced::read(second)),
            }),
            JOURNAL => return Some((author, Self::Journal(flags & FIRST != 0))),
            _ => return None,
        };
        Some((author, Self::Socket { cookie, inode, kept, is_lost: flags & LOST != 0 }))
    }
}

impl Kept {
    /// Flags, and what they are about.
    fn parts(self) -> (u32, u64, u64) {
        match self {
            Self::Flow(Originals { pacing, window }) => {
                let flags = flag(pacing.is_some(), FIRST)
                    | flag(window.is_some(), SECOND)
                    | flag(window.is_some_and(|(_, unlock)| unlock), UNLOCK);
                let window = window.map_or(0, |(bytes, _)| joined(bytes, 0));
                (FLOW | flags, pacing.unwrap_or_default(), window)
            }
            Self::Tags(OriginalTags { priority, mark }) => {
                let flags = flag(priority.is_some(), FIRST) | flag(mark.is_some(), SECOND);
                let word = |tag: Option<Replaced>| {
                    tag.map_or(0, |replaced| joined(replaced.value, replaced.original))
                };
                (TAGS | flags, word(priority), word(mark))
            }
        }
    }
}

impl Replaced {
    fn read(word: u64) -> Self {
        let (value, original) = halves(word);
        Self { value, original }
    }
}

fn joined(low: u32, high: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

/// The lower one and the upper one.
#[expect(clippy::cast_possible_truncation, reason = "that is what a half is")]
const fn halves(word: u64) -> (u32, u32) {
    (word as u32, (word >> 32) as u32)
}

/// What the guard takes for a note is one.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for bytes in bytes.as_chunks().0 {
        if let Some((author, note)) = Note::read(bytes) {
            assert_eq!(Note::read(&note.bytes(author)), Some((author, note)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let replaced = |value, original| Some(Replaced { value, original });
        let kept = [
            Kept::Flow(Originals { pacing: Some(u64::MAX), window: Some((70_000, true)) }),
            Kept::Flow(Originals { pacing: None, window: Some((u32::MAX, false)) }),
            Kept::Flow(Originals::default()),
            Kept::Tags(OriginalTags { priority: replaced(0x7cad_0001, 6), mark: replaced(1, u32::MAX) }),
            Kept::Tags(OriginalTags { priority: None, mark: replaced(0, 0) }),
            Kept::Tags(OriginalTags::default()),
        ];
        for kept in kept {
            for is_lost in [true, false] {
                let note = Note::Socket { cookie: u64::MAX - 1, inode: 7, kept, is_lost };
                assert_eq!(Note::read(&note.bytes(u16::MAX)), Some((u16::MAX, note)));
            }
        }
        assert_eq!(Note::read(&[0xff; Note::LENGTH]), None);
    }

    #[test]
    fn so_is_what_is_said_of_the_journal() {
        for note in [Note::Journal(true), Note::Journal(false)] {
            assert_eq!(Note::read(&note.bytes(u16::MAX)), Some((u16::MAX, note)));
        }
    }
}
