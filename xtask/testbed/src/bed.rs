//! The bed: three hosts, two links, one cgroup, all removed when it is dropped.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::path::{self, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;

use crate::host::{Family, Host, default_route, open_cgroup};
use crate::netns::Netns;
use crate::path::{Carried, Emulator, End, Path, Queues};
use crate::{cgroup, leftovers, poll, program};

/// One bed at a time on a machine: kernel tests disturb each other, and so do measurements on few CPUs.
const LOCK: &str = "/run/chadthrottle-testbed.lock";
/// Who has this one is the next to have the other.
const QUEUE: &str = "/run/chadthrottle-testbed.queue";
/// How long to wait for other tests. Long, since a whole test run may be queued up before us.
const TURN: Duration = Duration::from_mins(30);
/// How long a fresh path may take to come up. It takes milliseconds, at worst a second.
const PATH_UP: Duration = Duration::from_secs(10);

/// The router's number in both networks.
const ROUTER: u8 = 1;

/// Client, router and server, in network namespaces, and a cgroup for what runs on the client.
///
/// A thread that holds a bed and asks for a second one waits for itself, in vain.
#[derive(Debug)]
pub struct Testbed {
    /// Carries what goes between router and server, where that is no plain link.
    emulator: Option<Emulator>,
    /// Count what passes the router, where that is asked for.
    queues: Option<Queues>,
    client: Host,
    router: Host,
    server: Host,
    cgroup: PathBuf,
    // The last field, so that the lock is released when the hosts' descriptors are closed.
    made: Made,
}

/// What has been made so far, so that a bed which fails half-way removes that half.
#[derive(Debug)]
struct Made {
    namespaces: Vec<String>,
    cgroups: Vec<PathBuf>,
    _lock: File,
}

