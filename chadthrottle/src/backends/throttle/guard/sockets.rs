//! The sockets that the guard knows of, and how their options are put back.

use std::{collections::HashMap, io};

use super::note::{Kept, Note, OriginalTags, Originals, Replaced};
use crate::sys::{
    pidfd::PidFd,
    proc_fd,
    socket_tag::{Field, TaggedSocket},
    tcp_socket::TcpSocket,
};

/// What is to be put back of a socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    inode: u32,
    flow: Originals,
    tags: OriginalTags,
}

/// Sockets by cookie.
pub(super) type Sockets = HashMap<u64, Known>;

/// What the guard knows.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) held: Sockets,
    pub(super) lost: Sockets,
}

impl Watched {
    /// Takes in what it is told of a socket.
    pub(super) fn take(&mut self, cookie: u64, inode: u32, kept: Kept, is_lost: bool) {
        // A part that is told of again is as it is told now, wherever it was.
        for sockets in [&mut self.held, &mut self.lost] {
            if let Some(known) = sockets.get_mut(&cookie) {
                known.forget(kept);
                if known.is_empty() {
                    sockets.remove(&cookie);
                }
            }
        }
        let mut told = Known { inode, ..Known::default() };
        told.set(kept);
        if !told.is_empty() {
            let sockets = if is_lost { &mut self.lost } else { &mut self.held };
            sockets.entry(cookie).or_insert(told).set(kept);
        }
    }
}

impl Known {
    const fn set(&mut self, kept: Kept) {
        match kept {
            Kept::Flow(flow) => self.flow = flow,
            Kept::Tags(tags) => self.tags = tags,
        }
    }

    fn forget(&mut self, kept: Kept) {
        match kept {
            Kept::Flow(_) => self.flow = Originals::default(),
            Kept::Tags(_) => self.tags = OriginalTags::default(),
        }
    }

    /// With what is known of another part of it.
    pub(super) fn add(&mut self, other: Self) {
        self.inode = other.inode;
        if other.flow != Originals::default() {
            self.flow = other.flow;
        }
        if other.tags != OriginalTags::default() {
            self.tags = other.tags;
        }
    }

    fn is_empty(&self) -> bool {
        self.flow == Originals::default() && self.tags == OriginalTags::default()
    }
}

/// Puts options back, of those that anybody has.
pub(super) fn put_back(mut sockets: Sockets) {
    if sockets.is_empty() {
        return;
    }
    let cookies: HashMap<u32, u64> = sockets.iter().map(|(cookie, known)| (known.inode, *cookie)).collect();
    for pid in proc_fd::pids().into_iter().flatten() {
        // One that has ended, or is not ours to look into.
        let Ok(descriptors) = proc_fd::sockets(pid) else { continue };
        let wanted = descriptors.iter().filter_map(|(fd, inode)| Some((*fd, *cookies.get(inode)?)));
        let wanted: Vec<_> = wanted.filter(|(_, cookie)| sockets.contains_key(cookie)).collect();
        if wanted.is_empty() {
            continue;
        }
        let Ok(process) = PidFd::open(pid) else { continue };
        for (fd, cookie) in wanted {
            let Some(known) = sockets.get(&cookie) else { continue };
            // One that refuses is closing.
            if let Some(Ok(()) | Err(_)) = known.restore(&process, fd, cookie) {
                sockets.remove(&cookie);
            }
        }
        if sockets.is_empty() {
            return;
        }
    }
}

impl Known {
    /// Puts back what is not as it was. None where the descriptor is another socket's by now.
    fn restore(&self, process: &PidFd, fd: i32, cookie: u64) -> Option<io::Result<()>> {
        let socket = TaggedSocket::new(process.duplicate(fd).ok()?)?;
        if socket.cookie().ok()? != cookie {
            return None;
        }
        let tags = self.tags.restore(&socket);
        let is_held = self.flow != Originals::default();
        let tcp = is_held.then(|| TcpSocket::known(process.duplicate(fd).ok()?, cookie)).flatten();
        Some(tags.and(tcp.map_or(Ok(()), |tcp| self.flow.restore(&tcp))))
    }
}

