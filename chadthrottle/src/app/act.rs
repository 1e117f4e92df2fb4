//! What keys do.

use super::{
    App, Effect, Overlay, View,
    backends::BackendList,
    chooser::Part,
    group::Key,
    input::{Edit, TextInput},
    keys::{Action, Destination, Motion},
    layout,
    look::Details,
    sort::Sort,
    table::{Entry, stepped},
};
use crate::lookout::Question;

impl App {
    /// Does what a key stands for where it was pressed.
    pub(super) fn act(&mut self, action: Action) -> Vec<Effect> {
        let shows_cost = |view: &View| matches!(view, View::System { .. });
        let before = shows_cost(&self.view);
        let mut effects = self.carry_out_action(action);
        let now = shows_cost(&self.view);
        if before != now {
            effects.push(Effect::MeasurePackets(now));
        }
        effects
    }

    fn carry_out_action(&mut self, action: Action) -> Vec<Effect> {
        self.message = None;
        if let Some(effects) = self.act_on_past(action) {
            return effects;
        }
        if matches!(
            action,
            Action::Open
                | Action::Limit(_)
                | Action::RemoveLimits
                | Action::Block
                | Action::Step { .. }
                | Action::SaveRule
        ) {
            self.table.choose();
        }
        match action {
            Action::Quit => return vec![Effect::Quit],
            Action::Suspend => return vec![Effect::Suspend],
            Action::Move(motion) => self.step(motion),
            Action::Open => return self.open(),
            Action::Back => self.back(),
            Action::Help => self.overlay = Some(Overlay::Help { scroll: 0 }),
            Action::Show(destination) => return self.show(destination),
            Action::Limit(directions) => return self.ask_for_limits(directions),
            Action::RemoveLimits => return self.remove_limits(),
            Action::RemoveAllLimits => self.ask_to_remove_all(),
            Action::Step { up } => return self.step_limits(up),
            Action::Block => self.ask_to_block(),
            Action::Undo => return self.undo(),
            Action::SaveRule => self.ask_to_save(),
            Action::NextSort => {
                self.sort(Sort { column: self.table.sort().column.next(), reversed: false });
            }
            Action::ReverseSort => {
                let sort = self.table.sort();
                self.sort(Sort { reversed: !sort.reversed, ..sort });
            }
            Action::NextGrouping => {
                let grouping = self.table.grouping().next();
                self.table.set_grouping(grouping);
                self.say(grouping.describe());
                return self.wonder();
            }
            Action::Fold(folded) => {
                self.table.fold(folded);
            }
            Action::FoldAll => self.table.fold_all(),
            Action::NextTraffic => {
                self.traffic = self.traffic.next();
                self.refresh();
                self.say(format!("Traffic shown: {}.", self.traffic.name()));
            }
            Action::NextUnits => {
                self.setup.units = self.setup.units.next();
                self.say(self.setup.units.describe());
            }
            Action::Mouse => {
                self.setup.mouse = !self.setup.mouse;
                self.say(if self.setup.mouse {
                    "The mouse is ours."
                } else {
                    "The mouse is the terminal's."
                });
                return vec![Effect::Mouse(self.setup.mouse)];
            }
            Action::Part { next } => {
                if let View::Details(details) = &mut self.view {
                    details.turn(next);
                }
                return self.ask_for_names();
            }
            Action::HostNames => {
                self.hosts.switch();
                self.say(if self.hosts.is_on() {
                    "Host names are asked for, of the system's resolver."
                } else {
                    "Addresses, no host names."
                });
                return self.ask_for_names();
            }
            Action::Zoom { longer } => {
                if let View::Details(details) = &mut self.view {
                    details.zoom(longer);
                }
            }
            Action::Filter => {
                self.overlay = Some(Overlay::Filter(TextInput::new(self.table.filter().text().into())));
            }
            Action::Pause => return self.pause(),
            Action::Accept => return self.accept(),
            Action::OtherField { back } => {
                if let Some(Overlay::Limit(dialog)) = &mut self.overlay {
                    dialog.next_field(back);
                }
            }
            Action::Choose { next } => return self.choose(next),
            Action::Edit(edit) => return self.edit(edit),
        }
        Vec::new()
    }

