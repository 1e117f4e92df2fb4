//! The books of the simulated host's interfaces.

use std::{sync::Arc, time::Duration};

use crate::stats::{Buckets, InterfaceTraffic, ProcessMap, Residual, Traffic};

/// What a link-layer header costs, in bytes for each thousand.
const LINK_LAYER: u64 = 14;

/// What interfaces counted, and whose it was.
pub(super) fn books(processes: &ProcessMap, buckets: Buckets, now: Duration) -> Vec<InterfaceTraffic> {
    let of = |name: &str| {
        let counted = processes.values().flat_map(|process| &process.interfaces);
        counted
            .filter(|(interface, _)| &**interface == name)
            .fold(Traffic::default(), |sum, (_, traffic)| sum.plus(*traffic))
    };
    // ARP, which is nobody's and not IP.
    let residual = i64::try_from(now.as_secs() / 30 * 60).unwrap_or_default();
    let interface = |name: &str, buckets: Buckets| {
        let processes = of(name);
        let all = processes.plus(buckets.unattributed()).plus(buckets.forwarded);
        let framed = |bytes: u64| bytes + bytes * LINK_LAYER / 1000 + residual.unsigned_abs();
        InterfaceTraffic {
            name: Arc::from(name),
            counted: Traffic { upload: framed(all.upload), download: framed(all.download) },
            processes,
            buckets,
            residual: Some(Residual { upload: residual, download: residual }),
        }
    };
    let forwarded = Buckets { forwarded: buckets.forwarded, ..Buckets::default() };
    vec![interface("docker0", forwarded), interface("eth0", buckets)]
}
