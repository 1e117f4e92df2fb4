//! One cap for several subjects. Pure.
//!
//! A subject has a limit of its own in the kernel. Where a rule covers several that are to share its cap, each has a part
//! of it, and the parts come to the cap: nobody ever has more together. Parts follow who needs them each second, so that
//! one who is alone has nearly all of it.

/// What a subject had, and what it made of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Part {
    /// Its limit, in bytes a second. None where it has had none yet.
    pub limit: Option<u64>,
    /// What it offered, in bytes a second: what passed and what was held back.
    pub used: u64,
}

/// Of a cap that is divided evenly, an idle subject keeps this part, for its first second of traffic.
const RESERVE: u64 = 8;
/// Changes below a tenth are not worth the disturbance.
const TOLERANCE: u64 = 10;

/// The limits of some subjects under one cap, in bytes a second. They come to the cap, unless that is less than a byte a
/// second for each, and are what they were where that is good enough.
#[must_use]
pub fn split(cap: u64, parts: &[Part]) -> Vec<u64> {
    let count = parts.len() as u64;
    if count <= 1 || cap == 0 {
        return vec![cap; parts.len()];
    }
    let reserve = (cap / count / RESERVE).max(1);
    let demand = |part: &Part| match part.limit {
        // Who uses most of what it may would use more.
        Some(limit) if part.used < limit - limit / 5 => (part.used * 2).max(reserve).min(cap),
        Some(_) => cap,
        None => reserve,
    };
    let demands: Vec<u64> = parts.iter().map(demand).collect();
    let wanted = filled(cap, &demands);
    let now: Option<Vec<u64>> = parts.iter().map(|part| part.limit).collect();
    match now {
        Some(now) if now.iter().sum::<u64>() <= cap && all_near(&now, &wanted) => now,
        _ => wanted,
    }
}

fn all_near(now: &[u64], wanted: &[u64]) -> bool {
    now.iter().zip(wanted).all(|(now, wanted)| now.abs_diff(*wanted) <= wanted / TOLERANCE)
}

/// Everybody gets what they want, but nobody more than those who get less than they want; what is left is for all.
fn filled(cap: u64, demands: &[u64]) -> Vec<u64> {
    let mut order: Vec<usize> = (0..demands.len()).collect();
    order.sort_by_key(|&index| demands[index]);
    let mut shares = vec![0; demands.len()];
    let mut left = cap;
    for (place, &index) in order.iter().enumerate() {
        let others = (demands.len() - place) as u64;
        shares[index] = demands[index].min(left / others).max(1);
        left = left.saturating_sub(shares[index]);
    }
    // What nobody asked for goes to those who asked for most: they may want more in a moment.
    for (place, &index) in order.iter().rev().enumerate() {
        let more = left.div_ceil((order.len() - place) as u64);
        shares[index] += more;
        left -= more;
    }
    shares
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CAP: u64 = 1_000_000;

    fn part(limit: u64, used: u64) -> Part {
        Part { limit: Some(limit), used }
    }

    #[test]
    fn one_alone_has_all_of_it_and_new_ones_the_same_each() {
        assert_eq!(split(CAP, &[Part::default()]), [CAP]);
        assert_eq!(split(CAP, &[Part::default(); 4]), [CAP / 4; 4]);
        assert_eq!(split(0, &[Part::default(); 2]), [0, 0], "blocked");
    }

    #[test]
    fn the_busy_one_gets_what_others_leave() {
        let shares = split(CAP, &[part(500_000, 500_000), part(500_000, 0)]);
        assert!(shares[0] > CAP * 9 / 10, "{shares:?}");
        // And when the other one wants its part, both have the same.
        let shares = split(CAP, &[part(shares[0], shares[0]), part(shares[1], shares[1] * 3)]);
        assert_eq!(shares, [CAP / 2, CAP / 2]);
    }

    #[test]
    fn small_changes_are_left_out() {
        let parts = [part(505_000, 505_000), part(495_000, 495_000)];
        assert_eq!(split(CAP, &parts), [505_000, 495_000]);
        let over = [part(520_000, 520_000), part(495_000, 495_000)];
        assert_eq!(split(CAP, &over).iter().sum::<u64>(), CAP, "never more than the cap");
    }

    proptest! {
        #[test]
        fn parts_come_to_the_cap_and_nobody_is_blocked(
            cap in 1_000..1_000_000_000_u64,
            parts in proptest::collection::vec((proptest::option::of(1..1_000_000_u64), 0..10_000_000_u64), 2..40),
        ) {
            let parts: Vec<Part> = parts.into_iter().map(|(limit, used)| Part { limit, used }).collect();
            let shares = split(cap, &parts);
            prop_assert!(shares.iter().all(|share| *share > 0));
            prop_assert!(shares.iter().sum::<u64>() <= cap);
            let kept = parts.iter().zip(&shares).all(|(part, share)| part.limit == Some(*share));
            prop_assert!(kept || shares.iter().sum::<u64>() == cap);
        }
    }
}
