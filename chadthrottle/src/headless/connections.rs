//! `monitor --connections`: what the processes asked for are connected to.

use std::{
    collections::{HashMap, HashSet},
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use serde::Serialize;

use crate::{
    connections::{Connection, Connections},
    process::{KnownNames, ProcessId, ProcessInfo},
    rate::scaled,
    stats::{ProcessRow, Snapshot, Traffic},
};

/// The connections of some processes at one instant.
#[derive(Debug, Default)]
pub(super) struct Connected {
    connections: Connections,
    names: KnownNames,
    /// Of the last look. None where they could not be read.
    listed: HashMap<ProcessId, Option<Vec<Connection>>>,
    /// Processes of which it has been said why theirs cannot be read.
    told: HashSet<ProcessId>,
}

/// A process's connections in a line of JSON.
#[derive(Serialize)]
#[serde(untagged)]
pub(super) enum JsonConnections {
    /// All of them.
    Listed(Vec<JsonConnection>),
    /// `null`.
    Unreadable,
}

/// One connection in a line of JSON. Bytes are IP bytes since it was opened.
#[derive(Serialize)]
pub(super) struct JsonConnection {
    protocol: &'static str,
    ip_version: u8,
    local: String,
    remote: Option<String>,
    state: &'static str,
    upload_bytes_total: Option<u64>,
    download_bytes_total: Option<u64>,
    rtt_us: Option<u64>,
    retransmits: Option<u32>,
    age_s: Option<f64>,
    seen_s: f64,
}

impl Connected {
    /// Looks at the processes with these pids, at `now` since any fixed instant. One that the monitor has counted nothing
    /// for joins the snapshot, since it may have connections all the same.
    pub(super) fn look(&mut self, snapshot: &mut Snapshot, pids: &[i32], now: Duration) {
        for pid in pids {
            let is_in = |row: &ProcessRow| row.info.id.pid == *pid && row.alive;
            if !snapshot.processes.iter().any(is_in)
                && let Ok(id) = ProcessId::running(*pid)
                && let Some(info) = ProcessInfo::read(id, &mut self.names)
            {
                let (rate, total) = (Traffic::default(), Traffic::default());
                snapshot.processes.push(ProcessRow::new(Arc::new(info), rate, total, true));
            }
        }
        snapshot.processes.sort_by_key(|row| row.info.id);
        self.listed.clear();
        for row in snapshot.processes.iter().filter(|row| pids.contains(&row.info.id.pid)) {
            let id = row.info.id;
            let listed = self.connections.of(id, now).map_err(|error| {
                // Once, and not every second.
                if self.told.insert(id) {
                    super::tell(&error);
                }
            });
            self.listed.insert(id, listed.ok());
        }
    }

    /// A process's connections.
    pub(super) fn json(&self, id: ProcessId) -> JsonConnections {
        match self.listed.get(&id) {
            Some(Some(connections)) => {
                JsonConnections::Listed(connections.iter().map(JsonConnection::new).collect())
            }
            _ => JsonConnections::Unreadable,
        }
    }

    /// A process's connections as indented lines.
    pub(super) fn print(&self, id: ProcessId, out: &mut impl Write) -> io::Result<()> {
        match self.listed.get(&id) {
            Some(Some(connections)) => {
                connections.iter().try_for_each(|one| writeln!(out, "{:>8} {}", "", in_words(one)))
            }
            _ => writeln!(out, "{:>8} its connections cannot be read", ""),
        }
    }
}

impl JsonConnection {
    fn new(connection: &Connection) -> Self {
        Self {
            protocol: connection.protocol.name(),
            ip_version: if connection.local.is_ipv4() { 4 } else { 6 },
            local: connection.local.to_string(),
            remote: connection.remote.map(|remote| remote.to_string()),
            state: connection.state.name(),
            upload_bytes_total: connection.total.map(|total| total.upload),
            download_bytes_total: connection.total.map(|total| total.download),
            rtt_us: connection.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
            retransmits: connection.retransmits,
            age_s: connection.age.map(|age| age.as_secs_f64()),
            seen_s: connection.seen.as_secs_f64(),
        }
    }
}

/// `tcp 10.77.1.2:4711 > 10.77.2.2:80 established, 12.3K up, 4.56K down, rtt 0.3 ms, 2 retransmits, 12 s old`.
fn in_words(connection: &Connection) -> String {
    let to = connection.remote.map(|remote| format!(" > {remote}")).unwrap_or_default();
    let mut parts =
        vec![format!("{} {}{to} {}", connection.protocol, connection.local, connection.state.name())];
    if let Some(total) = connection.total {
        parts.push(format!("{} up, {} down", scaled(total.upload), scaled(total.download)));
    }
    if let Some(rtt) = connection.rtt {
        parts.push(format!("rtt {:.1} ms", rtt.as_secs_f64() * 1e3));
    }
    if let Some(retransmits @ 1..) = connection.retransmits {
        parts.push(format!("{retransmits} retransmits"));
    }
    parts.push(match connection.age {
        Some(age) => format!("{} s old", age.as_secs()),
        // It was there already.
        None => format!("more than {} s old", connection.seen.as_secs()),
    });
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::inet_diag::{Protocol, State};

    #[test]
    fn a_line_says_what_is_known_and_leaves_out_what_is_not() {
        let mut connection = Connection {
            protocol: Protocol::Tcp,
            local: "[fd77:1::2]:4711".parse().expect("an address"),
            remote: "[fd77:2::2]:80".parse().ok(),
            state: State::Established,
            total: Some(Traffic { upload: 12_300, download: 45 }),
            rtt: Some(Duration::from_micros(340)),
            retransmits: Some(2),
            age: Some(Duration::from_millis(12_700)),
            seen: Duration::from_millis(12_700),
        };
        let expected = "tcp [fd77:1::2]:4711 > [fd77:2::2]:80 established, 12.3K up, 45 down, rtt 0.3 ms, 2 \
                        retransmits, 12 s old";
        assert_eq!(in_words(&connection), expected);
        connection.protocol = Protocol::Udp;
        connection.state = State::Unconnected;
        (connection.remote, connection.total, connection.rtt) = (None, None, None);
        (connection.retransmits, connection.age) = (None, None);
        assert_eq!(in_words(&connection), "udp [fd77:1::2]:4711 unconnected, more than 12 s old");
    }
}
