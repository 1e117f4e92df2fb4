//! Flow control by socket option, through the binary: limits hold without loss and without privilege, connections end
//! when they are closed, and every option is put back.
//!
//! The bands are wide, because they must hold on any loaded machine; `cargo xtask bench throttle` has the figures.

mod support;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
    path::Path as FilePath,
    process::Command,
    time::{Duration, Instant},
};

use chadthrottle::sys::{proc_children::ptrace_scope, tcp_socket::UNPACED};
use nix::sys::{signal::Signal, socket::setsockopt, socket::sockopt::RcvBuf};
use support::{BINARY, Holder, PATIENCE, connection, socket_options};
use testbed::{
    Family, Path, Process, Testbed,
    iperf3::{Iperf3, Iperf3Report, Iperf3Server},
};

const PORT: u16 = 5201;
const SOCKOPT: [&str; 4] = ["--upload-backend", "sockopt", "--download-backend", "sockopt"];

fn bed() -> anyhow::Result<Testbed> {
    Testbed::with_path("sockopt", &Path::round_trip(Duration::from_millis(20)))
}

fn chadthrottle(bed: &Testbed) -> Command {
    let mut command = support::chadthrottle(bed);
    command.args(SOCKOPT);
    command
}

/// Starts `chadthrottle --pid` and waits until the limit is in force.
fn limit_pid(bed: &Testbed, pid: u32, options: &[&str]) -> anyhow::Result<Process> {
    let mut command = chadthrottle(bed);
    let limiter = Process::spawn(command.args(["--pid", &pid.to_string()]).args(options))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// A limited iperf3 keeps to its limit of 5 MB/s and loses nothing.
fn holds(mut command: Command, client: Iperf3, is_upload: bool) -> anyhow::Result<()> {
    command.arg("run").args([
        if is_upload { "--upload-limit" } else { "--download-limit" },
        "5M",
        "--",
        "iperf3",
    ]);
    let client = if is_upload { client } else { client.reverse() };
    let mut run = Process::spawn(command.args(client.args()))?;
    let status = run.wait_timeout(PATIENCE)?;
    let report = Iperf3Report::parse(&run.stdout())?;
    assert!(status.success(), "{}", run.stderr());
    assert!(run.stderr().contains("no UDP"), "{}", run.stderr());
    let achieved = report.rate_after_first_second() / 5e6;
    println!("upload {is_upload}: {achieved:.3}, {:?} retransmits", report.retransmits);
    assert!((0.6..1.15).contains(&achieved), "upload {is_upload}: {achieved:.3}");
    assert!(report.max_second() < 2.0 * 5e6, "upload {is_upload}: {}", report.max_second());
    let retransmits = report.retransmits.unwrap_or_default();
    assert!(retransmits <= report.received_bytes / 1_000_000, "{retransmits} retransmits");
    Ok(())
}

#[test]
fn uploads_and_downloads_are_held_without_loss() -> anyhow::Result<()> {
    for (is_upload, family, flows, congestion) in
        [(true, Family::V4, 1, "cubic"), (false, Family::V6, 8, "bbr"), (false, Family::V4, 1, "cubic")]
    {
        let bed = bed()?;
        let _server = Iperf3Server::start(bed.server(), PORT)?;
        let client =
            Iperf3::client(bed.server(), family, PORT).seconds(4).flows(flows).congestion(congestion);
        holds(chadthrottle(&bed), client, is_upload)?;
    }
    Ok(())
}

/// Programs where every user can reach them: where tests are built, others may not look.
struct Everybodys(tempfile::TempDir);

impl Everybodys {
    fn new() -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("chadtest-").tempdir_in("/tmp")?;
        std::fs::set_permissions(directory.path(), PermissionsExt::from_mode(0o755))?;
        // By another process, so that no descriptor here that writes to it is inherited by anybody (ETXTBSY).
        let copy = directory.path().join("chadthrottle");
        anyhow::ensure!(Command::new("cp").arg(BINARY).arg(&copy).status()?.success());
        Ok(Self(directory))
    }

    /// A program that nobody runs on the bed's client.
    fn command(bed: &Testbed, program: &FilePath) -> Command {
        let mut command = bed.client().command("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(program)
            .current_dir("/");
        command
    }

    fn chadthrottle(&self, bed: &Testbed) -> Command {
        Self::command(bed, &self.0.path().join("chadthrottle"))
    }
}

#[test]
fn an_ordinary_user_holds_what_they_start() -> anyhow::Result<()> {
    let programs = Everybodys::new()?;
    for is_upload in [true, false] {
        let bed = bed()?;
        let _server = Iperf3Server::start(bed.server(), PORT)?;
        let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(4).flows(4);
        // Nothing is chosen: without privilege there is nothing better.
        holds(programs.chadthrottle(&bed), client, is_upload)?;
    }
    Ok(())
}

#[test]
fn curl_is_held_and_its_status_is_passed_on() -> anyhow::Result<()> {
    testbed::require_program("curl")?;
    let programs = Everybodys::new()?;
    let bed = bed()?;
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let url = format!("http://{}/file", listener.local_addr()?);
    let server = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        assert!(stream.read(&mut [0; 4096])? > 0);
        write!(stream, "HTTP/1.0 200 OK\r\nContent-Length: 4000000\r\n\r\n")?;
        // It does not get all.
        stream.write_all(&vec![b'x'; 3_000_000])
    });
    let start = Instant::now();
    let mut command = programs.chadthrottle(&bed);
    command.args(["run", "--download-limit", "1M", "--", "sh", "-c"]);
    // A grandchild.
    let script = format!("curl --silent --show-error --output /dev/null {url}; exit $?");
    let mut run = Process::spawn(command.arg(script))?;
    // `curl` ends with 18 where a transfer is not complete.
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(18), "{}", run.stderr());
    let seconds = start.elapsed().as_secs_f64();
    assert!((2.6..4.5).contains(&seconds), "3 MB at 1 MB/s took {seconds} s");
    server.join().expect("no panic")?;
    Ok(())
}

