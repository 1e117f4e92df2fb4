//! Unusual paths: within the host, from another namespace, through a tunnel, over a link that loses packets.

use std::net::TcpStream;

use anyhow::ensure;
use testbed::{Family, Host, Process, Testbed, require_program, traffic};

use crate::{
    backend::Backend,
    books::{Books, bed, end, ip, parts, start, with_retransmissions},
    interface::Counters,
    peer::{self, Flow},
    support::PATIENCE,
};

pub(crate) fn loopback(backend: Backend) -> anyhow::Result<()> {
    const BYTES: usize = 100_000_000;
    let bed = bed("loopback")?;
    let monitor = backend.start(&bed, &["--include-loopback"])?;
    let here = ([127, 0, 0, 1], 0).into();

    // A client and a server, each with this test on the other side, which knows exactly what they did.
    let (to, peer) = peer::serve_at(bed.client(), here, 1, peer::receive_and_stay)?;
    let client = end(start(bed.client(), &format!("tcp-send --to {to} --bytes {BYTES}"))?)?;
    let sent = peer::flow(peer)?;
    let sent = Flow { up: sent.up + traffic::Report::parse(&client.1)?.retransmitted, ..sent };
    let server = start(bed.client(), "tcp-sink --listen 127.0.0.1:0")?;
    let to = traffic::ready(&server)?;
    let talk = |stream: &TcpStream| {
        peer::stay();
        peer::send(stream, BYTES)
    };
    let (_, received) = bed.client().run(|| peer::connect(to, talk))?;
    let server = end(server)?;
    let books = Books::close_partly(&monitor)?;
    books.check("13, client", client.0, sent)?;
    books.check("13, server", server.0, received)?;

    // And both together: what leaves the one arrives at the other.
    let server = start(bed.client(), "tcp-sink --listen 127.0.0.1:0")?;
    let to = traffic::ready(&server)?;
    let paced = format!("tcp-send --to {to} --bytes {BYTES} --rate {}", 2 * BYTES);
    let (client, printed) = end(start(bed.client(), &paced)?)?;
    let (server, _) = end(server)?;
    let report = traffic::Report::parse(&printed)?;
    let books = Books::close_partly(&monitor)?;
    books.check_mirrored("13, both", client, server)?;
    let client = books.counted(client);
    let least = report.bytes + report.retransmitted;
    ensure!((least..least + least / 100).contains(&client.up), "{client:?} for {least} bytes of payload");
    Ok(())
}

pub(crate) fn another_network_namespace(backend: Backend) -> anyhow::Result<()> {
    let bed = bed("container")?;
    let monitor = backend.start(&bed, &[])?;
    let (to, peer) = peer::serve(bed.client(), 1, peer::receive_and_stay)?;
    // In the cgroup that is watched, on a host that is not the monitor's.
    let mut command = bed.server().command_in(bed.cgroup_root(), traffic::traffic_binary()?)?;
    let to = to.to_string();
    let sender = command.args(["many", "--to", &to, "--connections", "1", "--bytes", "3000000"]);
    let [part] = parts(Process::spawn(sender)?)?;
    let flow = with_retransmissions(peer::flow(peer)?, std::slice::from_ref(&part));
    let books = Books::close_partly(&monitor)?;
    books.check_sum("22", flow)?;
    books.check("22", part.pid, flow)?;
    books.check_name(part.pid, "traffic")
}

/// Reads to the end, then answers.
fn answer(stream: &TcpStream) -> anyhow::Result<()> {
    peer::receive_and_stay(stream)?;
    peer::send(stream, 10_000_000)
}

pub(crate) fn through_a_tunnel(backend: Backend) -> anyhow::Result<()> {
    const DEVICE: &str = "cttunnel";
    // IP and UDP in front of a packet that is carried.
    const OUTER: u64 = 28;
    let bed = bed("tunnel")?;
    let listen = bed.server().socket_address(Family::V4, 0);
    let far_end = tunnel(bed.server(), DEVICE, &format!("--listen {listen}"), "10.78.0.2/24")?;
    let to = traffic::ready(&far_end)?;
    let near_end = tunnel(bed.client(), DEVICE, &format!("--to {to}"), "10.78.0.1/24")?;
    let monitor = backend.start(&bed, &[])?;
    let before = Counters::read(bed.client(), DEVICE)?;
    let (to, peer) = peer::serve_at(bed.server(), ([10, 78, 0, 2], 0).into(), 1, answer)?;
    let [part] = parts(start(bed.client(), &format!("many --to {to} --connections 1 --bytes 10000000"))?)?;
    peer::flow(peer)?;
    let books = Books::close(&monitor)?;
    let carried = Counters::read(bed.client(), DEVICE)?.since(before);
    let outer = Flow {
        up: carried.ip.up + OUTER * carried.packets.up,
        down: carried.ip.down + OUTER * carried.packets.down,
    };
    ensure!(carried.ip.up > 10_000_000 && carried.ip.down > 10_000_000, "{carried:?}");
    books.check_sum("23", [carried.ip, outer].into_iter().sum())?;
    books.check("23, who uses the tunnel", part.pid, carried.ip)?;
    books.check("23, the tunnel", near_end.pid(), outer)
}

/// Starts one end of a tunnel and gives its device an address.
fn tunnel(host: &Host, device: &str, how: &str, address: &str) -> anyhow::Result<Process> {
    // The kernel would send packets of its own to find routers and groups.
    host.set_sysctl("net.ipv6.conf.default.disable_ipv6", "1")?;
    let end = start(host, &format!("tunnel --device {device} {how}"))?;
    traffic::ready(&end)?;
    // So short that they fit into another packet, and a queue that does not overflow.
    let up = format!("link set {device} mtu 1400 txqueuelen 5000 up");
    ip(host, &[&format!("addr add {address} dev {device}"), &up])?;
    Ok(end)
}

pub(crate) fn a_link_that_loses_packets(backend: Backend) -> anyhow::Result<()> {
    const ETHERNET_HEADER: u64 = 14;
    let bed = Testbed::new("loss")?;
    for host in [bed.client(), bed.server()] {
        let interface = host.interfaces()[0];
        // No super-packets, whose headers the interface would count once.
        ip(host, &[&format!("link set {interface} gso_max_segs 1")])?;
    }
    lose_packets(bed.router())?;
    let monitor = backend.start(&bed, &[])?;
    let interface = bed.client().interfaces()[0];
    let before = Counters::read(bed.client(), interface)?;
    let (to, peer) = peer::serve(bed.server(), 1, answer)?;
    let [part] = parts(start(bed.client(), &format!("many --to {to} --connections 1 --bytes 10000000"))?)?;
    peer::flow(peer)?;
    let books = Books::close(&monitor)?;
    let counted = Counters::read(bed.client(), interface)?.since(before);
    ensure!(part.retransmitted > 100_000, "nothing was lost: {part:?}");
    ensure!(counted.ip.down < 1514 * counted.packets.down, "{counted:?}: there are super-packets");
    let expected = counted.without_link_headers(ETHERNET_HEADER).ip;
    books.check("24", part.pid, expected)
}

/// Makes a router lose one packet in fifty, of both directions.
fn lose_packets(router: &Host) -> anyhow::Result<()> {
    let rules = "add table inet loss; add chain inet loss forwarded { type filter hook forward priority 0; }; \
                 add rule inet loss forwarded numgen random mod 100 < 2 drop";
    Process::spawn(router.command(require_program("nft")?).arg(rules))?.success(PATIENCE)?;
    Ok(())
}
