//! Limits asked for by keys: what is asked first, what is done, and what came of it.

use super::{
    App, Effect, LimitOutcome, Message, Overlay, dialog::LimitDialog, keys::Directions, row::Row,
    table::Entry,
};
use crate::{
    backends::throttle::{Subject, Target, manager::Limits},
    lookout::Question,
};

/// What is to be done, and what is said meanwhile.
#[derive(Clone, Debug)]
pub(super) struct Plan {
    steps: Vec<(Target, Limits)>,
    words: String,
}

impl Plan {
    /// Nothing to do.
    pub(super) const fn nothing() -> Self {
        Self { steps: Vec::new(), words: String::new() }
    }
}

/// A question before something drastic.
#[derive(Clone, Debug)]
pub struct Confirm {
    /// What it is about.
    pub title: &'static str,
    /// The question.
    pub question: String,
    pub(super) plan: Plan,
}

/// A change of limits, and what was before it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Change {
    target: Target,
    /// What was in force, and for which traffic.
    before: (Target, Limits),
    /// Whether the backend has made it. Until then it cannot be undone.
    is_made: bool,
}

/// So many changes can be undone.
const CHANGES: usize = 50;
/// So many rates are remembered.
const RECENT: usize = 4;
/// `+` on what is blocked, and as far as `-` goes.
const LEAST: u64 = 1_000;

/// Limits that could not be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for.
    pub limits: Limits,
    /// Why not.
    pub words: String,
}

impl App {
    pub(super) fn ask_for_limits(&mut self, directions: Directions) -> Vec<Effect> {
        let choices = match self.limitable() {
            Ok(choices) => choices,
            Err(words) => {
                self.complain(words);
                return Vec::new();
            }
        };
        if self.setup.backends.download.is_none() && directions != Directions::Upload {
            self.complain(
                "No download backend is in use, so downloads cannot be limited. Choose one with \
                 --download-backend; chadthrottle --list-backends tells which work here.",
            );
            return Vec::new();
        }
        // Where a limit is in force, that one is meant.
        let chosen = choices.iter().position(|choice| !choice.now.is_empty()).unwrap_or_default();
        let dialog = LimitDialog::new(choices, chosen, directions, &self.recent);
        let members = dialog.choice().map(|choice| choice.members.clone());
        self.overlay = Some(Overlay::Limit(Box::new(dialog)));
        members.into_iter().map(|members| Effect::Ask(Question::Reach(members))).collect()
    }

    pub(super) fn choose(&mut self, next: bool) -> Vec<Effect> {
        if let Some(Overlay::Save(saving)) = &mut self.overlay {
            saving.choose(next);
        }
        let Some(Overlay::Limit(dialog)) = &mut self.overlay else { return Vec::new() };
        let members = dialog.choose(next);
        members.into_iter().map(|members| Effect::Ask(Question::Reach(members))).collect()
    }

    pub(super) fn accept_limits(&mut self, mut dialog: Box<LimitDialog>) -> Vec<Effect> {
        let target = match dialog.target() {
            Ok(target) => target,
            Err(words) => {
                self.overlay = Some(Overlay::Limit(dialog));
                self.complain(words);
                return Vec::new();
            }
        };
        let before = self.limits_of(&target.subject);
        let Some(limits) = dialog.accept(before) else {
            self.overlay = Some(Overlay::Limit(dialog));
            return Vec::new();
        };
        if limits.is_empty() && before.is_empty() {
            self.say(format!("{target} stays without a limit."));
            return Vec::new();
        }
        let words = if limits.is_empty() {
            format!("Removing the limits of {target}…")
        } else {
            format!("Limiting {target}…")
        };
        let plan = Plan { steps: vec![(target, limits)], words };
        let warning = dialog.choice().and_then(|choice| choice.warning.clone());
        match warning.filter(|_| !limits.is_empty()) {
            Some(warning) => {
                let question = format!("{warning} Limit it all the same?");
                self.overlay = Some(Overlay::Confirm(Confirm { title: "Your own session", question, plan }));
                Vec::new()
            }
            None => self.carry_out(plan),
        }
    }

