//! What is said through the socket. Reading it is pure.

use chadthrottle_common::ThrottleStats;
use serde::{Deserialize, Serialize};

use super::sample::WireSample;
use crate::{
    backends::throttle::manager::Limits,
    instances::{Traffic, Whom},
};

/// What is said has a form, which may be another one some day.
pub const VERSION: u32 = 1;
/// The longest request, in bytes, its end of line included.
pub const LONGEST: usize = 64 * 1024;
/// The longest name of a target, in bytes.
const LONGEST_NAME: usize = 256;
/// The longest path (`PATH_MAX`, include/uapi/linux/limits.h).
const LONGEST_PATH: usize = 4096;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The first of all: in which form we speak.
    Hello {
        /// [`VERSION`].
        version: u32,
    },
    /// Every limit in force.
    Status,
    /// What everybody has sent and received so far.
    Sample,
    /// Limits for a target, for as long as this connection lasts.
    Set {
        /// Whom.
        subject: Whom,
        /// What people call that.
        name: String,
        /// Which traffic.
        traffic: Traffic,
        /// In IP bytes a second; 0 blocks, nothing is no limit.
        upload: Option<u64>,
        /// Likewise.
        download: Option<u64>,
        /// Whether what another connection holds becomes this one's.
        #[serde(default)]
        take_over: bool,
    },
    /// The end of limits that this connection has set. Where a rule is for the same, its limits hold from then on.
    Release {
        /// Whose.
        subject: Whom,
    },
    /// The end of limits, whoever set them.
    Remove {
        /// Whose.
        subject: Whom,
    },
    /// That the files are read again.
    Reload,
}

/// What is answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// To [`Request::Hello`].
    Hello(Hello),
    /// To [`Request::Status`].
    Status(Status),
    /// To [`Request::Sample`].
    Sample(WireSample),
    /// It was done.
    Done(Done),
    /// It was not.
    Error(Refusal),
}

/// Who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u32,
    /// The program's.
    pub program: String,
    /// The daemon's.
    pub pid: i32,
    /// When it began, in clock ticks since boot.
    pub start_time: u64,
    /// The user that it runs as.
    pub uid: u32,
    /// The inode of its pid namespace: pids mean nothing outside.
    pub pids: u64,
    /// The inode of its network namespace: the interfaces that it sees.
    pub network: u64,
    /// Who counts; none where nobody can.
    pub monitor: Option<String>,
    /// Who holds upload limits.
    pub upload: String,
    /// Who holds download limits.
    pub download: Option<String>,
    /// The configuration files that it reads.
    pub files: Vec<String>,
    /// The file that it records what is used to; none where it records nothing.
    #[serde(default)]
    pub history: Option<String>,
    /// Whether whoever asks may change anything.
    pub may_change: bool,
}

/// The limits in force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// All of them.
    pub limits: Vec<InForce>,
}

/// Limits in force.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InForce {
    /// Whom.
    pub subject: Whom,
    /// What people call that.
    pub name: String,
    /// Which traffic.
    pub traffic: Traffic,
    /// In IP bytes a second.
    pub upload: Option<u64>,
    /// Likewise.
    pub download: Option<u64>,
    /// What became of uploads.
    pub upload_stats: Outcome,
    /// What became of downloads.
    pub download_stats: Outcome,
    /// Bytes that wait for the upload limit, where that is known.
    pub held_back: Option<u64>,
    /// Since when, as RFC 3339 has it.
    pub since: String,
    /// The rule that wants it, in words.
    pub rule: Option<String>,
    /// Who asked for it.
    pub set_by: Option<SetBy>,
}

/// Who has set a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetBy {
    /// Its process.
    pub pid: i32,
    /// Its user.
    pub uid: u32,
}

/// What a limit did, as [`ThrottleStats`] has it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Packets offered.
    pub packets: u64,
    /// IP bytes offered.
    pub bytes: u64,
    /// Packets dropped.
    pub packets_dropped: u64,
    /// IP bytes dropped.
    pub bytes_dropped: u64,
    /// Packets marked.
    pub packets_marked: u64,
    /// IP bytes marked.
    pub bytes_marked: u64,
}

/// What came of a change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    /// What the limits did that have ended: upload, download.
    #[serde(default)]
    pub ended: Option<[Outcome; 2]>,
    /// What is to be known of it, in a sentence.
    #[serde(default)]
    pub note: Option<String>,
}

/// Why something was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Of which kind.
    pub kind: Kind,
    /// In words: the cause, and the way out.
    pub message: String,
}

/// Kinds of refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It is no request. The connection ends.
    Malformed,
    /// The request is longer than [`LONGEST`]. The connection ends.
    TooLong,
    /// Another form of speaking. The connection ends.
    Version,
    /// Too many ask at once. The connection ends.
    Busy,
    /// Whoever asks may not.
    Denied,
    /// The backend may not, for want of privilege.
    Unprivileged,
    /// It cannot be enforced as asked.
    Unenforceable,
    /// It failed.
    Failed,
}

impl Refusal {
    /// A refusal.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }
}

/// Reads a request, without its end of line.
///
/// # Errors
/// When it is none, or too long.
pub fn parse(line: &[u8]) -> Result<Request, Refusal> {
    if line.len() >= LONGEST {
        return Err(too_long());
    }
    let request: Request = serde_json::from_slice(line).map_err(|error| {
        Refusal::new(
            Kind::Malformed,
            format!("this is no request: {error}; docs/DAEMON.md has those that there are"),
        )
    })?;
    check(&request).map_err(|message| Refusal::new(Kind::Malformed, message))?;
    Ok(request)
}

