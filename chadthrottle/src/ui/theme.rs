//! How things look.
//!
//! The terminal's own colours in front of its own background, so that light and dark ones are both legible, and
//! red and magenta alone, which are on either. Each has a word beside it that says the same.

use ratatui::style::{Color, Style};

use crate::app::looks::{Colours, Looks};

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
}

impl Theme {
    /// The styles for these looks.
    pub(super) const fn of(looks: Looks) -> Self {
        let plain = Style::new();
        let (magenta, red) = match looks.colours {
            Colours::None => (plain, plain),
            _ => (plain.fg(Color::Magenta), plain.fg(Color::Red)),
        };
        Self {
            strong: plain.bold(),
            faint: plain.dim(),
            selected: plain.reversed(),
            limit: magenta.bold(),
            error: red.bold(),
            input: plain.underlined(),
        }
    }
}
