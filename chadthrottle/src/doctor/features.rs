//! What of the kernel matters for limits, and whether it is there.

use serde::Serialize;

use crate::sys::kernel_features::{Features, Modules, Presence};

/// Something that a kernel may have.
#[derive(Clone, Debug, Serialize)]
pub struct Feature {
    /// As `tc`, `nft` or bpf(2) call it.
    pub name: &'static str,
    /// What it is good for here; nothing where no backend uses it.
    pub purpose: &'static str,
    /// The module that has it, where it may be one.
    pub module: Option<&'static str>,
    /// Whether it is there.
    pub presence: Presence,
}

/// Name, a function that comes with it, its module, and what it is good for here.
type Row = (&'static str, &'static str, Option<&'static str>, &'static str);

/// What only `ifb_tc` wants.
pub(super) const BY_IFB: &str = "download limits by a queue";
/// What that wants where it knows packets by marks of connections.
pub(super) const BY_MARKS: &str = "download limits by a queue, without eBPF";
/// What is wanted where there is no tcx.
pub(super) const BEFORE_TCX: &str = "download limits by programs at interfaces, before Linux 6.6";

const ROWS: [Row; 29] = [
    ("htb", "htb_enqueue", Some("sch_htb"), "upload limits by tc_htb"),
    (
        "fq_codel",
        "fq_codel_enqueue",
        Some("sch_fq_codel"),
        "fair queues of tc_htb; without it packets wait in order",
    ),
    ("clsact", "clsact_init", Some("sch_ingress"), BEFORE_TCX),
    ("ifb", "ifb_xmit", Some("ifb"), BY_IFB),
    ("act_mirred", "tcf_mirred_act", Some("act_mirred"), BY_MARKS),
    ("act_ctinfo", "tcf_ctinfo_act", Some("act_ctinfo"), BY_MARKS),
    ("act_skbedit", "tcf_skbedit_act", Some("act_skbedit"), BY_MARKS),
    ("cls_fw", "fw_classify", Some("cls_fw"), BY_MARKS),
    ("nft_ct", "nft_ct_get_eval", Some("nft_ct"), BY_MARKS),
    ("cls_bpf", "cls_bpf_classify", Some("cls_bpf"), BEFORE_TCX),
    ("tcx", "tcx_prog_attach", None, "programs beside other people's at an interface"),
    ("nf_tables", "nf_tables_newtable", Some("nf_tables"), "upload limits by nftables"),
    ("nft_limit", "nft_limit_bytes_eval", Some("nft_limit"), "upload limits by nftables"),
    ("nft_socket", "nft_socket_eval", Some("nft_socket"), ""),
    ("tbf", "tbf_enqueue", Some("sch_tbf"), ""),
    ("fq", "fq_enqueue", Some("sch_fq"), ""),
    ("cake", "cake_enqueue", Some("sch_cake"), ""),
    ("netem", "netem_enqueue", Some("sch_netem"), ""),
    ("act_police", "tcf_police_act", Some("act_police"), ""),
    ("act_bpf", "tcf_bpf_act", Some("act_bpf"), ""),
    ("cls_u32", "u32_classify", Some("cls_u32"), BY_MARKS),
    ("cls_cgroup", "cls_cgroup_classify", Some("cls_cgroup"), ""),
    ("cls_matchall", "mall_classify", Some("cls_matchall"), ""),
    ("cls_flower", "fl_classify", Some("cls_flower"), ""),
    ("kprobes", "register_kprobe", None, ""),
    ("bbr", "bbr_init", Some("tcp_bbr"), ""),
    ("inet_diag", "inet_diag_register", Some("inet_diag"), "connections, and the monitor sock_diag"),
    ("packet sockets", "packet_rcv", Some("af_packet"), "the monitor pnet"),
    ("cgroup programs", "__cgroup_bpf_run_filter_skb", None, "the monitor ebpf and limits by ebpf_cgroup"),
];

/// Looks for all of them, and whether modules can be loaded.
pub(super) fn read() -> (Vec<Feature>, Modules) {
    let kernel = Features::read(&ROWS.map(|(_, function, ..)| function));
    let found = ROWS.into_iter().map(|(name, function, module, purpose)| {
        let presence = kernel.presence(function, module);
        Feature { name, purpose, module, presence }
    });
    (found.chain(trials()).collect(), kernel.loading)
}

/// Kinds of programs of which only a trial tells whether the kernel takes them.
#[cfg(feature = "ebpf")]
fn trials() -> [Feature; 2] {
    use crate::sys::{
        bpf_trial::{Kind, load},
        btf::KernelTypes,
    };
    use nix::libc;

    let types = KernelTypes::running().ok();
    [("fentry", Kind::Fentry, "tcp_v4_rcv"), ("LSM programs", Kind::Lsm, "bpf_lsm_file_open")].map(
        |(name, kind, function)| {
            let function = types.as_ref().and_then(|types| types.function(function).ok());
            let presence = match function.map(|function| load(kind, function)) {
                Some(Ok(())) => Presence::Present,
                // Without the privilege the kernel says the same.
                Some(Err(error))
                    if error.raw_os_error() == Some(libc::EPERM)
                        && crate::sys::capability::first_missing(&[
                            crate::sys::capability::BPF,
                            crate::sys::capability::PERFMON,
                        ])
                        .is_some() =>
                {
                    Presence::Unknown
                }
                Some(Err(_)) => Presence::Absent,
                None => Presence::Unknown,
            };
            Feature { name, purpose: "", module: None, presence }
        },
    )
}

/// Without eBPF in this build they do not matter.
#[cfg(not(feature = "ebpf"))]
const fn trials() -> [Feature; 0] {
    []
}
