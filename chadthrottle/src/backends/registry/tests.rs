//! Which backend is chosen.

use super::*;

const CAPABILITIES: BackendCapabilities =
    BackendCapabilities { udp: false, open_connections: false, ..BackendCapabilities::ALL_TRAFFIC };

fn row(name: &'static str, priority: BackendPriority, is_available: bool) -> Row<str> {
    let probe: fn(&BackendOptions) -> Availability = if is_available {
        |_| Availability::Available
    } else {
        |_| Availability::Unavailable(Obstacle::Privilege { capability: "CAP_SOMETHING" })
    };
    Row {
        name,
        priority,
        capabilities: CAPABILITIES,
        tagger: |_| None,
        uses: &[],
        probe,
        create: |_| "made".into(),
    }
}

fn rows(best_is_available: bool) -> [Row<str>; 3] {
    [
        row("fair", BackendPriority::Good, true),
        row("fine", BackendPriority::Best, best_is_available),
        row("poor", BackendPriority::Fallback, true),
    ]
}

fn chosen(rows: &[Row<str>], name: Option<&str>) -> Result<&'static str, SelectError> {
    choose(rows, Kind::Upload, name, |row| (row.probe)(&BackendOptions::default())).map(|row| row.name)
}

#[test]
fn the_best_one_that_works_is_chosen() {
    assert_eq!(chosen(&rows(true), None).expect("one works"), "fine");
    assert_eq!(chosen(&rows(false), None).expect("one works"), "fair");
}

#[test]
fn a_name_overrules_priority_but_not_availability() {
    assert_eq!(chosen(&rows(true), Some("poor")).expect("it works"), "poor");
    let error = chosen(&rows(false), Some("fine")).expect_err("it does not work");
    assert!(matches!(error, SelectError::Unavailable { name: "fine", .. }), "{error}");
    assert!(error.to_string().contains("CAP_SOMETHING"), "{error}");
}

#[test]
fn an_unknown_name_lists_those_that_exist_best_first() {
    let error = chosen(&rows(true), Some("wonder")).expect_err("there is none");
    assert!(error.to_string().ends_with("there are: auto, fine, fair, poor"), "{error}");
}

#[test]
fn where_none_works_the_reason_is_that_of_the_best() {
    let error = chosen(&[row("only", BackendPriority::Best, false)], None).expect_err("none works");
    assert!(matches!(error, SelectError::NoneAvailable { .. }));
    assert!(error.to_string().contains("CAP_SOMETHING"), "{error}");
    assert!(matches!(chosen(&[], None), Err(SelectError::NoneBuilt { .. })));
}
