//! Which file a path names, as the kernel tells files apart.

use std::{
    ffi::CString,
    fs::{File, OpenOptions},
    io,
    os::{
        fd::AsRawFd,
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, OpenOptionsExt},
        },
    },
    path::Path,
};

use chadthrottle_common::FileId;
use nix::{
    libc,
    sys::{
        stat::{major, minor},
        statfs::{BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, fstatfs},
    },
};

use super::proc_text;

/// The mount that a file was reached by (`STATX_MNT_ID`, include/uapi/linux/stat.h, since Linux 5.8).
const STATX_MNT_ID: u32 = 0x1000;
/// `XFS_SUPER_MAGIC` (include/uapi/linux/magic.h), which nix does not have for musl.
const XFS: FsType = FsType(0x5846_5342);
/// File systems whose `FS_IOC_GETVERSION` is the inode's `i_generation` (ext4 stands for ext2 and ext3 too). Others that
/// know it may answer for another inode: ecryptfs hands it on to the file below, FUSE to its server.
const TELLING: [FsType; 4] = [EXT4_SUPER_MAGIC, XFS, F2FS_SUPER_MAGIC, BTRFS_SUPER_MAGIC];

/// The file at `path`, with links followed.
///
/// The device is the one of the file system, which stat(2) does not tell everywhere: btrfs shows a device for each of its
/// subvolumes, and only the mount table has the real one. The generation is 0 where the file system does not tell.
///
/// # Errors
/// When there is none, or it may not be looked at.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let mut metadata = path.metadata()?;
    let mut generation = None;
    // To open anything else may have consequences.
    if metadata.is_file()
        && let Ok(file) = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)
    {
        // Of one and the same file, should the path be given to another one meanwhile.
        metadata = file.metadata()?;
        generation = generation_of(&file);
    }
    let device = device_of_mount(path).unwrap_or_else(|| (major(metadata.dev()), minor(metadata.dev())));
    Ok(FileId {
        inode: metadata.ino(),
        device: kernel_device(device),
        generation: generation.unwrap_or_default(),
    })
}

/// What tells a file from the one that had its inode number before.
fn generation_of(file: &File) -> Option<u32> {
    if !TELLING.contains(&fstatfs(file).ok()?.filesystem_type()) {
        return None;
    }
    // As long as the request says; of that the file systems write 32 bits (`ext4_ioctl`, fs/ext4/ioctl.c).
    let mut generation: [u32; size_of::<libc::c_long>() / 4] = [0; _];
    // SAFETY: the kernel writes no more than one long.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::FS_IOC_GETVERSION, generation.as_mut_ptr()) };
    (result == 0).then_some(generation[0])
}

/// `MKDEV` (`include/linux/kdev_t.h`): what userspace has in its own order.
fn kernel_device((major, minor): (u64, u64)) -> u32 {
    // Twelve bits and twenty: no device has larger numbers.
    u32::try_from(major << 20 | minor & 0xf_ffff).unwrap_or_default()
}

/// The numbers of the device that a file's mount shows.
fn device_of_mount(path: &Path) -> Option<(u64, u64)> {
    let id = mount_id(path)?;
    proc_text::device_of_mount(&proc_text::read("/proc/self/mountinfo").ok()?, id)
}

fn mount_id(path: &Path) -> Option<u64> {
    let path = CString::new(path.as_os_str().as_bytes()).ok()?;
    // SAFETY: all zeros is a value of this structure.
    let mut about: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: the path ends in a zero byte, and the kernel writes one structure.
    let result = unsafe { libc::statx(libc::AT_FDCWD, path.as_ptr(), 0, STATX_MNT_ID, &raw mut about) };
    (result == 0 && about.stx_mask & STATX_MNT_ID != 0).then_some(about.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_itself_by_whatever_name() -> io::Result<()> {
        let here = std::env::current_exe()?;
        let itself = file_id(&here)?;
        assert_eq!(file_id(Path::new("/proc/self/exe"))?, itself);
        assert_eq!(itself.inode, here.metadata()?.ino());
        assert_ne!(file_id(Path::new("/proc/self/maps"))?, itself);
        assert!(file_id(Path::new("/no/such/file")).is_err());
        Ok(())
    }

    #[test]
    fn who_gets_the_number_of_a_removed_file_is_another_one() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        let path = directory.path().join("file");
        std::fs::write(&path, "")?;
        let before = file_id(&path)?;
        assert_eq!(file_id(&path)?, before);
        assert_eq!(file_id(directory.path())?.generation, 0);
        if before.generation == 0 {
            // Nobody can tell here, and the number is all there is.
            return Ok(());
        }
        std::fs::remove_file(&path)?;
        for attempt in 0..200 {
            let path = directory.path().join(format!("other{attempt}"));
            std::fs::write(&path, "")?;
            assert_ne!(file_id(&path)?, before, "{attempt}");
        }
        Ok(())
    }

    #[test]
    fn the_kernel_has_device_numbers_in_another_order() {
        assert_eq!(kernel_device((8, 1)), 0x0080_0001);
        assert_eq!(kernel_device((254, 0x1_2345)), 0x0fe1_2345);
    }
}
