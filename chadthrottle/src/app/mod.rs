//! What the screen shows and what keys do to it.
//!
//! [`App::update`] takes an event and answers with what is to be done about it. It reads no clock and no file,
//! and waits for nothing: what it does depends on what it was told, and on nothing else.

mod act;
mod backends;
mod choices;
pub mod chooser;
pub mod columns;
pub mod dialog;
mod event;
pub mod facts;
pub mod filter;
pub mod footer;
mod graph;
pub mod group;
pub mod history;
mod host;
mod hosts;
pub mod input;
pub mod keys;
pub mod layout;
mod limiting;
pub mod lines;
mod log;
mod look;
pub mod looks;
mod mouse;
pub mod page;
mod past;
mod read;
pub mod row;
mod saving;
pub mod sort;
pub mod table;
pub(crate) mod text;
pub mod unit;
pub mod units;

use std::{collections::HashMap, time::Duration};

use ratatui::layout::Size;

pub use self::event::{Cost, Effect, Event, LimitOutcome};
pub(crate) use self::graph::sparkline;
pub use self::hosts::MOST_ASKED;
pub use self::limiting::{Confirm, Refused};
use self::{
    backends::BackendList,
    chooser::Hidden,
    dialog::LimitDialog,
    history::Histories,
    host::{InterfaceRates, OwnCost},
    hosts::Hosts,
    input::{Edit, TextInput},
    keys::Place,
    limiting::Change,
    log::Log,
    look::{Details, Looked, Part},
    looks::Looks,
    past::PastView,
    row::Row,
    saving::Saving,
    table::Table,
    units::Units,
};
use crate::{
    backends::throttle::{
        Subject, Target, TrafficType,
        manager::{LimitedTarget, Limits},
    },
    lookout::{Ancestor, Answer, Question},
    stats::Snapshot,
};

/// Which backends are at work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackendNames {
    /// Counts.
    pub monitor: &'static str,
    /// Limits what is sent.
    pub upload: &'static str,
    /// Limits what is received.
    pub download: Option<&'static str>,
}

/// What the application is told at its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setup {
    /// Which backends are at work.
    pub backends: BackendNames,
    /// What the terminal can show.
    pub looks: Looks,
    /// In which units figures are shown.
    pub units: Units,
    /// Whether the host is a simulated one, which has to be said.
    pub is_demo: bool,
    /// Whether the mouse is ours.
    pub mouse: bool,
    /// Columns that nobody wants to see.
    pub hidden: Hidden,
}

impl Setup {
    /// With these backends, and everything else as it usually is.
    #[must_use]
    pub fn new(backends: BackendNames) -> Self {
        let (looks, units, hidden) = (Looks::default(), Units::default(), Hidden::default());
        Self { backends, looks, units, is_demo: false, mouse: true, hidden }
    }
}

/// A sentence below the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// What it says.
    pub text: String,
    /// Whether something went wrong.
    pub error: bool,
}

/// So long stands what is no error; what matters is among the messages then.
const LINGERS: Duration = Duration::from_secs(20);

#[derive(Clone, Debug)]
enum View {
    Table,
    Details(Details),
    Interfaces { scroll: usize },
    System { scroll: usize },
    Backends(BackendList),
    History,
    Columns { place: usize },
    Log { scroll: usize },
}

/// What lies over the view.
#[derive(Clone, Debug)]
enum Overlay {
    Help { scroll: usize },
    Limit(Box<LimitDialog>),
    Confirm(Confirm),
    Save(Box<Saving>),
    Filter(TextInput),
}

