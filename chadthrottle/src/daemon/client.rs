//! The other end: who asks a daemon.

use std::{
    ffi::OsString,
    io::{self, BufRead, BufReader, ErrorKind, Read, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::net::UnixStream,
    },
    path::{Path, PathBuf},
    time::Duration,
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
    sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket},
};

use super::{
    desk::namespaces,
    protocol::{Done, Hello, Kind, Refusal, Reply, Request, Status, VERSION, line},
    server::in_the_making,
};
use crate::{headless::tell, instances, stats::Sample, sys::proc_text};

/// The longest that a daemon may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const LONGEST: u64 = 256 << 20;
/// That a socket listens (`__SO_ACCEPTCON`, `include/linux/net.h`).
const ACCEPTS: u32 = 1 << 16;
/// The socket's name beside the notes of instances.
pub(super) const NAME: &str = "daemon.sock";

/// Why a daemon does not do something.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// It cannot be reached.
    #[error("no daemon can be asked at {}: {error}; `chadthrottle daemon` starts one", path.display())]
    Unreachable {
        /// Where it was looked for.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// It has ended, or does not answer.
    #[error("the daemon has ended, or does not answer ({0}), and what was asked of it has ended with it")]
    Gone(io::Error),
    /// It says what makes no sense.
    #[error("the daemon is of another version ({0}); take the same program")]
    Strange(String),
    /// It sees other processes or interfaces than we do.
    #[error(
        "the daemon (process {0}) runs in another pid or network namespace: it knows others than are seen here"
    )]
    Elsewhere(i32),
    /// It refuses.
    #[error("the daemon refuses: {0}")]
    Refused(Refusal),
}

/// Where a daemon is to be looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Where root's is, or else one's own; it need not be there.
    Usual,
    /// There, and it has to be there.
    At(PathBuf),
    /// Nowhere: all is done by this process.
    None,
}

impl Place {
    /// As typed.
    #[must_use]
    pub fn named(typed: &str) -> Self {
        match typed {
            "auto" => Self::Usual,
            "none" => Self::None,
            path => Self::At(path.into()),
        }
    }

    /// Where a daemon of ours listens; none where it does not.
    #[must_use]
    pub fn to_listen(&self) -> Option<PathBuf> {
        match self {
            Self::Usual => Some(instances::own_directory()?.join(NAME)),
            Self::At(path) => Some(path.clone()),
            Self::None => None,
        }
    }

    /// The daemon there.
    ///
    /// # Errors
    /// When one that is asked for by its path cannot be used.
    pub fn reach(&self) -> Result<Reached, DaemonError> {
        let paths = match self {
            Self::None => return Ok(Reached::Nobody),
            Self::At(path) => return Client::connect(path).map(|client| Reached::Daemon(Box::new(client))),
            Self::Usual => {
                let own = instances::own_directory().map(|own| own.join(NAME));
                let system = Path::new(instances::SYSTEM).join(NAME);
                [Some(system.clone()), own.filter(|own| *own != system)]
            }
        };
        let mut reached = Reached::Nobody;
        for path in paths.into_iter().flatten() {
            match Client::connect(&path) {
                Ok(client) => return Ok(Reached::Daemon(Box::new(client))),
                Err(error) => {
                    log::info!("not by a daemon: {error}");
                    if error.is_silence() {
                        let path = path.display();
                        tell(format_args!(
                            "the daemon at {path} does not answer, and is not asked; `--socket none` does not wait for it"
                        ));
                    }
                    if error.is_denial() {
                        reached = Reached::Closed;
                    }
                }
            }
        }
        Ok(reached)
    }
}

/// Whether a daemon can be asked.
#[derive(Debug)]
pub enum Reached {
    /// This one can.
    Daemon(Box<Client>),
    /// There is one that this user may not ask.
    Closed,
    /// There is none that would have to be asked, or none for us; the reason is in the log.
    Nobody,
}

/// A connection to a daemon. What is set through it lasts as long as it does.
#[derive(Debug)]
pub struct Client {
    stream: BufReader<UnixStream>,
    /// Who is there.
    pub daemon: Hello,
}

impl Client {
    /// Connects, and finds out who is there.
    ///
    /// # Errors
    /// When there is nobody, or nobody who would be of use.
    pub fn connect(path: &Path) -> Result<Self, DaemonError> {
        let unreachable = |error| DaemonError::Unreachable { path: path.to_owned(), error };
        let stream = connected(path).map_err(unreachable)?;
        let mut stream = BufReader::new(stream);
        let daemon = match exchange(&mut stream, &Request::Hello { version: VERSION })? {
            Reply::Hello(hello) if hello.version == VERSION => hello,
            Reply::Error(refusal) => return Err(DaemonError::Refused(refusal)),
            other => return Err(strange(&other)),
        };
        if namespaces().map_err(unreachable)? != [daemon.pids, daemon.network] {
            return Err(DaemonError::Elsewhere(daemon.pid));
        }
        Ok(Self { stream, daemon })
    }

    /// Asks for a change.
    ///
    /// # Errors
    /// When it is refused, or the daemon has ended.
    pub fn change(&mut self, request: &Request) -> Result<Done, DaemonError> {
        match self.ask(request)? {
            Reply::Done(done) => Ok(done),
            other => Err(strange(&other)),
        }
    }

    /// The limits in force.
    ///
    /// # Errors
    /// Likewise.
    pub fn status(&mut self) -> Result<Status, DaemonError> {
        match self.ask(&Request::Status)? {
            Reply::Status(status) => Ok(status),
            other => Err(strange(&other)),
        }
    }

    /// What everybody has sent and received, since the daemon counts.
    ///
    /// # Errors
    /// Likewise.
    pub fn sample(&mut self) -> Result<Sample, DaemonError> {
        match self.ask(&Request::Sample)? {
            Reply::Sample(sample) => Ok(sample.into()),
            other => Err(strange(&other)),
        }
    }

