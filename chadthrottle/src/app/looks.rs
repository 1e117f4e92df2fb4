//! What the terminal can show.

use std::ffi::OsStr;

/// How many colours there are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Colours {
    /// None, as `NO_COLOR` asks. Everything is still told by words and weight.
    None,
    /// The terminal's own, few of them.
    #[default]
    Sixteen,
    /// The 256 of xterm.
    Many,
    /// Any.
    True,
}

/// What is behind the text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Background {
    /// Not known: only what is legible on both.
    #[default]
    Unknown,
    /// Dark.
    Dark,
    /// Light.
    Light,
}

/// Colours, background and characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Looks {
    /// Colours.
    pub colours: Colours,
    /// What is behind the text.
    pub background: Background,
    /// Only characters that every font has.
    pub ascii: bool,
}

impl Looks {
    /// What the environment tells, by the values of its variables.
    pub fn detected<'a>(variable: impl Fn(&str) -> Option<&'a OsStr>) -> Self {
        let text = |name: &str| variable(name).map(OsStr::to_string_lossy).unwrap_or_default();
        let colours = if !text("NO_COLOR").is_empty() {
            Colours::None
        } else if matches!(&*text("COLORTERM"), "truecolor" | "24bit") {
            Colours::True
        } else if text("TERM").contains("256color") {
            Colours::Many
        } else if text("TERM") == "dumb" {
            Colours::None
        } else {
            Colours::Sixteen
        };
        // `foreground;background`, by the numbers of the sixteen (rxvt and others).
        let background = match text("COLORFGBG").rsplit(';').next().and_then(|last| last.parse::<u8>().ok()) {
            Some(0..=6 | 8) => Background::Dark,
            Some(7 | 9..=15) => Background::Light,
            _ => Background::Unknown,
        };
        // The first that is set decides (locale(7)).
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].map(text).into_iter().find(|value| !value.is_empty());
        let is_utf8 = locale.is_none_or(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8") || locale == "c" || locale == "posix"
        });
        // The console of the kernel has a font of 512 characters, without braille and shades.
        Self { colours, background, ascii: !is_utf8 || text("TERM") == "linux" }
    }

    /// A text with nothing in it that poor fonts do not have.
    #[must_use]
    pub fn plain(self, text: &str) -> String {
        if !self.ascii {
            return text.to_owned();
        }
        text.chars()
            .map(|character| if character.is_ascii() { character } else { in_ascii(character) })
            .collect()
    }
}

/// The nearest in ASCII, one column wide.
pub(crate) const fn in_ascii(character: char) -> char {
    match character {
        '…' => '~',
        '▲' | '▴' => '^',
        '▼' | '▾' => 'v',
        '▸' => '>',
        '·' | '░' | '╌' => '.',
        '│' => '|',
        '─' => '-',
        '┈' => '\'',
        '┌' | '┐' | '└' | '┘' => '+',
        '█' => '#',
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(variables: &[(&str, &str)]) -> Looks {
        Looks::detected(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_ref())
        })
    }

    #[test]
    fn the_environment_tells() {
        assert_eq!(looks(&[]), Looks::default());
        assert_eq!(looks(&[("TERM", "xterm-256color")]).colours, Colours::Many);
        assert_eq!(looks(&[("TERM", "xterm-256color"), ("COLORTERM", "truecolor")]).colours, Colours::True);
        assert_eq!(looks(&[("COLORTERM", "truecolor"), ("NO_COLOR", "1")]).colours, Colours::None);
        assert_eq!(looks(&[("NO_COLOR", "")]).colours, Colours::Sixteen, "empty is not set (no-color.org)");
        assert_eq!(looks(&[("COLORFGBG", "15;0")]).background, Background::Dark);
        assert_eq!(looks(&[("COLORFGBG", "0;default;15")]).background, Background::Light);
        assert!(looks(&[("LANG", "de_DE.ISO-8859-1")]).ascii);
        assert!(!looks(&[("LANG", "de_DE.ISO-8859-1"), ("LC_ALL", "C.UTF-8")]).ascii);
        assert!(looks(&[("TERM", "linux"), ("LANG", "C.UTF-8")]).ascii);
    }

    #[test]
    fn ascii_takes_the_place_of_what_poor_fonts_lack() {
        let looks = Looks { ascii: true, ..Looks::default() };
        assert_eq!(looks.plain("▾ docker… ██░ é"), "v docker~ ##. ?");
        assert_eq!(Looks::default().plain("▾ é"), "▾ é");
    }
}
