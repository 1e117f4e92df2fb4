//! Finds whose the flows are: a thread that waits for new ones.

use std::{
    collections::{HashMap, HashSet},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    flow::Flow,
    interfaces::Addresses,
    ledger::{Answer, Ledger},
};
use crate::{
    backends::monitor::socket_owners::{Found, SocketOwners},
    sys::socket_lookup::{FoundSocket, Protocol, SocketLookup},
};

/// When a flow without an owner is looked at again. A connection that nobody has accepted yet has none; a socket may
/// be on its way from one process to another.
const PAUSES: [Duration; 5] = [
    Duration::from_millis(1),
    Duration::from_millis(5),
    Duration::from_millis(25),
    Duration::from_millis(100),
    Duration::from_millis(400),
];
/// How often interfaces are read and owners are checked.
const SWEEP: Duration = Duration::from_secs(1);

/// What capture, resolver and monitor share.
#[derive(Debug, Default)]
pub(super) struct Shared {
    state: Mutex<State>,
    /// There is a flow whose owner is to be found, or it is time to end.
    is_needed: Condvar,
    /// Addresses of this host.
    addresses: Mutex<Arc<Addresses>>,
}

#[derive(Debug, Default)]
struct State {
    ledger: Ledger,
    is_ending: bool,
}

