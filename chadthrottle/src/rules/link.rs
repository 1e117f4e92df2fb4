//! Links: rates that several rules share, and what each of them has to say about that.

use std::{collections::HashMap, fmt, ops::Range, sync::Arc};

use toml_edit::{Item, TableLike};

use super::{Rule, Scope, read::rule_name};
use crate::{
    backends::throttle::manager::Limits,
    config::{Place, Problem, Reader, Section, nearest},
    rate::{Rate, scaled},
};

const KEYS: [&str; 3] = ["name", "upload", "download"];
/// No key of a link. Many would look for it, and are told what there is instead.
const INTERFACE: &str = "interface";
const DIRECTIONS: [&str; 2] = ["upload", "download"];

/// The priorities that there are, as HTB's are numbered: the lowest number comes first.
pub const PRIORITIES: std::ops::RangeInclusive<u8> = 1..=7;
/// The one in the middle.
pub const USUAL_PRIORITY: u8 = 4;
/// The weights that there are.
pub const WEIGHTS: std::ops::RangeInclusive<u32> = 1..=1000;

/// A rate that is shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// What it is called; no two are called the same.
    pub name: String,
    /// Where it stands.
    pub place: Place,
    /// What all may send and receive together, in IP bytes a second; in a direction without it nothing is shared.
    pub rates: Limits,
}

/// What a rule has of a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Share {
    /// Of which.
    pub link: Arc<Link>,
    /// Who comes first when something is left: see [`PRIORITIES`].
    pub priority: u8,
    /// How much more than others of the same priority: see [`WEIGHTS`].
    pub weight: u32,
    /// What it has as soon as it wants it, in IP bytes a second.
    pub guaranteed: Limits,
}

impl Share {
    /// What it may have at most, where its own limits are these.
    #[must_use]
    pub fn ceiling(&self, own: Limits) -> Limits {
        let lower = |own: Option<u64>, link: Option<u64>| own.into_iter().chain(link).min();
        Limits {
            upload: lower(own.upload, self.link.rates.upload),
            download: lower(own.download, self.link.rates.download),
        }
    }
}

impl fmt::Display for Share {
    /// `link "home", priority 1, weight 2, 1M up guaranteed`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "link {:?}, priority {}", self.link.name, self.priority)?;
        if self.weight != *WEIGHTS.start() {
            write!(f, ", weight {}", self.weight)?;
        }
        for (rate, way) in [(self.guaranteed.upload, "up"), (self.guaranteed.download, "down")] {
            if let Some(rate) = rate {
                write!(f, ", {} {way} guaranteed", scaled(rate))?;
            }
        }
        Ok(())
    }
}

/// Links by their names.
#[derive(Debug, Default)]
pub(crate) struct Links(Vec<Arc<Link>>);

impl Links {
    /// Reads `[[link]]` of one more file.
    pub(crate) fn read(&mut self, reader: &mut Reader<'_>, item: &Item) {
        if let Some(tables) = item.as_array_of_tables() {
            for table in tables {
                self.add(reader, table, table.span());
            }
        } else if let Some(array) = item.as_array() {
            for value in array {
                match value.as_inline_table() {
                    Some(table) => self.add(reader, table, value.span()),
                    None => reader.complain(value.span(), "a link is to be a table"),
                }
            }
        } else {
            reader.complain(item.span(), "links are written as [[link]], in two brackets, one for each");
        }
    }

    fn add(&mut self, reader: &mut Reader<'_>, table: &dyn TableLike, span: Option<Range<usize>>) {
        let before = reader.problems.len();
        let wants_interface = table.contains_key(INTERFACE);
        let known: Vec<&str> = KEYS.into_iter().chain(wants_interface.then_some(INTERFACE)).collect();
        let section = reader.table(table, "[[link]]", &known);
        if wants_interface {
            let message = "a link is of all interfaces that its instance limits: give those with --interface to a daemon of \
                           their own, which reads this link from a file of its own (docs/RULES.md, Links)";
            reader.complain(section.key_span(INTERFACE), message);
        }
        let name = reader.parsed(&section, "name", rule_name).map(|field| field.value).unwrap_or_default();
        if section.item("name").is_none() {
            reader.complain(span.clone(), "the link has no name; give it one: name = \"home\"");
        }
        let rates = rates(reader, &section);
        if rates.is_empty() && reader.problems.len() == before {
            reader.complain(span.clone(), "the link has no rate; give it upload, download or both");
        }
        if let Some(other) = self.0.iter().find(|link| link.name == name && !name.is_empty()) {
            let message = format!("two links are called {name:?}: the other one is at {}", other.place);
            reader.complain(span.clone(), message);
        }
        // Also a wrong one: that a rule names it is no mistake of the rule's.
        self.0.push(Arc::new(Link { name, place: reader.source.place(span), rates }));
    }

