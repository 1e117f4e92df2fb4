//! Rules as they stand in a file.

use std::ops::Range;

use toml_edit::{Item, TableLike};

use super::{
    Rule, Scope,
    conditions::Conditions,
    glob::Pattern,
    link::Links,
    quota::{Amount, Counted, Period, Quota},
    schedule::{Schedule, Span},
};
use crate::{
    backends::throttle::manager::Limits,
    config::{Reader, Section, chosen},
    rate::Rate,
};

const KEYS: [&str; 13] = [
    "name",
    "enabled",
    "match",
    "upload",
    "download",
    "traffic",
    "scope",
    "when",
    "quota",
    "link",
    "priority",
    "weight",
    "guaranteed",
];
const CONDITIONS: [&str; 7] = ["program", "name", "command", "unit", "cgroup", "container", "user"];
const QUOTA: [&str; 5] = ["after", "per", "count", "upload", "download"];

/// Reads `[[rule]]`, of which some share these links.
pub(crate) fn read(reader: &mut Reader<'_>, item: &Item, links: &Links) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(tables) = item.as_array_of_tables() {
        rules.extend(tables.iter().filter_map(|table| rule(reader, table, table.span(), links)));
    } else if let Some(array) = item.as_array() {
        for value in array {
            match value.as_inline_table() {
                Some(table) => rules.extend(rule(reader, table, value.span(), links)),
                None => reader.complain(value.span(), "a rule is to be a table"),
            }
        }
    } else {
        reader.complain(item.span(), "rules are written as [[rule]], in two brackets, one for each");
    }
    rules
}

/// One of them. None, with a complaint, where it is not to be used.
fn rule(
    reader: &mut Reader<'_>,
    table: &dyn TableLike,
    span: Option<Range<usize>>,
    links: &Links,
) -> Option<Rule> {
    let before = reader.problems.len();
    let section = reader.table(table, "[[rule]]", &KEYS);
    let name = reader.parsed(&section, "name", rule_name);
    if section.item("name").is_none() {
        reader.complain(span.clone(), "the rule has no name; give it one: name = \"updates\"");
    }
    let conditions = section.item("match").and_then(|item| conditions(reader, item));
    if section.item("match").is_none() {
        let message = "the rule matches nobody; say whom it is for: match = { program = \"/usr/bin/curl\" }";
        reader.complain(span.clone(), message);
    }
    let limits = limits(reader, &section);
    let quota = section.item("quota").and_then(|item| quota(reader, item));
    let scope = chosen::<Scope>(reader, &section, "scope").unwrap_or_default();
    let share = links.share(reader, &section, limits, scope);
    let limits_something = !limits.is_empty() || section.item("quota").is_some() || share.is_some();
    if !limits_something && reader.problems.len() == before {
        reader.complain(span.clone(), "the rule limits nothing; give it upload, download, quota or link");
    }
    if let Some(conditions) = conditions.as_ref().filter(|conditions| conditions.command.is_some())
        && quota.is_some()
    {
        // The history does not know it, since it is gone with the process.
        let message =
            format!("a quota cannot be counted by a command line ({conditions}); use name or program");
        reader.complain(section.key_span("quota"), message);
    }
    let rule = Rule {
        name: name.map(|field| field.value).unwrap_or_default(),
        place: reader.source.place(span),
        enabled: reader.flag(&section, "enabled").is_none_or(|field| field.value),
        conditions: conditions.unwrap_or_default(),
        limits,
        share,
        traffic: chosen(reader, &section, "traffic").unwrap_or_default(),
        scope,
        schedule: schedule(reader, &section),
        quota,
    };
    (reader.problems.len() == before).then_some(rule)
}

/// A name that can be typed and shown.
///
/// # Errors
/// In words, when it is none.
pub fn rule_name(typed: &str) -> Result<String, String> {
    if typed.trim().is_empty() || typed.chars().any(char::is_control) {
        return Err(format!("{typed:?} is no name that could be told"));
    }
    Ok(typed.to_owned())
}

fn conditions(reader: &mut Reader<'_>, item: &Item) -> Option<Conditions> {
    let section = reader.section(item, "match", &CONDITIONS)?;
    let mut text = |key: &str| {
        let not_empty =
            |typed: &str| if typed.is_empty() { Err("it is empty") } else { Ok(typed.to_owned()) };
        reader.parsed(&section, key, not_empty).map(|field| field.value)
    };
    let (container, user) = (text("container"), text("user"));
    let cgroup = reader.parsed(&section, "cgroup", cgroup_path).map(|field| field.value);
    let mut pattern = |key: &str, parse: fn(&str) -> Result<Pattern, String>| {
        reader.parsed(&section, key, parse).map(|field| field.value)
    };
    let conditions = Conditions {
        program: pattern("program", program_path),
        name: pattern("name", Pattern::new),
        command: pattern("command", Pattern::of_text),
        unit: pattern("unit", Pattern::new),
        cgroup,
        container,
        user,
    };
    if section.keys().next().is_none() {
        reader.complain(item.span(), format!("match is empty; there are: {}", CONDITIONS.join(", ")));
    }
    Some(conditions)
}

/// The path of a program, or a pattern of some.
///
/// # Errors
/// In words, when it is none.
pub fn program_path(typed: &str) -> Result<Pattern, String> {
    if !typed.starts_with('/') && !typed.starts_with("**/") {
        return Err(format!("{typed:?} is no path from the root; give one, or use name = {typed:?}"));
    }
    Pattern::new(typed)
}

