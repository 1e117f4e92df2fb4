//! The socket and its connections. Nothing here waits: it is called when something is ready.

use std::{
    fs::{self, File},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::{
            fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt, chown},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags},
    sys::socket::{AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket},
};

use super::{
    connection::{Caller, Connection},
    protocol::{Kind, Refusal, Reply, Request, VERSION, line, parse},
    rights::{Right, Rights},
};
use crate::{instances, sys::peer::Peer};

/// Most that are connected at once.
const MOST: usize = 256;
/// So many places more are for root: others cannot keep it out.
const RESERVED: usize = 16;
/// Most that are one user's, if not root's: nobody keeps all others out.
const OF_ONE: usize = 64;
/// Most that are let in at one turn.
const AT_ONCE: usize = 64;
/// For so long nobody is let in where that has failed.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Somebody listens there.
    #[error("another daemon listens at {}; end that first, or give another path with --socket", .0.display())]
    Taken(PathBuf),
    /// It could not be made.
    #[error("cannot listen at {}: {error}; --socket gives another path", path.display())]
    Failed {
        /// Where.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
}

/// The socket, and who is connected.
pub struct Server {
    listener: UnixListener,
    path: PathBuf,
    ino: u64,
    rights: Rights,
    connections: Vec<Connection>,
    next: u64,
    /// Until when nobody is let in.
    pause: Option<Instant>,
}

impl Server {
    /// Listens at a path. What a killed one left there is replaced.
    ///
    /// # Errors
    /// When somebody listens there, or it cannot be made.
    pub fn open(path: &Path, rights: Rights) -> Result<Self, OpenError> {
        let failed = |error: io::Error| OpenError::Failed { path: path.to_owned(), error };
        let directory =
            path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::DirBuilder::new().recursive(true).mode(0o755).create(directory).map_err(failed)?;
        // Of two that begin at once one finds the other's.
        let lock = File::open(directory).map_err(failed)?;
        let lock = instances::lock_within(lock, instances::PATIENCE);
        let _lock = lock.inspect_err(|error| {
            log::warn!("somebody else has locked {}, which is not waited for: {error}", directory.display());
        });
        if is_taken(path).map_err(failed)? {
            return Err(OpenError::Taken(path.to_owned()));
        }
        let listener = listen_at(path, &rights).map_err(failed)?;
        let ino = fs::symlink_metadata(path).map_err(failed)?.ino();
        let (connections, path) = (Vec::new(), path.to_owned());
        Ok(Self { listener, path, ino, rights, connections, next: 0, pause: None })
    }