#[test]
fn every_option_is_put_back_and_the_applications_own_is_kept() -> anyhow::Result<()> {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let bed = bed()?;
        // Both ends are ours, and both are limited: they are not on loopback.
        let (plain, _far) = connection(&bed)?;
        let (own, _other) = connection(&bed)?;
        setsockopt(&own, RcvBuf, &100_000)?;
        let before = [socket_options(&plain)?, socket_options(&own)?];
        assert_eq!((before[0].0, before[0].2, before[1].2), (UNPACED, false, true));
        let limits = ["--upload-limit", "200K", "--download-limit", "200K"];
        let mut limiter = limit_pid(&bed, std::process::id(), &[&limits[..], &["--force"]].concat())?;
        for (stream, before) in [&plain, &own].into_iter().zip(before) {
            let (pacing, window, lock) = socket_options(stream)?;
            assert!(pacing < 250_000 && window < before.1 && lock, "{pacing} {window} {lock}");
        }
        limiter.signal(signal)?;
        assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
        assert_eq!([socket_options(&plain)?, socket_options(&own)?], before, "{signal}");
    }
    Ok(())
}

#[test]
fn every_option_is_put_back_after_a_sigkill() -> anyhow::Result<()> {
    let programs = Everybodys::new()?;
    for is_root in [true, false] {
        if !is_root && !matches!(ptrace_scope(), None | Some(0)) {
            // Another process of theirs may not look into it: options outlive a SIGKILL, as is documented.
            continue;
        }
        let bed = bed()?;
        let (stream, _far) = connection(&bed)?;
        let before = socket_options(&stream)?;
        let sleep = FilePath::new("sleep");
        let mut command =
            if is_root { bed.client().command(sleep) } else { Everybodys::command(&bed, sleep) };
        let holder = Holder::start(command.arg("60"), &stream)?;
        let mut command = if is_root { chadthrottle(&bed) } else { programs.chadthrottle(&bed) };
        let limits = ["--upload-limit", "200K", "--download-limit", "200K"];
        command.args(["--pid", &holder.pid().to_string()]).args(limits);
        let mut limiter = Process::spawn(&mut command)?;
        limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
        assert_ne!(socket_options(&stream)?, before, "root: {is_root}: {}", limiter.stderr());
        limiter.signal(Signal::SIGKILL)?;
        limiter.wait_timeout(PATIENCE)?;
        testbed::until("the options are put back", Duration::from_secs(1), || {
            Ok((socket_options(&stream)? == before).then_some(()))
        })?;
    }
    Ok(())
}

