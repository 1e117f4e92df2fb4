//! The configuration file, through the program itself.

mod support;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Output, Stdio},
};

use support::BINARY;

/// The program with a directory of its own for configurations, over a simulated host.
fn demo(home: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    picture(home, "100x30", arguments)
}

/// The same in a window of this size.
fn picture(home: &Path, size: &str, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(BINARY);
    command.env("XDG_CONFIG_HOME", home).env_remove("SUDO_UID").stdin(Stdio::null());
    Ok(command.args(["--demo", "--demo-picture", size]).args(arguments).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rebound_keys_are_those_of_the_help_the_footer_and_the_program() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("my.toml");
    fs::write(&file, "[screen]\nunits = \"bits\"\n[keys]\npause = \"x\"\nhelp = [\"F1\", \"M\"]\n")?;
    let file = file.to_str().expect("paths here are text");
    let shown = |keys: &str| -> anyhow::Result<String> {
        let output = demo(home.path(), &["--config", file, "--demo-keys", keys])?;
        assert!(output.status.success(), "{}", stderr(&output));
        Ok(String::from_utf8(output.stdout)?)
    };
    let table = shown("")?;
    assert!(table.contains("F1 help") && table.contains("x pause"), "{table}");
    assert!(table.contains("bit/s"), "{table}");
    assert!(shown("M")?.contains("F1 M"), "the help is the table of keys");
    assert!(shown("x")?.to_lowercase().contains("paused"), "x pauses");
    assert!(!shown("p")?.to_lowercase().contains("paused"), "p does not any more");
    assert!(!shown("?")?.contains("Limit dialog"), "? is no key any more");
    Ok(())
}

#[test]
fn a_window_that_is_too_small_tells_the_key_that_quits() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("my.toml");
    fs::write(&file, "[keys]\nquit = \"Q\"\n")?;
    let file = file.to_str().expect("paths here are text");
    for (keys, way_out) in [("", "Q quits."), ("/", "Ctrl-C quits.")] {
        let output = picture(home.path(), "70x8", &["--config", file, "--demo-keys", keys])?;
        let shown = String::from_utf8(output.stdout)?;
        assert!(shown.contains(&format!("is needed. {way_out}")), "{shown}");
    }
    Ok(())
}

#[test]
fn a_wrong_file_is_told_with_line_and_column_and_left_alone() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("wrong.toml");
    let text = "# mine\n[screen]\nunits = \"miles\"\n";
    fs::write(&file, text)?;
    let path = file.to_str().expect("paths here are text");
    let output = demo(home.path(), &["--config", path])?;
    assert_eq!(output.status.code(), Some(2), "{}", stderr(&output));
    assert!(
        stderr(&output).contains(&format!("{path}:3:9: units: \"miles\" is none of bytes")),
        "{}",
        stderr(&output)
    );
    assert!(output.stdout.is_empty());
    assert_eq!(fs::read_to_string(&file)?, text);
    assert!(demo(home.path(), &["--no-config"])?.status.success());

    let output = demo(home.path(), &["--config", "/no/such/file.toml"])?;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("/no/such/file.toml"), "{}", stderr(&output));
    let output = demo(home.path(), &["--config", path, "--no-config"])?;
    assert_eq!(output.status.code(), Some(2), "one or the other");
    Ok(())
}

#[test]
fn the_documentation_names_every_action() -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/CONFIGURATION.md");
    let text = fs::read_to_string(path)?;
    for name in chadthrottle::app::keys::rebinding::action_names() {
        assert!(text.contains(&format!("`{name}`")), "{name}");
    }
    Ok(())
}

/// `chadthrottle --config FILE rules …`.
fn rules(file: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(BINARY);
    command.arg("--config").arg(file).arg("rules").args(arguments);
    Ok(command.stdin(Stdio::null()).output()?)
}

fn json(output: &Output) -> anyhow::Result<serde_json::Value> {
    assert!(output.status.success(), "{}", stderr(output));
    Ok(serde_json::from_slice(&output.stdout)?)
}

