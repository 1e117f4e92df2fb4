//! The options of one socket: what they were, what they are set to, and how they are put back.
//!
//! Whatever the application sets meanwhile wins: it is kept below the limit while that is in force, and left alone when
//! it goes.

use std::io;

use crate::sys::{tcp_info::TcpInfo, tcp_socket::TcpSocket};

/// Below this share of what its buffer allows, a window is held with the buffer locked.
const LOCKED_BELOW: f64 = 0.7;

/// The pacing of a socket.
#[derive(Debug)]
pub(super) struct Pacing {
    original: u64,
    set: u64,
}

impl Pacing {
    pub(super) fn new(info: &TcpInfo) -> Self {
        Self { original: info.max_pacing_rate, set: info.max_pacing_rate }
    }

    /// Sets it to this many bytes of payload a second, or to what the application wants where that is less.
    pub(super) fn apply(&mut self, socket: &TcpSocket, info: &TcpInfo, rate: u64) -> io::Result<()> {
        self.notice(info);
        let rate = rate.min(self.original);
        if is_close(rate, self.set) {
            return Ok(());
        }
        socket.set_max_pacing_rate(rate)?;
        self.set = rate;
        Ok(())
    }

    /// Puts it back.
    pub(super) fn restore(&mut self, socket: &TcpSocket, info: &TcpInfo) -> io::Result<()> {
        self.notice(info);
        self.set = self.original;
        if info.max_pacing_rate == self.original { Ok(()) } else { socket.set_max_pacing_rate(self.original) }
    }

    /// What it is without us, in bytes a second.
    pub(super) const fn original(&self) -> u64 {
        self.original
    }

    /// The application may have set it.
    fn notice(&mut self, info: &TcpInfo) {
        if info.max_pacing_rate != self.set {
            (self.original, self.set) = (info.max_pacing_rate, info.max_pacing_rate);
        }
    }
}

/// The receive window of a socket.
///
/// The kernel opens the window as far as its buffer allows, and makes the buffer longer for a program that reads fast;
/// each time it undoes the clamp. So the buffer is locked (`SO_BUF_LOCK`), but only once it is long enough for the
/// window that is wanted: a socket that was just opened has room for 64 KB, which is 3 MB/s at 20 ms.
#[derive(Debug)]
pub(super) struct Clamp {
    /// What it would be without us.
    full: u32,
    set: u32,
    /// Whether what the kernel has made of it has not been read yet.
    is_unread: bool,
    buffer: u32,
    /// Whether the application's own lock is on. None where there are no locks.
    own_lock: Option<bool>,
    locked: bool,
}

impl Clamp {
    pub(super) fn new(socket: &TcpSocket) -> io::Result<Self> {
        let full = socket.window_clamp()?;
        let own_lock = socket.receive_buffer_locked().ok();
        Ok(Self {
            full,
            set: full,
            is_unread: false,
            buffer: socket.receive_buffer()?,
            own_lock,
            locked: own_lock.unwrap_or_default(),
        })
    }

    /// How far it would open without us, and whether the buffer would not be locked.
    pub(super) fn original(&self) -> (u32, bool) {
        (self.full, self.own_lock == Some(false))
    }

    /// How far the window opens now.
    pub(super) const fn in_force(&self) -> u32 {
        self.set
    }

    /// Whether the kernel may have undone it. It does when the buffer grows, and also with the buffer locked when it has
    /// learnt how much of the memory that segments take is payload (`tcp_measure_rcv_mss`, `net/ipv4/tcp_input.c`).
    pub(super) const fn may_be_undone(&self, info: &TcpInfo) -> bool {
        !self.locked || info.receive_threshold > self.set
    }

    /// Lets the window open so far and no further.
    pub(super) fn apply(&mut self, socket: &TcpSocket, window: u32) -> io::Result<()> {
        self.notice(socket)?;
        let lock = f64::from(window) <= f64::from(self.full) * LOCKED_BELOW;
        self.lock(socket, lock)?;
        let bytes = window.min(self.full);
        if bytes == self.set {
            return Ok(());
        }
        socket.set_window_clamp(bytes)?;
        // The kernel has a least one.
        (self.set, self.is_unread) = (bytes, true);
        self.set = socket.window_clamp()?;
        self.is_unread = false;
        Ok(())
    }

    /// Puts everything back.
    pub(super) fn restore(&mut self, socket: &TcpSocket) -> io::Result<()> {
        self.notice(socket)?;
        self.lock(socket, false)?;
        if self.set == self.full {
            return Ok(());
        }
        self.set = self.full;
        socket.set_window_clamp(self.full)
    }

    /// Locks the buffer, or sets the lock to what it is without us.
    fn lock(&mut self, socket: &TcpSocket, lock: bool) -> io::Result<()> {
        let Some(own) = self.own_lock else { return Ok(()) };
        let lock = lock || own;
        if lock != self.locked {
            socket.lock_receive_buffer(lock)?;
            self.locked = lock;
            if lock {
                return self.notice_growth(socket);
            }
        }
        Ok(())
    }

