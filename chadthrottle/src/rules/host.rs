//! What rules come to on this host: program files, cgroups, users, processes.

use std::{
    collections::BTreeSet,
    fs, io,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use nix::unistd::User;
use procfs::process::Process;

use super::{
    Rule,
    conditions::{Facts, file_name, is_container},
    glob::Pattern,
    rank::Kind,
};
use crate::{
    backends::throttle::Subject,
    process::{KnownNames, ProcessId, cgroup_path},
    sys::{cgroup::CgroupRoot, proc_fd},
};

/// So many program files of one rule are followed by the kernel; more are looked for as processes.
pub const MOST_PROGRAMS: usize = 64;
/// So many entries of directories are looked at for one pattern.
const MOST_ENTRIES: usize = 20_000;
/// Where programs with a name are looked for.
const DIRECTORIES: [&str; 8] = [
    "/usr/local/sbin",
    "/usr/local/bin",
    "/usr/sbin",
    "/usr/bin",
    "/sbin",
    "/bin",
    "/usr/games",
    "/usr/libexec",
];
/// What the kernel writes after the path of a program whose file has been removed or replaced (proc(5)).
const DELETED: &str = " (deleted)";

/// What the kernel follows by itself for a rule: none where it cannot, or where what the rule names is not there.
#[must_use]
pub fn subjects(rule: &Rule, root: Option<&CgroupRoot>, names: &mut KnownNames) -> Vec<Subject> {
    let conditions = &rule.conditions;
    let programs =
        |paths: BTreeSet<PathBuf>| paths.into_iter().take(MOST_PROGRAMS).map(Subject::Program).collect();
    let cgroups = |is_one: &mut dyn FnMut(&str) -> bool| {
        let all = root.map(CgroupRoot::paths).unwrap_or_default();
        all.into_iter().filter(|path| is_one(path)).collect::<Vec<_>>()
    };
    match (Kind::of(rule), &conditions.program, &conditions.name) {
        (Kind::Program | Kind::Programs, Some(program), _) => programs(program_files(program)),
        (Kind::Name, _, Some(name)) => programs(named_programs(name, &DIRECTORIES)),
        (Kind::User, ..) => conditions.user.as_deref().and_then(uid).map(Subject::User).into_iter().collect(),
        (Kind::Cgroup, ..) => {
            let mut paths = Vec::new();
            if let Some(path) = &conditions.cgroup {
                paths.push(path.clone());
            } else if let Some(unit) = &conditions.unit {
                paths = cgroups(&mut |path| unit.matches(file_name(path)));
                let is_ours = |path: &String| root.is_some_and(|root| root.contains(path));
                paths.extend(expected_unit(unit).filter(is_ours).filter(|_| paths.is_empty()));
            } else if let Some(container) = &conditions.container {
                paths = cgroups(&mut |path| {
                    is_container(file_name(path), container)
                        || names.container_of(path).as_ref() == Some(container)
                });
            }
            paths.into_iter().map(Subject::Cgroup).collect()
        }
        _ => Vec::new(),
    }
}

/// Where systemd puts a service of this name that does not run, unless its unit file says otherwise (`Slice=`).
fn expected_unit(unit: &Pattern) -> Option<String> {
    let name = unit.literal().filter(|name| name.ends_with(".service"))?;
    Some(format!("/system.slice/{name}"))
}

/// A user's number, by number or name.
#[must_use]
pub fn uid(user: &str) -> Option<u32> {
    user.parse().ok().or_else(|| User::from_name(user).ok().flatten().map(|user| user.uid.as_raw()))
}

/// The program files that a pattern names, by the paths that the kernel has for them.
fn program_files(pattern: &Pattern) -> BTreeSet<PathBuf> {
    if let Some(path) = pattern.literal() {
        return canonical_program(Path::new(&path)).into_iter().collect();
    }
    let text = pattern.to_string();
    let begin = text.find(['*', '?', '[', '\\']).and_then(|at| text[..at].rfind('/')).unwrap_or_default();
    let mut found = BTreeSet::new();
    let mut left = MOST_ENTRIES;
    let depth = if text.contains("**") { 32 } else { text[begin..].matches('/').count().saturating_sub(1) };
    walk(Path::new(&text[..=begin]), depth, &mut left, &mut |path| {
        if path.to_str().is_some_and(|path| pattern.matches(path)) {
            found.extend(canonical_program(path));
        }
    });
    found
}

/// Everything in a directory and so many levels below it. Links to directories are not followed.
fn walk(directory: &Path, depth: usize, left: &mut usize, visit: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        if *left == 0 {
            return;
        }
        *left -= 1;
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => {
                if depth > 0 {
                    walk(&entry.path(), depth - 1, left, visit);
                }
            }
            Ok(_) => visit(&entry.path()),
            Err(_) => {}
        }
    }
}

