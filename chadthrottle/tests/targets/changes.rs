//! A limit that is set, changed and taken away while its target is busy.

use std::time::{Duration, Instant};

use chadthrottle::{backends::throttle::Subject, process::ProcessId};
use testbed::{Family, KernelState, Process, Testbed, traffic};

use crate::{
    inside::Inside,
    rig::{Meter, Sink, assert_held, holds, limit, send_for},
    support::PATIENCE,
};

/// Bytes, by when in seconds: each tenth of a second or later, the first time just before a change is done.
struct Passed(Vec<(f64, f64)>);

impl Passed {
    /// What passes a meter from now on, in so many tenths of a second.
    fn watch(
        meter: &Meter<'_>,
        tenths: u32,
        change: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        let point = || meter.read().map(|(bytes, seconds)| (seconds, bytes));
        let mut points = vec![point()?];
        let start = Instant::now();
        change()?;
        for tenth in 1..=tenths {
            let due = start + Duration::from_millis(100) * tenth;
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            points.push(point()?);
        }
        Ok(Self(points))
    }

    /// That at no time since the change there was more than this rate allows, but for a tenth of a second's worth: a
    /// sender that was late makes up for it, by less than a full bucket holds.
    fn check_no_burst(&self, rate: f64, what: &str) {
        let (start, before) = self.0[0];
        for &(seconds, bytes) in &self.0[1..] {
            assert!(bytes - before < rate * (seconds - start + 0.1), "{what}: {:?}", self.0);
        }
    }

    /// Bytes a second from this point on.
    fn rate_after(&self, point: usize) -> f64 {
        let ((from, before), &(to, bytes)) = (self.0[point], self.0.last().expect("there are points"));
        (bytes - before) / (to - from)
    }
}

/// A sender of datagrams at 6 MB/s, and its limits.
fn with_sender(
    work: impl FnOnce(&Testbed, &Subject, &mut Inside<'_>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let bed = Testbed::new("change")?;
    let sink = Sink::start(bed.server(), Family::V4)?;
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
            let passed = Passed::watch(&Meter::uploads(bed)?, 6, || limits.set(subject, Some(rate), None))?;
            passed.check_no_burst(f64::max(from, to), &format!("{from} to {to}"));
            assert_held(passed.rate_after(2), to, &format!("{from} to {to}"));
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
        let passed = Passed::watch(&meter, 12, || limits.set(&subject, None, Some(rate)))?;
        passed.check_no_burst(f64::max(from, to), &format!("{from} to {to}"));
        let settled = passed.rate_after(5) / to;
        println!("{from} to {to}: {settled:.3} of the limit at last");
        assert!(
            (0.7..1.2).contains(&settled),
            "{from} to {to}: {settled:.3} of the limit at last, {:?}",
            passed.0
        );
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
