use super::*;
use crate::{
    backends::{BackendError, monitor::fake::Journal, throttle::Target, throttle::fake::FakeThrottle},
    rules::read::tests::rules,
};

struct Kept {
    keeper: Keeper,
    manager: ThrottleManager,
    journal: Journal,
    seen: usize,
}

impl Kept {
    fn new(text: &str) -> Result<Self, BackendError> {
        let journal = Journal::default();
        let fake = || Box::new(FakeThrottle::new(journal.clone()));
        let manager = ThrottleManager::new(fake(), Some(fake()))?;
        let rules = rules(text).expect("nothing is wrong");
        Ok(Self { keeper: Keeper::new(rules, None, TimeZone::UTC), manager, journal, seen: 0 })
    }

    /// What a look at this time has done.
    fn look(&mut self, now: &str) -> Vec<String> {
        assert_eq!(self.keeper.look(&mut self.manager, now.parse().expect(now)), Vec::<String>::new());
        self.news()
    }

    fn news(&mut self) -> Vec<String> {
        let lines = self.journal.lines();
        let new = lines[self.seen..].to_vec();
        self.seen = lines.len();
        new
    }

    fn replace(&mut self, text: &str) {
        self.keeper.replace(rules(text).expect("nothing is wrong"));
    }
}

const NOON: &str = "2026-01-14T12:00:00Z";
const NIGHT: &str = "2026-01-14T23:00:00Z";

fn rule(name: &str, user: u32, more: &str) -> String {
    format!("[[rule]]\nname = \"{name}\"\nmatch.user = \"{user}\"\n{more}\n")
}

#[test]
fn limits_come_and_go_with_the_time_and_are_set_once() -> Result<(), BackendError> {
    let mut kept = Kept::new(&rule("day", 7, "upload = \"1M\"\ndownload = \"2M\"\nwhen = \"08:00-18:00\""))?;
    assert_eq!(kept.look(NOON), ["upload all of user 7 1000000", "download all of user 7 2000000"]);
    assert!(kept.look(NOON).is_empty(), "nothing has changed");
    assert_eq!(kept.look(NIGHT), ["upload all of user 7 none", "download all of user 7 none"]);
    assert!(kept.keeper.held().is_empty());
    Ok(())
}

#[test]
fn the_next_rule_takes_over_without_a_gap() -> Result<(), BackendError> {
    let text =
        rule("day", 7, "upload = \"1M\"\nwhen = \"08:00-18:00\"") + &rule("else", 7, "upload = \"5M\"");
    let mut kept = Kept::new(&text)?;
    kept.look(NOON);
    assert_eq!(kept.look(NIGHT), ["upload all of user 7 5000000"], "changed, and never taken away");
    let held: Vec<&str> = kept.keeper.held().values().map(|held| held.rule.as_str()).collect();
    assert_eq!(held, ["\"else\" (config.toml:6)"]);
    Ok(())
}

#[test]
fn reading_rules_again_touches_only_what_is_different() -> Result<(), BackendError> {
    let stays = rule("stays", 7, "upload = \"1M\"");
    let mut kept = Kept::new(&(stays.clone() + &rule("goes", 8, "upload = \"1M\"")))?;
    assert_eq!(kept.look(NOON).len(), 2);
    // On another line, but the same.
    kept.replace(&(rule("new", 9, "upload = \"3M\"") + &stays));
    assert_eq!(
        kept.look(NOON),
        ["upload all of user 9 3000000", "upload all of user 8 none"],
        "the new one first"
    );
    let rule = kept.keeper.held().get(&Subject::User(7)).map(|held| held.rule.clone());
    assert_eq!(rule.as_deref(), Some("\"stays\" (config.toml:5)"));
    kept.replace(&stays);
    assert_eq!(kept.look(NOON), ["upload all of user 9 none"]);
    Ok(())
}

