//! From what is typed to what it means.

use std::{cmp::Ordering, iter::Peekable, vec::IntoIter};

use regex_lite::RegexBuilder;

use super::{Comparison, Condition, Figure, Pattern, Property, Words};
use crate::rate::Rate;

/// What is typed is no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{words}")]
pub struct FilterError {
    words: String,
}

impl FilterError {
    fn new(words: impl Into<String>) -> Self {
        Self { words: words.into() }
    }
}

/// Brackets in brackets; more is a cat on the keyboard.
const DEEPEST: usize = 32;

/// What a filter means. Nothing where nothing is typed.
pub(super) fn condition(text: &str) -> Result<Option<Condition>, FilterError> {
    let words = split(text)?;
    if words.is_empty() {
        return Ok(None);
    }
    let mut parser = Parser { words: words.into_iter().peekable(), depth: 0 };
    let condition = parser.any()?;
    match parser.words.next() {
        None => Ok(Some(condition)),
        Some(word) => Err(FilterError::new(format!("\"{}\" does not belong here", word.text))),
    }
}

/// A word between spaces and brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Word {
    text: String,
    /// Some of it stood in quotation marks: then it is a text, and no operator.
    quoted: bool,
}

impl Word {
    fn is(&self, operator: &str) -> bool {
        !self.quoted && self.text.eq_ignore_ascii_case(operator)
    }
}

fn split(text: &str) -> Result<Vec<Word>, FilterError> {
    let mut words: Vec<Word> = Vec::new();
    let mut open: Option<Word> = None;
    let mut in_quotes = false;
    // Brackets in a regular expression are its own.
    let mut in_regex = false;
    for character in text.chars() {
        match character {
            '"' => {
                in_quotes = !in_quotes;
                open.get_or_insert(Word { text: String::new(), quoted: true }).quoted = true;
            }
            _ if in_quotes => {
                open.get_or_insert(Word { text: String::new(), quoted: true }).text.push(character);
            }
            ' ' => {
                words.extend(open.take());
                in_regex = false;
            }
            '(' | ')' if !in_regex => {
                words.extend(open.take());
                words.push(Word { text: character.into(), quoted: false });
            }
            _ => {
                in_regex |= character == '~';
                open.get_or_insert(Word { text: String::new(), quoted: false }).text.push(character);
            }
        }
    }
    words.extend(open);
    if in_quotes { Err(FilterError::new("a quotation mark is not closed")) } else { Ok(words) }
}

struct Parser {
    words: Peekable<IntoIter<Word>>,
    depth: usize,
}

impl Parser {
    fn any(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.all()?];
        while self.words.next_if(|word| word.is("or")).is_some() {
            conditions.push(self.all()?);
        }
        Ok(one_or(conditions, Condition::Any))
    }

    fn all(&mut self) -> Result<Condition, FilterError> {
        let mut conditions = vec![self.not()?];
        while let Some(next) = self.words.peek() {
            if next.is("or") || next.is(")") {
                break;
            }
            // Between two conditions it may be left out.
            self.words.next_if(|word| word.is("and"));
            conditions.push(self.not()?);
        }
        Ok(one_or(conditions, Condition::All))
    }

    fn not(&mut self) -> Result<Condition, FilterError> {
        let Some(word) = self.words.next() else {
            return Err(FilterError::new("something is missing at the end"));
        };
        if word.is("not") || word.is("!") {
            return self.deeper(Self::not).map(|condition| Condition::Not(Box::new(condition)));
        }
        if word.is("(") {
            let inner = self.deeper(Self::any)?;
            return match self.words.next_if(|word| word.is(")")) {
                Some(_) => Ok(inner),
                None => Err(FilterError::new("a bracket is not closed")),
            };
        }
        if ["and", "or", ")"].iter().any(|operator| word.is(operator)) {
            return Err(FilterError::new(format!("something is missing before \"{}\"", word.text)));
        }
        term(&word)
    }

    fn deeper(
        &mut self,
        parse: impl FnOnce(&mut Self) -> Result<Condition, FilterError>,
    ) -> Result<Condition, FilterError> {
        self.depth += 1;
        if self.depth > DEEPEST {
            return Err(FilterError::new("too many brackets"));
        }
        let condition = parse(self);
        self.depth -= 1;
        condition
    }
}

