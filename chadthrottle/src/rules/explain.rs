//! Why a process is limited, or is not.

use jiff::{Timestamp, tz::TimeZone};

use super::{Rule, conditions::Facts, rank::Kind, resolve::Claims};
use crate::backends::throttle::Subject;

/// Whom a rule has to do with, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The place of the rule.
    pub rule: usize,
    /// What becomes of it.
    pub outcome: Outcome,
}

/// What becomes of a rule that matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It holds the process, as this.
    Holds(Subject),
    /// Another one does, which comes before it.
    Outranked,
    /// It is not the time for it.
    NotNow,
    /// It is disabled.
    Disabled,
}

/// Every rule that matches a process: the one that holds it first.
#[must_use]
pub fn explain(
    rules: &[Rule],
    subjects: &[Vec<Subject>],
    facts: &Facts,
    now: Timestamp,
    zone: &TimeZone,
) -> Vec<Verdict> {
    let claims = Claims::new(rules, |index| rules[index].is_on(now, zone), subjects);
    let holder = claims.holder(rules, facts);
    let matches = |index: usize| {
        rules[index].conditions.matches(facts)
            || subjects.get(index).into_iter().flatten().any(|subject| super::resolve::covers(subject, facts))
    };
    let mut verdicts: Vec<Verdict> = super::rank::order(rules)
        .into_iter()
        .filter(|&index| matches(index))
        .map(|rule| {
            let outcome = match &holder {
                Some((holder, subject)) if *holder == rule => Outcome::Holds(subject.clone()),
                _ if !rules[rule].enabled => Outcome::Disabled,
                _ if !rules[rule].is_on(now, zone) => Outcome::NotNow,
                _ => Outcome::Outranked,
            };
            Verdict { rule, outcome }
        })
        .collect();
    verdicts.sort_by_key(|verdict| !matches!(verdict.outcome, Outcome::Holds(_)));
    verdicts
}

impl Outcome {
    /// A word for it.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Holds(_) => "holds",
            Self::Outranked => "outranked",
            Self::NotNow => "not-now",
            Self::Disabled => "disabled",
        }
    }

    /// The same in a sentence about the rule.
    #[must_use]
    pub fn describe(&self, rule: &Rule) -> String {
        match self {
            Self::Holds(subject @ Subject::Process(_)) => {
                let why = Kind::of(rule).describe();
                format!(
                    "holds {subject}, {why}: found by a look at the processes, within a second of its start"
                )
            }
            Self::Holds(subject) => format!("holds {subject}, from the first packet"),
            Self::Outranked => "matches too, and comes after the one that holds it".into(),
            Self::NotNow => {
                let when = rule.schedule.as_ref().map(ToString::to_string).unwrap_or_default();
                format!("matches, and is in force at other times: {when}")
            }
            Self::Disabled => "matches, and is disabled".into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::{conditions::tests::curl, read::tests::rules};

    #[test]
    fn the_one_that_holds_comes_first_and_others_say_why_they_do_not() {
        let rule = |name: &str, user: &str, more: &str| {
            format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {user} }}\nupload = \"1M\"\n{more}\n")
        };
        let text = rule("user", "user = \"ada\"", "")
            + &rule("night", "name = \"cu*\"", "when = \"22:00-06:00\"")
            + &rule("off", "name = \"c*\"", "enabled = false")
            + &rule("path", "program = \"/usr/bin/curl\"", "")
            + &rule("other", "name = \"wget\"", "");
        let rules = rules(&text).expect("nothing is wrong");
        let program = Subject::Program("/usr/bin/curl".into());
        let subjects = vec![vec![Subject::User(1000)], vec![], vec![], vec![program.clone()], vec![]];
        let noon = "2026-01-14T12:00:00Z".parse().expect("a time");
        let verdicts = explain(&rules, &subjects, &curl(), noon, &TimeZone::UTC);
        let told: Vec<(&str, &Outcome)> =
            verdicts.iter().map(|verdict| (rules[verdict.rule].name.as_str(), &verdict.outcome)).collect();
        let expected = [
            ("path", &Outcome::Holds(program)),
            ("night", &Outcome::NotNow),
            ("off", &Outcome::Disabled),
            ("user", &Outcome::Outranked),
        ];
        assert_eq!(told, expected);
    }
}
