//! `rules`, and `daemon`.

use std::{ops::RangeInclusive, path::PathBuf};

use clap::{ArgGroup, Args, Subcommand, ValueEnum, builder::RangedI64ValueParser};

use crate::{
    backends::throttle::TrafficType,
    rate::Rate,
    rules::{
        Scope,
        edit::NewRule,
        glob::Pattern,
        link::{PRIORITIES, WEIGHTS},
        quota::{Amount, Period},
        read::{cgroup_path, program_path, rule_name},
        schedule::Span,
    },
};

/// What is to be done with rules.
#[derive(Debug, Subcommand)]
pub enum RulesCommand {
    /// Print all rules, whether they are in force now, and where they stand.
    List {
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
    /// Write a rule to the user's file, or to the one that --config names.
    Add(Box<AddRule>),
    /// Take a rule out of the file that it stands in.
    Remove {
        /// What it is called.
        name: String,
    },
    /// Let a rule count again.
    Enable {
        /// What it is called.
        name: String,
    },
    /// Leave a rule where it stands, but let it not count.
    Disable {
        /// What it is called.
        name: String,
    },
    /// Tell what is wrong with the files, with line and column, and otherwise nothing.
    Check {
        /// These files instead of the usual ones.
        #[arg(value_name = "FILE")]
        files: Vec<PathBuf>,
    },
    /// Print which rule holds a process, why, and which others match it.
    Explain {
        /// The process.
        #[arg(value_parser = super::parse_pid, allow_negative_numbers = true)]
        pid: i32,
        /// As JSON.
        #[arg(long)]
        json: bool,
    },
}

/// A rule on the command line.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("rule_match").args(["program", "process_name", "command", "unit", "cgroup", "container", "user"]).multiple(true).required(true))]
#[command(group = ArgGroup::new("rule_limits").args(["upload_limit", "download_limit", "quota_after", "link"]).multiple(true).required(true))]
pub struct AddRule {
    /// What it is to be called.
    #[arg(long, value_name = "NAME", value_parser = rule_name)]
    pub name: String,
    /// Write it to the system's file.
    #[arg(long)]
    pub system: bool,
    /// Whom it is for: who executes this file; * and ** are patterns.
    #[arg(long, value_name = "PATH")]
    pub program: Option<String>,
    /// Who, or whose file, is called so; * is a pattern.
    #[arg(long = "process", id = "process_name", value_name = "NAME")]
    pub process: Option<String>,
    /// Whose arguments are these; * stands for anything.
    #[arg(long, value_name = "PATTERN")]
    pub command: Option<String>,
    /// All of this systemd unit; * is a pattern.
    #[arg(long, value_name = "NAME")]
    pub unit: Option<String>,
    /// All of this cgroup, by its path as in /proc/PID/cgroup.
    #[arg(long, value_name = "PATH")]
    pub cgroup: Option<String>,
    /// All of this container, by its name or the beginning of its number.
    #[arg(long, value_name = "CONTAINER")]
    pub container: Option<String>,
    /// All of this user.
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
    /// Most that they may send, in IP bytes a second; 0 blocks.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub upload_limit: Option<Rate>,
    /// Most that they may receive.
    #[arg(long, value_name = "RATE", allow_negative_numbers = true)]
    pub download_limit: Option<Rate>,
    /// The link that it shares with other rules, which is to stand in the file already.
    #[arg(long, value_name = "LINK", value_parser = rule_name)]
    pub link: Option<String>,
    /// Who has first what others leave of the link: 1 to 7, 1 comes first.
    #[arg(long, value_name = "NUMBER", requires = "link", value_parser = number(PRIORITIES))]
    pub priority: Option<i64>,
    /// How the link is divided among those of one priority: 1 to 1000.
    #[arg(long, value_name = "NUMBER", requires = "link", value_parser = number(WEIGHTS))]
    pub weight: Option<i64>,
    /// What it has of the link as soon as it wants it.
    #[arg(long, value_name = "RATE", requires = "link")]
    pub guaranteed: Option<Rate>,
    /// Which traffic the limits are for.
    #[arg(long, value_name = "TYPE", value_enum)]
    pub traffic: Option<TrafficType>,
    /// Whether they share the limits or each has them.
    #[arg(long, value_name = "SCOPE", value_enum)]
    pub scope: Option<Scope>,
    /// When it is in force: "Mon-Fri 08:00-18:00", "Sat,Sun", "22:00-06:00"; may be given several times.
    #[arg(long, value_name = "TIME")]
    pub when: Vec<Span>,
    /// After so much has passed, other limits hold: 5G.
    #[arg(long, value_name = "AMOUNT", requires = "per")]
    pub quota_after: Option<Amount>,
    /// In which time.
    #[arg(long, value_name = "PERIOD", value_enum, requires = "quota_after", requires = "quota_then")]
    pub per: Option<Period>,
    /// Most that they may send and receive from then on; 0 blocks.
    #[arg(long, value_name = "RATE", requires = "quota_after", allow_negative_numbers = true)]
    pub quota_then: Option<Rate>,
}

impl AddRule {
    /// As it is to stand in a file.
    ///
    /// # Errors
    /// In words, when something of it is no value.
    pub fn written(&self) -> Result<NewRule, String> {
        let mut conditions = Vec::new();
        let mut condition =
            |key: &'static str, given: &Option<String>, check: fn(&str) -> Result<(), String>| {
                let Some(given) = given else { return Ok(()) };
                check(given)?;
                conditions.push((key, given.clone()));
                Ok::<(), String>(())
            };
        condition("program", &self.program, |text| program_path(text).map(drop))?;
        condition("name", &self.process, |text| Pattern::new(text).map(drop))?;
        condition("command", &self.command, |text| Pattern::of_text(text).map(drop))?;
        condition("unit", &self.unit, |text| Pattern::new(text).map(drop))?;
        condition("cgroup", &self.cgroup, |text| cgroup_path(text).map(drop))?;
        condition("container", &self.container, |_| Ok(()))?;
        condition("user", &self.user, |_| Ok(()))?;

        let rate = |key, rate: Option<Rate>| rate.map(|rate| (key, rate.written()));
        let settings = [
            rate("upload", self.upload_limit),
            rate("download", self.download_limit),
            self.traffic.as_ref().map(|traffic| ("traffic", value_name(traffic))),
            self.scope.as_ref().map(|scope| ("scope", value_name(scope))),
            self.link.clone().map(|link| ("link", link)),
            rate("guaranteed", self.guaranteed),
        ];
        let numbers = [("priority", self.priority), ("weight", self.weight)];
        let quota = [
            self.quota_after.map(|after| ("after", after.0.to_string())),
            self.per.map(|per| ("per", per.name().to_owned())),
            rate("upload", self.quota_then),
            rate("download", self.quota_then),
        ];
        Ok(NewRule {
            name: self.name.clone(),
            conditions,
            settings: settings.into_iter().flatten().collect(),
            numbers: numbers.into_iter().filter_map(|(key, number)| Some((key, number?))).collect(),
            when: self.when.iter().map(ToString::to_string).collect(),
            quota: quota.into_iter().flatten().collect(),
        })
    }
}

fn number(range: RangeInclusive<impl Into<i64> + Copy>) -> RangedI64ValueParser {
    RangedI64ValueParser::new().range((*range.start()).into()..=(*range.end()).into())
}

fn value_name<T: ValueEnum>(value: &T) -> String {
    value.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
}
