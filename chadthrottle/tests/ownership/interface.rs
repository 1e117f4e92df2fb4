//! What an interface has counted.

use anyhow::Context;
use testbed::Host;

use crate::peer::Flow;

/// What has left and arrived.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counters {
    /// Bytes from the IP header on.
    pub(crate) ip: Flow,
    pub(crate) packets: Flow,
}

impl Counters {
    /// Reads those of an interface of the host. Those of an Ethernet link or of loopback count a super-packet as one.
    pub(crate) fn read(host: &Host, interface: &str) -> anyhow::Result<Self> {
        let table = host.run(|| Ok(std::fs::read_to_string("/proc/thread-self/net/dev")?))?;
        let line = table.lines().find_map(|line| line.trim().strip_prefix(interface)?.strip_prefix(':'));
        let fields: Vec<u64> = line
            .with_context(|| format!("no interface {interface} in {table}"))?
            .split_ascii_whitespace()
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let [down, packets_down, .., up, packets_up, _, _, _, _, _, _] = fields[..] else {
            anyhow::bail!("not the fields that there were: {table}");
        };
        Ok(Self { ip: Flow { up, down }, packets: Flow { up: packets_up, down: packets_down } })
    }

    /// The same of a link with headers of its own, which the interface counts too.
    pub(crate) fn without_link_headers(self, length: u64) -> Self {
        let payload = |bytes: u64, packets: u64| bytes - length * packets;
        let ip =
            Flow { up: payload(self.ip.up, self.packets.up), down: payload(self.ip.down, self.packets.down) };
        Self { ip, ..self }
    }

    /// What has come since then.
    pub(crate) fn since(self, before: Self) -> Self {
        let less = |now: Flow, then: Flow| Flow { up: now.up - then.up, down: now.down - then.down };
        Self { ip: less(self.ip, before.ip), packets: less(self.packets, before.packets) }
    }
}
