//! Whom a rule matches. Pure: what is known of a process is an argument.

use std::fmt;

use super::glob::Pattern;
use crate::process::ProcessId;

/// What has to be true of a process, all of it. At least one is there.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Conditions {
    /// The file that it executes: a path.
    pub program: Option<Pattern>,
    /// Its command name, or the name of the file that it executes.
    pub name: Option<Pattern>,
    /// Its arguments, with blanks between them.
    pub command: Option<Pattern>,
    /// Its unit: the name of a cgroup that it is in or below.
    pub unit: Option<Pattern>,
    /// The same by the path of a cgroup, as in /proc/PID/cgroup.
    pub cgroup: Option<String>,
    /// Its container, by the beginning of the number, by the name that the cgroup has, or by the one that its runtime has
    /// written down.
    pub container: Option<String>,
    /// The user that it runs as: a name or a number.
    pub user: Option<String>,
}

/// What is known of a process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Who it is.
    pub id: ProcessId,
    /// Command name (`comm`).
    pub name: String,
    /// The file that it executes, where that is one of this host's and not a container's.
    pub exe: Option<String>,
    /// Its arguments, with blanks between them.
    pub command: String,
    /// Path in the cgroup v2 tree.
    pub cgroup: String,
    /// What its container is called, where its runtime has written that down.
    pub container: Option<String>,
    /// The user that it runs as.
    pub uid: u32,
    /// The user's name, where there is one.
    pub user: Option<String>,
}

