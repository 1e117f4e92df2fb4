//! Which rule holds whom. Pure: what the rules come to on this host, and who runs, are arguments.

use std::collections::{BTreeMap, HashMap};

use super::{
    Rule,
    conditions::{Facts, is_below},
    rank::{Kind, order},
};
use crate::backends::throttle::Subject;

/// Rules in the order in which they win, with what the kernel follows for each by itself.
#[derive(Clone, Debug, Default)]
pub struct Claims {
    /// Who has it, by the place of the rule.
    by_subject: BTreeMap<Subject, usize>,
    /// How early each rule comes; none for those that are not in force.
    rank: HashMap<usize, usize>,
    /// Those that processes have to be looked at for, the first one first.
    looked_for: Vec<usize>,
}

impl Claims {
    /// Those of the rules that are in force (`is_on`), each with its subjects (`subjects`, by the place of the rule). Where
    /// two have the same one, it is the first rule's.
    #[must_use]
    pub fn new(rules: &[Rule], is_on: impl Fn(usize) -> bool, subjects: &[Vec<Subject>]) -> Self {
        let mut claims = Self::default();
        for index in order(rules).into_iter().filter(|&index| is_on(index)) {
            claims.rank.insert(index, claims.rank.len());
            for subject in subjects.get(index).into_iter().flatten() {
                claims.by_subject.entry(subject.clone()).or_insert(index);
            }
            if needs_a_look(&rules[index]) {
                claims.looked_for.push(index);
            }
        }
        claims
    }

    /// Whether processes have to be looked at: for some rule the kernel cannot tell by itself whom it is for.
    #[must_use]
    pub fn need_a_look(&self) -> bool {
        !self.looked_for.is_empty()
    }

    /// What the kernel follows by itself, and by which rule.
    #[must_use]
    pub const fn followed(&self) -> &BTreeMap<Subject, usize> {
        &self.by_subject
    }

    /// The rule that holds a process, and as what the process is held.
    #[must_use]
    pub fn holder(&self, rules: &[Rule], facts: &Facts) -> Option<(usize, Subject)> {
        let followed = self.follower(facts);
        let found = self.looked_for.iter().copied().find(|&index| rules[index].conditions.matches(facts));
        match (found, followed) {
            (Some(found), Some((followed, _))) if self.rank.get(&found) < self.rank.get(&followed) => {
                Some((found, Subject::Process(facts.id)))
            }
            (Some(found), None) => Some((found, Subject::Process(facts.id))),
            (_, followed) => followed,
        }
    }

    /// Whom the rules hold, and by which one.
    #[must_use]
    pub fn held(&self, rules: &[Rule], processes: &[Facts]) -> BTreeMap<Subject, usize> {
        let mut held = self.by_subject.clone();
        if self.need_a_look() {
            let holders = processes.iter().filter_map(|facts| self.holder(rules, facts));
            held.extend(
                holders
                    .filter(|(_, subject)| subject.process().is_some())
                    .map(|(rule, subject)| (subject, rule)),
            );
        }
        held
    }

    /// What the kernel holds a process with by itself: its program's limit, or the innermost cgroup's, or its user's.
    fn follower(&self, facts: &Facts) -> Option<(usize, Subject)> {
        let of = |subject: Subject| self.by_subject.get(&subject).map(|&rule| (rule, subject));
        let program = facts.exe.as_ref().and_then(|exe| of(Subject::Program(exe.into())));
        program
            .or_else(|| upwards(&facts.cgroup).find_map(|path| of(Subject::Cgroup(path.to_owned()))))
            .or_else(|| of(Subject::User(facts.uid)))
    }
}

/// Whether the kernel cannot tell by itself who is one of those.
fn needs_a_look(rule: &Rule) -> bool {
    matches!(Kind::of(rule), Kind::Process | Kind::Programs | Kind::Name)
}

/// A cgroup's path, and those above it.
fn upwards(path: &str) -> impl Iterator<Item = &str> {
    let ends = path.char_indices().rev().filter(|(at, letter)| *letter == '/' && *at > 0).map(|(at, _)| at);
    let whole = (path.len() > 1).then_some(path.len());
    whole.into_iter().chain(ends).filter_map(|end| path.get(..end)).chain(std::iter::once("/"))
}

