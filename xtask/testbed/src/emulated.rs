//! Machines that are slower than any that people have: those that `cargo xtask vm` boots without KVM.
//!
//! What they excuse is said here and nowhere else: how fast something has to be, and how soon. Upper bounds of limits,
//! counts and what is left behind are the same everywhere.

use std::{env, sync::OnceLock, time::Duration};

/// Set for the tests in such a machine.
pub const EMULATED_VARIABLE: &str = "CHADTHROTTLE_TEST_EMULATED";

/// How many times as long as elsewhere something may take.
const PATIENCE: u32 = 8;
/// Which part of a rate without a limit has to be reached.
const SPEED: f64 = 0.4;

/// Whether this is one.
pub fn is_emulated() -> bool {
    static EMULATED: OnceLock<bool> = OnceLock::new();
    *EMULATED.get_or_init(|| env::var_os(EMULATED_VARIABLE).is_some_and(|value| value == "1"))
}

/// How long to wait here for what takes at most `elsewhere` on other machines.
#[must_use]
pub fn patience(elsewhere: Duration) -> Duration {
    if is_emulated() { elsewhere * PATIENCE } else { elsewhere }
}

/// The rate that is free of limits here where it is `elsewhere` on other machines, in bytes a second.
#[must_use]
pub fn at_least(elsewhere: f64) -> f64 {
    if is_emulated() { elsewhere * SPEED } else { elsewhere }
}
