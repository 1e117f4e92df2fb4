//! How things look.
//!
//! The terminal's own colours in front of its own background, so that light and dark ones are both legible. Of the
//! sixteen, red, magenta and cyan alone, which are on either; of more, shades that fit the background where that is
//! known. Each has a word beside it that says the same.

use ratatui::style::{Color, Style};

use crate::app::looks::{Background, Colours, Looks};

/// The styles.
#[derive(Clone, Copy, Debug)]
pub(super) struct Theme {
    /// Names of columns, sections and keys.
    pub(super) strong: Style,
    /// What has ended.
    pub(super) faint: Style,
    /// The selected row, and the word that says that the display is held.
    pub(super) selected: Style,
    /// A limit in force.
    pub(super) limit: Style,
    /// What went wrong.
    pub(super) error: Style,
    /// Where text is typed.
    pub(super) input: Style,
    /// What was lately.
    pub(super) curve: Style,
}

/// Limits, what went wrong, and curves, in three depths of colour.
struct Shades {
    limit: Color,
    error: Color,
    curve: Color,
}

impl Theme {
    /// The styles for these looks.
    pub(super) const fn of(looks: Looks) -> Self {
        let plain = Style::new();
        let (limit, error, curve) = match shades(looks) {
            Some(shades) => (plain.fg(shades.limit), plain.fg(shades.error), plain.fg(shades.curve)),
            None => (plain, plain, plain),
        };
        Self {
            strong: plain.bold(),
            faint: plain.dim(),
            selected: plain.reversed(),
            limit: limit.bold(),
            error: error.bold(),
            input: plain.underlined(),
            curve,
        }
    }
}

const fn shades(looks: Looks) -> Option<Shades> {
    let sixteen = Shades { limit: Color::Magenta, error: Color::Red, curve: Color::Cyan };
    Some(match (looks.colours, looks.background) {
        (Colours::None, _) => return None,
        (Colours::Sixteen, _) | (_, Background::Unknown) => sixteen,
        (Colours::Many, Background::Dark) => {
            Shades { limit: Color::Indexed(177), error: Color::Indexed(203), curve: Color::Indexed(73) }
        }
        (Colours::Many, Background::Light) => {
            Shades { limit: Color::Indexed(90), error: Color::Indexed(124), curve: Color::Indexed(24) }
        }
        (Colours::True, Background::Dark) => Shades {
            limit: Color::Rgb(0xd0, 0x8c, 0xe8),
            error: Color::Rgb(0xf0, 0x6a, 0x62),
            curve: Color::Rgb(0x6a, 0xb4, 0xb8),
        },
        (Colours::True, Background::Light) => Shades {
            limit: Color::Rgb(0x7a, 0x1f, 0x96),
            error: Color::Rgb(0xa8, 0x1c, 0x1c),
            curve: Color::Rgb(0x10, 0x5c, 0x73),
        },
    })
}
