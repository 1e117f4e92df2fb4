//! Text that others chose, made fit for the screen.
//!
//! A process may be called anything, escape sequences included. Whatever comes from outside passes through
//! [`clean`] before it is measured or drawn.

use ratatui::{buffer::CellWidth, style::Style, text::Span};

/// Stands for whatever had to be left out.
pub(crate) const ELLIPSIS: &str = "…";

/// Replaces every character that would steer the terminal instead of being shown, or that has no shape of its
/// own: controls, line ends, and those that turn the direction of writing or join and hide their neighbours.
#[must_use]
pub(crate) fn clean(text: &str) -> String {
    text.chars().map(|character| if steers(character) { '\u{fffd}' } else { character }).collect()
}

fn steers(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'
                | '\u{200e}' | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff0}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// Whether each byte is a character of one column: most texts are, and need no closer look.
fn is_simple(text: &str) -> bool {
    text.bytes().all(|byte| (b' '..=b'~').contains(&byte))
}

/// How many columns a text takes.
#[must_use]
pub(crate) fn width(text: &str) -> usize {
    if is_simple(text) {
        return text.len();
    }
    graphemes(&Span::raw(text)).map(|(_, width)| width).sum()
}

/// The characters as people count them, and how many columns each takes. As the buffer measures them, so that
/// columns stand where they were meant to.
fn graphemes<'a>(span: &'a Span<'a>) -> impl Iterator<Item = (&'a str, usize)> {
    span.styled_graphemes(Style::new())
        .map(|grapheme| (grapheme.symbol, usize::from(grapheme.symbol.cell_width())))
}

/// The text in at most `room` columns; where it does not fit, its start and an ellipsis.
#[must_use]
pub(crate) fn start(text: &str, room: usize) -> String {
    if is_simple(text) {
        return match text.len().checked_sub(room) {
            None | Some(0) => text.to_owned(),
            Some(_) if room == 0 => String::new(),
            Some(_) => format!("{}{ELLIPSIS}", &text[..room - 1]),
        };
    }
    let text = clean(text);
    if width(&text) <= room {
        return text;
    }
    let span = Span::raw(text.as_str());
    let mut fitted = taken(graphemes(&span), room);
    if room > 0 {
        fitted.push_str(ELLIPSIS);
    }
    fitted
}

/// The text in at most `room` columns; where it does not fit, an ellipsis and its end: of a path, that tells
/// the most.
#[must_use]
pub(crate) fn end(text: &str, room: usize) -> String {
    let text = clean(text);
    if width(&text) <= room {
        return text;
    }
    let span = Span::raw(text.as_str());
    let mut backwards: Vec<(&str, usize)> = graphemes(&span).collect();
    backwards.reverse();
    let kept = width(&taken(backwards.into_iter(), room));
    let mut skipped = width(&text);
    let tail: String = graphemes(&span)
        .skip_while(|(_, width)| {
            let skip = skipped > kept;
            skipped = skipped.saturating_sub(*width);
            skip
        })
        .map(|(symbol, _)| symbol)
        .collect();
    if room == 0 { tail } else { format!("{ELLIPSIS}{tail}") }
}

/// As many as fit, with a column left for the ellipsis.
fn taken<'a>(graphemes: impl Iterator<Item = (&'a str, usize)>, room: usize) -> String {
    let mut left = room.saturating_sub(1);
    graphemes
        .map_while(|(symbol, width)| {
            left = left.checked_sub(width)?;
            Some(symbol)
        })
        .collect()
}

/// The text with spaces after it, `room` columns in all.
#[must_use]
pub(crate) fn left(text: &str, room: usize) -> String {
    let mut text = start(text, room);
    let spaces = room.saturating_sub(width(&text));
    text.extend(std::iter::repeat_n(' ', spaces));
    text
}

/// The text with spaces before it, `room` columns in all.
#[must_use]
pub(crate) fn right(text: &str, room: usize) -> String {
    let text = start(text, room);
    let spaces = room.saturating_sub(width(&text));
    format!("{}{text}", " ".repeat(spaces))
}

