//! Takes a mark away that nobody sets any more.

use super::super::super::tagger::MARKS;
use crate::sys::{
    conntrack,
    pidfd::PidFd,
    proc_fd,
    socket_tag::{Field, TaggedSocket},
};

/// From the connections that have it. Where that cannot be done, a table does it with what they send next, or they have it to
/// their ends: without our filters it means nothing.
pub(super) fn connections(mark: u32) {
    match conntrack::take_mark(mark, MARKS) {
        Ok(count) => log::debug!("{count} connections had the mark {mark:#x}"),
        Err(refusal) => log::debug!("connections may keep the mark {mark:#x}: {refusal}"),
    }
}

/// From all sockets of this network namespace that have it, of one that was killed: its guard, if that is still there, finds
/// nothing left to do with them.
pub(super) fn sockets(mark: u32) {
    let here = TaggedSocket::own_network();
    for pid in proc_fd::pids().into_iter().flatten() {
        let (Ok(process), Ok(sockets)) = (PidFd::open(pid), proc_fd::sockets(pid)) else { continue };
        for (fd, _) in sockets {
            let Some(socket) = process.duplicate(fd).ok().and_then(TaggedSocket::new) else { continue };
            if socket.field(Field::Mark).is_ok_and(|found| found == mark) && socket.network() == here {
                let _ = socket.set_field(Field::Mark, 0);
            }
        }
    }
}
