//! Processes that vanish while somebody looks at them, at any step: whoever is gone is absent, and that is no error.

mod support;

use std::{
    io,
    net::UdpSocket,
    os::fd::OwnedFd,
    process::{Command, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use anyhow::Context;
use chadthrottle::{
    backends::{BackendOptions, ebpf::Engine},
    process::{KnownNames, ProcessError, ProcessId, ProcessInfo, cgroup_path},
    sys::{
        pidfd::{self, PidFd},
        proc_fd,
    },
};
use log::{LevelFilter, Log, Metadata, Record};
use nix::libc;
use procfs::process::Process as ProcProcess;
use proptest::prelude::*;
use support::PATIENCE;
use testbed::{Process, Testbed, traffic, until};

/// What a process that has gone, or is about to, makes of a question.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ESRCH | libc::ENOENT))
}

/// Asks everything that is ever asked about a process. Whether it was there.
fn look_at(pid: i32, names: &mut KnownNames) -> bool {
    let id = match ProcessId::running(pid) {
        Ok(id) => Some(id),
        Err(ProcessError::Absent(absent)) => {
            assert_eq!(absent, pid);
            None
        }
        Err(error) => panic!("{error}"),
    };
    if let Some(id) = id {
        assert_eq!(id.pid, pid);
        if let Some(info) = ProcessInfo::read(id, names) {
            assert_eq!(info.id, id);
            assert!(info.user.is_some() && !info.name.is_empty(), "{info:?}");
        }
    }
    // It may be there although it has ended, and may be gone although it was alive a moment ago.
    if let Ok(process) = ProcProcess::new(pid) {
        let _ = cgroup_path(&process);
    }
    match proc_fd::sockets(pid) {
        Ok(open) => open.iter().for_each(|&(fd, inode)| {
            let _ = proc_fd::has_socket(pid, fd, inode);
        }),
        Err(error) => assert!(is_gone(&error), "{error}"),
    }
    match PidFd::open(pid) {
        Ok(process) => look_into(&process, pid),
        Err(error) => assert!(is_gone(&error), "{error}"),
    }
    id.is_some_and(ProcessId::is_alive)
}

/// Takes its sockets, as whoever gives them an owner does.
fn look_into(process: &PidFd, pid: i32) {
    let open = match pidfd::sockets(pid) {
        Ok(open) => open,
        Err(error) => {
            assert!(is_gone(&error), "{error}");
            return;
        }
    };
    for fd in open {
        match process.duplicate(fd) {
            Ok(socket) => {
                let _ = pidfd::is_inet(&socket);
            }
            Err(error) => {
                assert!(is_gone(&error) || error.raw_os_error() == Some(libc::EBADF), "{error}");
            }
        }
    }
}

/// Looks at a process that is killed after `life` and stays a zombie for `rest`, until it is gone.
fn watch_it_vanish(life: Duration, rest: Duration, names: &mut KnownNames) -> io::Result<()> {
    let socket = OwnedFd::from(UdpSocket::bind("127.0.0.1:0")?);
    let mut child = Command::new("sleep").arg("60").stdin(Stdio::from(socket)).spawn()?;
    let pid = child.id().cast_signed();
    let killer = thread::spawn(move || {
        spin(life);
        child.kill()?;
        spin(rest);
        child.wait()
    });
    while !killer.is_finished() {
        look_at(pid, names);
    }
    killer.join().expect("it does not panic")?;
    assert!(!look_at(pid, names), "{pid} is gone");
    Ok(())
}

/// Waits more exactly than by sleeping.
fn spin(time: Duration) {
    let start = Instant::now();
    while start.elapsed() < time {
        std::hint::spin_loop();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn whoever_vanishes_at_any_step_is_absent(life in 0_u64..3000, rest in 0_u64..300) {
        let micros = Duration::from_micros;
        watch_it_vanish(micros(life), micros(rest), &mut KnownNames::default()).expect("a process can be started");
    }
}

/// Keeps what would be a surprise.
struct Complaints(Mutex<Vec<String>>);

static COMPLAINTS: Complaints = Complaints(Mutex::new(Vec::new()));

impl Log for Complaints {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("chadthrottle::backends::ebpf::tagger")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            self.0.lock().expect("no panic").push(record.args().to_string());
        }
    }

    fn flush(&self) {}
}

/// Processes that this machine has started since it booted.
fn forks() -> anyhow::Result<u64> {
    let stat = std::fs::read_to_string("/proc/stat")?;
    let forks = stat.lines().find_map(|line| line.strip_prefix("processes "));
    Ok(forks.context("/proc/stat does not say")?.parse()?)
}

#[test]
fn owners_are_given_while_processes_come_and_go() -> anyhow::Result<()> {
    log::set_logger(&COMPLAINTS).map_err(anyhow::Error::msg)?;
    log::set_max_level(LevelFilter::Debug);
    let bed = Testbed::new("vanishing")?;
    // One that stays, and others that live for a millisecond or two, with sockets that they opened or inherited.
    let send = "udp-send --to 10.77.2.2:9 --rate 1000 --size 100 --datagrams 1 --wait-stdin";
    let stays = Process::spawn(traffic::command(bed.client())?.args(send.split(' ')))?;
    traffic::ready(&stays)?;
    let script = "exec 3<>/dev/udp/10.77.2.2/9; while :; do (exec 4<>/dev/udp/10.77.2.2/9; true) & \
                  (exec true); wait; done";
    let _come_and_go = [0, 1].map(|_| Process::spawn(bed.client().command("bash").args(["-c", script])));
    let before = forks()?;

    let root = bed.cgroup_root().to_owned();
    let options = BackendOptions { cgroup_root: Some(root.clone()), ..BackendOptions::default() };
    let mut engine = Engine::load(&options)?;
    let (mut adopted, mut gone) = (0, 0);
    until("two thousand processes have come and gone", PATIENCE, || {
        engine.adopt_everything();
        for pid in std::fs::read_to_string(root.join("cgroup.procs"))?.lines() {
            match ProcessId::running(pid.parse()?) {
                Ok(id) => match engine.adopt(id) {
                    Ok(()) => adopted += 1,
                    Err(error) => {
                        anyhow::ensure!(is_gone(&error), "{id}: {error}");
                        gone += 1;
                    }
                },
                Err(ProcessError::Absent(_)) => gone += 1,
                Err(error) => return Err(error.into()),
            }
        }
        Ok((forks()? - before >= 2000 && gone > 0).then_some(()))
    })?;
    eprintln!("{adopted} were there, {gone} were not");
    engine.adopt(ProcessId::running(stays.pid().cast_signed())?)?;
    let complaints = COMPLAINTS.0.lock().expect("no panic");
    assert!(complaints.is_empty(), "{complaints:?}");
    Ok(())
}
