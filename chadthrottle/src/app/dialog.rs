//! The dialog that asks for limits.

use super::{
    input::{Edit, TextInput},
    keys::Directions,
};
use crate::{
    backends::throttle::{Target, manager::Limits},
    rate::Rate,
};

/// What is sent, or what is received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// What a process sends.
    Upload,
    /// What a process receives.
    Download,
}

impl Direction {
    /// Its name on the screen.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Upload => "upload",
            Self::Download => "download",
        }
    }

    const fn of(self, limits: Limits) -> Option<u64> {
        match self {
            Self::Upload => limits.upload,
            Self::Download => limits.download,
        }
    }
}

/// One direction's input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// What is limited.
    pub direction: Direction,
    /// What was typed.
    pub input: TextInput,
    /// The limit in force when the dialog was opened.
    pub now: Option<u64>,
}

/// Asks for the limits of one process. The process stays the one that the dialog was opened for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitDialog {
    target: Target,
    fields: Vec<Field>,
    focus: usize,
    error: Option<String>,
}

impl LimitDialog {
    /// A dialog with the limits in force filled in.
    #[must_use]
    pub fn new(target: Target, directions: Directions, now: Limits) -> Self {
        let directions: &[Direction] = match directions {
            Directions::Upload => &[Direction::Upload],
            Directions::Download => &[Direction::Download],
            Directions::Both => &[Direction::Upload, Direction::Download],
        };
        let field = |&direction: &Direction| {
            let now = direction.of(now);
            Field { direction, input: TextInput::new(now.map(exact).unwrap_or_default()), now }
        };
        Self { target, fields: directions.iter().map(field).collect(), focus: 0, error: None }
    }

    /// Whom it limits.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }

    /// The inputs, from top to bottom.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Which of them takes the keys.
    #[must_use]
    pub const fn focus(&self) -> usize {
        self.focus
    }

    /// Why what was typed is not taken.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What the focused input means as it stands.
    #[must_use]
    pub fn meaning(&self) -> String {
        let Some(field) = self.fields.get(self.focus) else { return String::new() };
        let verb = match field.direction {
            Direction::Upload => "sent",
            Direction::Download => "received",
        };
        match parse(&field.input) {
            Ok(None) => format!(
                "Empty: no {} limit. Type bytes a second as 250000, 500K, 1.5M, 512Ki or bits as 10mbit; 0 blocks.",
                field.direction.name()
            ),
            Ok(Some(0)) => format!("0 blocks: nothing is {verb} at all."),
            Ok(Some(1)) => format!("1 byte a second may be {verb}."),
            Ok(Some(limit)) => format!("{limit} bytes a second may be {verb}."),
            Err(_) => "Enter takes it when it is a rate.".into(),
        }
    }

    /// Types in the focused input.
    pub fn edit(&mut self, edit: Edit) {
        self.error = None;
        if let Some(field) = self.fields.get_mut(self.focus) {
            field.input.edit(edit);
        }
    }

    /// Gives the keys to the next input.
    pub fn next_field(&mut self) {
        self.focus = (self.focus + 1) % self.fields.len().max(1);
    }

    /// The limits that were asked for; a direction that was not asked about stays as it is `now`.
    ///
    /// `None` when something is no rate: then the dialog tells why, at the input in question.
    pub fn accept(&mut self, now: Limits) -> Option<Limits> {
        let mut limits = now;
        for (index, field) in self.fields.iter().enumerate() {
            match parse(&field.input) {
                Ok(limit) => match field.direction {
                    Direction::Upload => limits.upload = limit,
                    Direction::Download => limits.download = limit,
                },
                Err(error) => {
                    self.focus = index;
                    self.error = Some(error);
                    return None;
                }
            }
        }
        Some(limits)
    }
}

/// Nothing typed is no limit.
fn parse(input: &TextInput) -> Result<Option<u64>, String> {
    let text = input.text();
    if text.trim().is_empty() {
        return Ok(None);
    }
    text.parse::<Rate>().map(|rate| Some(rate.0)).map_err(|error| error.to_string())
}

/// The shortest form that is read back as exactly this limit: pressing Enter at once must change nothing.
fn exact(limit: u64) -> String {
    let short = Rate(limit).to_string();
    if short.parse() == Ok(Rate(limit)) { short } else { limit.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::process::ProcessId;

    fn dialog(directions: Directions, now: Limits) -> LimitDialog {
        let target = Target::process(ProcessId { pid: 1, start_time: 1 }, "curl");
        LimitDialog::new(target, directions, now)
    }

    proptest! {
        #[test]
        fn enter_at_once_changes_nothing(upload in 0..=999_000_000_000_000_u64, download: Option<u32>) {
            let now = Limits { upload: Some(upload), download: download.map(u64::from) };
            prop_assert_eq!(dialog(Directions::Both, now).accept(now), Some(now));
        }
    }

    #[test]
    fn a_direction_that_was_not_asked_about_stays() {
        let now = Limits { upload: Some(5), download: Some(7) };
        let mut dialog = dialog(Directions::Upload, now);
        dialog.edit(Edit::Clear);
        assert_eq!(dialog.accept(now), Some(Limits { upload: None, download: Some(7) }));
    }

    #[test]
    fn what_is_no_rate_is_told_at_the_input_in_question() {
        let now = Limits::default();
        let mut dialog = dialog(Directions::Both, now);
        dialog.next_field();
        for typed in "5 apples".chars() {
            dialog.edit(Edit::Insert(typed));
        }
        dialog.next_field();
        assert_eq!(dialog.accept(now), None);
        assert_eq!(dialog.focus(), 1);
        assert!(dialog.error().is_some_and(|error| error.contains("\"5 apples\" is not a rate")));
        dialog.edit(Edit::Clear);
        assert_eq!(dialog.error(), None);
    }

    #[test]
    fn blocking_is_said_in_words() {
        let mut dialog = dialog(Directions::Download, Limits::default());
        assert!(dialog.meaning().starts_with("Empty: no download limit"));
        dialog.edit(Edit::Insert('0'));
        assert_eq!(dialog.meaning(), "0 blocks: nothing is received at all.");
    }
}