/// The refusal of a line that does not end.
pub(super) fn too_long() -> Refusal {
    Refusal::new(Kind::TooLong, format!("a request has {LONGEST} bytes at most"))
}

fn check(request: &Request) -> Result<(), String> {
    let subject = match request {
        Request::Set { subject, name, .. } => {
            if name.len() > LONGEST_NAME {
                return Err(format!("a name has {LONGEST_NAME} bytes at most"));
            }
            subject
        }
        Request::Release { subject } | Request::Remove { subject } => subject,
        Request::Hello { .. } | Request::Status | Request::Sample | Request::Reload => return Ok(()),
    };
    match subject {
        Whom::Program { path } | Whom::Cgroup { path } => {
            let is_plain = path.starts_with('/') && path.split('/').all(|part| part != ".." && part != ".");
            if is_plain && path.len() < LONGEST_PATH && !path.contains('\0') {
                Ok(())
            } else {
                Err("a path begins with / and has no . and .. in it".to_owned())
            }
        }
        Whom::Process { pid, .. } | Whom::Descendants { pid, .. } if *pid <= 0 => {
            Err("a process id is a positive number".to_owned())
        }
        Whom::Process { .. } | Whom::Descendants { .. } | Whom::User { .. } => Ok(()),
    }
}

/// A line of it, with its end.
pub(super) fn line(said: &impl Serialize) -> Vec<u8> {
    // Nothing that we say cannot be written: it has no maps with other keys than texts.
    let mut line = serde_json::to_vec(said).unwrap_or_default();
    line.push(b'\n');
    line
}

impl InForce {
    /// The limits.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits { upload: self.upload, download: self.download }
    }
}

impl From<ThrottleStats> for Outcome {
    fn from(stats: ThrottleStats) -> Self {
        Self {
            packets: stats.packets_total,
            bytes: stats.bytes_total,
            packets_dropped: stats.packets_dropped,
            bytes_dropped: stats.bytes_dropped,
            packets_marked: stats.packets_marked,
            bytes_marked: stats.bytes_marked,
        }
    }
}

impl From<Outcome> for ThrottleStats {
    fn from(outcome: Outcome) -> Self {
        Self {
            packets_total: outcome.packets,
            bytes_total: outcome.bytes,
            packets_dropped: outcome.packets_dropped,
            bytes_dropped: outcome.bytes_dropped,
            packets_marked: outcome.packets_marked,
            bytes_marked: outcome.bytes_marked,
            ..Self::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn kind(line: &[u8]) -> Option<Kind> {
        parse(line).err().map(|refusal| refusal.kind)
    }

    #[test]
    fn requests_are_read_as_they_are_written() {
        let subject = Whom::Process { pid: 7, start_time: 9 };
        let set = Request::Set {
            subject: subject.clone(),
            name: "curl".into(),
            traffic: Traffic::Internet,
            upload: Some(0),
            download: None,
            take_over: true,
        };
        let requests = [
            Request::Hello { version: VERSION },
            Request::Status,
            Request::Sample,
            set,
            Request::Release { subject: subject.clone() },
            Request::Remove { subject },
            Request::Reload,
        ];
        for request in requests {
            let line = line(&request);
            assert_eq!(parse(&line[..line.len() - 1]), Ok(request));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let path =
            |path: &str| format!(r#"{{"ask":"remove","subject":{{"kind":"program","path":"{path}"}}}}"#);
        assert_eq!(kind(path("/usr/bin/curl").as_bytes()), None);
        let deep = "[".repeat(LONGEST - 1);
        for line in [
            "",
            "GET / HTTP/1.1",
            "{}",
            r#"{"ask":"format"}"#,
            r#"{"ask":"hello"}"#,
            r#"{"ask":"hello","version":-1}"#,
            r#"{"ask":"hello","version":1,"and":2}"#,
            r#"{"ask":"remove","subject":{"kind":"process","pid":-1,"start_time":0}}"#,
            r#"{"ask":"set","subject":{"kind":"user","uid":1},"name":"x","traffic":"all","upload":1e99}"#,
            r#"{"ask":"set","subject":{"kind":"user","uid":1},"name":"x","traffic":"all","upload":-5}"#,
            &path("relative"),
            &path("/a/../b"),
            &path(&"/x".repeat(LONGEST_PATH)),
            &deep,
        ] {
            assert_eq!(kind(line.as_bytes()), Some(Kind::Malformed), "{line:.80}");
        }
        let name = "x".repeat(LONGEST_NAME + 1);
        let long =
            format!(r#"{{"ask":"set","subject":{{"kind":"user","uid":1}},"name":"{name}","traffic":"all"}}"#);
        assert_eq!(kind(long.as_bytes()), Some(Kind::Malformed));
        assert_eq!(kind(&vec![b'x'; LONGEST]), Some(Kind::TooLong));
        assert_eq!(kind(&[0xff, 0xfe, 0]), Some(Kind::Malformed));
    }

    proptest! {
        #[test]
        fn no_bytes_harm(line in vec(any::<u8>(), 0..300)) {
            let _ = parse(&line);
        }

        #[test]
        fn nor_do_changed_requests(place in 0_usize..100, byte in any::<u8>()) {
            let request = Request::Remove { subject: Whom::Cgroup { path: "/system.slice/a.service".into() } };
            let mut line = line(&request);
            let place = place % line.len();
            line[place] = byte;
            if let Ok(request) = parse(&line) {
                prop_assert!(check(&request).is_ok());
            }
        }
    }
}
