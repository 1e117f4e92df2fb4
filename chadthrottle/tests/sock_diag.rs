//! The monitor for who has no privilege: TCP bytes by the kernel's own counters, through the binary.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use chadthrottle::sys::sock_diag::{SocketDump, SocketEnds};
use serde_json::Value;
use support::{BINARY, Everybodys, Monitor, PATIENCE, assert_close, number, process, tcp_ip_bytes};
use testbed::{Family, Process, Testbed, traffic};

const SOCK_DIAG: [&str; 2] = ["--monitor-backend", "sock_diag"];

/// Starts who waits for bytes on the server, and returns it with its address.
fn sink(bed: &Testbed, family: Family) -> anyhow::Result<(Process, String)> {
    let listen = bed.server().socket_address(family, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.server())?.args(["tcp-sink", "--listen", &listen]))?;
    let to = traffic::ready(&sink)?.to_string();
    Ok((sink, to))
}

/// The row of a process once it has ended.
fn last_row(monitor: &Monitor, pid: u32) -> anyhow::Result<Value> {
    monitor.until("the process has ended", |line| {
        process(line, pid).filter(|row| row["alive"] == false).cloned()
    })
}

#[test]
fn uploads_and_downloads_are_counted_and_their_process_named() -> anyhow::Result<()> {
    for family in Family::ALL {
        let bed = Testbed::new("diag")?;
        let monitor = Monitor::start(&bed, &SOCK_DIAG)?;
        let (_sink, to) = sink(&bed, family)?;
        let send = ["tcp-send", "--to", &to, "--bytes", "60000000", "--rate", "40000000"];
        let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let row = last_row(&monitor, sender.pid())?;
        assert_eq!((&row["name"], &row["user"]), (&"traffic".into(), &"root".into()));
        let uploaded = number(&row, "upload_bytes_total");
        assert_close(uploaded, tcp_ip_bytes(60_000_000, family), &format!("{family:?} upload"));
        // The other way went only acknowledgements.
        assert!(number(&row, "download_bytes_total") < uploaded / 10);

        let listen = bed.server().socket_address(family, 0).to_string();
        let source = ["tcp-source", "--listen", &listen, "--bytes", "60000000", "--rate", "40000000"];
        let source = Process::spawn(traffic::command(bed.server())?.args(source))?;
        let from = traffic::ready(&source)?.to_string();
        let receive = ["tcp-receive", "--from", &from];
        let mut receiver = Process::spawn(traffic::command(bed.client())?.args(receive))?;
        assert!(receiver.wait_timeout(PATIENCE)?.success());
        let row = last_row(&monitor, receiver.pid())?;
        let downloaded = number(&row, "download_bytes_total");
        assert_close(downloaded, tcp_ip_bytes(60_000_000, family), &format!("{family:?} download"));
        let line = monitor.last()?;
        assert_eq!(line["lost_events"], 0);
        assert_eq!(line["monitor"], "sock_diag");
    }
    Ok(())
}

/// The way back goes nothing but segments without payload, and the interface counts those one by one.
#[test]
fn acknowledgements_count_as_on_the_interface() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-ack")?;
    let monitor = Monitor::start(&bed, &SOCK_DIAG)?;
    let before = received(&bed)?;
    let (_sink, to) = sink(&bed, Family::V4)?;
    let send = ["tcp-send", "--to", &to, "--bytes", "30000000", "--rate", "30000000"];
    let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let after = received(&bed)?;
    let row = last_row(&monitor, sender.pid())?;
    // Without the 14 bytes of Ethernet. The rest are neighbours that look for each other, and options of the handshake.
    let on_the_wire = after.0 - before.0 - 14 * (after.1 - before.1);
    let missing = on_the_wire.checked_sub(number(&row, "download_bytes_total"));
    assert!(missing.is_some_and(|missing| missing < 1000), "{missing:?} of {on_the_wire} are missing: {row}");
    Ok(())
}

/// Bytes and packets that the client's interface has received.
fn received(bed: &Testbed) -> anyhow::Result<(u64, u64)> {
    let interface = bed.client().interfaces()[0];
    let read = |what| {
        let command = ["-n", bed.client().namespace(), "-s", "-j", "link", "show", interface];
        let output = Command::new("ip").args(command).output()?;
        let link: Value = serde_json::from_slice(&output.stdout)?;
        Ok::<_, anyhow::Error>(number(&link[0]["stats64"]["rx"], what))
    };
    Ok((read("bytes")?, read("packets")?))
}

