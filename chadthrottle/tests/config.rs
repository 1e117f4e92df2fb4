//! The configuration file, through the program itself.

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output, Stdio},
};

use support::BINARY;

/// The program with a directory of its own for configurations, over a simulated host.
fn demo(home: &Path, arguments: &[&str]) -> anyhow::Result<Output> {
    let mut command = Command::new(BINARY);
    command.env("XDG_CONFIG_HOME", home).env_remove("SUDO_UID").stdin(Stdio::null());
    Ok(command.args(["--demo", "--demo-picture", "100x30"]).args(arguments).output()?)
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn rebound_keys_are_those_of_the_help_the_footer_and_the_program() -> anyhow::Result<()> {
    let home = tempfile::tempdir()?;
    let file = home.path().join("my.toml");
    fs::write(&file, "[screen]\nunits = \"bits\"\n[keys]\npause = \"x\"\nhelp = [\"F1\", \"h\"]\n")?;
    let file = file.to_str().expect("paths here are text");
    let shown = |keys: &str| -> anyhow::Result<String> {
        let output = demo(home.path(), &["--config", file, "--demo-keys", keys])?;
        assert!(output.status.success(), "{}", stderr(&output));
        Ok(String::from_utf8(output.stdout)?)
    };
    let table = shown("")?;
    assert!(table.contains("F1 help") && table.contains("x pause"), "{table}");
    assert!(table.contains("bit/s"), "{table}");
    assert!(shown("h")?.contains("F1 h"), "the help is the table of keys");
    assert!(shown("x")?.to_lowercase().contains("paused"), "x pauses");
    assert!(!shown("p")?.to_lowercase().contains("paused"), "p does not any more");
    assert!(!shown("?")?.contains("Limit dialog"), "? is no key any more");
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
