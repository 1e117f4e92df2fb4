//! The keys at the bottom, and where each stands: the drawing needs it, and whoever clicks on one.

use super::{
    App,
    keys::{self, Action},
    layout,
    text::width,
};

/// Between two pieces.
const GAP: usize = 2;

/// A key and what it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The key's name.
    pub key: String,
    /// What it does, in a word or two.
    pub words: &'static str,
    /// The same as something to do.
    pub action: Action,
    /// Where it begins.
    pub x: u16,
    /// On which line of the footer.
    pub line: u16,
}

impl Piece {
    /// Whether a point is on it.
    #[must_use]
    pub fn is_at(&self, x: u16, line: u16) -> bool {
        let columns = self.key.len() + 1 + self.words.len();
        line == self.line && (usize::from(self.x)..usize::from(self.x) + columns).contains(&usize::from(x))
    }
}

/// As many keys of the place as have room in a footer of that size, the most important first.
#[must_use]
pub fn pieces(app: &App, columns: u16, lines: u16) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let (mut x, mut line) = (usize::from(layout::MARGIN), 0);
    for binding in keys::footer(app.place()) {
        let (Some(key), Some(words)) = (binding.keys.first(), binding.footer) else { continue };
        let key = key.name();
        let length = width(&key) + 1 + words.len();
        if x + length > usize::from(columns) {
            (x, line) = (usize::from(layout::MARGIN), line + 1);
        }
        // Not the next one that happens to be shorter: out of order, "both" means nothing.
        if line >= lines || x + length > usize::from(columns) {
            break;
        }
        let place = u16::try_from(x).unwrap_or(u16::MAX);
        pieces.push(Piece { key, words, action: binding.action, x: place, line });
        x += length + GAP;
    }
    pieces
}