#[test]
fn the_peer_hears_at_once_of_connections_that_are_closed() -> anyhow::Result<()> {
    let bed = bed()?;
    let streams = (0..60).map(|_| connection(&bed)).collect::<anyhow::Result<Vec<_>>>()?;
    let _limiter =
        limit_pid(&bed, std::process::id(), &["--upload-limit", "1M", "--download-limit", "1M", "--force"])?;
    for (mut near, mut far) in streams {
        // So that they are looked at in each tick, and closed at any moment of one.
        near.write_all(b"some")?;
        far.write_all(b"thing")?;
        std::thread::sleep(Duration::from_millis(7));
        far.set_read_timeout(Some(PATIENCE))?;
        far.read_exact(&mut [0; 4])?;
        near.read_exact(&mut [0; 5])?;
        drop(near);
        let start = Instant::now();
        assert_eq!(far.read(&mut [0; 8])?, 0);
        let took = start.elapsed();
        assert!(took < Duration::from_millis(200), "the end of a connection took {took:?}");
    }
    Ok(())
}

#[test]
fn more_connections_than_descriptors_are_held() -> anyhow::Result<()> {
    let bed = bed()?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(4).flows(64).reverse();
    let mut command = bed.client().command("prlimit");
    command.args(["--nofile=20:1000", "--", BINARY, "--cgroup-root"]).arg(bed.cgroup_root()).args(SOCKOPT);
    command.args(["run", "--download-limit", "10M", "--", "prlimit", "--nofile=1000:1000", "--", "iperf3"]);
    let stdout = Process::spawn(command.args(client.args()))?.success(PATIENCE)?;
    let achieved = Iperf3Report::parse(&stdout)?.rate_after_first_second() / 10e6;
    assert!((0.5..1.2).contains(&achieved), "{achieved:.3}");
    Ok(())
}

/// Linux before 5.15: the kernel undoes the clamp each time it makes the buffer longer, and it is set again.
#[test]
fn downloads_are_held_where_buffers_cannot_be_locked() -> anyhow::Result<()> {
    let bed = bed()?;
    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let (near, _far) = connection(&bed)?;
    let full = socket_options(&near)?.1;
    let mut command = chadthrottle(&bed);
    testbed::without_buffer_lock(&mut command);
    command.args(["--force", "--pid", &std::process::id().to_string(), "--download-limit", "200K"]);
    let mut limiter = Process::spawn(&mut command)?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    let (_, window, locked) = socket_options(&near)?;
    assert!(window < full && !locked, "{window} of {full}, locked: {locked}");
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    assert_eq!(socket_options(&near)?.1, full);

    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(4).flows(2).reverse();
    let mut command = chadthrottle(&bed);
    testbed::without_buffer_lock(&mut command);
    command.args(["run", "--download-limit", "5M", "--", "iperf3"]).args(client.args());
    let report = Iperf3Report::parse(&Process::spawn(&mut command)?.success(PATIENCE)?)?;
    let achieved = report.rate_after_first_second() / 5e6;
    println!("{achieved:.3} without a lock");
    assert!((0.7..1.15).contains(&achieved), "{achieved:.3}");
    Ok(())
}

