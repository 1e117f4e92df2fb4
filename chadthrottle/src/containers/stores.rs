//! What runtimes write down of their containers, and where.
//!
//! - Docker has a directory for each, `containers/NUMBER/config.v2.json`, of which `Name` is `/web` (container/container.go of
//!   moby).
//! - Podman and CRI-O have one list of all, and one of those that go when they end (`--rm`): `containers.json` and
//!   `volatile-containers.json` of the storage, entries with `id` and `names` (containers.go of containers/storage).
//! - nerdctl has a file for each name with the number in it: `HASH/names/NAMESPACE/NAME` (pkg/namestore of nerdctl).

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::is_number;
use crate::sys::owned_file::{OwnedFile, Version};

/// Longer files are not read, in bytes. Podman writes some two thousand for each container.
const LONGEST: u64 = 4 << 20;
/// Nor are more entries of a directory.
const MOST_ENTRIES: usize = 1024;
/// So many files are remembered; with more, all are forgotten.
const MOST_FILES: usize = 4096;
/// Longer names are none.
const LONGEST_NAME: usize = 128;
/// Storage drivers: the lists are in a directory that is called after one (`overlay-containers`).
const DRIVERS: [&str; 4] = ["overlay", "vfs", "btrfs", "zfs"];
const LISTS: [&str; 2] = ["containers.json", "volatile-containers.json"];

/// Who runs containers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Runtime {
    Docker,
    Podman,
    Nerdctl,
}

impl Runtime {
    /// Where it keeps root's.
    pub(super) fn system(self, root: &Path) -> Vec<PathBuf> {
        let paths: &[&str] = match self {
            Self::Docker => &["var/lib/docker", "var/snap/docker/common/var-lib-docker"],
            // The second with `transient_store`.
            Self::Podman => &["var/lib/containers/storage", "run/containers/storage"],
            Self::Nerdctl => &["var/lib/nerdctl"],
        };
        paths.iter().map(|path| root.join(path)).collect()
    }

    /// Where it keeps those of a user, whose `$XDG_DATA_HOME` is at its usual place.
    pub(super) fn users(self, data: &Path) -> Vec<PathBuf> {
        let path = match self {
            Self::Docker => "docker",
            Self::Podman => "containers/storage",
            Self::Nerdctl => "nerdctl",
        };
        vec![data.join(path)]
    }
}

/// Names by numbers.
type Names = HashMap<String, String>;

/// What was read of files, and of which version of each.
#[derive(Debug, Default)]
pub(super) struct Shelf(HashMap<PathBuf, (Version, Names)>);

impl Shelf {
    /// What a runtime calls a container, by the first of these stores that knows. Files of others than `owner` say nothing.
    pub(super) fn name(
        &mut self,
        runtime: Runtime,
        stores: &[PathBuf],
        owner: u32,
        number: &str,
    ) -> Option<String> {
        if self.0.len() > MOST_FILES {
            self.0.clear();
        }
        stores.iter().find_map(|store| match runtime {
            Runtime::Docker => {
                let path = store.join("containers").join(number).join("config.v2.json");
                self.of_file(path, owner, docker).get(number).cloned()
            }
            Runtime::Podman => DRIVERS.iter().find_map(|driver| {
                let directory = store.join(format!("{driver}-containers"));
                LISTS
                    .iter()
                    .find_map(|list| self.of_file(directory.join(list), owner, podman).get(number).cloned())
            }),
            Runtime::Nerdctl => nerdctl(store, owner, number),
        })
    }

    /// What a file says, read again where it is another one by now.
    fn of_file(&mut self, path: PathBuf, owner: u32, read: fn(&[u8]) -> Option<Names>) -> &Names {
        let found = OwnedFile::find(&path, owner).inspect_err(|error| {
            if error.kind() != io::ErrorKind::NotFound {
                log::debug!("{}: {error}", path.display());
            }
        });
        let known = self.0.entry(path).or_default();
        match found {
            Err(_) => *known = Default::default(),
            Ok(file) if file.version == known.0 => {}
            Ok(file) => {
                let names = file.read(LONGEST).ok().and_then(|text| read(&text));
                *known = (file.version, names.unwrap_or_default());
            }
        }
        &known.1
    }
}

