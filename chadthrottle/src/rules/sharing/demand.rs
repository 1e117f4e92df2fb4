//! What a class wants, by what it has done with what it had. Pure: no clock.
//!
//! It cannot be asked. One that uses what it may use would take more; one that does not has what it wants.

use std::time::Duration;

/// A class that uses this much of what it may would take more, in parts of what it could have used by now.
const GREEDY: f64 = 0.9;
/// One that is known to want more does not any longer when it uses less than this for some looks, or than that once.
const MODEST: f64 = 0.85;
const MODEST_LOOKS: u32 = 3;
const SILENT: f64 = 0.35;
/// One that wants more may have so many times what it uses: TCP takes some time to use more, and until then others can.
const GROWTH: f64 = 4.0;
/// How far above what it uses a class that has enough may go; and between which parts of its room it is left as it is.
const ROOM: f64 = 1.2;
const FITS: std::ops::RangeInclusive<f64> = 0.7..=0.92;
/// A class that uses so much more than at the look before is still growing.
const GROWING: f64 = 1.25;
/// So much of what it sent or was sent did not pass: it would take more.
const PRESSED: f64 = 0.05;
/// What it may have is used some time after it may, in seconds.
const DELAY: f64 = 0.4;

/// What a class did since the last look, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// What passed.
    pub passed: u64,
    /// What did not, because of the limit.
    pub dropped: u64,
}

/// Watches one class in one direction. The default is one that has not begun.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demand {
    /// Bytes a second at the last look.
    rate: f64,
    /// What it could have used by now, in bytes a second; none before the first look.
    could: Option<f64>,
    is_greedy: bool,
    /// Looks at which one that is greedy was not.
    modest: u32,
    wanted: u64,
}

impl Demand {
    /// What it wants, in bytes a second.
    #[must_use]
    pub const fn wanted(&self) -> u64 {
        self.wanted
    }

    /// Takes in what it did in a time under a limit in bytes a second, and says what it wants.
    pub fn look(&mut self, done: Done, time: Duration, limit: u64) -> u64 {
        let seconds = time.as_secs_f64().max(1e-3);
        let (now, limit) = (real(done.passed) / seconds, real(limit));
        let before = if self.could.is_some() { self.rate } else { now };
        self.rate = now;
        let could = match self.could {
            Some(could) if could < limit => could + (limit - could) * (seconds / DELAY).min(1.0),
            _ => limit,
        };
        self.could = Some(could);
        // One look alone tells little: what passes in bursts is counted by bursts.
        let rate = f64::midpoint(now, before);
        let is_pressed = real(done.dropped) > PRESSED * real(done.passed);
        let is_silent = rate < SILENT * could;
        let was_greedy = std::mem::replace(&mut self.is_greedy, false);
        self.is_greedy = is_pressed
            || if was_greedy {
                self.is_still_greedy(now > GROWING * before, rate >= MODEST * could, is_silent)
            } else {
                // One that was silent is known by its first look.
                rate >= GREEDY * could || (before < SILENT * could && now >= GREEDY * could)
            };
        if self.is_greedy {
            let offered = now + real(done.dropped) / seconds;
            self.wanted = whole(GROWTH * offered.max(before));
        } else if was_greedy && is_silent {
            self.wanted = whole(ROOM * rate.min(now));
        } else if was_greedy || !FITS.contains(&(rate / real(self.wanted))) {
            self.wanted = whole(ROOM * rate);
        }
        self.wanted
    }

    const fn is_still_greedy(&mut self, is_growing: bool, uses_it: bool, is_silent: bool) -> bool {
        self.modest = if is_growing || uses_it { 0 } else { self.modest + 1 };
        let stays = self.modest == 0 || (self.modest < MODEST_LOOKS && !is_silent);
        if !stays {
            self.modest = 0;
        }
        stays
    }
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
const fn real(bytes: u64) -> f64 {
    bytes as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate that was counted")]
const fn whole(rate: f64) -> u64 {
    rate as u64
}
