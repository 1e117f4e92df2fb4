//! UDP: each datagram is known, so nothing may be missing.

use std::net::UdpSocket;

use anyhow::ensure;
use testbed::{Family, traffic};

use crate::{
    backend::Backend,
    books::{Books, bed, end, start},
    peer::Flow,
};

/// Bytes of headers in front of a datagram's payload.
const fn headers(family: Family) -> u64 {
    match family {
        Family::V4 => 28,
        Family::V6 => 48,
    }
}

pub(crate) fn a_connected_socket(backend: Backend) -> anyhow::Result<()> {
    send(backend, "3", Family::V4, 500, 1000, "")
}

pub(crate) fn an_unconnected_socket(backend: Backend) -> anyhow::Result<()> {
    send(backend, "4", Family::V4, 500, 1000, " --unconnected")
}

pub(crate) fn ipv6_datagrams(backend: Backend) -> anyhow::Result<()> {
    send(backend, "7, connected", Family::V6, 500, 1000, "")?;
    send(backend, "7, unconnected", Family::V6, 500, 1000, " --unconnected")?;
    receive(backend, "7, received", Family::V6)
}

pub(crate) fn two_hundred_thousand_small_datagrams(backend: Backend) -> anyhow::Result<()> {
    send(backend, "18", Family::V4, 100, 200_000, "")
}

fn send(
    backend: Backend,
    what: &str,
    family: Family,
    size: u64,
    number: u64,
    options: &str,
) -> anyhow::Result<()> {
    let bed = bed("datagrams")?;
    let monitor = backend.start(&bed, &[])?;
    // It need not read: what matters is that nobody refuses them.
    let socket = bed.server().run(|| Ok(UdpSocket::bind(bed.server().socket_address(family, 0))?))?;
    let to = socket.local_addr()?;
    // Half a second's worth, or as fast as it goes.
    let rate = (2 * number * size).min(10_000_000);
    let send = format!("udp-send --to {to} --rate {rate} --size {size} --datagrams {number}{options}");
    let (pid, printed) = end(start(bed.client(), &send)?)?;
    let report = traffic::Report::parse(&printed)?;
    ensure!(report.datagrams == number, "{report:?}");
    let flow = Flow { up: number * (size + headers(family)), down: 0 };
    Books::close(&monitor)?.check_packets(what, pid, flow)
}

pub(crate) fn received_datagrams(backend: Backend) -> anyhow::Result<()> {
    receive(backend, "5", Family::V4)
}

fn receive(backend: Backend, what: &str, family: Family) -> anyhow::Result<()> {
    let bed = bed("received")?;
    let monitor = backend.start(&bed, &[])?;
    let listen = bed.client().socket_address(family, 0);
    let sink = start(bed.client(), &format!("udp-sink --listen {listen} --idle-exit 300"))?;
    let to = traffic::ready(&sink)?;
    end(start(bed.server(), &format!("udp-send --to {to} --rate 1400000 --size 700 --datagrams 1000"))?)?;
    let (pid, printed) = end(sink)?;
    let report = traffic::Report::parse(&printed)?;
    ensure!(report.datagrams == 1000, "{report:?}");
    let flow = Flow { up: 0, down: 1000 * (700 + headers(family)) };
    Books::close(&monitor)?.check_packets(what, pid, flow)
}