    /// What the kernel has made longer just before it could no more. Unseen, it would be taken for the application's.
    fn notice_growth(&mut self, socket: &TcpSocket) -> io::Result<()> {
        self.buffer = socket.receive_buffer()?;
        let clamp = socket.window_clamp()?;
        if clamp != self.set {
            (self.full, self.set) = (clamp, clamp);
        }
        Ok(())
    }

    /// The application may have set something, or the kernel made the buffer longer and opened the window with it.
    fn notice(&mut self, socket: &TcpSocket) -> io::Result<()> {
        let clamp = socket.window_clamp()?;
        if std::mem::take(&mut self.is_unread) {
            self.set = clamp;
        } else if clamp != self.set {
            (self.full, self.set) = (clamp, clamp);
        }
        let buffer = socket.receive_buffer()?;
        if buffer != self.buffer {
            self.buffer = buffer;
            // The kernel leaves a locked buffer as it is. To set its length locks it.
            if self.locked && self.own_lock == Some(false) {
                self.own_lock = Some(true);
            }
        }
        if !self.locked && self.own_lock.is_some() {
            let own = socket.receive_buffer_locked()?;
            (self.own_lock, self.locked) = (Some(own), own);
        }
        Ok(())
    }
}

/// Whether it is not worth a system call.
fn is_close(a: u64, b: u64) -> bool {
    a.abs_diff(b) <= b / 200
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use nix::sys::socket::{setsockopt, sockopt::RcvBuf};

    use super::*;
    use crate::sys::tcp_socket::UNPACED;

    /// A socket, and the same one as its application has it.
    fn socket() -> io::Result<(TcpSocket, TcpStream, TcpListener)> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        Ok((TcpSocket::new(near.try_clone()?.into()).expect("it is one"), near, listener))
    }

    #[test]
    fn pacing_is_put_back_and_the_applications_own_wins() -> io::Result<()> {
        let (socket, _, _listener) = socket()?;
        let mut pacing = Pacing::new(&socket.info()?);
        pacing.apply(&socket, &socket.info()?, 50_000)?;
        assert_eq!(socket.info()?.max_pacing_rate, 50_000);
        pacing.restore(&socket, &socket.info()?)?;
        assert_eq!(socket.info()?.max_pacing_rate, UNPACED);

        pacing.apply(&socket, &socket.info()?, 50_000)?;
        socket.set_max_pacing_rate(20_000)?;
        pacing.apply(&socket, &socket.info()?, 50_000)?;
        assert_eq!(socket.info()?.max_pacing_rate, 20_000, "it wants less than it may");
        pacing.apply(&socket, &socket.info()?, 10_000)?;
        assert_eq!(socket.info()?.max_pacing_rate, 10_000);
        pacing.restore(&socket, &socket.info()?)?;
        assert_eq!(socket.info()?.max_pacing_rate, 20_000);
        Ok(())
    }

    #[test]
    fn a_window_is_put_back_with_its_lock() -> io::Result<()> {
        let (socket, _, _listener) = socket()?;
        let full = socket.window_clamp()?;
        let mut clamp = Clamp::new(&socket)?;
        clamp.apply(&socket, 5000)?;
        assert_eq!((socket.window_clamp()?, socket.receive_buffer_locked()?), (5000, true));
        clamp.apply(&socket, full * 4)?;
        assert_eq!((socket.window_clamp()?, socket.receive_buffer_locked()?), (full, false), "it may grow");
        clamp.apply(&socket, 5000)?;
        clamp.restore(&socket)?;
        assert_eq!((socket.window_clamp()?, socket.receive_buffer_locked()?), (full, false));
        Ok(())
    }

    #[test]
    fn what_grew_just_before_it_was_locked_is_not_taken_for_the_applications() -> io::Result<()> {
        let (socket, own, _listener) = socket()?;
        let mut clamp = Clamp::new(&socket)?;
        // Looked at, grown, locked: as the kernel does it, which leaves no lock.
        clamp.notice(&socket)?;
        setsockopt(&own, RcvBuf, &150_000)?;
        socket.lock_receive_buffer(false)?;
        socket.set_window_clamp(140_000)?;
        clamp.lock(&socket, true)?;
        clamp.apply(&socket, 5000)?;
        clamp.restore(&socket)?;
        assert_eq!((socket.window_clamp()?, socket.receive_buffer_locked()?), (140_000, false));
        Ok(())
    }

    #[test]
    fn what_the_application_sets_meanwhile_stays() -> io::Result<()> {
        let (socket, own, _listener) = socket()?;
        let mut clamp = Clamp::new(&socket)?;
        clamp.apply(&socket, 5000)?;
        setsockopt(&own, RcvBuf, &50_000)?;
        socket.set_window_clamp(3000)?;
        clamp.apply(&socket, 6000)?;
        assert_eq!(socket.window_clamp()?, 3000, "it wants less than it may");
        clamp.restore(&socket)?;
        assert_eq!((socket.window_clamp()?, socket.receive_buffer_locked()?), (3000, true));
        assert_eq!(socket.receive_buffer()?, 100_000);
        Ok(())
    }
}