#[test]
fn of_a_connection_that_was_open_before_only_what_comes_counts() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-before")?;
    let listener = bed.server().run(|| Ok(TcpListener::bind("10.77.2.2:0")?))?;
    let address = listener.local_addr()?;
    let mut near = bed.client().run(move || Ok(TcpStream::connect(address)?))?;
    let (mut far, _) = listener.accept()?;
    let mut exchange = |bytes: u64| -> anyhow::Result<()> {
        let mut buffer = vec![0; usize::try_from(bytes)?];
        let payload = buffer.clone();
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| near.write_all(&payload));
            far.read_exact(&mut buffer)?;
            sender.join().expect("no panic")
        })?;
        Ok(())
    };
    exchange(5_000_000)?;
    // This test is not in the bed's cgroup.
    let mut command = bed.client().command(BINARY);
    command.args(["monitor", "--json", "--interval", "100ms"]).args(SOCK_DIAG);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
    exchange(20_000_000)?;
    let pid = std::process::id();
    // In two following lines the same: all has been read.
    let mut last = 0;
    let uploaded = testbed::until("the counter has come to rest", PATIENCE, || {
        let lines = monitor.stdout();
        let line: Option<Value> = lines.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let now =
            line.as_ref().and_then(|line| process(line, pid)).map(|row| number(row, "upload_bytes_total"));
        let is_at_rest = now.is_some_and(|now| now > 20_000_000 && now == last);
        last = now.unwrap_or_default();
        std::thread::sleep(Duration::from_millis(150));
        Ok(is_at_rest.then_some(last))
    })?;
    assert_close(uploaded, tcp_ip_bytes(20_000_000, Family::V4), "upload after the start");
    Ok(())
}

#[test]
fn a_connection_that_nobody_could_look_at_is_in_the_sum() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-short")?;
    // Longer than the connection.
    let mut command = bed.client().command(BINARY);
    command.args(["monitor", "--json", "--interval", "2s", "--count", "1", "-v"]).args(SOCK_DIAG);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.contains("is counting"), PATIENCE)?;
    let (_sink, to) = sink(&bed, Family::V6)?;
    let send = ["tcp-send", "--to", &to, "--bytes", "5000000"];
    let mut sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    assert!(sender.wait_timeout(PATIENCE)?.success());
    let line: Value = serde_json::from_str(monitor.success(PATIENCE)?.trim())?;
    let unattributed = number(&line["unattributed"], "upload_bytes_total");
    assert_close(unattributed, tcp_ip_bytes(5_000_000, Family::V6), "upload of nobody");
    Ok(())
}

#[test]
fn loopback_counts_only_on_request() -> anyhow::Result<()> {
    for listen in ["127.0.0.1:0", "[::1]:0", "10.77.1.2:0"] {
        for (option, is_expected) in [(None, false), (Some("--include-loopback"), true)] {
            let bed = Testbed::new("diag-lo")?;
            let mut command = bed.client().command(BINARY);
            command.args(["monitor", "--json", "--interval", "50ms"]).args(SOCK_DIAG).args(option);
            let monitor = Process::spawn(&mut command)?;
            monitor.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
            let sink = ["tcp-sink", "--listen", listen];
            let sink = Process::spawn(traffic::command(bed.client())?.args(sink))?;
            let to = traffic::ready(&sink)?.to_string();
            let send = ["tcp-send", "--to", &to, "--bytes", "1000000", "--rate", "3000000"];
            Process::spawn(traffic::command(bed.client())?.args(send))?.success(PATIENCE)?;
            std::thread::sleep(Duration::from_millis(300));
            let text = monitor.stdout();
            let line: Value = serde_json::from_str(text.lines().nth_back(1).expect("many lines"))?;
            let rows = line["processes"].as_array().expect("a list");
            // Both ends are here.
            assert_eq!(rows.len(), if is_expected { 2 } else { 0 }, "{listen} {option:?}: {line}");
            assert_eq!(number(&line["unattributed"], "upload_bytes_total"), 0, "{line}");
        }
    }
    Ok(())
}

#[test]
fn with_a_cgroup_only_what_is_below_it_is_seen() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-cgroup")?;
    let inside = bed.cgroup("inside")?;
    let mut command = bed.client().command(BINARY);
    command.arg("--cgroup-root").arg(&inside).args(SOCK_DIAG);
    let monitor = Process::spawn(command.args(["monitor", "--json", "--interval", "50ms"]))?;
    monitor.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
    let mut senders = Vec::new();
    for cgroup in [bed.cgroup_root(), &inside] {
        let (sink, to) = sink(&bed, Family::V4)?;
        let mut command = bed.client().command_in(cgroup, traffic::traffic_binary()?)?;
        command.args(["tcp-send", "--to", &to, "--bytes", "3000000", "--rate", "6000000"]);
        senders.push((Process::spawn(&mut command)?, sink));
    }
    let pid = senders[1].0.pid();
    let line = monitor.wait_for_line(|line| line.contains("\"alive\":false"), PATIENCE)?;
    let line: Value = serde_json::from_str(&line)?;
    assert_eq!(line["processes"].as_array().map(Vec::len), Some(1), "{line}");
    let row = process(&line, pid).expect("the one inside");
    assert_close(number(row, "upload_bytes_total"), tcp_ip_bytes(3_000_000, Family::V4), "upload");
    Ok(())
}

