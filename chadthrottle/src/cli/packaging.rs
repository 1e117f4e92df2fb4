//! `completions` and `man`: what packagers install, made from the definition that parses the command line, so that
//! neither says anything else than `--help`.

use std::{
    fs,
    io::{self, Write},
    path::Path,
};

use anyhow::Context;
use clap::CommandFactory;
pub use clap_complete::Shell;
use clap_mangen::{Man, roff::Roff};

use super::Cli;

/// As it is installed, and as its manual pages are called.
const NAME: &str = "chadthrottle";

/// What the command line's definition does not have. `man-pages(7)` names the sections and their order.
const FILES: [(&str, &str); 5] = [
    (
        "/etc/chadthrottle/config.toml",
        "The configuration of the system: how the screen looks, keys, and rules.",
    ),
    (
        "~/.config/chadthrottle/config.toml",
        "The user's, which counts before it. Under sudo: that of who called sudo.",
    ),
    ("/var/lib/chadthrottle/history.db", "What programs and units have used, where root records it."),
    ("~/.local/state/chadthrottle/history.db", "The same of a user."),
    ("/run/chadthrottle/", "Which limits are in force, and what is to be undone if they are not taken back."),
];

/// Prints the completions of `shell`.
///
/// # Errors
/// When they cannot be written.
pub fn completions(shell: Shell, out: &mut impl Write) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), NAME, &mut script);
    Ok(out.write_all(&script)?)
}

/// Prints the manual page of the program itself, as `man -l` reads it.
///
/// # Errors
/// When it cannot be written.
pub fn page(out: &mut impl Write) -> anyhow::Result<()> {
    Ok(out.write_all(&rendered()?)?)
}

/// Writes the page of the program and one of each command into `directory`, which is made where there is none.
///
/// # Errors
/// When one of them cannot be written.
pub fn pages(directory: &Path) -> anyhow::Result<()> {
    let cannot = || format!("cannot write manual pages to {}", directory.display());
    fs::create_dir_all(directory).with_context(cannot)?;
    // `help` is no command of its own, and would get a page for every page.
    let command = Cli::command().disable_help_subcommand(true);
    clap_mangen::generate_to(command, directory).with_context(cannot)?;
    fs::write(directory.join(format!("{NAME}.1")), rendered()?).with_context(cannot)
}

fn rendered() -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    Man::new(Cli::command().disable_help_subcommand(true)).render(&mut text)?;
    let mut more = Roff::new();
    more.control("SH", ["FILES"]);
    for (path, words) in FILES {
        more.control("TP", []);
        more.text([clap_mangen::roff::bold(path)]);
        more.text([clap_mangen::roff::roman(words)]);
    }
    more.to_writer(&mut text)?;
    Ok(text)
}