impl Testbed {
    /// Waits for its turn, removes what killed runs left, and makes a bed. `name` shows up in the names of namespaces
    /// and cgroup.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, or what could not be made.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        Self::make(name, None)
    }

    /// The same with delay, a rate, a queue and loss between router and server.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, or what could not be made.
    pub fn with_path(name: &str, path: &Path) -> anyhow::Result<Self> {
        Self::make(name, Some(path))
    }

    /// As [`Self::new`], and what passes the router is counted.
    ///
    /// # Errors
    ///
    /// What is missing on this machine, or what could not be made.
    pub fn counted(name: &str) -> anyhow::Result<Self> {
        let mut bed = Self::make(name, None)?;
        bed.queues = Some(Queues::add(&bed.router, ["ctrserver", "ctrclient"])?);
        Ok(bed)
    }

    fn make(name: &str, path: Option<&Path>) -> anyhow::Result<Self> {
        program::require_root()?;
        program::require_program("ip")?;
        let mount = cgroup::mount_point()?;
        let lock = take_turn()?;
        leftovers::sweep(&mount)?;
        let mut made = Made { namespaces: Vec::new(), cgroups: Vec::new(), _lock: lock };

        let name = leftovers::name(name);
        let cgroup = mount.join(&name);
        made.cgroups.push(cgroup.clone());
        fs::create_dir(&cgroup).with_context(|| format!("cannot make the cgroup {}", cgroup.display()))?;

        let mut host = |role: &str, interfaces: &[&'static str], network: u8, host: u8| {
            let namespace = format!("{name}-{role}");
            made.namespaces.push(namespace.clone());
            let netns = Netns::create(&namespace)?;
            let gateways = (host != ROUTER).then(|| addresses(network, ROUTER));
            let addresses = addresses(network, host);
            anyhow::Ok(Host { netns, interfaces: interfaces.to_vec(), addresses, gateways, cgroup: None })
        };
        let mut client = host("client", &["ctclient"], 1, 2)?;
        let router = host("router", &["ctrclient", "ctrserver"], 1, ROUTER)?;
        let server = host("server", &["ctserver"], 2, 2)?;
        client.cgroup = Some(open_cgroup(&cgroup)?);

        let mut bed = Self { emulator: None, queues: None, client, router, server, cgroup, made };
        bed.prepare()?;
        bed.link(&bed.client, "ctclient", "ctrclient")?;
        match path {
            None => bed.link(&bed.server, "ctserver", "ctrserver")?,
            Some(path) => bed.emulator = Some(bed.emulate(path)?),
        }
        bed.address()?;
        for host in [&bed.client, &bed.router, &bed.server] {
            let what = format!("the links of {} are up", host.namespace());
            poll::until(&what, PATH_UP, || Ok(links_are_running(host)?.then_some(())))?;
        }
        for family in Family::ALL {
            bed.check_path(family, path.map_or(Duration::ZERO, Path::delay))
                .with_context(|| format!("the new bed carries no {family:?} packets"))?;
        }
        Ok(bed)
    }

    /// What has been sent to the server and to the client so far, where the bed has a path or counts.
    #[must_use]
    pub fn carried(&self) -> Option<[Carried; 2]> {
        let emulated = self.emulator.as_ref().map(Emulator::carried);
        emulated.or_else(|| self.queues.as_ref()?.carried().ok())
    }

    /// The host on which the program under test runs.
    #[must_use]
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// The host in the middle.
    #[must_use]
    pub fn router(&self) -> &Host {
        &self.router
    }

    /// The host at the other end.
    #[must_use]
    pub fn server(&self) -> &Host {
        &self.server
    }

    /// The cgroup of what runs on the client: a child of the hierarchy's root, for what would be attached to that.
    #[must_use]
    pub fn cgroup_root(&self) -> &path::Path {
        &self.cgroup
    }

    /// Makes a cgroup below [`Self::cgroup_root`], e.g. for [`Host::command_in`].
    ///
    /// # Errors
    ///
    /// That it is there already.
    pub fn cgroup(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.cgroup.join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make the cgroup {}", path.display()))?;
        Ok(path)
    }

    /// Removes the bed and says what was in the way. Dropping it does the same, but can only panic.
    ///
    /// # Errors
    ///
    /// What could not be removed.
    pub fn close(mut self) -> anyhow::Result<()> {
        self.emulator = None;
        self.made.remove()
    }

    /// Settings that have to be there before the links.
    fn prepare(&self) -> anyhow::Result<()> {
        for host in [&self.client, &self.router, &self.server] {
            // Router solicitations would be packets that no test sent.
            host.set_sysctl("net.ipv6.conf.default.accept_ra", "0")?;
            host.set_sysctl("net.ipv6.conf.default.router_solicitations", "0")?;
            // For the link-local addresses, without which a router does not look for its neighbours.
            host.set_sysctl("net.ipv6.conf.default.accept_dad", "0")?;
            host.netns.ip(&["link set lo up".to_owned()])?;
        }
        self.router.set_sysctl("net.ipv4.ip_forward", "1")?;
        self.router.set_sysctl("net.ipv6.conf.all.forwarding", "1")?;
        Ok(())
    }

    /// A plain link between a host and the router.
    fn link(&self, host: &Host, near: &str, far: &str) -> anyhow::Result<()> {
        let router = self.router.namespace();
        // Each end is made where it will live: at no time is one of them in the host's own namespace.
        // The index must differ from the peer's: where both are 2, as they would be in fresh namespaces, the kernel
        // takes the end of a pair for a device of its own, and notices up to a second late that it is up.
        host.netns.ip(&[format!("link add {near} index 10 type veth peer name {far} netns {router}")])?;
        Ok(())
    }

    /// A path between router and server.
    fn emulate(&self, path: &Path) -> anyhow::Result<Emulator> {
        let near = self.router.run(|| End::open("ctrserver"))?;
        let far = self.server.run(|| End::open("ctserver"))?;
        for (host, name) in [(&self.router, "ctrserver"), (&self.server, "ctserver")] {
            // The queue is the path's, not the device's.
            host.netns.ip(&[format!("link set {name} txqueuelen 20000")])?;
        }
        Emulator::start(path, &near, &far)
    }

    /// Addresses and routes.
    fn address(&self) -> anyhow::Result<()> {
        let near = interface_up("ctrclient", addresses(1, ROUTER));
        self.router.netns.ip(&[near, interface_up("ctrserver", addresses(2, ROUTER))].concat())?;
        for host in [&self.client, &self.server] {
            let mut lines = interface_up(host.interfaces[0], host.addresses);
            lines.extend(
                host.gateways.into_iter().flatten().map(|to| format!("route add {}", default_route(to))),
            );
            host.netns.ip(&lines)?;
        }
        Ok(())
    }

    /// Sends datagrams from end to end until one arrives: links take a moment to come up, and then the first test
    /// finds the neighbours known.
    fn check_path(&self, family: Family, delay: Duration) -> anyhow::Result<()> {
        let bind = |host: &Host| {
            let address = host.socket_address(family, 0);
            host.run(|| UdpSocket::bind(address).with_context(|| format!("cannot bind {address}")))
        };
        let (client, server) = (bind(&self.client)?, bind(&self.server)?);
        server.set_read_timeout(Some(delay + Duration::from_millis(5)))?;
        client.set_read_timeout(Some(delay + Duration::from_millis(50)))?;
        poll::until("a datagram arrives", PATH_UP, || {
            // Errors are expected while the links come up.
            let _ = client.send_to(b"there", server.local_addr()?);
            let Ok((_, from)) = server.recv_from(&mut [0; 8]) else { return Ok(None) };
            let _ = server.send_to(b"back", from);
            Ok(client.recv_from(&mut [0; 8]).ok())
        })?;
        Ok(())
    }
}

