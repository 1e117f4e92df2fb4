//! Reading tables whose keys are all to be known.

use std::{
    fmt::Display,
    ops::{Range, RangeInclusive},
};

use toml_edit::{Item, TableLike, Value};

use super::source::{Problem, Source};

/// Reads a file and remembers what is wrong with it: all of it is told at once.
#[derive(Debug)]
pub struct Reader<'a> {
    /// The file.
    pub source: &'a Source,
    /// What was wrong so far.
    pub problems: Vec<Problem>,
}

/// A table of a file.
pub struct Section<'a> {
    table: &'a dyn TableLike,
    /// What it is called in messages: `[screen]`.
    name: &'static str,
}

/// What a setting is, and where it stands.
#[derive(Clone, Debug)]
pub struct Field<T> {
    /// What it is.
    pub value: T,
    /// Where it stands.
    pub span: Option<Range<usize>>,
}

impl<'a> Reader<'a> {
    /// Nothing wrong yet.
    #[must_use]
    pub const fn new(source: &'a Source) -> Self {
        Self { source, problems: Vec::new() }
    }

    /// Remembers a problem.
    pub fn complain(&mut self, span: Option<Range<usize>>, message: impl Into<String>) {
        self.problems.push(self.source.problem(span, message));
    }

    /// An item as a table with these keys and no others. `None`, with a complaint, where it is none.
    pub fn section<'b>(&mut self, item: &'b Item, name: &'static str, known: &[&str]) -> Option<Section<'b>> {
        let Some(table) = item.as_table_like() else {
            self.complain(item.span(), format!("{name} is to be a table, and is {}", kind(item)));
            return None;
        };
        self.check_keys(table, name, known);
        Some(Section { table, name })
    }

    /// A table that is there in any case.
    pub fn table<'b>(&mut self, table: &'b dyn TableLike, name: &'static str, known: &[&str]) -> Section<'b> {
        self.check_keys(table, name, known);
        Section { table, name }
    }

    fn check_keys(&mut self, table: &dyn TableLike, name: &str, known: &[&str]) {
        for (key, item) in table.iter() {
            if !known.contains(&key) {
                let span = table.key(key).and_then(toml_edit::Key::span).or_else(|| item.span());
                let meant = nearest(key, known).map(|meant| format!(" (did you mean {meant:?}?)"));
                let meant = meant.unwrap_or_default();
                let known = known.join(", ");
                self.complain(span, format!("{key:?} is no key of {name}{meant}; there are: {known}"));
            }
        }
    }

    /// What `parse` makes of a text, and a complaint where that is nothing.
    pub fn parsed<T, E: ToString>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Field<T>> {
        let Field { value, span } = self.text(section, key)?;
        match parse(value) {
            Ok(value) => Some(Field { value, span }),
            Err(error) => {
                self.complain(span, format!("{key}: {}", error.to_string()));
                None
            }
        }
    }

    /// A text.
    pub fn text<'b>(&mut self, section: &Section<'b>, key: &str) -> Option<Field<&'b str>> {
        self.typed(section, key, "a text in quotes", Item::as_str)
    }

    /// `true` or `false`.
    pub fn flag(&mut self, section: &Section<'_>, key: &str) -> Option<Field<bool>> {
        self.typed(section, key, "true or false", Item::as_bool)
    }

    /// A whole number of a range. `None`, with a complaint, where it is none of those.
    pub fn number<T: TryFrom<i64> + PartialOrd + Display + Copy>(
        &mut self,
        section: &Section<'_>,
        key: &str,
        range: RangeInclusive<T>,
    ) -> Option<T> {
        let item = section.table.get(key)?;
        let number = item.as_integer().and_then(|number| T::try_from(number).ok());
        let number = number.filter(|number| range.contains(number));
        if number.is_none() {
            let (name, first, last) = (section.name, range.start(), range.end());
            self.complain(item.span(), format!("{key} of {name} is to be a number from {first} to {last}"));
        }
        number
    }

    /// A text, or a list of texts.
    pub fn texts<'b>(&mut self, section: &Section<'b>, key: &str) -> Option<Vec<Field<&'b str>>> {
        let item = section.table.get(key)?;
        let Some(array) = item.as_array() else {
            let wanted = "a text in quotes, or a list of them";
            return self.typed(section, key, wanted, Item::as_str).map(|field| vec![field]);
        };
        let read = |value: &'b Value| Some(Field { value: value.as_str()?, span: value.span() });
        let texts: Option<Vec<_>> = array.iter().map(read).collect();
        if texts.is_none() {
            self.complain(item.span(), format!("{key} is to be a list of texts in quotes"));
        }
        texts
    }

    fn typed<'b, T>(
        &mut self,
        section: &Section<'b>,
        key: &str,
        wanted: &str,
        take: impl FnOnce(&'b Item) -> Option<T>,
    ) -> Option<Field<T>> {
        let item = section.table.get(key)?;
        let taken = take(item).map(|value| Field { value, span: item.span() });
        if taken.is_none() {
            let name = section.name;
            self.complain(item.span(), format!("{key} of {name} is to be {wanted}, and is {}", kind(item)));
        }
        taken
    }
}

impl<'a> Section<'a> {
    /// What stands there under this key.
    #[must_use]
    pub fn item(&self, key: &str) -> Option<&'a Item> {
        self.table.get(key)
    }

    /// Where a key stands.
    #[must_use]
    pub fn key_span(&self, key: &str) -> Option<Range<usize>> {
        self.table.key(key).and_then(toml_edit::Key::span)
    }

    /// All its keys.
    pub fn keys(&self) -> impl Iterator<Item = &'a str> {
        self.table.iter().map(|(key, _)| key)
    }
}

/// What kind of thing an item is, with an article.
fn kind(item: &Item) -> String {
    let name = item.type_name();
    let article = if name.starts_with(['a', 'e', 'i', 'o', 'u']) { "an" } else { "a" };
    format!("{article} {name}")
}

/// The word that was probably meant: one that takes two changes at most.
pub(crate) fn nearest<'a>(typed: &str, known: &[&'a str]) -> Option<&'a str> {
    let near = known.iter().map(|word| (distance(typed, word), *word)).min()?;
    (near.0 <= 2).then_some(near.1)
}

/// How many letters have to be added, left out or replaced to make one word of the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, letter) in one.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], index + 1);
        for (column, also) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(letter != *also);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_that_was_meant_is_near() {
        let known = ["upload", "download", "match", "when"];
        assert_eq!(nearest("uplod", &known), Some("upload"));
        assert_eq!(nearest("downlaod", &known), Some("download"));
        assert_eq!(nearest("quota", &known), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
