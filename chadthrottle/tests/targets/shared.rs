//! Sockets that change hands, or that two processes have: limited when either is.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    rig::{CAP, limit},
    support::PATIENCE,
};

/// A server for one connection; what it returns is what `talk` does, when that is done.
fn serve<T: Send + 'static>(
    bed: &Testbed,
    talk: impl FnOnce(TcpStream) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<(SocketAddr, JoinHandle<anyhow::Result<T>>)> {
    let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(Family::V4, 0))?))?;
    let to = listener.local_addr()?;
    Ok((to, thread::spawn(move || talk(listener.accept()?.0))))
}

fn join<T>(server: JoinHandle<anyhow::Result<T>>) -> anyhow::Result<T> {
    server.join().map_err(|_| anyhow!("the server panicked"))?
}

/// When each piece came: seconds, and bytes until then.
fn arrivals(mut stream: TcpStream) -> anyhow::Result<Vec<(Instant, usize)>> {
    let mut buffer = vec![0; 64 << 10];
    let mut seen = Vec::new();
    let mut sum = 0;
    loop {
        let length = stream.read(&mut buffer)?;
        if length == 0 {
            return Ok(seen);
        }
        sum += length;
        seen.push((Instant::now(), sum));
    }
}

/// `traffic pass --wait-stdin`: the pids of who gives and who takes, and whoever is to be limited is before it begins.
fn pass(bed: &Testbed, to: SocketAddr, bytes: &str) -> anyhow::Result<(Process, [String; 2])> {
    let arguments = ["pass", "--to", &to.to_string(), "--bytes", bytes, "--wait-stdin"];
    let passing = Process::spawn(traffic::command(bed.client())?.args(arguments))?;
    let line = passing.wait_for_line(|line| line.starts_with(r#"{"taker":"#), PATIENCE)?;
    let taker: serde_json::Value = serde_json::from_str(&line)?;
    let pids = [passing.pid().to_string(), taker["taker"].to_string()];
    Ok((passing, pids))
}

#[test]
fn a_socket_passed_into_a_target_is_limited() -> anyhow::Result<()> {
    let bed = Testbed::new("into")?;
    let (to, server) = serve(&bed, arrivals)?;
    let (mut passing, [_, taker]) = pass(&bed, to, "2000000")?;
    let _limiter = limit(&bed, &["--pid", &taker, "--upload-limit", "1M"])?;
    passing.send_line("")?;
    let start = Instant::now();
    passing.success(PATIENCE)?;
    let arrived = join(server)?;
    let took = arrived.last().context("nothing came")?.0 - start;
    assert!(took > Duration::from_millis(1600), "2 MB at 1 MB/s in {took:?}");
    Ok(())
}

#[test]
fn a_socket_passed_out_of_a_target_is_free_a_second_later() -> anyhow::Result<()> {
    let bed = Testbed::new("out")?;
    let (to, server) = serve(&bed, arrivals)?;
    let (mut passing, [giver, _]) = pass(&bed, to, "50000000")?;
    let _limiter = limit(&bed, &["--pid", &giver, "--upload-limit", "1M"])?;
    passing.send_line("")?;
    let start = Instant::now();
    passing.success(PATIENCE)?;
    let arrived = join(server)?;
    let until = |time: Duration| {
        arrived.iter().take_while(|(at, _)| *at - start < time).last().map_or(0, |(_, bytes)| *bytes)
    };
    let (early, took) =
        (until(Duration::from_millis(700)), arrived.last().context("nothing came")?.0 - start);
    println!("{early} bytes in the first 0.7 s, all after {took:?}");
    // It is shared for a second, in case the giver goes on using it.
    assert!(early < 1_500_000, "{early} bytes in the first 0.7 s");
    assert!(took < Duration::from_secs(10), "50 MB took {took:?}: it is still limited");
    Ok(())
}

/// Bytes a second that two processes get that take turns on a connection, one of them limited.
fn turns(limits_child: bool) -> anyhow::Result<f64> {
    const ROUNDS: usize = 40;
    const BYTES: usize = 10_000;
    let bed = Testbed::new("turns")?;
    let (to, server) = serve(&bed, |mut stream| {
        let mut buffer = vec![0; 3 * BYTES];
        for _ in 0..ROUNDS {
            for bytes in [BYTES, 3 * BYTES] {
                stream.read_exact(&mut buffer[..bytes])?;
                stream.write_all(&buffer[..bytes])?;
            }
        }
        Ok(())
    })?;
    let (rounds, bytes) = (ROUNDS.to_string(), BYTES.to_string());
    let arguments =
        ["turns", "--to", &to.to_string(), "--bytes", &bytes, "--rounds", &rounds, "--wait-stdin"];
    let mut both = Process::spawn(traffic::command(bed.client())?.args(arguments))?;
    let line = both.wait_for_line(|line| line.starts_with(r#"{"child":"#), PATIENCE)?;
    let child: serde_json::Value = serde_json::from_str(&line)?;
    let pid = if limits_child { child["child"].to_string() } else { both.pid().to_string() };
    let _limiter = limit(&bed, &["--pid", &pid, "--upload-limit", "1M"])?;
    both.send_line("")?;
    let start = Instant::now();
    both.success(PATIENCE)?;
    let seconds = start.elapsed().as_secs_f64();
    join(server)?;
    #[expect(clippy::cast_precision_loss, reason = "a small number")]
    Ok((4 * ROUNDS * BYTES) as f64 / seconds)
}

#[test]
fn two_that_take_turns_are_held_when_one_of_them_is() -> anyhow::Result<()> {
    for limits_child in [false, true] {
        let rate = turns(limits_child)?;
        println!("child limited {limits_child}: {rate} B/s");
        assert!(rate < 1.35 * CAP, "child limited {limits_child}: {rate} B/s");
    }
    Ok(())
}