#[test]
fn what_somebody_does_by_hand_stays_until_the_rules_are_read_again() -> Result<(), BackendError> {
    let text = rule("a", 7, "upload = \"1M\"");
    let mut kept = Kept::new(&text)?;
    kept.look(NOON);
    let target = Target { subject: Subject::User(7), name: "x".into(), traffic: TrafficType::All };
    kept.manager.throttle_process(&target, Limits { upload: Some(9), download: None })?;
    kept.news();
    assert!(kept.look(NOON).is_empty());
    assert!(kept.keeper.held().is_empty(), "it is somebody else's");
    kept.manager.remove_throttle(&target.subject)?;
    kept.news();
    assert!(kept.look(NOON).is_empty());
    kept.replace(&text);
    assert_eq!(kept.look(NOON), ["upload all of user 7 1000000"]);
    Ok(())
}

#[test]
fn what_is_refused_is_told_once_and_others_hold() -> Result<(), BackendError> {
    // The fake refuses one byte a second.
    let mut kept = Kept::new(&(rule("bad", 7, "upload = \"1\"") + &rule("good", 8, "upload = \"2M\"")))?;
    let now = NOON.parse().expect("a time");
    let told = kept.keeper.look(&mut kept.manager, now);
    assert_eq!(told.len(), 1);
    assert!(told[0].contains("\"bad\" (config.toml:1)") && told[0].contains("insult"), "{told:?}");
    assert_eq!(kept.news(), ["upload all of user 8 2000000"]);
    assert!(kept.keeper.look(&mut kept.manager, now).is_empty());
    Ok(())
}

#[test]
fn several_subjects_of_a_rule_share_its_cap() -> Result<(), BackendError> {
    let directory = tempfile::tempdir().expect("a directory");
    let root = directory.path().canonicalize().expect("is there");
    for name in ["a", "b"] {
        std::fs::copy("/bin/true", root.join(name)).expect("copied");
    }
    let text = |scope: &str| {
        format!("[[rule]]\nname = \"x\"\nmatch.program = \"{}/*\"\nupload = \"1M\"\n{scope}", root.display())
    };
    let mut kept = Kept::new(&text(""))?;
    let limit = |name: &str, rate: u64| format!("upload every {} {rate}", root.join(name).display());
    assert_eq!(kept.look(NOON), [limit("a", 500_000), limit("b", 500_000)]);
    let mut kept = Kept::new(&text("scope = \"each\""))?;
    assert!(kept.look(NOON).is_empty(), "each process for itself, and nobody executes them");
    Ok(())
}

#[test]
fn rules_of_a_link_share_it_and_come_to_no_more() -> Result<(), BackendError> {
    let link = |rate: &str| format!("[[link]]\nname = \"home\"\nupload = \"{rate}\"\n");
    let both = |rate: &str, more: &str| {
        let quota = "quota = { after = \"1G\", per = \"day\", upload = \"1M\" }";
        link(rate)
            + &rule("a", 7, &format!("link = \"home\"\n{more}"))
            + &rule("b", 8, &format!("link = \"home\"\ndownload = \"3M\"\n{quota}"))
            + &rule("c", 9, "upload = \"2M\"")
    };
    let upload = |user: u32, limit: u32| format!("upload all of user {user} {limit}");
    let mut kept = Kept::new(&both("8M", ""))?;
    let first = [
        upload(7, 4_000_000),
        upload(8, 4_000_000),
        "download all of user 8 3000000".into(),
        upload(9, 2_000_000),
    ];
    assert_eq!(kept.look(NOON), first);
    assert_eq!(kept.keeper.interval(), LEND_INTERVAL);
    // The fake has no traffic: what follows changes because of the rules alone, and who gets less comes first.
    kept.replace(&both("8M", "weight = 3"));
    assert_eq!(kept.look(NOON), [upload(8, 2_000_000), upload(7, 6_000_000)]);
    kept.replace(&both("8M", "upload = \"1M\""));
    assert_eq!(
        kept.look(NOON),
        [upload(7, 1_000_000), upload(8, 7_000_000)],
        "what one may not have is lent"
    );
    let passed = Traffic { upload: 1_000_000_000, download: 0 };
    kept.replace(&both("8M", ""));
    kept.keeper.count(BTreeMap::from([("b".to_owned(), passed)]));
    assert_eq!(kept.look(NOON), [upload(8, 1_000_000), upload(7, 7_000_000)], "a quota is a ceiling");
    kept.replace(&link("8M"));
    kept.look(NOON);
    assert_eq!(kept.keeper.interval(), IDLE_INTERVAL);
    Ok(())
}

