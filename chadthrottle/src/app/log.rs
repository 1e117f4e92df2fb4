//! What was said so far.

use std::{collections::VecDeque, time::Duration};

use super::{
    App, Message,
    lines::{FactLine, Tone},
    text::wrap,
};

/// More than anybody scrolls through.
const LONGEST: usize = 500;
/// `1h 02:03 `.
const TIME: usize = 9;

/// Messages with the time at which they were said, since the start.
#[derive(Clone, Debug, Default)]
pub(super) struct Log(VecDeque<(Duration, Message)>);

impl Log {
    /// Adds one.
    pub(super) fn push(&mut self, at: Duration, message: Message) {
        // A monitor that fails does so every second.
        if self.0.back().is_some_and(|(_, last)| *last == message) {
            return;
        }
        if self.0.len() == LONGEST {
            self.0.pop_front();
        }
        self.0.push_back((at, message));
    }

    /// The latest first.
    pub(super) fn lines(&self, room: usize) -> Vec<FactLine> {
        let mut lines = vec![FactLine::title("Messages, the latest first")];
        if self.0.is_empty() {
            lines.push(FactLine::text("Nothing has been said yet."));
        }
        for (at, message) in self.0.iter().rev() {
            let mut time = clock(*at);
            let tone = if message.error { Tone::Error } else { Tone::Plain };
            for text in wrap(&message.text, room.saturating_sub(TIME).max(TIME)) {
                let strong = format!("{:TIME$}", std::mem::take(&mut time));
                lines.push(FactLine { strong, text, tone });
            }
        }
        lines
    }
}

impl App {
    /// Says something instead of what stands there.
    pub(super) fn say(&mut self, text: impl Into<String>) {
        self.tell(Message { text: text.into(), error: false });
    }

    pub(super) fn tell(&mut self, message: Message) {
        self.message = Some(message);
        self.said_at = self.elapsed;
    }

    /// Adds a sentence to what stands there.
    pub(super) fn notice(&mut self, words: &str) {
        self.log.push(self.elapsed, Message { text: words.to_owned(), error: false });
        match &mut self.message {
            Some(message) => message.text = format!("{} {words}", message.text),
            None => self.say(words),
        }
    }

    pub(super) fn complain(&mut self, text: impl Into<String>) {
        let message = Message { text: text.into(), error: true };
        self.log.push(self.elapsed, message.clone());
        self.tell(message);
    }
}

/// Minutes and seconds since the start.
fn clock(at: Duration) -> String {
    let seconds = at.as_secs();
    match seconds / 3600 {
        0 => format!("{:02}:{:02}", seconds / 60, seconds % 60),
        hours => format!("{hours}:{:02}:{:02}", seconds / 60 % 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_is_first_and_repeating_oneself_does_not_count() {
        let mut log = Log::default();
        let message = |text: &str, error| Message { text: text.into(), error };
        log.push(Duration::from_secs(61), message("one", false));
        log.push(Duration::from_secs(3723), message("two", true));
        log.push(Duration::from_secs(3724), message("two", true));
        let lines: Vec<_> =
            log.lines(40).into_iter().map(|line| format!("{}{}", line.strong, line.text)).collect();
        assert_eq!(lines, ["Messages, the latest first", "1:02:03  two", "01:01    one"]);
        for number in 0..2 * LONGEST {
            log.push(Duration::ZERO, message(&number.to_string(), false));
        }
        assert_eq!(log.0.len(), LONGEST);
    }
}