impl Conditions {
    /// Whether a process is one of those.
    #[must_use]
    pub fn matches(&self, facts: &Facts) -> bool {
        let is = |pattern: &Option<Pattern>, text: Option<&str>| {
            pattern.as_ref().is_none_or(|pattern| text.is_some_and(|text| pattern.matches(text)))
        };
        let cgroup = self.cgroup.as_ref().is_none_or(|path| is_below(&facts.cgroup, path));
        let user = self.user.as_ref().is_none_or(|user| {
            facts.user.as_ref() == Some(user) || user.parse().is_ok_and(|uid: u32| uid == facts.uid)
        });
        is(&self.program, facts.exe.as_deref())
            && self.name.as_ref().is_none_or(|name| {
                name.matches(&facts.name)
                    || facts.exe.as_deref().map(file_name).is_some_and(|file| name.matches(file))
            })
            && cgroup
            && user
            && self.unit.as_ref().is_none_or(|unit| facts.cgroup.split('/').any(|part| unit.matches(part)))
            && self.container.as_ref().is_none_or(|name| {
                facts.container.as_ref() == Some(name)
                    || facts.cgroup.split('/').any(|part| is_container(part, name))
            })
            && is(&self.command, Some(&facts.command))
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> usize {
        let patterns = [&self.program, &self.name, &self.command, &self.unit];
        let texts = [&self.cgroup, &self.container, &self.user];
        patterns.iter().filter(|one| one.is_some()).count() + texts.iter().filter(|one| one.is_some()).count()
    }
}

/// Whether a cgroup is another one or below it.
#[must_use]
pub fn is_below(path: &str, above: &str) -> bool {
    let above = above.trim_end_matches('/');
    path.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The last part of a path.
#[must_use]
pub fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Runtimes, by what they put before the number or name of a container in the name of its cgroup.
const RUNTIMES: [&str; 8] = [
    "docker-",
    "libpod-",
    "cri-containerd-",
    "crio-",
    "nerdctl-",
    "lxc.payload.",
    "machine-",
    "systemd-nspawn@",
];
/// A number is told by so many digits at least.
const LEAST_DIGITS: usize = 6;

/// Whether a part of a cgroup's path is that of this container: its name, or its number or the beginning of that.
#[must_use]
pub fn is_container(part: &str, wanted: &str) -> bool {
    let of_runtime = RUNTIMES.iter().find_map(|prefix| part.strip_prefix(prefix));
    let name = of_runtime.unwrap_or(part).trim_end_matches(".scope").trim_end_matches(".service");
    let is_hex = |text: &str| text.bytes().all(|byte| byte.is_ascii_hexdigit());
    let is_number = name.len() == 64 && is_hex(name);
    let begins = wanted.len() >= LEAST_DIGITS && is_hex(wanted) && name.starts_with(wanted);
    // A cgroup that no runtime names may only be known by such a number: `/docker/<number>`.
    (of_runtime.is_some() && name == wanted) || (is_number && begins)
}

impl fmt::Display for Conditions {
    /// `program /usr/bin/curl, user ada`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pattern =
            |name: &str, pattern: &Option<Pattern>| pattern.as_ref().map(|one| format!("{name} {one}"));
        let text = |name: &str, text: &Option<String>| text.as_ref().map(|one| format!("{name} {one}"));
        let all = [
            pattern("program", &self.program),
            pattern("name", &self.name),
            pattern("command", &self.command),
            pattern("unit", &self.unit),
            text("cgroup", &self.cgroup),
            text("container", &self.container),
            text("user", &self.user),
        ];
        f.write_str(&all.into_iter().flatten().collect::<Vec<_>>().join(", "))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    pub(crate) fn curl() -> Facts {
        Facts {
            id: ProcessId { pid: 7, start_time: 1 },
            name: "curl".into(),
            exe: Some("/usr/bin/curl".into()),
            command: "curl -O https://example.org/x".into(),
            cgroup: "/system.slice/fetch.service".into(),
            container: None,
            uid: 1000,
            user: Some("ada".into()),
        }
    }

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect(text)
    }

    /// Conditions of which each is true of curl, and whether they are there.
    fn conditions(there: [bool; 6]) -> Conditions {
        let text = |index: usize, text: &str| there[index].then(|| text.to_owned());
        Conditions {
            program: there[0].then(|| Pattern::new("/usr/bin/*").expect("a pattern")),
            name: there[1].then(|| Pattern::new("cur?").expect("a pattern")),
            command: there[2].then(|| Pattern::of_text("*example.org*").expect("a pattern")),
            unit: there[3].then(|| Pattern::new("fetch.service").expect("a pattern")),
            cgroup: text(4, "/system.slice"),
            container: None,
            user: text(5, "ada"),
        }
    }

    #[test]
    fn each_condition_by_itself() {
        let none = Conditions::default();
        let is = |conditions: Conditions| conditions.matches(&curl());
        assert!(is(Conditions { program: Some(pattern("/usr/bin/curl")), ..none.clone() }));
        assert!(!is(Conditions { program: Some(pattern("curl")), ..none.clone() }));
        assert!(is(Conditions { user: Some("1000".into()), ..none.clone() }));
        assert!(!is(Conditions { user: Some("1".into()), ..none.clone() }));
        assert!(is(Conditions { cgroup: Some("/system.slice/".into()), ..none.clone() }));
        assert!(!is(Conditions { cgroup: Some("/system".into()), ..none.clone() }), "no part of a name");
        assert!(!is(Conditions { unit: Some(pattern("fetch")), ..none.clone() }));
        assert!(is(Conditions { unit: Some(pattern("fetch*")), ..none.clone() }));
        // Who calls itself something else is known by its file all the same.
        let renamed = Facts { name: "worker".into(), ..curl() };
        assert!(Conditions { name: Some(pattern("curl")), ..none.clone() }.matches(&renamed));
        assert!(Conditions { name: Some(pattern("worker")), ..none.clone() }.matches(&renamed));
        let inside = Facts { container: Some("web".into()), ..curl() };
        assert!(Conditions { container: Some("web".into()), ..none.clone() }.matches(&inside));
        assert!(!Conditions { container: Some("we".into()), ..none.clone() }.matches(&inside));
        assert!(!Conditions { container: Some("web".into()), ..none.clone() }.matches(&curl()));
        let elsewhere = Facts { exe: None, ..curl() };
        assert!(!Conditions { program: Some(pattern("/**")), ..none }.matches(&elsewhere));
    }

    #[test]
    fn containers_by_name_and_number() {
        let number = "4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8";
        for (part, wanted, expected) in [
            (format!("docker-{number}.scope"), "4c01db0b339c", true),
            (format!("docker-{number}.scope"), "4c01d", false),
            (format!("docker-{number}.scope"), "01db0b339c", false),
            (number.to_owned(), "4c01db", true),
            ("lxc.payload.web".to_owned(), "web", true),
            ("machine-web.scope".to_owned(), "web", true),
            ("web".to_owned(), "web", false),
            ("lxc.payload.webserver".to_owned(), "web", false),
        ] {
            assert_eq!(is_container(&part, wanted), expected, "{part} {wanted}");
        }
    }

    proptest! {
        #[test]
        fn all_conditions_have_to_be_true(there: [bool; 6], wrong in 0..6_usize) {
            prop_assert!(conditions(there).matches(&curl()));
            let mut other = curl();
            match wrong {
                0 => other.exe = Some("/opt/curl".into()),
                1 => (other.name, other.exe) = ("x".into(), Some("/usr/bin/x".into())),
                2 => other.command = "curl".into(),
                3 => other.cgroup = "/system.slice/other.service".into(),
                4 => other.cgroup = "/user.slice/fetch.service".into(),
                _ => (other.user, other.uid) = (Some("bob".into()), 1001),
            }
            prop_assert_eq!(conditions(there).matches(&other), !there[wrong]);
        }

        #[test]
        fn a_cgroup_is_below_those_above_it(parts in proptest::collection::vec("[a-z.]{1,6}", 1..5), at in 0..5_usize) {
            let path = format!("/{}", parts.join("/"));
            let above = format!("/{}", parts[..at.min(parts.len())].join("/"));
            prop_assert!(is_below(&path, &above));
            let beside = format!("{path}x");
            prop_assert!(!is_below(&path, &beside));
        }
    }
}
