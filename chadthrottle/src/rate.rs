//! The grammar of rates and times on the command line and in the dialogs.

use std::{fmt, time::Duration};

/// What a rate may look like; part of every message about one that does not.
pub const RATE_FORMS: &str = "a number of bytes a second with an optional unit: 250000, 500K, 1.5M, 1G (powers of \
     1000; also KB, MB, GB), 512Ki, 2Mi, 1Gi (powers of 1024; also KiB, MiB, GiB), 800kbit, 10mbit, 1gbit (bits a \
     second); 0 blocks";

/// What a time may look like.
pub const TIME_FORMS: &str = "seconds, or numbers with units: 30, 500ms, 30s, 5m, 1h30m";

/// IP bytes a second, link layer excluded. 0 blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rate(pub u64);

/// A value that is not what the grammar allows.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{typed:?} is {problem}; give {forms}")]
pub struct ParseError {
    typed: String,
    problem: &'static str,
    forms: &'static str,
}

impl std::str::FromStr for Rate {
    type Err = ParseError;

    fn from_str(typed: &str) -> Result<Self, ParseError> {
        let error = |problem| ParseError { typed: typed.to_owned(), problem, forms: RATE_FORMS };
        let text = typed.trim();
        if text.starts_with('-') {
            return Err(error("negative"));
        }
        let (number, unit) = split_number(text);
        let number: f64 = parse_decimal(number).ok_or_else(|| error("not a rate"))?;
        let factor = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 1.0,
            "k" | "kb" => 1e3,
            "m" | "mb" => 1e6,
            "g" | "gb" => 1e9,
            "t" | "tb" => 1e12,
            "ki" | "kib" => 1024.0,
            "mi" | "mib" => 1024.0 * 1024.0,
            "gi" | "gib" => 1024.0 * 1024.0 * 1024.0,
            "ti" | "tib" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
            "kbit" => 1e3 / 8.0,
            "mbit" => 1e6 / 8.0,
            "gbit" => 1e9 / 8.0,
            _ => return Err(error("not a rate")),
        };
        let bytes = (number * factor).round();
        // Up to 2^53 every whole number of bytes is exact in the arithmetic above; this is the last number below it
        // whose short form has a unit of this grammar, and 1000 times more than any interface carries.
        if !bytes.is_finite() || bytes > 999_000_000_000_000.0 {
            return Err(error("too large"));
        }
        if bytes < 1.0 && number > 0.0 {
            return Err(error("less than a byte a second"));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number from 0 to 999 T"
        )]
        Ok(Self(bytes as u64))
    }
}

impl Rate {
    /// The shortest form that the grammar takes back as exactly this.
    #[must_use]
    pub fn written(self) -> String {
        let short = self.to_string();
        if short.parse() == Ok(self) { short } else { self.0.to_string() }
    }
}

impl fmt::Display for Rate {
    /// The shortest form that the grammar takes back, to three digits: `1.5M`, `250K`, `0`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&scaled(self.0))
    }
}

/// A number of bytes in at most five characters: `0`, `999`, `1.5K`, `250K`, `1.25M`.
#[must_use]
pub fn scaled(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["", "K", "M", "G", "T", "P", "E"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 would be written as 1000.
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let digits = if unit == 0 || value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

/// Parses a time: `30` (seconds), `500ms`, `1h30m`.
///
/// # Errors
/// When it is not one, or zero, or longer than can be waited for.
pub fn parse_time(typed: &str) -> Result<Duration, ParseError> {
    let error = |problem| ParseError { typed: typed.to_owned(), problem, forms: TIME_FORMS };
    let text = typed.trim();
    if text.starts_with('-') {
        return Err(error("negative"));
    }
    let mut rest = text;
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, tail) = split_number(rest);
        let number: f64 = parse_decimal(number).ok_or_else(|| error("not a time"))?;
        let end = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(end);
        seconds += number
            * match unit.to_ascii_lowercase().as_str() {
                // A bare number stands alone: in "1h30" it would be a guess.
                "" if tail.is_empty() && rest.len() == text.len() => 1.0,
                "ms" => 1e-3,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                "d" => 86400.0,
                _ => return Err(error("not a time")),
            };
        rest = tail;
    }
    if text.is_empty() {
        return Err(error("not a time"));
    }
    match Duration::try_from_secs_f64(seconds) {
        Ok(time) if time > Duration::from_hours(10 * 366 * 24) => Err(error("longer than ten years")),
        Ok(time) if time.is_zero() => Err(error("no time at all")),
        Ok(time) => Ok(time),
        Err(_) => Err(error("longer than ten years")),
    }
}