/// A path in the tree of cgroups.
///
/// # Errors
/// In words, when it is none.
pub fn cgroup_path(typed: &str) -> Result<String, String> {
    let trimmed = typed.trim_end_matches('/');
    match trimmed {
        _ if !typed.starts_with('/') => Err(format!("{typed:?} is no path as in /proc/PID/cgroup")),
        "" => Ok("/".into()),
        trimmed => Ok(trimmed.to_owned()),
    }
}

fn limits(reader: &mut Reader<'_>, section: &Section<'_>) -> Limits {
    let mut rate = |key: &str| reader.parsed(section, key, str::parse::<Rate>).map(|field| field.value.0);
    Limits { upload: rate("upload"), download: rate("download") }
}

fn schedule(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Schedule> {
    let mut spans = Vec::new();
    let fields = reader.texts(section, "when")?;
    if fields.is_empty() {
        reader.complain(section.key_span("when"), "when is empty: the rule would never be in force");
    }
    for field in fields {
        match field.value.parse::<Span>() {
            Ok(span) => spans.push(span),
            Err(message) => reader.complain(field.span, message),
        }
    }
    Some(Schedule::new(spans))
}

fn quota(reader: &mut Reader<'_>, item: &Item) -> Option<Quota> {
    let section = reader.section(item, "quota", &QUOTA)?;
    let after = reader.parsed(&section, "after", str::parse::<Amount>);
    let per = chosen::<Period>(reader, &section, "per");
    let count = chosen::<Counted>(reader, &section, "count").unwrap_or_default();
    let then = limits(reader, &section);
    if ["after", "per"].iter().any(|key| section.item(key).is_none()) || then.is_empty() {
        let message = "quota is to say after how much, per what, and what holds then: { after = \"5G\", per = \"day\", \
                       download = \"1M\" }";
        reader.complain(item.span(), message);
    }
    Some(Quota { after: after?.value, per: per?, count, then })
}

#[cfg(test)]
pub(crate) mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::{Config, ConfigError, Source};

    /// The rules in a file with this text.
    pub(crate) fn rules(text: &str) -> Result<Vec<Rule>, ConfigError> {
        Config::of(&[Source::new(Path::new("config.toml"), text.into())]).map(|config| config.rules)
    }

    #[test]
    fn a_rule_has_all_that_it_can_have() {
        let text = r#"
[[rule]]
name = "updates"
match = { program = "/usr/bin/apt*", user = "root" }
upload = "1M"
download = "0"
traffic = "internet"
scope = "each"
when = ["Mon-Fri 08:00-18:00", "Sat"]
quota = { after = "5G", per = "day", count = "download", upload = "100K" }

[[rule]]
name = "backup"
enabled = false
match.unit = "backup.service"
upload = "10mbit"
"#;
        let rules = rules(text).expect("nothing is wrong");
        let [updates, backup] = rules.as_slice() else { panic!("two rules: {rules:?}") };
        assert_eq!(updates.conditions.to_string(), "program /usr/bin/apt*, user root");
        assert_eq!(updates.limits, Limits { upload: Some(1_000_000), download: Some(0) });
        assert_eq!(
            updates.schedule.as_ref().map(ToString::to_string).as_deref(),
            Some("Mon,Tue,Wed,Thu,Fri 08:00-18:00; Sat")
        );
        assert_eq!(updates.quota.map(|quota| quota.then.upload), Some(Some(100_000)));
        assert_eq!((updates.scope, updates.place.line), (Scope::Each, 2));
        assert_eq!((backup.enabled, backup.place.line), (false, 12));
    }

    #[test]
    fn what_is_wrong_is_told_where_it_stands() {
        for (text, words) in [
            ("[[rule]]\nmatch.name = \"x\"\nupload = \"1M\"", "1:1: the rule has no name"),
            ("[[rule]]\nname = \"a\"\nupload = \"1M\"", "1:1: the rule matches nobody"),
            ("[[rule]]\nname = \"a\"\nmatch.name = \"x\"", "1:1: the rule limits nothing"),
            (
                "[[rule]]\nname = \"a\"\nmatch.name = \"x\"\nupload = \"fast\"",
                "4:10: upload: \"fast\" is not a rate",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.name = \"x\"\nupload = 5",
                "4:10: upload of [[rule]] is to be a text",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.nam = \"x\"\nupload = \"1\"",
                "\"nam\" is no key of match (did you mean \"name\"?)",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.program = \"curl\"\nupload = \"1\"",
                "3:17: program: \"curl\" is no path",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.unit = \"[x\"\nupload = \"1\"",
                "3:14: unit: \"[x\": a [ that is not closed",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.name = \"x\"\nupload = \"1\"\nwhen = [\"Sat\", \"Xyz\"]",
                "5:16: \"Xyz\" is no time",
            ),
            (
                "[[rule]]\nname = \"a\"\nmatch.name = \"x\"\nquota = { after = \"5G\" }",
                "4:9: quota is to say",
            ),
            ("[rule]\nname = \"a\"", "1:1: rules are written as [[rule]]"),
            ("rule = [1]", "1:9: a rule is to be a table"),
            ("[[rule]]\nname = \"a\"\nmatch = {}\nupload = \"1\"", "3:9: match is empty"),
            (
                "[[rule]]\nname = \"a\"\nmatch.name = \"x\"\nupload = \"1\"\nscope = \"all\"",
                "5:9: scope: \"all\" is none of together, each",
            ),
        ] {
            let told = rules(text).expect_err(text).to_string();
            assert!(told.contains(words) && told.starts_with("config.toml:"), "{text}\n{told}");
        }
    }
}
