//! Processes that share sockets, and what each of them sent and received.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::process;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, fork, getpid, getppid};
use serde_json::{Value, json};

/// A child that hangs ends itself after so many seconds, whatever has become of its parent.
const LIFETIME_SECONDS: u32 = 20;
/// How long the other side may take to acknowledge what it was sent.
const ACKNOWLEDGED: Duration = Duration::from_secs(5);
/// Where `tcpi_bytes_retrans` is in `struct tcp_info` (include/uapi/linux/tcp.h): behind the end of the C library's.
const BYTES_RETRANS: usize = 208;
/// Bytes per call.
const BUFFER: usize = 64 << 10;

/// What one process sent and received, in bytes of payload.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) sent: u64,
    pub(crate) received: u64,
    /// Calls that received something: with datagrams, their number.
    pub(crate) receipts: u64,
    /// Bytes that its kernel sent more than once.
    pub(crate) retransmitted: u64,
    /// Of the connections that it accepted, the other side's ports.
    pub(crate) ports: Vec<u16>,
}

impl Tally {
    /// The process's last line.
    pub(crate) fn report(&self) -> Value {
        json!({
            "pid": process::id(),
            "sent": self.sent,
            "received": self.received,
            "receipts": self.receipts,
            "retransmitted": self.retransmitted,
            "ports": self.ports,
        })
    }

    /// Sends so many bytes.
    pub(crate) fn send(&mut self, mut stream: &TcpStream, bytes: u64) -> anyhow::Result<()> {
        let piece = vec![b'x'; BUFFER];
        let mut left = bytes;
        while left > 0 {
            let length = usize::try_from(left)?.min(BUFFER);
            stream.write_all(&piece[..length]).context("cannot send")?;
            left -= length as u64;
        }
        self.sent += bytes;
        Ok(())
    }

    /// Receives so many bytes, or to the end of the connection.
    pub(crate) fn receive(&mut self, mut stream: &TcpStream, bytes: Option<u64>) -> anyhow::Result<()> {
        let mut buffer = vec![0; BUFFER];
        let mut left = bytes.unwrap_or(u64::MAX);
        while left > 0 {
            let most = usize::try_from(left)?.min(BUFFER);
            match stream.read(&mut buffer[..most]) {
                Ok(0) if bytes.is_none() => break,
                Ok(0) => bail!("the connection ended {left} bytes early"),
                Ok(length) => {
                    self.received += length as u64;
                    self.receipts += 1;
                    left -= length as u64;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("cannot receive"),
            }
        }
        Ok(())
    }

    /// Sends so many bytes, closes that half, and receives what comes to the end.
    pub(crate) fn use_up(&mut self, stream: &TcpStream, bytes: u64) -> anyhow::Result<()> {
        self.send(stream, bytes)?;
        stream.shutdown(Shutdown::Write)?;
        self.receive(stream, None)?;
        self.note_retransmissions(stream)
    }

    /// Adds what was sent more than once on a connection, by anybody: to be called at its end.
    pub(crate) fn note_retransmissions(&mut self, stream: &TcpStream) -> anyhow::Result<()> {
        self.retransmitted += retransmitted(stream)?;
        Ok(())
    }
}

/// The bytes that the kernel has sent more than once on a connection.
pub(crate) fn retransmitted(stream: &TcpStream) -> anyhow::Result<u64> {
    let mut info = [0_u8; BYTES_RETRANS + 8];
    let mut length = libc::socklen_t::try_from(info.len())?;
    let (fd, address) = (stream.as_raw_fd(), info.as_mut_ptr().cast());
    // SAFETY: the kernel writes at most `length` bytes.
    let result = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, address, &raw mut length) };
    Errno::result(result).context("TCP_INFO")?;
    let bytes = info[BYTES_RETRANS..].try_into().expect("eight bytes");
    Ok(u64::from_ne_bytes(bytes))
}

/// Who a child lives for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// It is killed when its parent ends.
    ParentEnds,
    /// It goes on without one.
    Done,
}

/// A forked child.
pub(crate) struct Child(Pid);

impl Child {
    /// Its pid, until it has been waited for.
    pub(crate) fn pid(&self) -> Pid {
        self.0
    }

    /// Waits for its end.
    pub(crate) fn wait(self) -> anyhow::Result<()> {
        match waitpid(self.0, None)? {
            WaitStatus::Exited(_, 0) => Ok(()),
            other => bail!("a child failed: {other:?}"),
        }
    }
}

/// Starts a process that has every descriptor open that this one has, without `exec`, as servers do. It prints its
/// tally.
pub(crate) fn fork_off(until: Until, work: impl FnOnce() -> anyhow::Result<Tally>) -> anyhow::Result<Child> {
    fork_off_as(None, until, work)
}

/// The same with a pid that has been somebody's before.
pub(crate) fn fork_off_as(
    pid: Option<Pid>,
    until: Until,
    work: impl FnOnce() -> anyhow::Result<Tally>,
) -> anyhow::Result<Child> {
    let parent = getpid();
    // SAFETY: this program has one thread, so that the child may do whatever the parent might.
    match unsafe { pid.map_or_else(|| fork(), |pid| fork_as(pid)) }.context("cannot fork")? {
        ForkResult::Parent { child } => Ok(Child(child)),
        ForkResult::Child => {
            let tally = begin(until, parent).and_then(|()| work());
            process::exit(match tally {
                Ok(tally) => {
                    println!("{}", tally.report());
                    0
                }
                Err(error) => {
                    eprintln!("traffic {}: {error:#}", process::id());
                    1
                }
            })
        }
    }
}

/// What `fork` does, for a child of this pid (`clone(2)`, `set_tid`).
///
/// # Safety
/// That of `fork`.
unsafe fn fork_as(pid: Pid) -> nix::Result<ForkResult> {
    let pid = pid.as_raw();
    // SAFETY: zeros ask for nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = Signal::SIGCHLD as u64;
    arguments.set_tid = (&raw const pid) as u64;
    arguments.set_tid_size = 1;
    // SAFETY: the arguments, and what they point to, live through the call. Without a stack of its own the child goes
    // on with a copy of ours.
    let result =
        unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    Ok(match Errno::result(result)? {
        0 => ForkResult::Child,
        _ => ForkResult::Parent { child: Pid::from_raw(pid) },
    })
}

/// Sees to it that a child ends.
fn begin(until: Until, parent: Pid) -> anyhow::Result<()> {
    alarm::set(LIFETIME_SECONDS);
    if until == Until::ParentEnds {
        set_pdeathsig(Signal::SIGKILL)?;
        ensure!(getppid() == parent, "the parent was gone before the child began");
    }
    Ok(())
}

/// How many bytes the other side has not acknowledged.
pub(crate) fn unacknowledged(stream: &TcpStream) -> anyhow::Result<u64> {
    let mut queued: libc::c_int = 0;
    // SAFETY: this request, SIOCOUTQ by another name, writes an int.
    let result = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut queued) };
    Errno::result(result).context("cannot ask for the length of the queue")?;
    Ok(queued.try_into()?)
}

/// Waits until the other side has acknowledged everything: nothing of it leaves in anybody else's name.
pub(crate) fn wait_until_acknowledged(stream: &TcpStream) -> anyhow::Result<()> {
    let deadline = Instant::now() + ACKNOWLEDGED;
    loop {
        let queued = unacknowledged(stream)?;
        if queued == 0 {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{queued} bytes were never acknowledged");
        std::thread::sleep(Duration::from_millis(1));
    }
}