/// Splits at the end of the leading decimal number.
fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

/// A plain decimal number. No sign, exponent, infinity or NaN: `f64::from_str` would take all of those.
fn parse_decimal(text: &str) -> Option<f64> {
    let has_digit = text.bytes().any(|byte| byte.is_ascii_digit());
    let value: f64 = if has_digit { text.parse().ok()? } else { return None };
    value.is_finite().then_some(value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> u64 {
        text.parse::<Rate>().unwrap_or_else(|error| panic!("{error}")).0
    }

    #[test]
    fn rates_that_the_contract_lists() {
        for (text, bytes) in [
            ("250000", 250_000),
            ("500K", 500_000),
            ("1.5M", 1_500_000),
            ("1G", 1_000_000_000),
            ("2T", 2_000_000_000_000),
            ("1KB", 1000),
            ("2MB", 2_000_000),
            ("1gb", 1_000_000_000),
            ("1Ki", 1024),
            ("1KiB", 1024),
            ("1.5mi", 1_572_864),
            ("1GiB", 1 << 30),
            ("800kbit", 100_000),
            ("10mbit", 1_250_000),
            ("1Gbit", 125_000_000),
            ("0", 0),
            (" 5 M ", 5_000_000),
            (".5K", 500),
        ] {
            assert_eq!(rate(text), bytes, "{text}");
        }
    }

    #[test]
    fn what_is_no_rate_is_refused_with_what_was_typed_and_the_forms() {
        for text in [
            "abc",
            "-5",
            "1e400",
            "",
            "M",
            ".",
            "1.2.3",
            "inf",
            "NaN",
            "1e3",
            "5 apples",
            "99999999999G",
            "0.1",
        ] {
            let error = text.parse::<Rate>().expect_err(text).to_string();
            assert!(error.contains(&format!("{text:?}")), "{error}");
            assert!(error.contains("1.5M"), "{error}");
        }
    }

    #[test]
    fn times() {
        for (text, milliseconds) in [
            ("30", 30_000),
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("0.5", 500),
        ] {
            assert_eq!(parse_time(text).map(|time| time.as_millis()), Ok(milliseconds), "{text}");
        }
        for text in ["", "0", "-1", "abc", "1h30", "5x", "99999999999999h", "1e9"] {
            let error = parse_time(text).expect_err(text).to_string();
            assert!(error.contains("1h30m"), "{error}");
        }
    }

    #[test]
    fn scaled_numbers_fit_their_column() {
        for (bytes, text) in [
            (0, "0"),
            (999, "999"),
            (1000, "1K"),
            (1500, "1.5K"),
            (9_990, "9.99K"),
            (99_949, "99.9K"),
            (999_499, "999K"),
            (999_500, "1M"),
            (u64::MAX, "18.4E"),
        ] {
            assert_eq!(scaled(bytes), text);
        }
    }

    proptest! {
        #[test]
        fn nothing_typed_panics(text in ".{0,40}") {
            let _ = text.parse::<Rate>();
            let _ = parse_time(&text);
        }

        #[test]
        fn a_rate_survives_being_written_and_read(bytes in 0..999_000_000_000_000_u64) {
            let again = rate(&Rate(bytes).to_string());
            // Three digits are written.
            prop_assert!(again.abs_diff(bytes) <= bytes / 190);
        }
    }
}
