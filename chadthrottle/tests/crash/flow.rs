//! What is limited: a process that sends by one connection and receives by another, as fast as it can.

use std::{
    fs,
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    os::fd::AsFd,
    path::Path,
    process::{Child, Stdio},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use chadthrottle::sys::{
    socket_tag::{Field, TaggedSocket},
    tcp_socket::TcpSocket,
};
use nix::sys::socket::{setsockopt, sockopt::TcpCongestion};
use testbed::{Family, Testbed, at_least};

/// Makes this program that process: it sends to its input, and reads from its output.
pub(super) const MODE: &str = "carry-until-closed";

/// What a socket of it has set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Options {
    pacing: u64,
    window: u32,
    is_locked: bool,
    priority: u32,
    mark: u32,
}

/// Of both sockets.
#[derive(Debug)]
pub(super) struct AllOptions([Options; 2]);

impl AllOptions {
    /// Whether they are as they were: a window opens further by itself.
    pub(super) fn are_as(&self, before: &Self) -> bool {
        let both = self.0.iter().zip(&before.0);
        both.into_iter()
            .all(|(now, then)| now.window >= then.window && Options { window: then.window, ..*now } == *then)
    }
}

/// The process, and our ends.
pub(super) struct Flow {
    process: Child,
    /// Its sockets: the one that it sends by, and the one that it receives by.
    near: [TcpStream; 2],
    received: Arc<AtomicU64>,
}

impl Flow {
    /// Starts it on the bed's client, and waits until it is at full speed.
    pub(super) fn start(bed: &Testbed) -> anyhow::Result<Self> {
        let (up, far_up) = connection(bed)?;
        let (down, far_down) = connection(bed)?;
        let received = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&received);
        thread::spawn(move || drain(far_up, &count));
        thread::spawn(move || fill(far_down));
        let mut command = bed.client().command(std::env::current_exe()?);
        let process = command
            .arg(MODE)
            .stdin(Stdio::from(up.as_fd().try_clone_to_owned()?))
            .stdout(Stdio::from(down.as_fd().try_clone_to_owned()?))
            .spawn()?;
        let flow = Self { process, near: [up, down], received };
        testbed::until("the flow is at full speed", super::PATIENCE, || {
            let rates = flow.rates(Duration::from_millis(50))?;
            Ok(rates.iter().all(|rate| *rate > at_least(super::FREE)).then_some(()))
        })?;
        Ok(flow)
    }

    pub(super) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Payload a second that it sends and receives, over some time.
    pub(super) fn rates(&self, during: Duration) -> anyhow::Result<[f64; 2]> {
        let counted = || -> anyhow::Result<[u64; 2]> {
            Ok([self.received.load(Ordering::Relaxed), tcp(&self.near[1])?.info()?.received])
        };
        let (start, before) = (Instant::now(), counted()?);
        thread::sleep(during);
        let (seconds, after) = (start.elapsed().as_secs_f64(), counted()?);
        #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
        let rate = |direction: usize| (after[direction] - before[direction]) as f64 / seconds;
        Ok([rate(0), rate(1)])
    }

    pub(super) fn options(&self) -> anyhow::Result<AllOptions> {
        let of = |stream: &TcpStream| -> anyhow::Result<Options> {
            let tags = TaggedSocket::new(stream.as_fd().try_clone_to_owned()?).context("it is a socket")?;
            let socket = tcp(stream)?;
            Ok(Options {
                pacing: socket.info()?.max_pacing_rate,
                window: socket.window_clamp()?,
                is_locked: socket.receive_buffer_locked()?,
                priority: tags.field(Field::Priority)?,
                mark: tags.field(Field::Mark)?,
            })
        };
        Ok(AllOptions([of(&self.near[0])?, of(&self.near[1])?]))
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn tcp(stream: &TcpStream) -> anyhow::Result<TcpSocket> {
    TcpSocket::new(stream.as_fd().try_clone_to_owned()?).context("it is one")
}

/// One connection from the client to the server, both ends in this process.
fn connection(bed: &Testbed) -> anyhow::Result<(TcpStream, TcpStream)> {
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let to = listener.local_addr()?;
    // A socket is of the cgroup that it is made in, whoever uses it: of another one no program would see its packets.
    let near = within(bed.cgroup_root(), || bed.client().run(move || Ok(TcpStream::connect(to)?)))?;
    let (far, _) = listener.accept()?;
    // Not one that remembers for long how slow it was.
    for stream in [&near, &far] {
        setsockopt(stream, TcpCongestion, &"cubic".into())?;
    }
    Ok((near, far))
}

/// Does something while this process is in a cgroup directly below the root of its tree.
fn within<T>(cgroup: &Path, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let all = fs::read_to_string("/proc/self/cgroup")?;
    let home = all.lines().find_map(|line| line.strip_prefix("0::/")).context("there is cgroup v2")?;
    let home = cgroup.parent().context("it is below the root")?.join(home);
    let enter = |cgroup: &Path| fs::write(cgroup.join("cgroup.procs"), std::process::id().to_string());
    enter(cgroup)?;
    let done = work();
    enter(&home)?;
    done
}

fn drain(mut from: impl Read, count: &AtomicU64) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        count.fetch_add(length as u64, Ordering::Relaxed);
    }
}

fn fill(mut to: impl Write) {
    let buffer = vec![0; 64 << 10];
    while to.write_all(&buffer).is_ok() {}
}

/// The process itself.
pub(super) fn carry() -> anyhow::Result<()> {
    let up = TcpStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let down = TcpStream::from(io::stdout().as_fd().try_clone_to_owned()?);
    let sending = thread::spawn(move || fill(up));
    drain(down, &AtomicU64::new(0));
    // Ended with the other one.
    drop(sending);
    Ok(())
}
