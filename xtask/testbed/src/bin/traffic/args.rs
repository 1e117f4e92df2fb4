//! `--name value` and `--name`.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use anyhow::{anyhow, bail};

/// Those without a value.
const FLAGS: [&str; 8] =
    ["wait-stdin", "unconnected", "quit", "inherited", "silent", "worker", "until-told", "extended"];

/// Arguments that nobody has asked for yet.
pub(crate) struct Args(BTreeMap<String, String>);

impl Args {
    pub(crate) fn parse(mut words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut args = BTreeMap::new();
        while let Some(word) = words.next() {
            let Some(name) = word.strip_prefix("--") else { bail!("{word:?} has no name") };
            let value = if FLAGS.contains(&name) { Some(String::new()) } else { words.next() };
            let value = value.ok_or_else(|| anyhow!("--{name} has no value"))?;
            args.insert(name.to_owned(), value);
        }
        Ok(Self(args))
    }

    pub(crate) fn flag(&mut self, name: &str) -> bool {
        self.0.remove(name).is_some()
    }

    pub(crate) fn optional<T: FromStr<Err: Display>>(&mut self, name: &str) -> anyhow::Result<Option<T>> {
        let parse = |value: String| value.parse().map_err(|error| anyhow!("--{name} {value:?}: {error}"));
        self.0.remove(name).map(parse).transpose()
    }

    pub(crate) fn required<T: FromStr<Err: Display>>(&mut self, name: &str) -> anyhow::Result<T> {
        self.optional(name)?.ok_or_else(|| anyhow!("--{name} is missing"))
    }

    /// To be called when all have been asked for: what is left would be ignored in silence.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        match self.0.into_keys().next() {
            None => Ok(()),
            Some(name) => bail!("--{name} does not belong here"),
        }
    }
}
