//! The scenarios on the monitors that do not have them all right: which they have. `docs/MONITORING.md` says why not
//! the others.

use std::panic::{AssertUnwindSafe, catch_unwind};

use anyhow::anyhow;
use testbed::is_emulated;

use crate::{SCENARIOS, backend::Backend};

/// Those that these monitors have right by what they are, and not by chance: some others they have right when they look
/// at the right moment, or when nothing else runs.
const PNET: [u8; 19] = [1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15, 16, 17, 19, 21, 23, 24, 30];
const SOCK_DIAG: [u8; 12] = [1, 2, 6, 11, 13, 14, 15, 16, 17, 21, 24, 30];
/// How often one of those is tried before it counts as broken.
const ATTEMPTS: u32 = 3;
/// On an emulated machine two thousand connections come and go faster than `pnet` finds out whose they are: their bytes are
/// counted, for nobody.
const ONLY_IN_TIME: u8 = 12;
/// Those without TCP.
const NO_TCP: [u8; 7] = [3, 4, 5, 7, 18, 19, 29];

#[test]
fn pnet() -> anyhow::Result<()> {
    has_right(Backend::Pnet, &PNET, &[])
}

#[test]
fn sock_diag() -> anyhow::Result<()> {
    has_right(Backend::SockDiag, &SOCK_DIAG, &NO_TCP)
}

/// Tries every scenario, prints how each went, and fails where one does not hold that is on the list.
fn has_right(backend: Backend, required: &[u8], left_out: &[u8]) -> anyhow::Result<()> {
    let is_required = |number: u8| required.contains(&number) && !(is_emulated() && number == ONLY_IN_TIME);
    let mut numbers: Vec<u8> = SCENARIOS.iter().map(|(number, ..)| *number).collect();
    numbers.dedup();
    numbers.retain(|number| !left_out.contains(number));
    let (mut table, mut broken, mut right) = (Vec::new(), Vec::new(), 0);
    for number in numbers {
        // What these have right by what they are they may miss when something else has the CPU.
        let attempts = if is_required(number) { ATTEMPTS } else { 1 };
        let mut misses = misses(backend, number);
        for _ in 1..attempts {
            if !misses.is_empty() {
                misses = self::misses(backend, number);
            }
        }
        let is_right = misses.is_empty();
        right += usize::from(is_right);
        table.push(format!("{number:>2} {}", if is_right { "right".into() } else { misses.join("; ") }));
        if !is_right && is_required(number) {
            broken.push(number);
        }
    }
    println!("{}: {right} of {}\n{}", backend.name(), table.len(), table.join("\n"));
    anyhow::ensure!(broken.is_empty(), "{} no longer has these right: {broken:?}", backend.name());
    Ok(())
}

/// What is not right in a scenario, which may have several parts.
fn misses(backend: Backend, number: u8) -> Vec<String> {
    let parts = SCENARIOS.iter().filter(|(other, ..)| *other == number);
    parts
        .filter_map(|(_, name, scenario)| {
            // What a scenario does not expect may be what a monitor does not do.
            let result = catch_unwind(AssertUnwindSafe(|| scenario(backend)));
            let error = result.unwrap_or_else(|_| Err(anyhow!("it panicked"))).err()?;
            Some(format!("{name}: {error:#}"))
        })
        .collect()
}
