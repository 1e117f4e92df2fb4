use std::{fs, io, path::Path};

use nix::unistd::geteuid;
use tempfile::TempDir;

use super::{stores::tests::NUMBER, *};

/// A host of which this user is root, or not.
struct Host(TempDir);

impl Host {
    fn new() -> io::Result<Self> {
        Ok(Self(tempfile::tempdir()?))
    }

    fn write(&self, path: impl AsRef<Path>, text: &str) -> io::Result<()> {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().expect("it is below"))?;
        fs::write(path, text)
    }

    fn cgroup(&self, path: &str) -> io::Result<()> {
        fs::create_dir_all(self.0.path().join("cgroup").join(path.trim_start_matches('/')))
    }

    /// As who it is looked at, and nothing remembered.
    fn name(&self, cgroup: &str, owner: Option<&str>) -> Option<String> {
        let us = geteuid().as_raw();
        let mut containers = Containers::below(self.0.path().to_owned(), Some(self.0.path().join("cgroup")));
        // Whatever this user's number is: it is root's here, or another user's.
        containers.system = if owner.is_some() { us + 1 } else { us };
        containers.plain = [us + 1; 2];
        if let Some(name) = owner {
            let data = self.0.path().join("home/.local/share");
            containers.owners.insert(us, Some(Owner { name: name.into(), data }));
        }
        containers.name(cgroup)
    }
}

fn docker(name: &str) -> String {
    format!(r#"{{"ID":"{NUMBER}","Name":"/{name}"}}"#)
}

fn podman(name: &str) -> String {
    format!(r#"[{{"id":"{NUMBER}","names":["{name}"]}}]"#)
}

#[test]
fn names_of_roots_containers_are_in_roots_files() -> io::Result<()> {
    let host = Host::new()?;
    host.write(format!("var/lib/docker/containers/{NUMBER}/config.v2.json"), &docker("web"))?;
    host.write("var/lib/containers/storage/overlay-containers/volatile-containers.json", &podman("db"))?;
    host.write("var/lib/nerdctl/1935db59/names/default/other", &NUMBER.replace('4', "5"))?;
    host.write("var/lib/nerdctl/1935db59/names/default/queue", NUMBER)?;
    for (cgroup, expected) in [
        (format!("/system.slice/docker-{NUMBER}.scope"), Some("web")),
        (format!("/system.slice/docker-{NUMBER}.scope/init/x"), Some("web")),
        (format!("/docker/{NUMBER}"), Some("web")),
        (format!("/machine.slice/libpod-{NUMBER}.scope/container"), Some("db")),
        (format!("/system.slice/nerdctl-{NUMBER}.scope"), Some("queue")),
        (format!("/machine.slice/libpod-{}.scope", NUMBER.replace('4', "5")), None),
        (format!("/machine.slice/libpod-conmon-{NUMBER}.scope"), None),
        (format!("/x/{NUMBER}"), None),
        ("/system.slice/docker-../../x.scope".into(), None),
        ("/".into(), None),
    ] {
        host.cgroup(&cgroup)?;
        assert_eq!(host.name(&cgroup, None).as_deref(), expected, "{cgroup}");
    }
    Ok(())
}

#[test]
fn a_users_files_name_what_that_user_has_made_and_nothing_else() -> io::Result<()> {
    let host = Host::new()?;
    let cgroup = format!("/user.slice/user-1000.slice/user@1000.service/libpod-{NUMBER}.scope");
    host.cgroup(&cgroup)?;
    host.write("home/.local/share/containers/storage/overlay-containers/containers.json", &podman("web"))?;
    assert_eq!(host.name(&cgroup, Some("ada")).as_deref(), Some("ada/web"));
    // Of root's cgroups it is root's files that are asked.
    assert_eq!(host.name(&cgroup, None), None);
    // And of a user's cgroups those of root are not.
    let other = Host::new()?;
    other.cgroup(&cgroup)?;
    other.write("var/lib/containers/storage/overlay-containers/containers.json", &podman("web"))?;
    assert_eq!(other.name(&cgroup, Some("ada")), None);
    Ok(())
}

#[test]
fn somebody_elses_file_is_not_believed() -> io::Result<()> {
    let host = Host::new()?;
    let cgroup = format!("/system.slice/docker-{NUMBER}.scope");
    host.cgroup(&cgroup)?;
    let path = format!("var/lib/docker/containers/{NUMBER}/config.v2.json");
    host.write(&path, &docker("web"))?;
    let us = geteuid().as_raw();
    let stores = [host.0.path().join("var/lib/docker")];
    let mut shelf = Shelf::default();
    assert_eq!(shelf.name(Runtime::Docker, &stores, us, NUMBER).as_deref(), Some("web"));
    assert_eq!(shelf.name(Runtime::Docker, &stores, us + 1, NUMBER), None);
    // Nor is what a link leads to, though it were the same user's.
    fs::rename(host.0.path().join(&path), host.0.path().join("elsewhere"))?;
    std::os::unix::fs::symlink(host.0.path().join("elsewhere"), host.0.path().join(&path))?;
    assert_eq!(shelf.name(Runtime::Docker, &stores, us, NUMBER), None);
    Ok(())
}

#[test]
fn a_container_that_is_given_another_name_has_that() -> io::Result<()> {
    let host = Host::new()?;
    let list = "var/lib/containers/storage/overlay-containers/containers.json";
    let stores = [host.0.path().join("var/lib/containers/storage")];
    let us = geteuid().as_raw();
    let mut shelf = Shelf::default();
    for name in ["one", "another", "1"] {
        host.write(list, &podman(name))?;
        assert_eq!(shelf.name(Runtime::Podman, &stores, us, NUMBER).as_deref(), Some(name));
    }
    fs::remove_file(host.0.path().join(list))?;
    assert_eq!(shelf.name(Runtime::Podman, &stores, us, NUMBER), None);
    Ok(())
}
