//! Gives connections the marks of the sockets that send by them.

use std::collections::BTreeMap;

use nix::errno::Errno;

use super::{
    super::{NAME, kernel},
    LOWEST,
};
use crate::{
    backends::{BackendError, Obstacle, throttle::tagger::MARKS},
    sys::{
        netlink::Refusal,
        nft::{self, Bits, Chain, Expression, NewRule, Table},
    },
};

/// How many slots there are, which one of us has alone in a network namespace: all that has a mark of one is its own. It has
/// one by the table of its name.
pub(super) const SLOTS: u16 = 8;
/// How many marks are in each.
const IN_SLOT: u32 = (MARKS / LOWEST + 1) / SLOTS as u32;
/// Where all that is sent goes through, after everybody else's rules: who else gives connections marks has done it by then.
const SENT: Chain<'_> = Chain { name: "sent", hooked_at: Some(i32::MAX) };
/// What has nothing in any other bit is ours, or 0.
const FREE: Bits = Bits { mask: !MARKS, value: 0, is_equal: true };
const NONE: Bits = Bits { mask: MARKS, value: 0, is_equal: true };
const SOME: Bits = Bits { is_equal: false, ..NONE };

/// What leaves with a mark of ours, by a connection that has none or another of ours, gives it to that.
const GIVE: [Expression<'_>; 4] =
    [Expression::Mark(SOME), Expression::Mark(FREE), Expression::ConnectionMark(FREE), Expression::GiveMark];
/// What leaves without one takes ours from its connection.
const TAKE: [Expression<'_>; 4] = [
    Expression::Mark(NONE),
    Expression::ConnectionMark(SOME),
    Expression::ConnectionMark(FREE),
    Expression::TakeMark,
];

/// Connections get marks as long as this is there. It goes with us, whatever ends us; what connections have by then stays
/// with them.
#[derive(Debug)]
pub(super) struct Marking {
    /// By slot.
    tables: BTreeMap<u16, Table>,
}

impl Marking {
    /// With one slot.
    pub(super) fn begin() -> Result<Self, BackendError> {
        let mut marking = Self { tables: BTreeMap::new() };
        if marking
            .take_slot()
            .map_err(|refusal| kernel("make a table that gives connections marks", refusal))?
        {
            return Ok(marking);
        }
        Err(BackendError::Unavailable {
            backend: NAME,
            obstacle: Obstacle::Host {
                cause: format!("{SLOTS} tables that give connections marks are there, and no more than these can be told apart"),
                remedy: "end somebody's download limits (`chadthrottle status` has who holds any), or use another backend"
                    .into(),
            },
        })
    }

    /// Takes one that nobody has. False where there is none.
    pub(super) fn take_slot(&mut self) -> Result<bool, Refusal> {
        for slot in 0..SLOTS {
            if self.tables.contains_key(&slot) {
                continue;
            }
            match make(slot) {
                Ok(table) => {
                    self.tables.insert(slot, table);
                    return Ok(true);
                }
                Err(refusal) if is_taken(&refusal, slot) => {}
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(false)
    }

    /// A slot that is ours.
    pub(super) fn slot(&self) -> u16 {
        self.tables.keys().copied().next().unwrap_or_default()
    }

    /// The marks of our slots.
    pub(super) fn marks(&self) -> Vec<u32> {
        marks(self.tables.keys().copied())
    }
}

/// Whether a slot is somebody else's: to who does not own its table the kernel says that he may not touch it.
fn is_taken(refusal: &Refusal, slot: u16) -> bool {
    let is_there = || nft::tables().is_ok_and(|tables| tables.iter().any(|(_, known)| *known == name(slot)));
    matches!(refusal.errno, Errno::EEXIST | Errno::EPERM) && is_there()
}

fn name(slot: u16) -> String {
    format!("chadthrottle_marks_{slot}")
}

fn marks(slots: impl Iterator<Item = u16>) -> Vec<u32> {
    let numbers = slots.flat_map(|slot| u32::from(slot) * IN_SLOT..(u32::from(slot) + 1) * IN_SLOT);
    numbers.filter(|number| *number > 0).map(|number| number * LOWEST).collect()
}

/// Makes the table of a slot, which gives all of our marks, whoever has set them.
pub(super) fn make(slot: u16) -> Result<Table, Refusal> {
    let rule = |expressions| NewRule { chain: SENT.name, comment: "", expressions };
    Table::create(&name(slot), &[SENT], &[rule(&GIVE), rule(&TAKE)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_share_all_marks_out() {
        let all = marks(0..SLOTS);
        assert_eq!(all.len(), 127);
        assert!(all.iter().all(|mark| mark & !MARKS == 0 && *mark != 0));
        assert_eq!(marks([1].into_iter()).first(), Some(&0x1000_0000));
        assert_eq!(marks([0].into_iter()).len(), 15, "0 is no mark");
    }
}
