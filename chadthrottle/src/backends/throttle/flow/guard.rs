//! Options are put back also when we are killed: by a process that has nothing else to do.
//!
//! It is this program once more, with an argument of its own. Through a pipe it is told of each socket that is about to
//! be held what its options were. The pipe ends when we do, whatever ends us; what is held then it puts back, and ends.
//! It also puts back what we have lost sight of, because the process that we had it from has closed it or ended, and
//! another has it: a server may hand its connections to workers.
//!
//! A socket is looked for by its inode in all of /proc, so nobody has to follow where descriptors go.

use std::{
    collections::HashMap,
    fs::File,
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::process::CommandExt,
    },
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use crate::sys::{
    pidfd::PidFd,
    pipe::{has_reader, wait_readable},
    proc_fd,
    signals::Signals,
    tcp_socket::TcpSocket,
};

/// The argument that makes the program a guard.
const ARGUMENT: &str = "--guard-sockets";
/// What it says when it is ready.
const READY: [u8; 1] = *b"r";
/// To look through all of /proc takes no more than a hundredth of a CPU, except at the end.
const SEARCH_SHARE: u32 = 100;
const LEAST_REST: Duration = Duration::from_millis(200);

/// What a socket's options are without us. We only ever make them less.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Originals {
    /// The pacing rate, where we set one.
    pub(super) pacing: Option<u64>,
    /// How far its window opens, and whether its buffer is to be unlocked, where we set that.
    pub(super) window: Option<(u32, bool)>,
}

/// What the guard is told of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Note {
    pub(super) cookie: u64,
    pub(super) inode: u32,
    /// What is to be put back when we end: nothing, when we have done it ourselves.
    pub(super) originals: Originals,
    /// We cannot find it any more: it is to be put back now, if anybody has it.
    pub(super) is_lost: bool,
}

impl Note {
    const LENGTH: usize = 32;
    const PACED: u32 = 1;
    const CLAMPED: u32 = 2;
    const UNLOCK: u32 = 4;
    const LOST: u32 = 8;

    fn bytes(&self) -> [u8; Self::LENGTH] {
        let Originals { pacing, window } = self.originals;
        let flag = |is_set, flag| if is_set { flag } else { 0 };
        let flags = flag(pacing.is_some(), Self::PACED)
            | flag(window.is_some(), Self::CLAMPED)
            | flag(window.is_some_and(|(_, unlock)| unlock), Self::UNLOCK)
            | flag(self.is_lost, Self::LOST);
        let mut bytes = [0; Self::LENGTH];
        bytes[..8].copy_from_slice(&self.cookie.to_ne_bytes());
        bytes[8..16].copy_from_slice(&pacing.unwrap_or_default().to_ne_bytes());
        bytes[16..20].copy_from_slice(&self.inode.to_ne_bytes());
        bytes[20..24].copy_from_slice(&window.map_or(0, |(bytes, _)| bytes).to_ne_bytes());
        bytes[24..28].copy_from_slice(&flags.to_ne_bytes());
        bytes
    }

    fn read(bytes: &[u8; Self::LENGTH]) -> Self {
        let long = |at: usize| {
            let mut value = [0; 8];
            value.copy_from_slice(&bytes[at..at + 8]);
            u64::from_ne_bytes(value)
        };
        let short = |at: usize| {
            let mut value = [0; 4];
            value.copy_from_slice(&bytes[at..at + 4]);
            u32::from_ne_bytes(value)
        };
        let flags = short(24);
        Self {
            cookie: long(0),
            inode: short(16),
            originals: Originals {
                pacing: (flags & Self::PACED != 0).then(|| long(8)),
                window: (flags & Self::CLAMPED != 0).then(|| (short(20), flags & Self::UNLOCK != 0)),
            },
            is_lost: flags & Self::LOST != 0,
        }
    }
}

/// Our end of it.
#[derive(Debug)]
pub(super) struct Guard {
    notes: File,
    pid: i32,
}

impl Guard {
    /// Starts it. When this returns it listens.
    ///
    /// # Errors
    /// When it does not start. That is so in any program but ours.
    pub(super) fn start() -> io::Result<Self> {
        let mut child = Command::new("/proc/self/exe")
            .arg(ARGUMENT)
            .current_dir("/")
            // What a terminal sends to us is not for it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let (Some(notes), Some(mut answer)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(io::ErrorKind::BrokenPipe.into());
        };
        let mut ready = [0];
        answer.read_exact(&mut ready)?;
        if ready != READY {
            return Err(io::Error::other("the program does not know how to guard sockets"));
        }
        Ok(Self { notes: OwnedFd::from(notes).into(), pid: child.id().cast_signed() })
    }

    /// Tells it of a socket. What it is told before an option is set will be put back.
    ///
    /// # Errors
    /// When it has ended: then nothing may be set any more.
    pub(super) fn note(&self, note: &Note) -> io::Result<()> {
        // Shorter than PIPE_BUF: a note is written whole or not at all (pipe(7)).
        (&self.notes).write_all(&note.bytes())
    }

    /// Its process.
    pub(super) const fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it is still there.
    pub(super) fn is_there(&self) -> bool {
        has_reader(&self.notes)
    }
}

