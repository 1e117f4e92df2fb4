//! The order among rules: of those that match a process, one holds it.
//!
//! It is the order in which the kernel looks for a limit (docs/THROTTLING.md), so that what the kernel does by itself and
//! what is decided here are the same.

use std::{cmp::Reverse, collections::HashMap};

use super::{Rule, Scope, conditions::Conditions};
use crate::config::Problem;

/// What kind of rule it is, the one that wins first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// By several conditions, by the command line, or for each process by itself.
    Process,
    /// By the path of a program.
    Program,
    /// By a pattern of such paths.
    Programs,
    /// By a name.
    Name,
    /// By a unit, a cgroup or a container.
    Cgroup,
    /// By a user.
    User,
}

impl Kind {
    /// Of a rule.
    #[must_use]
    pub fn of(rule: &Rule) -> Self {
        let Conditions { program, name, command, unit, cgroup, container, user: _ } = &rule.conditions;
        if rule.conditions.count() > 1 || command.is_some() || rule.scope == Scope::Each {
            Self::Process
        } else if let Some(program) = program {
            if program.literal().is_some() { Self::Program } else { Self::Programs }
        } else if name.is_some() {
            Self::Name
        } else if unit.is_some() || cgroup.is_some() || container.is_some() {
            Self::Cgroup
        } else {
            Self::User
        }
    }

    /// In words.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match self {
            Self::Process => "by several conditions, a command line, or for each process",
            Self::Program => "by the path of a program",
            Self::Programs => "by a pattern of paths",
            Self::Name => "by a name",
            Self::Cgroup => "by a unit, cgroup or container",
            Self::User => "by a user",
        }
    }
}

/// The places of rules in the order in which they win: the kind, then more conditions before fewer, then as they stand.
/// Among units and cgroups it is the innermost one that wins, whichever stands first.
#[must_use]
pub fn order(rules: &[Rule]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..rules.len()).collect();
    order.sort_by_cached_key(|&index| {
        let rule = &rules[index];
        (Kind::of(rule), Reverse(rule.conditions.count()), index)
    });
    order
}

/// What is wrong with rules together: two of one name, and two for the same at the same time, of which one could never
/// be in force.
#[must_use]
pub fn conflicts(rules: &[Rule]) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut names: HashMap<&str, &Rule> = HashMap::new();
    let mut alike: HashMap<String, Vec<&Rule>> = HashMap::new();
    for rule in rules {
        if let Some(other) = names.insert(&rule.name, rule) {
            let message =
                format!("two rules are called {:?}: the other one is at {}", rule.name, other.place);
            problems.push(Problem { place: rule.place.clone(), message });
        }
        if !rule.enabled {
            continue;
        }
        // As a text, since that is what both have to say for one never to be reached.
        let group = alike.entry(rule.conditions.to_string()).or_default();
        if let Some(other) = group.iter().find(|other| overlap(rule, other)) {
            let (name, place) = (&other.name, &other.place);
            let message = format!(
                "rule {:?} is for the same as {name:?} at {place} ({}) and at the same time, so that one of both \
                 would never be in force; put them together, or give them other times",
                rule.name, rule.conditions
            );
            problems.push(Problem { place: rule.place.clone(), message });
        }
        group.push(rule);
    }
    problems
}

/// Whether a rule would have to be in force when one that stands before it is.
fn overlap(rule: &Rule, before: &Rule) -> bool {
    match (&rule.schedule, &before.schedule) {
        (Some(times), Some(before)) => times.overlaps(before),
        // The one without holds for the rest of the week.
        (None, Some(_)) => false,
        (Some(_) | None, None) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::read::tests::rules;

    #[test]
    fn the_more_specific_kind_wins_whatever_stands_first() {
        let text = "
            [[rule]]\nname = \"user\"\nmatch.user = \"ada\"\nupload = \"1M\"
            [[rule]]\nname = \"unit\"\nmatch.unit = \"a.service\"\nupload = \"1M\"
            [[rule]]\nname = \"name\"\nmatch.name = \"curl\"\nupload = \"1M\"
            [[rule]]\nname = \"glob\"\nmatch.program = \"/usr/bin/c*\"\nupload = \"1M\"
            [[rule]]\nname = \"path\"\nmatch.program = \"/usr/bin/curl\"\nupload = \"1M\"
            [[rule]]\nname = \"two\"\nmatch = { user = \"ada\", name = \"curl\" }\nupload = \"1M\"
            [[rule]]\nname = \"three\"\nmatch = { user = \"ada\", name = \"curl\", cgroup = \"/\" }\nupload = \"1M\"
            [[rule]]\nname = \"each\"\nmatch.user = \"bob\"\nscope = \"each\"\nupload = \"1M\"";
        let rules = rules(text).expect("nothing is wrong");
        let names: Vec<&str> = order(&rules).into_iter().map(|index| rules[index].name.as_str()).collect();
        assert_eq!(names, ["three", "two", "each", "path", "glob", "name", "unit", "user"]);
    }

    #[test]
    fn two_for_the_same_at_the_same_time_are_told() {
        let rule = |name: &str, more: &str| {
            format!(
                "[[rule]]\nname = \"{name}\"\nmatch.program = \"/usr/bin/curl\"\nupload = \"1M\"\n{more}\n"
            )
        };
        let told = |one: &str, other: &str| {
            let rules = rules(&(rule("a", one) + &rule("b", other)));
            rules.map_err(|error| error.to_string()).map(|rules| rules.len())
        };
        let error = told("", "traffic = \"local\"").expect_err("the same");
        assert!(
            error.starts_with("config.toml:6:1: ") && error.contains("\"a\" at config.toml:1:1"),
            "{error}"
        );
        assert_eq!(told("when = \"Mon-Fri\"", "when = \"Sat,Sun\""), Ok(2));
        assert!(told("when = \"Mon-Fri\"", "when = \"Fri 20:00-21:00\"").is_err());
        assert_eq!(told("when = \"Mon-Fri\"", ""), Ok(2), "the second for the rest of the week");
        assert!(told("", "when = \"Mon-Fri\"").is_err(), "the second could never be in force");
        assert_eq!(told("", "enabled = false"), Ok(2));
        let error =
            rules(&(rule("a", "enabled = false") + &rule("a", ""))).expect_err("one name").to_string();
        assert!(error.contains("two rules are called \"a\""), "{error}");
    }
}
