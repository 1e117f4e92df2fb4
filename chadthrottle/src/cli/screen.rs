//! Options of the screen, and of the simulated host that it can be shown over.

use std::{env, time::Duration};

use clap::{Args, ValueEnum};
use ratatui::layout::Size;

use super::parse_time_argument;
use crate::{
    app::{
        chooser::Part,
        looks::{Background, Colours, Looks},
        units::Units,
    },
    backends::demo::Part as DemoPart,
    config::{ScreenSettings, parse_refresh},
    headless::demo,
    run::RunOptions,
};

/// How the screen looks.
#[derive(Args, Debug)]
#[command(next_help_heading = "Options of the screen")]
pub struct ScreenOptions {
    /// Show rates in bytes or in bits. By default in bytes.
    #[arg(long, value_name = "UNITS", value_enum)]
    pub units: Option<UnitChoice>,

    /// Colours: 16, 256 or true; `none` is what `NO_COLOR` asks for. By default what the terminal says.
    #[arg(long, value_name = "COLOURS", value_enum)]
    pub colours: Option<ColourChoice>,

    /// What is behind the text. By default what the terminal says.
    #[arg(long, value_name = "SHADE", value_enum)]
    pub background: Option<BackgroundChoice>,

    /// Draw with ASCII characters alone, for fonts that have no others.
    #[arg(long)]
    pub ascii: bool,

    /// Leave the mouse to the terminal.
    #[arg(long)]
    pub no_mouse: bool,

    /// How often figures are read: 100ms to 60s. By default each second.
    #[arg(long, value_name = "TIME", value_parser = parse_refresh)]
    pub refresh: Option<Duration>,

    /// Columns that are not shown, with commas between them.
    #[arg(long, value_name = "COLUMNS", value_enum, value_delimiter = ',')]
    pub hide: Vec<Part>,
}

/// Units of rates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum UnitChoice {
    /// Bytes, by powers of 1000.
    Bytes,
    /// Bits, by powers of 1000.
    Bits,
    /// Bytes, by powers of 1024.
    BinaryBytes,
    /// Bits, by powers of 1024.
    BinaryBits,
}

/// How many colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ColourChoice {
    /// As the environment tells.
    Auto,
    /// None.
    None,
    /// The terminal's own sixteen.
    #[value(name = "16")]
    Sixteen,
    /// The 256 of xterm.
    #[value(name = "256")]
    Many,
    /// Any.
    True,
}

/// What is behind the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum BackgroundChoice {
    /// As the environment tells.
    Auto,
    /// Dark.
    Dark,
    /// Light.
    Light,
}

impl ScreenOptions {
    /// What the loop is told: by these options, or else by the configuration.
    #[must_use]
    pub fn options(&self, configured: ScreenSettings) -> RunOptions {
        let given = ScreenSettings {
            units: self.units,
            colours: self.colours,
            background: self.background,
            ascii: self.ascii.then_some(true),
            mouse: self.no_mouse.then_some(false),
            refresh: self.refresh,
        };
        let wanted = given.or(configured);
        let variables: Vec<_> = env::vars_os().collect();
        let detected = Looks::detected(|name| {
            variables.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_os_str())
        });
        let colours = match wanted.colours.unwrap_or(ColourChoice::Auto) {
            ColourChoice::Auto => detected.colours,
            ColourChoice::None => Colours::None,
            ColourChoice::Sixteen => Colours::Sixteen,
            ColourChoice::Many => Colours::Many,
            ColourChoice::True => Colours::True,
        };
        let background = match wanted.background.unwrap_or(BackgroundChoice::Auto) {
            BackgroundChoice::Auto => detected.background,
            BackgroundChoice::Dark => Background::Dark,
            BackgroundChoice::Light => Background::Light,
        };
        let (bits, binary) = match wanted.units.unwrap_or(UnitChoice::Bytes) {
            UnitChoice::Bytes => (false, false),
            UnitChoice::Bits => (true, false),
            UnitChoice::BinaryBytes => (false, true),
            UnitChoice::BinaryBits => (true, true),
        };
        let usual = RunOptions::default();
        RunOptions {
            looks: Looks { colours, background, ascii: wanted.ascii.unwrap_or(detected.ascii) },
            units: Units { bits, binary },
            mouse: wanted.mouse.unwrap_or(true),
            interval: wanted.refresh.unwrap_or(usual.interval),
            hidden: self.hide.iter().copied().collect(),
            ..usual
        }
    }
}

/// A host to try the screen on.
#[derive(Args, Debug)]
#[command(next_help_heading = "Simulated host")]
pub struct DemoOptions {
    /// Show the screen over a simulated host. Needs no privilege, and touches nothing of the real one.
    #[arg(long, conflicts_with = "subject")]
    pub demo: bool,

    /// The same number makes the same host.
    #[arg(long, value_name = "N", requires = "demo", default_value = "1")]
    pub demo_seed: u64,

    /// How old the simulated host is at the start.
    #[arg(long, value_name = "TIME", requires = "demo", value_parser = parse_time_argument, default_value = "75s")]
    pub demo_time: Duration,

    /// Print one picture of the screen, so many columns by so many rows, instead of opening it.
    #[arg(long, value_name = "COLUMNSxROWS", requires = "demo", value_parser = parse_size)]
    pub demo_picture: Option<Size>,

    /// What is typed before the picture is taken: keys, <Enter>, <Esc>, <Tab>, <Up>, <Down>, and <5s> to wait.
    #[arg(long, value_name = "KEYS", requires = "demo_picture", default_value = "")]
    pub demo_keys: String,

    /// So many processes more, for measuring.
    #[arg(long, value_name = "N", requires = "demo", default_value = "0", hide = true)]
    pub demo_crowd: usize,

    /// Which part of it panics, to see what becomes of the terminal.
    #[arg(long, value_name = "PART", requires = "demo", value_enum, hide = true)]
    pub demo_panic: Option<DemoPart>,

    /// Measure pictures and keys instead, and print figures as JSON.
    #[arg(long, requires = "demo", hide = true)]
    pub demo_measure: bool,
}

impl DemoOptions {
    /// What host is asked for, where one is.
    #[must_use]
    pub fn options(&self) -> Option<demo::Options> {
        self.demo.then(|| demo::Options {
            seed: self.demo_seed,
            age: self.demo_time,
            crowd: self.demo_crowd,
            panics: self.demo_panic,
            picture: self.demo_picture,
            measure: self.demo_measure,
            keys: self.demo_keys.clone(),
        })
    }
}

/// Nobody has a larger window.
const LARGEST: u16 = 1000;

fn parse_size(typed: &str) -> Result<Size, String> {
    let size = typed.split_once('x').and_then(|(width, height)| {
        let (width, height) = (width.parse().ok()?, height.parse().ok()?);
        ((1..=LARGEST).contains(&width) && (1..=LARGEST).contains(&height)).then_some(Size { width, height })
    });
    size.ok_or_else(|| format!("{typed:?} is no size; give columns and rows up to {LARGEST}, such as 80x24"))
}
