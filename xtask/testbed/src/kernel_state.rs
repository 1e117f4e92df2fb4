//! What of the kernel's state a limiter could change, to show that it leaves nothing behind.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::{Host, Testbed, bpf, cgroup, netns, poll, program};

/// A snapshot: one line for each link, queue, filter, table, cgroup and BPF object.
///
/// BPF objects, named namespaces and cgroups of the program's own outside the bed are those of the whole machine,
/// where other programs come and go too: of these only new ones count as a difference.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KernelState {
    /// In the bed, where nobody else changes anything.
    bed: BTreeSet<String>,
    /// On the machine.
    machine: BTreeSet<String>,
}

impl KernelState {
    /// Takes a snapshot.
    ///
    /// # Errors
    ///
    /// That something cannot be read, or a program to read it with is missing.
    pub fn capture(bed: &Testbed) -> anyhow::Result<Self> {
        let mut state = Self::default();
        for (role, host) in [("client", bed.client()), ("router", bed.router()), ("server", bed.server())] {
            for line in of_host(host).with_context(|| format!("cannot read the state of the {role}"))? {
                state.bed.insert(format!("{role}: {line}"));
            }
        }
        let cgroups = cgroup::tree(bed.cgroup_root()).into_iter().skip(1);
        state.bed.extend(cgroups.map(|path| format!("cgroup {}", path.display())));

        let all = cgroup::tree(&cgroup::mount_point()?).into_iter();
        let named = all.filter(|path| path.to_string_lossy().contains("chadthrottle"));
        state.machine.extend(named.map(|path| format!("cgroup {}", path.display())));
        state.machine.extend(netns::names()?.into_iter().map(|name| format!("network namespace {name}")));
        for kind in &bpf::KINDS {
            for id in kind.ids().with_context(|| format!("cannot list BPF {}s", kind.name))? {
                // Gone since the list was made.
                let Some(description) = kind.describe(id) else { continue };
                state.machine.insert(format!("BPF {} {id}: {description}", kind.name));
            }
        }
        Ok(state)
    }

    /// What is there now and was not there before (`+`), and the other way round (`-`), a line each; empty where
    /// nothing is.
    #[must_use]
    pub fn difference(&self, now: &Self) -> String {
        let mut text = String::new();
        for line in self.bed.difference(&now.bed) {
            let _ = writeln!(text, "- {line}");
        }
        for line in now.bed.difference(&self.bed).chain(now.machine.difference(&self.machine)) {
            let _ = writeln!(text, "+ {line}");
        }
        text
    }

    /// The same of what is in the bed alone, where only the test itself changes anything.
    #[must_use]
    pub fn difference_in_bed(&self, now: &Self) -> String {
        let (before, now) = (
            Self { bed: self.bed.clone(), ..Self::default() },
            Self { bed: now.bed.clone(), ..Self::default() },
        );
        before.difference(&now)
    }

    /// Waits until everything is as it was in this snapshot. The kernel frees BPF objects a little after their last
    /// descriptor has been closed.
    ///
    /// # Errors
    ///
    /// What is still different after `timeout`.
    pub fn assert_returns(&self, bed: &Testbed, timeout: Duration) -> anyhow::Result<()> {
        let mut difference = String::new();
        let same = poll::until("the kernel's state is as before", timeout, || {
            // What goes between two looks cannot be looked at, and that is no reason to give up.
            difference = match Self::capture(bed) {
                Ok(now) => self.difference(&now),
                Err(error) => format!("{error:#}"),
            };
            Ok(difference.is_empty().then_some(()))
        });
        match same {
            Err(_) if !difference.is_empty() => bail!("this is not as it was {timeout:?} ago:\n{difference}"),
            other => other,
        }
    }
}

