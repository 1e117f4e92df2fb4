//! The processes that have, or had, a socket.

use std::{collections::HashMap, sync::Arc};

use crate::{
    process::{KnownNames, ProcessId, ProcessInfo},
    stats::{ProcessMap, ProcessTraffic, Traffic},
};

use super::table::Table;

/// By identity.
#[derive(Debug, Default)]
pub(super) struct Processes(HashMap<ProcessId, Known>);

#[derive(Debug)]
struct Known {
    info: Arc<ProcessInfo>,
    alive: bool,
    /// What had been counted when /proc was read last.
    total: Traffic,
}

impl Processes {
    /// Takes in who was found to have a socket.
    pub(super) fn insert(&mut self, info: ProcessInfo) {
        self.0.entry(info.id).or_insert_with(|| Known {
            info: Arc::new(info),
            alive: true,
            total: Traffic::default(),
        });
    }

    /// Whether it is known to have ended.
    pub(super) fn has_ended(&self, id: ProcessId) -> bool {
        self.0.get(&id).is_some_and(|known| !known.alive)
    }

    /// Looks who still runs and what they are called now, and forgets who has ended and never sent or received anything.
    pub(super) fn refresh(&mut self, table: &Table, names: &mut KnownNames) {
        self.0.retain(|&id, known| {
            let total = table.totals.get(&id).copied();
            known.refresh(id, total.unwrap_or_default(), names);
            known.alive || total.is_some() || table.is_owner(id)
        });
    }

    /// Everybody who has sent or received something.
    pub(super) fn traffic(&self, table: &Table) -> ProcessMap {
        let known = table.totals.iter().filter_map(|(id, &total)| Some((*id, total, self.0.get(id)?)));
        known
            .map(|(id, total, known)| {
                let info = Arc::clone(&known.info);
                (id, ProcessTraffic::new(info, total, known.alive))
            })
            .collect()
    }
}

impl Known {
    fn refresh(&mut self, id: ProcessId, total: Traffic, names: &mut KnownNames) {
        self.alive = self.alive && id.is_alive();
        // A name changes by exec, so it is read again while the process does something.
        if self.alive
            && self.total != total
            && let Some(info) = ProcessInfo::read(id, names)
            && *self.info != info
        {
            self.info = Arc::new(info);
        }
        self.total = total;
    }
}
