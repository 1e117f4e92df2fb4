//! The kernel as it was built and set up, and the trees of cgroups.

use std::{fs, path::Path};

use nix::sys::utsname::uname;
use serde::Serialize;

use crate::sys::{kernel_features::Modules, lockdown, proc_text};

/// The running kernel.
#[derive(Debug, Serialize)]
pub struct Kernel {
    /// Its release.
    pub release: String,
    /// What it runs on.
    pub machine: String,
    /// Whether it shows its types, without which no eBPF backend works.
    pub btf: bool,
    /// What it keeps even from root (`kernel_lockdown(7)`). None where it does not know of that.
    pub lockdown: Option<String>,
    /// `kernel.unprivileged_bpf_disabled`.
    pub unprivileged_bpf_disabled: Option<u32>,
    /// `kernel.yama.ptrace_scope`. None where it does not know of that: 0 then.
    pub ptrace_scope: Option<u32>,
    /// The queue that interfaces get by themselves.
    pub default_queue: Option<String>,
    /// How TCP paces and answers losses by itself.
    pub congestion_control: Option<String>,
    /// Whether modules can be loaded.
    pub modules: Modules,
}

impl Kernel {
    pub(super) fn read() -> Self {
        let name = uname().ok();
        let word = |text: &std::ffi::OsStr| text.to_string_lossy().into_owned();
        let setting = |name: &str| {
            fs::read_to_string(Path::new("/proc/sys").join(name)).ok().map(|text| text.trim().to_owned())
        };
        Self {
            release: name.as_ref().map_or_else(String::new, |name| word(name.release())),
            machine: name.as_ref().map_or_else(String::new, |name| word(name.machine())),
            btf: fs::File::open("/sys/kernel/btf/vmlinux").is_ok(),
            lockdown: lockdown::level(),
            unprivileged_bpf_disabled: number(setting("kernel/unprivileged_bpf_disabled")),
            ptrace_scope: number(setting("kernel/yama/ptrace_scope")),
            default_queue: setting("net/core/default_qdisc"),
            congestion_control: setting("net/ipv4/tcp_congestion_control"),
            modules: Modules::None,
        }
    }
}

fn number(text: Option<String>) -> Option<u32> {
    text?.parse().ok()
}

/// How cgroups are mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Layout {
    /// Version 2 alone.
    Unified,
    /// Both.
    Hybrid,
    /// Version 1 alone.
    Legacy,
    /// Not at all.
    None,
}

/// Trees of cgroups.
#[derive(Debug, Serialize)]
pub struct Cgroups {
    /// How they are mounted.
    pub layout: Layout,
    /// Where the tree of version 2 is, where there is one.
    pub version2: Option<String>,
}

/// Of any list of mounts.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(mounts: &str) {
    let cgroups = Cgroups::of(mounts);
    let has_one = matches!(cgroups.layout, Layout::Unified | Layout::Hybrid);
    assert_eq!(cgroups.version2.is_some(), has_one, "{cgroups:?}");
    let _ = lockdown::chosen(mounts);
}

impl Cgroups {
    pub(super) fn read() -> Self {
        Self::of(&proc_text::read("/proc/self/mounts").unwrap_or_default())
    }

    fn of(mounts: &str) -> Self {
        let mut version2 = None;
        let mut has_version1 = false;
        for line in mounts.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                [_, path, "cgroup2", ..] if version2.is_none() => version2 = Some(path.to_owned()),
                [_, _, "cgroup", ..] => has_version1 = true,
                _ => {}
            }
        }
        let layout = match (version2.is_some(), has_version1) {
            (true, false) => Layout::Unified,
            (true, true) => Layout::Hybrid,
            (false, true) => Layout::Legacy,
            (false, false) => Layout::None,
        };
        Self { layout, version2 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_told_by_what_is_mounted() {
        let unified = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";
        let legacy = "cgroup /sys/fs/cgroup/net_cls cgroup rw,net_cls 0 0\n";
        let all = [
            (unified.to_owned(), Layout::Unified),
            (format!("{legacy}{unified}"), Layout::Hybrid),
            (legacy.to_owned(), Layout::Legacy),
            ("proc /proc proc rw 0 0\nhalf\n".to_owned(), Layout::None),
        ];
        for (mounts, layout) in all {
            assert_eq!(Cgroups::of(&mounts).layout, layout, "{mounts}");
        }
        assert_eq!(Cgroups::of(unified).version2.as_deref(), Some("/sys/fs/cgroup"));
    }
}