fn addresses(network: u8, host: u8) -> [IpAddr; 2] {
    let v6 = Ipv6Addr::new(0xfd77, network.into(), 0, 0, 0, 0, 0, host.into());
    [Ipv4Addr::new(10, 77, network, host).into(), v6.into()]
}

/// Lines for `ip` that give an interface its addresses and set it up.
fn interface_up(interface: &str, [v4, v6]: [IpAddr; 2]) -> Vec<String> {
    vec![
        format!("addr add {v4}/24 dev {interface}"),
        // Usable at once: there is nobody here who could have the same address.
        format!("addr add {v6}/64 dev {interface} nodad"),
        format!("link set {interface} up"),
    ]
}

/// Whether the kernel has noticed that the other ends are up, as it may up to a second late. Packets pass before,
/// but a program that looks for interfaces that are up would find none.
fn links_are_running(host: &Host) -> anyhow::Result<bool> {
    host.run(|| {
        let running = getifaddrs()?.filter(|link| link.flags.contains(InterfaceFlags::IFF_RUNNING));
        let running: Vec<_> = running.map(|link| link.interface_name).collect();
        Ok(host.interfaces.iter().all(|name| running.iter().any(|other| other == name)))
    })
}

/// Takes the machine-wide lock. The kernel releases it when we die, however that happens.
///
/// Who waits for it holds the place at the head of the queue: without that, a run that makes one bed after the other
/// would take the lock again each time before anybody else has noticed that it was free.
fn take_turn() -> anyhow::Result<File> {
    let head_of_queue = lock(QUEUE, "other tests have had their turn")?;
    let mut turn = lock(LOCK, "another test releases the bed")?;
    drop(head_of_queue);
    // For the message of who waits, in another process.
    turn.set_len(0).and_then(|()| writeln!(turn, "{}", std::process::id()))?;
    Ok(turn)
}

fn lock(path: &str, what: &str) -> anyhow::Result<File> {
    let open = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path);
    let mut file = open.with_context(|| format!("cannot open {path}"))?;
    let locked = poll::until(what, TURN, || match file.try_lock() {
        Ok(()) => Ok(Some(())),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => bail!("cannot lock {path}: {error}"),
    });
    if let Err(error) = locked {
        let mut holder = String::new();
        file.read_to_string(&mut holder).ok();
        return Err(error.context(format!("{path} is held by process {}", holder.trim())));
    }
    Ok(file)
}

impl Made {
    fn remove(&mut self) -> anyhow::Result<()> {
        leftovers::remove(&std::mem::take(&mut self.namespaces), &std::mem::take(&mut self.cgroups))
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            // A bed that cannot be removed is a failure of the test; two panics at once would hide the first.
            if std::thread::panicking() {
                eprintln!("{error:#}");
            } else {
                panic!("{error:#}");
            }
        }
    }
}
