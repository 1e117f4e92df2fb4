//! What packagers install knows every option that `--help` knows, of every command.

mod support;

use std::{collections::BTreeSet, fs, path::Path, process::Command};

use anyhow::{Context, ensure};
use support::BINARY;

/// What a command line prints.
fn printed(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program).args(arguments).output()?;
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{program} {arguments:?}: {complaints}");
    Ok(String::from_utf8(output.stdout)?)
}

/// A command as it is typed, without the program, and what its `--help` lists.
struct Form {
    words: Vec<String>,
    options: BTreeSet<String>,
}

/// The words at the starts of lines under a heading of a help text.
fn listed<'a>(help: &'a str, heading: &str) -> impl Iterator<Item = &'a str> {
    let section = help.split_once(heading).map_or("", |(_, rest)| rest);
    section.lines().skip(1).take_while(|line| line.is_empty() || line.starts_with(' ')).filter_map(|line| {
        // What is described stands two columns in, what describes it further.
        line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')).and_then(|rest| rest.split(' ').next())
    })
}

/// The long options in a help text: at the start of a line, perhaps after a short one.
fn options(help: &str) -> BTreeSet<String> {
    let starts = help.lines().map(str::trim_start).filter(|line| line.starts_with('-'));
    let long = starts.filter_map(|line| line.split([' ', ',']).find(|word| word.starts_with("--")));
    long.map(|word| word.trim_end_matches("...").to_owned()).collect()
}

/// Every form that there is: the program itself, its commands, and theirs.
fn forms() -> anyhow::Result<Vec<Form>> {
    let mut forms = Vec::new();
    let mut left = vec![Vec::<String>::new()];
    while let Some(words) = left.pop() {
        let mut arguments: Vec<&str> = words.iter().map(String::as_str).collect();
        arguments.push("--help");
        let help = printed(BINARY, &arguments)?;
        for name in listed(&help, "\nCommands:").filter(|name| *name != "help") {
            left.push([&words[..], &[name.to_owned()]].concat());
        }
        forms.push(Form { words, options: options(&help) });
    }
    // Each finds something, or the test would compare nothing with nothing.
    ensure!(forms.len() > 15, "only {} forms", forms.len());
    ensure!(forms.iter().all(|form| form.options.contains("--help")), "a help without --help");
    ensure!(
        forms.iter().any(|form| form.words == ["rules", "add"] && form.options.contains("--upload-limit")),
        "`rules add --upload-limit` is not found"
    );
    Ok(forms)
}

#[test]
fn each_form_has_a_manual_page_with_all_its_options() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("man1");
    printed(BINARY, &["man", "--directory", path.to_str().context("a path in UTF-8")?])?;
    for form in forms()? {
        let name = [&["chadthrottle".to_owned()], &form.words[..]].concat().join("-") + ".1";
        let page = fs::read_to_string(path.join(&name)).with_context(|| name.clone())?;
        for option in &form.options {
            let written = option.replace('-', "\\-");
            assert!(page.contains(&written), "{name} does not have {option}");
        }
    }
    let page = fs::read_to_string(path.join("chadthrottle.1"))?;
    assert_eq!(printed(BINARY, &["man"])?, page, "what is printed is what is written");
    assert!(page.contains("/etc/chadthrottle/config.toml"), "{page}");
    Ok(())
}

/// What bash offers for a word that begins with `--` after these words.
fn offered_by_bash(script: &Path, words: &[String]) -> anyhow::Result<BTreeSet<String>> {
    let line = [&["chadthrottle".to_owned()], words, &["--".to_owned()]].concat();
    let ask = format!(
        "source '{}'; COMP_WORDS=({}); COMP_CWORD={}; _chadthrottle chadthrottle -- '{}'; \
         printf '%s\\n' \"${{COMPREPLY[@]}}\"",
        script.display(),
        line.join(" "),
        line.len() - 1,
        line[line.len() - 2]
    );
    Ok(printed("bash", &["-c", &ask])?.lines().map(str::to_owned).collect())
}

#[test]
fn bash_completes_each_option_of_each_form() -> anyhow::Result<()> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("chadthrottle");
    fs::write(&script, printed(BINARY, &["completions", "bash"])?)?;
    for form in forms()? {
        let offered = offered_by_bash(&script, &form.words)?;
        let missing: Vec<_> = form.options.difference(&offered).collect();
        assert!(
            missing.is_empty(),
            "after {:?} bash does not offer {missing:?}, but {offered:?}",
            form.words
        );
    }
    Ok(())
}

#[test]
fn other_shells_know_each_option() -> anyhow::Result<()> {
    let forms = forms()?;
    for (shell, before) in [("zsh", "--"), ("elvish", "--"), ("powershell", "--"), ("fish", "-l ")] {
        let script = printed(BINARY, &["completions", shell])?;
        for option in forms.iter().flat_map(|form| &form.options) {
            let written = option.replacen("--", before, 1);
            assert!(script.contains(&written), "{shell} does not know {option}");
        }
    }
    Ok(())
}
