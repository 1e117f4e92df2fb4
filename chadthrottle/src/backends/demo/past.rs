//! What was used on the simulated host before anybody looked: a year of it, the same each time.

use std::sync::{Mutex, OnceLock, PoisonError};

use jiff::tz::TimeZone;

use super::{
    programs::{PROGRAMS, Program, Wish},
    world::{info, mixed, portion},
};
use crate::{
    app::unit::unit,
    history::{
        past::{Asked, Past},
        recorder::{Batch, Who},
        store::{HistoryError, Store},
    },
    stats::Traffic,
};

/// It is always the same Thursday afternoon there: 2026-01-15T14:37:20Z.
const NOW: i64 = 1_768_487_840;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;

/// The history of the simulated host.
pub(super) struct DemoPast(Store);

impl DemoPast {
    /// Reads what is asked for. It is made when somebody asks first, and is the same for all simulated hosts.
    ///
    /// # Errors
    /// When there is no memory for it.
    pub(super) fn look(asked: &Asked) -> Result<Past, String> {
        static MADE: OnceLock<Mutex<Result<DemoPast, HistoryError>>> = OnceLock::new();
        let made = MADE.get_or_init(|| Mutex::new(Self::new()));
        let made = made.lock().unwrap_or_else(PoisonError::into_inner);
        let past = made.as_ref().map_err(ToString::to_string)?;
        Past::read(&past.0, asked, NOW, TimeZone::UTC).map_err(|error| error.to_string())
    }

    fn new() -> Result<Self, HistoryError> {
        let mut store = Store::in_memory()?;
        let mut all = Batch::default();
        // As finely as each time is looked at.
        for (step, from, to) in [(MINUTE, 0, HOUR), (HOUR, HOUR, 8 * DAY), (DAY, 8 * DAY, 365 * DAY)] {
            let mut ago = from;
            while ago < to {
                let time = NOW - ago;
                for program in PROGRAMS.iter().filter(|program| program.is_seen()) {
                    add(&mut all, program, time - time % MINUTE, step);
                }
                ago += step;
            }
        }
        store.add(&all)?;
        Ok(Self(store))
    }
}

/// What a program used in so many seconds that ended then.
fn add(all: &mut Batch, program: &Program, time: i64, seconds: i64) {
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    let (upload, download) = (mean(program.upload, program.download), mean(program.download, program.upload));
    let portions = activity(program, time, seconds) * number(seconds);
    let used = portion(Traffic { upload, download }, portions);
    if used == Traffic::default() {
        return;
    }
    let info = info(program);
    let who =
        Who { program: program.exe.into(), unit: unit(&info).unwrap_or_default(), user: program.user.into() };
    let sum = all.usage.entry((time, who)).or_default();
    *sum = sum.plus(used);
    // With the headers of the link layer.
    let counted = portion(used, 1000 - program.local + 26);
    let sum = all.interfaces.entry((time, "wlp3s0".to_owned())).or_default();
    *sum = sum.plus(counted);
}

/// How busy it was, in thousandths of what it does while somebody looks.
fn activity(program: &Program, time: i64, seconds: i64) -> u64 {
    let number = |value: i64| u64::try_from(value).unwrap_or_default();
    let pid = u64::from(program.pid.unsigned_abs());
    let chance = mixed(pid, number(time / seconds), 11) % 1000;
    // Whoever sits there sleeps at night, and is out at the weekend (1970 began on a Thursday).
    let (hour, weekday) = (time / HOUR % 24, (time / DAY + 3) % 7);
    let awake = match hour {
        _ if seconds == DAY => 300,
        8..=11 | 13..=17 | 20..=22 => 700,
        0..=6 => 0,
        _ => 200,
    };
    let out = if weekday >= 5 { 3 } else { 1 };
    match program.user {
        "ada" if program.life.1 == u64::MAX => awake * (200 + chance) / 1000 / out,
        // Now and then.
        "ben" | "_apt" | "ada" => {
            if chance < 120 {
                chance
            } else {
                0
            }
        }
        _ => 400 + chance / 3,
    }
}

/// What a wish comes to in the long run, beside that for the other direction.
const fn mean(wish: Wish, other: Wish) -> u64 {
    match wish {
        Wish::Nothing => 0,
        Wish::Steady(rate) => rate,
        Wish::Bursts { peak, period, length } => peak * length / period,
        Wish::Share(share) => match other {
            Wish::Steady(rate) => rate * share / 1000,
            Wish::Bursts { peak, period, length } => peak * length / period * share / 1000,
            Wish::Nothing | Wish::Share(_) => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::{By, past::Span};

    #[test]
    fn there_is_something_to_see_in_every_span() {
        for by in By::ALL {
            for span in Span::ALL {
                let read = DemoPast::look(&Asked { by, span, of: None }).expect("it is made");
                assert!(!read.used.is_empty(), "{by:?} {span:?}");
                let busy = read.all.iter().filter(|amount| amount.sum() > 0).count();
                assert_eq!(busy, read.all.len(), "{by:?} {span:?}");
            }
        }
    }
}