    /// The limits in force for just this subject.
    fn limits_of(&self, subject: &Subject) -> Limits {
        let limited = self.limited.iter().find(|limited| limited.target.subject == *subject);
        limited.map(|limited| limited.limits).unwrap_or_default()
    }

    pub(super) fn remove_limits(&mut self) -> Vec<Effect> {
        // Who is not wanted to be limited any more has nothing to be refused.
        if let Some(Entry::Process(row)) = self.selection() {
            let id = row.id();
            self.refused.retain(|subject, _| subject.process() != Some(id));
        }
        let limited: Vec<Target> = match self.selection() {
            None => {
                self.complain("No process is selected.");
                return Vec::new();
            }
            Some(Entry::Process(row)) if row.is_shared => {
                let words = format!(
                    "{} ({}) shares the limit of {}: v shows that on one line, where r removes it.",
                    row.info.name,
                    row.id(),
                    row.target()
                );
                self.say(words);
                return Vec::new();
            }
            Some(Entry::Process(row)) if row.limits.is_empty() => {
                let words = format!("{} has no limit.", row.target());
                self.say(words);
                return Vec::new();
            }
            Some(Entry::Process(row)) => vec![row.target()],
            Some(Entry::Group(group, _)) => {
                let rows = group.members.iter().filter_map(|&place| self.table.rows().get(place));
                let own = rows.filter(|row| !row.limits.is_empty() && !row.is_shared).map(Row::target);
                group.limit.iter().map(|limit| limit.target.clone()).chain(own).collect()
            }
        };
        let words = match limited.as_slice() {
            [] => {
                self.say("None of them has a limit.");
                return Vec::new();
            }
            [target] => format!("Removing the limits of {target}…"),
            several => format!("Removing {} limits…", several.len()),
        };
        let steps = limited.into_iter().map(|target| (target, Limits::default())).collect();
        self.carry_out(Plan { steps, words })
    }

    pub(super) fn ask_to_remove_all(&mut self) {
        let steps: Vec<_> =
            self.limited.iter().map(|limited| (limited.target.clone(), Limits::default())).collect();
        let question = match steps.as_slice() {
            [] => return self.say("Nobody has a limit."),
            [(target, _)] => format!("Remove the limits of {target}?"),
            several => format!("Remove the limits of all {} that are limited?", several.len()),
        };
        let plan = Plan { steps, words: "Removing all limits…".into() };
        self.overlay = Some(Overlay::Confirm(Confirm { title: "Remove all limits", question, plan }));
    }

    pub(super) fn ask_to_block(&mut self) {
        let choice = match self.limitable().map(|choices| choices.into_iter().next()) {
            Ok(Some(choice)) => choice,
            Ok(None) => return,
            Err(words) => return self.complain(words),
        };
        let Some(subject) = choice.subject else {
            return self.complain("The user's number is not known yet; t, 0, Enter blocks when it is.");
        };
        let download = self.setup.backends.download.map(|_| 0);
        let limits = Limits { upload: Some(0), download };
        let target = Target { subject, name: choice.name, traffic: choice.traffic };
        let what = if download.is_some() { "sends or receives" } else { "sends" };
        let warning = choice.warning.map(|warning| format!("{warning} ")).unwrap_or_default();
        let question = format!("{warning}Block {target}: nothing that it {what} gets through?");
        let words = format!("Blocking {target}…");
        let plan = Plan { steps: vec![(target, limits)], words };
        self.overlay = Some(Overlay::Confirm(Confirm { title: "Block", question, plan }));
    }