/// Does the guard's work, where the command line asks for it. None where it does not.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    if std::env::args_os().nth(1)? != ARGUMENT {
        return None;
    }
    Some(match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

fn run() -> io::Result<()> {
    // Whoever ends all of us with a signal ends the one that the sockets are held by, and that is what we wait for.
    let _signals = Signals::hold()?;
    nix::sys::prctl::set_name(c"chadthrottle").map_err(io::Error::from)?;
    let mut notes: File = io::stdin().as_fd().try_clone_to_owned()?.into();
    io::stdout().write_all(&READY)?;
    io::stdout().flush()?;
    let mut watched = Watched::default();
    let mut next_search = Instant::now();
    loop {
        let due = (!watched.lost.is_empty()).then(|| next_search.saturating_duration_since(Instant::now()));
        if due == Some(Duration::ZERO) {
            let start = Instant::now();
            put_back(std::mem::take(&mut watched.lost));
            next_search = Instant::now() + LEAST_REST.max(start.elapsed() * SEARCH_SHARE);
            continue;
        }
        if !wait_readable(&notes, due)? {
            continue;
        }
        let mut bytes = [0; Note::LENGTH];
        if notes.read_exact(&mut bytes).is_err() {
            break;
        }
        watched.take(Note::read(&bytes));
    }
    watched.lost.extend(watched.held);
    put_back(watched.lost);
    Ok(())
}

/// Sockets by cookie.
type Sockets = HashMap<u64, Note>;

/// What the guard knows.
#[derive(Debug, Default)]
struct Watched {
    held: Sockets,
    lost: Sockets,
}

impl Watched {
    fn take(&mut self, note: Note) {
        self.held.remove(&note.cookie);
        self.lost.remove(&note.cookie);
        if note.is_lost {
            self.lost.insert(note.cookie, note);
        } else if note.originals != Originals::default() {
            self.held.insert(note.cookie, note);
        }
    }
}

/// Puts options back, of those that anybody has.
fn put_back(mut sockets: Sockets) {
    if sockets.is_empty() {
        return;
    }
    let cookies: HashMap<u32, u64> = sockets.values().map(|note| (note.inode, note.cookie)).collect();
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
            let Some(duplicate) = process.duplicate(fd).ok().and_then(|fd| TcpSocket::known(fd, cookie))
            else {
                continue;
            };
            if let Some(note) = sockets.remove(&cookie) {
                // One that refuses is closing.
                let _ = note.originals.restore(&duplicate);
            }
        }
        if sockets.is_empty() {
            return;
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

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn note(cookie: u64, originals: Originals, is_lost: bool) -> Note {
        Note { cookie, inode: 7, originals, is_lost }
    }

    #[test]
    fn a_note_is_read_as_it_was_written() {
        let both = Originals { pacing: Some(u64::MAX), window: Some((70_000, true)) };
        let window = Originals { pacing: None, window: Some((70_000, false)) };
        for note in [note(u64::MAX, both, false), note(1, window, true), note(2, Originals::default(), false)]
        {
            assert_eq!(Note::read(&note.bytes()), note);
        }
    }

    #[test]
    fn what_has_been_put_back_is_forgotten_and_what_is_lost_is_looked_for() {
        let mut watched = Watched::default();
        let paced = Originals { pacing: Some(5), window: None };
        watched.take(note(1, paced, false));
        watched.take(note(2, paced, false));
        watched.take(note(3, paced, false));
        watched.take(note(1, Originals::default(), false));
        watched.take(note(2, paced, true));
        assert_eq!(watched.held.into_keys().collect::<Vec<_>>(), [3]);
        assert_eq!(watched.lost.into_keys().collect::<Vec<_>>(), [2]);
    }

    #[test]
    fn a_socket_is_found_in_whichever_process_has_it_and_put_back() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let near = TcpStream::connect(listener.local_addr()?)?;
        let socket = TcpSocket::new(near.try_clone()?.into()).expect("it is one");
        let (rate, window) = (socket.info()?.max_pacing_rate, socket.window_clamp()?);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&near);
        let ours = proc_fd::sockets(std::process::id().cast_signed())?;
        let inode = ours.iter().find(|(known, _)| *known == fd).expect("we have it").1;
        let cookie = socket.cookie()?;
        socket.set_max_pacing_rate(50_000)?;
        socket.lock_receive_buffer(true)?;
        socket.set_window_clamp(5000)?;
        let originals = Originals { pacing: Some(rate), window: Some((window, true)) };
        // Another socket that has the inode now is left alone.
        put_back(HashMap::from([(cookie + 1, Note { cookie: cookie + 1, inode, originals, is_lost: true })]));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (50_000, 5000));
        put_back(HashMap::from([(cookie, Note { cookie, inode, originals, is_lost: true })]));
        assert_eq!((socket.info()?.max_pacing_rate, socket.window_clamp()?), (rate, window));
        assert!(!socket.receive_buffer_locked()?);
        Ok(())
    }
}
