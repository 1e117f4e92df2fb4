//! Facts as lines of a given width.
//!
//! Wrapped here and not where they are drawn, because how far one can scroll depends on how many there are.

use super::{
    facts::Fact,
    text::{left, right, width, wrap},
};

/// Room for a figure in one direction: the name of a backend is the longest.
const FIGURE: usize = 13;
/// Less room than this beside a name is not worth writing in.
const NARROWEST: usize = 12;

/// How a line stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Not at all.
    #[default]
    Plain,
    /// It is of less interest.
    Faint,
    /// It is chosen.
    Selected,
    /// It is wrong.
    Error,
    /// It is about a limit.
    Limit,
    /// It is drawn.
    Curve,
}

/// A line of the details or of the help.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FactLine {
    /// What stands out.
    pub strong: String,
    /// What follows it.
    pub text: String,
    /// How all of it stands out.
    pub tone: Tone,
}

impl FactLine {
    /// A line that is about what follows.
    pub(super) fn title(words: impl Into<String>) -> Self {
        Self { strong: words.into(), ..Self::default() }
    }

    /// A line of text.
    pub(super) fn text(words: impl Into<String>) -> Self {
        Self { text: words.into(), ..Self::default() }
    }

    /// The same, standing out otherwise.
    pub(super) fn toned(self, tone: Tone) -> Self {
        Self { tone, ..self }
    }
}

/// All facts, in lines of `room` columns.
pub(super) fn lines(facts: &[Fact], room: usize) -> Vec<FactLine> {
    let names = facts.iter().map(|fact| match fact {
        Fact::Pair(name, _) => width(name),
        Fact::Directions { name, .. } => name.len(),
        Fact::Title(_) | Fact::Note(_) | Fact::Gap => 0,
    });
    let beside = names.max().unwrap_or_default() + 2;
    facts.iter().flat_map(|fact| lines_of(fact, beside, room)).collect()
}

fn lines_of(fact: &Fact, beside: usize, room: usize) -> Vec<FactLine> {
    match fact {
        Fact::Title(title) => {
            let lines = wrap(title, room).into_iter();
            lines.map(|strong| FactLine { strong, ..FactLine::default() }).collect()
        }
        Fact::Note(note) => {
            wrap(note, room).into_iter().map(|text| FactLine { text, ..FactLine::default() }).collect()
        }
        Fact::Gap => vec![FactLine::default()],
        Fact::Pair(name, text) => pair(name, text, beside, room),
        Fact::Directions { name, upload, download } if beside + 2 * FIGURE <= room => {
            let text = format!("{}{}", right(upload, FIGURE), right(download, FIGURE));
            vec![FactLine { strong: left(name, beside), text, ..FactLine::default() }]
        }
        // The headings of columns that are not there.
        Fact::Directions { name, .. } if name.is_empty() => Vec::new(),
        Fact::Directions { name, upload, download } => {
            let directions = [("up", upload), ("down", download)];
            let told = directions.iter().filter(|(_, figure)| !figure.is_empty());
            let told: Vec<String> = told.map(|(direction, figure)| format!("{direction} {figure}")).collect();
            pair(name, &told.join(" "), beside, room)
        }
    }
}

fn pair(name: &str, text: &str, beside: usize, room: usize) -> Vec<FactLine> {
    if room < beside + NARROWEST {
        let below = wrap(text, room.saturating_sub(1)).into_iter();
        let below = below.map(|line| FactLine { text: format!(" {line}"), ..FactLine::default() });
        let strong = left(name, room);
        return std::iter::once(FactLine { strong, ..FactLine::default() }).chain(below).collect();
    }
    let mut name = name;
    let lines = wrap(text, room - beside).into_iter();
    lines
        .map(|text| FactLine { strong: left(std::mem::take(&mut name), beside), text, ..FactLine::default() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(facts: &[Fact], room: usize) -> Vec<String> {
        let lines = lines(facts, room).into_iter();
        lines.map(|line| format!("{}{}", line.strong, line.text).trim_end().to_owned()).collect()
    }

    #[test]
    fn values_go_below_their_names_where_there_is_no_room_beside_them() {
        let facts = [Fact::Pair("executable".into(), "/usr/bin/curl".into())];
        assert_eq!(text(&facts, 40), ["executable  /usr/bin/curl"]);
        assert_eq!(text(&facts, 20), ["executable", " /usr/bin/curl"]);
    }

    #[test]
    fn directions_stand_in_columns_or_in_words() {
        let directions = |name: &str, upload: &str, download: &str| Fact::Directions {
            name: name.into(),
            upload: upload.into(),
            download: download.into(),
        };
        let facts = [directions("", "upload", "download"), directions("offered", "5M", "")];
        assert_eq!(text(&facts, 60), ["                upload     download", "offered             5M"]);
        assert_eq!(text(&facts, 30), ["offered  up 5M"]);
    }
}
