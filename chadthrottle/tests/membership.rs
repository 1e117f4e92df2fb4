//! Packets known by the cgroup of their process, where neither packets nor sockets can be tagged.

mod support;

use std::{fs, io::ErrorKind, process::Command, time::Duration};

use anyhow::Context;
use chadthrottle::{
    backends::throttle::{
        Target,
        tagger::{CgroupTagger, Tag, Tagger},
    },
    process::ProcessId,
};
use nix::sys::signal::Signal;
use support::PATIENCE;
use testbed::{Family, Host, KernelState, Process, Testbed, traffic};

const LIMIT: f64 = 2e6;
/// Where `net_cls` is mounted for whom it is: over a directory that is there on any machine.
const NET_CLS: &str = "/dev/shm";

/// Which cgroups the program finds mounted.
#[derive(Clone, Copy, Debug)]
enum Mounted {
    /// Those of `net_cls` are not, wherever they are on this machine.
    V2,
    /// Those of `net_cls` too.
    NetCls,
}

/// A command line that has those mounted, for itself alone; what is to run follows.
fn where_mounted(host: &Host, mounted: Mounted) -> anyhow::Result<Command> {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo")?;
    let net_cls = mountinfo.lines().filter(|line| line.contains(" - cgroup ") && line.contains("net_cls"));
    let points: Vec<_> = net_cls.filter_map(|line| line.split(' ').nth(4)).collect();
    let script = match mounted {
        Mounted::V2 => {
            format!("for point in {}; do umount $point || exit; done; exec \"$@\"", points.join(" "))
        }
        Mounted::NetCls => format!("mount -t cgroup -o net_cls none {NET_CLS} && exec \"$@\""),
    };
    let mut command = host.command("unshare");
    command.args(["--mount", "sh", "-c", &script, "sh"]);
    Ok(command)
}

fn chadthrottle(host: &Host, mounted: Mounted, backend: &str) -> anyhow::Result<Command> {
    let mut command = where_mounted(host, mounted)?;
    command.arg(support::BINARY);
    command.args(["--upload-backend", backend, "--download-backend", "none", "--tagger", "cgroup"]);
    Ok(command)
}

