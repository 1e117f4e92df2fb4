//! A line of text that a person types.

/// A change to the text or to the place in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Edit {
    /// Type a character.
    Insert(char),
    /// One character to the left.
    Left,
    /// One character to the right.
    Right,
    /// To the start.
    Start,
    /// To the end.
    End,
    /// Erase the character before.
    Backspace,
    /// Erase the character after.
    Delete,
    /// Erase everything.
    Clear,
}

/// Longer than any rate or process name; keeps a stray paste from growing without end.
const LONGEST: usize = 64;

/// The text and the place in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TextInput {
    before: String,
    /// The text after the cursor.
    after: String,
    /// Whether nobody has typed any of it: then the first key replaces it.
    is_filled_in: bool,
}

impl TextInput {
    /// A text with the cursor at its end.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self { before: text, ..Self::default() }
    }

    /// A text that the first character typed takes the place of, and that can be edited all the same.
    #[must_use]
    pub fn filled_in(text: String) -> Self {
        Self { is_filled_in: !text.is_empty(), ..Self::new(text) }
    }

    /// Whether the first character typed takes its place.
    #[must_use]
    pub const fn is_filled_in(&self) -> bool {
        self.is_filled_in
    }

    /// All of it.
    #[must_use]
    pub fn text(&self) -> String {
        format!("{}{}", self.before, self.after)
    }

    /// What is left of the cursor.
    #[must_use]
    pub fn before_cursor(&self) -> &str {
        &self.before
    }

    /// What is right of the cursor.
    #[must_use]
    pub fn after_cursor(&self) -> &str {
        &self.after
    }

    /// Makes a change. One that is not possible there changes nothing.
    pub fn edit(&mut self, edit: Edit) {
        if std::mem::take(&mut self.is_filled_in)
            && matches!(edit, Edit::Insert(_) | Edit::Backspace | Edit::Delete)
        {
            *self = Self::default();
        }
        match edit {
            Edit::Insert(character) => self.insert(character),
            Edit::Left => {
                if let Some(character) = self.before.pop() {
                    self.after.insert(0, character);
                }
            }
            Edit::Right => {
                if !self.after.is_empty() {
                    self.before.push(self.after.remove(0));
                }
            }
            Edit::Start => *self = Self { after: self.text(), ..Self::default() },
            Edit::End => *self = Self::new(self.text()),
            Edit::Backspace => {
                self.before.pop();
            }
            Edit::Delete => {
                if !self.after.is_empty() {
                    self.after.remove(0);
                }
            }
            Edit::Clear => *self = Self::default(),
        }
    }

    /// Types a character, unless it is one that cannot be shown.
    fn insert(&mut self, character: char) {
        let length = self.before.chars().count() + self.after.chars().count();
        if !character.is_control() && length < LONGEST {
            self.before.push(character);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edited(text: &str, edits: &[Edit]) -> (String, String) {
        let mut input = TextInput::new(text.into());
        for edit in edits {
            input.edit(*edit);
        }
        (input.before_cursor().to_owned(), input.after_cursor().to_owned())
    }

    #[test]
    fn edits_happen_at_the_cursor() {
        let pair = |before: &str, after: &str| (before.to_owned(), after.to_owned());
        assert_eq!(edited("10M", &[Edit::Left, Edit::Insert('0')]), pair("100", "M"));
        assert_eq!(edited("10M", &[Edit::Start, Edit::Delete]), pair("", "0M"));
        assert_eq!(edited("é1", &[Edit::Left, Edit::Backspace]), pair("", "1"));
        assert_eq!(edited("10M", &[Edit::Start, Edit::Right, Edit::End, Edit::Backspace]), pair("10", ""));
        assert_eq!(edited("10M", &[Edit::Clear, Edit::Backspace, Edit::Delete, Edit::Right]), pair("", ""));
    }

    #[test]
    fn what_was_filled_in_makes_way_for_what_is_typed() {
        let edited = |edits: &[Edit]| {
            let mut input = TextInput::filled_in("10M".into());
            for edit in edits {
                input.edit(*edit);
            }
            input.text()
        };
        assert_eq!(edited(&[Edit::Insert('2'), Edit::Insert('K')]), "2K");
        assert_eq!(edited(&[Edit::Backspace]), "");
        assert_eq!(edited(&[Edit::End, Edit::Backspace, Edit::Insert('K')]), "10K");
        assert_eq!(edited(&[Edit::Left, Edit::Insert('0')]), "100M");
    }

    #[test]
    fn what_cannot_be_shown_is_not_taken_and_the_length_is_bounded() {
        assert_eq!(edited("", &[Edit::Insert('\u{1b}'), Edit::Insert('\n')]).0, "");
        assert_eq!(edited("", &[Edit::Insert('x'); 200]).0.len(), LONGEST);
    }
}
