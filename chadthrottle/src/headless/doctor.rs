//! `doctor`: what this host offers, what is missing, and how to get it.

use std::io::Write;

use crate::{
    backends::registry::{Backends, Listed, Wanted},
    doctor::{self, Report},
    sys::kernel_features::{Modules, Presence},
};

/// Prints what there is: for people, or as one JSON object without names of interfaces, tables and other people's programs.
///
/// # Errors
/// When a name in `wanted` does not exist, or `out` cannot be written.
pub fn run(backends: &Backends, wanted: &Wanted, json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let report = doctor::examine(backends, wanted)?;
    if json {
        writeln!(out, "{}", serde_json::to_string(&report.anonymous())?)?;
        return Ok(());
    }
    print_host(&report, out)?;
    print_features(&report, out)?;
    print_neighbours(&report, out)?;
    let listing = &report.backends;
    for (kind, rows) in
        [("monitor", &listing.monitor), ("upload", &listing.upload), ("download", &listing.download)]
    {
        writeln!(out, "\n{kind} backends")?;
        for Listed { name, selected, reason, .. } in rows {
            let star = if *selected { '*' } else { ' ' };
            writeln!(out, "  {star} {name:<14} {}", reason.as_deref().unwrap_or("works here"))?;
        }
    }
    writeln!(out, "\nwhat would work better")?;
    if report.advice.is_empty() {
        writeln!(out, "  nothing that is known")?;
    }
    for advice in &report.advice {
        writeln!(out, "  - {}", advice.what)?;
        if let Some(command) = &advice.command {
            writeln!(out, "      {command}")?;
        }
    }
    Ok(())
}

fn yes(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

fn print_host(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let (kernel, cgroups) = (&report.kernel, &report.cgroups);
    let modules = match kernel.modules {
        Modules::None => "this kernel has none",
        Modules::Disabled => "no more can be loaded until the next boot (kernel.modules_disabled)",
        Modules::Forbidden => "this process may load none (CAP_SYS_MODULE)",
        Modules::Loadable => "can be loaded",
    };
    let known = |value: &Option<String>| value.clone().unwrap_or_else(|| "–".to_owned());
    let number = |value: Option<u32>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    let layout = format!("{:?}", cgroups.layout).to_lowercase();
    writeln!(out, "chadthrottle {} on Linux {} ({})\n", report.version, kernel.release, kernel.machine)?;
    for (name, value) in [
        ("BTF", yes(kernel.btf).to_owned()),
        ("cgroups", format!("{layout}, version 2 at {}", known(&cgroups.version2))),
        (
            "lockdown",
            kernel
                .lockdown
                .clone()
                .unwrap_or_else(|| "not told: no securityfs, or not in this kernel".to_owned()),
        ),
        ("modules", modules.to_owned()),
        ("ptrace_scope", number(kernel.ptrace_scope)),
        ("unprivileged_bpf_disabled", number(kernel.unprivileged_bpf_disabled)),
        ("default queue", known(&kernel.default_queue)),
        ("congestion control", known(&kernel.congestion_control)),
    ] {
        writeln!(out, "  {name:<26} {value}")?;
    }
    for (name, held) in [("capabilities held", true), ("capabilities missing", false)] {
        let some = report.capabilities.iter().filter(|one| one.held == held);
        let names: Vec<&str> = some.map(|one| one.name).collect();
        writeln!(out, "  {name:<26} {}", if names.is_empty() { "–".to_owned() } else { names.join(", ") })?;
    }
    Ok(())
}

fn print_features(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    writeln!(out, "\nin this kernel")?;
    for (presence, words) in [
        (Presence::Present, "there"),
        (Presence::Loadable, "as a module that is loaded when it is used"),
        (Presence::Barred, "as a module that may not be loaded"),
        (Presence::Absent, "not there"),
        (Presence::Unknown, "not known"),
    ] {
        let some = report.features.iter().filter(|feature| feature.presence == presence);
        let names: Vec<&str> = some.map(|feature| feature.name).collect();
        if !names.is_empty() {
            writeln!(out, "  {words}: {}", names.join(", "))?;
        }
    }
    Ok(())
}

fn print_neighbours(report: &Report, out: &mut impl Write) -> std::io::Result<()> {
    let neighbours = &report.neighbours;
    writeln!(out, "\nwho else is there")?;
    for queue in &neighbours.queues {
        let whose = match (queue.queues.is_empty(), queue.is_chosen) {
            (true, _) => "",
            (false, true) => " (somebody chose it)",
            (false, false) => " (the kernel's own)",
        };
        let queues = if queue.queues.is_empty() { "no queue".to_owned() } else { queue.queues.join(", ") };
        writeln!(out, "  {:<16} {queues}{whose}", queue.interface)?;
    }
    for (what, all) in [("eBPF", &neighbours.programs), ("nftables", &neighbours.tables)] {
        for others in all {
            writeln!(out, "  {what} {}: {} ({})", others.kind, others.count, others.names.join(", "))?;
        }
    }
    Ok(())
}