fn limit_pid(command: &mut Command, pid: u32) -> anyhow::Result<Process> {
    let limiter = Process::spawn(command.args(["--pid", &pid.to_string(), "--upload-limit", "2M"]))?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

/// Of all trees, a line each. One of them comes and goes with the tests of `net_cls`.
fn cgroups(pid: u32) -> anyhow::Result<String> {
    Ok(fs::read_to_string(format!("/proc/{pid}/cgroup"))?)
}

/// The one of cgroup v2, and the one of `net_cls` if it is not the root.
fn cgroup(pid: u32) -> anyhow::Result<String> {
    let all = cgroups(pid)?;
    let wanted = all.lines().filter(|line| {
        line.starts_with("0::") || line.split_once(":net_cls").is_some_and(|(_, path)| !path.ends_with(":/"))
    });
    Ok(wanted.collect::<Vec<_>>().join("\n"))
}

fn is_moved(cgroups: &str) -> bool {
    cgroups.contains("/chadthrottle-tag-")
}

/// A sender of datagrams at three times the limit, and who gets them.
fn sender(bed: &Testbed, family: Family, seconds: &str) -> anyhow::Result<(Process, Vec<String>)> {
    let listen = bed.server().socket_address(family, 0).to_string();
    let mut sink = traffic::command(bed.server())?;
    let sink = Process::spawn(sink.args(["udp-sink", "--listen", &listen, "--idle-exit", "1000"]))?;
    let to = traffic::ready(&sink)?.to_string();
    let words = ["udp-send", "--to", &to, "--rate", "6000000", "--seconds", seconds, "--size", "1400"];
    Ok((sink, words.map(str::to_owned).to_vec()))
}

#[test]
fn what_is_started_in_a_cgroup_of_ours_is_held_by_either_backend() -> anyhow::Result<()> {
    for mounted in [Mounted::V2, Mounted::NetCls] {
        for (backend, family) in [("tc_htb", Family::V4), ("nftables", Family::V6)] {
            let bed = Testbed::new("member")?;
            let before = KernelState::capture(&bed)?;
            let (sink, words) = sender(&bed, family, "3")?;
            let mut command = chadthrottle(bed.client(), mounted, backend)?;
            command.args(["run", "--upload-limit", "2M", "--"]).arg(traffic::traffic_binary()?).args(words);
            Process::spawn(&mut command)?.success(PATIENCE)?;
            let received = traffic::Report::parse(&sink.success(PATIENCE)?)?;
            let rate = received.timeline.rate_between(1.0, 2.5) / LIMIT;
            println!("{backend}, {mounted:?}: {rate:.3}");
            // Three times as much was offered, or what a busy machine could; `nftables` lets a second's worth through at first.
            assert!((0.1..1.6).contains(&rate), "{backend}, {mounted:?}: {rate:.3}");
            before.assert_returns(&bed, PATIENCE)?;
        }
    }
    Ok(())
}

#[test]
fn processes_are_where_they_were_whatever_ends_it() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let home = bed.cgroup("home")?;
    let before = KernelState::capture(&bed)?;
    for way in ["term", "kill", "cleanup"] {
        // Which starts another one when it is told to.
        let script = "read line; sleep 60 & echo $!; wait";
        let mut target = Process::spawn(bed.client().command_in(&home, "sh")?.args(["-c", script]))?;
        let at_home = cgroup(target.pid())?;
        let mut limiter = limit_pid(&mut chadthrottle(bed.client(), Mounted::V2, "tc_htb")?, target.pid())?;
        let moved = cgroups(target.pid())?;
        assert!(is_moved(&moved) && moved.contains("/home/chadthrottle-tag-"), "{moved}");
        // Its child is not limited.
        target.send_line("go")?;
        let child: u32 = target.wait_for_line(|line| !line.is_empty(), PATIENCE)?.trim().parse()?;
        testbed::until("the child is sent back", PATIENCE, || Ok((cgroup(child)? == at_home).then_some(())))?;
        assert!(is_moved(&cgroups(target.pid())?));
        if way == "cleanup" {
            support::kill_with_guards(&mut limiter)?;
            assert!(is_moved(&cgroups(target.pid())?));
            let told = Process::spawn(bed.client().command(support::BINARY).arg("cleanup"))?;
            let told = told.success(PATIENCE)?;
            assert!(told.contains("removed the cgroup ") && told.contains("/home/"), "{told}");
        } else {
            limiter.signal(if way == "kill" { Signal::SIGKILL } else { Signal::SIGTERM })?;
            limiter.wait_timeout(PATIENCE)?;
        }
        testbed::until("it is back", PATIENCE, || Ok((cgroup(target.pid())? == at_home).then_some(())))?;
        before.assert_returns(&bed, PATIENCE)?;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.cast_signed()), Signal::SIGKILL)?;
    }
    Ok(())
}

/// How many notes of moved processes this one has.
fn own_notes() -> anyhow::Result<usize> {
    let us = ProcessId::running(std::process::id().cast_signed())?;
    let end = format!("-{}-{}.json", us.pid, us.start_time);
    // It goes with the last note.
    let directory = match fs::read_dir("/run/chadthrottle") {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(0),
        directory => directory?,
    };
    let names = directory.flatten().filter_map(|entry| entry.file_name().into_string().ok());
    Ok(names.filter(|name| name.starts_with("cgroups-") && name.ends_with(&end)).count())
}

/// As while one backend takes over from another.
#[test]
fn two_taggers_in_one_process_do_not_get_into_each_others_way() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let home = bed.cgroup("home")?;
    let before = KernelState::capture(&bed)?;
    let idle = || Process::spawn(bed.client().command_in(&home, "sleep")?.arg("60"));
    let (one, other) = (idle()?, idle()?);
    let at_home = cgroup(one.pid())?;
    let tagged = |process: &Process, priority| -> anyhow::Result<CgroupTagger> {
        let target = Target::process(ProcessId::running(process.pid().cast_signed())?, "sleep");
        bed.client().run(|| {
            let mut tagger = CgroupTagger::new()?;
            tagger.tag(&target, Tag { priority: Some(priority), mark: None })?;
            Ok(tagger)
        })
    };
    let first = tagged(&one, 5)?;
    let second = tagged(&other, 6)?;
    assert!(is_moved(&cgroups(one.pid())?) && is_moved(&cgroups(other.pid())?));
    assert_eq!(own_notes()?, 2);
    drop(first);
    assert_eq!(cgroup(one.pid())?, at_home);
    assert!(is_moved(&cgroups(other.pid())?));
    assert_eq!(own_notes()?, 1, "what the second one has done is still written down");
    drop(second);
    assert_eq!((cgroup(other.pid())?, own_notes()?), (at_home, 0));
    before.assert_returns(&bed, PATIENCE)
}