/// Links, queueing and nftables of one host.
fn of_host(host: &Host) -> anyhow::Result<Vec<String>> {
    let mut lines = Vec::new();
    let devices = host.run(|| Ok(fs::read_to_string("/proc/thread-self/net/dev")?))?;
    let names = devices.lines().filter_map(|line| line.split_once(':'));
    lines.extend(names.map(|(name, _)| format!("link {}", name.trim())));

    for qdisc in tc(host, &["qdisc", "show"])? {
        let words: Vec<_> = qdisc.split_ascii_whitespace().collect();
        if let ["qdisc", kind, handle, "dev", device, ..] = words[..] {
            match (kind, handle) {
                ("clsact", _) => {
                    lines.extend(filters(host, device, &["ingress"])?);
                    lines.extend(filters(host, device, &["egress"])?);
                }
                ("ingress", _) => lines.extend(filters(host, device, &["ingress"])?),
                // The kernel's own default, which takes neither classes nor filters.
                (_, "0:") => {}
                _ => {
                    lines.extend(tc(host, &["class", "show", "dev", device])?);
                    lines.extend(filters(host, device, &["parent", handle])?);
                }
            }
        }
        lines.push(without(&words, &["refcnt", "direct_packets_stat"]));
    }

    let nft = program::require_program("nft")?;
    // Without counters, which change by themselves.
    let ruleset = program::run(host.command(nft).args(["--stateless", "list", "ruleset"]), "")?;
    lines.extend(tables(&ruleset));
    Ok(lines)
}

fn filters(host: &Host, device: &str, place: &[&str]) -> anyhow::Result<Vec<String>> {
    let args = [&["filter", "show", "dev", device], place].concat();
    Ok(tc(host, &args)?.into_iter().map(|line| format!("{device} {}: {line}", place.join(" "))).collect())
}

fn tc(host: &Host, args: &[&str]) -> anyhow::Result<Vec<String>> {
    let output = program::run(Command::new("tc").args(["-n", host.namespace()]).args(args), "")?;
    Ok(output.lines().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect())
}

/// The line without these words and the numbers after them, which change with the traffic.
fn without(words: &[&str], unsteady: &[&str]) -> String {
    let mut words = words.iter();
    let mut kept = Vec::new();
    while let Some(word) = words.next() {
        if unsteady.contains(word) {
            words.next();
        } else {
            kept.push(*word);
        }
    }
    kept.join(" ")
}

/// Each table with its content, in one line, since one of its lines alone would not say where it is.
fn tables(ruleset: &str) -> Vec<String> {
    let mut tables = Vec::<String>::new();
    for line in ruleset.lines() {
        match tables.last_mut() {
            Some(table) if !line.starts_with("table ") => {
                table.push(' ');
                table.push_str(line.trim());
            }
            _ => tables.push(line.to_owned()),
        }
    }
    tables.into_iter().map(|table| format!("nftables {}", table.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(bed: &[&str], machine: &[&str]) -> KernelState {
        let set = |lines: &[&str]| lines.iter().map(ToString::to_string).collect();
        KernelState { bed: set(bed), machine: set(machine) }
    }

    #[test]
    fn a_difference_is_a_line_each() {
        let before = state(&["link a", "link b"], &["map 1", "map 2"]);
        assert_eq!(before.difference(&before), "");
        assert_eq!(before.difference(&state(&["link b", "link c"], &["map 2"])), "- link a\n+ link c\n");
        assert_eq!(before.difference(&state(&["link a", "link b"], &["map 3"])), "+ map 3\n");
    }

    #[test]
    fn what_changes_with_the_traffic_is_left_out() {
        let words = ["qdisc", "htb", "1:", "root", "refcnt", "2", "default", "0x10"];
        assert_eq!(without(&words, &["refcnt"]), "qdisc htb 1: root default 0x10");
    }

    #[test]
    fn a_table_is_one_line() {
        let ruleset = "table inet a {\n\tchain c {\n\t}\n}\ntable ip b {\n}\n";
        assert_eq!(tables(ruleset), ["nftables table inet a { chain c { } }", "nftables table ip b { }"]);
    }
}
