//! The limiter's arithmetic in the kernel is the host's: the same functions, compiled twice, asked the same at random.

use std::cell::Cell;

use aya::{
    EbpfLoader,
    programs::{SchedClassifier, TestRun as _, TestRunOptions},
};
use chadthrottle_common::{
    clock::NS_PER_SEC,
    question::{Answer, QUESTION_AT, Question},
};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

static OBJECT: &[u8] = aya::include_bytes_aligned!(env!("CHADTHROTTLE_EBPF_OBJECT"));

/// A type of packet that the kernel does not look into (IEEE Std 802, local experimental).
const ETHERTYPE: [u8; 2] = [0x88, 0xb5];

fn words<const COUNT: usize>(question: &[u64; COUNT]) -> Vec<u8> {
    question.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// Asks the program.
fn ask(program: &SchedClassifier, question: &Question) -> anyhow::Result<Answer> {
    let mut packet = vec![0; QUESTION_AT];
    packet[QUESTION_AT - 2..].copy_from_slice(&ETHERTYPE);
    let Question { rate_bps, burst_ns, since_ns, debt_ns, clock_ns, datagram_clock_ns, now_ns, bytes } =
        *question;
    let asked = [rate_bps, burst_ns, since_ns, debt_ns, clock_ns, datagram_clock_ns, now_ns, bytes];
    packet.extend(words(&asked));
    let at = packet.len();
    packet.resize(at + size_of::<Answer>(), 0xee);
    let mut answered = vec![0; packet.len()];
    let options =
        TestRunOptions { data_in: Some(&packet), data_out: Some(&mut answered), ..TestRunOptions::new() };
    let result = program.test_run(options)?;
    anyhow::ensure!(result.return_value == 0, "the program did not understand");
    let mut words = answered[at..].chunks_exact(8).map(|word| word.try_into().map(u64::from_ne_bytes));
    let mut next = || Ok::<_, anyhow::Error>(words.next().transpose()?.unwrap_or_default());
    Ok(Answer {
        admission: next()?,
        floor_ns: next()?,
        cost_ns: next()?,
        has_passed: next()?,
        clock_ns: next()?,
        departs_ns: next()?,
    })
}

/// Of every magnitude alike, and the ends.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => (0_u32..64, any::<u64>()).prop_map(|(shift, number)| number >> shift),
        1 => Just(0),
        1 => Just(u64::MAX),
    ]
}

/// What there is in earnest: times near each other, and what is just enough or just too much.
fn likely() -> impl Strategy<Value = Question> {
    let hour = 3600 * NS_PER_SEC;
    let near = -2_000_000_000_i64..2_000_000_000;
    (
        0..100_000_000_000_u64,
        0..NS_PER_SEC,
        0..NS_PER_SEC,
        hour..1000 * hour,
        near.clone(),
        near.clone(),
        near,
        0..140_000_u64,
    )
        .prop_map(|(rate_bps, burst_ns, debt_ns, now_ns, since, clock, datagram_clock, bytes)| {
            Question {
                rate_bps,
                burst_ns,
                since_ns: now_ns.saturating_add_signed(since),
                debt_ns,
                clock_ns: now_ns.saturating_add_signed(clock),
                datagram_clock_ns: now_ns.saturating_add_signed(datagram_clock),
                now_ns,
                bytes,
            }
        })
}

fn anything() -> impl Strategy<Value = Question> {
    (number(), number(), number(), number(), number(), number(), number(), number()).prop_map(
        |(rate_bps, burst_ns, since_ns, debt_ns, clock_ns, datagram_clock_ns, now_ns, bytes)| Question {
            rate_bps,
            burst_ns,
            since_ns,
            debt_ns,
            clock_ns,
            datagram_clock_ns,
            now_ns,
            bytes,
        },
    )
}

#[test]
fn the_kernel_answers_as_the_host_does() -> anyhow::Result<()> {
    testbed::require_root()?;
    let mut object = EbpfLoader::new().load(OBJECT)?;
    let program = object.program_mut("limit_answers").expect("the object has it");
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    let seen: [Cell<u32>; 3] = Default::default();
    // At once, later, never.
    let departures: [Cell<u32>; 3] = Default::default();
    for questions in [likely().boxed(), anything().boxed()] {
        let mut runner = TestRunner::new(Config { failure_persistence: None, ..Config::with_cases(10_000) });
        runner.run(&questions, |question| {
            let answer = ask(program, &question).map_err(|error| TestCaseError::fail(error.to_string()))?;
            prop_assert_eq!(answer, question.answer());
            let count = &seen[usize::try_from(answer.admission).unwrap_or(3)];
            count.set(count.get() + 1);
            let count = match answer.departs_ns {
                u64::MAX => &departures[2],
                departs_ns => &departures[usize::from(departs_ns > question.now_ns)],
            };
            count.set(count.get() + 1);
            Ok(())
        })?;
    }
    // Each kind of answer was given often.
    assert!(seen.iter().all(|count| count.get() > 500), "{seen:?}");
    assert!(departures.iter().all(|count| count.get() > 200), "{departures:?}");
    Ok(())
}