impl Originals {
    /// Puts back what is less than it was.
    fn restore(&self, socket: &TcpSocket) -> io::Result<()> {
        if let Some(rate) = self.pacing
            && socket.info()?.max_pacing_rate < rate
        {
            socket.set_max_pacing_rate(rate)?;
        }
        if let Some((window, unlock)) = self.window {
            if unlock {
                socket.lock_receive_buffer(false)?;
            }
            if socket.window_clamp()? < window {
                socket.set_window_clamp(window)?;
            }
        }
        Ok(())
    }
}

impl OriginalTags {
    /// Puts back what is still ours: what the application has set itself meanwhile stays.
    fn restore(&self, socket: &TaggedSocket) -> io::Result<()> {
        let mut result = Ok(());
        for (field, replaced) in [(Field::Priority, self.priority), (Field::Mark, self.mark)] {
            if let Some(Replaced { value, original }) = replaced
                && socket.field(field)? == value
            {
                result = result.and(socket.set_field(field, original));
            }
        }
        result
    }
}

impl Note {
    /// A note on a socket's flow control.
    pub(in crate::backends::throttle) const fn flow(cookie: u64, inode: u32, originals: Originals) -> Self {
        Self::Socket { cookie, inode, kept: Kept::Flow(originals), is_lost: false }
    }

    /// A note on what a socket's packets carry.
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
    pub(in crate::backends::throttle) const fn tags(cookie: u64, inode: u32, tags: OriginalTags) -> Self {
        Self::Socket { cookie, inode, kept: Kept::Tags(tags), is_lost: false }
    }

    /// The same on one that we cannot find any more.
    pub(in crate::backends::throttle) fn lost(self) -> Self {
        match self {
            Self::Socket { cookie, inode, kept, .. } => Self::Socket { cookie, inode, kept, is_lost: true },
            #[cfg(feature = "throttle-tc-htb")]
            other @ Self::Journal(_) => other,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        os::fd::AsRawFd,
    };

    use super::*;

    const PACED: Kept = Kept::Flow(Originals { pacing: Some(5), window: None });
    const UNTOUCHED: Kept = Kept::Flow(Originals { pacing: None, window: None });
    const TAGGED: OriginalTags =
        OriginalTags { priority: Some(Replaced { value: 5, original: 2 }), mark: None };

    #[test]
    fn what_has_been_put_back_is_forgotten_and_what_is_lost_is_looked_for() {
        let mut watched = Watched::default();
        watched.take(1, 7, PACED, false);
        watched.take(2, 8, PACED, false);
        watched.take(3, 9, PACED, false);
        watched.take(3, 9, Kept::Tags(TAGGED), false);
        watched.take(1, 7, UNTOUCHED, false);
        watched.take(2, 8, PACED, true);
        watched.take(3, 9, UNTOUCHED, false);
        let tagged = Known { inode: 9, tags: TAGGED, ..Known::default() };
        assert_eq!(watched.held, HashMap::from([(3, tagged)]), "the tag is told of apart");
        assert_eq!(watched.lost.into_keys().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_socket_is_found_in_whichever_process_has_it_and_put_back() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let socket = TcpSocket::new(near.try_clone()?.into()).expect("it is one");
        let tagged = TaggedSocket::new(near.try_clone()?.into()).expect("it leaves by an interface");
        let (rate, window) = (socket.info()?.max_pacing_rate, socket.window_clamp()?);
        let ours = proc_fd::sockets(std::process::id().cast_signed())?;
        let inode = ours.iter().find(|(known, _)| *known == near.as_raw_fd()).expect("we have it").1;
        let cookie = socket.cookie()?;
        socket.set_max_pacing_rate(50_000)?;
        socket.lock_receive_buffer(true)?;
        socket.set_window_clamp(5000)?;
        tagged.set_field(Field::Priority, 5)?;
        let flow = Originals { pacing: Some(rate), window: Some((window, true)) };
        let known = Known { inode, flow, tags: TAGGED };
        // Another socket that has the inode now is left alone.
        put_back(HashMap::from([(cookie + 1, known)]));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (50_000, 5000));
        assert_eq!(tagged.field(Field::Priority)?, 5);
        put_back(HashMap::from([(cookie, known)]));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (rate, window));
        assert!(!socket.receive_buffer_locked()?);
        assert_eq!(tagged.field(Field::Priority)?, 2);
        // What the application has chosen stays.
        tagged.set_field(Field::Priority, 3)?;
        put_back(HashMap::from([(cookie, known)]));
        assert_eq!(tagged.field(Field::Priority)?, 3);
        Ok(())
    }
}
