//! What the eBPF monitor and the eBPF limiter share: one set of programs, attached once.
//!
//! - [`Engine`]: the loaded programs, their links, and the maps by type.
//! - [`Accounts`]: what they have counted, and for whom.
//! - [`Network`]: what they have to know of interfaces.
//! - `tagger`: owners for the sockets that were open before.
//! - [`targets`], `places`, [`limits`]: who is limited, by what the kernel knows them, and how.

mod accounts;
mod engine;
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
mod entrance;
pub mod limits;
mod messages;
mod meter;
mod network;
mod object;
mod places;
mod tagger;
pub mod targets;

pub use accounts::Accounts;
pub use engine::Engine;
#[cfg(any(feature = "throttle-ifb-tc", feature = "throttle-tc-police"))]
pub use entrance::has_links;
pub use network::Network;
#[cfg(feature = "monitor-ebpf")]
pub(super) use tagger::process;

use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use nix::libc;
use procfs::process::Process;

use super::{
    Availability, BackendError, BackendOptions, Obstacle, PacketCost,
    throttle::{Subject, Target},
};
use crate::{
    process::{ProcessError, cgroup_path},
    sys::{
        bpf_trial,
        btf::KernelTypes,
        capability::{self, BPF, Capability, DAC_READ_SEARCH, NET_ADMIN, PERFMON, SYS_PTRACE},
        cgroup::CgroupRoot,
        lockdown, namespace,
    },
};

/// The programs, loaded when the first backend needs them and shared by all: packets pay for one set. They are
/// unloaded with the last backend that holds this.
#[derive(Clone, Default)]
pub struct SharedEngine(Arc<Mutex<Option<Engine>>>);

