//! Whose the queues of interfaces are.

use std::{fmt, fs, io};

use crate::{
    backends::throttle::journal,
    process::ProcessId,
    sys::{
        links::Link,
        netlink::Netlink,
        tc::{self, Handle, Qdisc},
    },
};

/// The number of our queues: below 8000:, from where on the kernel numbers those that nobody has numbered.
pub(in crate::backends::throttle) const OURS: Handle = Handle::new(0x7cad, 0);

/// Whose the queue of an interface is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Root {
    /// The kernel's, as it makes it by itself.
    Default,
    /// Ours, or that of another one of us.
    Ours,
    /// Somebody made an HTB queue of it, in which classes of ours may be.
    Htb {
        /// Its number.
        handle: Handle,
        /// The number of the class for what no filter has one for, which need not be there.
        default_class: Handle,
    },
    /// Somebody chose it.
    Chosen {
        /// Its kind.
        kind: String,
        /// Its number.
        handle: Handle,
    },
    /// The kernel's, but as it would not make it again now.
    Outdated {
        /// What it is.
        kind: String,
        /// What it would be.
        now: String,
    },
}

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("the kernel's default queue"),
            Self::Ours => write!(f, "htb {OURS}"),
            Self::Htb { handle, .. } => write!(f, "htb {handle}"),
            Self::Chosen { kind, handle } => write!(f, "{kind} {handle}"),
            Self::Outdated { kind, now } => {
                write!(f, "{kind}, which the kernel would not restore: net.core.default_qdisc is {now} now")
            }
        }
    }
}

/// Whose the queue of an interface is, by the list of all.
pub(super) fn root_of(link: &Link, qdiscs: &[Qdisc]) -> Root {
    let mut of_link = qdiscs.iter().filter(|qdisc| qdisc.interface == link.index);
    match of_link.clone().find(|qdisc| qdisc.is_root) {
        Some(root) if root.kind == "htb" && root.handle == OURS => Root::Ours,
        Some(Qdisc { handle, htb: Some(htb), .. }) if *handle != Handle(0) && !htb.is_offloaded => {
            let default_class = Handle(handle.0 | htb.default_class & 0xffff);
            Root::Htb { handle: *handle, default_class }
        }
        Some(root) if root.handle != Handle(0) => {
            Root::Chosen { kind: root.kind.clone(), handle: root.handle }
        }
        // Also where there is none, as long as an interface is down.
        _ => {
            let now = default_kind();
            let is_other = |qdisc: &&Qdisc| {
                qdisc.handle == Handle(0) && !["mq", "noqueue"].contains(&qdisc.kind.as_str())
            };
            let other = of_link.find(|qdisc| is_other(qdisc) && Some(&qdisc.kind) != now.as_ref());
            match (other, now) {
                (Some(qdisc), Some(now)) => Root::Outdated { kind: qdisc.kind.clone(), now },
                _ => Root::Default,
            }
        }
    }
}

/// What the kernel makes by itself, where it says so: not in every network namespace, and not in every kernel.
fn default_kind() -> Option<String> {
    Some(fs::read_to_string("/proc/sys/net/core/default_qdisc").ok()?.trim().to_owned())
}

/// Why an interface cannot be taken, with the way out.
pub(super) fn why_not(link: &Link, root: &Root) -> String {
    let name = &link.name;
    let elsewhere = "or limit other interfaces alone (--interface), or use another backend";
    match root {
        Root::Ours => match journal::owner(link.index) {
            Some(owner) => {
                format!("process {owner} has its queue {OURS} on {name}; end that first, {elsewhere}")
            }
            _ => format!(
                "{name} has a queue {OURS} that nobody here made; if it is nobody's, `tc qdisc del dev {name} root` \
                 removes it, {elsewhere}"
            ),
        },
        Root::Outdated { kind, .. } => format!(
            "{name} has {root}; set that to {kind}, or give {name} the new one (`tc qdisc add dev {name} root \
             handle 1: pfifo; tc qdisc del dev {name} root`), {elsewhere}"
        ),
        Root::Htb { .. } => match other_user(link) {
            Some(owner) => format!(
                "process {owner} has its classes in the queue {root} of {name}; end that first, {elsewhere}"
            ),
            None => format!(
                "somebody gave {name} the queue {root}; --use-existing-htb has it used as it is, with classes of ours \
                 beside its own; or give it up (`tc qdisc del dev {name} root`), {elsewhere}"
            ),
        },
        _ => format!(
            "somebody gave {name} the queue {root}, and it would be lost; `tc qdisc del dev {name} root` gives it up, \
             {elsewhere}"
        ),
    }
}

/// The number that our queues and classes are to have on all of these interfaces: ours, or that of the HTB queue that one
/// of them has, where it may be used. A socket has one priority, which is the number of one class.
pub(super) fn number(links: &[Link], qdiscs: &[Qdisc], may_share: bool) -> Result<Handle, String> {
    let mut number: Option<(Handle, &str)> = None;
    for link in links.iter().filter(|_| may_share) {
        let Root::Htb { handle, .. } = root_of(link, qdiscs) else { continue };
        match number {
            Some((known, name)) if known != handle => {
                return Err(format!(
                    "{name} has the queue htb {known}, and {} htb {handle}; a socket can name a class of one number \
                     alone, so limit one of them (--interface), or use another backend",
                    link.name
                ));
            }
            _ => number = Some((handle, &link.name)),
        }
    }
    Ok(number.map_or(OURS, |(handle, _)| handle))
}

