//! The headers of all packets, from packet sockets: for kernels that have no eBPF.
//!
//! Packets of every interface come through [pnet](https://docs.rs/pnet_datalink)'s channels. A filter in the kernel
//! lets only their beginning through, and only where a socket's packet is to be counted: once, however many interfaces
//! it passes. Whose a packet is the kernel is asked, by addresses and ports, once for each flow; which process has
//! that socket, /proc is.
//!
//! What is counted are IP bytes as they travel. The kernel tells of a super-packet on an Ethernet link into how many
//! segments it is cut, each with its own headers. On other links (tunnels, PPP) it does not; there the segments are
//! taken to be as long as the link allows, which is wrong by at most the headers of those that are shorter.
//!
//! What it does not see, or not as it is:
//!
//! - **Other network namespaces**, those of containers for instance: their packets pass as nobody's. Run it there.
//! - **Whose the packets of other protocols are** (ICMP, raw sockets, tunnels of the kernel): they count for nobody.
//! - **Whose it was that came and went** before /proc could be read, which takes some milliseconds: nobody's.
//! - Which of several processes used a socket that they share: it counts for the oldest of them, until it closes it.
//! - `IPsec`: what leaves is seen encrypted, and so as nobody's; what arrives both ways.
//! - What a firewall or a limit throws away after it arrived counts as received.

mod capture;
mod filter;
mod flow;
mod fragments;
mod frame;
mod interfaces;
mod ip;
mod ledger;
mod resolver;

use std::{
    collections::HashMap,
    io,
    path::Path,
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::{Context, anyhow};
use nix::sys::utsname::uname;

use self::{
    capture::{Capture, Control, Sockets},
    filter::Scope,
    interfaces::Interfaces,
    ledger::Known,
    resolver::{Resolver, Shared},
};
use super::{MonitorBackend, socket_owners::SocketOwners};
use crate::{
    backends::{Availability, BackendCapabilities, BackendError, BackendOptions, BackendPriority, Obstacle},
    process::{KnownNames, ProcessId, ProcessInfo},
    stats::{Buckets, ProcessMap, ProcessTraffic, Sample, Traffic},
    sys::{
        capability::{self, DAC_READ_SEARCH, NET_RAW, SYS_PTRACE},
        cgroup::CgroupRoot,
        socket_lookup::SocketLookup,
    },
};

/// Name on the command line.
pub const NAME: &str = "pnet";
/// It sees everything, and has to be told of every packet.
pub const PRIORITY: BackendPriority = BackendPriority::Good;
/// What it covers.
pub const CAPABILITIES: BackendCapabilities = BackendCapabilities::ALL_TRAFFIC;

/// The first kernel that can describe segmented UDP in front of a frame (`virtio_net_hdr_from_skb`).
const UDP_OFFLOAD_HEADER: (u32, u32) = (6, 2);

/// What holds of whatever is captured: an Ethernet frame behind what offload says of it, or a packet without both.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(bytes: &[u8]) {
    const MTU: u32 = 1500;
    if let Some(packet) = frame::fuzz(bytes) {
        ip::fuzz(packet, MTU);
    }
    ip::fuzz(bytes, bytes.len().try_into().unwrap_or(MTU));
}

/// The monitor.
pub struct PnetMonitor {
    options: BackendOptions,
    running: Option<Running>,
}

/// What it holds from `init` on.
struct Running {
    shared: Arc<Shared>,
    sockets: Arc<Sockets>,
    control: Arc<Control>,
    threads: Vec<JoinHandle<()>>,
    names: KnownNames,
    lost: u64,
    /// Whether only some processes are asked for. Then what belongs to none that we know of may be anybody's.
    is_partial: bool,
}

impl PnetMonitor {
    /// A monitor that has not opened anything yet.
    #[must_use]
    pub fn new(options: &BackendOptions) -> Self {
        Self { options: options.clone(), running: None }
    }
}

impl Running {
    fn start(options: &BackendOptions) -> anyhow::Result<Self> {
        let root = match options.cgroup_root.as_deref() {
            Some(path) => Some(CgroupRoot::open(Some(path))?),
            None => None,
        };
        let is_partial = root.as_ref().is_some_and(|root| root.in_tree != "/");
        let mut lookup = SocketLookup::open().context("cannot ask the kernel for sockets")?;
        lookup.check().context("the kernel does not tell whose sockets are (CONFIG_INET_DIAG)")?;
        let shared = Arc::new(Shared::default());
        let mut scope = Scope {
            include_loopback: options.include_loopback,
            udp_has_offload_header: kernel_version().is_none_or(|version| version >= UDP_OFFLOAD_HEADER),
            excluded_upload: Vec::new(),
            excluded_download: Vec::new(),
        };
        let mut interfaces = Interfaces::open(&options.interfaces)?;
        shared.set_addresses(interfaces.read(&mut scope).context("cannot list the interfaces")?);
        let (capture, sockets, control) =
            Capture::open(&scope, Arc::clone(&shared)).context("cannot open packet sockets")?;
        let sockets = Arc::new(sockets);
        let resolver = Resolver {
            shared: Arc::clone(&shared),
            lookup,
            owners: SocketOwners::new(root),
            refresh: Box::new(refresher(interfaces, scope, &shared, &sockets)),
        };
        let mut running = Self {
            shared,
            sockets,
            control,
            threads: Vec::new(),
            names: KnownNames::default(),
            lost: 0,
            is_partial,
        };
        running.spawn("pnet-capture", move || capture.run())?;
        running.spawn("pnet-resolve", move || resolver.run())?;
        Ok(running)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads.push(thread::Builder::new().name(name.into()).stack_size(STACK).spawn(work)?);
        Ok(())
    }

