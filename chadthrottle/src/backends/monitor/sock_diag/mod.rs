//! What an ordinary user may see: the kernel's own counters of TCP sockets (`sock_diag`), and one's own processes.
//!
//! At every reading the kernel lists the TCP sockets of this network namespace, each with its `tcp_info`; what a
//! socket has counted since the last reading goes to the process that has it open. When a socket ends, the kernel
//! sends its last counters, so that nothing between the last reading and the end is missing.
//!
//! What is counted are IP bytes, put together from payload and segments: `tcpi_bytes_sent` and `tcpi_segs_out` times
//! the headers of a segment, and the same for what was received. Against an interface's own counters, 40 MB each way:
//! within 0.2 % in both directions without loss, and within 0.2 % of the data and 3 % of the acknowledgements that flow
//! back with 1 and 3 % of the packets lost. What makes the difference:
//!
//! - options beyond timestamps: selective acknowledgements, and 8 to 20 bytes in the first segment of each direction;
//! - payload that arrives a second time, of which only the headers are counted;
//! - segments of no socket: the handshake of a connection that is being accepted, resets, what arrives in `TIME_WAIT`.
//!
//! The cost grows with sockets, at 3 to 4 µs each and reading (0.6 to 0.8 % of one CPU for 2,000 at one a second), and
//! with processes that use the network, at some 70 µs each. A search for owners is made only for new sockets.
//!
//! What it does not see:
//!
//! - **UDP** (and with it QUIC and DNS), ICMP, and anything else that is not TCP. The kernel counts no bytes for them.
//! - **Whose a connection of another user is**, without privilege: its bytes are in `unattributed`. The same is true of
//!   a program of one's own that has given up or been given privileges (it is not `dumpable`, ptrace(2)).
//! - **Whose a connection was that came and went between two readings**: its bytes are in `unattributed` too.
//! - **Other network namespaces**, those of containers for instance: run it there.
//! - Notes of sockets that ended, when more of them come between two readings than the kernel keeps for us (13,000
//!   for root, some 300 for an ordinary user with the usual `net.core.rmem_max`): `lost_events` tells how often that was
//!   so.
//! - With a cgroup given: anything of a process that is not known, which may be below it or not.
//! - Which of several processes used a socket that they share: it counts for the oldest of them, until that one ends.

mod processes;
pub(crate) mod socket;
mod table;

use std::{io, time::Instant};

use nix::unistd::geteuid;

use self::{
    processes::Processes,
    socket::Socket,
    table::{Beginning, Table},
};
use super::{MonitorBackend, socket_owners::SocketOwners};
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle},
    process::KnownNames,
    stats::{Buckets, Sample, Traffic},
    sys::{
        capability::{self, SYS_PTRACE},
        cgroup::CgroupRoot,
        sock_diag::{SocketDump, SocketEnds},
    },
};

/// Name on the command line.
pub const NAME: &str = "sock_diag";
/// It sees a part of the traffic.
pub const PRIORITY: BackendPriority = BackendPriority::Fallback;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { udp: false, ..BackendCapabilities::ALL_TRAFFIC };
/// The monitor.
#[derive(Debug)]
pub struct SockDiagMonitor {
    options: BackendOptions,
    running: Option<Running>,
}

/// What it holds from `init` on.
#[derive(Debug)]
struct Running {
    dump: SocketDump,
    /// None where the kernel does not let us listen; then what comes after a socket's last reading is missing.
    ends: Option<SocketEnds>,
    owners: SocketOwners,
    table: Table,
    processes: Processes,
    names: KnownNames,
    /// How often notes of sockets that ended have been lost.
    overflows: u64,
    /// When the last reading began.
    read_at: Instant,
    scope: Scope,
}

/// Which sockets are of interest.
#[derive(Clone, Copy, Debug)]
struct Scope {
    include_loopback: bool,
    /// Whether everybody's processes can be looked into, and not only one's own.
    everybody: bool,
    /// Whether only some processes are asked for. Then what belongs to none that we know of may be anybody's.
    is_partial: bool,
}

impl SockDiagMonitor {
    /// A monitor that has not asked the kernel for anything yet.
    #[must_use]
    pub fn new(options: &BackendOptions) -> Self {
        Self { options: options.clone(), running: None }
    }
}

