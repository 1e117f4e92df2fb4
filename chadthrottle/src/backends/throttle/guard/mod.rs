//! What the kernel does not undo by itself is undone also when we are killed: by a process that has nothing else to do.
//!
//! It is this program once more, with an argument of its own. Through a pipe it is told of each socket that is about to
//! have options of ours what they were, and whether there is something in the [journal](super::journal). The pipe ends
//! when we do, whatever ends us; then it does what `chadthrottle cleanup` would do for us, puts back what sockets have of
//! ours, and ends. It also puts back what we have lost sight of, because the process that we had it from has closed it or
//! ended, and another has it: a server may hand its connections to workers.
//!
//! A socket is looked for by its inode in all of /proc, so nobody has to follow where descriptors go.

mod note;
mod sockets;

use std::{
    collections::HashSet,
    fs::{self, File},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::{fs::MetadataExt, process::CommandExt},
    },
    process::{Command, ExitCode, Stdio},
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU16, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

pub(super) use self::note::{Note, Originals};
#[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables", feature = "throttle-ifb-tc"))]
pub(super) use self::note::{OriginalTags, Replaced};
use self::sockets::Watched;
use crate::{
    instances,
    process::ProcessId,
    sys::{
        pipe::{has_reader, wait_readable},
        signals::Signals,
    },
};

/// The argument that makes the program a guard. After it: pid and start time of whom it is for.
const ARGUMENT: &str = "--guard";
/// What it says when it is ready.
const READY: [u8; 1] = *b"r";
/// To look through all of /proc takes no more than a hundredth of a CPU, except at the end.
const SEARCH_SHARE: u32 = 100;
const LEAST_REST: Duration = Duration::from_millis(200);
/// How often what fails at the end is tried again.
const TRIES: u32 = 5;
const BETWEEN_TRIES: Duration = Duration::from_millis(20);

/// The one that everything in this process shares, by the network namespace that it is in.
static SHARED: Mutex<Option<(u64, Weak<Shared>)>> = Mutex::new(None);
/// Who tells it something next.
static AUTHORS: AtomicU16 = AtomicU16::new(0);

/// Our end of it.
#[derive(Debug)]
struct Shared {
    notes: File,
    pid: i32,
}

/// The guard, for one of those that tell it what they set: two of them may set options of the same socket.
#[derive(Debug)]
pub(super) struct Guard {
    shared: Arc<Shared>,
    author: u16,
}

impl Guard {
    /// The guard of this process, which is started where there is none. It is in the network namespace of this thread.
    ///
    /// # Errors
    /// When it does not start. That is so in any program but ours.
    pub(super) fn get() -> io::Result<Self> {
        let network = fs::metadata("/proc/thread-self/ns/net")?.ino();
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        let running = shared.as_ref().filter(|(known, _)| *known == network);
        let running = running.and_then(|(_, guard)| guard.upgrade());
        let guard = match running.filter(|guard| has_reader(&guard.notes)) {
            Some(guard) => guard,
            // Once more, since the kernel may have no memory for a moment.
            None => Arc::new(Shared::start().or_else(|_| Shared::start())?),
        };
        *shared = Some((network, Arc::downgrade(&guard)));
        Ok(Self { shared: guard, author: AUTHORS.fetch_add(1, Ordering::Relaxed) })
    }

    /// Tells it something. What it is told before it is done will be undone.
    ///
    /// # Errors
    /// When it has ended: then nothing may be set any more.
    pub(super) fn note(&self, note: &Note) -> io::Result<()> {
        // Shorter than PIPE_BUF: a note is written whole or not at all (pipe(7)).
        (&self.shared.notes).write_all(&note.bytes(self.author))
    }

    /// Its process.
    pub(super) fn pid(&self) -> i32 {
        self.shared.pid
    }

    /// Whether it is still there.
    pub(super) fn is_there(&self) -> bool {
        has_reader(&self.shared.notes)
    }
}

impl Shared {
    /// Starts it. When this returns it listens.
    fn start() -> io::Result<Self> {
        let us = ProcessId::running(std::process::id().cast_signed()).map_err(io::Error::other)?;
        let mut child = Command::new("/proc/self/exe")
            .args([ARGUMENT.to_owned(), us.pid.to_string(), us.start_time.to_string()])
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
        let is_ready = answer.read_exact(&mut ready).and_then(|()| {
            let unknown = || io::Error::other("the program does not know how to be a guard");
            if ready == READY { Ok(()) } else { Err(unknown()) }
        });
        if let Err(error) = is_ready {
            // It is tried again before long: those that failed are not to add up.
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok(Self { notes: OwnedFd::from(notes).into(), pid: child.id().cast_signed() })
    }
}

/// What holds of whatever comes through the pipe.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    note::fuzz(bytes);
}

