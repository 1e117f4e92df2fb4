//! Only the first fragment of a packet has ports. The others are whose that one was.

use std::{
    collections::{HashMap, VecDeque},
    net::IpAddr,
};

use super::flow::Flow;

/// Packets in pieces that are remembered at a time. The pieces of one follow each other closely.
const MOST: usize = 512;

/// What the fragments of one packet share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FragmentKey {
    pub(super) source: IpAddr,
    pub(super) destination: IpAddr,
    pub(super) number: u32,
}

/// The last packets that came in pieces.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    flows: HashMap<FragmentKey, Flow>,
    /// Oldest first.
    order: VecDeque<FragmentKey>,
}

impl Fragments {
    /// Takes in a first fragment.
    pub(super) fn insert(&mut self, key: FragmentKey, flow: Flow) {
        if self.flows.insert(key, flow).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.flows.remove(&oldest);
        }
    }

    /// Whose another fragment is.
    pub(super) fn get(&self, key: &FragmentKey) -> Option<Flow> {
        self.flows.get(key).copied()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::sys::socket_lookup::Protocol;

    #[test]
    fn the_last_ones_are_remembered_and_no_more() {
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let flow = |port| Flow { protocol: Protocol::Udp, local: (address, port), remote: (address, 1) };
        let key = |number| FragmentKey { source: address, destination: address, number };
        let mut fragments = Fragments::default();
        for number in 0..1000 {
            fragments.insert(key(number), flow(1));
        }
        // A number that is used again is another packet's.
        fragments.insert(key(999), flow(2));
        assert_eq!(fragments.get(&key(999)), Some(flow(2)));
        assert_eq!(fragments.get(&key(1000 - 512)), Some(flow(1)));
        assert_eq!(fragments.get(&key(1000 - 513)), None);
        assert_eq!((fragments.flows.len(), fragments.order.len()), (MOST, MOST));
    }
}
