//! Files in places where somebody else says what is there.

use std::{
    fs::{File, Metadata},
    io::{self, Read},
    os::{
        fd::AsRawFd,
        unix::fs::{MetadataExt, OpenOptionsExt},
    },
    path::Path,
};

use nix::libc;

/// A file that a certain user owns. It is not open for reading yet: to open a device may have it do something.
#[derive(Debug)]
pub struct OwnedFile {
    file: File,
    /// Which version it is.
    pub version: Version,
}

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    place: (u64, u64),
    changed: (i64, i64),
    length: u64,
}

impl From<&Metadata> for Version {
    fn from(metadata: &Metadata) -> Self {
        Self {
            place: (metadata.dev(), metadata.ino()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            length: metadata.len(),
        }
    }
}

impl OwnedFile {
    /// Finds it.
    ///
    /// # Errors
    /// When it is not there, no regular file, or somebody else's.
    pub fn find(path: &Path, owner: u32) -> io::Result<Self> {
        let file = File::options().read(true).custom_flags(libc::O_PATH | libc::O_NOFOLLOW).open(path)?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::other("it is no file"));
        }
        if metadata.uid() != owner {
            return Err(io::Error::other(format!("it is user {}'s, and not user {owner}'s", metadata.uid())));
        }
        Ok(Self { file, version: Version::from(&metadata) })
    }

    /// The whole of it.
    ///
    /// # Errors
    /// When it cannot be read, or is longer than `most` bytes.
    pub fn read(&self, most: u64) -> io::Result<Vec<u8>> {
        // The same file, whatever is at its path by now (proc_pid_fd(5)).
        let file = File::open(format!("/proc/self/fd/{}", self.file.as_raw_fd()))?;
        let mut bytes = Vec::new();
        file.take(most + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(io::Error::other(format!("it has more than {most} bytes")));
        }
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use nix::unistd::geteuid;

    use super::*;

    #[test]
    fn a_file_is_read_of_its_owner_alone_and_not_beyond_a_length() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let (path, link) = (directory.path().join("file"), directory.path().join("link"));
        fs::write(&path, "four")?;
        symlink(&path, &link)?;
        let us = geteuid().as_raw();
        let file = OwnedFile::find(&path, us)?;
        assert_eq!(file.read(4)?, b"four");
        assert!(file.read(3).is_err());
        assert!(OwnedFile::find(&path, us + 1).is_err());
        assert!(OwnedFile::find(&link, us).is_err(), "a link is no file");
        assert!(OwnedFile::find(directory.path(), us).is_err(), "nor is a directory");
        fs::write(&path, "longer")?;
        assert_ne!(OwnedFile::find(&path, us)?.version, file.version);
        Ok(())
    }
}
