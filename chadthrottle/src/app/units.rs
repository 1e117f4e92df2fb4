//! In which units figures are shown.

use crate::rate::scaled;

/// Bytes or bits, powers of 1000 or of 1024.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Units {
    /// Rates and limits in bits; amounts stay in bytes.
    pub bits: bool,
    /// Powers of 1024, of which `i` tells.
    pub binary: bool,
}

impl Units {
    /// The next ones: bytes, bits, and both by 1024.
    #[must_use]
    pub const fn next(self) -> Self {
        Self { bits: !self.bits, binary: self.binary ^ self.bits }
    }

    /// What they are, in a sentence.
    #[must_use]
    pub const fn describe(self) -> &'static str {
        match (self.bits, self.binary) {
            (false, false) => "Rates in bytes a second; K is 1000.",
            (true, false) => "Rates in bits a second; K is 1000.",
            (false, true) => "Rates in bytes a second; Ki is 1024.",
            (true, true) => "Rates in bits a second; Ki is 1024.",
        }
    }

    /// The most columns that a figure takes.
    #[must_use]
    pub const fn width(self) -> usize {
        if self.binary { 6 } else { 5 }
    }

    /// What stands above a column of rates.
    #[must_use]
    pub const fn rate_heading(self) -> &'static str {
        if self.bits { "RATE bit/s" } else { "RATE/s" }
    }

    /// What follows a rate in a sentence.
    #[must_use]
    pub const fn per_second(self) -> &'static str {
        if self.bits { "bit/s" } else { "/s" }
    }

    /// A rate of so many bytes a second.
    #[must_use]
    pub fn rate(self, bytes: u64) -> String {
        self.number(if self.bits { bytes.saturating_mul(8) } else { bytes })
    }

    /// So many bytes.
    #[must_use]
    pub fn amount(self, bytes: u64) -> String {
        self.number(bytes)
    }

    /// A limit as a table shows it.
    #[must_use]
    pub fn limit(self, limit: u64) -> String {
        if limit == 0 { "block".into() } else { self.rate(limit) }
    }

    fn number(self, number: u64) -> String {
        if self.binary { binary(number) } else { scaled(number) }
    }
}

/// A number in at most six characters: `999`, `1.5Ki`, `99.9Ki`, `250Mi`. From a thousand on it is the next unit.
fn binary(number: u64) -> String {
    const UNITS: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let mut value = number as f64;
    let mut unit = 0;
    while value >= 999.5 && unit < UNITS.len() - 1 {
        value /= 1024.0;
        unit += 1;
    }
    let digits = match value {
        _ if unit == 0 => 0,
        value if value >= 99.95 => 0,
        value if value >= 9.995 => 1,
        _ => 2,
    };
    let text = format!("{value:.digits$}");
    let text = if digits > 0 { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn figures_in_all_units() {
        let text = |bits, binary, bytes| Units { bits, binary }.rate(bytes);
        assert_eq!(text(false, false, 1_500_000), "1.5M");
        assert_eq!(text(true, false, 1_500_000), "12M");
        assert_eq!(text(false, true, 1_572_864), "1.5Mi");
        assert_eq!(text(false, true, 1_023_000), "999Ki");
        assert_eq!(text(false, true, 1_024_000), "0.98Mi");
        assert_eq!(text(true, true, 131_072), "1Mi");
        assert_eq!(Units { bits: true, binary: false }.amount(1000), "1K");
        assert_eq!(Units { bits: true, binary: false }.limit(0), "block");
    }

    #[test]
    fn going_round() {
        let mut units = Units::default();
        for expected in [(true, false), (false, true), (true, true), (false, false)] {
            units = units.next();
            assert_eq!((units.bits, units.binary), expected);
        }
    }

    proptest! {
        #[test]
        fn every_figure_fits(bytes: u64, bits: bool, binary: bool) {
            let units = Units { bits, binary };
            prop_assert!(units.rate(bytes).len() <= units.width(), "{}", units.rate(bytes));
            prop_assert!(units.amount(bytes).len() <= units.width());
        }
    }
}
