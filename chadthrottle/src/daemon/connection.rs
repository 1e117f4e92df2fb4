//! One connection, seen from the daemon: what has come and is no line yet, and what has been answered and is not taken yet.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixStream,
    },
    sync::Arc,
    time::{Duration, Instant},
};

use nix::poll::PollFlags;

use super::{
    protocol::{LONGEST, Refusal, too_long},
    rights::Right,
};
use crate::sys::peer::Peer;

/// How long a request may take to come, and an answer to be taken.
const PATIENCE: Duration = Duration::from_secs(5);

/// Who asks.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The connection's number; none is used again.
    pub id: u64,
    /// Whose it is.
    pub peer: Peer,
    /// What that one may.
    pub right: Right,
}

/// A connection. One request is answered at a time: what comes meanwhile waits in the kernel, and then with its sender.
pub(super) struct Connection {
    stream: UnixStream,
    pub(super) caller: Caller,
    /// Whether it has said in which form it speaks.
    pub(super) is_greeted: bool,
    /// Never longer than a request.
    inbox: Vec<u8>,
    outbox: Option<(Arc<[u8]>, usize)>,
    /// Whether something has been taken of an answer since its time was noted.
    has_sent: bool,
    /// Nothing more is read, and it ends once what is answered has been taken.
    is_ending: bool,
    /// Since when it is waited for.
    waited_for: Option<Instant>,
}

impl Connection {
    pub(super) fn new(stream: UnixStream, caller: Caller, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            caller,
            is_greeted: false,
            inbox: Vec::new(),
            outbox: None,
            has_sent: false,
            is_ending: false,
            waited_for: Some(now),
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// What it waits for.
    pub(super) const fn interest(&self) -> PollFlags {
        if self.outbox.is_some() { PollFlags::POLLOUT } else { PollFlags::POLLIN }
    }

    /// Whether a request is here that has not been answered: nobody would be told of it again.
    pub(super) fn has_request(&self) -> bool {
        self.outbox.is_none() && !self.is_ending && self.inbox.contains(&b'\n')
    }

    /// When it has been waited for long enough.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.waited_for.map(|since| since + PATIENCE)
    }

    /// Whether all is said.
    pub(super) const fn has_ended(&self) -> bool {
        self.is_ending && self.outbox.is_none()
    }

    /// Writes and reads what can be without waiting. False where nobody is at the other end any more.
    pub(super) fn exchange(&mut self) -> bool {
        let done = self.send().and_then(|()| self.receive());
        done.is_ok()
    }

    fn send(&mut self) -> io::Result<()> {
        while let Some((answer, sent)) = &mut self.outbox {
            match self.stream.write(&answer[*sent..]) {
                Ok(count) => {
                    *sent += count;
                    self.has_sent |= count > 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            }
            if *sent == answer.len() {
                self.outbox = None;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> io::Result<()> {
        // As much as is missing of the longest request, and no more.
        while self.outbox.is_none() && !self.is_ending && self.inbox.len() < LONGEST && !self.has_request() {
            let mut buffer = [0; 4096];
            let room = buffer.len().min(LONGEST - self.inbox.len());
            match self.stream.read(&mut buffer[..room]) {
                Ok(0) => self.is_ending = true,
                Ok(count) => self.inbox.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// The next request, without its end of line.
    pub(super) fn request(&mut self) -> Option<Result<Vec<u8>, Refusal>> {
        if self.outbox.is_some() || self.is_ending {
            return None;
        }
        if let Some(end) = self.inbox.iter().position(|&byte| byte == b'\n') {
            let rest = self.inbox.split_off(end + 1);
            let mut line = std::mem::replace(&mut self.inbox, rest);
            line.pop();
            return Some(Ok(line));
        }
        (self.inbox.len() >= LONGEST).then(|| Err(too_long()))
    }

    /// Answers. What cannot be taken at once is kept.
    pub(super) fn answer(&mut self, line: Arc<[u8]>) -> bool {
        self.outbox = Some((line, 0));
        self.send().is_ok()
    }

    /// Ends it once what is answered has been taken.
    pub(super) fn end(&mut self) {
        self.is_ending = true;
    }

    /// Notes whether it is waited for. Whoever has asked, or takes an answer, has its time anew.
    pub(super) fn note_time(&mut self, now: Instant, has_asked: bool) {
        let has_progressed = std::mem::take(&mut self.has_sent) || has_asked;
        let is_waited_for = self.outbox.is_some() || !self.inbox.is_empty() || !self.is_greeted;
        if !is_waited_for || has_progressed {
            self.waited_for = is_waited_for.then_some(now);
        } else {
            self.waited_for.get_or_insert(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> io::Result<(Connection, UnixStream)> {
        let (ours, theirs) = UnixStream::pair()?;
        let caller = Caller { id: 1, peer: Peer { pid: 1, uid: 1, groups: Vec::new() }, right: Right::View };
        Ok((Connection::new(ours, caller, Instant::now())?, theirs))
    }

    #[test]
    fn lines_come_one_at_a_time_however_they_are_cut() -> io::Result<()> {
        let (mut connection, mut other) = connection()?;
        other.write_all(b"on")?;
        assert!(connection.exchange() && connection.request().is_none());
        other.write_all(b"e\ntwo\nthr")?;
        assert!(connection.exchange());
        assert_eq!(connection.request(), Some(Ok(b"one".to_vec())));
        assert!(connection.has_request());
        assert_eq!(connection.request(), Some(Ok(b"two".to_vec())));
        assert!(connection.request().is_none());
        drop(other);
        assert!(connection.exchange() && connection.has_ended(), "half a line is none");
        Ok(())
    }

    #[test]
    fn a_line_without_end_is_not_kept() -> io::Result<()> {
        let (mut connection, mut other) = connection()?;
        other.set_nonblocking(true)?;
        let flood = [b'x'; 4096];
        for _ in 0..100 {
            // Full: the other one has to wait.
            let _ = other.write(&flood);
            connection.exchange();
        }
        assert_eq!(connection.inbox.len(), LONGEST);
        assert!(matches!(connection.request(), Some(Err(_))));
        Ok(())
    }

    #[test]
    fn who_does_not_take_an_answer_is_not_asked_for_more_and_waited_for_not_forever() -> io::Result<()> {
        let (mut connection, mut other) = connection()?;
        connection.is_greeted = true;
        other.write_all(b"one\ntwo\n")?;
        assert!(connection.exchange() && connection.request().is_some());
        assert!(connection.answer(vec![b'x'; 8 << 20].into()));
        let start = Instant::now();
        connection.note_time(start, true);
        assert!(connection.request().is_none() && connection.interest() == PollFlags::POLLOUT);
        connection.note_time(start + PATIENCE / 2, false);
        assert_eq!(connection.deadline(), Some(start + PATIENCE));
        // All that has come so far: there is room for more.
        other.set_nonblocking(true)?;
        while other.read(&mut [0; 4096]).is_ok() {}
        assert!(connection.exchange());
        connection.note_time(start + PATIENCE / 2, false);
        assert_eq!(connection.deadline(), Some(start + PATIENCE / 2 + PATIENCE), "it does take it");
        drop(other);
        assert!(!connection.exchange(), "nobody is there any more");
        Ok(())
    }
}