    pub(super) fn step_limits(&mut self, up: bool) -> Vec<Effect> {
        let choice = match self.limitable() {
            Ok(choices) => choices.into_iter().find(|choice| !choice.now.is_empty()),
            Err(words) => {
                self.complain(words);
                return Vec::new();
            }
        };
        let Some(choice) = choice else {
            self.say("There is no limit to change; u, d or t sets one.");
            return Vec::new();
        };
        let step = |limit: u64| if up { looser(limit) } else { tighter(limit) };
        let limits = Limits { upload: choice.now.upload.map(step), download: choice.now.download.map(step) };
        let Some(subject) = choice.subject else { return Vec::new() };
        if limits == choice.now {
            let least = self.setup.units.rate(LEAST);
            self.say(format!("{least} is the least that a step leads to; 0 blocks."));
            return Vec::new();
        }
        let target = Target { subject, name: choice.name, traffic: choice.traffic };
        let words = format!("Limiting {target}…");
        self.carry_out(Plan { steps: vec![(target, limits)], words })
    }

    pub(super) fn undo(&mut self) -> Vec<Effect> {
        let Some(place) = self.changes.iter().rposition(|change| change.is_made) else {
            self.say("There is no change of limits to undo.");
            return Vec::new();
        };
        let change = self.changes.remove(place);
        self.say(format!("Undoing the last change for {}…", change.target));
        let (target, limits) = change.before;
        vec![effect(target, limits)]
    }

    /// Orders what is planned, and remembers what was before.
    pub(super) fn carry_out(&mut self, plan: Plan) -> Vec<Effect> {
        self.say(plan.words);
        let mut effects = Vec::new();
        for (target, limits) in plan.steps {
            let held = self.limited.iter().find(|limited| limited.target.subject == target.subject);
            let before = held.map_or_else(
                || (target.clone(), Limits::default()),
                |limited| (limited.target.clone(), limited.limits),
            );
            self.refused.remove(&target.subject);
            self.changes.push(Change { target: target.clone(), before, is_made: false });
            effects.push(effect(target, limits));
        }
        let excess = self.changes.len().saturating_sub(CHANGES);
        self.changes.drain(..excess);
        effects
    }

    pub(super) fn limit_result(&mut self, outcome: LimitOutcome) {
        let ours = self.changes.iter().position(|change| !change.is_made && change.target == outcome.target);
        match (&outcome.result, ours) {
            (Ok(()), ours) => {
                if let Some(place) = ours {
                    self.changes[place].is_made = true;
                }
                for rate in [outcome.limits.upload, outcome.limits.download]
                    .into_iter()
                    .flatten()
                    .filter(|rate| *rate > 0)
                {
                    self.recent.retain(|recent| *recent != rate);
                    self.recent.insert(0, rate);
                }
                self.recent.truncate(RECENT);
            }
            (Err(words), ours) => {
                if let Some(place) = ours {
                    self.changes.remove(place);
                }
                let refused = Refused { limits: outcome.limits, words: words.clone() };
                self.refused.insert(outcome.target.subject.clone(), refused);
            }
        }
        let message: Message = outcome.message();
        self.log.push(self.elapsed, message.clone());
        self.tell(message);
    }
}

fn effect(target: Target, limits: Limits) -> Effect {
    if limits.is_empty() { Effect::RemoveLimits { target } } else { Effect::SetLimits { target, limits } }
}

/// The next of 1, 2, 5, 10, … thousand.
fn looser(limit: u64) -> u64 {
    steps().find(|step| *step > limit).unwrap_or(limit)
}

/// The one before, and not less than the first: nothing is not a little less.
fn tighter(limit: u64) -> u64 {
    steps().take_while(|step| *step < limit).last().unwrap_or(limit)
}

fn steps() -> impl Iterator<Item = u64> {
    (0..9).flat_map(|power| [1, 2, 5].map(|digit| digit * LEAST * 10_u64.pow(power)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_go_by_one_two_and_five() {
        assert_eq!(
            [0, 1_000, 1_500_000, 2_000_000, 5_000_000].map(looser),
            [1_000, 2_000, 2_000_000, 5_000_000, 10_000_000]
        );
        assert_eq!(
            [10_000_000, 5_000_001, 2_000, 1_000, 7, 0].map(tighter),
            [5_000_000, 5_000_000, 1_000, 1_000, 7, 0]
        );
    }
}
