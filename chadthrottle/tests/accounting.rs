//! The books: interfaces, what belongs to nobody, and where peers are.

mod support;

use std::{
    net::{IpAddr, TcpStream, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::Context;
use chadthrottle_common::scope::{SCOPE_LOCAL, VECTORS};
use serde_json::Value;
use support::{BINARY, Monitor, PATIENCE, chadthrottle, number, process};
use testbed::{Family, Feature, Host, Process, Testbed, skip_unless, traffic};

/// Sends datagrams of 100 bytes of payload, and returns who did and how many the kernel took. Unconnected: that nobody
/// listens is no error then.
fn send(host: &Host, to: &str, datagrams: u32) -> anyhow::Result<(u32, u64)> {
    let count = datagrams.to_string();
    let send = [
        "udp-send",
        "--to",
        to,
        "--rate",
        "10000000",
        "--size",
        "100",
        "--datagrams",
        &count,
        "--unconnected",
    ];
    let mut sender = Process::spawn(traffic::command(host)?.args(send))?;
    let pid = sender.pid();
    sender.wait_timeout(PATIENCE)?;
    // Without a way there it fails, and has no report.
    Ok((pid, traffic::Report::parse(&sender.stdout()).map_or(0, |report| report.datagrams)))
}

fn ip(host: &Host, arguments: &str) -> anyhow::Result<()> {
    Process::spawn(host.command("ip").args(arguments.split(' ')))?.success(PATIENCE)?;
    Ok(())
}

fn interface<'a>(line: &'a Value, name: &str) -> Option<&'a Value> {
    line["interfaces"].as_array()?.iter().find(|interface| interface["name"] == name)
}

fn totals(value: &Value) -> (u64, u64) {
    (number(value, "upload_bytes_total"), number(value, "download_bytes_total"))
}

/// The second line from now: it has all that has happened so far.
fn settled(monitor: &Monitor) -> anyhow::Result<Value> {
    let mut line = monitor.last()?;
    for _ in 0..2 {
        line = monitor.until("the next line", |next| (next["time"] != line["time"]).then(|| next.clone()))?;
    }
    Ok(line)
}