    /// Where it listens.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What is to be waited for. [`Self::turn`] wants to know which of these are ready.
    #[must_use]
    pub fn interests(&self) -> Vec<PollFd<'_>> {
        let listens = if self.pause.is_some() { PollFlags::empty() } else { PollFlags::POLLIN };
        let listener = PollFd::new(self.listener.as_fd(), listens);
        let connections = self.connections.iter();
        let connections = connections.map(|connection| PollFd::new(connection.fd(), connection.interest()));
        std::iter::once(listener).chain(connections).collect()
    }

    /// When there is something to be done although nothing is ready.
    #[must_use]
    pub fn deadline(&self, now: Instant) -> Option<Instant> {
        let deadline = |connection: &Connection| {
            if connection.has_request() { Some(now) } else { connection.deadline() }
        };
        self.connections.iter().filter_map(deadline).chain(self.pause).min()
    }

    /// Exchanges what can be without waiting: of each connection one request at most. `answer` makes a line of it. The
    /// numbers of connections that have ended.
    pub fn turn(
        &mut self,
        ready: &[bool],
        now: Instant,
        mut answer: impl FnMut(&Caller, Request) -> Arc<[u8]>,
    ) -> Vec<u64> {
        let mut ended = Vec::new();
        let mut place = 0;
        self.connections.retain_mut(|connection| {
            place += 1;
            let is_ready = ready.get(place).copied().unwrap_or_default() || connection.has_request();
            let is_there = !is_ready || serve(connection, &mut answer);
            let is_late = connection.deadline().is_some_and(|deadline| deadline <= now);
            if is_there && is_late {
                let Peer { pid, uid, .. } = connection.caller.peer;
                log::warn!("process {pid} of user {uid} is too slow: its connection is closed");
            }
            let stays = is_there && !is_late && !connection.has_ended();
            if !stays {
                ended.push(connection.caller.id);
            }
            stays
        });
        if self.pause.is_some_and(|until| until <= now) {
            self.pause = None;
        }
        if ready.first().copied().unwrap_or_default() {
            self.let_in();
        }
        ended
    }

    fn let_in(&mut self) {
        for _ in 0..AT_ONCE {
            match self.listener.accept() {
                Ok((stream, _)) => self.welcome(stream),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    // Mostly there are no more descriptors. It would be ready again at once.
                    log::warn!("nobody is let in for a moment: {error}");
                    self.pause = Some(Instant::now() + PAUSE);
                    return;
                }
            }
        }
    }

    fn welcome(&mut self, stream: UnixStream) {
        let Ok(peer) = Peer::of(&stream) else { return };
        let right = self.rights.of(&peer);
        let refusal = if right == Right::None {
            Some(Refusal::new(Kind::Denied, self.denial()))
        } else {
            let there: Vec<u32> = self.connections.iter().map(|there| there.caller.peer.uid).collect();
            crowding(peer.uid, &there).map(|words| Refusal::new(Kind::Busy, words))
        };
        if let Some(refusal) = refusal {
            log::info!("process {} of user {} is refused: {refusal}", peer.pid, peer.uid);
            // As much as fits at once, which is all of it. Nobody waits for who may not ask.
            let _ = stream.set_nonblocking(true);
            let _ = (&stream).write(&line(&Reply::Error(refusal)));
            return;
        }
        self.next += 1;
        let caller = Caller { id: self.next, peer, right };
        if let Ok(connection) = Connection::new(stream, caller, Instant::now()) {
            self.connections.push(connection);
        }
    }

    fn denial(&self) -> String {
        let members = self.rights.view.map(|group| {
            let known = nix::unistd::Group::from_gid(group).ok().flatten();
            known.map_or_else(|| group.to_string(), |group| group.name)
        });
        match members {
            Some(group) => format!("only root and members of the group {group} may look at this daemon"),
            None => "only root may look at this daemon".to_owned(),
        }
    }
}

/// Why this user is not let in beside these.
fn crowding(uid: u32, there: &[u32]) -> Option<String> {
    let most = if uid == 0 { MOST + RESERVED } else { MOST };
    if there.len() >= most {
        return Some(format!("{most} others ask at this moment; try again later"));
    }
    let own = there.iter().filter(|there| **there == uid).count();
    (uid != 0 && own >= OF_ONE)
        .then(|| format!("you have {own} connections, and nobody but root has more; close some of them"))
}

/// Has a connection say what it has to say, and answers one request. False where nobody is at the other end any more.
fn serve(connection: &mut Connection, answer: &mut impl FnMut(&Caller, Request) -> Arc<[u8]>) -> bool {
    if !connection.exchange() {
        return false;
    }
    let request = connection.request();
    let has_asked = request.is_some();
    let mut is_there = true;
    if let Some(request) = request {
        let request = request.and_then(|line| parse(&line)).and_then(|request| greeted(connection, request));
        match request {
            Ok(request) => is_there = connection.answer(answer(&connection.caller.clone(), request)),
            Err(refusal) => {
                let Peer { pid, uid, .. } = connection.caller.peer;
                log::info!("process {pid} of user {uid} is refused: {refusal}");
                is_there = connection.answer(line(&Reply::Error(refusal)).into());
                connection.end();
            }
        }
    }
    // The answer may have taken long, for which it is not to blame.
    connection.note_time(Instant::now(), has_asked);
    is_there
}

/// A request of somebody who has said in which form it speaks.
fn greeted(connection: &mut Connection, request: Request) -> Result<Request, Refusal> {
    match request {
        Request::Hello { version: VERSION } => connection.is_greeted = true,
        Request::Hello { version } => {
            let message =
                format!("this daemon speaks version {VERSION}, and not {version}; take the same program");
            return Err(Refusal::new(Kind::Version, message));
        }
        _ if !connection.is_greeted => {
            return Err(Refusal::new(Kind::Version, "hello is the first request, with the version"));
        }
        _ => {}
    }
    Ok(request)
}

/// The socket of a daemon of this user's that was killed, in the place where everybody looks for one.
pub(crate) fn abandoned() -> Option<PathBuf> {
    let path = instances::own_directory()?.join(super::client::NAME);
    is_abandoned(&path).then_some(path)
}

fn is_abandoned(path: &Path) -> bool {
    path.exists() && matches!(is_taken(path), Ok(false))
}

