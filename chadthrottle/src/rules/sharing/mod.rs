//! One link for several classes: who may have how much of it now. Pure.
//!
//! It is what HTB's classes do under one parent: each is guaranteed a rate, and what others leave is lent, first to those
//! of the first priority, and among them by weight. But it is done by the limits that each has, a few times a second
//! (docs/adr/0005-links-by-limits.md): so it is the same with every backend.

pub mod demand;

/// Of a link, those that want nothing keep this part together, so that their first packets are quick and it is seen when
/// they begin.
const RESERVE: u64 = 40;

/// A class of a link in one direction. Rates are bytes a second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// What it has as soon as it wants it.
    pub guaranteed: u64,
    /// What it may have at most. 0 blocks.
    pub ceiling: u64,
    /// Who comes first when something is left: the lowest.
    pub priority: u8,
    /// Among those of one priority.
    pub weight: u32,
    /// What it wants, with room to grow.
    pub wanted: u64,
}

impl Class {
    fn wants(&self) -> u64 {
        self.wanted.min(self.ceiling)
    }
}

/// What each class may have of a link, in bytes a second. Together that is never more than the link, unless that is less
/// than a byte for each, and just as much where they may have it (but for the rounding): what nobody wants is lent too.
#[must_use]
pub fn divide(link: u64, classes: &[Class]) -> Vec<u64> {
    let reserve = reserve(link, classes.len());
    let mut shares: Vec<u64> = classes.iter().map(|class| reserve.min(class.ceiling)).collect();
    guarantee(link, classes, &mut shares);
    let mut priorities: Vec<u8> = classes.iter().map(|class| class.priority).collect();
    priorities.sort_unstable();
    priorities.dedup();
    for priority in priorities {
        let of_it = |class: &Class| class.priority == priority;
        raise(link, classes, &mut shares, |class| if of_it(class) { class.wants() } else { 0 });
    }
    // Nobody asked for it, and whoever begins in a moment has it already.
    raise(link, classes, &mut shares, |class| class.ceiling);
    shares
}

/// What each has at least. One of them is taken to be busy, which has that in what it uses.
fn reserve(link: u64, classes: usize) -> u64 {
    (link / RESERVE / (classes as u64).saturating_sub(1).max(1)).max(1)
}

/// Gives everybody what is guaranteed and wanted. Where that is more than there is, all have the same part of it.
fn guarantee(link: u64, classes: &[Class], shares: &mut [u64]) {
    let missing = |class: &Class, share: u64| class.guaranteed.min(class.wants()).saturating_sub(share);
    let left = link.saturating_sub(shares.iter().sum());
    let all: u64 = classes.iter().zip(&*shares).map(|(class, share)| missing(class, *share)).sum();
    for (class, share) in classes.iter().zip(shares) {
        let missing = missing(class, *share);
        *share += if all > left { mul_div(missing, left, all) } else { missing };
    }
}

/// Gives what is left to those who have less than `want`, the lowest by weight first, until it is used up.
fn raise(link: u64, classes: &[Class], shares: &mut [u64], want: impl Fn(&Class) -> u64) {
    let left = link.saturating_sub(shares.iter().sum());
    let at = |level: u64, class: &Class, share: u64| {
        level.saturating_mul(class.weight.into()).min(want(class)).max(share)
    };
    let added = |level: u64| -> u64 {
        classes.iter().zip(&*shares).map(|(class, share)| at(level, class, *share) - share).sum()
    };
    // The highest level at which it is enough. At this one each has all that it may.
    let (mut low, mut high) = (0, link.saturating_add(1));
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if added(middle) <= left { low = middle } else { high = middle }
    }
    for (class, share) in classes.iter().zip(shares) {
        *share = at(low, class, *share);
    }
}

fn mul_div(one: u64, other: u64, by: u64) -> u64 {
    u64::try_from(u128::from(one) * u128::from(other) / u128::from(by.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
