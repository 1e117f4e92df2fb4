//! Whose the queues of interfaces are.

use std::{fmt, fs, io};

use crate::{
    backends::throttle::journal,
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
        _ => format!(
            "somebody gave {name} the queue {root}, and it would be lost; `tc qdisc del dev {name} root` gives it up, \
             {elsewhere}"
        ),
    }
}

/// The first interface that cannot be taken, and why. What a killed one of us left is not in the way.
pub(super) fn first_obstacle(netlink: &mut Netlink, links: &[Link]) -> io::Result<Option<String>> {
    let qdiscs = tc::qdiscs(netlink).map_err(io::Error::other)?;
    let is_left = |link: &Link| journal::owner(link.index).is_some_and(|owner| !owner.is_alive());
    let is_taken = |(link, root): &(&Link, Root)| match root {
        Root::Default => false,
        Root::Ours => !is_left(link),
        _ => true,
    };
    let taken = links.iter().map(|link| (link, root_of(link, &qdiscs))).find(is_taken);
    Ok(taken.map(|(link, root)| why_not(link, &root)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::tc::Stats;

    fn qdisc(kind: &str, handle: Handle, is_root: bool) -> Qdisc {
        Qdisc { interface: 3, kind: kind.into(), handle, is_root, signature: None, stats: Stats::default() }
    }

    #[test]
    fn the_kernels_queue_has_no_number() {
        let link = Link { index: 3, name: "eth0".into(), ..Link::default() };
        assert_eq!(root_of(&link, &[]), Root::Default);
        assert_eq!(root_of(&link, &[qdisc("noqueue", Handle(0), true)]), Root::Default);
        assert_eq!(root_of(&link, &[qdisc("htb", OURS, true)]), Root::Ours);
        for (kind, handle) in [("htb", Handle::new(1, 0)), ("mq", Handle::new(0x8001, 0)), ("cake", OURS)] {
            let root = root_of(&link, &[qdisc(kind, handle, true)]);
            assert_eq!(root, Root::Chosen { kind: kind.into(), handle });
            assert!(why_not(&link, &root).contains("tc qdisc del dev eth0 root"));
        }
        // What is at the entrance is nothing to us.
        let clsact = qdisc("clsact", Handle::new(0xffff, 0), false);
        assert_eq!(root_of(&link, &[clsact, qdisc("noqueue", Handle(0), true)]), Root::Default);
    }
}
