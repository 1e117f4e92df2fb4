//! What this thread has taken of CPUs, and how soon it gets one.

use std::{io, time::Duration};

use nix::{
    libc,
    time::{ClockId, clock_gettime},
};

/// The nice value of who is preferred.
const PREFERRED: libc::c_int = -10;

/// So far. Time in which others ran is not in it.
#[must_use]
pub fn of_this_thread() -> Duration {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from).unwrap_or_default()
}

/// Lets this thread have a CPU sooner than others.
///
/// # Errors
/// `EACCES` without `CAP_SYS_NICE`.
pub fn prefer_this_thread() -> io::Result<()> {
    // SAFETY: it takes numbers. On Linux 0 is the calling thread here, not its process (setpriority(2), "C
    // library/kernel differences").
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, PREFERRED) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
