//! The unit or container that a process belongs to, by its cgroup.

use crate::process::ProcessInfo;

/// What people call that of a process: `ssh.service`, `docker web`, `session-2.scope`. None at the root.
#[must_use]
pub fn unit(info: &ProcessInfo) -> Option<String> {
    info.cgroup.as_deref().and_then(|cgroup| of_cgroup(cgroup, info.container.as_deref()))
}

/// The same by cgroup, and by the name of the container that is of, where it is known: otherwise it is `docker 4c01db0b339c`.
///
/// Of a path, the last part that names a unit counts: below it a unit divides itself as it likes
/// (`systemd.resource-control(5)`, `Delegate=`).
fn of_cgroup(cgroup: &str, name: Option<&str>) -> Option<String> {
    let mut parts = cgroup.rsplit('/').filter(|part| !part.is_empty());
    let last = cgroup.rsplit('/').find(|part| !part.is_empty())?;
    let named = parts.find(|part| is_unit(part) || is_container(part));
    let part = named.unwrap_or(last);
    Some(container(part, name).unwrap_or_else(|| unescaped(part)))
}

/// Runtimes, by what they put before the number of a container.
const RUNTIMES: [(&str, &str); 7] = [
    ("docker-", "docker"),
    ("libpod-", "podman"),
    ("cri-containerd-", "containerd"),
    ("crio-", "cri-o"),
    ("nerdctl-", "nerdctl"),
    ("lxc.payload.", "lxc"),
    ("machine-", "machine"),
];

/// So many digits of a container's number are usually told.
const SHORT: usize = 12;

/// Slices hold units and are none.
fn is_unit(part: &str) -> bool {
    [".service", ".scope"].iter().any(|kind| part.ends_with(kind))
}

/// Whether a cgroup's name is that of a unit that is there again after a restart: a scope has a new one each time.
pub(super) fn is_named(part: &str) -> bool {
    [".service", ".slice"].iter().any(|kind| part.ends_with(kind))
}

fn is_container(part: &str) -> bool {
    RUNTIMES.iter().any(|(prefix, _)| part.starts_with(prefix))
}

fn container(part: &str, known: Option<&str>) -> Option<String> {
    let (rest, runtime) =
        RUNTIMES.iter().find_map(|(prefix, runtime)| Some((part.strip_prefix(prefix)?, *runtime)))?;
    let name = rest.trim_end_matches(".scope").trim_end_matches(".service");
    let is_number = name.len() > SHORT && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    let name = match known {
        Some(known) if is_number => known.to_owned(),
        None if is_number => name.get(..SHORT)?.to_owned(),
        _ => unescaped(name),
    };
    Some(format!("{runtime} {name}"))
}

/// `\x2d` stands for the character with that number (`systemd-escape(1)`).
fn unescaped(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part;
    while let Some(at) = rest.find("\\x") {
        let (before, escape) = rest.split_at(at);
        bytes.extend_from_slice(before.as_bytes());
        let number = escape.get(2..4).and_then(|digits| u8::from_str_radix(digits, 16).ok());
        match number {
            Some(byte) => bytes.push(byte),
            None => bytes.extend_from_slice(b"\\x"),
        }
        rest = escape.get(if number.is_some() { 4 } else { 2 }..).unwrap_or_default();
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_and_containers() {
        for (cgroup, expected) in [
            ("/", None),
            ("/system.slice/ssh.service", Some("ssh.service")),
            ("/user.slice/user-1000.slice/session-2.scope", Some("session-2.scope")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-org.x\\x2dy.scope",
                Some("app-org.x-y.scope"),
            ),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope/sub", Some("init.scope")),
            (
                "/system.slice/docker-4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8.scope",
                Some("docker 4c01db0b339c"),
            ),
            ("/machine.slice/libpod-0123456789abcdef0123.scope/container", Some("podman 0123456789ab")),
            ("/lxc.payload.web/system.slice/nginx.service", Some("nginx.service")),
            ("/lxc.payload.web", Some("lxc web")),
            ("/kubepods/besteffort/pod1", Some("pod1")),
            ("/a\\x2", Some("a\\x2")),
        ] {
            assert_eq!(of_cgroup(cgroup, None).as_deref(), expected, "{cgroup}");
        }
    }

    #[test]
    fn a_container_is_told_by_its_name_where_that_is_known() {
        let number = "4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8";
        for (cgroup, expected) in [
            (format!("/system.slice/docker-{number}.scope"), "docker web"),
            (format!("/machine.slice/libpod-{number}.scope/container"), "podman web"),
            (format!("/system.slice/docker-{number}.scope/system.slice/nginx.service"), "nginx.service"),
            ("/lxc.payload.other".into(), "lxc other"),
        ] {
            assert_eq!(of_cgroup(&cgroup, Some("web")).as_deref(), Some(expected), "{cgroup}");
        }
    }
}
