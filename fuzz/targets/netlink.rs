//! See `chadthrottle::fuzzing::netlink`.

#![no_main]

use chadthrottle::fuzzing;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::netlink(bytes));
