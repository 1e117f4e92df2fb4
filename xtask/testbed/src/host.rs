//! One host of the bed: its addresses, and ways to run something on it.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use anyhow::Context;
use nix::unistd::{Pid, getpid};

use crate::{netns::Netns, parent::end_with};

/// The version of IP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// Both, for tests that loop over them.
    pub const ALL: [Self; 2] = [Self::V4, Self::V6];
}

/// One host of the bed.
#[derive(Debug)]
pub struct Host {
    pub(crate) netns: Netns,
    pub(crate) interfaces: Vec<&'static str>,
    pub(crate) addresses: [IpAddr; 2],
    /// The router's addresses; none for the router.
    pub(crate) gateways: Option<[IpAddr; 2]>,
    /// `cgroup.procs` of the cgroup that commands run in; none where they stay in that of the test.
    pub(crate) cgroup: Option<Arc<File>>,
}

impl Host {
    /// The name of its network namespace, for `ip -n` and `tc -n`.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.netns.name()
    }

    /// The names of its interfaces besides `lo`. Client and server have one, the router has that to the client first.
    #[must_use]
    pub fn interfaces(&self) -> &[&'static str] {
        &self.interfaces
    }

    /// Its address (the router's: the one that the client sees).
    #[must_use]
    pub fn address(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => self.addresses[0],
            Family::V6 => self.addresses[1],
        }
    }

    /// Its address with a port; port 0 is any free one.
    #[must_use]
    pub fn socket_address(&self, family: Family, port: u16) -> SocketAddr {
        SocketAddr::new(self.address(family), port)
    }

    /// A command that runs on this host, and on the client in the bed's cgroup.
    ///
    /// It dies with the thread that spawns it, so that a killed test leaves nothing running: spawn it from a thread
    /// that lives as long as it should, never within [`Host::run`].
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        command(program.as_ref(), self.netns.clone(), self.cgroup.clone())
    }

    /// The same in another cgroup, e.g. one that [`crate::Testbed::cgroup`] made.
    ///
    /// # Errors
    ///
    /// That the directory is no cgroup to which processes can be moved.
    pub fn command_in(&self, cgroup: &Path, program: impl AsRef<OsStr>) -> anyhow::Result<Command> {
        Ok(command(program.as_ref(), self.netns.clone(), Some(open_cgroup(cgroup)?)))
    }

    /// Runs a closure on a fresh thread that is on this host, so that sockets it opens are too.
    ///
    /// Read `/proc/thread-self/net` there, not `/proc/net`: that is the network of the process's main thread.
    ///
    /// # Errors
    ///
    /// What the closure failed with, or that the namespace could not be entered.
    ///
    /// # Panics
    ///
    /// Where the closure does.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
        let enter = || self.netns.enter().with_context(|| format!("cannot enter {}", self.namespace()));
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| enter().and_then(|()| work()));
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Writes a network setting of this host, e.g. `net.ipv4.tcp_ecn`.
    ///
    /// # Errors
    ///
    /// That there is no such setting, or that it does not take the value.
    pub fn set_sysctl(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = format!("/proc/sys/{}", name.replace('.', "/"));
        // What is below /proc/sys/net depends on the thread that opens it, hence `run`.
        self.run(|| fs::write(&path, value).with_context(|| format!("cannot write {value:?} to {path}")))
    }

    /// Sets what connections made from now on use to avoid congestion: `cubic`, `bbr` or `reno`. The sender's matters.
    ///
    /// # Errors
    ///
    /// That this kernel does not have it, or that this is the router, which makes no connections.
    pub fn set_congestion_control(&self, name: &str) -> anyhow::Result<()> {
        let gateways = self.gateways.context("the router has no way to the other hosts but its links")?;
        // By the route, since the sysctl takes in a namespace only what tcp_allowed_congestion_control has, and that
        // is the whole machine's.
        self.netns
            .ip(&gateways.map(|gateway| format!("route replace {} congctl {name}", default_route(gateway))))?;
        Ok(())
    }
}

/// The way to everything else, as arguments of `ip route`.
pub(crate) fn default_route(gateway: IpAddr) -> String {
    let all = if gateway.is_ipv4() { "0.0.0.0/0" } else { "::/0" };
    format!("{all} via {gateway}")
}

/// Opens `cgroup.procs` of a cgroup, to write processes to.
pub(crate) fn open_cgroup(cgroup: &Path) -> anyhow::Result<Arc<File>> {
    let path = cgroup.join("cgroup.procs");
    let file = OpenOptions::new().write(true).open(&path);
    Ok(Arc::new(file.with_context(|| format!("cannot open {}", path.display()))?))
}

fn command(program: &OsStr, netns: Netns, cgroup: Option<Arc<File>>) -> Command {
    let mut command = Command::new(program);
    let parent = getpid();
    // SAFETY: between fork and exec only async-signal-safe calls are allowed. Those made here are prctl, getppid,
    // write and setns, on descriptors opened before; nothing allocates or takes a lock.
    unsafe { command.pre_exec(move || enter(parent, &netns, cgroup.as_deref())) };
    command
}

/// What a child does before it becomes the program.
fn enter(parent: Pid, netns: &Netns, cgroup: Option<&File>) -> io::Result<()> {
    end_with(parent)?;
    if let Some(mut procs) = cgroup {
        // Zero is the process that writes.
        procs.write_all(b"0")?;
    }
    netns.enter()
}
