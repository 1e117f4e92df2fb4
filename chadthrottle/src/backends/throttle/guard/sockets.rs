//! The sockets that the guard knows of, and how their options are put back.

use std::{collections::HashMap, io};

use nix::libc;

use super::note::{Kept, Note, OriginalTags, Originals, Replaced};
use crate::sys::{
    pidfd::PidFd,
    proc_fd,
    socket_tag::{Field, TaggedSocket},
    tcp_socket::TcpSocket,
};

/// How often a socket that refuses is tried.
const TRIES: u8 = 5;

/// What is to be put back of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Known {
    inode: u32,
    kept: Kept,
    /// How often the kernel has refused to put it back.
    tries: u8,
}

/// A socket by its cookie, and who has set something on it.
pub(super) type Key = (u64, u16);
/// Sockets with what is to be put back.
pub(super) type Sockets = HashMap<Key, Known>;

/// What the guard knows.
#[derive(Debug, Default)]
pub(super) struct Watched {
    pub(super) held: Sockets,
    pub(super) lost: Sockets,
}

impl Watched {
    /// Takes in what it is told of a socket.
    pub(super) fn take(&mut self, key: Key, inode: u32, kept: Kept, is_lost: bool) {
        self.held.remove(&key);
        self.lost.remove(&key);
        if !kept.is_nothing() {
            let sockets = if is_lost { &mut self.lost } else { &mut self.held };
            sockets.insert(key, Known { inode, kept, tries: 0 });
        }
    }

    /// What is to be put back of windows. That waits for no queue: pacing does, so that no more comes than a queue takes.
    #[cfg(feature = "throttle-tc-htb")]
    pub(super) fn windows(&self) -> Sockets {
        let window = |known: &Known| match known.kept {
            Kept::Flow(Originals { window: Some(window), .. }) => {
                let kept = Kept::Flow(Originals { pacing: None, window: Some(window) });
                Some(Known { kept, ..*known })
            }
            _ => None,
        };
        self.held.iter().filter_map(|(key, known)| Some((*key, window(known)?))).collect()
    }

    /// Looks for those that are lost. What the kernel refuses stays so, to be tried again.
    pub(super) fn put_back_lost(&mut self) {
        self.lost = put_back(std::mem::take(&mut self.lost));
    }
}

impl Kept {
    fn is_nothing(self) -> bool {
        match self {
            Self::Flow(flow) => flow == Originals::default(),
            Self::Tags(tags) => tags == OriginalTags::default(),
        }
    }
}

/// Puts options back, of those that anybody has. Says which could not be, so that it is worth another try.
pub(super) fn put_back(mut sockets: Sockets) -> Sockets {
    let mut refused = Sockets::new();
    if sockets.is_empty() {
        return refused;
    }
    let mut keys: HashMap<u32, Vec<Key>> = HashMap::new();
    for (key, known) in &sockets {
        keys.entry(known.inode).or_default().push(*key);
    }
    let Ok(pids) = proc_fd::pids() else { return once_more(sockets) };
    let mut has_seen_all = true;
    for pid in pids {
        let descriptors = match proc_fd::sockets(pid) {
            Ok(descriptors) => descriptors,
            Err(error) => {
                // Else it has ended, or is not ours to look into.
                has_seen_all &= !proc_fd::is_our_lack(&error);
                continue;
            }
        };
        let wanted = descriptors.iter().filter_map(|(fd, inode)| Some((*fd, keys.get(inode)?)));
        let wanted = wanted.flat_map(|(fd, keys)| keys.iter().map(move |key| (fd, *key)));
        let wanted: Vec<_> = wanted.filter(|(_, key)| sockets.contains_key(key)).collect();
        let mut process = None;
        for (fd, key) in wanted {
            let Some(known) = sockets.get(&key) else { continue };
            let opened = match process.take() {
                Some(opened) => Ok(opened),
                None => PidFd::open(pid),
            };
            match opened.and_then(|opened| known.kept.restore(process.insert(opened), fd, key.0)) {
                Ok(true) => drop((sockets.remove(&key), refused.remove(&key))),
                // Another socket's descriptor by now.
                Ok(false) => {}
                Err(error) => {
                    log::debug!("a socket refuses: {error}");
                    refused.insert(key, *known);
                }
            }
        }
        if sockets.is_empty() {
            break;
        }
    }
    // Those that nobody has are closed.
    once_more(if has_seen_all { refused } else { sockets })
}