    /// What a rule says about its link. `own` are its limits.
    pub(super) fn share(
        &self,
        reader: &mut Reader<'_>,
        section: &Section<'_>,
        own: Limits,
        scope: Scope,
    ) -> Option<Share> {
        let priority = reader.number(section, "priority", PRIORITIES);
        let weight = reader.number(section, "weight", WEIGHTS);
        let guaranteed = section.item("guaranteed").map(|item| guaranteed(reader, section, item));
        let Some(named) = reader.text(section, "link") else {
            for key in ["priority", "weight", "guaranteed"] {
                if section.item("link").is_none() && section.item(key).is_some() {
                    let message =
                        format!("{key} says how a link is shared, and the rule has none: link = \"home\"");
                    reader.complain(section.key_span(key), message);
                }
            }
            return None;
        };
        let Some(link) = self.0.iter().find(|link| link.name == named.value) else {
            reader.complain(named.span, self.unknown(named.value));
            return None;
        };
        if scope == Scope::Each {
            let message = "those of a rule with a link share it together; leave scope = \"each\" out";
            reader.complain(section.key_span("scope"), message);
        }
        let share = Share {
            link: Arc::clone(link),
            priority: priority.unwrap_or(USUAL_PRIORITY),
            weight: weight.unwrap_or(*WEIGHTS.start()),
            guaranteed: match guaranteed {
                Some(Guaranteed::Both(rate)) => Limits {
                    upload: link.rates.upload.map(|_| rate),
                    download: link.rates.download.map(|_| rate),
                },
                Some(Guaranteed::Each(rates)) => rates,
                None => Limits::default(),
            },
        };
        check_guaranteed(reader, section, &share, own);
        Some(share)
    }

    fn unknown(&self, name: &str) -> String {
        let known: Vec<&str> = self.0.iter().map(|link| link.name.as_str()).collect();
        let meant = nearest(name, &known).map(|meant| format!(" (did you mean {meant:?}?)"));
        let there = match known.as_slice() {
            [] => "there is none; write one as [[link]], with name and upload or download".to_owned(),
            known => format!("there are: {}", known.join(", ")),
        };
        format!("{name:?} is no link{}; {there}", meant.unwrap_or_default())
    }
}

/// Rates above zero.
fn rates(reader: &mut Reader<'_>, section: &Section<'_>) -> Limits {
    let [upload, download] =
        DIRECTIONS.map(|key| reader.parsed(section, key, positive).map(|field| field.value));
    Limits { upload, download }
}

fn positive(typed: &str) -> Result<u64, String> {
    match typed.parse::<Rate>() {
        Ok(Rate(0)) => Err(format!("{typed:?} is nothing that could be shared")),
        Ok(Rate(rate)) => Ok(rate),
        Err(error) => Err(error.to_string()),
    }
}

/// `guaranteed`, as it is written.
enum Guaranteed {
    /// One rate, for each direction that the link has.
    Both(u64),
    /// A table.
    Each(Limits),
}

fn guaranteed(reader: &mut Reader<'_>, section: &Section<'_>, item: &Item) -> Guaranteed {
    if item.is_table_like() {
        let section = reader.section(item, "guaranteed", &DIRECTIONS);
        return Guaranteed::Each(section.map(|section| rates(reader, &section)).unwrap_or_default());
    }
    let rate = reader.parsed(section, "guaranteed", positive).map(|field| field.value);
    rate.map_or(Guaranteed::Each(Limits::default()), Guaranteed::Both)
}

fn check_guaranteed(reader: &mut Reader<'_>, section: &Section<'_>, share: &Share, own: Limits) {
    let span = || section.item("guaranteed").and_then(Item::span);
    let (link, all) = (&share.link, &share.guaranteed);
    for (way, rate, own, of_link) in [
        ("upload", all.upload, own.upload, link.rates.upload),
        ("download", all.download, own.download, link.rates.download),
    ] {
        let Some(rate) = rate else { continue };
        if of_link.is_none() {
            reader.complain(span(), format!("guaranteed: link {:?} has no {way} that is shared", link.name));
        } else if own.is_some_and(|own| rate > own) {
            let message = format!("guaranteed: {} of {way} is more than the rule's own limit", scaled(rate));
            reader.complain(span(), message);
        }
    }
}