impl Shared {
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Ledger) -> T) -> T {
        work(&mut self.lock().ledger)
    }

    pub(super) fn wake(&self) {
        self.is_needed.notify_one();
    }

    pub(super) fn end(&self) {
        self.lock().is_ending = true;
        self.is_needed.notify_all();
    }

    pub(super) fn addresses(&self) -> Arc<Addresses> {
        Arc::clone(&self.addresses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn set_addresses(&self, addresses: Addresses) {
        *self.addresses.lock().unwrap_or_else(PoisonError::into_inner) = Arc::new(addresses);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Sums and flows are whole between any two statements that can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// New flows, or none when the time is over. `None` when it is time to end.
    fn wait(&self, until: Instant) -> Option<Vec<Flow>> {
        let mut state = self.lock();
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if state.is_ending {
                return None;
            }
            if state.ledger.has_sought() || left.is_zero() {
                return Some(state.ledger.take_sought());
            }
            state = self.is_needed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

/// The thread's own.
pub(super) struct Resolver {
    pub(super) shared: Arc<Shared>,
    pub(super) lookup: SocketLookup,
    pub(super) owners: SocketOwners,
    /// What is to be done once a sweep: interfaces may have changed.
    pub(super) refresh: Box<dyn FnMut() + Send>,
}

/// A flow that is being looked at.
#[derive(Clone, Copy, Debug)]
struct Open {
    flow: Flow,
    due: Instant,
    /// How often it was looked at without a result.
    asked: usize,
    /// Who waits for connections there. What comes and goes before anybody can see who accepts it was sent to them.
    listener: Option<Found>,
}

impl Resolver {
    /// Works until it is told to end.
    pub(super) fn run(mut self) {
        let mut open: Vec<Open> = Vec::new();
        let mut sweep = Instant::now() + SWEEP;
        loop {
            let until = open.iter().map(|open| open.due).fold(sweep, Instant::min);
            let Some(new) = self.shared.wait(until) else { return };
            let now = Instant::now();
            open.extend(new.into_iter().map(|flow| Open { flow, due: now, asked: 0, listener: None }));
            if now >= sweep {
                sweep = now + SWEEP;
                (self.refresh)();
                self.check_owners();
            }
            let due = open.extract_if(.., |open| open.due <= now).collect();
            open.extend(self.look(due));
        }
    }

    /// Looks at flows, and returns those that are to be looked at again.
    fn look(&mut self, due: Vec<Open>) -> Vec<Open> {
        let mut answers = Vec::new();
        let mut again = Vec::new();
        let mut give = |open: Open, answer| answers.push((open.flow, answer));
        // With what was found, and the inode of the socket that it hangs on.
        let mut sought: Vec<(Open, FoundSocket, u32)> = Vec::new();
        for mut open in due {
            let found = match self.find(&open.flow) {
                Ok(found) => found,
                Err(error) => {
                    log::debug!("{:?}: no answer whose it is: {error}", open.flow);
                    None
                }
            };
            let inode = match found {
                Some(found) if found.is_open() => Some(found.inode),
                Some(found) if open.listener.is_none() => self.listener(&open.flow, found),
                _ => None,
            };
            let known = inode.and_then(|inode| self.owners.known(inode));
            match (found, inode, known) {
                (Some(found), Some(_), Some(owner)) if found.is_open() => give(open, answer(&owner)),
                (Some(found), Some(inode), None) => sought.push((open, found, inode)),
                (found, _, owner) => {
                    open.listener = open.listener.or(owner);
                    match open.again(found.is_some()) {
                        Ok(open) => again.push(open),
                        Err(answer) => give(open, answer),
                    }
                }
            }
        }
        let owners = self.search(&sought);
        for (mut open, found, inode) in sought {
            match (&owners, owners.as_ref().and_then(|owners| owners.get(&inode))) {
                (_, Some(owner)) if found.is_open() => give(open, answer(owner)),
                // The search has to wait, and what is still open then is found then.
                (None, _) if found.is_open() => {
                    let rest = self.owners.rest().unwrap_or_default();
                    again.push(Open { due: Instant::now() + rest, ..open });
                }
                (_, owner) => {
                    open.listener = open.listener.or(owner.copied());
                    match open.again(true) {
                        Ok(open) => again.push(open),
                        Err(answer) => give(open, answer),
                    }
                }
            }
        }
        self.shared.with(|ledger| {
            for (flow, answer) in answers {
                ledger.answer(&flow, answer);
            }
        });
        again
    }

    /// Who has these sockets open. `None` where it would be too early to search again.
    fn search(&mut self, sought: &[(Open, FoundSocket, u32)]) -> Option<HashMap<u32, Found>> {
        if sought.is_empty() || self.owners.rest().is_some() {
            return None;
        }
        let inodes: HashSet<u32> = sought.iter().map(|(_, _, inode)| *inode).collect();
        let findings = self.owners.search(&inodes);
        self.shared.with(|ledger| ledger.know(findings.infos));
        Some(findings.found)
    }

    fn find(&mut self, flow: &Flow) -> io::Result<Option<FoundSocket>> {
        let mut find = |interface| self.lookup.find(flow.protocol, flow.local(), flow.remote(), interface);
        if let Some(found) = find(0)? {
            return Ok(Some(found));
        }
        // One that is bound to an interface, as every one with a link-local address is.
        for interface in self.shared.addresses().interfaces(flow.local.0) {
            if let Some(found) = find(interface)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The socket that waits for connections where this one came to or will come to.
    fn listener(&mut self, flow: &Flow, found: FoundSocket) -> Option<u32> {
        if flow.protocol != Protocol::Tcp {
            return None;
        }
        if found.listens {
            return Some(found.inode);
        }
        let anybody: IpAddr = match flow.remote.0 {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let found = self.lookup.find(flow.protocol, flow.local(), SocketAddr::new(anybody, 0), 0);
        found.ok().flatten().filter(|found| found.listens && found.inode != 0).map(|found| found.inode)
    }

    /// Seeks anew what is not open any more in the process that it was found in: another one may have got the socket,
    /// or the port.
    fn check_owners(&mut self) {
        let active = self.shared.with(Ledger::sweep);
        let lost: Vec<Flow> =
            active.into_iter().filter(|(_, holder)| !holder.holds()).map(|(flow, _)| flow).collect();
        self.shared.with(|ledger| lost.iter().for_each(|flow| ledger.seek_again(flow)));
    }
}

impl Open {
    /// The next look after one without a result, or the answer if there is to be none.
    fn again(self, is_there: bool) -> Result<Self, Answer> {
        // Where there is no socket at all there will be none: one more look is for a port that changes hands.
        let looks = if is_there { PAUSES.len() } else { 1 };
        match PAUSES[..looks].get(self.asked) {
            Some(pause) => Ok(Self { due: Instant::now() + *pause, asked: self.asked + 1, ..self }),
            None => Err(self.listener.as_ref().map_or(Answer::Nobody, answer)),
        }
    }
}

impl FoundSocket {
    /// Whether it is the packet's own, and some process has it open.
    const fn is_open(self) -> bool {
        self.inode != 0 && !self.listens
    }
}

const fn answer(found: &Found) -> Answer {
    if found.counts { Answer::Process(found.holder) } else { Answer::Elsewhere }
}