#[test]
fn the_books_of_an_interface_close() -> anyhow::Result<()> {
    let bed = Testbed::new("books")?;
    let monitor = Monitor::start(&bed, &[])?;
    let to = bed.server().socket_address(Family::V4, 9).to_string();
    let (udp, datagrams) = send(bed.client(), &to, 10_000)?;
    let listen = bed.server().socket_address(Family::V6, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    let mut tcp = Process::spawn(
        traffic::command(bed.client())?.args(["tcp-send", "--to", &to, "--bytes", "50000000"]),
    )?;
    assert!(tcp.wait_timeout(PATIENCE)?.success());

    let line = settled(&monitor)?;
    let books = interface(&line, "ctclient").expect("the client's interface");
    let (up, down) = totals(books);
    let at_least = 50_000_000 + datagrams * 100;
    assert!(up > at_least, "{up} of {at_least} bytes: {books}");
    for residual in ["residual_bytes", "upload_residual_bytes", "download_residual_bytes"] {
        let bytes = books[residual].as_i64().expect("a residual").unsigned_abs();
        assert!(bytes * 1000 <= up + down, "{residual}: {books}");
    }
    // What the interface has of processes is what processes have of it.
    let rows = [udp, tcp.pid()].map(|pid| process(&line, pid).expect("listed"));
    let of_rows: u64 = rows.iter().map(|row| number(&row["interfaces"][0], "upload_bytes_total")).sum();
    assert_eq!(number(&books["processes"], "upload_bytes_total"), of_rows);
    assert_eq!(of_rows, rows.iter().map(|row| number(row, "upload_bytes_total")).sum::<u64>());
    assert!(interface(&line, "lo").is_none(), "loopback was not asked for: {line}");
    Ok(())
}

#[test]
fn what_passes_through_a_router_is_told_apart() -> anyhow::Result<()> {
    let bed = Testbed::new("router")?;
    if skip_unless(&bed, Feature::Tcx)? {
        return Ok(());
    }
    let mut command = bed.router().command(BINARY);
    command.arg("--cgroup-root").arg(bed.cgroup_root());
    let monitor = Monitor::start_by(&mut command, &[])?;
    let to = bed.server().socket_address(Family::V4, 9).to_string();
    let (pid, datagrams) = send(bed.client(), &to, 10_000)?;
    let line = settled(&monitor)?;
    let bytes = datagrams * 128;
    let (arrived, left) = (interface(&line, "ctrclient"), interface(&line, "ctrserver"));
    let (arrived, left) = (arrived.expect("to the client"), left.expect("to the server"));
    assert_eq!(number(&arrived["buckets"]["forwarded"], "download_bytes_total"), bytes, "{arrived}");
    assert_eq!(number(&left["buckets"]["forwarded"], "upload_bytes_total"), bytes, "{left}");
    for interface in [arrived, left] {
        let (up, down) = totals(interface);
        let residual = interface["residual_bytes"].as_i64().expect("a residual").unsigned_abs();
        assert!(residual * 1000 <= up + down, "{interface}");
    }
    // It is not this host's own, and what the process on the other host sent is in no interface of this one.
    assert_eq!(totals(&line["unattributed"]), (0, 0));
    let row = process(&line, pid).expect("a process of the cgroup, wherever it is");
    assert_eq!((number(row, "upload_bytes_total"), &row["interfaces"]), (bytes, &Value::Array(vec![])));
    Ok(())
}

#[test]
fn what_the_kernel_answers_by_itself_is_no_processs() -> anyhow::Result<()> {
    let bed = Testbed::new("replies")?;
    // The kernel's own sockets are in the root of the tree. The programs count there, and do nothing else.
    let monitor = Monitor::start_by(&mut bed.client().command(BINARY), &[])?;
    let closed = bed.client().socket_address(Family::V4, 9);
    for _ in 0..20 {
        let refused = bed.server().run(|| Ok(TcpStream::connect(closed).is_err()))?;
        assert!(refused);
    }
    let line = monitor.until("twenty RST are counted", |line| {
        let replies = &interface(line, "ctclient")?["buckets"]["replies"];
        (number(replies, "upload_bytes_total") >= 20 * 40).then(|| line.clone())
    })?;
    // An IP header and a TCP header without options each; and neighbours and multicast groups are asked for now and then.
    let replies = &interface(&line, "ctclient").expect("listed")["buckets"]["replies"];
    let bytes = number(replies, "upload_bytes_total");
    assert!((20 * 40..20 * 40 + 600).contains(&bytes), "{bytes} bytes for 20 RST");
    assert!(number(&line["buckets"]["replies"], "upload_bytes_total") >= 20 * 40);
    Ok(())
}

#[test]
fn the_kernel_tells_local_from_internet_as_the_table_does() -> anyhow::Result<()> {
    let bed = Testbed::new("scope")?;
    let monitor = Monitor::start(&bed, &[])?;
    let mut sent = Vec::new();
    for (address, scope) in VECTORS {
        let address: IpAddr = address.parse()?;
        let to = match address {
            IpAddr::V4(address) => format!("{address}:9"),
            IpAddr::V6(address) => format!("[{address}]:9"),
        };
        let (pid, datagrams) = send(bed.client(), &to, 3)?;
        if datagrams == 3 && !address.to_canonical().is_loopback() {
            sent.push((address, *scope == SCOPE_LOCAL, pid));
        }
    }
    let line = settled(&monitor)?;
    let mut counted = [0, 0];
    for (address, is_local, pid) in sent {
        // What the kernel takes and throws away (as to 0.0.0.0 it is this host itself) is in no row.
        let Some(row) = process(&line, pid) else { continue };
        let (all, local) = (number(row, "upload_bytes_total"), number(&row["local"], "upload_bytes_total"));
        assert_eq!(local, if is_local { all } else { 0 }, "{address}: {row}");
        counted[usize::from(is_local)] += 1;
    }
    assert!(counted[0] >= 20 && counted[1] >= 10, "too few could be tried: {counted:?}");
    Ok(())
}

#[test]
fn public_networks_that_the_host_is_in_or_the_user_names_are_local() -> anyhow::Result<()> {
    let bed = Testbed::new("prefix")?;
    ip(bed.client(), "address add 198.51.100.2/24 dev ctclient")?;
    ip(bed.router(), "address add 198.51.100.1/24 dev ctrclient")?;
    let monitor = Monitor::start(&bed, &["--local-prefix", "203.0.113.0/24"])?;
    let mut expected = Vec::new();
    for (to, is_local) in [("198.51.100.1:9", true), ("203.0.113.7:9", true), ("192.0.2.7:9", false)] {
        let (pid, datagrams) = send(bed.client(), to, 10)?;
        assert_eq!(datagrams, 10, "{to}");
        expected.push((to, pid, is_local));
    }
    // A network that comes later.
    ip(bed.client(), "address add 192.0.2.1/24 dev ctclient")?;
    ip(bed.router(), "address add 192.0.2.2/24 dev ctrclient")?;
    settled(&monitor)?;
    let (pid, _) = send(bed.client(), "192.0.2.2:9", 10)?;
    expected.push(("192.0.2.2:9", pid, true));
    let line = settled(&monitor)?;
    for (to, pid, is_local) in expected {
        let row = process(&line, pid).expect("listed");
        let local = number(&row["local"], "upload_bytes_total");
        assert_eq!(
            (number(row, "upload_bytes_total"), local),
            (1280, if is_local { 1280 } else { 0 }),
            "{to}"
        );
    }
    Ok(())
}

#[test]
fn only_the_interface_that_was_chosen_is_counted_and_limited() -> anyhow::Result<()> {
    let bed = Testbed::new("chosen")?;
    let monitor = Monitor::start(&bed, &["--interface", "lo"])?;
    let to = bed.server().socket_address(Family::V4, 9).to_string();
    let (elsewhere, _) = send(bed.client(), &to, 10)?;
    let (here, _) = send(bed.client(), "127.0.0.1:9", 10)?;
    let line = settled(&monitor)?;
    assert!(process(&line, elsewhere).is_none(), "{line}");
    assert_eq!(totals(process(&line, here).expect("listed")).0, 1280);
    let names: Vec<_> = line["interfaces"].as_array().expect("a list").iter().map(|it| &it["name"]).collect();
    assert_eq!(names, ["lo"]);
    drop(monitor);

    // 0 blocks, but only there.
    let send = traffic::command(bed.client())?.get_program().to_string_lossy().into_owned();
    let udp = |to: &str| {
        [send.as_str(), "udp-send", "--to", to, "--rate", "1000000", "--size", "100", "--datagrams", "10"]
            .map(ToOwned::to_owned)
    };
    let receiver = bed.server().run(|| Ok(UdpSocket::bind(bed.server().socket_address(Family::V4, 0))?))?;
    receiver.set_read_timeout(Some(Duration::from_secs(5)))?;
    let to = receiver.local_addr()?.to_string();
    let mut limited = chadthrottle(&bed);
    limited.args(["--interface", "lo", "run", "--upload-limit", "0", "--"]).args(udp(&to));
    Process::spawn(&mut limited)?.success(PATIENCE)?;
    receiver.recv(&mut [0; 200])?;
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_named_with_those_that_are() -> anyhow::Result<()> {
    let output = Command::new(BINARY).args(["monitor", "--interface", "nosuch0", "--count", "1"]).output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("nosuch0") && stderr.contains("lo"), "{stderr}");
    Ok(())
}

#[test]
fn a_process_that_was_never_seen_alive_has_its_program_and_cgroup() -> anyhow::Result<()> {
    let bed = Testbed::new("gone")?;
    let program = std::fs::canonicalize(traffic::traffic_binary()?)?;
    // Longer than the sender lives, also on a busy machine.
    let mut command = chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "10s", "--count", "1", "-v"]);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.contains("is counting"), PATIENCE)?;
    let to = bed.server().socket_address(Family::V4, 9).to_string();
    let (pid, _) = send(bed.client(), &to, 10)?;
    let line: Value = serde_json::from_str(monitor.success(PATIENCE)?.trim())?;
    let row = process(&line, pid).with_context(|| format!("it is not listed: {line}"))?;
    assert_eq!(
        (&row["name"], &row["alive"], &row["user"]),
        (&"traffic".into(), &false.into(), &"root".into())
    );
    assert_eq!(row["exe"].as_str().map(Into::into), Some(program));
    let cgroup = format!("/{}", bed.cgroup_root().file_name().expect("a name").to_string_lossy());
    assert_eq!(row["cgroup"], cgroup);
    Ok(())
}