/// What is wrong with the guarantees of a link together: they come to more than it has. Rules with times are each taken
/// with those that have none; where more of them meet, each gets its part of what there is.
pub(crate) fn conflicts(rules: &[Rule]) -> Vec<Problem> {
    let mut always: HashMap<&str, [u64; 2]> = HashMap::new();
    let mut problems = Vec::new();
    let both = |limits: Limits| [limits.upload.unwrap_or_default(), limits.download.unwrap_or_default()];
    let is_always = |rule: &&Rule| rule.enabled && rule.schedule.is_none();
    for with_times in [false, true] {
        for rule in rules.iter().filter(|rule| rule.enabled && is_always(rule) != with_times) {
            let Some(share) = &rule.share else { continue };
            let so_far = always.get(share.link.name.as_str()).copied().unwrap_or_default();
            let guaranteed = both(share.guaranteed);
            let sums = [0, 1].map(|way| so_far[way].saturating_add(guaranteed[way]));
            if !with_times {
                always.insert(&share.link.name, sums);
            }
            for (way, name) in DIRECTIONS.iter().enumerate() {
                let has = both(share.link.rates)[way];
                if guaranteed[way] > 0 && sums[way] > has && has > 0 {
                    let message = format!(
                        "rule {:?}: with it {} of {name} is guaranteed on link {:?}, which has {} (at {})",
                        rule.name,
                        scaled(sums[way]),
                        share.link.name,
                        scaled(has),
                        share.link.place
                    );
                    problems.push(Problem { place: rule.place.clone(), message });
                }
            }
        }
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::read::tests::rules;

    const HOME: &str = "[[link]]\nname = \"home\"\nupload = \"10M\"\ndownload = \"50M\"\n";

    fn rule(name: &str, more: &str) -> String {
        format!("[[rule]]\nname = \"{name}\"\nmatch.name = \"{name}\"\n{more}\n")
    }

    #[test]
    fn a_rule_says_what_it_has_of_a_link_wherever_that_stands() {
        let text = rule("calls", "link = \"home\"\npriority = 1\nweight = 3\nguaranteed = \"2M\"")
            + &rule("rest", "link = \"home\"\nupload = \"5M\"\nguaranteed = { download = \"1M\" }")
            + HOME;
        let rules = rules(&text).expect("nothing is wrong");
        let shares: Vec<&Share> = rules.iter().filter_map(|rule| rule.share.as_ref()).collect();
        assert_eq!((shares[0].priority, shares[0].weight), (1, 3));
        assert_eq!(shares[0].guaranteed, Limits { upload: Some(2_000_000), download: Some(2_000_000) });
        assert_eq!((shares[1].priority, shares[1].weight), (USUAL_PRIORITY, 1));
        assert_eq!(shares[1].guaranteed, Limits { upload: None, download: Some(1_000_000) });
        let ceiling = shares[1].ceiling(rules[1].limits);
        assert_eq!(ceiling, Limits { upload: Some(5_000_000), download: Some(50_000_000) });
        assert_eq!(
            shares[0].to_string(),
            "link \"home\", priority 1, weight 3, 2M up guaranteed, 2M down guaranteed"
        );
    }

    #[test]
    fn what_is_wrong_is_told_where_it_stands() {
        let with = |rule: &str| format!("{HOME}{rule}");
        let named = |more: &str| with(&rule("a", &format!("link = \"home\"\n{more}")));
        for (text, words) in [
            ("[[link]]\nupload = \"1M\"".to_owned(), "1:1: the link has no name"),
            ("[[link]]\nname = \"x\"".to_owned(), "1:1: the link has no rate"),
            ("[link]\nname = \"x\"".to_owned(), "1:1: links are written as [[link]]"),
            ("[[link]]\nname = \"x\"\nupload = \"0\"".to_owned(), "3:10: upload: \"0\" is nothing"),
            (with(HOME), "5:1: two links are called \"home\""),
            (
                format!("{HOME}interface = \"eth0\"\n"),
                "5:1: a link is of all interfaces that its instance limits",
            ),
            (with(&rule("a", "link = \"hom\"")), "8:8: \"hom\" is no link (did you mean \"home\"?)"),
            (rule("a", "link = \"home\""), "4:8: \"home\" is no link; there is none"),
            (with(&rule("a", "upload = \"1M\"\npriority = 1")), "9:1: priority says how a link is shared"),
            (named("priority = 8"), "9:12: priority of [[rule]] is to be a number from 1 to 7"),
            (named("weight = \"1\""), "9:10: weight of [[rule]] is to be a number from 1 to 1000"),
            (named("scope = \"each\""), "9:1: those of a rule with a link share it together"),
            (named("guaranteed = \"11M\""), "5:1: rule \"a\": with it 11M of upload is guaranteed"),
            (named("upload = \"1M\"\nguaranteed = \"2M\""), "10:14: guaranteed: 2M of upload is more"),
        ] {
            let told = rules(&text).expect_err(&text).to_string();
            assert!(told.contains(&format!("config.toml:{words}")), "{text}\n{told}");
        }
    }

    #[test]
    fn guarantees_come_to_no_more_than_the_link_has() {
        let share =
            |name: &str, more: &str| rule(name, &format!("link = \"home\"\nguaranteed = \"6M\"\n{more}"));
        let told = |one: &str, other: &str| rules(&(HOME.to_owned() + &share("a", one) + &share("b", other)));
        let error = told("", "").expect_err("12M of 10M").to_string();
        assert!(
            error.contains("rule \"b\": with it 12M of upload is guaranteed on link \"home\", which has 10M"),
            "{error}"
        );
        assert!(!error.contains("download"), "{error}");
        assert!(told("", "enabled = false").is_ok());
        assert!(told("when = \"Sat\"", "when = \"Sun\"").is_ok(), "never at the same time");
        assert!(told("when = \"Sat\"", "").is_err());
    }
}
