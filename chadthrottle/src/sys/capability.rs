//! What this process is allowed to do (capabilities(7)).

use procfs::process::Process;

/// A capability that some backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Name as in capabilities(7).
    pub name: &'static str,
    bit: u32,
}

/// Includes [`DAC_READ_SEARCH`] (`generic_permission`, fs/namei.c).
const DAC_OVERRIDE: Capability = Capability { name: "CAP_DAC_OVERRIDE", bit: 1 };
/// List another user's open descriptors.
pub const DAC_READ_SEARCH: Capability = Capability { name: "CAP_DAC_READ_SEARCH", bit: 2 };
/// Attach programs to cgroups, change qdiscs and tables.
pub const NET_ADMIN: Capability = Capability { name: "CAP_NET_ADMIN", bit: 12 };
/// Open packet sockets.
pub const NET_RAW: Capability = Capability { name: "CAP_NET_RAW", bit: 13 };
/// Load modules.
pub const SYS_MODULE: Capability = Capability { name: "CAP_SYS_MODULE", bit: 16 };
/// Take hold of another user's open sockets.
pub const SYS_PTRACE: Capability = Capability { name: "CAP_SYS_PTRACE", bit: 19 };
/// Includes `CAP_BPF` and `CAP_PERFMON` (kernel/bpf/syscall.c, `bpf_capable`).
const SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };
/// Load tracing programs.
pub const PERFMON: Capability = Capability { name: "CAP_PERFMON", bit: 38 };
/// Load programs and make maps.
pub const BPF: Capability = Capability { name: "CAP_BPF", bit: 39 };

/// Those that some backend needs.
pub const KNOWN: [Capability; 6] = [BPF, NET_ADMIN, NET_RAW, PERFMON, SYS_PTRACE, DAC_READ_SEARCH];

/// The first of `wanted` that this process does not have.
///
/// A process whose capabilities cannot be read is taken to have them all: the kernel will say better what is wrong.
#[must_use]
pub fn first_missing(wanted: &[Capability]) -> Option<Capability> {
    let effective = Process::myself().and_then(|process| process.status()).ok()?.capeff;
    let has = |capability: Capability| effective >> capability.bit & 1 == 1;
    wanted.iter().copied().find(|&capability| {
        let included = match capability {
            BPF | PERFMON => has(SYS_ADMIN),
            DAC_READ_SEARCH => has(DAC_OVERRIDE),
            _ => false,
        };
        !has(capability) && !included
    })
}
