//! Whether the kernel has what marks of connections take: all of it is made once, in a network namespace that goes with it.

use std::{io, sync::OnceLock, thread};

use nix::{
    errno::Errno,
    sched::{CloneFlags, unshare},
    sys::socket::SockProtocol,
};

use super::{LOWEST, filters, table};
use crate::{
    backends::{
        Obstacle,
        throttle::{htb::may_have_module, tagger},
    },
    sys::{
        capability::{self, NET_ADMIN},
        netlink::Netlink,
        tc::{
            Handle, clsact,
            marks::{self, Filter},
        },
    },
};

/// Modules, and what they are built by.
const MODULES: [(&str, &str); 8] = [
    ("act_ctinfo", "CONFIG_NET_ACT_CTINFO"),
    ("act_skbedit", "CONFIG_NET_ACT_SKBEDIT"),
    ("act_mirred", "CONFIG_NET_ACT_MIRRED"),
    ("cls_fw", "CONFIG_NET_CLS_FW"),
    ("cls_u32", "CONFIG_NET_CLS_U32"),
    ("sch_ingress", "CONFIG_NET_SCH_INGRESS"),
    ("nft_ct", "CONFIG_NFT_CT"),
    ("nf_conntrack", "CONFIG_NF_CONNTRACK"),
];
/// What was found out the first time.
static FOUND: OnceLock<Option<Obstacle>> = OnceLock::new();
/// The interface that every network namespace has.
const LOOPBACK: u32 = 1;

/// Why it cannot work here. Looks for modules first, since to make something would load them.
pub(in crate::backends::throttle::ifb_tc) fn obstacle() -> Option<Obstacle> {
    if let Some(missing) = capability::first_missing(&[NET_ADMIN]) {
        return Some(Obstacle::Privilege { capability: missing.name });
    }
    if let Some(obstacle) = tagger::why_no_sockets() {
        return Some(obstacle);
    }
    if let Some((module, option)) = MODULES.into_iter().find(|(module, _)| !may_have_module(module)) {
        return Some(Obstacle::Host {
            cause: format!("this kernel has no {module}, without which it cannot tell packets by marks"),
            remedy: format!("install that module ({option}); docs/IFB_SETUP.md has which there are"),
        });
    }
    FOUND.get_or_init(|| apart().err()).clone()
}

/// Makes all parts in a network namespace of their own, which ends with the thread that is in it.
fn apart() -> Result<(), Obstacle> {
    let trial = || match unshare(CloneFlags::CLONE_NEWNET) {
        Ok(()) => make_all(),
        // Not ours to try: what is missing will be told when a limit is set.
        Err(error) => {
            log::debug!("what marks of connections take is not tried: no network namespace: {error}");
            Ok(())
        }
    };
    thread::scope(|scope| match thread::Builder::new().name("trial".into()).spawn_scoped(scope, trial) {
        Ok(thread) => thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
        Err(_) => Ok(()),
    })
}

fn make_all() -> Result<(), Obstacle> {
    let lacks = |what: &str, parts: &str, error: &dyn std::fmt::Display| Obstacle::Host {
        cause: format!("this kernel cannot {what}: {error}"),
        remedy: format!("it takes {parts}; docs/IFB_SETUP.md has which there are"),
    };
    let mut netlink = Netlink::open(SockProtocol::NetlinkRoute)
        .map_err(|error: io::Error| lacks("be asked", "NETLINK_ROUTE", &error))?;
    clsact::add_clsact(&mut netlink, LOOPBACK)
        .map_err(|error| lacks("have filters at an entrance", "sch_ingress", &error))?;
    let parts = "cls_u32, cls_fw, act_ctinfo, act_skbedit and act_mirred";
    let redirect = Filter::Redirect { mark: LOWEST, class: Handle::new(1, 1), to: LOOPBACK };
    filters::put(&mut netlink, LOOPBACK, 0, &[redirect], &[0; 16])
        .map_err(|error| lacks("send packets elsewhere by marks", parts, &error))?;
    // It takes what it does not know for nothing, and would match everything.
    let found = marks::list(&mut netlink, LOOPBACK)
        .map_err(|error| lacks("tell what filters there are", parts, &error))?;
    if found.iter().filter(|found| found.matches_mark).count() < 2 {
        let error = Errno::EOPNOTSUPP;
        return Err(lacks("match marks by u32", "CONFIG_CLS_U32_MARK", &error));
    }
    let parts = "nft_ct and nf_conntrack with CONFIG_NF_CONNTRACK_MARK, and Linux 5.12";
    table::make(0).map_err(|error| lacks("give connections marks", parts, &error))?;
    Ok(())
}
