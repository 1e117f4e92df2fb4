use super::*;
use crate::{
    app::sort::SortColumn,
    backends::throttle::TrafficType,
    lookout::Ancestor,
    process::ProcessInfo,
    stats::{ProcessRow, Traffic},
};

fn rows(rates: &[(i32, u64)]) -> Vec<Row> {
    let row = |&(pid, rate): &(i32, u64)| {
        let id = ProcessId { pid, start_time: 1 };
        let info =
            ProcessInfo { id, name: format!("p{pid}"), exe: None, user: None, cgroup: None, container: None };
        let rate = Traffic { upload: rate, download: 0 };
        ProcessRow::new(info.into(), rate, rate, true)
    };
    Row::merge(&rates.iter().map(row).collect::<Vec<_>>(), &[], TrafficType::All)
}

fn pids(table: &Table) -> Vec<i32> {
    table.shown().map(|row| row.id().pid).collect()
}

fn selected(table: &Table) -> Option<i32> {
    table.selected().map(|key| match key {
        Key::Process(id) => id.pid,
        Key::Group(group) => panic!("{group:?} is no process"),
    })
}

#[test]
fn the_selection_follows_its_process_and_then_the_place() {
    let mut table = Table::default();
    table.replace(rows(&[(1, 30), (2, 20), (3, 10)]), Vec::new());
    table.step(Motion::Down, 10);
    assert_eq!(selected(&table), Some(2));
    table.replace(rows(&[(1, 30), (2, 5), (3, 10), (4, 7)]), Vec::new());
    assert_eq!(pids(&table), [1, 3, 4, 2]);
    assert_eq!(selected(&table), Some(2));
    table.replace(rows(&[(1, 30), (3, 10), (4, 7)]), Vec::new());
    assert_eq!(selected(&table), Some(4), "the last one moved up to where it stood");
    table.let_go();
    assert_eq!(selected(&table), Some(1));
    table.replace(Vec::new(), Vec::new());
    assert_eq!(selected(&table), None);
    table.replace(rows(&[(9, 1)]), Vec::new());
    assert_eq!(selected(&table), Some(9));
}

#[test]
fn until_somebody_is_chosen_the_first_row_is_selected() {
    let mut table = Table::default();
    table.replace(rows(&[(1, 30), (2, 20)]), Vec::new());
    table.replace(rows(&[(1, 30), (2, 40)]), Vec::new());
    assert_eq!(selected(&table), Some(2));
    table.choose();
    table.replace(rows(&[(1, 30), (2, 20)]), Vec::new());
    assert_eq!(selected(&table), Some(2));
}

#[test]
fn rows_that_tie_keep_their_places() {
    let mut table = Table::default();
    table.replace(rows(&[(3, 0), (1, 0), (2, 0)]), Vec::new());
    assert_eq!(pids(&table), [1, 2, 3]);
    table.set_sort(Sort { column: SortColumn::UploadRate, reversed: true });
    assert_eq!(pids(&table), [1, 2, 3]);
    table.set_sort(Sort { column: SortColumn::Pid, reversed: true });
    assert_eq!(pids(&table), [3, 2, 1]);
}

#[test]
fn the_selected_row_is_on_the_screen() {
    let mut table = Table::default();
    table.replace(rows(&(1..=100).map(|pid| (pid, 0)).collect::<Vec<_>>()), Vec::new());
    for (motion, room, top) in [
        (Motion::PageDown, 10, 1),
        (Motion::Up, 10, 1),
        (Motion::Last, 10, 90),
        (Motion::PageUp, 10, 89),
        (Motion::First, 10, 0),
        (Motion::Last, 1000, 0),
        (Motion::Up, 0, 98),
    ] {
        table.step(motion, room);
        assert_eq!(table.top(room), top, "{motion:?}");
    }
}

fn with_kin() -> Table {
    let mut table = Table::default();
    table.replace(rows(&[(10, 5), (11, 20), (12, 7), (13, 1)]), Vec::new());
    let id = |pid: i32| ProcessId { pid, start_time: 1 };
    let above = |pids: &[i32]| {
        pids.iter().map(|&pid| Ancestor { id: id(pid), name: format!("a{pid}") }).collect::<Vec<_>>()
    };
    table.set_grouping(Grouping::Tree);
    assert_eq!(table.orphans().len(), 4);
    table.learn(
        [
            (id(10), above(&[5, 1])),
            (id(11), above(&[10, 5, 1])),
            (id(12), above(&[6, 5, 1])),
            (id(13), above(&[1])),
        ]
        .into(),
    );
    assert!(table.orphans().is_empty());
    table
}

fn drawn(table: &Table) -> Vec<String> {
    let line = |(depth, entry): (usize, Entry)| {
        let text = match entry {
            Entry::Process(row) => row.info.name.clone(),
            Entry::Group(group, folded) => {
                format!("{} {}{}", group.label, group.rate.upload, if folded { "+" } else { "" })
            }
        };
        format!("{}{text}", ".".repeat(depth))
    };
    table.lines().map(line).collect()
}

#[test]
fn a_tree_has_sums_and_no_staircases() {
    let mut table = with_kin();
    assert_eq!(drawn(&table), ["a5 32", ".p10 25", "..p11", "..p10", ".p12", "p13"]);
    assert!(table.fold(None));
    assert_eq!(drawn(&table), ["a5 32+", "p13"]);
    table.step(Motion::Down, 10);
    assert_eq!(selected(&table), Some(13));
    assert!(!table.fold(None), "a process does not fold");
    table.fold_all();
    assert_eq!(drawn(&table), ["a5 32+", "p13"]);
    table.fold_all();
    assert_eq!(drawn(&table).len(), 6);
    assert_eq!(selected(&table), Some(13));
}

#[test]
fn a_selected_group_stays_selected_when_its_figures_change() {
    let mut table = with_kin();
    table.step(Motion::Down, 10);
    let before = table.selected().cloned();
    table.replace(rows(&[(10, 50), (11, 2), (12, 700), (13, 9000)]), Vec::new());
    assert_eq!(drawn(&table), ["p13", "a5 752", ".p12", ".p10 52", "..p10", "..p11"]);
    assert_eq!(table.selected().cloned(), before);
    table.set_filter("p11".into());
    assert_eq!(drawn(&table), ["p11"]);
    assert_eq!(table.matching(), 1);
}

#[test]
fn groups_by_user_and_program() {
    let mut table = Table::default();
    table.replace(rows(&[(1, 30), (2, 20)]), Vec::new());
    table.set_grouping(Grouping::User);
    assert_eq!(drawn(&table), ["? 50", ".p1", ".p2"]);
    table.set_grouping(Grouping::Program);
    assert_eq!(drawn(&table), ["p1", "p2"], "each runs once");
    table.set_grouping(Grouping::Unit);
    assert_eq!(drawn(&table), ["no unit 50", ".p1", ".p2"]);
}