#[test]
fn a_quota_changes_the_limits_when_it_is_used_up() -> Result<(), BackendError> {
    let quota = "upload = \"5M\"\nquota = { after = \"1G\", per = \"day\", upload = \"1M\" }";
    let mut kept = Kept::new(&rule("q", 7, quota))?;
    kept.look(NOON);
    let passed = |upload| BTreeMap::from([("q".to_owned(), Traffic { upload, download: 0 })]);
    kept.keeper.count(passed(999_999_999));
    assert!(kept.look(NOON).is_empty());
    kept.keeper.count(passed(1_000_000_000));
    assert_eq!(kept.look(NOON), ["upload all of user 7 1000000"]);
    kept.keeper.count(passed(0));
    assert_eq!(kept.look(NOON), ["upload all of user 7 5000000"], "the next day");
    Ok(())
}

#[test]
fn what_somebody_lets_go_of_is_the_rules_again_without_a_gap() -> Result<(), BackendError> {
    let mut kept = Kept::new(&rule("day", 7, "upload = \"1M\""))?;
    assert_eq!(kept.look(NOON), ["upload all of user 7 1000000"]);
    let [ruled, other] = [7, 8].map(|uid| Target {
        subject: Subject::User(uid),
        name: String::new(),
        traffic: TrafficType::All,
    });
    // Just what the rule says, and yet by hand.
    let limits = Limits { upload: Some(1_000_000), download: None };
    for target in [&ruled, &other] {
        kept.manager.throttle_process(target, limits)?;
        kept.keeper.leave(&target.subject);
    }
    kept.news();
    kept.replace("");
    kept.keeper.leave(&ruled.subject);
    assert!(kept.look(NOON).is_empty(), "a rule that is gone takes nothing along");
    kept.replace(&rule("day", 7, "upload = \"2M\""));
    kept.keeper.leave(&ruled.subject);
    assert!(kept.look(NOON).is_empty());
    for target in [&ruled, &other] {
        kept.keeper.let_go(target, limits);
    }
    assert_eq!(kept.look(NOON), ["upload all of user 7 2000000", "upload all of user 8 none"]);
    Ok(())
}

const OF_A_LINK: &str = r#"
[[link]]
name = "home"
upload = "8M"
[[rule]]
name = "a"
match.user = "7"
link = "home"
[[rule]]
name = "b"
match.user = "8"
link = "home"
quota = { after = "1G", per = "day", upload = "1M" }
"#;

#[test]
fn what_somebody_does_by_hand_stays_while_a_link_is_divided() -> Result<(), BackendError> {
    let mut kept = Kept::new(OF_A_LINK)?;
    assert_eq!(kept.look(NOON), ["upload all of user 7 4000000", "upload all of user 8 4000000"]);
    let target = Target { subject: Subject::User(7), name: "x".into(), traffic: TrafficType::All };
    kept.manager.throttle_process(&target, Limits { upload: Some(9), download: None })?;
    kept.news();
    let passed = Traffic { upload: 1_000_000_000, download: 0 };
    kept.keeper.count(BTreeMap::from([("b".to_owned(), passed)]));
    assert_eq!(kept.look(NOON), ["upload all of user 8 1000000"], "and the other one is not lent the rest");
    Ok(())
}

