//! Rules in their files.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use nix::unistd::{Gid, Uid};

use super::edit::{self, NewRule};
use crate::{
    config::{Config, Files, Source, files::SYSTEM, write},
    failure::Failure,
};

/// Writes a new rule to the own file, or to the system's, and returns which one that is.
///
/// # Errors
/// When something is wrong with the files or would be afterwards, or the file cannot be written. Then all is as it was.
pub fn add(files: &Files, new: &NewRule, system: bool) -> anyhow::Result<PathBuf> {
    let path = if system { Some(PathBuf::from(SYSTEM)) } else { files.own.clone() };
    let path = path.ok_or_else(|| {
        Failure::Usage("there is no file to write to: give one with --config, or --system".into())
    })?;
    let text = Source::read(&path)?.map(|source| source.text().to_owned()).unwrap_or_default();
    let owner = files.owner.filter(|_| !system);
    // One that is named and not there yet is made.
    let files = Files { is_named: false, ..files.clone() };
    rewrite(&files, &path, &text, |text| edit::add(text, new), owner)?;
    Ok(path)
}

/// The same under the name that it has, or that name with a number where there is one of that name already.
///
/// # Errors
/// Likewise.
pub fn add_by_any_name(files: &Files, new: &NewRule) -> anyhow::Result<(String, PathBuf)> {
    let known = Config::load(&Files { is_named: false, ..files.clone() })?.rules;
    let is_free = |name: &String| known.iter().all(|rule| rule.name != *name);
    let numbered = (2_u32..).map(|number| format!("{} {number}", new.name));
    let name = std::iter::once(new.name.clone()).chain(numbered).find(is_free).unwrap_or_default();
    let path = add(files, &NewRule { name: name.clone(), ..new.clone() }, false)?;
    Ok((name, path))
}

/// Changes the file that a rule stands in, and returns which one that is.
///
/// # Errors
/// Likewise, and when there is no such rule.
pub fn change(
    files: &Files,
    name: &str,
    edit: impl FnOnce(&str) -> Result<String, String>,
) -> anyhow::Result<PathBuf> {
    let config = Config::load(files)?;
    let rule = config.rules.iter().find(|rule| rule.name == name).ok_or_else(|| {
        Failure::Usage(format!(
            "there is no rule {name:?}; `chadthrottle rules list` shows those that there are"
        ))
    })?;
    let path = &rule.place.path;
    let text = Source::read(path)?.map(|source| source.text().to_owned()).unwrap_or_default();
    rewrite(files, path, &text, edit, None)?;
    Ok(path.to_path_buf())
}

/// Changes a file, where all is right before and after.
fn rewrite(
    files: &Files,
    path: &Path,
    text: &str,
    edit: impl FnOnce(&str) -> Result<String, String>,
    owner: Option<(Uid, Gid)>,
) -> anyhow::Result<()> {
    Config::load(files)?;
    let new = edit(text).map_err(Failure::Usage)?;
    let mut sources = Vec::new();
    for other in files.to_read() {
        if other == path {
            sources.push(Source::new(path, new.clone()));
        } else {
            sources.extend(Source::read(other)?);
        }
    }
    if !files.to_read().any(|other| other == path) {
        sources.push(Source::new(path, new.clone()));
    }
    Config::of(&sources)?;
    write::replace(path, &new, owner)
        .map_err(|error| anyhow!("cannot write {}: {error}; it is as it was", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn new(name: &str, user: &str) -> NewRule {
        NewRule {
            name: name.into(),
            conditions: vec![("user", user.into())],
            settings: vec![("upload", "1M".into())],
            ..NewRule::default()
        }
    }

    #[test]
    fn names_get_numbers_and_wrong_files_are_left_alone() -> anyhow::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("new/config.toml");
        let files = Files::only(&path);
        assert_eq!(add_by_any_name(&files, &new("ada", "ada"))?.0, "ada");
        assert_eq!(add_by_any_name(&files, &new("ada", "bob"))?.0, "ada 2");
        let text = fs::read_to_string(&path)?;
        let error = add_by_any_name(&files, &new("again", "ada")).expect_err("the same twice").to_string();
        assert!(error.contains("is for the same as \"ada\""), "{error}");
        assert!(add(&files, &new("ada", "eve"), false).is_err(), "the name is taken");
        assert_eq!(fs::read_to_string(&path)?, text);

        change(&files, "ada 2", |text| edit::set_enabled(text, "ada 2", false))?;
        assert!(fs::read_to_string(&path)?.contains("enabled = false"));
        let broken = "# broken\nx = = 1\n";
        fs::write(&path, broken)?;
        assert!(add(&files, &new("c", "c"), false).is_err());
        assert!(change(&files, "ada", |text| edit::remove(text, "ada")).is_err());
        assert_eq!(fs::read_to_string(&path)?, broken);
        Ok(())
    }
}
