//! Waiting for something to become true, bounded, instead of sleeping and hoping.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::emulated;

/// How long to rest between two looks. Short, because tests wait for things that take a few milliseconds.
const INTERVAL: Duration = Duration::from_millis(2);

/// Calls `look` until it returns a value, and returns that. Under emulation it may take a multiple of `timeout`.
///
/// # Errors
///
/// What `look` failed with, or that `what` did not happen within `timeout`.
pub fn until<T>(
    what: &str,
    timeout: Duration,
    mut look: impl FnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<T> {
    let timeout = emulated::patience(timeout);
    let deadline = Instant::now() + timeout;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            bail!("waited {timeout:?} in vain: {what}");
        }
        std::thread::sleep(INTERVAL);
    }
}
