//! A limit that is set, changed and taken away while its target is busy.

use std::time::{Duration, Instant};

use chadthrottle::{backends::throttle::Subject, process::ProcessId};
use testbed::{Family, KernelState, Process, Testbed, traffic};

use crate::{
    inside::Inside,
    rig::{Meter, Sink, assert_held, holds, limit, send_for},
    support::PATIENCE,
};

/// The bytes in tenths of a second from now on, while `change` is done after the first `before`.
fn tenths(
    meter: &Meter<'_>,
    before: u32,
    after: u32,
    change: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<Vec<f64>> {
    let mut change = Some(change);
    let mut bytes = Vec::new();
    let start = Instant::now();
    let (mut last, _) = meter.read()?;
    for tenth in 1..=before + after {
        if tenth == before + 1
            && let Some(change) = change.take()
        {
            change()?;
        }
        std::thread::sleep(
            (start + Duration::from_millis(100) * tenth).saturating_duration_since(Instant::now()),
        );
        let (now, _) = meter.read()?;
        bytes.push(now - last);
        last = now;
    }
    Ok(bytes)
}

/// A sender of datagrams at 6 MB/s, and its limits.
fn with_sender(
    work: impl FnOnce(&Testbed, &Subject, &mut Inside<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bed = Testbed::new("change")?;
    let sink = Sink::endless(bed.server(), Family::V4)?;
    let sender =
        Process::spawn(traffic::command(bed.client())?.args(send_for(sink.address, 6_000_000, "60")))?;
    traffic::ready(&sender)?;
    let subject = Subject::Process(ProcessId::running(sender.pid().cast_signed())?);
    let mut limits = Inside::alone(&bed)?;
    work(&bed, &subject, &mut limits)
}

#[test]
fn a_change_lets_no_burst_through() -> anyhow::Result<()> {
    with_sender(|bed, subject, limits| {
        limits.set(subject, Some(1_000_000), None)?;
        std::thread::sleep(Duration::from_millis(300));
        for (from, to) in [(1e6, 2e6), (2e6, 500e3), (500e3, 500e3), (500e3, 4e6), (4e6, 1e6)] {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
            let rate = to as u64;
            let tenths = tenths(&Meter::uploads(bed)?, 3, 5, || limits.set(subject, Some(rate), None))?;
            println!("{from} to {to}: {tenths:?}");
            // A sender that was late may make up for it within its limit, by less than what a full bucket holds.
            let mut sum = 0.0;
            for (bytes, allowed) in tenths[3..].iter().zip([0.2, 0.3, 0.4, 0.5, 0.6]) {
                sum += bytes;
                assert!(sum < allowed * f64::max(from, to), "{from} to {to}: {tenths:?}");
            }
            assert_held(tenths[4..].iter().sum::<f64>() * 2.5, to, &format!("{from} to {to}"));
        }
        Ok(())
    })
}

#[test]
fn a_change_lets_no_burst_of_a_download_through() -> anyhow::Result<()> {
    let bed = Testbed::with_path("change", &testbed::Path::round_trip(Duration::from_millis(20)))?;
    let listen = bed.server().socket_address(Family::V4, 0).to_string();
    let source = ["tcp-source", "--listen", &listen, "--seconds", "60"];
    let source = Process::spawn(traffic::command(bed.server())?.args(source))?;
    let from = traffic::ready(&source)?.to_string();
    let receive = ["tcp-receive", "--from", &from];
    let receiver = Process::spawn(traffic::command(bed.client())?.args(receive))?;
    traffic::ready(&receiver)?;
    let subject = Subject::Process(ProcessId::running(receiver.pid().cast_signed())?);
    let mut limits = Inside::with_flow(&bed)?;
    limits.set(&subject, None, Some(4_000_000))?;
    std::thread::sleep(Duration::from_millis(1500));
    for (from, to) in [(4e6, 2e6), (2e6, 4e6), (4e6, 4e6), (4e6, 1e6), (1e6, 2e6)] {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a whole number")]
        let rate = to as u64;
        let meter = Meter::new(bed.client(), "rx")?;
        let tenths = tenths(&meter, 3, 12, || limits.set(&subject, None, Some(rate)))?;
        println!("{from} to {to}: {tenths:?}");
        let most = tenths[3..].iter().copied().fold(0.0, f64::max);
        // A window that comes at once is in one tenth or in the next.
        assert!(most < 0.1 * f64::max(from, to) * 1.6, "{from} to {to}: {tenths:?}");
        let settled = tenths[8..].iter().sum::<f64>() / 0.7;
        assert!((0.8..1.15).contains(&(settled / to)), "{from} to {to}: {settled} B/s at last, {tenths:?}");
    }
    Ok(())
}

#[test]
fn a_debt_is_paid_at_the_new_rate() -> anyhow::Result<()> {
    with_sender(|bed, subject, limits| {
        // One packet is more than a second's worth.
        limits.set(subject, Some(100), None)?;
        std::thread::sleep(Duration::from_millis(300));
        limits.set(subject, Some(1_000_000), None)?;
        holds(bed, 1e6, "after 100 B/s")?;
        Ok(())
    })
}

#[test]
fn a_change_of_the_other_direction_changes_nothing() -> anyhow::Result<()> {
    with_sender(|bed, subject, limits| {
        limits.set(subject, Some(1_000_000), None)?;
        std::thread::sleep(Duration::from_millis(300));
        let meter = Meter::uploads(bed)?;
        for download in 1..=20 {
            limits.set(subject, Some(1_000_000), Some(download * 100_000))?;
            std::thread::sleep(Duration::from_millis(40));
        }
        let (bytes, seconds) = meter.read()?;
        assert_held(bytes / seconds, 1e6, "while the other direction changes");
        Ok(())
    })
}

#[test]
fn a_limit_that_is_taken_away_is_gone() -> anyhow::Result<()> {
    with_sender(|bed, subject, limits| {
        for _ in 0..3 {
            limits.set(subject, Some(0), None)?;
            std::thread::sleep(Duration::from_millis(50));
            let blocked = Meter::rate(bed, Duration::from_millis(300))?;
            assert!(blocked < 10_000.0, "{blocked} B/s through a block");
            limits.set(subject, None, None)?;
            let free = Meter::rate(bed, Duration::from_millis(300))?;
            assert!(free > 5e6, "{free} B/s without a limit");
        }
        Ok(())
    })
}

#[test]
fn limits_of_every_kind_leave_nothing_behind() -> anyhow::Result<()> {
    let bed = Testbed::new("left")?;
    let cgroup = bed.cgroup("left.service")?;
    let cgroup = cgroup.display().to_string();
    let program = traffic::traffic_binary()?.display().to_string();
    let before = KernelState::capture(&bed)?;
    for subject in
        [["--program", &program], ["--unit", "left.service"], ["--cgroup", &cgroup], ["--user", "65534"]]
    {
        let limits = ["--upload-limit", "1M", "--download-limit", "1M"];
        let mut limiter = limit(&bed, &[&subject[..], &limits].concat())?;
        limiter.signal(nix::sys::signal::Signal::SIGTERM)?;
        limiter.wait_timeout(PATIENCE)?;
        before.assert_returns(&bed, PATIENCE)?;
    }
    Ok(())
}
