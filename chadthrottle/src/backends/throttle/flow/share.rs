//! How a target's limit is divided among its sockets, by what they want.
//!
//! Water is poured into vessels: each gets as much as the others, and what one cannot hold goes to the rest. What a
//! socket wants cannot be asked; it shows. One that uses what it may use would take more; one that does not has what
//! it wants.

use super::smooth::Smooth;

/// A socket that uses this much of what it may would take more.
const GREEDY: f64 = 0.8;
/// The same of one that has more to send and sends it in bursts that are further apart than one looks: what it has
/// taken is known to a burst only.
const GREEDY_IN_BURSTS: f64 = 0.5;
/// How far above what it takes a contented socket may go.
const ROOM: f64 = 1.25;
/// Rates are means over this many seconds, and over so many round trips.
const MEMORY: f64 = 0.1;
const ROUND_TRIPS: f64 = 2.0;
/// A socket whose rate is this much above its mean over so many times the memory grows.
const GROWING: f64 = 1.3;
const BEFORE: f64 = 4.0;
/// A socket that moves nothing for so many seconds is idle.
const IDLE: f64 = 1.0;

/// A socket that has moved more, in bytes, has begun.
const BEGUN: f64 = 10_000.0;

/// What a socket wants, as far as it shows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Wish {
    /// More than it has.
    More,
    /// What it has: so many bytes a second.
    Enough(f64),
    /// It takes so many bytes a second, and more from round trip to round trip: TCP begins slowly.
    Growing(f64),
    /// Nothing for the moment.
    Nothing,
    /// It has not begun yet.
    New,
}

/// Watches one socket.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Appetite {
    rate: Smooth,
    /// The same, more slowly.
    before: Smooth,
    /// What it could have used by now: a cap that was raised is not felt at once.
    could: f64,
    /// Since it moved anything, in seconds.
    idle: f64,
    age: f64,
    moved: f64,
}

/// What a socket did within `dt` seconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Done {
    /// IP bytes.
    pub(super) bytes: f64,
    pub(super) dt: f64,
    /// Whether it has more than it has sent.
    pub(super) is_waiting: bool,
}

impl Appetite {
    /// A socket that has moved so many bytes before.
    pub(super) fn new(moved: f64) -> Self {
        Self { moved, ..Self::default() }
    }

    /// Whether it has moved enough to tell anything by.
    pub(super) fn has_begun(&self) -> bool {
        self.moved > BEGUN
    }

    /// What it could have used by now, where it may use a cap in bytes a second from now on.
    pub(super) fn could(&self, cap: f64) -> f64 {
        if self.could > 0.0 { self.could.min(cap) } else { cap }
    }

    /// Takes in what it did under a cap. `lump` is how long its cap takes to let one burst
    /// through, in seconds: no rate can be told from less than some of them.
    pub(super) fn add(&mut self, done: Done, cap: f64, round_trip: f64, lump: f64) -> Wish {
        let Done { bytes, dt, is_waiting } = done;
        let memory = MEMORY.max(ROUND_TRIPS * round_trip).max(4.0 * lump);
        let is_bursty = is_waiting && lump > dt;
        if is_bursty && self.age <= 0.0 {
            // It may have sent its burst just before.
            self.rate = Smooth::from(cap);
        }
        let rate = self.rate.add(bytes / dt, dt, memory);
        let before = self.before.add(bytes / dt, dt, BEFORE * memory);
        self.age += dt;
        self.moved += bytes;
        self.idle = if bytes > 0.0 { 0.0 } else { self.idle + dt };
        let late = Smooth::add(&mut Smooth::from(self.could), cap, dt, memory + round_trip);
        self.could = if self.could > 0.0 { late.min(cap) } else { cap };
        if !self.has_begun() {
            Wish::New
        } else if self.idle > IDLE.max(4.0 * lump) || (bytes <= 0.0 && self.rate.get() <= 0.0) {
            Wish::Nothing
        } else if rate >= self.could * if is_bursty { GREEDY_IN_BURSTS } else { GREEDY }
            || self.age < memory + round_trip
        {
            Wish::More
        } else if rate > GROWING * before {
            Wish::Growing(rate)
        } else {
            Wish::Enough(rate)
        }
    }

    /// Bytes a second.
    #[cfg(test)]
    pub(super) fn rate(&self) -> f64 {
        self.rate.get()
    }

    /// Whether it has moved nothing for a while. One that has not begun is not idle.
    pub(super) fn is_idle(&self) -> bool {
        self.idle > IDLE && self.has_begun()
    }
}