/// Everything that the screen is drawn from.
#[derive(Clone, Debug)]
pub struct App {
    setup: Setup,
    size: Size,
    snapshot: Option<Snapshot>,
    paused: bool,
    /// What came last while the display is held.
    held: Option<Snapshot>,
    histories: Histories,
    /// What histories were when the display was held.
    frozen: Option<Histories>,
    traffic: TrafficType,
    limited: Vec<LimitedTarget>,
    /// Limits that were refused, and why, until they are asked for again.
    refused: HashMap<Subject, Refused>,
    /// Rules by whom they hold, in words.
    rules: HashMap<Subject, String>,
    table: Table,
    /// Whether a question about kin is on its way.
    asking_kin: bool,
    looked: Looked,
    hosts: Hosts,
    past: PastView,
    interfaces: InterfaceRates,
    cost: OwnCost,
    /// What this terminal hangs on.
    session: Vec<Ancestor>,
    changes: Vec<Change>,
    /// Rates that were set lately, the last one first.
    recent: Vec<u64>,
    view: View,
    overlay: Option<Overlay>,
    /// Until the next key, or for a while where nothing is wrong.
    message: Option<Message>,
    said_at: Duration,
    /// Until the engine works again.
    trouble: Option<String>,
    log: Log,
    /// How long figures have been coming.
    elapsed: Duration,
}

impl App {
    /// A screen without figures yet.
    #[must_use]
    pub fn new(setup: Setup, size: Size) -> Self {
        Self {
            setup,
            size,
            snapshot: None,
            paused: false,
            held: None,
            histories: Histories::default(),
            frozen: None,
            traffic: TrafficType::default(),
            limited: Vec::new(),
            refused: HashMap::new(),
            rules: HashMap::new(),
            table: Table::default(),
            asking_kin: false,
            looked: Looked::default(),
            hosts: Hosts::default(),
            past: PastView::default(),
            interfaces: InterfaceRates::default(),
            cost: OwnCost::default(),
            session: Vec::new(),
            changes: Vec::new(),
            recent: Vec::new(),
            view: View::Table,
            overlay: None,
            message: None,
            said_at: Duration::ZERO,
            trouble: None,
            log: Log::default(),
            elapsed: Duration::ZERO,
        }
    }

    /// What is to be done before anything has happened.
    #[must_use]
    pub fn start(&self) -> Vec<Effect> {
        vec![Effect::Ask(Question::Session)]
    }

    /// Takes in what happened; what is to be done about it comes back.
    pub fn update(&mut self, event: Event) -> Vec<Effect> {
        match event {
            Event::Key(key) => {
                return self.place().action(key).map(|action| self.act(action)).unwrap_or_default();
            }
            Event::Paste(text) => {
                if self.place().takes_text() {
                    for character in text.chars() {
                        self.edit(Edit::Insert(character));
                    }
                }
            }
            Event::Resize(size) => self.size = size,
            Event::Snapshot(snapshot) => return self.take_in(snapshot),
            // Never held: a limit in force that is not shown would be a lie, a moving counter is none.
            Event::Limits(limited) => {
                let is_new = !self.limited.iter().map(in_force).eq(limited.iter().map(in_force));
                self.limited = limited;
                // What limits did is put together with the figures that follow, unless these are held.
                if is_new || self.paused {
                    self.refresh();
                }
            }
            Event::LimitResult(outcome) => self.limit_result(outcome),
            Event::Notice(words) | Event::RuleSaved(Ok(words)) => self.notice(&words),
            Event::Rules(rules) => self.rules = rules.into_iter().collect(),
            Event::EngineFailed(words) => {
                self.log.push(self.elapsed, Message { text: words.clone(), error: true });
                self.trouble = Some(words);
                self.refresh();
            }
            Event::Cost(cost) => self.cost.take_in(cost),
            Event::PacketCost(cost) => self.cost.take_in_packets(cost),
            Event::Backends(names) => {
                self.setup.backends = names;
                self.say("Another backend is at work.");
            }
            Event::NotSwitched(words) | Event::RuleSaved(Err(words)) => self.complain(words),
            Event::Mouse(mouse) => return self.mouse(mouse),
            Event::Answer(Answer::Past(asked, past)) => return self.take_in_past(&asked, *past),
            Event::Answer(answer) => {
                self.answered(answer);
                return self.ask_for_names();
            }
            Event::Named(address, name) => self.hosts.take_in(address, name, self.elapsed),
            Event::Signal => return vec![Effect::Quit],
        }
        Vec::new()
    }