/// Whether a subject that the kernel follows is for a process.
#[must_use]
pub fn covers(subject: &Subject, facts: &Facts) -> bool {
    match subject {
        Subject::Process(id) | Subject::Descendants(id) => *id == facts.id,
        Subject::Program(path) => facts.exe.as_deref().is_some_and(|exe| path.as_os_str() == exe),
        Subject::Cgroup(path) => is_below(&facts.cgroup, path),
        Subject::User(uid) => *uid == facts.uid,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::rules::{conditions::tests::curl, read::tests::rules};

    fn rule(name: &str, conditions: &str) -> String {
        format!("[[rule]]\nname = \"{name}\"\nmatch = {{ {conditions} }}\nupload = \"1M\"\n")
    }

    /// Who holds curl, by the name of the rule, and as what.
    fn holder(text: &str, subjects: &[&[Subject]]) -> Option<(String, Subject)> {
        let rules = rules(text).expect("nothing is wrong");
        let subjects: Vec<Vec<Subject>> = subjects.iter().map(|subjects| subjects.to_vec()).collect();
        let claims = Claims::new(&rules, |_| true, &subjects);
        claims.holder(&rules, &curl()).map(|(index, subject)| (rules[index].name.clone(), subject))
    }

    #[test]
    fn the_kernels_order_is_kept() {
        let (program, user) = (Subject::Program("/usr/bin/curl".into()), Subject::User(1000));
        let (unit, slice) =
            (Subject::Cgroup("/system.slice/fetch.service".into()), Subject::Cgroup("/system.slice".into()));
        let all = rule("user", "user = \"ada\"")
            + &rule("slice", "cgroup = \"/system.slice\"")
            + &rule("unit", "unit = \"fetch.service\"");
        let native = [&[user.clone()][..], &[slice], std::slice::from_ref(&unit)];
        assert_eq!(holder(&all, &native), Some(("unit".into(), unit)), "the innermost");
        let two = rule("user", "user = \"ada\"") + &rule("path", "program = \"/usr/bin/curl\"");
        let native = [&[user][..], std::slice::from_ref(&program)];
        assert_eq!(holder(&two, &native), Some(("path".into(), program.clone())));
        let named = rule("path", "program = \"/usr/bin/curl\"") + &rule("name", "name = \"curl\"");
        assert_eq!(
            holder(&named, &[std::slice::from_ref(&program), &[]]),
            Some(("path".into(), program)),
            "the path is nearer"
        );
    }

    #[test]
    fn whom_the_kernel_does_not_follow_is_held_as_a_process() {
        let process = Subject::Process(curl().id);
        let program = Subject::Program("/usr/bin/curl".into());
        let both = rule("both", "program = \"/usr/bin/curl\", user = \"ada\"")
            + &rule("path", "program = \"/usr/bin/curl\"");
        assert_eq!(
            holder(&both, &[&[], std::slice::from_ref(&program)]),
            Some(("both".into(), process.clone()))
        );
        let other = rule("other", "program = \"/usr/bin/curl\", user = \"bob\"")
            + &rule("path", "program = \"/usr/bin/curl\"");
        assert_eq!(
            holder(&other, &[&[], std::slice::from_ref(&program)]),
            Some(("path".into(), program.clone()))
        );
        let name = rule("name", "name = \"cu*\"");
        assert_eq!(
            holder(&name, &[std::slice::from_ref(&program)]),
            Some(("name".into(), program)),
            "its file is known already"
        );
        assert_eq!(holder(&name, &[&[]]), Some(("name".into(), process)));
        assert_eq!(holder(&rule("name", "name = \"wget\""), &[&[]]), None);
    }

    #[test]
    fn a_rule_that_is_not_in_force_leaves_the_place_to_the_next_one() {
        let text = rule("a", "program = \"/usr/bin/curl\"") + &rule("b", "program = \"/usr/bin/c*\"");
        let rules = rules(&text).expect("nothing is wrong");
        let program = Subject::Program("/usr/bin/curl".into());
        let subjects = [vec![program.clone()], vec![program.clone()]];
        let held = |off: usize| Claims::new(&rules, |index| index != off, &subjects).held(&rules, &[curl()]);
        assert_eq!(held(9), BTreeMap::from([(program.clone(), 0)]));
        assert_eq!(held(0), BTreeMap::from([(program, 1)]));
    }

    #[test]
    fn upwards_from_a_cgroup() {
        assert_eq!(upwards("/a/b").collect::<Vec<_>>(), ["/a/b", "/a", "/"]);
        assert_eq!(upwards("/").collect::<Vec<_>>(), ["/"]);
        assert_eq!(upwards("").collect::<Vec<_>>(), ["/"]);
    }

    proptest! {
        /// Whatever the rules are: who is held is held by one that matches, and none that matches comes before it but for
        /// those that the kernel takes to be further away.
        #[test]
        fn the_holder_is_the_first_that_matches(
            picked in proptest::collection::vec((0..6_usize, any::<bool>()), 0..8),
        ) {
            let conditions = [
                ("program = \"/usr/bin/curl\"", Some(Subject::Program("/usr/bin/curl".into()))),
                ("program = \"/usr/bin/*\"", None),
                ("name = \"curl\"", None),
                ("unit = \"fetch.service\"", Some(Subject::Cgroup("/system.slice/fetch.service".into()))),
                ("user = \"ada\"", Some(Subject::User(1000))),
                ("user = \"ada\", name = \"curl\"", None),
            ];
            let (mut text, mut subjects, mut on) = (String::new(), Vec::new(), Vec::new());
            for (index, (which, is_on)) in picked.iter().enumerate() {
                // At other times, so that the file may say the same twice.
                text += &rule(&format!("r{index}"), conditions[*which].0);
                text += &["when = \"", &index.to_string(), ":00-", &index.to_string(), ":30\"\n"].concat();
                subjects.push(conditions[*which].1.clone().into_iter().collect::<Vec<_>>());
                on.push(*is_on);
            }
            let rules = rules(&text).expect("nothing is wrong");
            let claims = Claims::new(&rules, |index| on[index], &subjects);
            let expected = order(&rules).into_iter().find(|&index| on[index]);
            prop_assert_eq!(claims.holder(&rules, &curl()).map(|(rule, _)| rule), expected);
        }
    }
}
