//! Names of hosts: which are known, and which are to be asked for. Only those on the screen are.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use crate::names::presentable;

/// So many questions are on their way at most.
pub const MOST_ASKED: usize = 64;
/// So many names are kept; who has looked at more begins anew.
const MOST_KEPT: usize = 4096;
/// A host without a name is asked for again after this time: a resolver may have been away.
const ASK_AGAIN: Duration = Duration::from_mins(5);

/// What is known of names.
#[derive(Clone, Debug, Default)]
pub(super) struct Hosts {
    is_on: bool,
    /// The name, and when that was known.
    known: HashMap<IpAddr, (Option<String>, Duration)>,
    asked: HashSet<IpAddr>,
}

impl Hosts {
    /// Switches names on or off. What is known stays known.
    pub(super) const fn switch(&mut self) {
        self.is_on = !self.is_on;
    }

    /// Whether names are shown.
    pub(super) const fn is_on(&self) -> bool {
        self.is_on
    }

    /// What a host is called, where that is known and wanted.
    pub(super) fn name(&self, address: IpAddr) -> Option<&str> {
        if !self.is_on {
            return None;
        }
        self.known.get(&address)?.0.as_deref()
    }

    /// Which of these are to be asked for at `now`, since any fixed instant.
    pub(super) fn wanted(&mut self, seen: impl Iterator<Item = IpAddr>, now: Duration) -> Vec<IpAddr> {
        let mut wanted = Vec::new();
        if !self.is_on {
            return wanted;
        }
        for address in seen {
            if self.asked.len() >= MOST_ASKED {
                break;
            }
            let is_known = self
                .known
                .get(&address)
                .is_some_and(|(name, at)| name.is_some() || now.saturating_sub(*at) < ASK_AGAIN);
            if !is_known && self.asked.insert(address) {
                wanted.push(address);
            }
        }
        wanted
    }

    /// Takes a name in, or that there is none.
    pub(super) fn take_in(&mut self, address: IpAddr, name: Option<String>, now: Duration) {
        self.asked.remove(&address);
        if self.known.len() >= MOST_KEPT {
            self.known.clear();
        }
        self.known.insert(address, (name.and_then(presentable), now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u16) -> IpAddr {
        let [a, b] = last.to_be_bytes();
        IpAddr::from([10, 0, a, b])
    }

    #[test]
    fn nobody_is_asked_for_unless_wanted_and_nobody_twice() {
        let mut hosts = Hosts::default();
        let second = Duration::from_secs;
        assert!(hosts.wanted([address(1)].into_iter(), second(0)).is_empty());
        hosts.switch();
        assert_eq!(hosts.wanted([address(1), address(1)].into_iter(), second(0)), [address(1)]);
        assert!(hosts.wanted([address(1)].into_iter(), second(1)).is_empty());
        hosts.take_in(address(1), Some("one.example".into()), second(2));
        assert_eq!(hosts.name(address(1)), Some("one.example"));
        assert!(hosts.wanted([address(1)].into_iter(), second(9000)).is_empty());
        hosts.switch();
        assert_eq!(hosts.name(address(1)), None);
    }

    #[test]
    fn who_has_no_name_is_asked_for_again_later() {
        let mut hosts = Hosts::default();
        hosts.switch();
        let second = Duration::from_secs;
        hosts.wanted([address(1)].into_iter(), second(0));
        hosts.take_in(address(1), Some("192.0.2.9".into()), second(0));
        assert_eq!(hosts.name(address(1)), None, "an address is no name");
        assert!(hosts.wanted([address(1)].into_iter(), second(299)).is_empty());
        assert_eq!(hosts.wanted([address(1)].into_iter(), second(300)), [address(1)]);
    }

    #[test]
    fn questions_and_answers_are_bounded() {
        let mut hosts = Hosts::default();
        hosts.switch();
        assert_eq!(hosts.wanted((0..1000).map(address), Duration::ZERO).len(), MOST_ASKED);
        for host in 0..5000 {
            hosts.take_in(address(host), Some(format!("host-{host}")), Duration::ZERO);
        }
        assert!(hosts.known.len() <= MOST_KEPT);
        assert_eq!(hosts.name(address(4999)), Some("host-4999"));
    }
}