impl SharedEngine {
    /// The engine, loaded by now.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn with<T>(
        &self,
        backend: &'static str,
        options: &BackendOptions,
        work: impl FnOnce(&mut Engine) -> anyhow::Result<T>,
    ) -> Result<T, BackendError> {
        let mut guard = self.lock();
        let engine = match &mut *guard {
            Some(engine) => engine,
            none => none.insert(load(backend, options, |_| {})?),
        };
        work(engine).map_err(failed(backend, "use its maps"))
    }

    /// Loads the engine, and gives every socket that is open an owner: before the first packet is counted, where
    /// nobody has loaded it yet.
    ///
    /// # Errors
    /// When it cannot be loaded.
    pub fn adopt_everything(
        &self,
        backend: &'static str,
        options: &BackendOptions,
    ) -> Result<(), BackendError> {
        match &mut *self.lock() {
            Some(engine) => engine.adopt_everything(),
            none => *none = Some(load(backend, options, Engine::adopt_everything)?),
        }
        Ok(())
    }

    /// Whether there is somebody to limit, whom the programs see.
    ///
    /// # Errors
    /// Why not, and what would help.
    pub fn check(
        &self,
        backend: &'static str,
        options: &BackendOptions,
        target: &Target,
    ) -> Result<(), BackendError> {
        let place = match &target.subject {
            Subject::Process(id) | Subject::Descendants(id) => {
                // A changed limit goes on for as long as it is wanted; a new one needs somebody to limit.
                let process =
                    Process::new(id.pid).map_err(|error| ProcessError::of_looking(id.pid, error))?;
                if !id.is_alive() {
                    return Err(ProcessError::Absent(id.pid).into());
                }
                // A child that is held before its exec moves itself below the root when it is released.
                if matches!(target.subject, Subject::Descendants(_)) {
                    return Ok(());
                }
                let path = cgroup_path(&process);
                if path.is_none() {
                    process.cgroups().map_err(|error| ProcessError::of_looking(id.pid, error))?;
                }
                path.unwrap_or_default()
            }
            Subject::Cgroup(path) => path.clone(),
            Subject::Program(_) | Subject::User(_) => return Ok(()),
        };
        self.with(backend, options, |engine| {
            let root = engine.cgroup();
            if root.contains(&place) {
                return Ok(Ok(()));
            }
            let reason = format!(
                "it is in the cgroup {place}, outside {}; choose a --cgroup-root above it, or none",
                root.path.display()
            );
            Ok(Err(BackendError::Unenforceable { backend, subject: target.subject.clone(), reason }))
        })?
    }

    /// Looks at the engine, where it is loaded and nobody uses it at the moment.
    pub fn if_free<T>(&self, look: impl FnOnce(&Engine) -> T) -> Option<T> {
        self.0.try_lock().ok()?.as_ref().map(look)
    }

    /// What the programs have taken of packets since this was asked for first; `None` where they are not loaded.
    ///
    /// # Errors
    /// When the kernel does not measure, in words.
    pub fn packet_cost(&self) -> Result<Option<PacketCost>, String> {
        self.lock().as_mut().map(Engine::packet_cost).transpose()
    }

    /// Ends the measuring.
    pub fn stop_measuring(&self) {
        if let Some(engine) = self.lock().as_mut() {
            engine.meter = None;
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Engine>> {
        // The maps hold the state; a panic elsewhere leaves them as true as before.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new engine; `before` is done with it before packets are looked at.
fn load(
    backend: &'static str,
    options: &BackendOptions,
    before: impl FnOnce(&mut Engine),
) -> Result<Engine, BackendError> {
    let load = || {
        let mut engine = Engine::load(options)?;
        before(&mut engine);
        engine.attach_packets()?;
        Ok(engine)
    };
    load().map_err(failed(backend, "load its programs"))
}

fn failed(backend: &'static str, step: &'static str) -> impl FnOnce(anyhow::Error) -> BackendError {
    move |cause| BackendError::Kernel { backend, step: step.to_owned(), cause }
}

/// Whether the programs can be loaded here. Changes nothing.
#[must_use]
pub fn probe(options: &BackendOptions) -> Availability {
    match obstacle(options) {
        Some(obstacle) => Availability::Unavailable(obstacle),
        None => Availability::Available,
    }
}

/// To load programs and attach them, and to find out whose the sockets are that are open already.
const NEEDED: [Capability; 5] = [BPF, NET_ADMIN, PERFMON, SYS_PTRACE, DAC_READ_SEARCH];

fn obstacle(options: &BackendOptions) -> Option<Obstacle> {
    if let Some(capability) = capability::first_missing(&NEEDED) {
        return Some(Obstacle::Privilege { capability: capability.name });
    }
    let host = |cause: String, remedy: &str| Some(Obstacle::Host { cause, remedy: remedy.to_owned() });
    if let Some(kind) = namespace::first_that_is_not_the_hosts(&["pid", "time"]) {
        // The programs see the host's pids and start times; limits by ours would hold nobody, or somebody else.
        let cause = format!("it runs in a {kind} namespace of its own, where processes have other numbers");
        return host(cause, "run it on the host, or in a container that shares the host's (--pid=host)");
    }
    if lockdown::keeps_memory_from_bpf() {
        return host(
            "the kernel is locked down for confidentiality, and no eBPF program may read its memory".into(),
            "boot with lockdown=integrity or less; tc_htb, nftables, sockopt, pnet and sock_diag do without",
        );
    }
    if let Err(error) = CgroupRoot::open(options.cgroup_root.as_deref()) {
        return host(error.to_string(), "the programs are attached to a cgroup of that tree");
    }
    if let Err(error) = KernelTypes::are_there() {
        return host(error.to_string(), "use a kernel with BTF: every distribution's since about 2021");
    }
    if !std::path::Path::new("/proc/sys/kernel/unprivileged_bpf_disabled").exists() {
        return host(
            "this kernel was built without the bpf system call".into(),
            "use one with CONFIG_BPF_SYSCALL",
        );
    }
    if keeps_the_current_task() {
        return host(
            "this kernel does not tell programs that see packets which process is running".into(),
            "use Linux 5.15 or later; tc_htb, nftables, sockopt, pnet and sock_diag do without",
        );
    }
    None
}

/// Whether the kernel does not tell programs that see packets which process is running. Tried once.
fn keeps_the_current_task() -> bool {
    static KEEPS: OnceLock<bool> = OnceLock::new();
    let keeps = || bpf_trial::load_asking().is_err_and(|error| error.raw_os_error() == Some(libc::EINVAL));
    *KEEPS.get_or_init(keeps)
}
