//! What is sent: super-packets at the pace of their sockets.

use super::super::{
    Behind,
    control::{Control, Pace, Seen},
    smooth::real,
};

/// Milliseconds from one tick to the next.
const TICK: u64 = 50;
/// What leaves at once on round trips below 2 ms, however low the pace (`tcp_tso_autosize`, `net/ipv4/tcp_output.c`).
const BURST: u64 = 64_500;

/// A connection on one host's own paths that has more to send, and what it has done within a tick.
fn sender(socket: u64, bytes: u64) -> Seen {
    Seen {
        socket,
        dt: real(TICK) / 1e3,
        bytes,
        refused: 0,
        round_trip: 5e-5,
        least_trip: 5e-5,
        window: u32::MAX,
        ahead: None,
        unit: 1,
        is_waiting: true,
        segment: (1.0, 1.0),
        burst: real(BURST),
    }
}

#[test]
fn super_packets_that_are_far_apart_are_not_taken_for_a_slow_program() {
    // Eight senders on one host's own paths, each with 125,000 bytes a second in bursts of half a second, by turns.
    let mut control: Control<Pace> = Control::new(1_000_000);
    (0..8).for_each(|socket| control.admit(&sender(socket, 1 << 20)));
    for tick in 0..400 {
        let bytes = |socket: u64| if (tick + socket).is_multiple_of(10) { 62_500 } else { 0 };
        let seen: Vec<Seen> = (0..8).map(|socket| sender(socket, bytes(socket))).collect();
        control.tick(0.05, &seen, Behind::default());
        if tick > 100 {
            for socket in 0..8 {
                let pace = real(control.value(socket).unwrap_or_default());
                assert!((100_000.0..150_000.0).contains(&pace), "{pace} of {socket} at {tick}");
            }
        }
    }
}

#[test]
fn what_was_refused_and_is_offered_again_is_not_held_against_a_sender() {
    // One connection; each tick it offers a super-packet, and every twentieth is taken.
    let pace = |is_told| {
        let mut control: Control<Pace> = Control::new(64_000);
        control.admit(&sender(0, 1 << 20));
        for tick in 0..400 {
            let refused = if is_told && tick % 20 != 0 { 64_500 } else { 0 };
            control.tick(0.05, &[Seen { refused, ..sender(0, 64_500) }], Behind::default());
        }
        real(control.value(0).unwrap_or_default())
    };
    assert!(pace(true) > 60_000.0, "{}", pace(true));
    assert!(pace(false) < 55_000.0, "{}", pace(false));
}

/// A paced connection, in steps of a millisecond.
struct Paced {
    /// Bytes a second by which the kernel reckons: a lower one is taken at once, a higher one with an acknowledgement.
    pace: f64,
    /// When the next super-packet may leave, in milliseconds.
    next: f64,
}

/// The rates of so many connections together, each second of so many, where each would send more.
fn seconds_of(connections: u64, limit: u64, seconds: usize) -> Vec<f64> {
    let mut control: Control<Pace> = Control::new(limit);
    let mut senders = Vec::new();
    for socket in 0..connections {
        control.admit(&sender(socket, 1 << 20));
        senders.push(Paced { pace: f64::INFINITY, next: 0.0 });
    }
    let mut rates = vec![0.0; seconds];
    let mut since = vec![0; senders.len()];
    for now in 0..seconds as u64 * 1000 {
        if now.is_multiple_of(TICK) && now > 0 {
            let seen: Vec<Seen> =
                (0..).zip(&mut since).map(|(socket, bytes)| sender(socket, std::mem::take(bytes))).collect();
            control.tick(real(TICK) / 1e3, &seen, Behind::default());
        }
        for (socket, paced) in (0..).zip(&mut senders) {
            let set = real(control.value(socket).unwrap_or_default());
            paced.pace = paced.pace.min(set);
            if real(now) >= paced.next {
                paced.next = real(now) + real(BURST) / paced.pace * 1e3;
                // It is acknowledged.
                paced.pace = set;
                since[usize::try_from(socket).unwrap_or_default()] += BURST;
                rates[usize::try_from(now / 1000).unwrap_or_default()] += real(BURST);
            }
        }
    }
    rates
}

#[test]
fn super_packets_that_are_far_apart_have_the_whole_limit() {
    for (connections, limit) in [
        (1, 64_000),
        (2, 64_000),
        (8, 256_000),
        (1, 256_000),
        (8, 1_000_000),
        (1, 1_000_000),
        (8, 10_000_000),
    ] {
        let rates = seconds_of(connections, limit, 70);
        // After what came at once when it began.
        let mean = rates[10..].iter().sum::<f64>() / 60.0 / real(limit);
        println!("{connections} at {limit}: {mean:.3}");
        assert!((0.96..1.02).contains(&mean), "{mean} of {limit} with {connections}");
    }
}
