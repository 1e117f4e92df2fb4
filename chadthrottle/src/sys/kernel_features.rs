//! What the running kernel has, by the names of its functions and by its modules. Nothing is tried, and no module is loaded.

use std::{
    collections::{HashMap, HashSet},
    fs,
};

use super::capability::{SYS_MODULE, first_missing};

/// Whether the kernel has something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Presence {
    /// It is in the kernel, or its module is loaded.
    Present,
    /// There is a module, which is loaded when it is first used.
    Loadable,
    /// There is a module, which this process may not have loaded, or nobody may any more.
    Barred,
    /// It has not.
    Absent,
    /// It does not tell.
    Unknown,
}

/// Whether modules can be loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Modules {
    /// The kernel was built without.
    None,
    /// Not any more, until the next boot (`kernel.modules_disabled`).
    Disabled,
    /// Not by this process.
    Forbidden,
    /// They can.
    Loadable,
}

/// What the running kernel says of itself.
#[derive(Debug)]
pub struct Features {
    /// Names of its functions and of those of loaded modules, without what the compiler appends. Empty where it does not
    /// tell.
    functions: HashSet<String>,
    /// File names of modules, without ending.
    modules: HashSet<String>,
    /// Whether modules can be loaded.
    pub loading: Modules,
}

impl Features {
    /// Reads what there is; what cannot be read is unknown. `wanted` are the names of functions that matter.
    #[must_use]
    pub fn read(wanted: &[&str]) -> Self {
        let symbols = fs::read("/proc/kallsyms").unwrap_or_default();
        let functions = functions(&String::from_utf8_lossy(&symbols), wanted);
        let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let directory = format!("/lib/modules/{}", release.trim());
        let list = fs::read_to_string(format!("{directory}/modules.dep")).unwrap_or_default();
        Self { functions, modules: module_names(&list), loading: loading() }
    }

    /// Whether there is what has this function, or comes with this module.
    #[must_use]
    pub fn presence(&self, function: &str, module: Option<&str>) -> Presence {
        if self.functions.contains(function) {
            return Presence::Present;
        }
        match module.filter(|module| self.modules.contains(*module)) {
            Some(_) if self.loading == Modules::Loadable => Presence::Loadable,
            Some(_) => Presence::Barred,
            None if self.functions.is_empty() => Presence::Unknown,
            None => Presence::Absent,
        }
    }
}

/// Those of `wanted` that are among the lines of /proc/kallsyms, and a name that is in every kernel, so that a list without
/// any of them is told from none.
fn functions(lines: &str, wanted: &[&str]) -> HashSet<String> {
    let mut interned: HashMap<&str, bool> = wanted.iter().map(|name| (*name, false)).collect();
    interned.insert(EVERYWHERE, false);
    for line in lines.lines() {
        // `ffffffff81000000 t name.isra.0 [module]`
        let Some(name) = line.split_ascii_whitespace().nth(2) else { continue };
        let name = name.split('.').next().unwrap_or(name);
        if let Some(found) = interned.get_mut(name) {
            *found = true;
        }
    }
    interned.into_iter().filter(|(_, found)| *found).map(|(name, _)| name.to_owned()).collect()
}

/// In every kernel with IP.
const EVERYWHERE: &str = "ip_rcv";

fn module_names(list: &str) -> HashSet<String> {
    let paths = list.lines().filter_map(|line| line.split(':').next());
    let file = |path: &str| Some(path.rsplit('/').next()?.split('.').next()?.replace('-', "_"));
    paths.filter_map(file).collect()
}

fn loading() -> Modules {
    if fs::metadata("/proc/modules").is_err() {
        return Modules::None;
    }
    let disabled = fs::read_to_string("/proc/sys/kernel/modules_disabled").unwrap_or_default();
    if disabled.trim() == "1" {
        return Modules::Disabled;
    }
    if first_missing(&[SYS_MODULE]).is_some() { Modules::Forbidden } else { Modules::Loadable }
}

/// Of any lists.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str) {
    assert!(functions(text, &["htb_enqueue"]).len() <= text.lines().count().min(2));
    assert!(module_names(text).iter().all(|name| !name.contains(['/', '.', '-'])));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYMBOLS: &str = "0000000000000000 T ip_rcv\n0000000000000000 t htb_enqueue.isra.0\n\
                           0000000000000000 t fq_enqueue\t[sch_fq]\nhalf a line\n";

    fn features(symbols: &str, loading: Modules) -> Features {
        let list = "kernel/net/sched/sch_cake.ko.zst: kernel/lib/x.ko.zst\nkernel/net/nft-x.ko:\n";
        let wanted = ["htb_enqueue", "fq_enqueue", "cake_enqueue", "netem_enqueue"];
        Features { functions: functions(symbols, &wanted), modules: module_names(list), loading }
    }

    #[test]
    fn what_is_built_in_loaded_loadable_and_absent_are_told_apart() {
        let here = features(SYMBOLS, Modules::Loadable);
        assert_eq!(here.presence("htb_enqueue", Some("sch_htb")), Presence::Present);
        assert_eq!(here.presence("fq_enqueue", Some("sch_fq")), Presence::Present);
        assert_eq!(here.presence("cake_enqueue", Some("sch_cake")), Presence::Loadable);
        assert_eq!(here.presence("netem_enqueue", Some("sch_netem")), Presence::Absent);
        let barred = features(SYMBOLS, Modules::Disabled);
        assert_eq!(barred.presence("cake_enqueue", Some("sch_cake")), Presence::Barred);
        let silent = features("", Modules::Loadable);
        assert_eq!(silent.presence("htb_enqueue", None), Presence::Unknown);
    }

    #[test]
    fn the_running_kernel_tells() {
        let here = Features::read(&["tcp_v4_rcv", "no_kernel_has_this"]);
        assert_eq!(here.presence("tcp_v4_rcv", None), Presence::Present);
        assert_eq!(here.presence("no_kernel_has_this", Some("no_module_either")), Presence::Absent);
    }
}
