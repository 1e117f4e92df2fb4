//! What a terminal tells its reader.

use std::{io, os::fd::AsFd};

use nix::sys::termios::{SetArg, tcgetattr, tcsetattr};

/// Has the kernel tell once more that there is something to read, where there is, whoever waits for that by `epoll(7)` at
/// its edges: it wakes the readers of a terminal when its settings are set, also to what they were (`n_tty_set_termios`,
/// `drivers/tty/n_tty.c`).
///
/// # Errors
/// When that is no terminal, or one that is gone.
pub fn wake_readers(terminal: impl AsFd) -> io::Result<()> {
    let settings = tcgetattr(&terminal)?;
    Ok(tcsetattr(&terminal, SetArg::TCSANOW, &settings)?)
}
