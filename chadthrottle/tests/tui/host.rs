//! A host to look at, and a person in front of it.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use chadthrottle::{
    app::{App, BackendNames, Effect, Event, Setup},
    backends::throttle::{
        Target,
        manager::{LimitedTarget, Limits},
    },
    process::{ProcessId, ProcessInfo},
    run::still,
    stats::{ProcessRow, Snapshot, Traffic},
};
use chadthrottle_common::ThrottleStats;
use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use ratatui::{buffer::Buffer, layout::Size};

/// The application on a screen.
pub(crate) struct Screen {
    pub(crate) app: App,
    pub(crate) size: Size,
}

/// The smallest, the usual, and a large one.
pub(crate) const SIZES: [(u16, u16); 3] = [(60, 16), (80, 24), (160, 50)];

pub(crate) const BACKENDS: BackendNames =
    BackendNames { monitor: "ebpf", upload: "ebpf_cgroup", download: Some("ebpf_cgroup") };

impl Screen {
    /// A screen without figures.
    pub(crate) fn empty(width: u16, height: u16) -> Self {
        let size = Size { width, height };
        Self { app: App::new(Setup::new(BACKENDS), size), size }
    }

    /// A screen of a busy host.
    pub(crate) fn busy(width: u16, height: u16) -> Self {
        let mut screen = Self::empty(width, height);
        screen.send(Event::Snapshot(busy()));
        screen.send(Event::Limits(vec![limited(2114, "firefox", Some(500_000), Some(10_000_000))]));
        screen
    }

    pub(crate) fn send(&mut self, event: Event) -> Vec<Effect> {
        self.app.update(event)
    }

    pub(crate) fn key(&mut self, code: KeyCode) -> Vec<Effect> {
        self.send(Event::Key(KeyEvent::new(code, KeyModifiers::NONE)))
    }

    /// Types characters one by one; the effects of the last one come back.
    pub(crate) fn typed(&mut self, text: &str) -> Vec<Effect> {
        let mut effects = Vec::new();
        for character in text.chars() {
            effects = self.key(KeyCode::Char(character));
        }
        effects
    }

    pub(crate) fn buffer(&self) -> Buffer {
        still::drawn(&self.app, self.size)
    }

    /// What is on the screen, without the spaces at the ends of lines.
    pub(crate) fn text(&self) -> String {
        still::text(&self.buffer())
    }

    /// Pids in the table, from top to bottom.
    pub(crate) fn pids(&self) -> Vec<i32> {
        self.app.table().shown().map(|row| row.id().pid).collect()
    }

    /// The line of the selected row.
    pub(crate) fn selected_line(&self) -> String {
        let text = self.text();
        text.lines().find(|line| line.starts_with("> ")).unwrap_or_default().to_owned()
    }

    /// Compares with the files of that name, one a size of the window.
    #[track_caller]
    pub(crate) fn looks_in_all_sizes(name: &str, make: impl Fn(u16, u16) -> Self) {
        for (width, height) in SIZES {
            make(width, height).assert_looks_like(&format!("{name}_{width}x{height}"));
        }
    }

    /// Compares with the file of that name.
    #[track_caller]
    pub(crate) fn assert_looks_like(&self, name: &str) {
        compare(name, &self.text());
    }
}

/// Compares a picture with the file of that name, or writes it where `UPDATE_SCREENS` is set.
#[track_caller]
pub(crate) fn compare(name: &str, text: &str) {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/tui/expected", name].iter().collect();
    let path = path.with_extension("txt");
    if std::env::var_os("UPDATE_SCREENS").is_some() {
        fs::write(&path, text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
    let expected = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert!(text == expected, "{} expected:\n{expected}\nbut it is:\n{text}", path.display());
}

pub(crate) fn id(pid: i32) -> ProcessId {
    ProcessId { pid, start_time: 8_812_345 }
}

/// A process called `name` with these rates, that has been at it for a minute.
pub(crate) fn row(pid: i32, name: &str, upload: u64, download: u64) -> ProcessRow {
    let info = ProcessInfo {
        id: id(pid),
        name: name.into(),
        exe: Some(format!("/usr/bin/{name}").into()),
        user: Some("ada".into()),
        cgroup: Some("/user.slice/user-1000.slice/session-2.scope".into()),
        container: None,
    };
    let total = Traffic { upload: upload * 60, download: download * 60 };
    ProcessRow::new(Arc::new(info), Traffic { upload, download }, total, true)
}

pub(crate) fn changed(row: &ProcessRow, change: impl FnOnce(&mut ProcessInfo)) -> ProcessRow {
    let mut info = ProcessInfo::clone(&row.info);
    change(&mut info);
    ProcessRow { info: Arc::new(info), ..row.clone() }
}

pub(crate) fn snapshot(processes: Vec<ProcessRow>) -> Snapshot {
    let rate = processes.iter().map(|row| row.rate).fold(Traffic::default(), |sum, rate| Traffic {
        upload: sum.upload + rate.upload,
        download: sum.download + rate.download,
    });
    Snapshot { interval: Duration::from_secs(1), processes, rate, ..Snapshot::default() }
}

pub(crate) fn limited(pid: i32, name: &str, upload: Option<u64>, download: Option<u64>) -> LimitedTarget {
    let stats = |limit: Option<u64>| {
        limit.map_or_else(ThrottleStats::default, |limit| ThrottleStats {
            packets_total: limit / 1000,
            bytes_total: limit * 10,
            packets_dropped: limit / 20_000,
            bytes_dropped: limit / 4,
            ..ThrottleStats::default()
        })
    };
    LimitedTarget {
        target: Target::process(id(pid), name),
        limits: Limits { upload, download },
        upload_stats: stats(upload),
        download_stats: stats(download),
        held_back: upload.map(|limit| limit / 3),
        alive: true,
    }
}

/// Programs that people know, one of them ended.
pub(crate) fn busy() -> Snapshot {
    let user = |name: &str| Some(name.to_owned());
    let service = |name: &str| Some(format!("/system.slice/{name}.service"));
    let mut ended = row(40_112, "wget", 0, 0);
    ended.alive = false;
    ended.total = Traffic { upload: 81_234, download: 734_003_200 };
    let rows = vec![
        row(2114, "firefox", 498_112, 9_871_654),
        row(39_998, "curl", 21_530, 4_120_988),
        changed(&row(1022, "sshd", 18_220, 2_410), |info| {
            info.user = user("root");
            info.exe = Some("/usr/sbin/sshd".into());
            info.cgroup = service("ssh");
        }),
        changed(&row(1377, "transmission-da", 1_204_377, 88_120), |info| {
            info.user = user("debian-transmission");
            info.exe = Some("/usr/bin/transmission-daemon".into());
            info.cgroup = service("transmission-daemon");
        }),
        changed(&row(871, "systemd-resolve", 92, 310), |info| {
            info.user = user("systemd-resolve");
            info.exe = Some("/usr/lib/systemd/systemd-resolved".into());
            info.cgroup = service("systemd-resolved");
        }),
        changed(&row(4_194_301, "postgres", 0, 0), |info| {
            info.user = user("postgres");
            info.cgroup = Some(
                "/system.slice/docker-4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01db0b339c4c01.scope"
                    .into(),
            );
        }),
        ended,
    ];
    let mut snapshot = snapshot(rows);
    snapshot.buckets.unknown = Traffic { upload: 0, download: 1_204 };
    snapshot
}
