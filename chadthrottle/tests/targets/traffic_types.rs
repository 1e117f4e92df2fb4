//! `--traffic internet` and `--traffic local`.

use std::{net::SocketAddr, process::Command};

use anyhow::ensure;
use testbed::{Host, Process, Testbed, traffic};

use crate::{
    rig::{Sink, limit, send_few},
    support::PATIENCE,
};

/// On the internet, for all that anybody knows (RFC 5737 and RFC 9637 leave no better ones that are not reserved).
const FAR_V4: &str = "11.22.33.44";
const FAR_V6: &str = "2a01:77::44";
const FAR_PREFIXES: [&str; 2] = ["11.22.33.0/24", "2a01:77::/64"];
const NEAR: [&str; 2] = ["10.77.2.2", "fd77:2::2"];

fn ip(host: &Host, arguments: &str) -> anyhow::Result<()> {
    let mut command = Command::new("ip");
    command.args(["-n", host.namespace()]).args(arguments.split(' '));
    ensure!(command.status()?.success(), "{command:?}");
    Ok(())
}

/// A bed whose server has addresses on the internet as well.
fn bed() -> anyhow::Result<Testbed> {
    let bed = Testbed::new("traffic")?;
    ip(bed.server(), &format!("address add {FAR_V4}/32 dev ctserver"))?;
    ip(bed.server(), &format!("-6 address add {FAR_V6}/128 dev ctserver nodad"))?;
    ip(bed.router(), &format!("route add {FAR_V4}/32 via 10.77.2.2"))?;
    ip(bed.router(), &format!("-6 route add {FAR_V6}/128 via fd77:2::2"))?;
    Ok(bed)
}

/// An address with a port.
fn address(ip: &str) -> anyhow::Result<SocketAddr> {
    Ok(SocketAddr::new(ip.parse()?, 7000))
}

/// Whether datagrams from the client to an address arrive there, and those from there at the client.
fn datagrams_pass(bed: &Testbed, far: SocketAddr) -> anyhow::Result<[bool; 2]> {
    let near = SocketAddr::new(bed.client().address(family(far)), 7001);
    let one_way = |from: &Host, bind: Option<SocketAddr>, host: &Host, to: SocketAddr| {
        let sink = Sink::listening(host, to)?;
        let mut send = traffic::command(from)?;
        send.args(send_few(to));
        if let Some(bind) = bind {
            send.args(["--from", &bind.to_string()]);
        }
        Process::spawn(&mut send)?.success(PATIENCE)?;
        anyhow::Ok(sink.report()?.datagrams > 0)
    };
    let from_far = SocketAddr::new(far.ip(), 0);
    Ok([
        one_way(bed.client(), None, bed.server(), far)?,
        one_way(bed.server(), Some(from_far), bed.client(), near)?,
    ])
}

/// How long 200 KB take over TCP, in seconds: sent from the client, and received there.
fn streams_take(bed: &Testbed, far: SocketAddr) -> anyhow::Result<[f64; 2]> {
    let to = far.to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &to]))?;
    traffic::ready(&sink)?;
    let mut sender = traffic::command(bed.client())?;
    let sent =
        Process::spawn(sender.args(["tcp-send", "--to", &to, "--bytes", "200000"]))?.success(PATIENCE)?;
    let source = ["tcp-source", "--listen", &to, "--bytes", "200000"];
    let source = Process::spawn(traffic::command(bed.server())?.args(source))?;
    traffic::ready(&source)?;
    let receive = ["tcp-receive", "--from", &to];
    let received = Process::spawn(traffic::command(bed.client())?.args(receive))?.success(PATIENCE)?;
    Ok([traffic::Report::parse(&sent)?.seconds, traffic::Report::parse(&received)?.seconds])
}

fn family(address: SocketAddr) -> testbed::Family {
    if address.is_ipv4() { testbed::Family::V4 } else { testbed::Family::V6 }
}

/// Who is in the bed's own cgroup.
fn everybody(bed: &Testbed) -> String {
    format!("{}", bed.cgroup_root().display())
}

/// Whether a limit for this type covers what is far and what is near.
const TYPES: [(&str, bool, bool); 3] =
    [("all", true, true), ("internet", true, false), ("local", false, true)];

#[test]
fn datagrams_both_ways_and_both_families() -> anyhow::Result<()> {
    let bed = bed()?;
    for (kind, covers_far, covers_near) in TYPES {
        let cgroup = everybody(&bed);
        let _limiter = limit(
            &bed,
            &["--cgroup", &cgroup, "--upload-limit", "0", "--download-limit", "0", "--traffic", kind],
        )?;
        for (addresses, is_covered) in [([FAR_V4, FAR_V6], covers_far), (NEAR, covers_near)] {
            for ip in addresses {
                let passed = datagrams_pass(&bed, address(ip)?)?;
                assert_eq!(passed, [!is_covered; 2], "{kind}: {ip}");
            }
        }
    }
    Ok(())
}

#[test]
fn streams_both_ways_and_both_families() -> anyhow::Result<()> {
    let bed = bed()?;
    for (kind, covers_far, covers_near) in &TYPES[1..] {
        let cgroup = everybody(&bed);
        let limits = ["--upload-limit", "200K", "--download-limit", "200K", "--traffic", kind];
        let _limiter = limit(&bed, &[&["--cgroup", &cgroup], &limits[..]].concat())?;
        for (addresses, &is_covered) in [([FAR_V4, FAR_V6], covers_far), (NEAR, covers_near)] {
            for ip in addresses {
                for took in streams_take(&bed, address(ip)?)? {
                    println!("{kind}, {ip}: {took} s");
                    assert_eq!(took > 0.5, is_covered, "{kind}: {ip} took {took} s");
                }
            }
        }
    }
    Ok(())
}

#[test]
fn what_the_user_calls_local_is_local() -> anyhow::Result<()> {
    let bed = bed()?;
    let cgroup = everybody(&bed);
    let [v4, v6] = FAR_PREFIXES;
    let prefixes = ["--local-prefix", v4, "--local-prefix", v6];
    for (kind, is_covered) in [("internet", false), ("local", true)] {
        let limits = ["--cgroup", &cgroup, "--upload-limit", "0", "--download-limit", "0", "--traffic", kind];
        let _limiter = limit(&bed, &[&prefixes[..], &limits].concat())?;
        for ip in [FAR_V4, FAR_V6] {
            assert_eq!(datagrams_pass(&bed, address(ip)?)?, [!is_covered; 2], "{kind}: {ip}");
        }
    }
    Ok(())
}
