//! How the lines of the screen are shared out.
//!
//! The application needs it to know how far a page goes, the drawing to know where things are.

use ratatui::layout::Size;

/// The smallest window that is worth drawing in.
pub const SMALLEST: Size = Size { width: 60, height: 16 };

/// Columns before the text of header, footer, details and help.
pub const MARGIN: u16 = 1;

/// A window as wide as this has the help in two columns.
const TWO_COLUMNS: u16 = 100;

/// Lines of column headings.
pub const HEADINGS: u16 = 2;

/// Lines of the header: one where lines are few.
#[must_use]
pub const fn header(size: Size) -> u16 {
    if size.height >= 12 { 2 } else { 1 }
}

/// Lines of the footer.
#[must_use]
pub const fn footer(size: Size) -> u16 {
    if size.height >= 20 { 2 } else { 1 }
}

/// Lines between header and footer.
#[must_use]
pub const fn body(size: Size) -> u16 {
    size.height.saturating_sub(header(size) + footer(size))
}

/// Whether the window is too small to draw in.
#[must_use]
pub const fn too_small(size: Size) -> bool {
    size.width < SMALLEST.width || size.height < SMALLEST.height
}

/// How many columns the help has, and how wide their text may be.
#[must_use]
pub const fn help(width: u16) -> (usize, usize) {
    let columns: u16 = if width >= TWO_COLUMNS { 2 } else { 1 };
    (columns as usize, details(width / columns))
}

/// How wide the text of the details may be.
#[must_use]
pub const fn details(width: u16) -> usize {
    width.saturating_sub(MARGIN) as usize
}
