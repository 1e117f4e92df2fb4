//! Files of /proc that have words of others in them. What processes, cgroups and mount points are called may be any bytes:
//! none of them keeps us from reading the rest.

use std::{
    ffi::OsStr,
    fs, io,
    io::Read,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    str,
};

use procfs::{ProcError, ProcResult, process::Process};

/// The whole of a file. What is no UTF-8 is replaced.
///
/// # Errors
/// When it cannot be read.
pub fn read(path: impl AsRef<Path>) -> io::Result<String> {
    Ok(String::from_utf8_lossy(&fs::read(path)?).into_owned())
}

/// A file of one process, even if its number is another's by now: then there is none.
fn read_of(process: &Process, name: &str) -> ProcResult<String> {
    Ok(String::from_utf8_lossy(&bytes_of(process, name)?).into_owned())
}

fn bytes_of(process: &Process, name: &str) -> ProcResult<Vec<u8>> {
    let mut bytes = Vec::new();
    process.open_relative(name)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// What /proc/PID/status says, as far as it is asked for (`proc_pid_status`, fs/proc/array.c).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    /// The process that a thread belongs to; 0 of one that has just been waited for.
    pub group: i32,
    /// The user who started it.
    pub real_uid: u32,
    /// As whom it acts.
    pub effective_uid: u32,
    /// What it may do now, as bits.
    pub effective: u64,
}

impl Status {
    /// Reads that of a process.
    ///
    /// # Errors
    /// When it has ended, or /proc does not tell.
    pub fn of(process: &Process) -> ProcResult<Self> {
        let text = read_of(process, "status")?;
        Self::parse(&text).ok_or_else(|| ProcError::Other("something is missing in its status".into()))
    }

    fn parse(text: &str) -> Option<Self> {
        // The kernel writes a line's end in the name as two characters (`proc_task_name`).
        let field = |name: &str| {
            let mut lines = text.lines().filter_map(|line| line.split_once(':'));
            lines.find(|(known, _)| *known == name).map(|(_, value)| value.trim())
        };
        let mut uids = field("Uid")?.split_ascii_whitespace().map(str::parse);
        Some(Self {
            group: field("Tgid")?.parse().ok()?,
            real_uid: uids.next()?.ok()?,
            effective_uid: uids.next()?.ok()?,
            effective: u64::from_str_radix(field("CapEff")?, 16).ok()?,
        })
    }
}

/// A process's path in the cgroup v2 tree: the line of hierarchy 0 in /proc/PID/cgroup (cgroups(7)).
#[must_use]
pub fn cgroup(process: &Process) -> Option<String> {
    cgroup_in(&read_of(process, "cgroup").ok()?)
}

fn cgroup_in(text: &str) -> Option<String> {
    // No name of a cgroup has this in it (`cgroup_mkdir`, kernel/cgroup/cgroup.c); it may have a carriage return.
    text.split('\n').find_map(|line| line.strip_prefix("0::")).map(str::to_owned)
}

/// The same in the first hierarchy that is wanted, by its number and its controllers (with commas between them), and as it
/// is in the file system, byte for byte.
#[must_use]
pub fn cgroup_path(process: &Process, is_wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    cgroup_path_in(&bytes_of(process, "cgroup").ok()?, is_wanted)
}

/// The same, from the text of /proc/PID/cgroup.
#[must_use]
pub fn cgroup_path_in(text: &[u8], is_wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    text.split(|byte| *byte == b'\n').find_map(|line| {
        let mut parts = line.splitn(3, |byte| *byte == b':');
        let (hierarchy, controllers) =
            (str::from_utf8(parts.next()?).ok()?, str::from_utf8(parts.next()?).ok()?);
        let path = parts.next()?;
        is_wanted(hierarchy, controllers).then(|| OsStr::from_bytes(path).into())
    })
}

/// A tree of cgroups that is mounted as a whole.
#[derive(Clone, Copy, Debug)]
pub struct CgroupMount<'a> {
    /// Whether it is one of version 1.
    pub is_v1: bool,
    /// Where.
    pub point: &'a str,
    options: &'a str,
}

impl CgroupMount<'_> {
    /// Whether it is of this controller, maybe among others.
    #[must_use]
    pub fn has(&self, controller: &str) -> bool {
        self.options.split(',').any(|option| option == controller)
    }
}

/// The trees of cgroups, from the format of /proc/PID/mountinfo (proc(5)).
pub fn cgroup_mounts(mountinfo: &str) -> impl Iterator<Item = CgroupMount<'_>> {
    mountinfo.lines().filter_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let (mut before, mut after) = (before.split(' ').skip(3), after.split(' '));
        let (root, point) = (before.next()?, before.next()?);
        let (kind, options) = (after.next()?, after.nth(1)?);
        let is_v1 = kind == "cgroup";
        // Blanks in names are written as `\040`; nobody mounts these there.
        let is_usable = root == "/" && !point.contains('\\');
        (is_usable && (is_v1 || kind == "cgroup2")).then_some(CgroupMount { is_v1, point, options })
    })
}

