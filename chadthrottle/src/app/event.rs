//! What comes in and what goes out.

use std::{net::IpAddr, time::Duration};

use crossterm::event::{KeyEvent, MouseEvent};
use ratatui::layout::Size;

use super::{BackendNames, Message};
use crate::{
    backends::throttle::{
        Subject, Target,
        manager::{LimitedTarget, Limits},
    },
    backends::{PacketCost, registry::Kind},
    lookout::{Answer, Question},
    rate::scaled,
    rules::edit::NewRule,
    stats::Snapshot,
};

/// Something that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A key was pressed.
    Key(KeyEvent),
    /// Text was pasted.
    Paste(String),
    /// The window has this size now.
    Resize(Size),
    /// An interval has passed.
    Snapshot(Snapshot),
    /// These limits are in force.
    Limits(Vec<LimitedTarget>),
    /// A limit was set or removed, or was not.
    LimitResult(LimitOutcome),
    /// Something that is to be known about what was said last, or at the start.
    Notice(String),
    /// These rules hold these, in words.
    Rules(Vec<(Subject, String)>),
    /// A rule was saved, or was not; in a sentence.
    RuleSaved(Result<String, String>),
    /// What we ourselves have taken so far.
    Cost(Cost),
    /// What our programs in the kernel have taken since somebody wanted to know; `None` where there are none. Or why that
    /// is not known.
    PacketCost(Result<Option<PacketCost>, String>),
    /// Other backends are at work.
    Backends(BackendNames),
    /// A backend could not be changed; in words.
    NotSwitched(String),
    /// A button of the mouse, or its wheel.
    Mouse(MouseEvent),
    /// The engine could not read what it should; in words.
    EngineFailed(String),
    /// What was asked is answered.
    Answer(Answer),
    /// What a host is called, where it is called anything.
    Named(IpAddr, Option<String>),
    /// The program was told to end.
    Signal,
}

/// What became of a limit that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitOutcome {
    /// For whom.
    pub target: Target,
    /// What was asked for; nothing is removal.
    pub limits: Limits,
    /// Why it was refused, in words.
    pub result: Result<(), String>,
}

/// What this program has taken of the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cost {
    /// When that was, since any fixed instant.
    pub at: Duration,
    /// Time on CPUs since the start, in the kernel and outside.
    pub cpu: Duration,
    /// Memory that is resident, in bytes.
    pub resident: u64,
}

/// Something to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Hold a process to just these limits.
    SetLimits {
        /// Whom.
        target: Target,
        /// To what.
        limits: Limits,
    },
    /// Take all limits of a process away.
    RemoveLimits {
        /// Whose.
        target: Target,
    },
    /// Save a rule.
    SaveRule(NewRule),
    /// Use another backend from now on.
    UseBackend {
        /// For what.
        kind: Kind,
        /// Which.
        name: &'static str,
    },
    /// Measure what our programs in the kernel take of packets, or stop that.
    MeasurePackets(bool),
    /// Take the mouse, or leave it to the terminal.
    Mouse(bool),
    /// Find out; the answer comes as [`Event::Answer`].
    Ask(Question),
    /// Find out what these hosts are called; each comes as [`Event::Named`].
    Name(Vec<IpAddr>),
    /// Stop until the shell lets the program go on.
    Suspend,
    /// End.
    Quit,
}

impl LimitOutcome {
    /// What a person reads about it.
    #[must_use]
    pub fn message(self) -> Message {
        let LimitOutcome { target, limits, result } = self;
        let who = target.to_string();
        let direction = |name: &str, limit: Option<u64>| match limit {
            Some(0) => Some(format!("{name} blocked")),
            Some(limit) => Some(format!("{name} limited to {} a second", scaled(limit))),
            None => None,
        };
        match result {
            Err(reason) if limits.is_empty() => {
                Message { text: format!("The limits of {who} could not be removed: {reason}"), error: true }
            }
            Err(reason) => Message { text: format!("{who} could not be limited: {reason}"), error: true },
            Ok(()) if limits.is_empty() => {
                Message { text: format!("{who} has no limit any more."), error: false }
            }
            Ok(()) => {
                let parts: Vec<String> =
                    [direction("upload", limits.upload), direction("download", limits.download)]
                        .into_iter()
                        .flatten()
                        .collect();
                Message {
                    text: format!("{who}: {}, until chadthrottle ends.", parts.join(", ")),
                    error: false,
                }
            }
        }
    }
}