    fn update(&mut self) -> anyhow::Result<Sample> {
        if self.threads.iter().any(JoinHandle::is_finished) {
            return Err(anyhow!("a thread has ended; the log says why"));
        }
        // Who is alive is asked first, and then all is counted that was sent until then: the last bytes of a process
        // are in the sample that says it has ended.
        let mut processes = self.shared.with(|ledger| ledger.processes.clone());
        for (id, known) in &mut processes {
            known.alive = known.alive && id.is_alive();
        }
        self.control.catch_up();
        self.lost += self.sockets.take_drops()?;
        let (totals, unattributed) = self.shared.with(|ledger| (ledger.totals.clone(), ledger.unattributed));
        for (id, known) in &mut processes {
            known.refresh(*id, totals.get(id).copied().unwrap_or_default(), &mut self.names);
        }
        let sample = self.sample(&processes, &totals, unattributed);
        self.shared.with(|ledger| ledger.processes.extend(processes));
        Ok(sample)
    }

    fn sample(
        &self,
        processes: &HashMap<ProcessId, Known>,
        totals: &HashMap<ProcessId, Traffic>,
        unattributed: Traffic,
    ) -> Sample {
        let listed = totals.iter().filter_map(|(id, &total)| Some((*id, total, processes.get(id)?)));
        let processes: ProcessMap = listed
            .map(|(id, total, known)| (id, ProcessTraffic::new(Arc::clone(&known.info), total, known.alive)))
            .collect();
        Sample {
            processes,
            buckets: Buckets {
                unknown: if self.is_partial { Traffic::default() } else { unattributed },
                ..Buckets::default()
            },
            interfaces: Vec::new(),
            lost_events: self.lost + self.control.unreadable(),
        }
    }
}

/// Threads need little: what is large is on the heap.
const STACK: usize = 256 << 10;

/// Takes in what has changed of interfaces.
fn refresher(
    mut interfaces: Interfaces,
    mut scope: Scope,
    shared: &Arc<Shared>,
    sockets: &Arc<Sockets>,
) -> impl FnMut() + Send + 'static {
    let (shared, sockets) = (Arc::clone(shared), Arc::clone(sockets));
    move || {
        let before = scope.clone();
        let result = interfaces.read(&mut scope).and_then(|addresses| {
            shared.set_addresses(addresses);
            if scope == before { Ok(()) } else { sockets.set_scope(&scope) }
        });
        if let Err(error) = result {
            log::warn!("interfaces that are new may count twice: {error}");
        }
    }
}

impl Known {
    /// Looks what the process is called now: a name changes by exec, so it is read again while it does something.
    fn refresh(&mut self, id: ProcessId, total: Traffic, names: &mut KnownNames) {
        if self.alive
            && self.total != total
            && let Some(info) = ProcessInfo::read(id, names)
            && *self.info != info
        {
            self.info = Arc::new(info);
        }
        self.total = total;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.control.end();
        self.shared.end();
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                log::error!("a thread of {NAME} panicked");
            }
        }
    }
}

/// Major and minor number of the running kernel.
fn kernel_version() -> Option<(u32, u32)> {
    let name = uname().ok()?;
    parse_version(name.release().to_str()?)
}

fn parse_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

impl MonitorBackend for PnetMonitor {
    fn name(&self) -> &'static str {
        NAME
    }

    fn priority(&self) -> BackendPriority {
        PRIORITY
    }

    fn probe(options: &BackendOptions) -> Availability {
        if let Some(capability) = capability::first_missing(&[NET_RAW, SYS_PTRACE, DAC_READ_SEARCH]) {
            return Availability::Unavailable(Obstacle::Privilege { capability: capability.name });
        }
        let unavailable = |cause: String, remedy: &str| {
            Availability::Unavailable(Obstacle::Host { cause, remedy: remedy.to_owned() })
        };
        // To open a socket could load the module.
        if !Path::new("/proc/net/packet").exists() {
            return unavailable(
                "this kernel has no packet sockets".into(),
                "load the module af_packet, or use a kernel with CONFIG_PACKET",
            );
        }
        if let Err(error) = SocketLookup::open() {
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
        self.running = Some(Running::start(&self.options).map_err(failed("start"))?);
        Ok(())
    }

    fn update(&mut self) -> Result<Sample, BackendError> {
        let running = match &mut self.running {
            Some(running) => running,
            none => none.insert(Running::start(&self.options).map_err(failed("start"))?),
        };
        running.update().map_err(failed("count packets"))
    }

    fn cleanup(&mut self) -> Result<(), BackendError> {
        // Ends the threads, and with them the sockets.
        self.running = None;
        Ok(())
    }
}

fn failed(step: &str) -> impl FnOnce(anyhow::Error) -> BackendError {
    let step = step.to_owned();
    move |cause| BackendError::Kernel { backend: NAME, step, cause }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_numbers_and_not_words() {
        assert_eq!(parse_version("6.1.0-44-amd64"), Some((6, 1)));
        assert_eq!(parse_version("6.18-rc1"), Some((6, 18)));
        assert!(parse_version("10.0") > Some(UDP_OFFLOAD_HEADER));
        assert_eq!(parse_version("six"), None);
    }
}
