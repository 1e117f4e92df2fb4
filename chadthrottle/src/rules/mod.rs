//! Rules: limits that come back. Whom they are for, which limits, and when.
//!
//! A rule says whom it matches ([`conditions`]), and there is one order among rules ([`rank`]). What is pure is apart from
//! what looks at the host ([`host`]) and from what acts ([`keeper`]):
//!
//! ```text
//! files → read → Rule → place (host) → resolve → Keeper → ThrottleManager
//! ```

pub mod conditions;
pub mod edit;
pub mod explain;
pub mod glob;
pub mod host;
pub mod keeper;
pub mod link;
pub mod quota;
pub mod rank;
pub mod read;
pub mod resolve;
pub mod schedule;
pub mod share;
pub mod sharing;
pub mod store;

use clap::ValueEnum;
use jiff::{Timestamp, tz::TimeZone};

use self::{conditions::Conditions, link::Share, quota::Quota, schedule::Schedule};
use crate::{
    backends::throttle::{TrafficType, manager::Limits},
    config::Place,
};

/// A limit that comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What it is called; no two are called the same.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// Whether it counts at all.
    pub enabled: bool,
    /// Whom it is for.
    pub conditions: Conditions,
    /// What it allows.
    pub limits: Limits,
    /// What it has of a link, where it has a part in one.
    pub share: Option<Share>,
    /// Which traffic.
    pub traffic: TrafficType,
    /// Whether those that it matches share the limits.
    pub scope: Scope,
    /// When it is in force; always, where nothing is said.
    pub schedule: Option<Schedule>,
    /// What holds after so much.
    pub quota: Option<Quota>,
}

/// Who has the limits of a rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    /// All that it matches together.
    #[default]
    Together,
    /// Each process that it matches, for itself.
    Each,
}

impl Rule {
    /// Whether it is in force at that time.
    #[must_use]
    pub fn is_on(&self, now: Timestamp, zone: &TimeZone) -> bool {
        self.enabled && self.schedule.as_ref().is_none_or(|schedule| schedule.is_on(now, zone))
    }

    /// In which directions it limits anything.
    #[must_use]
    pub fn directions(&self) -> Limits {
        let then = self.quota.map(|quota| quota.then).unwrap_or_default();
        let own = self.share.as_ref().map_or(self.limits, |share| share.ceiling(self.limits));
        Limits { upload: own.upload.or(then.upload), download: own.download.or(then.download) }
    }

    /// `"updates" (config.toml:12)`: how people find it.
    #[must_use]
    pub fn describe(&self) -> String {
        format!("{:?} ({})", self.name, self.place.line())
    }

    /// The same with the link, in which it has a part: why the limit is what it is.
    #[must_use]
    pub fn holder(&self) -> String {
        match &self.share {
            Some(share) => format!("{} with {share}", self.describe()),
            None => self.describe(),
        }
    }
}
