use std::time::Duration;

use proptest::prelude::*;

use super::{
    demand::{Demand, Done},
    *,
};

const LINK: u64 = 10_000_000;
const LOOK: Duration = Duration::from_millis(200);

const fn class(guaranteed: u64, priority: u8, weight: u32, wanted: u64) -> Class {
    Class { guaranteed, ceiling: LINK, priority, weight, wanted }
}

const ALL: Class = class(0, 4, 1, LINK);
const IDLE: Class = class(0, 4, 1, 0);

fn is_near(share: u64, expected: u64) -> bool {
    share.abs_diff(expected) <= LINK / 40
}

#[test]
fn one_alone_has_nearly_all_and_two_the_same() {
    let shares = divide(LINK, &[ALL, IDLE]);
    assert!(is_near(shares[0], LINK) && shares[1] > 0, "{shares:?}");
    assert_eq!(divide(LINK, &[ALL, ALL]), [LINK / 2, LINK / 2]);
    assert_eq!(divide(LINK, &[IDLE, IDLE]), [LINK / 2, LINK / 2], "whoever begins has it already");
    assert_eq!(divide(LINK, &[]), Vec::<u64>::new());
}

#[test]
fn weights_guarantees_and_priorities() {
    let weighted = divide(LINK, &[ALL, class(0, 4, 3, LINK)]);
    assert!(is_near(weighted[0], LINK / 4) && is_near(weighted[1], LINK / 4 * 3), "{weighted:?}");
    let guaranteed = divide(LINK, &[class(8_000_000, 4, 1, LINK), ALL]);
    assert!(is_near(guaranteed[0], 8_000_000) && is_near(guaranteed[1], 2_000_000), "{guaranteed:?}");
    let [first, rest] = [class(0, 1, 1, 3_000_000), class(0, 7, 1, LINK)];
    let shares = divide(LINK, &[first, rest]);
    assert!(
        is_near(shares[0], 3_000_000) && is_near(shares[1], 7_000_000),
        "backup gets the rest: {shares:?}"
    );
    let shares = divide(LINK, &[class(0, 1, 1, LINK), class(1_000_000, 7, 1, LINK)]);
    assert!(is_near(shares[1], 1_000_000), "but what is guaranteed it has: {shares:?}");
}

#[test]
fn a_ceiling_is_never_passed_and_what_it_leaves_is_lent() {
    let low = Class { ceiling: 1_000_000, ..ALL };
    assert_eq!(divide(LINK, &[low, ALL]), [1_000_000, 9_000_000]);
    assert_eq!(divide(LINK, &[low, low]), [1_000_000, 1_000_000]);
    let blocked = Class { ceiling: 0, ..ALL };
    assert_eq!(divide(LINK, &[blocked, ALL]), [0, LINK]);
}

/// Classes that use what they want of what they have, at once or growing from look to look.
struct Simulated {
    link: u64,
    classes: Vec<Class>,
    demands: Vec<Demand>,
    shares: Vec<u64>,
    used: Vec<u64>,
    grows: bool,
}

impl Simulated {
    fn new(link: u64, classes: &[Class], grows: bool) -> Self {
        let idle: Vec<Class> = classes.iter().map(|class| Class { wanted: 0, ..*class }).collect();
        let count = classes.len();
        let shares = divide(link, &idle);
        Self {
            link,
            classes: idle,
            demands: vec![Demand::default(); count],
            shares,
            used: vec![0; count],
            grows,
        }
    }

    /// One look later, where each wants so much. `noise` is how far what is counted is from what is used, in percent.
    fn look(&mut self, wants: &[u64], noise: &[i64]) {
        for (index, want) in wants.iter().enumerate() {
            let mut used = (*want).min(self.shares[index]);
            if self.grows {
                used = used.min((self.used[index] * 4).max(self.link / 40));
            }
            self.used[index] = used;
            let counted = used.saturating_add_signed(
                i64::try_from(used).expect("small") * noise.get(index).unwrap_or(&0) / 100,
            );
            let done = Done { passed: counted / 5, dropped: 0 };
            self.classes[index].wanted = self.demands[index].look(done, LOOK, self.shares[index]);
        }
        self.shares = divide(self.link, &self.classes);
        assert!(self.shares.iter().sum::<u64>() <= self.link, "{:?}", self.shares);
    }

    fn sum(&self) -> u64 {
        self.used.iter().sum()
    }
}

#[test]
fn one_that_begins_has_its_share_within_five_looks_and_the_sum_stays() {
    for grows in [false, true] {
        let mut two = Simulated::new(LINK, &[ALL, ALL], grows);
        for _ in 0..15 {
            two.look(&[LINK, 0], &[]);
        }
        assert!(two.sum() > LINK / 100 * 97, "{}", two.sum());
        for look in 0..5 {
            two.look(&[LINK, LINK], &[]);
            assert!(grows || two.sum() >= LINK / 100 * 95, "{look}: {:?}", two.used);
        }
        assert_eq!(two.shares, [LINK / 2, LINK / 2], "grows: {grows}");
        // And back.
        for _ in 0..5 {
            two.look(&[LINK, 0], &[]);
        }
        assert!(two.shares[0] > LINK / 100 * 97, "{:?}", two.shares);
    }
}