#[test]
fn rules_are_added_listed_explained_disabled_and_removed() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("new/rules.toml");
    let exe = std::env::current_exe()?.canonicalize()?;
    let exe = exe.to_str().expect("paths here are text");
    let add = |name: &str, more: &[&str]| rules(&file, &[&["add", "--name", name][..], more].concat());
    let added = add("us", &["--program", exe, "--upload-limit", "1.5M", "--when", "Mon-Sun"])?;
    assert!(added.status.success(), "{}", stderr(&added));
    add("all", &["--process", "*", "--download-limit", "10M", "--traffic", "local"])?;
    let refused = add("again", &["--program", exe, "--upload-limit", "2M"])?;
    assert!(refused.status.success(), "for the rest of the week: {}", stderr(&refused));
    let refused = add("more", &["--program", exe, "--upload-limit", "3M"])?;
    assert_eq!(refused.status.code(), Some(2));
    assert!(stderr(&refused).contains("is for the same as"), "{}", stderr(&refused));
    assert_eq!(add("none", &["--program", "curl", "--upload-limit", "1M"])?.status.code(), Some(2));
    assert_eq!(add("none", &["--program", "/x"])?.status.code(), Some(2), "it limits nothing");

    let listed = json(&rules(&file, &["list", "--json"])?)?;
    let names: Vec<&str> =
        listed.as_array().into_iter().flatten().filter_map(|rule| rule["name"].as_str()).collect();
    assert_eq!(names, ["us", "all", "again"]);
    assert_eq!((&listed[0]["upload_limit"], &listed[0]["line"]), (&1_500_000.into(), &1.into()), "{listed}");
    assert_eq!(listed[1]["traffic"], "local");

    let pid = std::process::id().to_string();
    let explained = json(&rules(&file, &["explain", &pid, "--json"])?)?;
    let outcome = |index: usize| {
        (explained["rules"][index]["name"].as_str(), explained["rules"][index]["outcome"].as_str())
    };
    assert_eq!(outcome(0), (Some("us"), Some("holds")), "{explained}");
    assert_eq!(outcome(1), (Some("again"), Some("outranked")), "{explained}");
    assert_eq!(explained["rules"][0]["from_first_packet"], true, "{explained}");
    let words = String::from_utf8(rules(&file, &["explain", &pid])?.stdout)?;
    assert!(words.contains(&format!("rule \"us\" ({}:1) holds every {exe}", file.display())), "{words}");

    assert!(rules(&file, &["disable", "us"])?.status.success());
    assert!(rules(&file, &["remove", "again"])?.status.success());
    let explained = json(&rules(&file, &["explain", &pid, "--json"])?)?;
    assert_eq!(explained["rules"][0]["name"], "all", "{explained}");
    assert!(rules(&file, &["check"])?.status.success());
    assert_eq!(rules(&file, &["remove", "again"])?.status.code(), Some(2));

    let text = fs::read_to_string(&file)?;
    let broken = format!("{text}\n[[rule]]\nnmae = \"x\"\n");
    fs::write(&file, &broken)?;
    let checked = rules(&file, &["check"])?;
    assert_eq!(checked.status.code(), Some(2));
    assert!(
        stderr(&checked).contains("\"nmae\" is no key of [[rule]] (did you mean \"name\"?)"),
        "{}",
        stderr(&checked)
    );
    assert_eq!(rules(&file, &["enable", "us"])?.status.code(), Some(2));
    assert_eq!(fs::read_to_string(&file)?, broken, "a broken file is left alone");
    Ok(())
}

#[test]
fn a_home_of_somebody_else_is_no_obstacle() -> anyhow::Result<()> {
    let everybodys = support::Everybodys::new()?;
    let program = everybodys.copy(Path::new(BINARY))?;
    let home = tempfile::tempdir()?;
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program);
    command.args(["rules", "list"]).current_dir("/").stdin(Stdio::null());
    command.env_remove("XDG_CONFIG_HOME").env("HOME", home.path());
    let output = command.output()?;
    assert!(output.status.success(), "{}", stderr(&output));
    // One that is there and may not be read is told of.
    fs::create_dir_all(home.path().join(".config/chadthrottle"))?;
    let file = home.path().join(".config/chadthrottle/config.toml");
    fs::write(&file, "")?;
    fs::set_permissions(&file, PermissionsExt::from_mode(0o600))?;
    fs::set_permissions(home.path(), PermissionsExt::from_mode(0o755))?;
    let output = command.output()?;
    assert!(!output.status.success());
    assert!(stderr(&output).contains("cannot read"), "{}", stderr(&output));
    Ok(())
}
