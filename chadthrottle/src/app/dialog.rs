//! The dialog that asks for limits.

use super::{
    input::{Edit, TextInput},
    keys::Directions,
};
use crate::{
    backends::throttle::{Subject, Target, TrafficType, manager::Limits},
    lookout::Reach,
    process::ProcessId,
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

/// Whom a limit may cover, and what is known of that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Whom. None as long as a user's number is not known.
    pub subject: Option<Subject>,
    /// What people call whom it covers.
    pub name: String,
    /// The same in words.
    pub words: String,
    /// What the container is called that it covers, where it is one that is known by a name.
    pub container: Option<String>,
    /// The processes that it covers now.
    pub members: Vec<ProcessId>,
    /// What is to be known before it is limited.
    pub warning: Option<String>,
    /// The limits in force.
    pub now: Limits,
    /// The traffic that these are for.
    pub traffic: TrafficType,
}

/// Rates that are often wanted, in bytes a second.
const PRESETS: [u64; 6] = [100_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000];
/// So many rates are offered.
const OFFERED: usize = 9;

/// Asks for limits. Whom it is about stays as it was when the dialog was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitDialog {
    choices: Vec<Choice>,
    chosen: usize,
    reach: Option<Reach>,
    traffic: TrafficType,
    fields: Vec<Field>,
    focus: usize,
    offered: Vec<u64>,
    error: Option<String>,
}

impl LimitDialog {
    /// A dialog with the limits in force filled in. Rates that were set lately are offered first.
    #[must_use]
    pub fn new(choices: Vec<Choice>, chosen: usize, directions: Directions, recent: &[u64]) -> Self {
        let directions: &[Direction] = match directions {
            Directions::Upload => &[Direction::Upload],
            Directions::Download => &[Direction::Download],
            Directions::Both => &[Direction::Upload, Direction::Download],
        };
        let fields =
            directions.iter().map(|&direction| Field { direction, input: TextInput::default(), now: None });
        let mut offered = recent.to_vec();
        offered.extend(PRESETS.iter().filter(|preset| !recent.contains(preset)));
        offered.truncate(OFFERED);
        let fields = fields.collect();
        let traffic = TrafficType::default();
        let mut dialog =
            Self { choices, chosen, reach: None, traffic, fields, focus: 0, offered, error: None };
        dialog.fill_in();
        dialog
    }

    /// Fills in what is in force for whom is chosen.
    fn fill_in(&mut self) {
        let now = self.choice().map(|choice| choice.now).unwrap_or_default();
        self.traffic = self.choice().map(|choice| choice.traffic).unwrap_or_default();
        for field in &mut self.fields {
            field.now = field.direction.of(now);
            field.input = TextInput::filled_in(field.now.map(exact).unwrap_or_default());
        }
    }

    /// Whom it limits.
    #[must_use]
    pub fn choice(&self) -> Option<&Choice> {
        self.choices.get(self.chosen)
    }

    /// All whom it could limit.
    #[must_use]
    pub fn choices(&self) -> &[Choice] {
        &self.choices
    }

    /// Whom it limits and which of their traffic, as something to be ordered.
    ///
    /// # Errors
    /// When it is not known yet whom that is, in words.
    pub fn target(&self) -> Result<Target, String> {
        let choice = self.choice().ok_or("There is nobody to limit.")?;
        let subject = choice.subject.clone();
        let subject =
            subject.ok_or_else(|| format!("The number of the user {} is not known yet.", choice.name))?;
        Ok(Target { subject, name: choice.name.clone(), traffic: self.traffic })
    }

    /// Which of their traffic it limits.
    #[must_use]
    pub const fn traffic(&self) -> TrafficType {
        self.traffic
    }

    /// The inputs, from top to bottom.
    #[must_use]
    pub fn fields(&self) -> &[Field] {
        &self.fields
    }

    /// Which line takes the keys: an input, or after the last one whom it is about, and then which traffic.
    #[must_use]
    pub const fn focus(&self) -> usize {
        self.focus
    }

    /// Whether the keys choose whom it is about.
    #[must_use]
    pub const fn is_choosing(&self) -> bool {
        self.focus >= self.fields.len()
    }

    /// Rates that one key fills in.
    #[must_use]
    pub fn offered(&self) -> &[u64] {
        &self.offered
    }

    /// Why what was typed is not taken.
    #[must_use]
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// What it will touch, as far as that is known.
    #[must_use]
    pub fn preview(&self) -> String {
        let Some(choice) = self.choice() else { return String::new() };
        let count = |count: usize, one: &str, many: &str| match count {
            1 => format!("1 {one}"),
            count => format!("{count} {many}"),
        };
        let mut words = vec![count(choice.members.len(), "process", "processes")];
        let Some(reach) = &self.reach else { return words.concat() };
        match reach.connections {
            Some(connections) => {
                words.push(format!(", {}", count(connections, "connection", "connections")));
            }
            None => words.push(", connections not ours to count".into()),
        }
        if let Some((who, shared)) = reach.shared.first() {
            words.push(format!(", {shared} of them shared with {} ({})", who.name, who.id));
            if reach.shared.len() > 1 {
                words.push(format!(" and {} more", reach.shared.len() - 1));
            }
        }
        words.concat()
    }

