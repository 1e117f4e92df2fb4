//! Waiting at one end of a pipe, and what is at the other.

use std::{io, os::fd::AsFd, time::Duration};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether anybody still has the end that is read from open.
#[must_use]
pub fn has_reader(writing_end: &impl AsFd) -> bool {
    // Of errors and hang-ups one is told without asking.
    let mut fds = [PollFd::new(writing_end.as_fd(), PollFlags::empty())];
    match poll(&mut fds, PollTimeout::ZERO) {
        Ok(_) => !fds[0].revents().unwrap_or(PollFlags::empty()).contains(PollFlags::POLLERR),
        Err(error) => error == nix::Error::EINTR,
    }
}

/// Waits until there is something to read, or nobody to write any more; false when `timeout` was over first.
///
/// # Errors
/// When the kernel refuses.
pub fn wait_readable(reading_end: &impl AsFd, timeout: Option<Duration>) -> io::Result<bool> {
    let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
        // Rounded up; no time is none.
        let milliseconds = timeout.as_millis() + u128::from(!timeout.is_zero());
        PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
    });
    let mut fds = [PollFd::new(reading_end.as_fd(), PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(count) => Ok(count > 0),
        Err(nix::Error::EINTR) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_other_end_is_seen_to_close() -> io::Result<()> {
        let (reader, writer) = io::pipe()?;
        assert!(has_reader(&writer));
        assert!(!wait_readable(&reader, Some(Duration::ZERO))?);
        drop(reader);
        assert!(!has_reader(&writer));

        let (reader, writer) = io::pipe()?;
        drop(writer);
        assert!(wait_readable(&reader, None)?, "there is an end to be read");
        Ok(())
    }
}
