//! Setting the options of a socket as its controllers want them, with the guard told, and putting them back.

use super::{
    control::{Open, Pace},
    held::{Clamp, Pacing},
    limit::Limit,
    members::Members,
    socket::Socket,
};
use crate::backends::throttle::guard::Guard;

/// Sets a socket to what its controllers want, where that is not what it is set to.
pub(super) fn apply(
    socket: &mut Socket,
    members: &Members,
    guard: Option<&Guard>,
    upload: Option<&Limit<Pace>>,
    download: Option<&Limit<Open>>,
) {
    let cookie = socket.cookie();
    let rate = upload.and_then(|limit| limit.control.value(cookie));
    let window = download.and_then(|limit| limit.control.value(cookie));
    let window = window.map(|window| u32::try_from(window).unwrap_or(u32::MAX));
    let pace_is_set = rate.is_none_or(|rate| is_paced(socket, rate));
    let window_is_set = window.is_none_or(|window| {
        socket.window == window
            && socket.clamp.as_ref().is_some_and(|clamp| !clamp.may_be_undone(socket.info()))
    });
    if pace_is_set && window_is_set {
        return;
    }
    socket.with(members, |socket, duplicate| {
        let info = duplicate.info()?;
        if rate.is_some() && socket.pacing.is_none() {
            socket.pacing = Some(Pacing::new(&info));
        }
        if window.is_some() && socket.clamp.is_none() {
            socket.clamp = Some(Clamp::new(duplicate)?);
        }
        // Before anything is set. What the application has set meanwhile is told after it was seen.
        socket.tell(guard)?;
        if let (Some(rate), Some(pacing)) = (rate, &mut socket.pacing) {
            pacing.apply(duplicate, &info, rate)?;
        }
        if let (Some(window), Some(clamp)) = (window, &mut socket.clamp) {
            clamp.apply(duplicate, window)?;
            socket.window = window;
        }
        socket.tell(guard)
    });
}

/// Whether it is as good as paced at this rate.
fn is_paced(socket: &Socket, rate: u64) -> bool {
    let current = socket.info().max_pacing_rate;
    socket.pacing.is_some() && current.abs_diff(rate) <= rate / 200
}

/// Puts the pacing back.
pub(super) fn restore_pacing(socket: &mut Socket, members: &Members, guard: Option<&Guard>) {
    let Some(mut pacing) = socket.pacing.take() else { return };
    let restored = socket.with(members, |_, duplicate| pacing.restore(duplicate, &duplicate.info()?));
    told_of_restored(socket, restored, guard);
}

/// Puts the window and the lock back.
pub(super) fn restore_window(socket: &mut Socket, members: &Members, guard: Option<&Guard>) {
    let Some(mut clamp) = socket.clamp.take() else { return };
    socket.window = u32::MAX;
    let restored = socket.with(members, |_, duplicate| clamp.restore(duplicate));
    told_of_restored(socket, restored, guard);
}

/// What could not be put back here may still be open elsewhere.
fn told_of_restored(socket: &mut Socket, restored: Option<()>, guard: Option<&Guard>) {
    if restored.is_none() {
        socket.leave_to(guard);
    } else if let Err(error) = socket.tell(guard) {
        log::debug!("the guard has ended: {error}");
    }
}