#[test]
fn what_stays_the_same_changes_no_limit_also_where_counts_are_rough() {
    let mut three = Simulated::new(LINK, &[ALL, class(0, 7, 1, LINK), ALL], false);
    let wants = [2_000_000, LINK, 0];
    for _ in 0..10 {
        three.look(&wants, &[]);
    }
    let before = three.shares.clone();
    assert!(three.sum() > LINK / 100 * 93, "{:?}", three.used);
    for round in 0..50 {
        let rough = if round % 3 == 0 { -7 } else { 4 };
        three.look(&wants, &[rough, -rough]);
        assert_eq!(three.shares, before, "{round}");
    }
}

#[test]
fn one_that_is_dropped_wants_more() {
    let mut demand = Demand::default();
    demand.look(Done { passed: 100, dropped: 0 }, LOOK, 1_000_000);
    assert_eq!(demand.wanted(), 600);
    demand.look(Done { passed: 10_000, dropped: 50_000 }, LOOK, 1_000_000);
    assert!(demand.wanted() > 1_000_000, "as much as it offers");
}

fn some_class() -> impl Strategy<Value = Class> {
    let wanted = prop_oneof![Just(LINK), 0..2 * LINK];
    (0..=LINK, 0..=LINK, 1..=7_u8, 1..=1000_u32, wanted).prop_map(
        |(guaranteed, ceiling, priority, weight, wanted)| Class {
            guaranteed: guaranteed.min(ceiling),
            ceiling,
            priority,
            weight,
            wanted,
        },
    )
}

proptest! {
    #[test]
    fn shares_come_to_the_link_and_never_to_more(
        link in 100_000..100 * LINK,
        classes in proptest::collection::vec(some_class(), 1..20),
    ) {
        let shares = divide(link, &classes);
        let sum: u64 = shares.iter().sum();
        prop_assert!(sum <= link);
        let most: u64 = classes.iter().map(|class| class.ceiling).sum();
        let rounding: u64 = classes.iter().map(|class| u64::from(class.weight)).sum();
        prop_assert!(sum + rounding >= link.min(most), "{} of {} is lent", sum, link.min(most));
        for (share, class) in shares.iter().zip(&classes) {
            prop_assert!(*share <= class.ceiling && (*share > 0 || class.ceiling == 0));
        }
    }

    /// What is guaranteed and wanted everybody has, where it can be.
    #[test]
    fn guarantees_are_kept(mut classes in proptest::collection::vec(some_class(), 1..20)) {
        let count = classes.len() as u64;
        for class in &mut classes {
            class.guaranteed /= count;
        }
        for (share, class) in divide(LINK, &classes).iter().zip(&classes) {
            let wanted = class.guaranteed.min(class.wants());
            prop_assert!(*share + LINK / RESERVE + 1 >= wanted, "{} of {}", share, wanted);
        }
    }

    /// Nobody has more than the reserve and what is guaranteed while one of an earlier priority wants more.
    #[test]
    fn earlier_priorities_come_first(classes in proptest::collection::vec(some_class(), 2..20)) {
        let shares = divide(LINK, &classes);
        let unmet = classes.iter().zip(&shares).filter(|(class, share)| {
            **share + u64::from(class.weight) < class.wants()
        });
        let Some(first) = unmet.map(|(class, _)| class.priority).min() else { return Ok(()) };
        let rounding: u64 = classes.iter().map(|class| u64::from(class.weight)).sum();
        for (share, class) in shares.iter().zip(&classes).filter(|(_, class)| class.priority > first) {
            let least = class.guaranteed.max(reserve(LINK, classes.len()));
            prop_assert!(*share <= least.max(1) + rounding, "{} of priority {}", share, class.priority);
        }
    }

    /// Whatever they want, in five looks everybody has what they are to have by it, and all of the link is used that is
    /// wanted, but for the room of those that have enough.
    #[test]
    fn it_settles_in_five_looks(
        wants in proptest::collection::vec(prop_oneof![Just(0), Just(LINK), LINK / 20..LINK], 2..6),
    ) {
        let mut all = Simulated::new(LINK, &vec![ALL; wants.len()], false);
        for _ in 0..5 {
            all.look(&wants, &[]);
        }
        let wanted = wants.iter().sum::<u64>().min(LINK);
        let used: u64 = wants.iter().zip(&all.shares).map(|(want, share)| *want.min(share)).sum();
        prop_assert!(used >= wanted / 100 * 78, "{} of {}: {:?}", used, wanted, all.shares);
    }
}
