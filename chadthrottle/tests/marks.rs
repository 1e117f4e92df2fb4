//! `ifb_tc` by the marks of connections, without any program in the kernel, through the binary: what is held and what is not,
//! and that what somebody else has set stays as it was, however it ends.

mod support;

use std::{
    io::Write,
    net::{SocketAddr, TcpListener, UdpSocket},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use chadthrottle::sys::{
    links,
    pidfd::{self, PidFd},
    socket_tag::{Field, TaggedSocket},
    tc,
};
use nix::sys::signal::Signal;
use support::{PATIENCE, chadthrottle};
use testbed::{Family, KernelState, Path, Process, Testbed, is_to_be_tried, traffic};

/// No program is loaded for uploads either.
const HOW: [&str; 6] =
    ["--tagger", "sockets", "--download-backend", "ifb_tc", "--upload-backend", "nftables"];
const LIMIT: u64 = 500_000;
/// What a connection is offered, in bytes a second.
const OFFERED: u64 = 3_000_000;
const CHUNK: usize = 16 << 10;
/// An emulated machine loads modules for seconds.
const LONG: Duration = Duration::from_mins(2);
/// What Ethernet adds to an IP packet.
const HEADER: u64 = 14;
/// Bytes of payload in a datagram, and how many of them are sent.
const SIZE: usize = 1000;
const COUNT: u64 = 40;

/// A path with a round trip, where this kernel has what it takes; the program has to say the same.
fn bed() -> anyhow::Result<Option<Testbed>> {
    let bed = Testbed::with_path("marks", &Path::round_trip(Duration::from_millis(20)))?;
    let text =
        Process::spawn(chadthrottle(&bed).args(HOW).args(["--list-backends", "--json"]))?.success(LONG)?;
    let list: serde_json::Value = serde_json::from_str(&text)?;
    let rows = list["download"].as_array().context("no downloads")?;
    let row = rows.iter().find(|row| row["name"] == "ifb_tc").context("it is in this build")?;
    let tagger = row["tagger"].as_str().unwrap_or_default();
    ensure!(tagger.starts_with("marks of connections"), "it knows packets by {tagger}");
    let refusal = (row["available"] == false).then(|| row["reason"].as_str().unwrap_or_default());
    Ok(is_to_be_tried(&bed, "ifb_tc_by_marks", refusal)?.then_some(bed))
}

/// Somebody else's filters, before and behind ours, whose queue stays.
fn others(bed: &Testbed) -> anyhow::Result<()> {
    let interface = bed.client().interfaces()[0];
    run(bed, &["tc", "qdisc", "add", "dev", interface, "clsact"])?;
    for place in ["7", "49000"] {
        let filter = ["tc", "filter", "add", "dev", interface, "ingress", "protocol", "ip", "prio", place];
        let what = ["u32", "match", "ip", "dport", "9", "0xffff", "flowid", "1:1"];
        run(bed, &[&filter[..], &what].concat())?;
    }
    Ok(())
}

fn run(bed: &Testbed, words: &[&str]) -> anyhow::Result<String> {
    Process::spawn(bed.client().command(words[0]).args(&words[1..]))?.success(PATIENCE)
}

/// A limit on what a process receives, in force.
fn limit(bed: &Testbed, pid: u32) -> anyhow::Result<Process> {
    let mut command = chadthrottle(bed);
    command.args(["--pid", &pid.to_string()]).args(HOW).args(["--download-limit", &LIMIT.to_string()]);
    let limiter = Process::spawn(&mut command)?;
    limiter.wait_for_line(|line| line.contains("is held to"), LONG)?;
    Ok(limiter)
}

fn end(mut limiter: Process) -> anyhow::Result<()> {
    limiter.signal(Signal::SIGTERM)?;
    let status = limiter.wait_timeout(LONG)?;
    ensure!(status.success(), "{status}: {}", limiter.stderr());
    Ok(())
}

/// A server that offers whoever connects so much, until he goes.
fn source(bed: &Testbed, family: Family) -> anyhow::Result<SocketAddr> {
    let any = bed.server().socket_address(family, 0);
    let listener = bed.server().run(move || Ok(TcpListener::bind(any)?))?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let chunk = vec![b'x'; CHUNK];
                #[expect(clippy::cast_precision_loss, reason = "small numbers")]
                let pause = Duration::from_secs_f64(CHUNK as f64 / OFFERED as f64);
                while stream.write_all(&chunk).is_ok() {
                    thread::sleep(pause);
                }
            });
        }
    });
    Ok(address)
}

