//! The text beside the object that says what it was built with and from.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};

use super::{
    sources::Sources,
    toolchain::{Compiler, Linker},
};
use crate::process;

const HEADER: &str = "# What chadthrottle.bpf.o and chadthrottle.bpfeb.o were built with and from. Written by `cargo xtask ebpf`.";

/// What decides whether two builds have to be equal byte by byte.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    /// Everything of the tools that can change the object.
    pub(crate) tools: Tools,
    /// See [`Sources::digest`].
    pub(crate) sources: String,
}

/// The tools, each on one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tools {
    toolchain: String,
    rustc: String,
    linker: String,
}

impl Record {
    /// Of a build with these.
    pub(crate) fn of(compiler: &Compiler, linker: &Linker, sources: &Sources) -> Result<Self> {
        let rustc_package = package_of(&compiler.bin.join("rustc"));
        let llvm = match linker.llvm() {
            None => "with LLVM inside".to_owned(),
            Some(library) => {
                let name =
                    library.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
                format!("with {}", package_of(&library).unwrap_or(name))
            }
        };
        Ok(Self {
            tools: Tools {
                toolchain: compiler.kind.name().to_owned(),
                rustc: [Some(compiler.version()), rustc_package]
                    .into_iter()
                    .flatten()
                    .collect::<Vec<_>>()
                    .join(", "),
                linker: format!("{}, {llvm}", linker.version),
            },
            sources: sources.digest()?,
        })
    }

    /// As a file.
    pub(crate) fn to_text(&self) -> String {
        let Self { tools: Tools { toolchain, rustc, linker }, sources } = self;
        format!("{HEADER}\ntoolchain: {toolchain}\nrustc: {rustc}\nlinker: {linker}\nsources: {sources}\n")
    }

    /// From a file.
    pub(crate) fn from_text(text: &str) -> Result<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
                .map(str::to_owned)
                .with_context(|| format!("the record has no line `{name}: …`"))
        };
        ensure!(
            text.lines().all(|line| line.starts_with('#') || line.contains(": ")),
            "the record is garbled"
        );
        Ok(Self {
            tools: Tools { toolchain: field("toolchain")?, rustc: field("rustc")?, linker: field("linker")? },
            sources: field("sources")?,
        })
    }
}

impl Tools {
    /// What differs, one line each, or nothing.
    pub(crate) fn differences(&self, other: &Self) -> Vec<String> {
        [
            ("toolchain", &self.toolchain, &other.toolchain),
            ("rustc", &self.rustc, &other.rustc),
            ("linker", &self.linker, &other.linker),
        ]
        .into_iter()
        .filter(|(_, ours, theirs)| ours != theirs)
        .map(|(what, ours, theirs)| format!("  {what}: recorded {ours}\n  {what}: here     {theirs}"))
        .collect()
    }
}

/// The Debian package that a file is from, with its version: a rebuilt package can say the same version of itself.
fn package_of(file: &Path) -> Option<String> {
    let file = file.canonicalize().ok()?;
    let owner = process::quiet_output(Command::new("dpkg-query").arg("--search").arg(file))?;
    let package = owner.split(": ").next()?.split(':').next()?;
    process::quiet_output(Command::new("dpkg-query").args([
        "--show",
        "--showformat=${Package} ${Version}",
        package,
    ]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        Record {
            tools: Tools {
                toolchain: "debian".to_owned(),
                rustc: "rustc 1.96.0 (ac68faa20 2026-05-25), LLVM 22.1.8".to_owned(),
                linker: "bpf-linker 0.13.0, with libllvm22 1:22.1.8-1".to_owned(),
            },
            sources: "0123456789abcdef".to_owned(),
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written() {
        assert_eq!(Record::from_text(&record().to_text()).expect("a record"), record());
    }

    #[test]
    fn a_record_without_a_field_is_no_record() {
        let text = record().to_text().replace("linker: ", "link: ");
        let error = Record::from_text(&text).expect_err("no linker");
        assert!(error.to_string().contains("`linker: …`"), "{error}");
        Record::from_text("<<<<<<< ours").expect_err("a conflict");
    }

    #[test]
    fn another_compiler_or_linker_is_a_difference_and_other_sources_are_none() {
        let ours = record();
        let mut theirs = Record { sources: String::new(), ..record() };
        assert_eq!(ours.tools.differences(&theirs.tools), Vec::<String>::new());
        theirs.tools.linker = "bpf-linker 0.14.0".to_owned();
        let differences = ours.tools.differences(&theirs.tools);
        assert_eq!(differences.len(), 1);
        assert!(differences[0].contains("recorded bpf-linker 0.13.0, "), "{differences:?}");
        assert!(differences[0].contains("here     bpf-linker 0.14.0"), "{differences:?}");
    }
}
