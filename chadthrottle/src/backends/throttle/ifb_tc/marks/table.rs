//! Gives connections the marks of the sockets that send by them.

use nix::errno::Errno;

use super::super::{NAME, kernel};
use crate::{
    backends::{BackendError, Obstacle, throttle::tagger::MARKS},
    sys::{
        netlink::Refusal,
        nft::{Bits, Chain, Expression, NewRule, Table},
    },
};

/// The same for all of us, so that there is one in a network namespace: two would take each other's marks away.
const TABLE: &str = "chadthrottle_marks";
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
pub(super) struct Marking(#[expect(dead_code, reason = "it is held, not used")] Table);

impl Marking {
    pub(super) fn begin() -> Result<Self, BackendError> {
        Self::make().map_err(|refusal| match refusal.errno {
            Errno::EEXIST => BackendError::Unavailable {
                backend: NAME,
                obstacle: Obstacle::Host {
                    cause: format!(
                        "another program has the table {TABLE} here, and two cannot give connections marks"
                    ),
                    remedy: "end its download limits (`chadthrottle status` has who it is), or use another backend"
                        .into(),
                },
            },
            _ => kernel("make a table that gives connections marks", refusal),
        })
    }

    pub(super) fn make() -> Result<Self, Refusal> {
        let rule = |expressions| NewRule { chain: SENT.name, comment: "", expressions };
        Table::create(TABLE, &[SENT], &[rule(&GIVE), rule(&TAKE)]).map(Self)
    }
}
