//! `[screen]`.

use std::time::Duration;

use clap::ValueEnum;
use toml_edit::Item;

use super::section::{Reader, Section};
use crate::{
    cli::screen::{BackgroundChoice, ColourChoice, UnitChoice},
    rate::parse_time,
};

/// How the screen is to look. What is `None` is as it is without a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ScreenSettings {
    /// As `--units`.
    pub units: Option<UnitChoice>,
    /// As `--colours`.
    pub colours: Option<ColourChoice>,
    /// As `--background`.
    pub background: Option<BackgroundChoice>,
    /// As `--ascii`.
    pub ascii: Option<bool>,
    /// Whether the mouse is ours.
    pub mouse: Option<bool>,
    /// As `--refresh`.
    pub refresh: Option<Duration>,
}

const KEYS: [&str; 6] = ["units", "colours", "background", "ascii", "mouse", "refresh"];

/// Figures are not read more often: each time costs a look at everybody.
pub(crate) const SHORTEST: Duration = Duration::from_millis(100);
/// Nor more seldom: curves and rates would mean nothing.
pub(crate) const LONGEST: Duration = Duration::from_mins(1);

impl ScreenSettings {
    /// These, and others where these say nothing.
    #[must_use]
    pub fn or(self, others: Self) -> Self {
        Self {
            units: self.units.or(others.units),
            colours: self.colours.or(others.colours),
            background: self.background.or(others.background),
            ascii: self.ascii.or(others.ascii),
            mouse: self.mouse.or(others.mouse),
            refresh: self.refresh.or(others.refresh),
        }
    }
}

/// How often figures are read.
///
/// # Errors
/// In words, when it is no time, or one that makes no sense.
pub(crate) fn parse_refresh(typed: &str) -> Result<Duration, String> {
    let time = parse_time(typed).map_err(|error| error.to_string())?;
    if (SHORTEST..=LONGEST).contains(&time) {
        Ok(time)
    } else {
        Err(format!("{typed:?} is no time from 100ms to 60s"))
    }
}

pub(super) fn read(reader: &mut Reader<'_>, item: &Item) -> ScreenSettings {
    let Some(section) = reader.section(item, "[screen]", &KEYS) else { return ScreenSettings::default() };
    ScreenSettings {
        units: chosen(reader, &section, "units"),
        colours: chosen(reader, &section, "colours"),
        background: chosen(reader, &section, "background"),
        ascii: reader.flag(&section, "ascii").map(|field| field.value),
        mouse: reader.flag(&section, "mouse").map(|field| field.value),
        refresh: reader.parsed(&section, "refresh", parse_refresh).map(|field| field.value),
    }
}

/// One of the values that the option of the same name takes.
pub(crate) fn chosen<T: ValueEnum>(reader: &mut Reader<'_>, section: &Section<'_>, key: &str) -> Option<T> {
    let parse = |typed: &str| {
        T::from_str(typed, false).map_err(|_| {
            let values = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let values: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
            format!("{typed:?} is none of {}", values.join(", "))
        })
    };
    reader.parsed(section, key, parse).map(|field| field.value)
}
