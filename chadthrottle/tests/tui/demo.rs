//! The whole screen over the simulated host: every view in windows of three sizes, by keys alone.

use chadthrottle::{
    app::{BackendNames, Setup},
    run::still::{Still, moves},
};
use ratatui::layout::Size;

use super::host::{SIZES, compare};

/// How old the host is: so old that there are all kinds of things to see.
const AGE: std::time::Duration = std::time::Duration::from_secs(90);

pub(crate) fn demo(width: u16, height: u16, keys: &str) -> Still {
    let backends = BackendNames { monitor: "demo", upload: "demo", download: Some("demo") };
    let setup = Setup { is_demo: true, ..Setup::new(backends) };
    let mut still = Still::new(1, setup, Size { width, height }).expect("it refuses nothing");
    still.wait(AGE).expect("it does not fail");
    still.go(&moves(keys).expect("known keys")).expect("it does not fail");
    still
}

#[track_caller]
fn looks(name: &str, keys: &str) {
    for (width, height) in SIZES {
        compare(&format!("demo_{name}_{width}x{height}"), &demo(width, height, keys).text());
    }
}

#[test]
fn processes_and_groups() {
    looks("processes", "");
    looks("by_program", "v");
    looks("by_user_folded", "vvF");
    looks("by_unit", "vvv");
    looks("tree", "vvvv");
}

#[test]
fn details() {
    looks("overview", "/firefox<Enter>d1M<Enter><5s><Enter>");
    looks("connections", "/transmission<Enter><Enter><Tab><2s>");
    looks("host_names", "/transmission<Enter><Enter><Tab>h<2s>");
    looks("held_back", "/pid=3908<Enter>u500K<Enter><9s>");
    looks("history", "/curl<Enter>d3M<Enter><20s><Enter><Tab><Tab>");
    looks("history_long", "/firefox<Enter><Enter><Tab><Tab><Right>");
    looks("traffic", "/node<Enter><Enter><Tab><Tab><Tab>");
}

#[test]
fn the_host() {
    looks("interfaces", "i");
    looks("system", "y");
    looks("backends", "b");
    looks("columns", "cjj <Down><Down> ");
    looks("fewer_columns", "cjj <Down><Down> c");
    looks("messages", "/curl<Enter>d2M<Enter>zu5K<Enter>L");
}

#[test]
fn the_history() {
    looks("past", "H");
    looks("past_of_one", "Hjj<Right>");
    looks("past_by_user", "Hvv<Right><Right>");
    looks("past_year", "Hj<Right><Right><Right><Right>");
    looks("past_hour", "Hvvv<Left>");
}

#[test]
fn limits() {
    looks("limit_program", "/nginx<Enter>v<Left>t300K<Tab>1M<Enter><4s>");
    looks("limit_dialog", "/nginx<Enter>t<Tab><Tab><Right><Right>");
    looks("block", "/ssh<Enter>0");
    looks("own_session", "/sshd<Enter>u10K<Enter>");
    looks("remove_all", "/curl<Enter>d2M<Enter>R");
}

#[test]
fn units_and_traffic() {
    looks("bits", "n");
    looks("binary", "nn");
    looks("local", "ll");
}

#[test]
fn the_screen_says_that_it_is_a_demo_whatever_is_shown() {
    for keys in ["", "v", "<Enter>", "i", "y", "b", "L", "H", "?", "t", "0", "/x"] {
        assert!(demo(80, 24, keys).text().contains("DEMO"), "{keys}");
    }
}

#[test]
fn a_limit_on_a_program_holds_all_of_it_together() {
    let mut still = demo(160, 50, "/nginx<Enter>v<Left>u100K<Enter><Right>");
    let mut most = 0;
    for _ in 0..20 {
        still.wait(std::time::Duration::from_secs(1)).expect("it does not fail");
        let nginx = still.app().table().rows().iter().filter(|row| row.info.name == "nginx");
        most = most.max(nginx.map(|row| row.rate.upload).sum::<u64>());
    }
    assert!((99_990..=100_000).contains(&most), "{most}");
    let rows: Vec<_> = still.app().table().rows().iter().filter(|row| row.info.name == "nginx").collect();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.is_shared && row.limits.upload == Some(100_000)));
    assert!(still.text().contains("*100K"), "{}", still.text());
}
