//! See `chadthrottle::fuzzing::proc`.

#![no_main]

use chadthrottle::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::proc(bytes));
