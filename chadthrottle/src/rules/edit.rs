//! Changing rules in the text of a file. Comments, order and everything else stay as they are.

use toml_edit::{Array, ArrayOfTables, DocumentMut, InlineTable, Item, Table, Value, value};

/// A rule to be written, by the values as they stand in a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NewRule {
    /// What it is called.
    pub name: String,
    /// Conditions: a key of `match`, and its value.
    pub conditions: Vec<(&'static str, String)>,
    /// The other keys, and their values.
    pub settings: Vec<(&'static str, String)>,
    /// Those of them that are numbers.
    pub numbers: Vec<(&'static str, i64)>,
    /// Times.
    pub when: Vec<String>,
    /// Keys of `quota`, and their values.
    pub quota: Vec<(&'static str, String)>,
}

/// The text with a rule more, at the end.
///
/// # Errors
/// In words, when the text is no TOML, or has its rules in another form.
pub fn add(text: &str, new: &NewRule) -> Result<String, String> {
    let mut document = parsed(text)?;
    // What stands at the end stays before what is added.
    let trailing = document.trailing().as_str().unwrap_or_default().to_owned();
    document.set_trailing("");
    let rules = document.entry("rule").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    let rules = rules.as_array_of_tables_mut().ok_or_else(other_form)?;
    let mut table = Table::new();
    let gap = if text.trim().is_empty() { "" } else { "\n" };
    table.decor_mut().set_prefix([&trailing, gap].concat());
    table.insert("name", value(&new.name));
    table.insert("match", inline(&new.conditions));
    for (key, setting) in &new.settings {
        table.insert(key, value(setting));
    }
    for (key, number) in &new.numbers {
        table.insert(key, value(*number));
    }
    match new.when.as_slice() {
        [] => {}
        [one] => {
            table.insert("when", value(one));
        }
        several => {
            table.insert("when", value(several.iter().collect::<Array>()));
        }
    }
    if !new.quota.is_empty() {
        table.insert("quota", inline(&new.quota));
    }
    rules.push(table);
    Ok(document.to_string())
}

/// The text without a rule, and the comments that stand right above it.
///
/// # Errors
/// In words, when there is none of that name.
pub fn remove(text: &str, name: &str) -> Result<String, String> {
    let mut document = parsed(text)?;
    let rules = document.get_mut("rule").ok_or_else(|| no_rule(name))?;
    let rules = rules.as_array_of_tables_mut().ok_or_else(other_form)?;
    let index = rules.iter().position(|table| is_called(table, name)).ok_or_else(|| no_rule(name))?;
    rules.remove(index);
    if rules.is_empty() {
        document.remove("rule");
    }
    Ok(document.to_string())
}

/// The text with a rule that counts, or does not.
///
/// # Errors
/// Likewise.
pub fn set_enabled(text: &str, name: &str, enabled: bool) -> Result<String, String> {
    let mut document = parsed(text)?;
    let rules = document.get_mut("rule").ok_or_else(|| no_rule(name))?;
    let rules = rules.as_array_of_tables_mut().ok_or_else(other_form)?;
    let table = rules.iter_mut().find(|table| is_called(table, name)).ok_or_else(|| no_rule(name))?;
    match table.get_mut("enabled").and_then(Item::as_value_mut) {
        Some(now) => {
            let decor = now.decor().clone();
            *now = Value::from(enabled);
            *now.decor_mut() = decor;
        }
        // Without it a rule counts.
        None if enabled => {}
        None => {
            table.insert("enabled", value(false));
        }
    }
    Ok(document.to_string())
}

fn parsed(text: &str) -> Result<DocumentMut, String> {
    text.parse().map_err(|error: toml_edit::TomlError| error.to_string())
}

fn inline(pairs: &[(&'static str, String)]) -> Item {
    value(pairs.iter().map(|(key, text)| (*key, Value::from(text))).collect::<InlineTable>())
}

fn is_called(table: &Table, name: &str) -> bool {
    table.get("name").and_then(Item::as_str) == Some(name)
}

fn no_rule(name: &str) -> String {
    format!("there is no rule {name:?}; `chadthrottle rules list` shows those that there are")
}

fn other_form() -> String {
    "rules are written as rule = […] there; only those written as [[rule]] can be changed here".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::read::tests::rules;

    const FILE: &str = "# mine\n[screen] # looks\nunits = \"bits\"\n\n# why\n[[rule]]\nname = \"a\" # first\n\
                        match.name  =  \"x\"\nupload = \"1M\"\n\n[[rule]]\nname = \"b\"\nenabled = true # for now\n\
                        match.name = \"y\"\nupload = \"2M\"\n# the end\n";

    #[test]
    fn comments_and_order_stay() {
        let off = set_enabled(FILE, "b", false).expect("it is there");
        assert_eq!(off, FILE.replace("enabled = true # for", "enabled = false # for"));
        assert_eq!(set_enabled(&off, "b", true).as_deref(), Ok(FILE));
        assert_eq!(set_enabled(FILE, "a", true).as_deref(), Ok(FILE), "it does already");
        let off = set_enabled(FILE, "a", false).expect("it is there");
        assert_eq!(off, FILE.replace("\"1M\"\n", "\"1M\"\nenabled = false\n"));
        let left = remove(FILE, "a").expect("it is there");
        assert!(
            left.contains("units = \"bits\"") && left.contains("# for now") && left.contains("# the end"),
            "{left}"
        );
        assert!(!left.contains("# why"), "{left}");
        assert!(remove(FILE, "c").expect_err("none").contains("rules list"));
    }

    #[test]
    fn what_is_added_is_read_back() {
        let new = NewRule {
            name: "say \"hi\"".into(),
            conditions: vec![("program", "/usr/bin/x".into()), ("user", "ada".into())],
            settings: vec![("upload", "1M".into()), ("scope", "each".into())],
            numbers: Vec::new(),
            when: vec!["Sat".into(), "22:00-06:00".into()],
            quota: vec![("after", "5G".into()), ("per", "day".into()), ("download", "0".into())],
        };
        for text in ["", "\n", FILE, "[keys]\npause = \"x\""] {
            let with = add(text, &new).expect("it can be added");
            assert!(with.starts_with(text), "{with}");
            let rules = rules(&with).expect("nothing is wrong");
            let added = rules.last().expect("one at least");
            assert_eq!(added.name, "say \"hi\"");
            assert_eq!(added.conditions.to_string(), "program /usr/bin/x, user ada");
            assert!(added.schedule.is_some() && added.quota.is_some());
        }
        assert!(add("rule = []", &new).is_err());
        assert!(add("rule = = 1", &new).is_err());
    }

    #[test]
    fn a_part_in_a_link_is_read_back() {
        let file = format!("{FILE}[[link]]\nname = \"home\"\nupload = \"9M\"\n");
        let new = NewRule {
            name: "c".into(),
            conditions: vec![("user", "ada".into())],
            settings: vec![("link", "home".into()), ("guaranteed", "1M".into())],
            numbers: vec![("priority", 2), ("weight", 5)],
            ..NewRule::default()
        };
        let rules = rules(&add(&file, &new).expect("it can be added")).expect("nothing is wrong");
        let share = rules.last().and_then(|rule| rule.share.clone()).expect("it has a part");
        assert_eq!(share.to_string(), "link \"home\", priority 2, weight 5, 1M up guaranteed");
    }
}
