use super::*;
use crate::{
    backends::{BackendError, monitor::fake::Journal, throttle::fake::FakeThrottle},
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