/// Which other process of ours has classes in somebody's queue of this interface, and is still there.
pub(super) fn other_user(link: &Link) -> Option<ProcessId> {
    let is_us = |owner: &ProcessId| u32::try_from(owner.pid) == Ok(std::process::id());
    journal::owner(link.index).filter(|owner| owner.is_alive() && !is_us(owner))
}

/// The first interface that cannot be taken, and why. What a killed one of us left is not in the way.
pub(super) fn first_obstacle(
    netlink: &mut Netlink,
    links: &[Link],
    may_share: bool,
) -> io::Result<Option<String>> {
    let qdiscs = tc::qdiscs(netlink).map_err(io::Error::other)?;
    let owner = |link: &Link| journal::owner(link.index);
    let obstacle = |link: &Link| match root_of(link, &qdiscs) {
        Root::Default => None,
        root @ Root::Htb { .. } if may_share => other_user(link).map(|_| why_not(link, &root)),
        // With the number of somebody's queue.
        Root::Htb { .. }
            if owner(link).is_some_and(|owner| !owner.is_alive()) && is_signed(link, &qdiscs) =>
        {
            None
        }
        Root::Ours if owner(link).is_some_and(|owner| !owner.is_alive()) => None,
        root => Some(why_not(link, &root)),
    };
    let taken = links.iter().find_map(obstacle);
    Ok(taken.or_else(|| number(links, &qdiscs, may_share).err()))
}

/// Whether the queue of an interface is that of whom it is noted for.
fn is_signed(link: &Link, qdiscs: &[Qdisc]) -> bool {
    let root = qdiscs.iter().find(|qdisc| qdisc.interface == link.index && qdisc.is_root);
    let signature = root.and_then(|root| root.htb).map(|htb| htb.signature);
    signature.is_some() && signature == journal::owner(link.index).map(ProcessId::signature)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tc::{HtbFound, Stats};

    fn qdisc(kind: &str, handle: Handle, is_root: bool) -> Qdisc {
        let htb = (kind == "htb").then(|| HtbFound { default_class: 0x30, ..HtbFound::default() });
        Qdisc {
            interface: 3,
            kind: kind.into(),
            handle,
            parent: Handle(0),
            is_root,
            htb,
            fq: None,
            stats: Stats::default(),
        }
    }

    #[test]
    fn the_kernels_queue_has_no_number() {
        let link = Link { index: 3, name: "eth0".into(), ..Link::default() };
        assert_eq!(root_of(&link, &[]), Root::Default);
        assert_eq!(root_of(&link, &[qdisc("noqueue", Handle(0), true)]), Root::Default);
        assert_eq!(root_of(&link, &[qdisc("htb", OURS, true)]), Root::Ours);
        for (kind, handle) in [("prio", Handle::new(1, 0)), ("mq", Handle::new(0x8001, 0)), ("cake", OURS)] {
            let root = root_of(&link, &[qdisc(kind, handle, true)]);
            assert_eq!(root, Root::Chosen { kind: kind.into(), handle });
            assert!(why_not(&link, &root).contains("tc qdisc del dev eth0 root"));
        }
        let root = root_of(&link, &[qdisc("htb", Handle::new(1, 0), true)]);
        assert_eq!(root, Root::Htb { handle: Handle::new(1, 0), default_class: Handle::new(1, 0x30) });
        let why = why_not(&link, &root);
        assert!(why.contains("--use-existing-htb") && why.contains("tc qdisc del dev eth0 root"), "{why}");
        // What is at the entrance is nothing to us.
        let clsact = qdisc("clsact", Handle::new(0xffff, 0), false);
        assert_eq!(root_of(&link, &[clsact, qdisc("noqueue", Handle(0), true)]), Root::Default);
        // The device's own doing is not to be added to.
        let mut offloaded = qdisc("htb", Handle::new(1, 0), true);
        offloaded.htb = Some(HtbFound { is_offloaded: true, ..HtbFound::default() });
        assert!(matches!(root_of(&link, &[offloaded]), Root::Chosen { .. }));
    }

    #[test]
    fn one_number_is_for_all_interfaces() {
        let links = [3, 4].map(|index| Link { index, name: format!("eth{index}"), ..Link::default() });
        let on = |interface, handle| Qdisc { interface, ..qdisc("htb", Handle::new(handle, 0), true) };
        assert_eq!(number(&links, &[on(3, 1)], false), Ok(OURS));
        assert_eq!(number(&links, &[on(4, 1)], true), Ok(Handle::new(1, 0)));
        assert_eq!(number(&links, &[on(3, 1), on(4, 1)], true), Ok(Handle::new(1, 0)));
        let why = number(&links, &[on(3, 1), on(4, 2)], true).expect_err("no class has two numbers");
        assert!(why.contains("eth3") && why.contains("htb 2:") && why.contains("--interface"), "{why}");
    }
}