/// What each may use at most, in bytes a second. In sum that may be more than the rate: it is what they use that adds
/// up to it, and one that begins to use more is seen, and the others' caps fall, at the next division.
pub(super) fn divide(rate: f64, wishes: &[Wish]) -> Vec<f64> {
    let level = level(rate, wishes);
    let count = |wanted: fn(&Wish) -> bool| wishes.iter().filter(|wish| wanted(wish)).count();
    let modest = count(|wish| matches!(wish, Wish::Enough(_) | Wish::Nothing));
    // Several may begin at the same moment. That all of them do is as unlikely as that none does.
    #[expect(clippy::cast_precision_loss, reason = "fewer than there are descriptors")]
    let waking = level / (modest.max(1) as f64).sqrt();
    // Connections that are opened together begin together, and are as fast as they may be together.
    let part = |of: usize| {
        #[expect(clippy::cast_precision_loss, reason = "fewer than there are descriptors")]
        let part = level.min(rate / of.max(1) as f64);
        part
    };
    let begun = count(|wish| matches!(wish, Wish::More | Wish::Growing(_)));
    let (growing, starting) = (part(begun), part(begun + count(|wish| matches!(wish, Wish::New))));
    let cap = |wish: &Wish| match *wish {
        Wish::More => level,
        Wish::Enough(takes) | Wish::Growing(takes) if takes >= level => level,
        Wish::Growing(takes) => (takes * ROOM).min(level).max(growing),
        Wish::Enough(takes) => (takes * ROOM).min(level).max(waking),
        Wish::Nothing => waking,
        Wish::New => starting,
    };
    wishes.iter().map(cap).collect()
}

/// How high the water stands.
fn level(rate: f64, wishes: &[Wish]) -> f64 {
    let mut enough: Vec<f64> = wishes
        .iter()
        .filter_map(|wish| match wish {
            Wish::Enough(takes) | Wish::Growing(takes) => Some(*takes),
            _ => None,
        })
        .collect();
    enough.sort_by(f64::total_cmp);
    let more = wishes.iter().filter(|wish| matches!(wish, Wish::More)).count();
    let mut left = rate;
    let mut sharing = more + enough.len();
    for takes in &enough {
        #[expect(clippy::cast_precision_loss, reason = "fewer than there are descriptors")]
        let share = left / sharing as f64;
        if *takes > share {
            return share;
        }
        if sharing == 1 {
            // Nobody wants more: the largest may have what is left.
            return left;
        }
        left -= takes;
        sharing -= 1;
    }
    #[expect(clippy::cast_precision_loss, reason = "fewer than there are descriptors")]
    let share = left / sharing.max(1) as f64;
    share
}

impl From<f64> for Smooth {
    fn from(value: f64) -> Self {
        let mut smooth = Self::default();
        smooth.add(value, 1.0, 1.0);
        smooth
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn close(a: f64, b: f64) -> bool {
        (a - b).abs() <= 1e-6 * a.abs().max(b.abs()).max(1.0)
    }

    #[test]
    fn what_one_leaves_the_others_get() {
        use Wish::{Enough, Growing, More, New, Nothing};
        assert_eq!(divide(900.0, &[More, More, More]), [300.0, 300.0, 300.0]);
        let caps = divide(900.0, &[More, Enough(100.0), More]);
        assert_eq!((caps[0], caps[2]), (400.0, 400.0));
        assert!(caps[1] >= 125.0);
        // Two that take more than their part are not as contented as they seem.
        assert_eq!(divide(900.0, &[Enough(500.0), Enough(600.0)]), [450.0, 450.0]);
        // Nobody wants more: any may.
        assert!(close(divide(900.0, &[Enough(100.0), Enough(200.0)])[1], 800.0 / 2_f64.sqrt()));
        assert_eq!(divide(900.0, &[New, New, More]), [300.0, 300.0, 900.0]);
        // Those that grow together may all come to want their part.
        assert_eq!(divide(900.0, &[Growing(10.0), Growing(20.0), Growing(30.0)]), [300.0; 3]);
        assert_eq!(divide(900.0, &[Nothing]), [900.0]);
        assert_eq!(divide(900.0, &[More, Nothing]), [900.0, 900.0]);
        assert!(divide(900.0, &[]).is_empty());
    }

    fn wishes() -> impl Strategy<Value = Vec<Wish>> {
        let wish = prop_oneof![Just(Wish::More), Just(Wish::Nothing), (0.0..1e8_f64).prop_map(Wish::Enough),];
        prop::collection::vec(wish, 1..200)
    }

    proptest! {
        #[test]
        fn nobody_starves_and_what_is_used_is_the_rate(rate in 1e3..1e9_f64, wishes in wishes()) {
            let caps = divide(rate, &wishes);
            let active = wishes.iter().filter(|wish| **wish != Wish::Nothing).count();
            #[expect(clippy::cast_precision_loss, reason = "some hundred")]
            let fair = rate / wishes.len() as f64;
            let mut used = 0.0;
            for (wish, cap) in wishes.iter().zip(&caps) {
                prop_assert!(*cap > 0.0 && *cap <= rate * (1.0 + 1e-9));
                match wish {
                    Wish::More => {
                        prop_assert!(*cap >= fair * (1.0 - 1e-9));
                        used += cap;
                    }
                    Wish::Enough(takes) => {
                        prop_assert!(*cap >= takes.min(fair) * (1.0 - 1e-9));
                        used += takes.min(*cap);
                    }
                    Wish::Nothing | Wish::New | Wish::Growing(_) => {}
                }
            }
            prop_assert!(used <= rate * (1.0 + 1e-9), "{used} of {rate}");
            if wishes.contains(&Wish::More) {
                prop_assert!(close(used, rate), "{used} of {rate} among {active}");
            }
        }
    }
}