#[test]
fn what_somebody_lets_go_of_is_free_at_once_although_a_link_is_divided() -> Result<(), BackendError> {
    let mut kept = Kept::new(OF_A_LINK)?;
    kept.look(NOON);
    let target = Target { subject: Subject::User(9), name: "x".into(), traffic: TrafficType::All };
    let limits = Limits { upload: Some(9), download: None };
    kept.manager.throttle_process(&target, limits)?;
    kept.keeper.leave(&target.subject);
    kept.news();
    kept.keeper.let_go(&target, limits);
    assert_eq!(kept.look(NOON), ["upload all of user 9 none"]);
    Ok(())
}

#[test]
fn what_cannot_be_taken_away_is_told_once_and_tried_again() -> Result<(), BackendError> {
    let mut kept = Kept::new(&rule("goes", 7, "upload = \"2\"\ndownload = \"1M\""))?;
    kept.look(NOON);
    kept.replace("");
    let now = NOON.parse().expect(NOON);
    let told = kept.keeper.look(&mut kept.manager, now);
    assert!(told.len() == 1 && told[0].contains("could not be taken away"), "{told:?}");
    let user = Subject::User(7);
    assert_eq!(kept.manager.limited()?.len(), 1, "whoever asks is told that it is in force");
    assert_eq!(kept.keeper.held()[&user].limits, Limits { upload: Some(2), download: None });
    assert_eq!(kept.look(NOON), ["download all of user 7 none"], "nothing is told twice");
    assert_eq!(kept.look(NOON), ["upload all of user 7 none"]);
    assert!(kept.keeper.held().is_empty() && kept.manager.limited()?.is_empty());
    Ok(())
}

#[test]
fn what_could_not_be_taken_away_is_the_rules_again_when_one_wants_it() -> Result<(), BackendError> {
    let mut kept = Kept::new(&rule("goes", 7, "upload = \"2\"\ndownload = \"1M\""))?;
    kept.look(NOON);
    kept.replace("");
    assert_eq!(kept.keeper.look(&mut kept.manager, NOON.parse().expect(NOON)).len(), 1);
    kept.replace(&rule("comes", 7, "upload = \"5M\""));
    assert_eq!(kept.look(NOON), ["download all of user 7 none", "upload all of user 7 5000000"]);
    Ok(())
}

#[test]
fn a_quota_that_cannot_be_read_for_once_stays_used_up() -> Result<(), BackendError> {
    let quota = "quota = { after = \"1K\", per = \"day\", upload = \"5K\" }";
    let mut kept = Kept::new(&rule("day", 7, quota))?;
    kept.keeper.count(BTreeMap::from([("day".to_owned(), Traffic { upload: 1000, download: 0 })]));
    assert_eq!(kept.look(NOON), ["upload all of user 7 5000"]);
    kept.keeper.count(BTreeMap::new());
    assert!(kept.look(NOON).is_empty(), "nothing is known, so nothing is different");
    kept.keeper.count(BTreeMap::from([("day".to_owned(), Traffic::default())]));
    assert_eq!(kept.look(NOON), ["upload all of user 7 none"], "another day");
    Ok(())
}

/// Forth and back, by an hour, a day and years, at once: each time what holds is what the rules say of that time.
#[test]
fn limits_are_those_of_the_time_that_the_clock_shows_however_it_is_set() -> Result<(), BackendError> {
    let text =
        rule("day", 7, "upload = \"1M\"\nwhen = \"08:00-18:00\"") + &rule("else", 7, "upload = \"5M\"");
    let mut kept = Kept::new(&text)?;
    kept.look(NOON);
    let set = [
        ("2026-01-14T07:30:00Z", Some(5_000_000)),
        ("2026-01-14T08:30:00Z", Some(1_000_000)),
        ("2026-01-13T08:30:00Z", None),
        ("2038-01-19T03:14:08Z", Some(5_000_000)),
        ("1970-01-01T00:00:00Z", None),
        ("1970-01-01T09:00:00Z", Some(1_000_000)),
    ];
    for (now, changed) in set {
        let expected: Vec<String> =
            changed.iter().map(|limit| format!("upload all of user 7 {limit}")).collect();
        assert_eq!(kept.look(now), expected, "{now}");
    }
    Ok(())
}
