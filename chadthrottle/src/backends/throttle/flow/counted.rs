//! Which connections a limit is for.

use std::net::IpAddr;

use chadthrottle_common::SCOPE_LOCAL;

use crate::{
    backends::{BackendOptions, throttle::TrafficType},
    scope::{Prefix, scope_of},
    sys::links,
};

/// Connections that count, by their addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counted {
    include_loopback: bool,
    traffic: TrafficType,
    /// Networks that are local although their addresses do not tell.
    local: Vec<Prefix>,
}

impl Counted {
    /// What the options and a limit together ask for. This host's own networks are those that it has now.
    #[must_use]
    pub fn new(options: &BackendOptions, traffic: TrafficType) -> Self {
        let mut local = Vec::new();
        if traffic != TrafficType::All {
            local.clone_from(&options.local_prefixes);
            match links::open().and_then(|mut netlink| links::addresses(&mut netlink)) {
                Ok(addresses) => local.extend(addresses.iter().filter_map(links::Address::public_prefix)),
                Err(error) => log::warn!("which networks are this host's own is not known: {error}"),
            }
        }
        Self { include_loopback: options.include_loopback, traffic, local }
    }

    /// Whether a connection between these two counts.
    pub(super) fn contains(&self, own: IpAddr, peer: IpAddr) -> bool {
        let is_loopback = own == peer || (own.is_loopback() && peer.is_loopback());
        if is_loopback && !self.include_loopback {
            return false;
        }
        match self.traffic {
            TrafficType::All => true,
            TrafficType::Internet => !self.is_local(peer),
            TrafficType::Local => self.is_local(peer),
        }
    }

    fn is_local(&self, peer: IpAddr) -> bool {
        scope_of(peer) == SCOPE_LOCAL || self.local.iter().any(|prefix| prefix.contains(peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(traffic: TrafficType, include_loopback: bool) -> Counted {
        let local = vec!["203.0.113.0/24".parse().expect("a prefix")];
        Counted { include_loopback, traffic, local }
    }

    #[test]
    fn peers_decide_what_counts() {
        let own: IpAddr = "192.0.2.1".parse().expect("an address");
        for (peer, is_local) in [("10.1.2.3", true), ("203.0.113.9", true), ("198.51.100.1", false)] {
            let peer = peer.parse().expect("an address");
            assert!(counted(TrafficType::All, false).contains(own, peer));
            assert_eq!(counted(TrafficType::Local, false).contains(own, peer), is_local, "{peer}");
            assert_eq!(counted(TrafficType::Internet, false).contains(own, peer), !is_local, "{peer}");
        }
    }

    #[test]
    fn loopback_counts_where_it_is_asked_for_and_is_local() {
        let own: IpAddr = "192.0.2.1".parse().expect("an address");
        assert!(!counted(TrafficType::All, false).contains(own, own));
        assert!(counted(TrafficType::All, true).contains(own, own));
        let lo: IpAddr = "127.0.0.1".parse().expect("an address");
        assert!(!counted(TrafficType::Local, false).contains(lo, lo));
        assert!(counted(TrafficType::Local, true).contains(lo, lo));
        assert!(!counted(TrafficType::Internet, true).contains(lo, lo));
    }
}
