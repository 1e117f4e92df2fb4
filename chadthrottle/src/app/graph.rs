//! A curve of dots: two beside each other and four above each other in every character (braille).

/// A curve, what it reaches, and how it is drawn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Graph<'a> {
    /// The values, the oldest first; the last one stands at the right edge.
    pub(super) values: &'a [f32],
    /// How many values the whole width stands for.
    pub(super) points: usize,
    /// What the upper edge stands for.
    pub(super) top: f32,
    /// A level that is drawn as a line, over the curve.
    pub(super) limit: Option<f32>,
    /// Another one, drawn as a fainter line.
    pub(super) mean: Option<f32>,
    /// The highest, drawn where nothing else is.
    pub(super) peak: Option<f32>,
    /// Without braille.
    pub(super) ascii: bool,
}

/// The first character of the braille block, the one without dots.
const BRAILLE: u32 = 0x2800;
/// The dots of a character by column and row, the lowest row first.
const DOTS: [[u32; 4]; 2] = [[0x40, 0x04, 0x02, 0x01], [0x80, 0x20, 0x10, 0x08]];

impl Graph<'_> {
    /// The lines from top to bottom.
    pub(super) fn lines(&self, width: usize, height: usize) -> Vec<String> {
        let across = if self.ascii { 1 } else { 2 };
        let above = if self.ascii { 1 } else { 4 };
        let levels: Vec<Option<usize>> =
            (0..width * across).map(|column| self.level(column, width * across, height * above)).collect();
        let row_of = |level: Option<f32>| {
            Some(portion(self.share(level?), height, f32::floor).min(height.saturating_sub(1)))
        };
        let (limit, mean, peak) = (row_of(self.limit), row_of(self.mean), row_of(self.peak));
        (0..height)
            .rev()
            .map(|row| {
                let line = (0..width).map(|column| {
                    let filled = self.cell(&levels[column * across..(column + 1) * across], row);
                    match filled {
                        _ if limit == Some(row) => self.rule(),
                        // Every other column: the curve shows through.
                        _ if mean == Some(row) && column % 2 == 0 => self.dash(),
                        Some(filled) => filled,
                        None if peak == Some(row) && column % 2 == 1 => self.dot(),
                        None => ' ',
                    }
                });
                line.collect()
            })
            .collect()
    }

    const fn rule(&self) -> char {
        if self.ascii { '-' } else { '─' }
    }

    const fn dash(&self) -> char {
        if self.ascii { '.' } else { '╌' }
    }

    const fn dot(&self) -> char {
        if self.ascii { '\'' } else { '┈' }
    }

    /// What stands in one character, where anything does.
    fn cell(&self, levels: &[Option<usize>], row: usize) -> Option<char> {
        if self.ascii {
            return levels.first().copied().flatten().filter(|level| *level > row).map(|_| '#');
        }
        let mut dots = 0;
        for (level, column) in levels.iter().zip(DOTS) {
            let filled = level.unwrap_or_default().saturating_sub(row * 4).min(4);
            dots |= column[..filled].iter().sum::<u32>();
        }
        if dots == 0 { None } else { char::from_u32(BRAILLE + dots) }
    }

    /// How high the curve stands in a column of dots. Something is more than nothing.
    fn level(&self, column: usize, columns: usize, rows: usize) -> Option<usize> {
        let back = (columns - 1 - column) * self.points / columns.max(1);
        let value = *self.values.get(self.values.len().checked_sub(back + 1)?)?;
        let level = portion(self.share(value), rows, f32::round);
        Some(if value > 0.0 { level.max(1) } else { 0 })
    }

    fn share(&self, value: f32) -> f32 {
        if self.top > 0.0 { (value / self.top).clamp(0.0, 1.0) } else { 0.0 }
    }
}

/// A share of so many, as a whole number.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "shares are from 0 to 1, and windows have fewer than thousands of dots"
)]
fn portion(share: f32, whole: usize, rounded: fn(f32) -> f32) -> usize {
    rounded(share * whole as f32) as usize
}

/// Levels of a sparkline.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const ASCII_BARS: [char; 8] = ['_', '.', '-', '=', '+', '*', '#', '@'];

/// A curve in one line; empty where nothing was.
pub(crate) fn sparkline(values: &[f32], width: usize, ascii: bool) -> String {
    let bars = if ascii { ASCII_BARS } else { BARS };
    let top = values.iter().copied().fold(0.0, f32::max);
    let drawn = values.iter().skip(values.len().saturating_sub(width)).map(|&value| {
        if value <= 0.0 || top <= 0.0 {
            return ' ';
        }
        bars[portion(value / top, bars.len() - 1, f32::round).min(bars.len() - 1)]
    });
    let drawn: String = drawn.collect();
    format!("{drawn:>width$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ramp_with_a_limit() {
        let values: Vec<f32> = (0..8_u8).map(f32::from).collect();
        let graph =
            Graph { values: &values, points: 8, top: 7.0, limit: None, mean: None, peak: None, ascii: false };
        assert_eq!(graph.lines(4, 2), ["  ⣠⣾", "⢀⣴⣿⣿"]);
        let held = Graph { limit: Some(6.9), mean: Some(1.0), ..graph };
        assert_eq!(held.lines(4, 2), ["────", "╌⣴╌⣿"]);
        let high = Graph { peak: Some(7.0), top: 13.0, ..graph };
        assert_eq!(high.lines(4, 2), [" ┈ ┈", "⢀⣠⣴⣿"]);
        let graph = Graph { ascii: true, points: 4, values: &values[4..], ..graph };
        assert_eq!(graph.lines(4, 2), ["  ##", "####"]);
        let graph = Graph { values: &[1.0], top: 100.0, limit: None, ..graph };
        assert_eq!(graph.lines(4, 2), ["    ", "   #"], "a little is not nothing");
    }

    #[test]
    fn a_sparkline_ends_now() {
        assert_eq!(sparkline(&[0.0, 1.0, 7.0], 5, false), "   ▂█");
        assert_eq!(sparkline(&[1.0, 7.0, 0.0], 2, true), "@ ");
        assert_eq!(sparkline(&[], 3, false), "   ");
    }
}