/// Does the guard's work, where the command line asks for it. None where it does not.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args().skip(1);
    if arguments.next()? != ARGUMENT {
        return None;
    }
    let mut number = || arguments.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(pid), Some(start_time)) = (number(), number()) else { return Some(ExitCode::FAILURE) };
    let Ok(pid) = i32::try_from(pid) else { return Some(ExitCode::FAILURE) };
    Some(match run(ProcessId { pid, start_time }) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    })
}

/// Guards `ward` until its end of the pipe is closed.
fn run(ward: ProcessId) -> io::Result<()> {
    // Whoever ends all of us with a signal ends the one that the sockets are held by, and that is what we wait for.
    let _signals = Signals::hold()?;
    nix::sys::prctl::set_name(c"chadthrottle").map_err(io::Error::from)?;
    let mut notes: File = io::stdin().as_fd().try_clone_to_owned()?.into();
    io::stdout().write_all(&READY)?;
    io::stdout().flush()?;
    let mut watched = Watched::default();
    let mut journals = HashSet::new();
    let mut next_search = Instant::now();
    loop {
        let due = (!watched.lost.is_empty()).then(|| next_search.saturating_duration_since(Instant::now()));
        if due == Some(Duration::ZERO) {
            let start = Instant::now();
            watched.put_back_lost();
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
        match Note::read(&bytes) {
            Some((author, Note::Socket { cookie, inode, kept, is_lost })) => {
                watched.take((cookie, author), inode, kept, is_lost);
            }
            Some((author, Note::Journal(true))) => drop(journals.insert(author)),
            Some((author, Note::Journal(false))) => drop(journals.remove(&author)),
            None => {}
        }
    }
    undo(ward, watched, &journals);
    Ok(())
}

/// Tries again what fails, a few times: the kernel may have no memory for a moment, and nobody comes after us.
fn in_the_end(mut work: impl FnMut() -> io::Result<()>) -> io::Result<()> {
    let mut result = work();
    for _ in 0..TRIES {
        if result.is_ok() {
            break;
        }
        thread::sleep(BETWEEN_TRIES);
        result = work();
    }
    result
}

/// Undoes everything. Nobody is left to be told of what cannot be: it stays in the journal for the next start.
fn undo(ward: ProcessId, mut watched: Watched, journals: &HashSet<u16>) {
    #[cfg(feature = "throttle-tc-htb")]
    let left = if journals.is_empty() { None } else { super::journal::of(ward).ok().flatten() };
    #[cfg(not(any(
        feature = "throttle-tc-htb",
        feature = "throttle-nftables",
        feature = "throttle-ifb-tc",
        feature = "throttle-tc-police"
    )))]
    let _ = journals;
    #[cfg(feature = "throttle-tc-htb")]
    let windows = left.as_ref().map(|_| watched.windows()).unwrap_or_default();
    let undo_downloads = || {
        #[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
        if !journals.is_empty() {
            undo_entrances(ward);
        }
        #[cfg(feature = "throttle-tc-htb")]
        drop(sockets::put_back(windows.clone()));
    };
    #[cfg(not(feature = "throttle-tc-htb"))]
    undo_downloads();
    // Queues first: they are what limits, and to look for sockets may take its time. Whoever starts meanwhile waits.
    #[cfg(feature = "throttle-tc-htb")]
    let left = beside(undo_downloads, || {
        let left = left.as_ref().and_then(|left| left.lock().ok().flatten())?;
        let is_removed = in_the_end(|| left.remove_queues()).is_ok();
        Some((left, is_removed))
    });
    #[cfg(any(feature = "throttle-tc-htb", feature = "throttle-nftables"))]
    if !journals.is_empty() {
        for left in super::tagger::cgroup::of(ward).unwrap_or_default() {
            let _ = in_the_end(|| left.remove());
        }
    }
    watched.lost.extend(std::mem::take(&mut watched.held));
    let _ = in_the_end(|| {
        watched.put_back_lost();
        if watched.lost.is_empty() { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    });
    let _ = in_the_end(|| instances::forget(ward));
    #[cfg(feature = "throttle-tc-htb")]
    if let Some((left, true)) = left {
        let _ = in_the_end(|| left.forget());
    }
}

/// Does two things at the same time, since each has queues to wait for; one after the other where there can be no thread.
#[cfg(feature = "throttle-tc-htb")]
fn beside<T>(other: impl Fn() + Sync, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let is_started = thread::Builder::new().spawn_scoped(scope, &other).is_ok();
        let done = work();
        if !is_started {
            other();
        }
        done
    })
}

/// Takes away what stands where packets arrive, and then where they were sent to from there.
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
fn undo_entrances(ward: ProcessId) {
    for left in super::filters::of(ward).unwrap_or_default() {
        let _ = in_the_end(|| left.remove());
    }
    #[cfg(feature = "throttle-ifb-tc")]
    for left in super::ifb_tc::of(ward).unwrap_or_default() {
        let _ = in_the_end(|| left.remove());
    }
}
