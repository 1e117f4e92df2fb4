//! Files that are there whole or not at all, and are believed only of whom they are expected from.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt},
    path::Path,
};

use nix::libc;

/// Nothing that we write is longer, in bytes.
const LONGEST: u64 = 1 << 20;

/// Writes a file whole or not at all, however we end; when this returns it is on the disk. The directory is made where
/// there is none, with `mode`.
///
/// # Errors
/// When it cannot be written. Then the one from before is still there.
pub fn write(path: &Path, text: &[u8], mode: u32) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("/"));
    fs::DirBuilder::new().recursive(true).mode(mode).create(directory)?;
    let new = path.with_extension("new");
    let written = File::create(&new).and_then(|mut file| {
        file.write_all(text)?;
        file.sync_all()
    });
    let written = written.and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // Half of one is of no use to anybody.
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(directory)?.sync_all()
}

/// Removes a file, and its directory with the last one. That it is not there is no error.
///
/// # Errors
/// When it cannot be removed.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Others may have theirs there.
    if let Some(directory) = path.parent() {
        let _ = fs::remove_dir(directory);
    }
    Ok(())
}

/// What a file says that this user wrote.
///
/// # Errors
/// When it cannot be read, is no file, or somebody else's.
pub fn read(path: &Path, writer: u32) -> io::Result<Vec<u8>> {
    let file = File::options().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no file"));
    }
    if metadata.uid() != writer {
        return Err(io::Error::other(format!("user {} wrote it, and not user {writer}", metadata.uid())));
    }
    let mut text = Vec::new();
    file.take(LONGEST).read_to_end(&mut text)?;
    Ok(text)
}

/// The kernel's name for the time since the last boot.
///
/// # Errors
/// When /proc is not there.
pub fn boot() -> io::Result<String> {
    Ok(fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_file_is_written_whole_and_read_as_its_writers() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("notes").join("one.json");
        let us = geteuid().as_raw();
        write(&path, b"first", 0o755)?;
        write(&path, b"second", 0o755)?;
        assert_eq!(read(&path, us)?, b"second");
        assert!(read(&path, us + 1).is_err());
        assert_eq!(fs::read_dir(directory.path().join("notes"))?.count(), 1, "nothing half-written is left");
        std::os::unix::fs::symlink(&path, path.with_extension("link"))?;
        assert!(read(&path.with_extension("link"), us).is_err());
        remove(&path.with_extension("link"))?;
        remove(&path)?;
        remove(&path)?;
        assert!(!directory.path().join("notes").exists());
        assert!(write(Path::new("/proc/no/such.json"), b"", 0o755).is_err());
        Ok(())
    }
}