#[test]
fn without_privilege_ones_own_processes_are_seen_and_the_rest_is_said() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-nobody")?;
    let programs = Everybodys::new()?;
    let mut command = programs.command(&bed, Path::new(BINARY))?;
    // Nothing is chosen: without privilege there is nothing better.
    let monitor =
        Process::spawn(command.args(["monitor", "--json", "--interval", "100ms", "--count", "25"]))?;
    monitor.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
    let ours = programs.command(&bed, traffic::traffic_binary()?)?;
    let somebodys = traffic::command(bed.client())?;
    let mut senders = Vec::new();
    for (mut command, bytes) in [(ours, "4000000"), (somebodys, "2000000")] {
        let (sink, to) = sink(&bed, Family::V4)?;
        command.args(["tcp-send", "--to", &to, "--bytes", bytes, "--rate", "4000000"]);
        senders.push((Process::spawn(&mut command)?, sink));
    }
    let (ours, somebodys) = (senders[0].0.pid(), senders[1].0.pid());
    for (sender, _) in &mut senders {
        assert!(sender.wait_timeout(PATIENCE)?.success());
    }
    let mut monitor = monitor;
    assert_eq!(monitor.wait_timeout(PATIENCE)?.code(), Some(0), "{}", monitor.stderr());
    let line: Value = serde_json::from_str(monitor.stdout().lines().last().expect("25 lines"))?;
    assert_eq!(line["monitor"], "sock_diag");
    let row = process(&line, ours).expect("our own");
    assert_eq!((&row["name"], &row["user"]), (&"traffic".into(), &"nobody".into()));
    assert_close(number(row, "upload_bytes_total"), tcp_ip_bytes(4_000_000, Family::V4), "our own upload");
    assert!(process(&line, somebodys).is_none(), "{line}");
    let unattributed = number(&line["unattributed"], "upload_bytes_total");
    assert_close(unattributed, tcp_ip_bytes(2_000_000, Family::V4), "somebody's upload");
    let stderr = monitor.stderr();
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.contains("UDP") && stderr.contains("sudo"), "{stderr}");
    Ok(())
}

#[test]
fn processes_that_vanish_while_they_are_looked_at_are_no_error() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-race")?;
    let mut command = bed.client().command(BINARY);
    command.args(["monitor", "--json", "--interval", "5ms", "--count", "300"]).args(SOCK_DIAG);
    let monitor = Process::spawn(&mut command)?;
    monitor.wait_for_line(|line| line.starts_with('{'), PATIENCE)?;
    let (_sink, to) = sink(&bed, Family::V4)?;
    // Processes that live for a millisecond or two, each with a connection.
    let script = format!("while :; do exec 3<>/dev/tcp/{}; (exec 3>&-; true); done", to.replace(':', "/"));
    let _processes = Process::spawn(bed.client().command("bash").args(["-c", &script]))?;
    let stdout = monitor.success(PATIENCE)?;
    assert_eq!(stdout.lines().count(), 300);
    Ok(())
}

#[test]
fn a_connection_is_listed_and_its_end_is_told() -> anyhow::Result<()> {
    let bed = Testbed::new("diag-end")?;
    let listener = bed.server().run(|| Ok(TcpListener::bind("[fd77:2::2]:0")?))?;
    let address = listener.local_addr()?;
    let (mut ends, mut dump, near) = bed
        .client()
        .run(move || Ok((SocketEnds::listen()?, SocketDump::open()?, TcpStream::connect(address)?)))?;
    let mut cookies = Vec::new();
    dump.tcp(|socket| cookies.push(socket.header.socket_id.cookie))?;
    assert_eq!(cookies.len(), 1, "nothing else is on the client");
    drop((near, listener));
    let end = testbed::until("its end is told", PATIENCE, || {
        let mut end = None;
        let overflows = ends.drain(|socket| end = Some(socket.header.socket_id.cookie))?;
        assert_eq!(overflows, 0);
        Ok(end)
    })?;
    assert_eq!(end, cookies[0]);
    Ok(())
}
