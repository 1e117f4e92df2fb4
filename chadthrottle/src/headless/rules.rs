//! `rules`: the rules in the files, and why a process is limited.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use jiff::{Timestamp, tz::TimeZone};
use serde::Serialize;

use super::in_words;
use crate::{
    cli::rules::{AddRule, RulesCommand},
    config::{Config, ConfigError, Files},
    daemon::{
        client::{Place, Reached},
        protocol::Request,
    },
    failure::Failure,
    process::{KnownNames, ProcessId},
    rules::{
        Rule, Scope, edit,
        explain::{Outcome, explain},
        host,
        link::Share,
        quota::Quota,
        store,
    },
    sys::cgroup::CgroupRoot,
};

/// Does what was asked for.
///
/// # Errors
/// When the files say something wrong, cannot be written, or have no such rule.
pub fn run(
    command: &RulesCommand,
    files: &Files,
    root: Option<&Path>,
    place: &Place,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    match command {
        RulesCommand::List { json } => list(&Config::load(files)?.rules, *json, out),
        RulesCommand::Add(rule) => add(rule, files, place),
        RulesCommand::Remove { name } => {
            change(files, place, name, "removed", |text| edit::remove(text, name))
        }
        RulesCommand::Enable { name } => {
            change(files, place, name, "enabled", |text| edit::set_enabled(text, name, true))
        }
        RulesCommand::Disable { name } => {
            change(files, place, name, "disabled", |text| edit::set_enabled(text, name, false))
        }
        RulesCommand::Check { files: named } if named.is_empty() => check_usual(files),
        RulesCommand::Check { files: named } => check(named),
        RulesCommand::Explain { pid, json } => explain_process(*pid, files, root, *json, out),
    }
}

/// A rule in JSON.
#[derive(Serialize)]
struct JsonRule<'a> {
    name: &'a str,
    file: String,
    line: usize,
    enabled: bool,
    in_force: bool,
    #[serde(rename = "match")]
    conditions: String,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    traffic: String,
    scope: String,
    when: Option<String>,
    quota: Option<JsonQuota>,
    link: Option<JsonShare<'a>>,
}

#[derive(Serialize)]
struct JsonShare<'a> {
    name: &'a str,
    upload_rate: Option<u64>,
    download_rate: Option<u64>,
    priority: u8,
    weight: u32,
    upload_guaranteed: Option<u64>,
    download_guaranteed: Option<u64>,
}

impl<'a> JsonShare<'a> {
    fn new(share: &'a Share) -> Self {
        let Share { link, priority, weight, guaranteed } = share;
        Self {
            name: &link.name,
            upload_rate: link.rates.upload,
            download_rate: link.rates.download,
            priority: *priority,
            weight: *weight,
            upload_guaranteed: guaranteed.upload,
            download_guaranteed: guaranteed.download,
        }
    }
}

#[derive(Serialize)]
struct JsonQuota {
    after_bytes: u64,
    per: &'static str,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
}

impl<'a> JsonRule<'a> {
    fn new(rule: &'a Rule, now: Timestamp, zone: &TimeZone) -> Self {
        Self {
            name: &rule.name,
            file: rule.place.path.display().to_string(),
            line: rule.place.line,
            enabled: rule.enabled,
            in_force: rule.is_on(now, zone),
            conditions: rule.conditions.to_string(),
            upload_limit: rule.limits.upload,
            download_limit: rule.limits.download,
            traffic: format!("{:?}", rule.traffic).to_lowercase(),
            scope: format!("{:?}", rule.scope).to_lowercase(),
            when: rule.schedule.as_ref().map(ToString::to_string),
            quota: rule.quota.map(|quota| JsonQuota {
                after_bytes: quota.after.0,
                per: quota.per.name(),
                upload_limit: quota.then.upload,
                download_limit: quota.then.download,
            }),
            link: rule.share.as_ref().map(JsonShare::new),
        }
    }
}

fn list(rules: &[Rule], json: bool, out: &mut impl Write) -> anyhow::Result<()> {
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    if json {
        let rules: Vec<_> = rules.iter().map(|rule| JsonRule::new(rule, now, &zone)).collect();
        writeln!(out, "{}", serde_json::to_string(&rules)?)?;
        return Ok(());
    }
    for rule in rules {
        let state = match (rule.enabled, rule.is_on(now, &zone)) {
            (false, _) => "disabled",
            (true, false) => "not now",
            (true, true) => "in force",
        };
        writeln!(out, "{:<8}  {}: {}", state, rule.name, what(rule))?;
        writeln!(out, "{:<8}  {}", "", rule.place.line())?;
    }
    Ok(())
}

/// `program /usr/bin/curl: 1M up, each, Sat,Sun`.
fn what(rule: &Rule) -> String {
    let mut parts = vec![format!("{}: {}", rule.conditions, in_words(rule.limits))];
    if rule.limits.is_empty() {
        let instead = if rule.share.is_some() { "as its link allows" } else { "no limit" };
        parts = vec![format!("{}: {instead}", rule.conditions)];
    }
    parts.extend(rule.share.as_ref().map(ToString::to_string));
    if rule.traffic != crate::backends::throttle::TrafficType::All {
        parts.push(format!("{:?} traffic alone", rule.traffic).to_lowercase());
    }
    if rule.scope == Scope::Each {
        parts.push("each process for itself".into());
    }
    parts.extend(rule.schedule.as_ref().map(ToString::to_string));
    parts.extend(rule.quota.as_ref().map(quota));
    parts.join("; ")
}