/// Whoever put a cgroup of theirs into ours keeps ours, and nothing else.
#[test]
fn a_cgroup_that_cannot_be_removed_stays_noted_and_is_found_from_any_network() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let home = bed.cgroup("home")?;
    let before = KernelState::capture(&bed)?;
    let target = Process::spawn(bed.client().command_in(&home, "sleep")?.arg("60"))?;
    let at_home = cgroup(target.pid())?;
    let mut limiter = limit_pid(&mut chadthrottle(bed.client(), Mounted::V2, "nftables")?, target.pid())?;
    let inside = fs::read_dir(&home)?.filter_map(|entry| Some(entry.ok()?.path()));
    let ours = inside
        .filter(|path| path.is_dir())
        .find(|path| path.to_string_lossy().contains("/chadthrottle-tag-"));
    let ours = ours.context("there is one of ours")?;
    let theirs = ours.join("theirs");
    fs::create_dir(&theirs)?;
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(1), "{}", limiter.stderr());
    let name = ours.file_name().context("it has a name")?.to_string_lossy().into_owned();
    assert!(limiter.stderr().contains(&name), "{}", limiter.stderr());
    assert_eq!(cgroup(target.pid())?, at_home, "everybody is back all the same");
    let clean_up = || Process::spawn(bed.router().command(support::BINARY).arg("cleanup"));
    let mut refused = clean_up()?;
    assert_eq!(refused.wait_timeout(PATIENCE)?.code(), Some(1), "{}", refused.stderr());
    assert!(ours.exists() && refused.stderr().contains(&name), "{}", refused.stderr());
    fs::remove_dir(theirs)?;
    clean_up()?.success(PATIENCE)?;
    assert!(!ours.exists());
    before.assert_returns(&bed, PATIENCE)
}

#[test]
fn with_net_cls_what_is_open_already_is_held_too() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let (_sink, words) = sender(&bed, Family::V4, "20")?;
    let open = Process::spawn(traffic::command(bed.client())?.args(words))?;
    let interface = bed.client().interfaces()[0];
    let rate = |window| support::interface_rate(bed.client(), interface, "tx", Duration::from_millis(window));
    testbed::until("it sends", PATIENCE, || Ok((rate(200)? > 2.0 * LIMIT).then_some(())))?;
    let mut limiter = limit_pid(&mut chadthrottle(bed.client(), Mounted::NetCls, "nftables")?, open.pid())?;
    assert!(is_moved(&cgroups(open.pid())?));
    // What came first is a second's worth.
    testbed::until("it is held", PATIENCE, || Ok((rate(300)? < 1.3 * LIMIT).then_some(())))?;
    limiter.signal(Signal::SIGTERM)?;
    assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
    assert!(!is_moved(&cgroups(open.pid())?));
    testbed::until("it is free", PATIENCE, || Ok((rate(200)? > 2.0 * LIMIT).then_some(())))
}

/// A cgroup of `net_cls` with a number that somebody gave it, for filters of his own.
struct Classified<'a> {
    host: &'a Host,
    directory: String,
}

impl<'a> Classified<'a> {
    const CLASS: u32 = 0x10_0005;
    const PREFIX: &'static str = "chadtest-class-";

    fn new(host: &'a Host, pid: u32) -> anyhow::Result<Self> {
        let directory = format!("{NET_CLS}/{}{}", Self::PREFIX, std::process::id());
        let classified = Self { host, directory };
        let (own, class, prefix) = (&classified.directory, Self::CLASS, Self::PREFIX);
        // What a killed test left is empty by now.
        let left = format!("for left in {NET_CLS}/{prefix}*; do rmdir $left 2>/dev/null || :; done");
        classified.shell(&format!("{left}; mkdir {own}; echo {class} > {own}/net_cls.classid"))?;
        classified.shell(&format!("echo {pid} > {own}/cgroup.procs"))?;
        Ok(classified)
    }

