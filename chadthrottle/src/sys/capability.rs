//! What this process is allowed to do (capabilities(7)).

use std::io;

use nix::{errno::Errno, libc};
use procfs::process::Process;

use super::proc_text::Status;

/// A capability that some backend needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capability {
    /// Name as in capabilities(7).
    pub name: &'static str,
    bit: u32,
}

/// Give a file to its user, who did not write it.
pub const CHOWN: Capability = Capability { name: "CAP_CHOWN", bit: 0 };
/// Write where other users' files are. Includes [`DAC_READ_SEARCH`] (`generic_permission`, fs/namei.c).
pub const DAC_OVERRIDE: Capability = Capability { name: "CAP_DAC_OVERRIDE", bit: 1 };
/// List another user's open descriptors.
pub const DAC_READ_SEARCH: Capability = Capability { name: "CAP_DAC_READ_SEARCH", bit: 2 };
/// Change the mode of another user's file.
pub const FOWNER: Capability = Capability { name: "CAP_FOWNER", bit: 3 };
/// Pass a signal on to another user's process.
pub const KILL: Capability = Capability { name: "CAP_KILL", bit: 5 };
/// Change bounds of what may be had.
const SETPCAP: Capability = Capability { name: "CAP_SETPCAP", bit: 8 };
/// Attach programs to cgroups, change qdiscs and tables.
pub const NET_ADMIN: Capability = Capability { name: "CAP_NET_ADMIN", bit: 12 };
/// Open packet sockets.
pub const NET_RAW: Capability = Capability { name: "CAP_NET_RAW", bit: 13 };
/// Load modules.
pub const SYS_MODULE: Capability = Capability { name: "CAP_SYS_MODULE", bit: 16 };
/// Take hold of another user's open sockets.
pub const SYS_PTRACE: Capability = Capability { name: "CAP_SYS_PTRACE", bit: 19 };
/// Follow a process to its network namespace, and have programs measured. Includes `CAP_BPF` and `CAP_PERFMON`
/// (kernel/bpf/syscall.c, `bpf_capable`).
pub const SYS_ADMIN: Capability = Capability { name: "CAP_SYS_ADMIN", bit: 21 };
/// Have a CPU sooner than others.
pub const SYS_NICE: Capability = Capability { name: "CAP_SYS_NICE", bit: 23 };
/// Load tracing programs.
pub const PERFMON: Capability = Capability { name: "CAP_PERFMON", bit: 38 };
/// Load programs and make maps.
pub const BPF: Capability = Capability { name: "CAP_BPF", bit: 39 };

/// Those that some backend needs.
pub const KNOWN: [Capability; 6] = [BPF, NET_ADMIN, NET_RAW, PERFMON, SYS_PTRACE, DAC_READ_SEARCH];

impl Capability {
    const fn mask(self) -> u64 {
        1 << self.bit
    }

    /// Another one that it is a part of, where there is one.
    fn included_in(self) -> Option<Self> {
        match self {
            BPF | PERFMON => Some(SYS_ADMIN),
            DAC_READ_SEARCH => Some(DAC_OVERRIDE),
            _ => None,
        }
    }
}

/// The first of `wanted` that this process does not have.
///
/// A process whose capabilities cannot be read is taken to have them all: the kernel will say better what is wrong.
#[must_use]
pub fn first_missing(wanted: &[Capability]) -> Option<Capability> {
    let effective = Process::myself().and_then(|process| Status::of(&process)).ok()?.effective;
    let has = |capability: Capability| effective & capability.mask() != 0;
    wanted.iter().copied().find(|&capability| !has(capability) && !capability.included_in().is_some_and(has))
}

/// Gives up whatever is not `wanted`, and the way back to it, in this thread and in what it starts from now on.
///
/// # Errors
/// When the kernel refuses; some may be gone then.
pub fn keep(wanted: &[Capability]) -> io::Result<()> {
    let held = Sets::get()?;
    let kept = kept(wanted, held.permitted());
    // Without CAP_SETPCAP the bounds stay. Who has none of root's rights gets nothing beyond what is permitted by them.
    if held.effective() & SETPCAP.mask() != 0 {
        for bit in (0..u64::BITS).filter(|bit| kept >> bit & 1 == 0) {
            match bound(libc::PR_CAPBSET_READ, bit) {
                Ok(1) => drop(bound(libc::PR_CAPBSET_DROP, bit)?),
                Ok(_) => {}
                // The kernel knows no more of them.
                Err(_) => break,
            }
        }
    }
    held.reduced_to(kept).set()
}

