//! What kernels have or lack, found out without the program under test: a test leaves out only what really is missing,
//! and says so.

use std::{fs, io::Write, path::Path, process::Command, time::Duration};

use anyhow::Context;

use crate::{Host, Process, Testbed};

/// How long a command may take that tries something; it may load a module.
const PATIENCE: Duration = Duration::from_secs(20);
/// An interface of the client on which queues and filters are tried.
const TRIAL: &str = "cttrial";

/// What marks of connections take, on [`TRIAL`], for a shell.
const MARKS: &str = "tc qdisc add dev cttrial clsact \
    && tc filter add dev cttrial ingress protocol all prio 1 u32 match u32 0 0 match mark 0 0xffffffff \
       action ctinfo cpmark 0x7f000000 continue \
    && tc filter add dev cttrial ingress protocol all prio 2 handle 1 fw \
       action skbedit mark 0 priority 1:1 pipe action mirred egress redirect dev cttrial2 \
    && nft 'add table inet cttrial; add chain inet cttrial sent { type filter hook output priority 0; }; \
       add rule inet cttrial sent ct mark 0 ct mark set mark' \
    && nft delete table inet cttrial";

/// Something that not every kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Feature {
    /// Redirecting packets from a BPF program to an IFB without losing them.
    RedirectToIfb,
    /// Intermediate functional blocks.
    Ifb,
    /// Hierarchical token buckets.
    Htb,
    /// Queues in which flows take turns.
    FairQueue,
    /// Tables of nftables that go with their owner.
    OwnedTables,
    /// Tracepoints that tell who sends and receives on a socket.
    WhoReceives,
    /// Chains of BPF programs at an interface.
    Tcx,
    /// BPF programs that may read the kernel's memory.
    BpfReadsMemory,
    /// Filters that send packets elsewhere by the marks of their connections, and rules that give connections marks.
    ConnectionMarks,
    /// Linux 6.4, before which marks of connections have to be asked for.
    MarksUnasked,
}

impl Feature {
    fn name(self) -> &'static str {
        match self {
            Self::RedirectToIfb => "redirect from BPF to an IFB (bpf_redirect, Linux 6.4)",
            Self::Ifb => "interface of type ifb",
            Self::Htb => "queue htb (sch_htb)",
            Self::FairQueue => "queue fq_codel (sch_fq_codel)",
            Self::OwnedTables => "nftables table with an owner (Linux 5.12)",
            Self::WhoReceives => "tracepoint sock:sock_recv_length (Linux 6.3)",
            Self::Tcx => "tcx (Linux 6.6)",
            Self::ConnectionMarks => "filters by marks of connections (act_ctinfo, cls_fw, cls_u32, nft_ct)",
            Self::MarksUnasked => "marks of connections without being asked for (Linux 6.4)",
            Self::BpfReadsMemory => {
                "BPF that reads the kernel's memory (lockdown=confidentiality forbids it)"
            }
        }
    }

    /// Whether this kernel has it.
    ///
    /// # Errors
    ///
    /// That it could not be tried.
    pub fn is_here(self, bed: &Testbed) -> anyhow::Result<bool> {
        let client = bed.client();
        match self {
            // Only sending packets by them would tell: before __bpf_tx_skb cleared `skb->from_ingress` they vanished.
            Self::RedirectToIfb => Ok(is_at_least((6, 4))? && Self::Ifb.is_here(bed)?),
            Self::Ifb => {
                let is_made = succeeds(client, &format!("ip link add {TRIAL} type ifb"))?;
                remove_trial(client, is_made)?;
                Ok(is_made)
            }
            Self::Htb => on_trial(client, &format!("tc qdisc add dev {TRIAL} root htb")),
            Self::FairQueue => on_trial(client, &format!("tc qdisc add dev {TRIAL} root fq_codel")),
            // It goes with the `nft` that makes it.
            Self::OwnedTables => succeeds(client, "nft add table inet cttrial { flags owner ; }"),
            Self::WhoReceives => {
                let places = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
                let roots: Vec<_> =
                    places.iter().filter(|place| Path::new(place).join("events").exists()).collect();
                let at = "events/sock/sock_recv_length";
                // Where tracefs is not mounted, the version tells.
                if roots.is_empty() {
                    is_at_least((6, 3))
                } else {
                    Ok(roots.iter().any(|root| Path::new(root).join(at).exists()))
                }
            }
            Self::Tcx => is_at_least((6, 6)),
            Self::BpfReadsMemory => {
                let levels = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
                Ok(!levels.contains("[confidentiality]"))
            }
            Self::ConnectionMarks => on_trial_by_shell(client, MARKS),
            Self::MarksUnasked => is_at_least((6, 4)),
        }
    }
}

