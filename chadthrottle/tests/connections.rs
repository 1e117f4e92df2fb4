//! What a process is connected to, through the binary.

mod support;

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::Command,
    time::Duration,
};

use chadthrottle::{connections::Connections, process::ProcessId};
use serde_json::Value;
use support::{BINARY, Everybodys, Monitor, PATIENCE, number, process, tcp_ip_bytes};
use testbed::{Family, Process, Testbed, traffic};

/// `monitor --connections` for one process.
fn watch(bed: &Testbed, pid: u32) -> anyhow::Result<Monitor> {
    Monitor::start(bed, &["--connections", "--pid", &pid.to_string()])
}

/// The only connection of a process, once it is as wanted.
fn connection(monitor: &Monitor, pid: u32, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
    monitor.until("its connection is as expected", |line| {
        let connections = process(line, pid)?["connections"].as_array()?;
        match &connections[..] {
            [one] if wanted(one) => Some(one.clone()),
            _ => None,
        }
    })
}

/// A sender on the client that waits for its turn, with our end of its connection, on the server.
fn sender(
    bed: &Testbed,
    family: Family,
    bytes: u64,
) -> anyhow::Result<(Process, TcpStream, [SocketAddr; 2])> {
    let any = bed.server().socket_address(family, 0);
    let listener = bed.server().run(|| Ok(TcpListener::bind(any)?))?;
    let to = listener.local_addr()?;
    let send = ["tcp-send", "--to", &to.to_string(), "--bytes", &bytes.to_string(), "--wait-stdin"];
    let sender = Process::spawn(traffic::command(bed.client())?.args(send))?;
    let local = traffic::ready(&sender)?;
    let (stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok((sender, stream, [local, to]))
}

/// That IP bytes of a connection are within a percent of what so much payload makes on the wire. What was sent again
/// (a busy machine loses segments in its own queues) travelled as well.
fn assert_bytes(connection: &Value, field: &str, payload: u64, family: Family) {
    const SEGMENT: f64 = 1500.0;
    #[expect(clippy::cast_precision_loss, reason = "exact up to 8 petabytes")]
    let [counted, again] = [field, "retransmits"].map(|field| number(connection, field) as f64);
    let expected = tcp_ip_bytes(payload, family);
    let is_near = counted > 0.99 * expected && counted < 1.01 * expected + again * SEGMENT;
    assert!(is_near, "{field} is {:.4} of what was expected: {connection}", counted / expected);
}

#[test]
fn a_tcp_connection_has_addresses_state_bytes_and_a_round_trip_time() -> anyhow::Result<()> {
    const BYTES: u64 = 20_000_000;
    for family in Family::ALL {
        let bed = Testbed::new("conn-tcp")?;
        let (mut sender, mut stream, [local, remote]) = sender(&bed, family, BYTES)?;
        let monitor = watch(&bed, sender.pid())?;
        let quiet = connection(&monitor, sender.pid(), |one| one["state"] == "established")?;
        assert_eq!(quiet["protocol"], "tcp");
        assert_eq!(quiet["ip_version"], if family == Family::V4 { 4 } else { 6 });
        assert_eq!(quiet["local"], local.to_string());
        assert_eq!(quiet["remote"], remote.to_string());
        assert_eq!(quiet["age_s"], Value::Null, "it was there before we were");
        // Nothing but the handshake.
        assert!(number(&quiet, "upload_bytes_total") < 300, "{quiet}");

        sender.send_line("go")?;
        let payload = stream.read_to_end(&mut Vec::new())?;
        assert_eq!(payload as u64, BYTES);
        // The sender has ended its half and waits for ours.
        let one = connection(&monitor, sender.pid(), |one| one["state"] == "fin_wait2")?;
        assert_bytes(&one, "upload_bytes_total", BYTES, family);
        let rtt_us = number(&one, "rtt_us");
        assert!((1..1_000_000).contains(&rtt_us), "{one}");
        assert!(number(&one, "retransmits") < 1000, "{one}");
        assert!(one["seen_s"].as_f64() > quiet["seen_s"].as_f64());

        drop(stream);
        assert!(sender.wait_timeout(PATIENCE)?.success());
        let row = monitor.until("the process has ended", |line| {
            process(line, sender.pid()).filter(|row| row["alive"] == false).cloned()
        })?;
        assert_eq!(row["connections"], Value::Array(Vec::new()));
        assert_eq!(monitor.stderr(), "");
    }
    Ok(())
}

#[test]
fn what_is_received_is_counted_and_who_listens_is_listed() -> anyhow::Result<()> {
    const BYTES: u64 = 20_000_000;
    let bed = Testbed::new("conn-listen")?;
    let listen = bed.client().socket_address(Family::V6, 0).to_string();
    let sink = Process::spawn(traffic::command(bed.client())?.args(["tcp-sink", "--listen", &listen]))?;
    let address = traffic::ready(&sink)?;
    let monitor = watch(&bed, sink.pid())?;
    let listening = connection(&monitor, sink.pid(), |one| one["state"] == "listen")?;
    assert_eq!((&listening["local"], &listening["remote"]), (&address.to_string().into(), &Value::Null));
    assert_eq!(listening["upload_bytes_total"], Value::Null);

    let mut stream = bed.server().run(move || Ok(TcpStream::connect(address)?))?;
    stream.write_all(&vec![b'x'; usize::try_from(BYTES)?])?;
    let from = stream.local_addr()?.to_string();
    let find = |line: &Value, state: &str, least: f64| {
        let connections = process(line, sink.pid())?["connections"].as_array()?;
        let one = connections.iter().find(|one| one["remote"] == from.as_str() && one["state"] == state)?;
        (one["download_bytes_total"].as_f64()? > least).then(|| one.clone())
    };
    let one = monitor.until("all has arrived", |line| find(line, "established", 20e6))?;
    assert_eq!(one["local"], address.to_string());
    assert_bytes(&one, "download_bytes_total", BYTES, Family::V6);
    // It was opened while we looked.
    let (age, seen) = (one["age_s"].as_f64(), one["seen_s"].as_f64());
    assert!(age.is_some_and(|age| age < 30.0) && age == seen, "{one}");
    stream.shutdown(Shutdown::Both)?;
    Ok(())
}

#[test]
fn udp_is_listed_without_bytes() -> anyhow::Result<()> {
    for family in Family::ALL {
        for (option, state) in [(None, "established"), (Some("--unconnected"), "unconnected")] {
            let bed = Testbed::new("conn-udp")?;
            let to = bed.server().socket_address(family, 9).to_string();
            let mut command = traffic::command(bed.client())?;
            command.args(["udp-send", "--to", &to, "--rate", "1000", "--size", "10", "--datagrams", "1"]);
            let sender = Process::spawn(command.arg("--wait-stdin").args(option))?;
            let local = traffic::ready(&sender)?;
            let monitor = watch(&bed, sender.pid())?;
            let one = connection(&monitor, sender.pid(), |_| true)?;
            assert_eq!((&one["protocol"], &one["state"]), (&"udp".into(), &state.into()));
            assert_eq!(one["local"], local.to_string());
            let remote = if option.is_some() { Value::Null } else { to.into() };
            assert_eq!(one["remote"], remote);
            for unknown in ["upload_bytes_total", "download_bytes_total", "rtt_us", "retransmits"] {
                assert_eq!(one[unknown], Value::Null, "{one}");
            }
        }
    }
    Ok(())
}

#[test]
fn what_had_to_be_sent_again_is_counted() -> anyhow::Result<()> {
    let bed = Testbed::new("conn-loss")?;
    let (mut sender, mut stream, _) = sender(&bed, Family::V4, 100_000)?;
    let monitor = watch(&bed, sender.pid())?;
    let before = connection(&monitor, sender.pid(), |one| one["state"] == "established")?;
    assert_eq!(before["retransmits"], 0);
    let nft = |rule: &str| -> anyhow::Result<()> {
        anyhow::ensure!(bed.router().command("nft").arg(rule).status()?.success(), "nft {rule}");
        Ok(())
    };
    nft("add table ip loss { chain forward { type filter hook forward priority 0; drop; }; }")?;
    sender.send_line("go")?;
    connection(&monitor, sender.pid(), |one| one["retransmits"].as_u64() >= Some(2))?;
    nft("delete table ip loss")?;
    assert_eq!(stream.read_to_end(&mut Vec::new())?, 100_000);
    Ok(())
}

#[test]
fn a_process_in_another_network_namespace_is_asked_for_there() -> anyhow::Result<()> {
    let bed = Testbed::new("conn-netns")?;
    let (sender, _stream, [local, remote]) = sender(&bed, Family::V4, 1)?;
    let mut command = bed.server().command(BINARY);
    command.arg("--cgroup-root").arg(bed.cgroup_root());
    let monitor = Monitor::start_by(&mut command, &["--connections", "--pid", &sender.pid().to_string()])?;
    // And no socket of the server's, where the monitor runs.
    let one = connection(&monitor, sender.pid(), |_| true)?;
    assert_eq!((&one["local"], &one["remote"]), (&local.to_string().into(), &remote.to_string().into()));
    Ok(())
}

#[test]
fn without_a_wish_for_them_there_are_none() -> anyhow::Result<()> {
    let bed = Testbed::new("conn-none")?;
    let (sender, _stream, _) = sender(&bed, Family::V4, 1)?;
    let mut command = support::chadthrottle(&bed);
    command.args(["monitor", "--json", "--interval", "50ms", "--count", "2", "--pid"]);
    let monitor = Process::spawn(command.arg(sender.pid().to_string()))?;
    let stdout = monitor.success(PATIENCE)?;
    assert!(!stdout.contains("connections") && stdout.lines().count() == 2, "{stdout}");
    Ok(())
}

#[test]
fn the_table_has_a_line_for_each_below_its_process() -> anyhow::Result<()> {
    let bed = Testbed::new("conn-table")?;
    let (sender, _stream, [local, remote]) = sender(&bed, Family::V6, 1)?;
    let mut command = support::chadthrottle(&bed);
    let pid = sender.pid().to_string();
    command.args(["monitor", "--interval", "50ms", "--count", "1", "--connections", "--pid", &pid]);
    let stdout = Process::spawn(&mut command)?.success(PATIENCE)?;
    let lines: Vec<_> = stdout.lines().collect();
    assert_eq!(lines[1].split_ascii_whitespace().take(2).collect::<Vec<_>>(), [&pid, "traffic"], "{stdout}");
    let expected = format!(" tcp {local} > {remote} established, ");
    assert!(lines[2].contains(&expected) && lines[2].contains(" up, "), "{stdout}");
    Ok(())
}

#[test]
fn without_privilege_ones_own_are_listed_and_others_are_told_of_once() -> anyhow::Result<()> {
    let bed = Testbed::new("conn-nobody")?;
    let programs = Everybodys::new()?;
    let listen = |mut command: Command, family| -> anyhow::Result<Process> {
        let any = bed.client().socket_address(family, 0).to_string();
        let process = Process::spawn(command.args(["tcp-sink", "--listen", &any]))?;
        traffic::ready(&process)?;
        Ok(process)
    };
    let ours = listen(programs.command(&bed, traffic::traffic_binary()?)?, Family::V4)?;
    let roots = listen(traffic::command(bed.client())?, Family::V4)?;
    let (our_pid, root_pid) = (ours.pid().to_string(), roots.pid().to_string());
    let mut command = programs.command(&bed, Path::new(BINARY))?;
    command.args(["monitor", "--json", "--interval", "20ms", "--count", "3", "--connections"]);
    let mut monitor = Process::spawn(command.args(["--pid", &our_pid, "--pid", &root_pid]))?;
    assert!(monitor.wait_timeout(PATIENCE)?.success(), "{}", monitor.stderr());
    let stdout = monitor.stdout();
    let line: Value = serde_json::from_str(stdout.lines().last().expect("three lines"))?;
    let connections = |pid| process(&line, pid).map(|row| row["connections"].clone());
    assert_eq!(
        connections(ours.pid()).and_then(|all| Some(all[0]["state"].as_str()? == "listen")),
        Some(true)
    );
    assert_eq!(connections(roots.pid()), Some(Value::Null), "{line}");
    let stderr = monitor.stderr();
    let told: Vec<_> = stderr.lines().filter(|line| line.contains(&root_pid)).collect();
    assert!(told.len() == 1 && told[0].contains("sudo"), "{stderr}");
    Ok(())
}

#[test]
fn a_process_that_ends_while_it_is_looked_at_is_no_error() -> anyhow::Result<()> {
    let mut connections = Connections::default();
    let mut looks = [0, 0];
    for life in 0..400 {
        // On a busy machine it takes more lives until looks have met both.
        if life >= 40 && looks.iter().all(|&looks| looks > 0) {
            break;
        }
        // A socket, and an end some turns of a loop later: at another point of a look every time.
        let turns = life % 40 * 200;
        let script = format!("exec 3<>/dev/udp/127.0.0.1/9; for ((i = 0; i < {turns}; i++)); do :; done");
        let mut child = Command::new("bash").args(["-c", &script]).spawn()?;
        let Ok(process) = ProcessId::running(child.id().cast_signed()) else {
            // It has ended already.
            child.wait()?;
            continue;
        };
        while child.try_wait()?.is_none() {
            let listed = connections.of(process, Duration::ZERO)?;
            looks[usize::from(listed.is_empty())] += 1;
        }
        assert_eq!(connections.of(process, Duration::ZERO)?, []);
    }
    assert!(looks.iter().all(|&looks| looks > 0), "with and without its socket: {looks:?}");
    Ok(())
}
