//! Writing a file whole or not at all.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, fchown},
    path::{Path, PathBuf},
};

use nix::unistd::{Gid, Uid};

/// New files are everybody's to read, as those in /etc are.
const MODE: u32 = 0o644;
const DIRECTORY_MODE: u32 = 0o755;

/// Puts a text in the place of a file's: whoever reads it, also after the power has gone, finds the old one or the new
/// one. Mode and owner stay; a link stays one. A file that is not there is made, with its directories, and is `owner`'s.
///
/// # Errors
/// When the host refuses; then the file is as it was.
pub fn replace(path: &Path, text: &str, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    // What a link leads to is replaced and not the link: somebody keeps the file elsewhere.
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().ok_or_else(|| io::Error::other("it is no path of a file"))?;
    make_directories(directory, owner)?;
    let (mode, owner) = match fs::metadata(&path) {
        Ok(old) => (old.permissions().mode() & 0o7777, Some((old.uid(), old.gid()))),
        Err(_) => (MODE, owner.map(|(user, group)| (user.as_raw(), group.as_raw()))),
    };
    let (temporary, mut file) = beside(&path)?;
    let mut write = || {
        file.write_all(text.as_bytes())?;
        if let Some((user, group)) = owner {
            // Who may not give a file away keeps it; then it was theirs before, or their group's.
            let given = fchown(&file, Some(user), Some(group));
            if given.is_err() && !is_ours(&file, user)? {
                given?;
            }
        }
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.sync_all()?;
        fs::rename(&temporary, &path)
    };
    let written = write();
    if written.is_err() {
        // It has a name that nobody else gives.
        let _ = fs::remove_file(&temporary);
        return written;
    }
    File::open(directory)?.sync_all()
}

fn is_ours(file: &File, user: u32) -> io::Result<bool> {
    Ok(file.metadata()?.uid() == user)
}

/// A new file in the same directory, since a file can be renamed within one file system alone.
fn beside(path: &Path) -> io::Result<(PathBuf, File)> {
    let name = path.file_name().ok_or_else(|| io::Error::other("it is no path of a file"))?;
    for attempt in 0..100 {
        let temporary =
            path.with_file_name(format!(".{}.{}.{attempt}", name.to_string_lossy(), std::process::id()));
        match File::create_new(&temporary) {
            Ok(file) => return Ok((temporary, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("a hundred files that were left by others are in the way"))
}

/// Those that are missing are made, and are the owner's.
fn make_directories(directory: &Path, owner: Option<(Uid, Gid)>) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.is_dir() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        make_directories(above, owner)?;
    }
    DirBuilder::new().mode(DIRECTORY_MODE).create(directory)?;
    if let Some((user, group)) = owner {
        fchown(File::open(directory)?, Some(user.as_raw()), Some(group.as_raw()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(directory: &Path) -> Vec<String> {
        let entries = fs::read_dir(directory).expect("a directory");
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn mode_and_link_stay_and_nothing_is_left_beside() {
        let directory = tempfile::tempdir().expect("a directory");
        let (file, link) = (directory.path().join("real.toml"), directory.path().join("link.toml"));
        fs::write(&file, "old").expect("written");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).expect("ours");
        std::os::unix::fs::symlink(&file, &link).expect("a link");
        replace(&link, "new", None).expect("replaced");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "new");
        assert!(fs::symlink_metadata(&link).expect("is there").is_symlink());
        assert_eq!(fs::metadata(&file).expect("is there").permissions().mode() & 0o7777, 0o640);
        assert_eq!(names(directory.path()).len(), 2, "{:?}", names(directory.path()));
    }

    #[test]
    fn a_new_file_has_its_directories_made() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("a/b/config.toml");
        replace(&file, "x", Some((Uid::effective(), Gid::effective()))).expect("made");
        assert_eq!(fs::read_to_string(&file).expect("readable"), "x");
    }

    #[test]
    fn what_cannot_be_written_leaves_everything_as_it_was() {
        let directory = tempfile::tempdir().expect("a directory");
        // Its name is a directory's.
        let target = directory.path().join("config.toml");
        fs::create_dir(&target).expect("made");
        assert!(replace(&target, "x", None).is_err());
        assert_eq!(names(directory.path()), ["config.toml"]);
    }
}