/// `{"ID":"4c01…","Name":"/web",…}`.
fn docker(text: &[u8]) -> Option<Names> {
    #[derive(Deserialize)]
    struct Container {
        #[serde(rename = "ID")]
        id: String,
        #[serde(rename = "Name")]
        name: String,
    }
    let Container { id, name } = serde_json::from_slice(text).ok()?;
    let name = name.strip_prefix('/').unwrap_or(&name).to_owned();
    Some([(id, name)].into_iter().filter(is_believed).collect())
}

/// `[{"id":"4c01…","names":["web"],…}]`.
fn podman(text: &[u8]) -> Option<Names> {
    #[derive(Deserialize)]
    struct Container {
        id: String,
        names: Option<Vec<String>>,
    }
    let all: Vec<Container> = serde_json::from_slice(text).ok()?;
    let first = |container: Container| Some((container.id, container.names?.into_iter().next()?));
    Some(all.into_iter().filter_map(first).filter(is_believed).collect())
}

/// The name of the file that has the number in it.
fn nerdctl(store: &Path, owner: u32, number: &str) -> Option<String> {
    let entries = |path: PathBuf| {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.take(MOST_ENTRIES).map(|entry| entry.path())
    };
    let namespaces = entries(store.to_owned()).flat_map(|instance| entries(instance.join("names")));
    let mut files = namespaces.flat_map(entries).take(MOST_ENTRIES);
    let named = files.find(|path| {
        let text = OwnedFile::find(path, owner).and_then(|file| file.read(LONGEST_NAME as u64));
        text.is_ok_and(|text| text.trim_ascii() == number.as_bytes())
    })?;
    let name = named.file_name()?.to_str()?.to_owned();
    is_name(&name).then_some(name)
}

fn is_believed((number, name): &(String, String)) -> bool {
    is_number(number) && is_name(name)
}

/// What Docker, Podman and nerdctl take for a name, which nothing else is shown as.
fn is_name(name: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= LONGEST_NAME
        && name.bytes().all(is_inside)
        && name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric())
}

/// Whatever is written down, only what may be a number has a name, and that is one.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(bytes: &[u8]) {
    for names in [docker(bytes), podman(bytes)].into_iter().flatten() {
        assert!(names.iter().all(|(number, name)| is_number(number) && is_name(name)));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const NUMBER: &str = "4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8";

    #[test]
    fn what_docker_and_podman_write_is_read() {
        let is = |name: &str| Names::from([(NUMBER.to_owned(), name.to_owned())]);
        let of_docker = format!(
            r#"{{"StreamConfig":{{}},"State":{{"Running":true,"Pid":7}},"ID":"{NUMBER}","Created":"2026-01-01T00:00:00Z",
               "Config":{{"Hostname":"4c01db0b339c","Env":["A=1"]}},"Name":"/web","Driver":"overlay2"}}"#
        );
        assert_eq!(docker(of_docker.as_bytes()), Some(is("web")));
        let of_podman = format!(
            r#"[{{"id":"{NUMBER}","names":["db.1"],"image":"d7","layer":"67","metadata":"{{\"name\":\"db.1\"}}",
                "big-data-sizes":{{"a":1}},"created":"2026-01-01T00:00:00Z","flags":{{"x":""}}}},
               {{"id":"{}","image":"d7","layer":"68"}},{{"id":"../x","names":["x"]}}]"#,
            NUMBER.replace('4', "5")
        );
        assert_eq!(podman(of_podman.as_bytes()), Some(is("db.1")));
        assert_eq!((docker(b"{}"), podman(b"{}"), docker(b"[")), (None, None, None));
    }

    #[test]
    fn a_name_is_what_runtimes_take_for_one() {
        let long = "x".repeat(LONGEST_NAME + 1);
        for (name, expected) in [
            ("web", true),
            ("Web_1.a-b", true),
            ("", false),
            ("-web", false),
            ("a/b", false),
            ("a\x1b[2J", false),
            ("w e", false),
            (&long, false),
        ] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
