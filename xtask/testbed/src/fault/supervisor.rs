//! Who decides: a thread of ours for each command.

use std::collections::HashMap;
use std::fs;
use std::io::{self, PipeReader, PipeWriter, Read, Write, pipe};
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread;

use nix::errno::Errno;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::{Pid, getpid};

use super::calls::{self, TRAPPED};
use super::netlink::{Answer, Request};
use super::{How, Place, Shared, filter};

/// How often to look whether anybody still wants us to decide, in milliseconds.
const LOOK: u16 = 50;

/// Gives a command its filter, and decides from then on.
pub(super) fn start(command: &mut Command, shared: &Arc<Shared>) -> io::Result<()> {
    // Pipes, because what is sent over sockets waits for us already.
    let (is_filtered, tells) = pipe()?;
    let (may_go_on, lets_go) = pipe()?;
    let program = filter::program(TRAPPED);
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. Those made here are seccomp, getpid, read,
    // write and close, on what was made before; nothing allocates or takes a lock.
    unsafe { command.pre_exec(move || hand_over(&tells, &may_go_on, &program)) };
    let shared = Arc::clone(shared);
    thread::Builder::new().name("faults".into()).spawn(move || {
        if let Ok((program, listener)) = take_over(is_filtered, lets_go) {
            Supervisor {
                shared: &shared,
                program,
                listener,
                awaited: HashMap::new(),
                groups: HashMap::new(),
            }
            .run();
        }
        shared.is_over.store(true, Ordering::Release);
    })?;
    Ok(())
}

/// The child's part: pid and descriptor go to the parent, which takes the latter before it goes with the exec.
fn hand_over(
    mut tells: &PipeWriter,
    mut may_go_on: &PipeReader,
    program: &[libc::sock_filter],
) -> io::Result<()> {
    let listener = filter::install(program)?;
    let mut words = [0; 8];
    words[..4].copy_from_slice(&getpid().as_raw().to_ne_bytes());
    words[4..].copy_from_slice(&listener.as_raw_fd().to_ne_bytes());
    tells.write_all(&words)?;
    may_go_on.read_exact(&mut [0])
}

fn take_over(mut is_filtered: PipeReader, mut lets_go: PipeWriter) -> io::Result<(Pid, OwnedFd)> {
    let mut words = [0; 8];
    // Ends without them with the command, where that fails to start.
    is_filtered.read_exact(&mut words)?;
    let word = |at: usize| i32::from_ne_bytes([words[at], words[at + 1], words[at + 2], words[at + 3]]);
    let (pid, theirs): (libc::pid_t, RawFd) = (word(0), word(4));
    // SAFETY: numbers only.
    let process = owned(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: numbers only; the descriptor of the process lives.
    let listener = owned(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), theirs, 0) })?;
    lets_go.write_all(&[1])?;
    Ok((Pid::from_raw(pid), listener))
}

fn owned(result: libc::c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for us, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// What is to come of a call.
enum Verdict {
    /// What always does.
    Continue,
    Fail(Errno),
    Return(i64),
}

struct Supervisor<'a> {
    shared: &'a Shared,
    program: Pid,
    listener: OwnedFd,
    /// Answers of ours, by process and descriptor.
    awaited: HashMap<(Pid, u64), Answer>,
    /// The processes of threads.
    groups: HashMap<u32, Pid>,
}

impl Supervisor<'_> {
    /// Until nobody is left whose calls wait for us.
    fn run(&mut self) {
        while !self.shared.is_dropped.load(Ordering::Acquire) {
            let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
            if poll(&mut fds, PollTimeout::from(LOOK)).is_err() {
                continue;
            }
            let events = fds[0].revents().unwrap_or(PollFlags::empty());
            if events.contains(PollFlags::POLLIN) {
                if let Some(call) = self.next() {
                    let verdict = self.decide(&call);
                    self.answer(call.id, &verdict);
                }
            } else if events.contains(PollFlags::POLLHUP) {
                return;
            }
        }
    }

    /// The next call that waits; none where whoever made it has been killed.
    fn next(&self) -> Option<libc::seccomp_notif> {
        // SAFETY: a structure of numbers, for which zeros are valid.
        let mut call: libc::seccomp_notif = unsafe { zeroed() };
        // SAFETY: the pointer is to a live structure of the kind that this command fills.
        let result =
            unsafe { libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut call) };
        (result == 0).then_some(call)
    }

    fn answer(&self, id: u64, verdict: &Verdict) {
        let mut response = libc::seccomp_notif_resp { id, val: 0, error: 0, flags: 0 };
        match *verdict {
            Verdict::Continue => {
                response.flags = u32::try_from(libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE).unwrap_or_default();
            }
            Verdict::Fail(errno) => response.error = -(errno as i32),
            Verdict::Return(value) => response.val = value,
        }
        // SAFETY: the pointer is to a live structure of the kind that this command reads.
        unsafe {
            // Whoever waited may have been killed.
            libc::ioctl(self.listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut response);
        }
    }

    fn decide(&mut self, call: &libc::seccomp_notif) -> Verdict {
        let (thread, arguments) = (call.pid, call.data.args);
        let group = self.group(thread);
        let number = libc::c_long::from(call.data.nr);
        let Some(trapped) = TRAPPED.iter().find(|trapped| trapped.number == number) else {
            return Verdict::Continue;
        };
        if trapped.name == "recvfrom"
            && let Some(answer) = self.awaited.remove(&(group, arguments[0]))
        {
            let delivered = answer.deliver(group, &arguments);
            return delivered.map_or(Verdict::Fail(Errno::EFAULT), Verdict::Return);
        }
        let request = (trapped.name == "netlink").then(|| Request::read(group, arguments[1])).flatten();
        let name = request.as_ref().map(|request| calls::netlink_name(request.kind));
        let name = name.unwrap_or_else(|| calls::name(trapped, &arguments));
        match self.shared.take(&Place { is_childs: group != self.program, call: name }) {
            None => Verdict::Continue,
            Some(How::Fails(errno)) => Verdict::Fail(errno),
            Some(How::Answered(errno)) => match request {
                Some(request) => {
                    self.awaited.insert((group, arguments[0]), request.answer(errno));
                    Verdict::Return(i64::try_from(arguments[2]).unwrap_or_default())
                }
                None => Verdict::Fail(errno),
            },
        }
    }

    /// The process that a thread is of.
    fn group(&mut self, thread: u32) -> Pid {
        let read = |thread: u32| {
            let status = fs::read_to_string(format!("/proc/{thread}/status")).ok()?;
            let group = status.lines().find_map(|line| line.strip_prefix("Tgid:"))?;
            group.trim().parse().ok().map(Pid::from_raw)
        };
        // A number may be used again, but hardly so within one command.
        *self.groups.entry(thread).or_insert_with(|| {
            read(thread).unwrap_or_else(|| Pid::from_raw(i32::try_from(thread).unwrap_or_default()))
        })
    }
}