    fn ask(&mut self, request: &Request) -> Result<Reply, DaemonError> {
        match exchange(&mut self.stream, request)? {
            Reply::Error(refusal) => Err(DaemonError::Refused(refusal)),
            reply => Ok(reply),
        }
    }

    /// What becomes ready when the daemon has ended: it says nothing unasked.
    #[must_use]
    pub fn end(&self) -> PollFd<'_> {
        PollFd::new(self.as_fd(), PollFlags::POLLIN)
    }
}

impl AsFd for Client {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.get_ref().as_fd()
    }
}

/// A stream to whoever listens there, on which nothing waits for longer than [`PATIENCE`].
fn connected(path: &Path) -> io::Result<UnixStream> {
    let end = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(end);
    stream.set_read_timeout(Some(PATIENCE))?;
    // Where many wait to be let in, so does this (unix_stream_connect, net/unix/af_unix.c).
    stream.set_write_timeout(Some(PATIENCE))?;
    match connect(stream.as_raw_fd(), &UnixAddr::new(path)?) {
        // Whom it is closed to is not told whether it is one that a killed daemon left.
        Err(Errno::EACCES) if !may_listen(path) => Err(Errno::ECONNREFUSED.into()),
        connected => Ok(connected.map(|()| stream)?),
    }
}

/// Whether somebody may listen there, by the kernel's list, which anybody may read: it has all that listen in this network
/// namespace.
fn may_listen(path: &Path) -> bool {
    // Where there is no list that is not known.
    proc_text::read("/proc/thread-self/net/unix").map_or(true, |list| listens(&list, path))
}

/// Whether a list of sockets (`unix_seq_show`, `net/unix/af_unix.c`) has one that listens and has the name of this one. Where
/// it is was said from a directory that is not known here.
fn listens(list: &str, path: &Path) -> bool {
    let names = [path, &in_the_making(path)].map(|path| path.file_name().unwrap_or_default().to_owned());
    list.lines().any(|line| {
        let flags =
            line.split_ascii_whitespace().nth(3).and_then(|flags| u32::from_str_radix(flags, 16).ok());
        let is_listening = flags.is_some_and(|flags| flags & ACCEPTS != 0);
        let is_called = |name: &OsString| {
            let rest = line.strip_suffix(&*name.to_string_lossy());
            rest.is_some_and(|rest| rest.ends_with(['/', ' ']))
        };
        is_listening && names.iter().any(is_called)
    })
}

fn exchange(stream: &mut BufReader<UnixStream>, request: &Request) -> Result<Reply, DaemonError> {
    // Who refuses does so at once, and may have closed its end by now: its words are there to be read.
    let written = stream.get_mut().write_all(&line(request));
    let mut answer = Vec::new();
    let read = stream.by_ref().take(LONGEST).read_until(b'\n', &mut answer);
    match (read, written) {
        (Ok(_), _) if answer.ends_with(b"\n") => {
            serde_json::from_slice(&answer).map_err(|error| DaemonError::Strange(error.to_string()))
        }
        (Ok(_), Ok(())) => Err(DaemonError::Gone(ErrorKind::UnexpectedEof.into())),
        (Err(error), _) | (_, Err(error)) => Err(DaemonError::Gone(error)),
    }
}

fn strange(reply: &Reply) -> DaemonError {
    let said = format!("{reply:?}");
    DaemonError::Strange(format!("it says {said:.80}"))
}

impl DaemonError {
    /// Whether it is for want of rights.
    #[must_use]
    pub fn is_denial(&self) -> bool {
        match self {
            Self::Unreachable { error, .. } => error.kind() == ErrorKind::PermissionDenied,
            Self::Refused(refusal) => matches!(refusal.kind, Kind::Denied | Kind::Unprivileged),
            Self::Gone(_) | Self::Strange(_) | Self::Elsewhere(_) => false,
        }
    }

    /// Whether somebody listens, who says nothing.
    fn is_silence(&self) -> bool {
        match self {
            Self::Gone(_) => true,
            Self::Unreachable { error, .. } => error.kind() == ErrorKind::WouldBlock,
            Self::Strange(_) | Self::Elsewhere(_) | Self::Refused(_) => false,
        }
    }

    /// Whether it cannot be enforced as asked.
    #[must_use]
    pub const fn is_unenforceable(&self) -> bool {
        matches!(self, Self::Refused(Refusal { kind: Kind::Unenforceable, .. }))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::{
        config::DaemonSettings,
        daemon::{rights::Rights, server::Server},
    };

    #[test]
    fn who_listens_is_known_without_asking() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        // No other test has one of these names.
        let path = directory.path().join("who listens is known.sock");
        assert!(!may_listen(&path));
        let server = Server::open(&path, Rights::configured(&DaemonSettings::default()).0)?;
        assert!(may_listen(&path));
        drop(server);
        let listener = UnixListener::bind(&path)?;
        let connection = UnixStream::connect(&path)?;
        assert!(may_listen(&path), "by the name of its own, too");
        drop(listener);
        assert!(path.exists() && !may_listen(&path), "left by one that was killed");
        drop(connection);
        let listed = |flags: &str, path: &str| format!("Num RefCount\n0: 02 00 {flags} 0001 01 7 {path}\n");
        let daemon = Path::new("/run/x/daemon.sock");
        assert!(listens(&listed("00010000", "daemon.new"), daemon));
        assert!(!listens(&listed("00000000", "/run/x/daemon.sock"), daemon), "it is a connection");
        assert!(!listens(&listed("00010000", "/run/x/otherdaemon.sock"), daemon));
        Ok(())
    }
}
