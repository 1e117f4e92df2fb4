//! Which interfaces a limit is for.

use std::io;

use nix::libc;

use crate::{
    backends::BackendOptions,
    sys::{
        links::{self, Link},
        netlink::Netlink,
        routes,
    },
};

/// How the names of our own IFBs begin.
pub(crate) const IFB_PREFIX: &str = "chadifb";

/// The interfaces by which packets leave that are to be limited: those that are up and that routes lead to, or that were
/// asked for; loopback only where it counts.
///
/// IFBs of our own are none: what they carry has come by another interface.
///
/// What is a part of a bridge or a bond is left out: what this host sends by it passes the bridge or the bond before.
pub(crate) fn carrying(netlink: &mut Netlink, options: &BackendOptions) -> io::Result<Vec<Link>> {
    let links = links::all(netlink)?;
    let routed = routes::interfaces(netlink)?;
    let is_part = |link: &Link| {
        let master = link.master.and_then(|master| links.iter().find(|link| link.index == master));
        // A VRF takes nothing away from its parts but their routes.
        master.is_some_and(|master| master.kind != "vrf")
    };
    let is_wanted = |link: &&Link| {
        let is_loopback = link.link_type == libc::ARPHRD_LOOPBACK;
        let is_named = options.interfaces.contains(&link.name);
        link.is_up
            && !(link.kind == "ifb" && link.name.starts_with(IFB_PREFIX))
            && (options.interfaces.is_empty() || is_named)
            && (!is_loopback || options.include_loopback)
            && (is_named || is_loopback || (routed.contains(&link.index) && !is_part(link)))
    };
    Ok(links.iter().filter(is_wanted).cloned().collect())
}