fn one_or(mut conditions: Vec<Condition>, many: fn(Vec<Condition>) -> Condition) -> Condition {
    if conditions.len() == 1 { conditions.remove(0) } else { many(conditions) }
}

const OPERATORS: [char; 5] = [':', '=', '~', '<', '>'];

fn term(word: &Word) -> Result<Condition, FilterError> {
    let text = word.text.as_str();
    if let Some((_, property)) = Property::ALL.iter().find(|(name, _)| word.is(name)) {
        return Ok(Condition::Is(*property));
    }
    let Some(at) = text.find(OPERATORS) else {
        return Ok(Condition::Text(Words::Any, Pattern::Contains(text.to_lowercase())));
    };
    let (field, rest) = text.split_at(at);
    let length = if rest.starts_with(">=") || rest.starts_with("<=") { 2 } else { 1 };
    let (operator, value) = rest.split_at(length);
    let field = field.to_ascii_lowercase();
    if value.is_empty() {
        return Err(FilterError::new(format!("something is missing after \"{text}\"")));
    }
    if field.is_empty() && operator == "~" {
        return Ok(Condition::Text(Words::Any, regex(value)?));
    }
    if let Some((_, words)) = Words::ALL.iter().find(|(name, _)| *name == field) {
        let pattern = match operator {
            ":" => Pattern::Contains(value.to_lowercase()),
            "=" => Pattern::Equals(value.to_lowercase()),
            "~" => regex(value)?,
            _ => return Err(FilterError::new(format!("{field} is a text: compare it with : = or ~"))),
        };
        return Ok(Condition::Text(*words, pattern));
    }
    if let Some((_, figure)) = Figure::ALL.iter().find(|(name, _)| *name == field) {
        return comparison(&field, operator, value).map(|comparison| Condition::Figure(*figure, comparison));
    }
    let known = Words::ALL.iter().map(|(name, _)| *name).chain(Figure::ALL.iter().map(|(name, _)| *name));
    let known = known.collect::<Vec<_>>().join(", ");
    Err(FilterError::new(format!("there is no field \"{field}\"; there are {known}")))
}

fn comparison(field: &str, operator: &str, value: &str) -> Result<Comparison, FilterError> {
    let (wanted, or_equal) = match operator {
        ">" => (Ordering::Greater, false),
        ">=" => (Ordering::Greater, true),
        "<" => (Ordering::Less, false),
        "<=" => (Ordering::Less, true),
        "=" => (Ordering::Equal, true),
        _ => {
            return Err(FilterError::new(format!("{field} is a figure: compare it with < > <= >= or =")));
        }
    };
    match value.parse::<Rate>() {
        Ok(rate) => Ok(Comparison { wanted, or_equal, bound: rate.0 }),
        Err(_) => Err(FilterError::new(format!("\"{value}\" is no number; give one as 500K, 1.5M, 10mbit"))),
    }
}

/// A regex that is larger than this would take its time each second.
const LARGEST: usize = 1 << 16;