/// A process of the client that receives from there.
fn receiver(bed: &Testbed, family: Family) -> anyhow::Result<Process> {
    let from = source(bed, family)?.to_string();
    let process = Process::spawn(traffic::command(bed.client())?.args(["tcp-receive", "--from", &from]))?;
    let has_connection = || Ok((!marks(process.pid())?.is_empty()).then_some(()));
    testbed::until("it is connected", PATIENCE, has_connection)?;
    Ok(process)
}

/// The marks of all sockets of a process.
fn marks(pid: u32) -> anyhow::Result<Vec<u32>> {
    sockets(pid)?.iter().map(|socket| Ok(socket.field(Field::Mark)?)).collect()
}

fn sockets(pid: u32) -> anyhow::Result<Vec<TaggedSocket>> {
    let pid = i32::try_from(pid)?;
    let process = PidFd::open(pid)?;
    let all = pidfd::sockets(pid)?.into_iter().map(|fd| Ok(TaggedSocket::new(process.duplicate(fd)?)));
    Ok(all.collect::<anyhow::Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// IP bytes and packets that have left the queue of a limiter, and when that was read.
fn passed(bed: &Testbed, limiter: u32) -> anyhow::Result<(Instant, u64, u64)> {
    bed.client().run(|| {
        let mut netlink = links::open()?;
        let name = format!("chadifb{limiter}");
        let link = links::all(&mut netlink)?.into_iter().find(|link| link.name == name);
        let index = link.with_context(|| format!("there is no {name}"))?.index;
        let before = Instant::now();
        let classes = tc::classes(&mut netlink, index)?;
        let at = before + before.elapsed() / 2;
        let (bytes, packets) = classes
            .iter()
            .map(|class| (class.stats.bytes, class.stats.packets))
            .fold((0, 0), |sum, class| (sum.0 + class.0, sum.1 + class.1));
        Ok((at, bytes - HEADER * packets, packets))
    })
}

/// IP bytes a second over some looks, in parts of the limit; says what each of them was.
fn held(bed: &Testbed, limiter: u32, looks: u32) -> anyhow::Result<f64> {
    let share = |from: (Instant, u64, u64), to: (Instant, u64, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let bytes = (to.1 - from.1) as f64;
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let due = LIMIT as f64 * to.0.duration_since(from.0).as_secs_f64();
        bytes / due
    };
    let first = passed(bed, limiter)?;
    let (mut last, mut each) = (first, Vec::new());
    for _ in 0..looks {
        thread::sleep(Duration::from_secs(2));
        let now = passed(bed, limiter)?;
        each.push(format!("{:.3}", share(last, now)));
        last = now;
    }
    let all = share(first, last);
    println!("{} of the limit, {all:.4} over all", each.join(", "));
    Ok(all)
}

#[test]
fn an_open_connection_is_held_and_a_kill_leaves_nothing_after_cleanup() -> anyhow::Result<()> {
    for family in Family::ALL {
        let Some(bed) = bed()? else { return Ok(()) };
        others(&bed)?;
        // The connections that are ours alone must not be known any more afterwards.
        let table = "add table inet theirs; add chain inet theirs in { type filter hook input priority 0; }; \
                     add rule inet theirs in ct mark & 0x7f000000 != 0 counter";
        run(&bed, &["nft", table])?;
        let process = receiver(&bed, family)?;
        let before = KernelState::capture(&bed)?;
        let mut limiter = limit(&bed, process.pid())?;
        // What was on its way, and what the queue let pass at once.
        thread::sleep(Duration::from_secs(2));
        let all = held(&bed, limiter.pid(), 6)?;
        ensure!((0.95..1.05).contains(&all), "{family:?}: {all:.4} of the limit");
        let cleanup = |options: &[&str]| -> anyhow::Result<String> {
            Process::spawn(bed.client().command(support::BINARY).arg("cleanup").args(options))?
                .success(PATIENCE)
        };
        // Of one that runs nothing is removed.
        let removed = cleanup(&[])?;
        ensure!(!removed.contains("filter") && !removed.contains("chadifb"), "{removed}");
        support::kill_with_guards(&mut limiter)?;
        let (would, removed) = (cleanup(&["--dry-run"])?, cleanup(&[])?);
        let interface = bed.client().interfaces()[0];
        for line in
            [format!("at the entrance of {interface}"), format!("the interface chadifb{}", limiter.pid())]
        {
            ensure!(would.contains(&line) && removed.contains(&line), "{line}: {would}{removed}");
        }
        before.assert_returns(&bed, PATIENCE)?;
        assert_eq!(marks(process.pid())?, [0]);
        let list = || run(&bed, &["nft", "list", "table", "inet", "theirs"]);
        let counted = list()?;
        thread::sleep(Duration::from_secs(1));
        // By the one that goes on.
        ensure!(list()? == counted, "connections are still marked: {counted}, and then {}", list()?);
    }
    Ok(())
}

#[test]
fn a_transfer_is_held_from_its_beginning_and_others_are_not() -> anyhow::Result<()> {
    const BYTES: u64 = 1_500_000;
    for family in Family::ALL {
        let Some(bed) = bed()? else { return Ok(()) };
        let before = KernelState::capture(&bed)?;
        let listen = bed.server().socket_address(family, 0).to_string();
        let mut times = Vec::new();
        for is_limited in [true, false] {
            let words = ["tcp-source", "--listen", &listen, "--bytes", &BYTES.to_string()];
            let server = Process::spawn(traffic::command(bed.server())?.args(words))?;
            let address = traffic::ready(&server)?.to_string();
            let mut command = if is_limited {
                let mut command = chadthrottle(&bed);
                command.args(HOW).args(["run", "--download-limit", &LIMIT.to_string(), "--"]);
                command.arg(traffic::traffic_binary()?);
                command
            } else {
                traffic::command(bed.client())?
            };
            let start = Instant::now();
            Process::spawn(command.args(["tcp-receive", "--from", &address]))?.success(LONG)?;
            times.push(start.elapsed());
        }
        println!("{family:?}: {:?}, and {:?} without a limit", times[0], times[1]);
        // What was sent before the socket was found is a part of it.
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let due = BYTES as f64 / LIMIT as f64;
        ensure!(times[0].as_secs_f64() > 0.7 * due, "{family:?}: {:?}, {due} s were due", times[0]);
        ensure!(times[1] < times[0] / 2, "{family:?}: {:?} without a limit", times[1]);
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}

/// A process that has sent a datagram to us, and where its answers go.
fn talker(bed: &Testbed, family: Family, ours: &UdpSocket) -> anyhow::Result<Process> {
    let (ip, port) = (bed.server().address(family), ours.local_addr()?.port());
    let script = format!("exec 3<>/dev/udp/{ip}/{port}; echo open; read; echo hello >&3; read");
    let process = Process::spawn(bed.client().command("bash").args(["-c", &script]))?;
    process.wait_for_line(|line| line == "open", PATIENCE)?;
    Ok(process)
}

#[test]
fn datagrams_are_held_but_not_those_of_a_connection_with_a_mark_of_somebody_elses() -> anyhow::Result<()> {
    for (family, is_marked) in [(Family::V4, false), (Family::V6, false), (Family::V4, true)] {
        let Some(bed) = bed()? else { return Ok(()) };
        if is_marked {
            let table = "add table inet theirs; add chain inet theirs out { type filter hook output priority 0; }; \
                         add rule inet theirs out meta l4proto udp ct mark set 5; \
                         add chain inet theirs in { type filter hook input priority 0; }; \
                         add rule inet theirs in meta l4proto udp ct mark 5 counter";
            run(&bed, &["nft", table])?;
        }
        let any = bed.server().socket_address(family, 0);
        let ours = bed.server().run(move || Ok(UdpSocket::bind(any)?))?;
        ours.set_read_timeout(Some(PATIENCE))?;
        let mut process = talker(&bed, family, &ours)?;
        let limiter = limit(&bed, process.pid())?;
        process.send_line("speak")?;
        let (_, theirs) = ours.recv_from(&mut [0; 100])?;
        for _ in 0..COUNT {
            ours.send_to(&[b'x'; SIZE], theirs)?;
            thread::sleep(Duration::from_millis(10));
        }
        let wanted = if is_marked { 0 } else { COUNT };
        let seen = || Ok((passed(&bed, limiter.pid())?.2 >= wanted).then_some(()));
        testbed::until("they have left the queue", PATIENCE, seen)?;
        thread::sleep(Duration::from_millis(200));
        let (_, bytes, packets) = passed(&bed, limiter.pid())?;
        println!("{family:?}, marked: {is_marked}: {packets} packets, {bytes} bytes");
        ensure!(packets == wanted, "{packets} packets of {COUNT} took the way round");
        if is_marked {
            let theirs = run(&bed, &["nft", "list", "table", "inet", "theirs"])?;
            ensure!(theirs.contains(&format!("counter packets {COUNT} ")), "{theirs}");
        }
        end(limiter)?;
    }
    Ok(())
}

#[test]
fn a_socket_with_a_mark_keeps_it_and_is_left_out_and_that_is_said() -> anyhow::Result<()> {
    const THEIRS: u32 = 0xca6c;
    let Some(bed) = bed()? else { return Ok(()) };
    let process = receiver(&bed, Family::V4)?;
    for socket in sockets(process.pid())? {
        socket.set_field(Field::Mark, THEIRS)?;
    }
    let limiter = limit(&bed, process.pid())?;
    testbed::until("it is said", PATIENCE, || {
        Ok(limiter.stderr().contains("a mark of its own (0xca6c)").then_some(()))
    })?;
    thread::sleep(Duration::from_millis(500));
    assert_eq!((marks(process.pid())?, passed(&bed, limiter.pid())?.2), (vec![THEIRS], 0));
    end(limiter)?;
    assert_eq!(marks(process.pid())?, [THEIRS]);
    Ok(())
}

#[test]
fn two_of_us_hold_at_once_and_each_ends_alone() -> anyhow::Result<()> {
    let Some(bed) = bed()? else { return Ok(()) };
    others(&bed)?;
    let ends = [receiver(&bed, Family::V4)?, receiver(&bed, Family::V6)?];
    let before = KernelState::capture(&bed)?;
    let first = limit(&bed, ends[0].pid())?;
    let mut second = limit(&bed, ends[1].pid())?;
    thread::sleep(Duration::from_secs(2));
    for (limiter, looks) in [(&first, 2), (&second, 2)] {
        let all = held(&bed, limiter.pid(), looks)?;
        ensure!((0.9..1.1).contains(&all), "{all:.4} of the limit");
    }
    end(first)?;
    assert_eq!(marks(ends[0].pid())?, [0]);
    let all = held(&bed, second.pid(), 2)?;
    ensure!((0.9..1.1).contains(&all), "{all:.4} of the limit, alone");
    second.signal(Signal::SIGKILL)?;
    second.wait_timeout(PATIENCE)?;
    // By the guard.
    before.assert_returns(&bed, PATIENCE)?;
    testbed::until("the socket is as it was", PATIENCE, || Ok((marks(ends[1].pid())? == [0]).then_some(())))
}

#[test]
fn the_next_start_removes_what_one_left_that_was_killed_with_its_guard() -> anyhow::Result<()> {
    let Some(bed) = bed()? else { return Ok(()) };
    let process = receiver(&bed, Family::V4)?;
    let before = KernelState::capture(&bed)?;
    let mut killed = limit(&bed, process.pid())?;
    support::kill_with_guards(&mut killed)?;
    let next = limit(&bed, process.pid())?;
    thread::sleep(Duration::from_secs(2));
    let all = held(&bed, next.pid(), 2)?;
    // Receive windows stay as small as the killed one had them, which only its guard would have opened again.
    ensure!((0.6..1.1).contains(&all), "{all:.4} of the limit");
    end(next)?;
    before.assert_returns(&bed, PATIENCE)?;
    assert_eq!(marks(process.pid())?, [0]);
    Ok(())
}

#[test]
fn an_ifb_that_somebody_takes_away_is_made_again_with_what_sends_there() -> anyhow::Result<()> {
    let Some(bed) = bed()? else { return Ok(()) };
    let process = receiver(&bed, Family::V4)?;
    let before = KernelState::capture(&bed)?;
    let limiter = limit(&bed, process.pid())?;
    run(&bed, &["ip", "link", "delete", &format!("chadifb{}", limiter.pid())])?;
    testbed::until("packets go that way again", PATIENCE, || {
        Ok(passed(&bed, limiter.pid()).is_ok_and(|passed| passed.2 > 20).then_some(()))
    })?;
    end(limiter)?;
    before.assert_returns(&bed, PATIENCE)
}
