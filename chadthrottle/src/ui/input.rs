//! A line of text that is being typed.

use crate::app::{
    input::TextInput,
    text::{end, left, width},
};

/// The part of it that is on the screen.
pub(super) struct Visible {
    /// As many columns as there is room for.
    pub(super) text: String,
    /// The cursor's column in it.
    pub(super) cursor: usize,
}

/// The part of an input around its cursor that fits.
pub(super) fn visible(input: &TextInput, room: usize) -> Visible {
    // One column stays free for a cursor at the end.
    let before = end(input.before_cursor(), room.saturating_sub(1));
    let cursor = width(&before);
    let text = left(&format!("{before}{}", input.after_cursor()), room);
    Visible { text, cursor }
}