impl Running {
    fn start(options: &BackendOptions) -> io::Result<Self> {
        // Before the first reading: from here on no end is missed.
        let ends = SocketEnds::listen()
            .inspect_err(|error| log::warn!("the last bytes of a connection are not counted: {error}"))
            .ok();
        let root = match options.cgroup_root.as_deref() {
            Some(path) => Some(CgroupRoot::open(Some(path)).map_err(io::Error::other)?),
            None => None,
        };
        let everybody = capability::first_missing(&[SYS_PTRACE]).is_none();
        let mut running = Self {
            dump: SocketDump::open()?,
            ends,
            scope: Scope {
                include_loopback: options.include_loopback,
                everybody,
                is_partial: root.is_some(),
            },
            owners: SocketOwners::new(root),
            table: Table::default(),
            processes: Processes::default(),
            names: KnownNames::default(),
            overflows: 0,
            read_at: Instant::now(),
        };
        running.read(Beginning::Now)?;
        Ok(running)
    }

    fn update(&mut self) -> io::Result<Sample> {
        // The ends come first: a socket that is in the reading after them has not ended yet.
        self.read_ends()?;
        self.read(Beginning::Zero)?;
        self.processes.refresh(&self.table, &mut self.names);
        Ok(Sample {
            processes: self.processes.traffic(&self.table),
            buckets: Buckets {
                unknown: if self.scope.is_partial { Traffic::default() } else { self.table.unattributed },
                ..Buckets::default()
            },
            interfaces: Vec::new(),
            lost_events: self.overflows,
        })
    }

    fn read_ends(&mut self) -> io::Result<()> {
        let Some(ends) = &mut self.ends else { return Ok(()) };
        let (table, scope, since_reading) = (&mut self.table, self.scope, self.read_at.elapsed());
        self.overflows += ends.drain(|response| {
            if let Some(socket) = Socket::read(&response).filter(|socket| scope.covers(socket)) {
                table.ended(&socket, since_reading);
            }
        })?;
        Ok(())
    }

    fn read(&mut self, beginning: Beginning) -> io::Result<()> {
        self.read_at = Instant::now();
        let (table, processes, scope, uid) =
            (&mut self.table, &self.processes, self.scope, geteuid().as_raw());
        table.begin();
        self.dump.tcp(|response| {
            if let Some(socket) = Socket::read(&response).filter(|socket| scope.covers(socket)) {
                let may_be_found = scope.everybody || socket.uid == uid;
                table.read(&socket, beginning, may_be_found, |id| processes.has_ended(id));
            }
        })?;
        table.end();
        let sought = table.sought();
        if !sought.is_empty() && self.owners.rest().is_none() {
            let findings = self.owners.search(&sought);
            table.found(&findings.ids().collect());
            for info in findings.infos {
                self.processes.insert(info);
            }
        }
        Ok(())
    }
}

impl Scope {
    const fn covers(self, socket: &Socket) -> bool {
        self.include_loopback || !socket.is_loopback
    }
}

impl MonitorBackend for SockDiagMonitor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        let unavailable = |cause: String, remedy: &str| {
            Availability::Unavailable(Obstacle::Host { cause, remedy: remedy.to_owned() })
        };
        if !options.interfaces.is_empty() {
            let cause = "it cannot tell which interface a connection uses, as --interface asks for".into();
            return unavailable(cause, "leave that out, or have ebpf or pnet watch, which need root");
        }
        // To open it loads no module; to ask might.
        if let Err(error) = SocketDump::open() {
            let cause = format!("the kernel's sock_diag interface cannot be opened: {error}");
            return unavailable(cause, "use a kernel with CONFIG_INET_DIAG, outside of a sandbox");
        }
        if let Some(path) = &options.cgroup_root
            && let Err(error) = CgroupRoot::open(Some(path))
        {
            return unavailable(error.to_string(), "only processes in that cgroup were to be seen");
        }
        Availability::Available
    }

    fn capabilities(&self) -> BackendCapabilities {
        CAPABILITIES
    }

    fn init(&mut self) -> Result<(), BackendError> {
        self.running = Some(Running::start(&self.options).map_err(failed)?);
        Ok(())
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(&self.options).map_err(failed)?),
        };
        running.update().map_err(failed)
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        self.running = None;
        Ok(())
    }
}

fn failed(error: io::Error) -> BackendError {
    let step = "list the TCP sockets".to_owned();
    BackendError::Kernel { backend: NAME, step, cause: error.into() }
}