    /// Where keys are pressed now.
    #[must_use]
    pub const fn place(&self) -> Place {
        match (&self.overlay, &self.view) {
            (Some(Overlay::Help { .. }), _) => Place::Help,
            (Some(Overlay::Limit(_)), _) => Place::Limit,
            (Some(Overlay::Confirm(_)), _) => Place::Confirm,
            (Some(Overlay::Save(_)), _) => Place::Save,
            (Some(Overlay::Filter(_)), _) => Place::Filter,
            (None, View::Details(_)) => Place::Details,
            (None, View::Interfaces { .. } | View::System { .. } | View::Log { .. }) => Place::Page,
            (None, View::Backends(_)) => Place::Backends,
            (None, View::History) => Place::History,
            (None, View::Columns { .. }) => Place::Columns,
            (None, View::Table) => Place::Table,
        }
    }

    fn take_in(&mut self, snapshot: Snapshot) -> Vec<Effect> {
        self.trouble = None;
        self.elapsed += snapshot.interval;
        self.histories.take_in(&snapshot);
        let is_old = self.elapsed.saturating_sub(self.said_at) > LINGERS;
        if is_old && self.message.as_ref().is_some_and(|message| !message.error) {
            self.message = None;
        }
        if self.paused {
            self.held = Some(snapshot);
            return Vec::new();
        }
        self.interfaces.take_in(&snapshot);
        self.snapshot = Some(snapshot);
        self.refresh();
        self.wonder()
    }

    /// What is to be found out for what is on the screen. One question at a time: whoever answers may be slow.
    fn wonder(&mut self) -> Vec<Effect> {
        let mut questions = Vec::new();
        if let View::Details(details) = &self.view
            && !self.paused
        {
            questions.extend(self.looked.question(details.process()));
        }
        let orphans = self.table.orphans();
        if !self.asking_kin && !orphans.is_empty() {
            self.asking_kin = true;
            questions.push(Question::Kin(orphans));
        }
        questions.extend(self.renew_past());
        questions.into_iter().map(Effect::Ask).collect()
    }

    /// Names of the hosts on the screen, where these are wanted.
    fn ask_for_names(&mut self) -> Vec<Effect> {
        let View::Details(details) = &self.view else { return Vec::new() };
        if details.part != Part::Connections {
            return Vec::new();
        }
        let peers = self.looked.peers(details.process(), details.scroll, usize::from(self.size.height));
        let wanted = self.hosts.wanted(peers, self.elapsed);
        if wanted.is_empty() { Vec::new() } else { vec![Effect::Name(wanted)] }
    }

    fn answered(&mut self, answer: Answer) {
        match answer {
            Answer::Look(look) => self.looked.take_in(*look),
            Answer::Kin(kin) => {
                self.asking_kin = false;
                self.table.learn(kin.into_iter().collect());
            }
            Answer::Reach(processes, reach) => {
                if let Some(Overlay::Limit(dialog)) = &mut self.overlay {
                    dialog.reaches(&processes, reach);
                }
            }
            Answer::Session(session) => self.session = session,
            Answer::Backends(listing) => {
                if let View::Backends(list) = &mut self.view {
                    list.take_in(listing);
                }
            }
            // Leads to the next question.
            Answer::Past(..) => {}
        }
    }

    fn refresh(&mut self) {
        let seen = self.snapshot.as_ref().map(|snapshot| snapshot.processes.as_slice()).unwrap_or_default();
        let rows = Row::merge(seen, &self.limited, self.traffic);
        self.table.replace(rows, self.limited.clone());
    }
}

/// What of a limit changes only when somebody changes it.
fn in_force(limited: &LimitedTarget) -> (&Target, Limits, bool) {
    (&limited.target, limited.limits, limited.alive)
}
