//! How packets are known where they arrive: by programs, or by marks of connections.

use super::marks;
#[cfg(feature = "ebpf")]
use super::programs;
#[cfg(feature = "ebpf")]
use crate::backends::{Availability, ebpf};
use crate::{
    backends::{
        BackendOptions, Obstacle, TaggerChoice,
        throttle::{htb, only_for_root},
    },
    sys::kernel_version::kernel_version,
};

/// Since then an IFB takes what a program redirects to it (`__bpf_tx_skb`, net/core/filter.c); before, it drops it
/// (`ifb_xmit`, drivers/net/ifb.c). It takes what a filter does in any case (`tcf_mirred_act`, `net/sched/act_mirred.c`).
const REDIRECTS: (u32, u32) = (6, 4);

/// How.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    #[cfg(feature = "ebpf")]
    Programs,
    Marks,
}

/// How they are known here, or why they cannot be: as was asked for, else by programs, else by marks. Before Linux 6.4 marks
/// have to be asked for.
pub(super) fn choose(options: &BackendOptions) -> Result<Choice, Obstacle> {
    match options.tagger {
        TaggerChoice::Sockets => by_marks(),
        TaggerChoice::Ebpf => by_programs(options),
        // It knows nobody by a cgroup.
        TaggerChoice::Auto | TaggerChoice::Cgroup => {
            by_programs(options).or_else(|obstacle| if is_old() { Err(obstacle) } else { better(obstacle) })
        }
    }
}

/// Marks, where they can be had; else what keeps the programs away.
#[cfg(feature = "ebpf")]
fn better(obstacle: Obstacle) -> Result<Choice, Obstacle> {
    by_marks().map_err(|_| obstacle)
}

#[cfg(not(feature = "ebpf"))]
fn better(_: Obstacle) -> Result<Choice, Obstacle> {
    by_marks()
}

/// The one that it would be, if nothing were in the way.
pub(super) fn likely(options: &BackendOptions) -> Choice {
    match options.tagger {
        TaggerChoice::Sockets => Choice::Marks,
        #[cfg(feature = "ebpf")]
        _ => Choice::Programs,
        #[cfg(not(feature = "ebpf"))]
        _ => Choice::Marks,
    }
}

/// How `--list-backends` calls it.
#[must_use]
pub fn tagger(options: &BackendOptions) -> &'static str {
    match choose(options).unwrap_or_else(|_| likely(options)) {
        #[cfg(feature = "ebpf")]
        Choice::Programs => programs::TAGGER,
        Choice::Marks => marks::TAGGER,
    }
}

fn is_old() -> bool {
    kernel_version().is_some_and(|version| version < REDIRECTS)
}

#[cfg(feature = "ebpf")]
fn by_programs(options: &BackendOptions) -> Result<Choice, Obstacle> {
    if let Availability::Unavailable(obstacle) = ebpf::probe(options) {
        return Err(obstacle);
    }
    check_root()?;
    if is_old() {
        return Err(Obstacle::Host {
            cause: "this kernel drops what a program sends to an IFB".into(),
            remedy: "Linux 6.4 does not; with --tagger sockets filters send it, and tc_police and ebpf_cgroup work without \
                     an IFB"
                .into(),
        });
    }
    check_queue()?;
    Ok(Choice::Programs)
}

#[cfg(not(feature = "ebpf"))]
fn by_programs(options: &BackendOptions) -> Result<Choice, Obstacle> {
    let remedy = match options.tagger {
        TaggerChoice::Ebpf => "choose another --tagger",
        _ => {
            "ask for marks of connections by --tagger sockets: before Linux 6.4 they are used by nobody's choice but yours"
        }
    };
    Err(Obstacle::Host { cause: "this program was built without eBPF".into(), remedy: remedy.into() })
}

fn by_marks() -> Result<Choice, Obstacle> {
    check_root()?;
    check_queue()?;
    marks::obstacle().map_or(Ok(Choice::Marks), Err)
}

fn check_root() -> Result<(), Obstacle> {
    only_for_root("its interface", "ebpf_cgroup or tc_police").map_or(Ok(()), Err)
}

/// Whether this kernel has the IFB and its queue, as far as can be told without making any of it.
fn check_queue() -> Result<(), Obstacle> {
    let lacks = |what: &str, module: &str, option: &str| {
        Err(Obstacle::Host {
            cause: format!("this kernel has no {what}"),
            remedy: format!("install the module {module} ({option}); docs/IFB_SETUP.md has how"),
        })
    };
    if !htb::is_in_kernel() {
        return lacks("HTB queue", "sch_htb", "CONFIG_NET_SCH_HTB");
    }
    // Where it is built in, it has parameters all the same.
    let has_ifb = std::path::Path::new("/sys/module/ifb").exists() || htb::may_have_module("ifb");
    if has_ifb { Ok(()) } else { lacks("IFB", "ifb", "CONFIG_IFB") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for_is_what_it_would_be() {
        let of = |tagger| likely(&BackendOptions { tagger, ..BackendOptions::default() });
        assert_eq!(of(TaggerChoice::Sockets), Choice::Marks);
        assert_eq!(
            tagger(&BackendOptions { tagger: TaggerChoice::Sockets, ..BackendOptions::default() }),
            marks::TAGGER
        );
        #[cfg(feature = "ebpf")]
        for tagger in [TaggerChoice::Auto, TaggerChoice::Ebpf, TaggerChoice::Cgroup] {
            assert_eq!(of(tagger), Choice::Programs);
        }
    }
}