    fn shell(&self, script: &str) -> anyhow::Result<()> {
        let mut command = where_mounted(self.host, Mounted::NetCls)?;
        Process::spawn(command.args(["sh", "-ec", script]))?.success(PATIENCE)?;
        Ok(())
    }
}

impl Drop for Classified<'_> {
    fn drop(&mut self) {
        let own = &self.directory;
        let back =
            format!("while read pid; do echo $pid > {NET_CLS}/cgroup.procs; done < {own}/cgroup.procs");
        if let Err(error) = self.shell(&format!("{back}; rmdir {own}")) {
            eprintln!("{own} stays: {error:#}");
        }
    }
}

#[test]
fn a_number_of_net_cls_that_somebody_else_gave_is_kept() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let (_sink, words) = sender(&bed, Family::V4, "60")?;
    let open = Process::spawn(traffic::command(bed.client())?.args(words))?;
    let _classified = Classified::new(bed.client(), open.pid())?;
    let class = Classified::CLASS;
    let counting = |name, is| format!("ip protocol udp meta cgroup {is} {class} counter name {name};");
    let rules = format!(
        "table inet seen {{ counter its {{ }}; counter others {{ }}; \
         chain sent {{ type filter hook output priority 0; {} {} }}; }}",
        counting("its", "=="),
        counting("others", "!="),
    );
    Process::spawn(bed.client().command("nft").arg(rules))?.success(PATIENCE)?;
    let packets = |name: &str| -> anyhow::Result<u64> {
        let mut command = bed.client().command("nft");
        let text = Process::spawn(command.args(["-j", "list", "counter", "inet", "seen", name]))?
            .success(PATIENCE)?;
        let answer: serde_json::Value = serde_json::from_str(&text)?;
        let counter = answer["nftables"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|one| one["counter"]["packets"].as_u64());
        counter.with_context(|| text.clone())
    };
    testbed::until("it sends", PATIENCE, || Ok((packets("its")? > 0).then_some(())))?;
    for backend in ["tc_htb", "nftables"] {
        // Where it can be entered.
        let mut command = where_mounted(bed.client(), Mounted::NetCls)?;
        command.arg(support::BINARY);
        command.args(["--upload-backend", backend, "--download-backend", "none", "--tagger", "sockets"]);
        let mut limiter = limit_pid(&mut command, open.pid())?;
        let before = packets("its")?;
        testbed::until("it goes on", PATIENCE, || {
            Ok((packets("its")? + packets("others")? > before + 200).then_some(()))
        })?;
        assert_eq!(packets("others")?, 0, "{backend}");
        limiter.signal(Signal::SIGTERM)?;
        assert_eq!(limiter.wait_timeout(PATIENCE)?.code(), Some(0), "{}", limiter.stderr());
        assert_eq!(packets("others")?, 0, "{backend}, when it goes");
    }
    Ok(())
}

#[test]
fn it_is_the_last_resort_and_listed_as_what_it_is() -> anyhow::Result<()> {
    let bed = Testbed::new("member")?;
    let listed = |command: &mut Command| -> anyhow::Result<serde_json::Value> {
        let text = Process::spawn(command.args(["--list-backends", "--json"]))?.success(PATIENCE)?;
        let all: serde_json::Value = serde_json::from_str(&text)?;
        let rows = all["upload"].as_array().context("rows")?;
        rows.iter().find(|row| row["name"] == "tc_htb").cloned().context("it is built")
    };
    let usual = listed(where_mounted(bed.client(), Mounted::V2)?.arg(support::BINARY))?;
    assert_eq!(usual["capabilities"]["moves_process"], false, "{usual}");
    // Who may not take hold of other processes' sockets.
    let mut without = where_mounted(bed.client(), Mounted::V2)?;
    without.args(["setpriv", "--bounding-set", "-sys_ptrace", "--inh-caps", "-sys_ptrace", "--"]);
    let row = listed(without.arg(support::BINARY))?;
    assert_eq!(row["available"], true, "{row}");
    assert_eq!(row["tagger"], "cgroup v2 membership (processes are moved)", "{row}");
    assert_eq!(row["capabilities"]["moves_process"], true, "{row}");
    assert_eq!(row["capabilities"]["open_connections"], false, "{row}");
    Ok(())
}