/// Programs in the usual places whose file is called so. One that is only a link's name for another program is left
/// out: whoever executes it calls the process so, and is found as a process.
fn named_programs(name: &Pattern, directories: &[&str]) -> BTreeSet<PathBuf> {
    let is_called =
        |path: &Path| path.file_name().and_then(|file| file.to_str()).is_some_and(|file| name.matches(file));
    let mut found = BTreeSet::new();
    for directory in directories {
        let candidates: Vec<PathBuf> = match name.literal() {
            Some(name) => vec![Path::new(directory).join(name)],
            None => {
                fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
            }
        };
        let programs =
            candidates.iter().filter(|path| is_called(path)).filter_map(|path| canonical_program(path));
        found.extend(programs.filter(|path| is_called(path)));
    }
    found
}

/// A file that can be executed, by its path without links.
fn canonical_program(path: &Path) -> Option<PathBuf> {
    let path = path.canonicalize().ok()?;
    let metadata = fs::metadata(&path).ok()?;
    (metadata.is_file() && metadata.permissions().mode() & 0o111 != 0).then_some(path)
}

/// What is known of every process now, kernel threads left out.
///
/// # Errors
/// When /proc cannot be listed. Who ends meanwhile is left out.
pub fn processes(names: &mut KnownNames) -> io::Result<Vec<Facts>> {
    let own = mount_namespace("self");
    Ok(proc_fd::pids()?.filter_map(|pid| read(pid, own, names)).collect())
}

/// What is known of one.
#[must_use]
pub fn process(id: ProcessId, names: &mut KnownNames) -> Option<Facts> {
    read(id.pid, mount_namespace("self"), names).filter(|facts| facts.id == id)
}

fn read(pid: i32, own: Option<u64>, names: &mut KnownNames) -> Option<Facts> {
    let process = Process::new(pid).ok()?;
    let stat = process.stat().ok()?;
    let link = format!("/proc/{pid}/exe");
    // Who executes nothing is a thread of the kernel, or has ended.
    let target = fs::read_link(&link).ok()?;
    let text = target.to_str().map(|text| text.strip_suffix(DELETED).unwrap_or(text).to_owned());
    let is_elsewhere = mount_namespace(&pid.to_string()) != own;
    let exe = text.filter(|path| !is_elsewhere || same_file(Path::new(&link), Path::new(path)));
    let uid = process.uid().ok()?;
    let user = names.user(uid);
    let cgroup = cgroup_path(&process).unwrap_or_default();
    Some(Facts {
        id: ProcessId { pid, start_time: stat.starttime },
        name: stat.comm,
        exe,
        command: process.cmdline().unwrap_or_default().join(" "),
        container: names.container(&cgroup),
        cgroup,
        uid,
        user: Some(user),
    })
}

/// The mount namespace of a process: in another one, the same path may be another file.
fn mount_namespace(process: &str) -> Option<u64> {
    Some(fs::metadata(format!("/proc/{process}/ns/mnt")).ok()?.ino())
}

fn same_file(one: &Path, other: &Path) -> bool {
    let file = |path: &Path| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    file(one).is_some_and(|one| file(other) == Some(one))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(directory: &Path, name: &str, mode: u32) -> PathBuf {
        let path = directory.join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        fs::write(&path, "").expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("ours");
        path
    }

    #[test]
    fn patterns_find_program_files_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path().canonicalize().expect("is there");
        let (one, two) = (program(&root, "bin/one", 0o755), program(&root, "bin/two", 0o755));
        let deep = program(&root, "lib/x/deep", 0o755);
        program(&root, "bin/text", 0o644);
        std::os::unix::fs::symlink(&two, root.join("bin/three")).expect("a link");
        let files = |rest: &str| {
            program_files(&Pattern::new(&format!("{}/{rest}", root.display())).expect("a pattern"))
        };
        assert_eq!(files("bin/*"), BTreeSet::from([one.clone(), two.clone()]));
        assert_eq!(files("bin/three"), BTreeSet::from([two.clone()]), "what the kernel calls it");
        assert_eq!(files("*"), BTreeSet::new());
        assert_eq!(files("**"), BTreeSet::from([one.clone(), two.clone(), deep.clone()]));
        assert_eq!(files("*/x/d[e]ep"), BTreeSet::from([deep]));
        assert_eq!(files("bin/text"), BTreeSet::new());

        let bin = root.join("bin");
        let named = |name: &str| {
            named_programs(&Pattern::new(name).expect("a pattern"), &[bin.to_str().expect("text")])
        };
        assert_eq!(named("t*"), BTreeSet::from([two]), "a link's name is not the program's");
        assert_eq!(named("three"), BTreeSet::new());
        assert_eq!(named("one"), BTreeSet::from([one]));
    }

    #[test]
    fn we_are_among_the_processes() {
        let own = ProcessId::running(std::process::id().cast_signed()).expect("we run");
        let mut names = KnownNames::default();
        let facts = process(own, &mut names).expect("we run");
        let exe = std::env::current_exe().expect("we execute something");
        assert_eq!(facts.exe.as_deref(), exe.to_str());
        assert!(processes(&mut names).expect("/proc is there").contains(&facts));
    }
}