/// The numbers of the device that a mount shows, from `/proc/PID/mountinfo`.
#[must_use]
pub fn device_of_mount(mountinfo: &str, mount: u64) -> Option<(u64, u64)> {
    let fields = mountinfo.lines().map(|line| line.split(' '));
    let mut found = fields.filter_map(|mut fields| {
        let id: u64 = fields.next()?.parse().ok()?;
        (id == mount).then_some(fields)
    });
    let (major, minor) = found.next()?.nth(1)?.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The network namespaces that have a name, by their inodes, from `/proc/PID/mountinfo`. As `ip netns` gives it:
/// `… net:[4026532000] /run/netns/NAME …`.
pub fn named_networks(mountinfo: &str) -> impl Iterator<Item = u64> {
    let words = mountinfo.split_ascii_whitespace();
    words.filter_map(|word| word.strip_prefix("net:[")?.strip_suffix(']')?.parse().ok())
}

/// What holds of any text, and of what the kernel writes about a process that is called so.
#[cfg(feature = "fuzzing")]
pub(crate) fn fuzz(text: &str) {
    let _ = (Status::parse(text), cgroup_in(text), device_of_mount(text, 1));
    assert!(named_networks(text).count() + cgroup_mounts(text).count() <= text.len());
    // As `proc_task_name` writes it, which is at most 15 bytes long.
    let name = text.replace('\\', "\\\\").replace('\n', "\\n");
    let status = format!("Name:\t{name}\nTgid:\t7\nUid:\t1\t2\t3\t4\nCapEff:\t000001ffffffffff\n");
    let read = Status { group: 7, real_uid: 1, effective_uid: 2, effective: 0x1ff_ffff_ffff };
    assert_eq!(Status::parse(&status), Some(read));
    let path = format!("/{}", text.replace('\n', ""));
    let groups = format!("2:cpu:/{name}\n0::{path}\n");
    assert_eq!(cgroup_in(&groups).as_deref(), Some(&*path));
    assert_eq!(cgroup_path_in(groups.as_bytes(), |hierarchy, _| hierarchy == "0"), Some(path.into()));
}

#[cfg(test)]
mod tests {
    use std::{
        os::unix::ffi::OsStringExt,
        process::{Command, Stdio},
    };

    use super::*;

    #[test]
    fn whatever_a_process_is_called_its_status_is_read() {
        // A name of 15 bytes may end in the middle of a character, too.
        let directory = tempfile::tempdir().expect("a directory");
        for name in [&b"\xff(x) S 1\n:"[..], "…………………".as_bytes(), b"Tgid:\t1\nUid:\t0"] {
            let program = directory.path().join(std::ffi::OsString::from_vec(name.to_vec()));
            std::os::unix::fs::symlink("/bin/cat", &program).expect("any name will do");
            let mut child = Command::new(&program).stdin(Stdio::piped()).spawn().expect("it starts");
            let pid = child.id().cast_signed();
            let process = Process::new(pid).expect("it runs");
            let status = Status::of(&process);
            let id = crate::process::ProcessId::running(pid);
            let cgroup = cgroup(&process);
            drop(child.stdin.take());
            child.wait().expect("it ends");
            let own = Status::of(&Process::myself().expect("it runs")).expect("as we do");
            assert_eq!(status.expect("it ran"), Status { group: pid, ..own });
            assert_eq!(id.expect("it ran").pid, pid);
            assert!(cgroup.is_some_and(|path| path.starts_with('/')));
        }
    }

    #[test]
    fn whatever_another_cgroup_is_called_the_one_that_is_asked_for_is_found() {
        let text = b"5:net_cls,net_prio:/a\xff:b\n3:\xff:/x\n0::/c\xff\n";
        let found = |wanted: &str| {
            let path = cgroup_path_in(text, |hierarchy, controllers| {
                hierarchy == wanted || controllers.split(',').any(|controller| controller == wanted)
            });
            path.map(|path| path.as_os_str().as_bytes().to_vec())
        };
        assert_eq!(found("0").as_deref(), Some(&b"/c\xff"[..]));
        assert_eq!(found("net_cls").as_deref(), Some(&b"/a\xff:b"[..]));
        assert_eq!(found("cpu"), None);
    }

    #[test]
    fn what_is_missing_is_none() {
        assert_eq!(Status::parse("Name:\tx\nTgid:\t7\nUid:\t0\n"), None);
        assert_eq!(cgroup_in("1:name=systemd:/a\n"), None);
        let mountinfo = "36 35 98:0 /mnt1 /mnt\u{fffd} rw - ext3 /dev/root rw\n\
                         40 35 0:4 net:[4026532000] /run/netns/a rw - nsfs nsfs rw\n";
        assert_eq!(device_of_mount(mountinfo, 36), Some((98, 0)));
        assert_eq!(device_of_mount(mountinfo, 37), None);
        assert_eq!(named_networks(mountinfo).collect::<Vec<_>>(), [4_026_532_000]);
    }
}
