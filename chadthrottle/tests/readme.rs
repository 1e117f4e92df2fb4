//! The pictures in the README and in the page about the screen are what the program draws.

use std::{fs, path::Path, process::Command};

use anyhow::{Context, ensure};

/// What stands before the command line of a picture.
const COMMAND: &str = "<!-- chadthrottle ";
const FENCE: &str = "```text\n";

/// The arguments of a picture: words, some of them in quotation marks.
fn arguments(line: &str) -> Vec<String> {
    let quoted = line.split('\'').enumerate();
    quoted
        .flat_map(|(index, part)| match index % 2 {
            0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
            _ => vec![part.to_owned()],
        })
        .collect()
}

#[test]
fn the_pictures_in_the_documents_are_what_the_demo_draws() -> anyhow::Result<()> {
    compare("README.md", 2)?;
    compare("docs/SCREEN.md", 1)
}

fn compare(document: &str, expected: usize) -> anyhow::Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(document);
    let text = fs::read_to_string(&path)?;
    let mut written = String::new();
    let mut pictures = 0;
    let mut parts = text.split(COMMAND);
    written.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (line, _) = part.split_once(" -->").context("a command line that does not end")?;
        let (before, rest) = part.split_once(FENCE).context("a command line without a picture")?;
        let (_, after) = rest.split_once("```").context("a picture that does not end")?;
        let output = Command::new(env!("CARGO_BIN_EXE_chadthrottle")).args(arguments(line)).output()?;
        ensure!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
        let picture = String::from_utf8(output.stdout)?;
        written.push_str(&[COMMAND, before, FENCE, &picture, "```", after].concat());
        pictures += 1;
    }
    ensure!(pictures == expected, "{document} shows {expected} screens, and not {pictures}");
    if std::env::var_os("UPDATE_SCREENS").is_some() {
        fs::write(&path, &written)?;
    }
    ensure!(
        text == written || std::env::var_os("UPDATE_SCREENS").is_some(),
        "{document} should be\n{written}"
    );
    Ok(())
}