/// Whether somebody listens there.
fn is_taken(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
        Ok(metadata) if !metadata.file_type().is_socket() => {
            return Err(io::Error::other("there is something else, which is no socket"));
        }
        Ok(_) => {}
    }
    let probe = new_socket()?;
    match connect(probe.as_raw_fd(), &UnixAddr::new(path)?) {
        // The second where many wait to be let in.
        Ok(()) | Err(Errno::EAGAIN) => Ok(true),
        Err(Errno::ECONNREFUSED | Errno::ENOENT) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

fn new_socket() -> io::Result<std::os::fd::OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    Ok(socket(AddressFamily::Unix, SockType::Stream, flags, None)?)
}

/// What a socket is called before it is put in its place. In the kernel's list it is called so ever after.
pub(super) fn in_the_making(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Makes the socket beside its place and puts it there when it is as it is to be: nobody meets one that is not.
fn listen_at(path: &Path, rights: &Rights) -> io::Result<UnixListener> {
    let new = in_the_making(path);
    match fs::symlink_metadata(&new) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
        Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(&new)?,
        Ok(_) => {
            let words = format!("{} is needed for a moment, and is no socket of ours", new.display());
            return Err(io::Error::other(words));
        }
    }
    let socket = new_socket()?;
    bind(socket.as_raw_fd(), &UnixAddr::new(&new)?)?;
    let made = || -> io::Result<()> {
        let group = rights.view.filter(|group| {
            let given = chown(&new, None, Some(group.as_raw()));
            given.inspect_err(|error| log::warn!("the socket cannot be group {group}'s: {error}")).is_ok()
        });
        let mode = if group.is_some() { 0o660 } else { 0o600 };
        fs::set_permissions(&new, fs::Permissions::from_mode(mode))?;
        // Before this nobody can connect.
        listen(&socket, Backlog::new(i32::try_from(MOST).unwrap_or(i32::MAX))?)?;
        fs::rename(&new, path)
    };
    if let Err(error) = made() {
        let _ = fs::remove_file(&new);
        return Err(error);
    }
    Ok(socket.into())
}

impl Drop for Server {
    fn drop(&mut self) {
        // Somebody may have put another one there.
        if fs::symlink_metadata(&self.path).is_ok_and(|now| now.ino() == self.ino) {
            // What the kernel refuses for once may be for want of memory, or of a moment.
            let removed = fs::remove_file(&self.path).or_else(|_| fs::remove_file(&self.path));
            if let Err(error) = removed {
                let path = self.path.display();
                log::warn!(
                    "the socket {path} cannot be removed: {error}; the next daemon puts its own in its place"
                );
            }
        }
        let directory = self.path.parent();
        if directory.is_some() && directory == instances::own_directory().as_deref() {
            // Others may have notes there.
            let _ = directory.map(fs::remove_dir);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::DaemonSettings;

    #[test]
    fn what_a_killed_one_left_is_replaced_and_what_is_somebodys_is_not() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("daemon.sock");
        let rights = || Rights::configured(&DaemonSettings::default()).0;
        // A listener that is dropped leaves its socket behind, as one that was killed does.
        drop(UnixListener::bind(&path)?);
        assert!(path.exists() && is_abandoned(&path));
        let server = Server::open(&path, rights())?;
        assert!(!is_abandoned(&path));
        assert!(matches!(Server::open(&path, rights()), Err(OpenError::Taken(_))));
        UnixStream::connect(&path)?;
        drop(server);
        assert!(!path.exists() && directory.path().exists());
        let beside = path.with_extension("new");
        fs::write(&beside, "mine")?;
        assert!(matches!(Server::open(&path, rights()), Err(OpenError::Failed { .. })));
        assert_eq!(fs::read_to_string(&beside)?, "mine");
        fs::write(&path, "mine")?;
        assert!(!is_abandoned(&path));
        assert!(matches!(Server::open(&path, rights()), Err(OpenError::Failed { .. })));
        assert_eq!(fs::read_to_string(&path)?, "mine");
        Ok(())
    }

    #[test]
    fn nobody_keeps_others_out() {
        let mut there = vec![7; OF_ONE - 1];
        assert_eq!(crowding(7, &there), None);
        there.push(7);
        assert!(crowding(7, &there).is_some() && crowding(8, &there).is_none());
        there.resize(MOST, 0);
        assert!(crowding(8, &there).is_some() && crowding(0, &there).is_none());
        there.resize(MOST + RESERVED, 0);
        assert!(crowding(0, &there).is_some());
    }
}