/// The text in lines of at most `room` columns, broken between words, and inside a word where one is longer
/// than a line.
#[must_use]
pub(crate) fn wrap(text: &str, room: usize) -> Vec<String> {
    let room = room.max(1);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in clean(text).split(' ').filter(|word| !word.is_empty()) {
        let length = width(word);
        if used > 0 && used + 1 + length <= room {
            push(&mut lines, " ");
            used += 1;
        } else if used > 0 {
            lines.push(String::new());
            used = 0;
        }
        for (symbol, columns) in graphemes(&Span::raw(word)) {
            if used > 0 && used + columns > room {
                lines.push(String::new());
                used = 0;
            }
            push(&mut lines, symbol);
            used += columns;
        }
    }
    lines
}

fn push(lines: &mut [String], text: &str) {
    if let Some(line) = lines.last_mut() {
        line.push_str(text);
    }
}

/// The first `room` lines; when there are more, the last one tells so.
#[must_use]
pub(crate) fn clip(mut lines: Vec<String>, room: usize, columns: usize) -> Vec<String> {
    if lines.len() > room {
        lines.truncate(room);
        if let Some(last) = lines.last_mut() {
            *last = start(&format!("{last} {}", ELLIPSIS.repeat(columns)), columns);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(clean("\u{1b}[31mred\u{7}\n\u{9b}2J"), "�[31mred���2J");
        assert_eq!(clean("evil\u{202e}txt.exe"), "evil�txt.exe");
        assert_eq!(clean("Größe 日本 e\u{301}"), "Größe 日本 e\u{301}");
    }

    #[test]
    fn what_does_not_fit_gets_an_ellipsis() {
        assert_eq!(start("NetworkManager", 8), "Network…");
        assert_eq!(start("NetworkManager", 14), "NetworkManager");
        assert_eq!(start("NetworkManager", 1), "…");
        assert_eq!(start("NetworkManager", 0), "");
        assert_eq!(start("日本語", 5), "日本…");
        assert_eq!(start("日本語", 4), "日…");
        assert_eq!(end("/usr/lib/firefox/firefox", 9), "…/firefox");
        assert_eq!(end("日本語", 4), "…語");
    }

    #[test]
    fn columns_are_filled() {
        assert_eq!(left("é", 3), "é  ");
        assert_eq!(right("日", 3), " 日");
    }

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("a limit that is refused", 9), ["a limit", "that is", "refused"]);
        assert_eq!(wrap("incomprehensible", 7), ["incompr", "ehensib", "le"]);
        assert_eq!(wrap("", 7), [""]);
        assert_eq!(clip(wrap("one two three four", 5), 2, 5), ["one", "two …"]);
    }

    proptest! {
        #[test]
        fn simple_texts_are_treated_as_all_others(text in "[ -~]{0,40}", room in 0..45_usize) {
            let columns: usize = graphemes(&Span::raw(text.as_str())).map(|(_, width)| width).sum();
            prop_assert_eq!(width(&text), columns);
            prop_assert_eq!(clean(&text), text.clone());
            let short = start(&text, room);
            prop_assert_eq!(width(&short), columns.min(room));
            prop_assert!(columns > room || short == text);
        }

        #[test]
        fn everything_fits(text: String, room in 0..40_usize) {
            prop_assert!(width(&start(&text, room)) <= room);
            prop_assert!(width(&end(&text, room)) <= room);
            prop_assert_eq!(width(&right(&text, room)), room);
            // One character may be wider than the whole line: most that are wide have two columns, one with a mark that
            // takes room has three.
            let shown = clean(&text);
            let widest = graphemes(&Span::raw(shown.as_str())).map(|(_, width)| width).max().unwrap_or_default();
            for line in clip(wrap(&text, room), 3, room) {
                prop_assert!(width(&line) <= room.max(widest));
            }
        }
    }
}