fn regex(text: &str) -> Result<Pattern, FilterError> {
    let regex = RegexBuilder::new(text).case_insensitive(true).size_limit(LARGEST).build();
    regex
        .map(Pattern::Matches)
        .map_err(|error| FilterError::new(format!("\"{text}\" is no regular expression: {error}")))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use crate::{
        app::{filter::Filter, row::Row},
        backends::throttle::TrafficType,
        process::{ProcessId, ProcessInfo},
        stats::{ProcessRow, Traffic},
    };

    fn rows() -> Vec<Row> {
        let row = |pid: i32, name: &str, user: &str, unit: &str, rate: (u64, u64), alive: bool| {
            let info = ProcessInfo {
                id: ProcessId { pid, start_time: 1 },
                name: name.into(),
                exe: Some(format!("/usr/bin/{name}").into()),
                user: Some(user.into()),
                cgroup: Some(format!("/system.slice/{unit}.service")),
                container: None,
            };
            let rate = Traffic { upload: rate.0, download: rate.1 };
            ProcessRow::new(Arc::new(info), rate, rate, alive)
        };
        let mut rows = Row::merge(
            &[
                row(1, "curl", "ada", "app", (10, 2_000_000), true),
                row(2, "nginx", "root", "web", (5_000, 10), true),
                row(3, "nginx", "www-data", "web", (0, 0), false),
                row(4, "and", "ada", "app", (0, 999_999), true),
            ],
            &[],
            TrafficType::All,
        );
        rows[1].limits.upload = Some(0);
        rows[0].limits.download = Some(1000);
        rows
    }

    fn matched(text: &str) -> Vec<i32> {
        let mut filter = Filter::default();
        filter.retype(text.into());
        assert_eq!(filter.error(), None, "{text}");
        rows().iter().filter(|row| filter.passes(row)).map(|row| row.id().pid).collect()
    }

    #[test]
    fn what_passes() {
        for (text, expected) in [
            ("", &[1, 2, 3, 4][..]),
            ("  ", &[1, 2, 3, 4]),
            ("CURL", &[1]),
            ("web", &[2, 3]),
            ("name:ngin user:root", &[2]),
            ("name:ngin and user:root", &[2]),
            ("user=ada", &[1, 4]),
            ("user=ad", &[]),
            ("down>1M", &[1]),
            ("down>=999999", &[1, 4]),
            ("rate<8mbit not idle", &[2, 4]),
            ("limited", &[1, 2]),
            ("blocked", &[2]),
            ("limit>0", &[1]),
            ("ended or curl", &[1, 3]),
            ("not ended", &[1, 2, 4]),
            ("not (name:nginx or curl)", &[4]),
            ("name~^n.*x$", &[2, 3]),
            ("~^(curl|and)$", &[1, 4]),
            ("\"and\"", &[4]),
            ("\"limited\"", &[]),
            ("unit:web limited or pid=4", &[2, 4]),
        ] {
            assert_eq!(matched(text), expected, "{text}");
        }
    }

    #[test]
    fn what_is_no_filter_is_said_and_the_last_one_stays() {
        let mut filter = Filter::default();
        filter.retype("name:curl".into());
        for (text, words) in [
            ("name:", "something is missing after \"name:\""),
            ("down>fast", "\"fast\" is no number"),
            ("down:1", "down is a figure"),
            ("name>1", "name is a text"),
            ("colour:red", "there is no field \"colour\"; there are any, name"),
            ("name~[", "is no regular expression"),
            ("(curl", "a bracket is not closed"),
            ("curl)", "\")\" does not belong here"),
            ("curl or", "something is missing at the end"),
            ("or curl", "something is missing before \"or\""),
            ("\"curl", "a quotation mark is not closed"),
            (&"(".repeat(100), "too many brackets"),
        ] {
            filter.retype(text.into());
            let error = filter.error().map(ToString::to_string).unwrap_or_default();
            assert!(error.contains(words), "{text}: {error}");
            assert_eq!(rows().iter().filter(|row| filter.passes(row)).count(), 1);
        }
        filter.retype(String::new());
        assert!(filter.error().is_none() && filter.is_empty());
    }

    proptest! {
        #[test]
        fn anything_may_be_typed(text in "[a-z:=~<>()!\" .*0-9M]{0,40}", other: String) {
            for text in [text, other] {
                let mut filter = Filter::default();
                filter.retype(text);
                let _ = rows().iter().filter(|row| filter.passes(row)).count();
            }
        }
    }
}
