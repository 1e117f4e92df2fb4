//! What BPF programs cost: how often they ran, and for how long, as the kernel counts it while somebody asks it to.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;

use anyhow::Context;
use nix::errno::Errno;

use crate::bpf::{self, Attr};

/// Commands in `enum bpf_cmd`, and what they are given (include/uapi/linux/bpf.h).
const PROG_LOAD: u32 = 5;
const LINK_CREATE: u32 = 28;
const ENABLE_STATS: u32 = 32;
const STATS_RUN_TIME: u32 = 0;
const CGROUP_SKB: u32 = 8;
/// `BPF_CGROUP_INET_INGRESS` and `BPF_CGROUP_INET_EGRESS`.
const INGRESS_AND_EGRESS: [u32; 2] = [0, 1];

/// Offsets in `struct bpf_prog_info`.
const KIND: usize = 0;
const ID: usize = 4;
const NAME: usize = 64;
const RUN_TIME_NS: usize = 192;
const RUN_COUNT: usize = 200;
const INFO_LENGTH: usize = 208;

/// While it lives, the kernel counts what every program costs. Counting is by reference, so that it goes on for others
/// who want it, and it ends with us; the sysctl would stay.
#[derive(Debug)]
pub struct RunStatistics(#[expect(dead_code, reason = "it is held, not used")] OwnedFd);

impl RunStatistics {
    /// Begins to count.
    ///
    /// # Errors
    ///
    /// That we may not.
    pub fn enable() -> anyhow::Result<Self> {
        let statistics = bpf::open(ENABLE_STATS, &mut Attr([STATS_RUN_TIME, 0]));
        Ok(Self(statistics.context("the kernel does not count what BPF programs cost")?))
    }
}

/// What a program has cost so far, as far as it was counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Runs {
    /// The program's name, of at most 15 bytes.
    pub name: String,
    /// Whether it is a `cgroup_skb` program: one that runs for packets.
    pub is_for_packets: bool,
    /// All runs together.
    pub nanoseconds: u64,
    /// How many.
    pub count: u64,
}

impl Runs {
    /// What was added since `earlier`.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let nanoseconds = self.nanoseconds.saturating_sub(earlier.nanoseconds);
        Self { nanoseconds, count: self.count.saturating_sub(earlier.count), ..self.clone() }
    }
}

/// The BPF programs that a process holds, in the order of their ids.
///
/// # Errors
///
/// That it has ended, or we may not look.
pub fn programs_of(pid: u32) -> anyhow::Result<Vec<u32>> {
    let directory = format!("/proc/{pid}/fdinfo");
    let mut ids = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {directory}"))? {
        // A descriptor may be closed meanwhile.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name));
        // Links tell of their program too, and maps of none.
        if let Some(id) = field("prog_id:").and_then(|id| id.trim().parse().ok()) {
            ids.push(id);
        }
    }
    ids.sort_unstable();
    ids.dedup();
    Ok(ids)
}

/// What a program has cost.
///
/// # Errors
///
/// That it has gone.
pub fn runs(id: u32) -> anyhow::Result<Runs> {
    let program = bpf::PROGRAMS.open(id).with_context(|| format!("there is no BPF program {id}"))?;
    let info = bpf::info::<INFO_LENGTH>(program.as_fd())?;
    Ok(Runs {
        name: bpf::name(&info, NAME),
        is_for_packets: bpf::number(&info, KIND) == CGROUP_SKB,
        nanoseconds: bpf::long_number(&info, RUN_TIME_NS),
        count: bpf::long_number(&info, RUN_COUNT),
    })
}

/// Two programs that let every packet pass and do nothing else, one for what arrives and one for what leaves: what
/// running a program costs at all.
#[derive(Debug)]
pub struct EmptyPrograms {
    ids: Vec<u32>,
    // They keep their programs.
    _links: Vec<OwnedFd>,
}

impl EmptyPrograms {
    /// Attaches them to a cgroup, until they are dropped.
    ///
    /// # Errors
    ///
    /// That we may not.
    pub fn attach(cgroup: &Path) -> anyhow::Result<Self> {
        let target = File::open(cgroup).with_context(|| format!("cannot open {}", cgroup.display()))?;
        let attach = |direction| {
            let program = load_empty().context("cannot load an empty BPF program")?;
            let id = bpf::number(&bpf::info::<INFO_LENGTH>(program.as_fd())?, ID);
            let [program, target] =
                [program.as_fd(), target.as_fd()].map(|fd| fd.as_raw_fd().cast_unsigned());
            // prog_fd, target_fd, attach_type, flags
            let link = bpf::open(LINK_CREATE, &mut Attr([program, target, direction, 0]));
            Ok((id, link.with_context(|| format!("cannot attach to {}", cgroup.display()))?))
        };
        let made: Vec<_> = INGRESS_AND_EGRESS.into_iter().map(attach).collect::<anyhow::Result<_>>()?;
        let (ids, links) = made.into_iter().unzip();
        Ok(Self { ids, _links: links })
    }

    /// Their ids.
    #[must_use]
    pub fn ids(&self) -> &[u32] {
        &self.ids
    }
}

/// `r0 = 1; exit`.
fn load_empty() -> Result<OwnedFd, Errno> {
    /// `struct bpf_insn`: operation, registers, offset, and a number.
    static INSTRUCTIONS: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 1, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];
    let [code, code_high] = bpf::address(INSTRUCTIONS.as_ptr());
    let [license, license_high] = bpf::address(c"MIT".as_ptr());
    // prog_type, insn_cnt, insns, license
    bpf::open(PROG_LOAD, &mut Attr([CGROUP_SKB, 2, code, code_high, license, license_high]))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{Family, Process, Testbed, traffic};

    #[test]
    fn empty_programs_run_for_packets_and_are_counted() -> anyhow::Result<()> {
        let bed = Testbed::new("runs")?;
        let _statistics = RunStatistics::enable()?;
        let empty = EmptyPrograms::attach(bed.cgroup_root())?;
        let held = programs_of(std::process::id())?;
        assert!(empty.ids().iter().all(|id| held.contains(id)), "{held:?} and {:?}", empty.ids());
        let before: Vec<_> = empty.ids().iter().map(|id| runs(*id)).collect::<Result<_, _>>()?;
        assert!(before.iter().all(|runs| runs.is_for_packets), "{before:?}");

        let to = bed.server().socket_address(Family::V4, 0).to_string();
        let mut sink = traffic::command(bed.server())?;
        let sink = Process::spawn(sink.args(["tcp-sink", "--listen", &to]))?;
        let to = traffic::ready(&sink)?.to_string();
        let send = ["tcp-send", "--to", &to, "--bytes", "100000"];
        Process::spawn(traffic::command(bed.client())?.args(send))?.success(Duration::from_secs(5))?;

        for (id, before) in empty.ids().iter().zip(before) {
            let added = runs(*id)?.since(&before);
            // SYN, data and FIN one way; their acknowledgements the other.
            assert!(added.count >= 3 && added.nanoseconds > 0, "{added:?}");
        }
        let ids = empty.ids().to_vec();
        drop(empty);
        crate::until("the programs are freed", Duration::from_secs(5), || {
            Ok(ids.iter().all(|id| runs(*id).is_err()).then_some(()))
        })
    }
}