/// What is kept of what is permitted: what is wanted, and where it is missing what includes it.
fn kept(wanted: &[Capability], permitted: u64) -> u64 {
    let one = |capability: &Capability| match capability.included_in() {
        Some(larger) if permitted & capability.mask() == 0 => larger.mask(),
        _ => capability.mask(),
    };
    wanted.iter().map(one).fold(0, |all, one| all | one) & permitted
}

/// Asks for, or drops, one of the capabilities that may be had at all (prctl(2)).
fn bound(operation: libc::c_int, bit: u32) -> io::Result<libc::c_int> {
    // SAFETY: it takes numbers.
    let result = unsafe { libc::prctl(operation, libc::c_ulong::from(bit), 0, 0, 0) };
    Errno::result(result).map_err(io::Error::from)
}

/// `_LINUX_CAPABILITY_VERSION_3` (`include/uapi/linux/capability.h`).
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct` (there); the process is the calling thread.
#[repr(C)]
struct Header {
    version: u32,
    pid: libc::c_int,
}

/// Two `struct __user_cap_data_struct` (there), of the lower and the upper half: effective, permitted, inheritable.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sets([[u32; 3]; 2]);

impl Sets {
    fn get() -> io::Result<Self> {
        let mut sets = Self::default();
        let mut header = Header { version: VERSION, pid: 0 };
        // SAFETY: the kernel reads and writes one header, and writes two structures of three words each.
        let result = unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets) };
        Errno::result(result)?;
        Ok(sets)
    }

    fn set(self) -> io::Result<()> {
        let mut header = Header { version: VERSION, pid: 0 };
        // SAFETY: the kernel reads and writes one header, and reads two structures of three words each.
        let result = unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const self) };
        Errno::result(result).map(drop).map_err(io::Error::from)
    }

    fn word(self, index: usize) -> u64 {
        let [lower, upper] = self.0.map(|half| u64::from(half[index]));
        upper << 32 | lower
    }

    fn effective(self) -> u64 {
        self.word(0)
    }

    fn permitted(self) -> u64 {
        self.word(1)
    }

    /// Without those that are not among `kept`. What is not inheritable is not ambient any more, either.
    #[expect(clippy::cast_possible_truncation, reason = "that is what a half is")]
    fn reduced_to(self, kept: u64) -> Self {
        let halves = [kept as u32, (kept >> 32) as u32];
        let of_half = |half: usize| self.0[half].map(|word| word & halves[half]);
        Self([of_half(0), of_half(1)])
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn what_is_wanted_is_kept_or_what_includes_it() {
        let all = u64::MAX;
        assert_eq!(kept(&[BPF, NET_ADMIN], all), BPF.mask() | NET_ADMIN.mask());
        let older = SYS_ADMIN.mask() | NET_ADMIN.mask() | DAC_OVERRIDE.mask();
        assert_eq!(kept(&[BPF, PERFMON, DAC_READ_SEARCH], older), SYS_ADMIN.mask() | DAC_OVERRIDE.mask());
        assert_eq!(kept(&[BPF], 0), 0);
        let sets = Sets([[7, 7, 1], [3, 3, 0]]).reduced_to(1 << 33 | 5);
        assert_eq!(sets, Sets([[5, 5, 1], [2, 2, 0]]));
        assert_eq!((sets.effective(), sets.permitted()), (2 << 32 | 5, 2 << 32 | 5));
    }

    #[test]
    fn what_is_given_up_is_gone() {
        // Of a thread of its own: others go on with what they have.
        let kept = thread::spawn(|| {
            keep(&[NET_ADMIN, SYS_PTRACE])?;
            let after = Sets::get()?;
            Ok::<_, io::Error>((after, bound(libc::PR_CAPBSET_READ, SYS_MODULE.bit)?))
        });
        let (after, bound) = kept.join().expect("no panic").expect("to give up takes no privilege");
        let held = Sets::get().expect("the kernel tells");
        assert_eq!(after.permitted(), held.permitted() & (NET_ADMIN.mask() | SYS_PTRACE.mask()));
        assert_eq!(after.effective(), after.permitted() & held.effective());
        assert!(bound == 0 || held.effective() & SETPCAP.mask() == 0);
    }
}
