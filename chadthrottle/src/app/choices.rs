//! Whom a limit can cover: one process, what it starts, its program, its unit, its user.

use super::{
    App,
    dialog::Choice,
    group::{Group, GroupKey},
    row::{Row, is_within},
    table::Entry,
    unit::unit,
};
use crate::{backends::throttle::Subject, containers, process::ProcessId};

impl App {
    /// Whom a limit on the selection could cover, the nearest first.
    pub(super) fn limitable(&self) -> Result<Vec<Choice>, String> {
        match self.selection() {
            None => Err("No process is selected.".into()),
            Some(Entry::Process(row)) if !row.alive => {
                Err(format!("{} ({}) has ended: there is nothing left to limit.", row.info.name, row.id()))
            }
            Some(Entry::Process(row)) => Ok(self.choices_for(row)),
            Some(Entry::Group(group, _)) => self.choices_for_group(group),
        }
    }

    fn choices_for(&self, row: &Row) -> Vec<Choice> {
        let (id, info) = (row.id(), &row.info);
        let choice =
            |subject: Subject, words: String| self.choice(Some(subject), &info.name, words, vec![id]);
        let mut choices = vec![
            choice(Subject::Process(id), "this process".into()),
            choice(Subject::Descendants(id), "it and all that it starts".into()),
        ];
        if let Some(exe) = &info.exe {
            let words = format!("every {}", exe.display());
            choices.push(self.together(Some(Subject::Program(exe.clone())), &info.name, words, |other| {
                other.info.exe.as_ref() == Some(exe)
            }));
        }
        if let (Some(cgroup), Some(unit)) = (&info.cgroup, unit(info)) {
            let subject = Some(Subject::Cgroup(cgroup.clone()));
            choices.push(self.together(subject, &unit, format!("all of {unit}"), |other| {
                other.info.cgroup.as_deref().is_some_and(|other| is_within(other, cgroup))
            }));
        }
        if let Some(user) = &info.user {
            choices.push(self.together(self.user(user), user, format!("all of user {user}"), |other| {
                other.info.user.as_ref() == Some(user)
            }));
        }
        choices
    }

    /// A user whose number is known, because it is one or because the user is limited already.
    fn user(&self, name: &str) -> Option<Subject> {
        let limited = self.limited.iter().map(|limited| &limited.target);
        let mut users =
            limited.filter(|target| matches!(target.subject, Subject::User(_)) && target.name == name);
        users.next().map(|target| target.subject.clone()).or_else(|| name.parse().ok().map(Subject::User))
    }

    fn choices_for_group(&self, group: &Group) -> Result<Vec<Choice>, String> {
        let rows = group.members.iter().filter_map(|&place| self.table.rows().get(place));
        let members: Vec<ProcessId> = rows.clone().filter(|row| row.alive).map(Row::id).collect();
        if members.is_empty() {
            return Err(format!("All of {} have ended: there is nothing left to limit.", group.label));
        }
        let (subject, words) = match &group.key {
            GroupKey::Program(program) if program.starts_with('/') => {
                (Some(Subject::Program(program.into())), format!("every {program}"))
            }
            GroupKey::Program(program) => {
                return Err(format!(
                    "It is not known which file {program} executes: limit its processes one by one."
                ));
            }
            GroupKey::User(user) if user == "?" => {
                return Err("It is not known whose these are: limit them one by one.".into());
            }
            GroupKey::User(user) => (self.user(user), format!("all of user {user}")),
            GroupKey::Unit(cgroup) if cgroup.is_empty() => {
                return Err("These are in no unit: limit them one by one.".into());
            }
            GroupKey::Unit(cgroup) => {
                (Some(Subject::Cgroup(cgroup.clone())), format!("all of {}", group.label))
            }
            GroupKey::Branch(process) => {
                (Some(Subject::Descendants(*process)), "it and all that it starts".to_owned())
            }
        };
        Ok(vec![self.choice(subject, &group.label, words, members)])
    }

    /// A choice that covers all rows that are alike.
    fn together(
        &self,
        subject: Option<Subject>,
        name: &str,
        words: String,
        is_alike: impl Fn(&Row) -> bool,
    ) -> Choice {
        let alike = self.table.rows().iter().filter(|row| row.alive && is_alike(row));
        self.choice(subject, name, words, alike.map(Row::id).collect())
    }

    fn choice(&self, subject: Option<Subject>, name: &str, words: String, members: Vec<ProcessId>) -> Choice {
        let limited = self.limited.iter().find(|limited| Some(&limited.target.subject) == subject.as_ref());
        Choice {
            warning: self.warning(&members),
            now: limited.map(|limited| limited.limits).unwrap_or_default(),
            traffic: limited.map(|limited| limited.target.traffic).unwrap_or_default(),
            container: self.container(subject.as_ref()),
            subject,
            name: name.to_owned(),
            words,
            members,
        }
    }

    /// What the container is called that a subject is.
    fn container(&self, subject: Option<&Subject>) -> Option<String> {
        let Some(Subject::Cgroup(path)) = subject else { return None };
        if !containers::is_one(path) {
            return None;
        }
        let inside = |row: &&Row| row.info.cgroup.as_deref().is_some_and(|cgroup| is_within(cgroup, path));
        self.table.rows().iter().filter(inside).find_map(|row| row.info.container.clone())
    }

    /// What is to be known before these are limited: that this very session hangs on one of them.
    fn warning(&self, members: &[ProcessId]) -> Option<String> {
        let ours = self.session.iter().find(|ancestor| members.contains(&ancestor.id))?;
        Some(format!(
            "This terminal hangs on {} ({}): a tight limit may cut you off. chadthrottle ends with the terminal, and \
             the limit with it.",
            ours.name, ours.id
        ))
    }
}