#[test]
fn what_cannot_be_held_is_refused_with_the_reason() -> anyhow::Result<()> {
    let bed = bed()?;
    let refused = |options: &[&str], status: i32, words: &[&str]| -> anyhow::Result<()> {
        let mut run = Process::spawn(chadthrottle(&bed).args(options))?;
        assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(status), "{options:?}: {}", run.stderr());
        for word in words {
            assert!(run.stderr().contains(word), "{options:?} does not say {word:?}: {}", run.stderr());
        }
        Ok(())
    };
    refused(&["run", "--upload-limit", "0", "--", "true"], 4, &["cannot block"])?;
    refused(&["run", "--download-limit", "0", "--", "true"], 4, &["cannot block"])?;

    let _server = Iperf3Server::start(bed.server(), PORT)?;
    let client = Iperf3::client(bed.server(), Family::V4, PORT).seconds(20).flows(32).reverse();
    let iperf3 = Process::spawn(&mut client.command(bed.client())?)?;
    let interface = bed.client().interfaces()[0];
    testbed::until("iperf3 runs at full speed", PATIENCE, || {
        let rate = support::interface_rate(bed.client(), interface, "rx", Duration::from_millis(200))?;
        Ok((rate > 20e6).then_some(()))
    })?;
    let pid = iperf3.pid().to_string();
    refused(&["--pid", &pid, "--download-limit", "100K"], 4, &["cannot be held below", "receive window"])?;
    // Nothing is left of it.
    testbed::until("iperf3 runs at full speed again", PATIENCE, || {
        let rate = support::interface_rate(bed.client(), interface, "rx", Duration::from_millis(200))?;
        Ok((rate > 20e6).then_some(()))
    })?;
    Ok(())
}

#[test]
fn anothers_process_is_refused_and_the_rule_is_named() -> anyhow::Result<()> {
    let bed = bed()?;
    let programs = Everybodys::new()?;
    let sleep = Process::spawn(bed.client().command("sleep").arg("60"))?;
    let mut command = programs.chadthrottle(&bed);
    let mut run = Process::spawn(command.args(["--pid", &sleep.pid().to_string(), "--upload-limit", "1M"]))?;
    assert_eq!(run.wait_timeout(PATIENCE)?.code(), Some(3), "{}", run.stderr());
    let stderr = run.stderr();
    for word in ["another user", "CAP_SYS_PTRACE", "sudo", "ptrace_scope"] {
        assert!(stderr.contains(word), "{stderr}");
    }
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    Ok(())
}

/// Sends to each connection as much as it asks for, until it is closed.
fn serve(listener: &TcpListener) {
    while let Ok((mut stream, _)) = listener.accept() {
        std::thread::spawn(move || {
            let mut wanted = [0; 8];
            stream.read_exact(&mut wanted)?;
            let mut left = u64::from_be_bytes(wanted);
            while left > 0 {
                let part = left.min(16_384);
                stream.write_all(&[0; 16_384][..usize::try_from(part).unwrap_or_default()])?;
                left -= part;
            }
            std::io::Result::Ok(())
        });
    }
}

/// Receives so much on a connection of its own, or until a moment.
fn fetch(bed: &Testbed, from: std::net::SocketAddr, bytes: u64, until: Instant) -> anyhow::Result<()> {
    let mut stream = bed.client().run(move || Ok(TcpStream::connect(from)?))?;
    stream.write_all(&bytes.to_be_bytes())?;
    let mut buffer = vec![0; 65_536];
    while Instant::now() < until && stream.read(&mut buffer)? > 0 {}
    Ok(())
}

#[test]
fn many_short_connections_beside_two_long_ones_keep_to_the_limit() -> anyhow::Result<()> {
    const LIMIT: f64 = 2e6;
    let bed = bed()?;
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let from = listener.local_addr()?;
    std::thread::spawn(move || serve(&listener));
    let _limiter = limit_pid(&bed, std::process::id(), &["--download-limit", "2M", "--force"])?;
    let start = Instant::now();
    let end = start + Duration::from_secs(6);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| fetch(&bed, from, u64::MAX, end).expect("a long one"));
        }
        // Six at a time, as browsers do.
        for _ in 0..6 {
            scope.spawn(|| {
                for _ in 0..5 {
                    fetch(&bed, from, 100_000, end).expect("a short one");
                }
            });
        }
        std::thread::sleep(Duration::from_secs(1));
        let bytes = || bed.carried().map_or(0, |[_, to_client]| to_client.bytes);
        let (before, at) = (bytes(), Instant::now());
        std::thread::sleep(Duration::from_secs(4));
        #[expect(clippy::cast_precision_loss, reason = "some megabytes")]
        let share = (bytes() - before) as f64 / at.elapsed().as_secs_f64() / LIMIT;
        println!("{share:.3} of the limit");
        assert!((0.6..1.2).contains(&share), "{share:.3} of the limit");
    });
    Ok(())
}
