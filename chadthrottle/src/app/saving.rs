//! Saving a limit as a rule: never for a bare pid, which means nobody tomorrow.

use super::{App, Confirm, Effect, Overlay, dialog::Choice, limiting::Plan, table::Entry, unit::is_named};
use crate::{
    backends::throttle::{Subject, TrafficType, manager::Limits},
    rate::scaled,
    rules::{edit::NewRule, glob::Pattern},
};

/// The question for whom a rule is to be.
#[derive(Clone, Debug)]
pub(super) struct Saving {
    choices: Vec<(String, NewRule)>,
    chosen: usize,
    limits: String,
    /// As it is shown.
    pub(super) question: Confirm,
}

impl App {
    /// Asks for whom the limit of the selection is to be a rule.
    pub(super) fn ask_to_save(&mut self) {
        if self.setup.is_demo {
            return self.say("This host is simulated: there is nothing to save a rule for.");
        }
        let (limits, traffic) = match self.selection() {
            Some(Entry::Process(row)) => (row.limits, row.target().traffic),
            Some(Entry::Group(group, _)) => {
                let limit = group.limit.as_ref();
                limit.map(|limit| (limit.limits, limit.target.traffic)).unwrap_or_default()
            }
            None => return self.complain("No process is selected."),
        };
        if limits.is_empty() {
            return self.complain("There is no limit to save yet: set one with u, d or t first.");
        }
        let choices = match self.limitable() {
            Ok(choices) => choices,
            Err(words) => return self.complain(words),
        };
        let rules: Vec<(String, NewRule)> = choices
            .iter()
            .filter_map(|choice| Some((choice.words.clone(), rule(choice, limits, traffic)?)))
            .collect();
        if rules.is_empty() {
            return self.complain("It is not known which program it executes: a rule would be for nobody.");
        }
        self.overlay = Some(Overlay::Save(Box::new(Saving::new(rules, in_words(limits)))));
    }

    /// Orders that it be saved.
    pub(super) fn save(&mut self, saving: Saving) -> Vec<Effect> {
        let mut choices = saving.choices;
        let (words, rule) = choices.swap_remove(saving.chosen);
        self.say(format!("Saving a rule for {words}…"));
        vec![Effect::SaveRule(rule)]
    }
}

impl Saving {
    fn new(choices: Vec<(String, NewRule)>, limits: String) -> Self {
        let plan = Plan::nothing();
        let question = Confirm { title: "Save as a rule", question: String::new(), plan };
        let mut saving = Self { choices, chosen: 0, limits, question };
        saving.ask();
        saving
    }

    /// The next choice, or the one before.
    pub(super) fn choose(&mut self, next: bool) {
        let count = self.choices.len();
        self.chosen = (self.chosen + if next { 1 } else { count - 1 }) % count;
        self.ask();
    }

    fn ask(&mut self) {
        let (words, limits) = (&self.choices[self.chosen].0, &self.limits);
        let others = match self.choices.len() {
            1 => String::new(),
            count => format!(" (Choice {} of {count}; Right and Left show the others.)", self.chosen + 1),
        };
        self.question.question =
            format!("{words}: {limits}, from now on and after each start. Save this as a rule?{others}");
    }
}

/// The rule for a choice. None for a process, and what it starts.
fn rule(choice: &Choice, limits: Limits, traffic: TrafficType) -> Option<NewRule> {
    let condition = match &choice.subject {
        Some(Subject::Process(_) | Subject::Descendants(_)) => return None,
        Some(Subject::Program(path)) => ("program", Pattern::escaped(path.to_str()?)),
        // Made anew it has the same name, and another cgroup.
        Some(Subject::Cgroup(_)) if choice.container.is_some() => ("container", choice.container.clone()?),
        Some(Subject::Cgroup(path)) => match path.rsplit('/').next().filter(|name| is_named(name)) {
            Some(name) => ("unit", Pattern::escaped(name)),
            None => ("cgroup", path.clone()),
        },
        // A user whose number is not known here is one by name.
        Some(Subject::User(_)) | None => ("user", choice.name.clone()),
    };
    let rate = |key, limit: Option<u64>| limit.map(|limit| (key, exactly(limit)));
    let traffic = (traffic != TrafficType::All).then(|| ("traffic", traffic.name().to_owned()));
    let settings = [rate("upload", limits.upload), rate("download", limits.download), traffic];
    Some(NewRule {
        name: choice.name.clone(),
        conditions: vec![condition],
        settings: settings.into_iter().flatten().collect(),
        ..NewRule::default()
    })
}

/// A limit as it is written: short where that is just it.
fn exactly(limit: u64) -> String {
    crate::rate::Rate(limit).written()
}

fn in_words(limits: Limits) -> String {
    let direction =
        |limit: Option<u64>, name: &str| {
            limit.map(|limit| {
                if limit == 0 { format!("nothing {name}") } else { format!("{}B/s {name}", scaled(limit)) }
            })
        };
    let both = [direction(limits.upload, "up"), direction(limits.download, "down")];
    both.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::ProcessId;

    fn saved(subject: Option<Subject>, name: &str) -> Option<NewRule> {
        let choice = Choice {
            subject,
            name: name.into(),
            words: String::new(),
            container: name.strip_prefix("docker ").map(str::to_owned),
            members: Vec::new(),
            now: Limits::default(),
            traffic: TrafficType::All,
            warning: None,
        };
        rule(&choice, Limits { upload: Some(1_500_000), download: Some(1_234_567) }, TrafficType::Local)
    }

    #[test]
    fn a_rule_is_for_what_comes_back_and_never_for_a_pid() {
        let id = ProcessId { pid: 7, start_time: 1 };
        assert_eq!(saved(Some(Subject::Process(id)), "curl"), None);
        assert_eq!(saved(Some(Subject::Descendants(id)), "curl"), None);
        let conditions = |subject, name| saved(subject, name).map(|rule| rule.conditions);
        let is = |key, text: &str| Some(vec![(key, text.to_owned())]);
        assert_eq!(conditions(Some(Subject::Program("/a/[b]".into())), "b"), is("program", "/a/\\[b]"));
        assert_eq!(conditions(Some(Subject::Cgroup("/s/x.service".into())), "x"), is("unit", "x.service"));
        assert_eq!(conditions(Some(Subject::Cgroup("/pods/1".into())), "1"), is("cgroup", "/pods/1"));
        let cgroup = || Some(Subject::Cgroup("/docker/4c01".into()));
        assert_eq!(conditions(cgroup(), "docker web"), is("container", "web"));
        assert_eq!(conditions(None, "ada"), is("user", "ada"));
        let settings = saved(None, "ada").expect("a rule").settings;
        let expected = [("upload", "1.5M"), ("download", "1234567"), ("traffic", "local")];
        assert_eq!(settings, expected.map(|(key, text)| (key, text.to_owned())));
    }
}
