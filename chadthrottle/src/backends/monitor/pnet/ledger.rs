//! Which flow is whose, and how much each process has sent and received. Pure: no clock, no I/O.

use std::{collections::HashMap, sync::Arc};

use super::flow::{Direction, Flow, Observation};
use crate::{
    backends::monitor::socket_owners::Holder,
    process::{ProcessId, ProcessInfo},
    stats::Traffic,
};

/// Flows that are remembered. What comes on top of them counts for nobody.
const MOST_FLOWS: usize = 65_536;
/// For how many sweeps a flow is remembered in which nothing passes.
const MOST_IDLE: u8 = 60;
/// Nobody's flow is looked at again after one sweep, then after two, four, … and so many at most.
const LONGEST_PAUSE: u8 = 64;

/// Flows, sums and the processes that they are of.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    flows: HashMap<Flow, State>,
    /// Flows whose owner is to be found, since the last time that somebody asked.
    sought: Vec<Flow>,
    pub(super) totals: HashMap<ProcessId, Traffic>,
    pub(super) unattributed: Traffic,
    /// Processes that have had a socket, and whether they were alive when somebody looked last.
    pub(super) processes: HashMap<ProcessId, Known>,
}

/// A process that has had a socket.
#[derive(Clone, Debug)]
pub(super) struct Known {
    pub(super) info: Arc<ProcessInfo>,
    pub(super) alive: bool,
    /// What had been counted when /proc was read last.
    pub(super) total: Traffic,
}

#[derive(Debug)]
struct State {
    owner: Owner,
    /// Whether something has passed since the last sweep.
    is_active: bool,
    /// For how many sweeps nothing has.
    idle: u8,
}

/// Whose a flow is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    /// To be found. What passes meanwhile is held back, so that no byte is shown as nobody's first and as somebody's
    /// later.
    Sought { held: Traffic, before: Option<Holder> },
    /// This process's.
    Process(Holder),
    /// One's that is not asked for.
    Elsewhere,
    /// Not to be found.
    Nobody { sweeps: u8, pause: u8 },
}

/// What came of looking for an owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is this process.
    Process(Holder),
    /// It is one that is not asked for.
    Elsewhere,
    /// There is none.
    Nobody,
}

impl Ledger {
    /// Counts a packet. Whether that brings a flow whose owner is to be found.
    pub(super) fn count(&mut self, observation: &Observation) -> bool {
        let traffic = observation.traffic();
        let Some(flow) = observation.flow else {
            add(&mut self.unattributed, traffic);
            return false;
        };
        let is_crowded = self.flows.len() >= MOST_FLOWS;
        let Some(state) = self.flows.get_mut(&flow) else {
            if is_crowded {
                add(&mut self.unattributed, traffic);
                return false;
            }
            let owner = Owner::Sought { held: traffic, before: None };
            self.flows.insert(flow, State { owner, is_active: true, idle: 0 });
            self.sought.push(flow);
            return true;
        };
        state.is_active = true;
        let is_anew = observation.opens && !matches!(state.owner, Owner::Sought { .. });
        if is_anew {
            state.owner = Owner::Sought { held: Traffic::default(), before: None };
            self.sought.push(flow);
        }
        match &mut state.owner {
            Owner::Sought { held, .. } => add(held, traffic),
            Owner::Process(holder) => add(self.totals.entry(holder.id).or_default(), traffic),
            Owner::Elsewhere => {}
            Owner::Nobody { .. } => add(&mut self.unattributed, traffic),
        }
        is_anew
    }

    /// Whether there are flows whose owner is to be found.
    pub(super) fn has_sought(&self) -> bool {
        !self.sought.is_empty()
    }

    /// The flows whose owner is to be found, each once.
    pub(super) fn take_sought(&mut self) -> Vec<Flow> {
        std::mem::take(&mut self.sought)
    }

    /// Takes in whose a flow is.
    pub(super) fn answer(&mut self, flow: &Flow, answer: Answer) {
        let Some(state) = self.flows.get_mut(flow) else { return };
        let held = match (state.owner, answer) {
            (Owner::Sought { held, before: Some(before) }, Answer::Nobody) => {
                // Nobody has it open any more, but what still passes was sent by who had it last.
                state.owner = Owner::Process(before);
                held
            }
            (Owner::Sought { held, .. }, answer) => {
                state.owner = Owner::of(answer);
                held
            }
            (Owner::Nobody { .. }, Answer::Process(_) | Answer::Elsewhere) => {
                state.owner = Owner::of(answer);
                Traffic::default()
            }
            _ => return,
        };
        match state.owner {
            // A process is listed from its first byte on.
            Owner::Process(holder) if held != Traffic::default() => {
                add(self.totals.entry(holder.id).or_default(), held);
            }
            Owner::Nobody { .. } => add(&mut self.unattributed, held),
            _ => {}
        }
    }

    /// Takes in who was found to have a socket.
    pub(super) fn know(&mut self, infos: Vec<ProcessInfo>) {
        for info in infos {
            let info = Arc::new(info);
            let known = Known { info, alive: true, total: Traffic::default() };
            self.processes.entry(known.info.id).or_insert(known);
        }
    }

    /// Forgets flows that have been idle for long, seeks some of nobody's again, and returns what has an owner and is
    /// active. To be called at regular intervals.
    pub(super) fn sweep(&mut self) -> Vec<(Flow, Holder)> {
        let mut active = Vec::new();
        let sought = &mut self.sought;
        self.flows.retain(|flow, state| {
            if !std::mem::take(&mut state.is_active) {
                state.idle = state.idle.saturating_add(1);
                return state.idle <= MOST_IDLE || matches!(state.owner, Owner::Sought { .. });
            }
            state.idle = 0;
            match &mut state.owner {
                Owner::Process(holder) => active.push((*flow, *holder)),
                Owner::Nobody { sweeps, pause } => {
                    *sweeps += 1;
                    if *sweeps >= *pause {
                        *sweeps = 0;
                        *pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                        sought.push(*flow);
                    }
                }
                Owner::Sought { .. } | Owner::Elsewhere => {}
            }
            true
        });
        self.forget_who_never_counted();
        active
    }

    fn forget_who_never_counted(&mut self) {
        if self.processes.len() > self.totals.len() {
            self.processes.retain(|id, known| known.alive || self.totals.contains_key(id));
        }
    }

    /// Seeks the owner of a flow anew, since the one that it had does not have its socket any more.
    pub(super) fn seek_again(&mut self, flow: &Flow) {
        if let Some(state) = self.flows.get_mut(flow)
            && let Owner::Process(before) = state.owner
        {
            state.owner = Owner::Sought { held: Traffic::default(), before: Some(before) };
            self.sought.push(*flow);
        }
    }
}

impl Owner {
    const fn of(answer: Answer) -> Self {
        match answer {
            Answer::Process(holder) => Self::Process(holder),
            Answer::Elsewhere => Self::Elsewhere,
            Answer::Nobody => Self::Nobody { sweeps: 0, pause: 1 },
        }
    }
}

impl Observation {
    const fn traffic(&self) -> Traffic {
        match self.direction {
            Direction::Upload => Traffic { upload: self.bytes, download: 0 },
            Direction::Download => Traffic { upload: 0, download: self.bytes },
        }
    }
}

const fn add(sum: &mut Traffic, traffic: Traffic) {
    sum.upload = sum.upload.saturating_add(traffic.upload);
    sum.download = sum.download.saturating_add(traffic.download);
}

#[cfg(test)]
mod tests;