/// These, with one try less left.
fn once_more(sockets: Sockets) -> Sockets {
    let left = sockets.into_iter().map(|(key, known)| (key, Known { tries: known.tries + 1, ..known }));
    left.filter(|(_, known)| known.tries < TRIES).collect()
}

impl Kept {
    /// Puts back what is not as it was. False where the descriptor is another socket's by now, or nobody's.
    fn restore(&self, process: &PidFd, fd: i32, cookie: u64) -> io::Result<bool> {
        let duplicate = match process.duplicate(fd) {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EBADF | libc::ESRCH)) => {
                return Ok(false);
            }
            duplicate => duplicate?,
        };
        match self {
            Self::Flow(flow) => match TcpSocket::known(duplicate, cookie)? {
                Some(socket) => flow.restore(&socket).map(|()| true),
                None => Ok(false),
            },
            Self::Tags(tags) => match TaggedSocket::new(duplicate) {
                Some(socket) if socket.cookie()? == cookie => tags.restore(&socket).map(|()| true),
                _ => Ok(false),
            },
        }
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
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
    pub(in crate::backends::throttle) const fn tags(cookie: u64, inode: u32, tags: OriginalTags) -> Self {
        Self::Socket { cookie, inode, kept: Kept::Tags(tags), is_lost: false }
    }

    /// The same on one that we cannot find any more.
    pub(in crate::backends::throttle) fn lost(self) -> Self {
        match self {
            Self::Socket { cookie, inode, kept, .. } => Self::Socket { cookie, inode, kept, is_lost: true },
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
        watched.take((1, 0), 7, PACED, false);
        watched.take((2, 0), 8, PACED, false);
        watched.take((3, 0), 9, PACED, false);
        watched.take((3, 1), 9, Kept::Tags(TAGGED), false);
        watched.take((1, 0), 7, UNTOUCHED, false);
        watched.take((2, 0), 8, PACED, true);
        watched.take((3, 0), 9, UNTOUCHED, false);
        let tagged = Known { inode: 9, kept: Kept::Tags(TAGGED), tries: 0 };
        assert_eq!(watched.held, HashMap::from([((3, 1), tagged)]), "each speaks for itself");
        assert_eq!(watched.lost.into_keys().collect::<Vec<_>>(), [(2, 0)]);
    }

    #[cfg(feature = "throttle-tc-htb")]
    #[test]
    fn windows_are_put_back_without_pacing() {
        let both = Kept::Flow(Originals { pacing: Some(5), window: Some((70_000, true)) });
        let window = Kept::Flow(Originals { pacing: None, window: Some((70_000, true)) });
        let mut watched = Watched::default();
        for (cookie, kept) in [(1, PACED), (2, both), (3, Kept::Tags(TAGGED))] {
            watched.take((cookie, 0), 7, kept, false);
        }
        let known = Known { inode: 7, kept: window, tries: 0 };
        assert_eq!(watched.windows(), HashMap::from([((2, 0), known)]));
        assert_eq!(watched.held.len(), 3, "all is put back in the end");
    }

    #[test]
    fn what_refuses_is_tried_for_so_often_and_no_longer() {
        let known = Known { inode: 7, kept: PACED, tries: 0 };
        let tried: Vec<usize> = std::iter::successors(Some(Sockets::from([((1, 0), known)])), |left| {
            Some(once_more(left.clone())).filter(|left| !left.is_empty())
        })
        .map(|left| left.len())
        .collect();
        assert_eq!(tried, [1; TRIES as usize]);
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
        let known = |cookie| {
            let kept = [Kept::Flow(flow), Kept::Tags(TAGGED)];
            let one = |(author, kept)| ((cookie, author), Known { inode, kept, tries: 0 });
            (0..).zip(kept).map(one).collect::<Sockets>()
        };
        // Another socket that has the inode now is left alone.
        put_back(known(cookie + 1));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (50_000, 5000));
        assert_eq!(tagged.field(Field::Priority)?, 5);
        put_back(known(cookie));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (rate, window));
        assert!(!socket.receive_buffer_locked()?);
        assert_eq!(tagged.field(Field::Priority)?, 2);
        // What the application has chosen stays.
        tagged.set_field(Field::Priority, 3)?;
        put_back(known(cookie));
        assert_eq!(tagged.field(Field::Priority)?, 3);
        Ok(())
    }
}