    fn step(&mut self, motion: Motion) {
        let body = usize::from(layout::body(self.size));
        let length = self.page(self.size).map(|page| page.length).unwrap_or_default();
        // Down to where the last line is the last on the screen. One line of a page is seen twice.
        let scrolled =
            |scroll: usize| stepped(scroll, motion, body.saturating_sub(1), length.saturating_sub(body) + 1);
        match (&mut self.overlay, &mut self.view) {
            (Some(Overlay::Help { scroll }), _)
            | (None, View::Interfaces { scroll } | View::System { scroll } | View::Log { scroll }) => {
                *scroll = scrolled(*scroll);
            }
            (None, View::Details(details)) => details.scroll = scrolled(details.scroll),
            (None, View::Backends(list)) => list.step(motion, body),
            (None, View::Columns { place }) => *place = stepped(*place, motion, body, Part::ALL.len()),
            _ => self.table.step(motion, self.room()),
        }
    }

    /// Lines of the table that a page has.
    pub(super) fn room(&self) -> usize {
        usize::from(layout::body(self.size).saturating_sub(layout::HEADINGS))
    }

    fn open(&mut self) -> Vec<Effect> {
        match self.table.selected() {
            Some(Key::Process(process)) => {
                self.view = View::Details(Details::new(*process));
                self.wonder()
            }
            Some(Key::Group(_)) => {
                self.table.fold(None);
                Vec::new()
            }
            None => Vec::new(),
        }
    }

    fn show(&mut self, destination: Destination) -> Vec<Effect> {
        self.view = match destination {
            Destination::Interfaces => View::Interfaces { scroll: 0 },
            Destination::System => View::System { scroll: 0 },
            Destination::Log => View::Log { scroll: 0 },
            Destination::Columns => View::Columns { place: 0 },
            Destination::History => return self.show_past(),
            Destination::Backends => {
                self.view = View::Backends(BackendList::default());
                return vec![Effect::Ask(Question::Backends)];
            }
        };
        Vec::new()
    }

    fn back(&mut self) {
        match self.overlay.take() {
            Some(Overlay::Filter(_)) => self.table.set_filter(String::new()),
            Some(_) => {}
            None if matches!(self.view, View::Table) => {
                self.table.set_filter(String::new());
                self.table.let_go();
            }
            None => self.view = View::Table,
        }
    }

    pub(super) fn sort(&mut self, sort: Sort) {
        self.table.set_sort(sort);
        self.say(sort.describe());
    }

    fn pause(&mut self) -> Vec<Effect> {
        self.paused = !self.paused;
        self.frozen = self.paused.then(|| self.histories.clone());
        if let Some(snapshot) = self.held.take() {
            self.interfaces.take_in(&snapshot);
            self.snapshot = Some(snapshot);
            self.refresh();
        }
        self.wonder()
    }

    pub(super) fn edit(&mut self, edit: Edit) -> Vec<Effect> {
        match &mut self.overlay {
            Some(Overlay::Limit(dialog)) => {
                if let (Edit::Left | Edit::Right, true) = (edit, dialog.is_choosing()) {
                    return self.choose(edit == Edit::Right);
                }
                dialog.edit(edit);
            }
            Some(Overlay::Filter(input)) => {
                input.edit(edit);
                let text = input.text();
                self.table.set_filter(text);
            }
            _ => {}
        }
        Vec::new()
    }

    fn accept(&mut self) -> Vec<Effect> {
        match (self.overlay.take(), &self.view) {
            (Some(Overlay::Limit(dialog)), _) => self.accept_limits(dialog),
            (Some(Overlay::Confirm(confirm)), _) => self.carry_out(confirm.plan),
            (Some(Overlay::Save(saving)), _) => self.save(*saving),
            (None, View::Columns { place }) => {
                self.turn_column(*place);
                Vec::new()
            }
            (None, View::Backends(list)) => match list.switch() {
                Ok(effect) => {
                    self.say("Changing the backend…");
                    vec![effect]
                }
                Err(words) => {
                    self.complain(words);
                    Vec::new()
                }
            },
            // A filter is in force already: all that is left is to close it.
            _ => Vec::new(),
        }
    }

    /// The processes that a key is about: one, or those of a group.
    pub(super) fn selection(&self) -> Option<Entry<'_>> {
        match &self.view {
            View::Details(details) => self.table.find(details.process()).map(Entry::Process),
            _ => self.table.selection(),
        }
    }
}
