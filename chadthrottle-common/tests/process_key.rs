//! A process in one word.

use chadthrottle_common::ProcessKey;
use proptest::prelude::*;

proptest! {
    #[test]
    fn a_key_gives_back_what_it_was_made_from(tgid in 0..1_u32 << 22, start_time in 0..1_u64 << 42) {
        let key = ProcessKey::new(tgid, start_time);
        prop_assert_eq!((key.tgid(), key.start_time()), (tgid, start_time));
    }

    #[test]
    fn two_processes_never_share_a_key(
        one in (0..1_u32 << 22, 0..1_u64 << 42), two in (0..1_u32 << 22, 0..1_u64 << 42),
    ) {
        prop_assert_eq!(ProcessKey::new(one.0, one.1) == ProcessKey::new(two.0, two.1), one == two);
    }
}