fn quota(quota: &Quota) -> String {
    format!("after {} a {}: {}", quota.after, quota.per.name(), in_words(quota.then))
}

fn add(rule: &AddRule, files: &Files, place: &Place) -> anyhow::Result<()> {
    let new = rule.written().map_err(Failure::Usage)?;
    let path = store::add(files, &new, rule.system)?;
    eprintln!("chadthrottle: rule {:?} added to {}", new.name, path.display());
    tell_daemon(place, &path)
}

fn change(
    files: &Files,
    place: &Place,
    name: &str,
    done: &str,
    edit: impl FnOnce(&str) -> Result<String, String>,
) -> anyhow::Result<()> {
    let path = store::change(files, name, edit)?;
    eprintln!("chadthrottle: rule {name:?} {done} in {}", path.display());
    tell_daemon(place, &path)
}

/// Has a daemon that reads this file read it again.
fn tell_daemon(place: &Place, changed: &Path) -> anyhow::Result<()> {
    let Reached::Daemon(mut client) = place.reach()? else { return Ok(()) };
    if !client.daemon.files.iter().any(|file| Path::new(file) == changed) {
        return Ok(());
    }
    if client.daemon.may_change {
        client.change(&Request::Reload)?;
        eprintln!("chadthrottle: the daemon has read it");
    } else {
        eprintln!("chadthrottle: the daemon does not take changes from you: it reads the file on SIGHUP");
    }
    Ok(())
}

/// Reads each file by itself.
fn check(files: &[PathBuf]) -> anyhow::Result<()> {
    let mut problems = Vec::new();
    for path in files {
        match Config::load(&Files::only(path)) {
            Err(ConfigError::Wrong(more)) => problems.extend(more),
            other => drop(other?),
        }
    }
    if problems.is_empty() { Ok(()) } else { Err(ConfigError::Wrong(problems).into()) }
}

/// A process and the rules that match it, in JSON.
#[derive(Serialize)]
struct JsonExplained<'a> {
    pid: i32,
    start_time: u64,
    name: &'a str,
    exe: Option<&'a str>,
    user: Option<&'a str>,
    cgroup: &'a str,
    container: Option<&'a str>,
    rules: Vec<JsonVerdict<'a>>,
}

#[derive(Serialize)]
struct JsonVerdict<'a> {
    outcome: &'static str,
    subject: Option<String>,
    from_first_packet: Option<bool>,
    why: String,
    #[serde(flatten)]
    rule: JsonRule<'a>,
}

fn explain_process(
    pid: i32,
    files: &Files,
    root: Option<&Path>,
    json: bool,
    out: &mut impl Write,
) -> anyhow::Result<()> {
    let config = Config::load(files)?;
    let id = ProcessId::running(pid)?;
    let mut names = KnownNames::default();
    let facts = host::process(id, &mut names).ok_or_else(|| {
        Failure::Usage(format!("{pid} is a thread of the kernel, or has ended: no rule is for it"))
    })?;
    let root = CgroupRoot::open(root).ok();
    let subjects: Vec<_> =
        config.rules.iter().map(|rule| host::subjects(rule, root.as_ref(), &mut names)).collect();
    let (now, zone) = (Timestamp::now(), TimeZone::system());
    let verdicts = explain(&config.rules, &subjects, &facts, now, &zone);
    if json {
        let rules = verdicts.iter().map(|verdict| {
            let rule = &config.rules[verdict.rule];
            let subject = match &verdict.outcome {
                Outcome::Holds(subject) => Some(subject),
                _ => None,
            };
            JsonVerdict {
                outcome: verdict.outcome.name(),
                subject: subject.map(ToString::to_string),
                from_first_packet: subject.map(|subject| subject.process().is_none()),
                why: verdict.outcome.describe(rule),
                rule: JsonRule::new(rule, now, &zone),
            }
        });
        let explained = JsonExplained {
            pid,
            start_time: id.start_time,
            name: &facts.name,
            exe: facts.exe.as_deref(),
            user: facts.user.as_deref(),
            cgroup: &facts.cgroup,
            container: facts.container.as_deref(),
            rules: rules.collect(),
        };
        writeln!(out, "{}", serde_json::to_string(&explained)?)?;
        return Ok(());
    }
    let exe = facts.exe.as_deref().unwrap_or("a file of a container");
    let user = facts.user.as_deref().unwrap_or("?");
    let container = facts.container.as_ref().map(|name| format!("container {name}, ")).unwrap_or_default();
    writeln!(out, "{} ({pid}): {exe}, user {user}, {container}{}", facts.name, facts.cgroup)?;
    if verdicts.is_empty() {
        writeln!(out, "No rule matches it.")?;
    }
    for verdict in &verdicts {
        let rule = &config.rules[verdict.rule];
        writeln!(out, "rule {} {}", rule.describe(), verdict.outcome.describe(rule))?;
        writeln!(out, "    {}", what(rule))?;
    }
    Ok(())
}

/// All files that count, together.
fn check_usual(files: &Files) -> anyhow::Result<()> {
    let config = Config::load(files)?;
    let read: Vec<String> = config.files.iter().map(|path| path.display().to_string()).collect();
    let read = if read.is_empty() { "no file is there".to_owned() } else { read.join(", ") };
    eprintln!("chadthrottle: {} rules, nothing wrong: {read}", config.rules.len());
    Ok(())
}
