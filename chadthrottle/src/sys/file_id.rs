//! Which file a path names, as the kernel tells files apart.

use std::{
    ffi::CString,
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::Path,
};

use chadthrottle_common::FileId;
use nix::{
    libc,
    sys::stat::{major, minor},
};

/// The mount that a file was reached by (`STATX_MNT_ID`, include/uapi/linux/stat.h, since Linux 5.8).
const STATX_MNT_ID: u32 = 0x1000;

/// The file at `path`, with links followed.
///
/// The device is the one of the file system, which stat(2) does not tell everywhere: btrfs shows a device for each of its
/// subvolumes, and only the mount table has the real one.
///
/// # Errors
/// When there is none, or it may not be looked at.
pub fn file_id(path: &Path) -> io::Result<FileId> {
    let metadata = path.metadata()?;
    let device = device_of_mount(path).unwrap_or_else(|| (major(metadata.dev()), minor(metadata.dev())));
    Ok(FileId { inode: metadata.ino(), device: kernel_device(device), ..FileId::default() })
}

/// `MKDEV` (`include/linux/kdev_t.h`): what userspace has in its own order.
fn kernel_device((major, minor): (u64, u64)) -> u32 {
    // Twelve bits and twenty: no device has larger numbers.
    u32::try_from(major << 20 | minor & 0xf_ffff).unwrap_or_default()
}

/// The numbers of the device that a file's mount shows.
fn device_of_mount(path: &Path) -> Option<(u64, u64)> {
    let id = mount_id(path)?;
    let mounts = procfs::process::Process::myself().ok()?.mountinfo().ok()?;
    let mount = mounts.into_iter().find(|mount| u64::try_from(mount.mnt_id).ok() == Some(id))?;
    let (major, minor) = mount.majmin.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
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
    fn the_kernel_has_device_numbers_in_another_order() {
        assert_eq!(kernel_device((8, 1)), 0x0080_0001);
        assert_eq!(kernel_device((254, 0x1_2345)), 0x0fe1_2345);
    }
}