    /// Takes in what a limit on these processes would touch.
    pub fn reaches(&mut self, processes: &[ProcessId], reach: Reach) {
        if self.choice().is_none_or(|choice| choice.members != processes) {
            return;
        }
        // The one choice without a subject is the user's.
        if let (Some(uid), Some(user)) =
            (reach.uid, self.choices.iter_mut().find(|choice| choice.subject.is_none()))
        {
            user.subject = Some(Subject::User(uid));
        }
        self.reach = Some(reach);
    }

    /// What the focused input means as it stands.
    #[must_use]
    pub fn meaning(&self) -> String {
        let Some(field) = self.fields.get(self.focus) else {
            let what = if self.focus == self.fields.len() { "whom it covers" } else { "which traffic" };
            return format!("Left and right choose {what}.");
        };
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

    /// Gives the keys to the next line, or the one before.
    pub const fn next_field(&mut self, back: bool) {
        let lines = self.fields.len() + 2;
        self.focus = (self.focus + if back { lines - 1 } else { 1 }) % lines;
    }

    /// The next value of the focused line, or the one before. The processes to be asked about, where it covers others.
    pub fn choose(&mut self, next: bool) -> Option<Vec<ProcessId>> {
        let step = |place: usize, length: usize| (place + if next { 1 } else { length - 1 }) % length;
        self.error = None;
        let fields = self.fields.len();
        match self.fields.get_mut(self.focus) {
            Some(field) if !self.offered.is_empty() => {
                let length = self.offered.len();
                let place = parse(&field.input).ok().flatten();
                let place = place.and_then(|rate| self.offered.iter().position(|offered| *offered == rate));
                let place = place.map_or(if next { 0 } else { length - 1 }, |place| step(place, length));
                field.input = TextInput::filled_in(exact(self.offered[place]));
                None
            }
            None if self.focus > fields => {
                self.traffic = if next { self.traffic.next() } else { self.traffic.next().next() };
                None
            }
            None if self.choices.len() > 1 => {
                self.chosen = step(self.chosen, self.choices.len());
                self.reach = None;
                // What was typed stays; what was only filled in is that of somebody else.
                if self.fields.iter().all(|field| parse(&field.input) == Ok(field.now)) {
                    self.fill_in();
                }
                let now = self.choice().map(|choice| choice.now).unwrap_or_default();
                self.fields.iter_mut().for_each(|field| field.now = field.direction.of(now));
                self.choice().map(|choice| choice.members.clone())
            }
            _ => None,
        }
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

    fn dialog(directions: Directions, now: Limits) -> LimitDialog {
        let id = ProcessId { pid: 1, start_time: 1 };
        let choice = Choice {
            subject: Some(Subject::Process(id)),
            name: "curl".into(),
            container: None,
            words: "this process".into(),
            members: vec![id],
            warning: None,
            now,
            traffic: TrafficType::All,
        };
        LimitDialog::new(vec![choice], 0, directions, &[7_000_000])
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
        dialog.next_field(false);
        for typed in "5 apples".chars() {
            dialog.edit(Edit::Insert(typed));
        }
        dialog.next_field(false);
        assert_eq!(dialog.accept(now), None);
        assert_eq!(dialog.focus(), 1);
        assert!(dialog.error().is_some_and(|error| error.contains("\"5 apples\" is not a rate")));
        dialog.edit(Edit::Clear);
        assert_eq!(dialog.error(), None);
    }

    #[test]
    fn rates_are_offered_and_those_of_lately_come_first() {
        let mut dialog = dialog(Directions::Upload, Limits::default());
        let typed = |dialog: &LimitDialog| dialog.fields()[0].input.text();
        for expected in ["7M", "100K", "500K"] {
            dialog.choose(true);
            assert_eq!(typed(&dialog), expected);
        }
        dialog.choose(false);
        assert_eq!(typed(&dialog), "100K");
        assert_eq!(dialog.offered().len(), PRESETS.len() + 1);
    }

    #[test]
    fn blocking_is_said_in_words() {
        let mut dialog = dialog(Directions::Download, Limits::default());
        assert!(dialog.meaning().starts_with("Empty: no download limit"));
        dialog.edit(Edit::Insert('0'));
        assert_eq!(dialog.meaning(), "0 blocks: nothing is received at all.");
    }
}