/// Whether to leave something out because this kernel lacks what it takes, which is said then.
///
/// # Errors
///
/// That it could not be found out.
pub fn skip_unless(bed: &Testbed, feature: Feature) -> anyhow::Result<bool> {
    let is_here = feature.is_here(bed)?;
    if !is_here {
        // Not by `println!`, which nobody sees of a test that passes.
        writeln!(std::io::stdout(), "SKIPPED: no {} in Linux {}", feature.name(), release()?)?;
    }
    Ok(!is_here)
}

fn release() -> anyhow::Result<String> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("the kernel has no version")?;
    Ok(release.trim().to_owned())
}

fn is_at_least(wanted: (u32, u32)) -> anyhow::Result<bool> {
    let release = release()?;
    let mut numbers = release.split(|letter: char| !letter.is_ascii_digit());
    let mut number = || numbers.next().and_then(|number| number.parse().ok());
    let version: (u32, u32) = number().zip(number()).with_context(|| format!("{release:?} is no version"))?;
    Ok(version >= wanted)
}

/// Whether a command succeeds on a fresh interface, which is removed again.
fn on_trial(host: &Host, line: &str) -> anyhow::Result<bool> {
    with_trial(host, || succeeds(host, line))
}

/// The same for a line of the shell.
fn on_trial_by_shell(host: &Host, line: &str) -> anyhow::Result<bool> {
    with_trial(host, || {
        // Where `sh` is busybox it has a `tc` of its own, which knows less.
        let mut command = host.command("bash");
        Ok(Process::spawn(command.args(["-c", line]))?.wait_timeout(PATIENCE)?.success())
    })
}

fn with_trial(host: &Host, work: impl FnOnce() -> anyhow::Result<bool>) -> anyhow::Result<bool> {
    let made = succeeds(host, &format!("ip link add {TRIAL} type veth peer name {TRIAL}2"))?;
    anyhow::ensure!(made, "no pair of interfaces can be made to try something on");
    let succeeds = work();
    remove_trial(host, true)?;
    succeeds
}

fn remove_trial(host: &Host, is_there: bool) -> anyhow::Result<()> {
    anyhow::ensure!(
        !is_there || succeeds(host, &format!("ip link del {TRIAL}"))?,
        "{TRIAL} cannot be removed"
    );
    Ok(())
}

fn succeeds(host: &Host, line: &str) -> anyhow::Result<bool> {
    let mut words = line.split(' ');
    let mut command: Command = host.command(words.next().context("a program")?);
    Ok(Process::spawn(command.args(words))?.wait_timeout(PATIENCE)?.success())
}

/// What each backend of the program takes that a kernel may lack, in each of its ways.
fn ways(backend: &str) -> &'static [&'static [Feature]] {
    match backend {
        "ebpf" | "ebpf_cgroup" | "tc_police" => &[&[Feature::BpfReadsMemory]],
        "ifb_tc" => &[
            &[Feature::BpfReadsMemory, Feature::RedirectToIfb, Feature::Htb],
            &[
                Feature::MarksUnasked,
                Feature::Ifb,
                Feature::Htb,
                Feature::OwnedTables,
                Feature::ConnectionMarks,
            ],
        ],
        "ifb_tc_by_marks" => &[&[Feature::Ifb, Feature::Htb, Feature::OwnedTables, Feature::ConnectionMarks]],
        "tc_htb" => &[&[Feature::Htb]],
        "nftables" => &[&[Feature::OwnedTables]],
        _ => &[],
    }
}

/// What is missing for one of the ways, of the last one tried; nothing where one of them has all.
fn missing(bed: &Testbed, ways: &[&[Feature]]) -> anyhow::Result<Option<Feature>> {
    let mut missing = None;
    for way in ways {
        missing = None;
        for &feature in *way {
            if !feature.is_here(bed)? {
                missing = Some(feature);
                break;
            }
        }
        if missing.is_none() {
            break;
        }
    }
    Ok(missing)
}

/// Whether to try a backend here, given why the program refuses it, if it does.
///
/// # Errors
///
/// That it refuses it on a kernel that has all that it takes, or offers it on one that has not.
pub fn is_to_be_tried(bed: &Testbed, backend: &str, refusal: Option<&str>) -> anyhow::Result<bool> {
    if let Some(feature) = missing(bed, ways(backend))?
        && skip_unless(bed, feature)?
    {
        anyhow::ensure!(refusal.is_some(), "{backend} is offered without {}", feature.name());
        return Ok(false);
    }
    match refusal {
        None => Ok(true),
        Some(reason) => {
            anyhow::bail!("{backend} is refused on a kernel that has all that it takes: {reason}")
        }
    }
}
