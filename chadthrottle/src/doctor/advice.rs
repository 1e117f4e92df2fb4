//! What would work better here, and the command that makes it so. Nothing is advised that this kernel cannot do.

use serde::Serialize;

use super::{
    Feature, Report,
    features::{BEFORE_TCX, BY_IFB, BY_MARKS},
    host::Layout,
};
use crate::{
    backends::registry::Listed,
    sys::{kernel_features::Presence, lockdown::CONFIDENTIALITY},
};

/// Something that could be better.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Advice {
    /// What is not as it could be, and what of it.
    pub what: String,
    /// What makes it so. None where no command does.
    pub command: Option<String>,
}

/// Features that a backend is better with, though it works without.
const BETTER_WITH: [&str; 1] = ["fq_codel"];

pub(super) fn of(report: &Report) -> Vec<Advice> {
    let mut advice = Vec::from_iter(privileges(report));
    advice.extend(ebpf(report));
    advice.extend(modules(report));
    advice.extend(queues(report));
    advice
}

fn advise(what: impl Into<String>, command: Option<&str>) -> Advice {
    Advice { what: what.into(), command: command.map(str::to_owned) }
}

fn works(rows: &[Listed], name: &str) -> bool {
    rows.iter().any(|row| row.name == name && row.available)
}

fn feature<'a>(report: &'a Report, name: &str) -> Option<&'a Feature> {
    report.features.iter().find(|feature| feature.name == name)
}

fn privileges(report: &Report) -> Option<Advice> {
    let missing: Vec<&str> = (report.capabilities.iter())
        .filter(|capability| !capability.held)
        .map(|capability| capability.name)
        .collect();
    (!missing.is_empty()).then(|| {
        advise(
            format!(
                "Without {} other users' processes, and all that is not TCP, are neither seen nor limited.",
                missing.join(", ")
            ),
            Some("sudo chadthrottle doctor"),
        )
    })
}

/// What keeps the best backends from working, where that is not a privilege.
fn ebpf(report: &Report) -> Vec<Advice> {
    let mut advice = Vec::new();
    let confidential = report.kernel.lockdown.as_deref() == Some(CONFIDENTIALITY);
    if confidential {
        advice.push(advise(
            "The kernel is locked down for confidentiality, so that no eBPF program may read its memory; tc_htb and \
             nftables work without.",
            None,
        ));
    }
    if !report.kernel.btf && !confidential {
        advice.push(advise(
            "The kernel shows no BTF, so that neither ebpf nor ebpf_cgroup works; one with CONFIG_DEBUG_INFO_BTF does.",
            None,
        ));
    }
    match report.cgroups.layout {
        Layout::Legacy => advice.push(advise(
            "No cgroup v2 tree is mounted, which ebpf and ebpf_cgroup need; beside version 1 it can be.",
            Some("mkdir -p /run/cgroup2 && mount -t cgroup2 none /run/cgroup2"),
        )),
        Layout::None => advice.push(advise(
            "No cgroup v2 tree is mounted, which ebpf and ebpf_cgroup need.",
            Some("mount -t cgroup2 none /sys/fs/cgroup"),
        )),
        Layout::Unified | Layout::Hybrid => {}
    }
    // What sockopt leaves set after a SIGKILL, for who has no privilege.
    if report.kernel.ptrace_scope.is_some_and(|scope| scope == 1 || scope == 2)
        && report
            .capabilities
            .iter()
            .any(|capability| capability.name == "CAP_SYS_PTRACE" && !capability.held)
    {
        advice.push(advise(
            "kernel.yama.ptrace_scope keeps you from limiting programs that chadthrottle did not start, and what it sets on \
             their sockets from being put back after a SIGKILL.",
            Some("sudo sysctl kernel.yama.ptrace_scope=0"),
        ));
    }
    advice
}

/// Modules that are there and would make a backend work, or work better.
fn modules(report: &Report) -> Vec<Advice> {
    let mut advice = Vec::new();
    for feature in report.features.iter().filter(|feature| !feature.purpose.is_empty()) {
        let Some(module) = feature.module else { continue };
        if feature.presence == Presence::Loadable && !is_wanted(report, feature) {
            continue;
        }
        let what = format!("{} is a module that is not loaded: {}.", feature.name, feature.purpose);
        match feature.presence {
            Presence::Loadable => advice.push(advise(what, Some(&format!("modprobe {module}")))),
            Presence::Barred => advice.push(advise(
                format!("{what} Nobody may load modules here (any more): it has to be loaded at boot, by the host."),
                None,
            )),
            Presence::Absent if BETTER_WITH.contains(&feature.name) => advice.push(advise(
                format!(
                    "This kernel has no {}, and no module of it: {}. A kernel with CONFIG_NET_SCH_{} has.",
                    feature.name,
                    feature.purpose,
                    feature.name.to_uppercase()
                ),
                None,
            )),
            Presence::Present | Presence::Absent | Presence::Unknown => {}
        }
    }
    advice
}

/// Whether a module that can be loaded is of use here.
fn is_wanted(report: &Report, wanted: &Feature) -> bool {
    match wanted.purpose {
        // Refused for another reason, such as its version: a module that is missing but can be loaded is none.
        BY_IFB => works(&report.backends.download, "ifb_tc"),
        BY_MARKS => by_marks(report),
        BEFORE_TCX => feature(report, "tcx").is_none_or(|tcx| tcx.presence != Presence::Present),
        _ => true,
    }
}

/// Whether what arrives is known by marks of connections here.
fn by_marks(report: &Report) -> bool {
    let mut rows = report.backends.download.iter().filter(|row| row.name == "ifb_tc" && row.available);
    rows.any(|row| row.tagger.is_some_and(|tagger| tagger.starts_with("marks")))
}

/// Queues that somebody chose, which `tc_htb` does not take.
fn queues(report: &Report) -> Vec<Advice> {
    let has_htb = feature(report, "htb").is_some_and(|htb| htb.presence != Presence::Absent);
    // Where the better one works nobody has to give anything up.
    if !has_htb || works(&report.backends.upload, "ebpf_cgroup") {
        return Vec::new();
    }
    let chosen = report.neighbours.queues.iter().filter(|queue| queue.is_chosen);
    chosen
        .map(|queue| {
            let name = &queue.interface;
            let what = format!(
                "tc_htb does not limit what leaves by {name}, because somebody gave that the queue {}; this gives it up, and \
                 the kernel makes its own again.",
                queue.queues.first().map_or("?", String::as_str)
            );
            advise(what, Some(&format!("tc qdisc del dev {name} root")))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backends::registry::{Backends, Wanted};

    #[test]
    fn no_module_is_advised_that_is_of_no_use_here() {
        let mut report =
            super::super::examine(&Backends::default(), &Wanted::default()).expect("no name was given");
        for (tcx, has_use) in [(Presence::Present, false), (Presence::Absent, true)] {
            for row in report.backends.download.iter_mut().filter(|row| row.name == "ifb_tc") {
                row.available = has_use;
            }
            for feature in &mut report.features {
                match feature.name {
                    "ifb" | "cls_bpf" => feature.presence = Presence::Loadable,
                    "tcx" => feature.presence = tcx,
                    _ => {}
                }
            }
            let advice = modules(&report);
            for command in ["modprobe ifb", "modprobe cls_bpf"] {
                let is_told = advice.iter().any(|advice| advice.command.as_deref() == Some(command));
                let is_in_build = command != "modprobe ifb" || cfg!(feature = "throttle-ifb-tc");
                assert_eq!(is_told, has_use && is_in_build, "{command}");
            }
        }
    }
}
