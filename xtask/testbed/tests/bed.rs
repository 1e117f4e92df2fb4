//! The bed makes and removes itself, whatever happens to the test that has it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::socket::{getsockopt, sockopt};
use testbed::{Family, KernelState, Process, Testbed, until};

const SECOND: Duration = Duration::from_secs(1);

/// The files that stand for a bed.
fn traces(bed: &Testbed) -> Vec<PathBuf> {
    let namespace = |host: &testbed::Host| Path::new("/run/netns").join(host.namespace());
    let hosts = [bed.client(), bed.router(), bed.server()].map(namespace);
    let traces = [&hosts[..], &[bed.cgroup_root().to_owned()]].concat();
    assert!(traces.iter().all(|path| path.exists()), "{traces:?}");
    traces
}

fn assert_gone(traces: &[PathBuf]) {
    let left: Vec<_> = traces.iter().filter(|path| path.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn is_alive(pid: u32) -> bool {
    // A zombie is as dead as can be: its parent only has not looked yet.
    let status = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    status.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

#[test]
fn both_ends_reach_each_other_through_the_router() -> anyhow::Result<()> {
    let bed = Testbed::new("reach")?;
    for family in Family::ALL {
        let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(family, 0))?))?;
        let to = listener.local_addr()?;
        let near = bed.client().run(|| Ok(TcpStream::connect_timeout(&to, SECOND)?.local_addr()?))?;
        assert_eq!(near.ip(), bed.client().address(family));
        assert_eq!(listener.accept()?.1, near);
    }
    // Nowhere else: the hosts know no way out.
    let elsewhere = "192.0.2.1:9".parse()?;
    assert!(bed.client().run(|| Ok(TcpStream::connect_timeout(&elsewhere, SECOND)?)).is_err());
    bed.close()
}

#[test]
fn a_command_runs_in_its_namespace_and_cgroup() -> anyhow::Result<()> {
    let bed = Testbed::new("command")?;
    let cgroup = bed.cgroup("below")?;
    let own = fs::read_to_string("/proc/self/cgroup")?;
    let show = |command: &mut Command| {
        Process::spawn(
            command.args(["-c", "cat /proc/self/cgroup; readlink /proc/self/ns/net; cat /proc/net/dev"]),
        )?
        .success(SECOND)
    };
    let client = show(&mut bed.client().command("sh"))?;
    let name = bed.cgroup_root().file_name().unwrap().to_str().unwrap();
    assert!(client.contains(&format!("0::/{name}\n")) && client.contains("ctclient:"), "{client}");
    let below = show(&mut bed.client().command_in(&cgroup, "sh")?)?;
    assert!(below.contains(&format!("0::/{name}/below\n")) && below.contains("ctclient:"), "{below}");
    let server = show(&mut bed.server().command("sh"))?;
    assert!(server.starts_with(&own) && server.contains("ctserver:"), "{server}");
    // Nothing of it happened to us.
    assert_eq!(fs::read_to_string("/proc/self/cgroup")?, own);
    assert!(!fs::read_to_string("/proc/thread-self/net/dev")?.contains("ctclient"));
    Ok(())
}

#[test]
fn congestion_control_is_the_hosts_own() -> anyhow::Result<()> {
    let bed = Testbed::new("congestion")?;
    for family in Family::ALL {
        let listener = bed.server().run(|| Ok(TcpListener::bind(bed.server().socket_address(family, 0))?))?;
        for name in ["reno", "cubic", "bbr"] {
            bed.client().set_congestion_control(name)?;
            let to = listener.local_addr()?;
            let stream = bed.client().run(|| Ok(TcpStream::connect_timeout(&to, SECOND)?))?;
            let used = getsockopt(&stream, sockopt::TcpCongestion)?;
            assert_eq!(used.to_string_lossy().trim_end_matches('\0'), name, "{family:?}");
        }
    }
    assert!(bed.client().set_congestion_control("no-such-thing").is_err());
    assert!(bed.router().set_congestion_control("cubic").is_err());
    Ok(())
}

#[test]
fn nothing_is_left_of_a_bed() -> anyhow::Result<()> {
    let bed = Testbed::new("closed")?;
    let traces = traces(&bed);
    bed.cgroup("a")?;
    // A grandchild that no guard knows of, on a host whose commands are in no cgroup of ours.
    let forgotten = "setsid sleep 1000 >/dev/null 2>&1 </dev/null & echo $!";
    let mut pids = Vec::new();
    for host in [bed.client(), bed.server()] {
        pids.push(
            Process::spawn(host.command("sh").args(["-c", forgotten]))?.success(SECOND)?.trim().parse()?,
        );
    }
    assert!(pids.iter().all(|pid| is_alive(*pid)));
    bed.close()?;
    assert_gone(&traces);
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "{pids:?}");
    Ok(())
}

#[test]
fn nothing_is_left_of_a_bed_whose_test_panics() {
    let traces = std::sync::Mutex::new(Vec::new());
    let panic = std::panic::catch_unwind(|| {
        let bed = Testbed::new("panic").unwrap();
        *traces.lock().unwrap() = self::traces(&bed);
        let _running = Process::spawn(bed.client().command("sleep").arg("1000")).unwrap();
        std::panic::panic_any("on purpose");
    });
    assert_eq!(panic.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_gone(&traces.lock().unwrap());
}

#[test]
fn the_next_bed_removes_what_a_killed_run_left() -> anyhow::Result<()> {
    // The child of the shell survives, since only the shell is bound to the life of the one that is killed.
    let script = "sleep 1000 >/dev/null 2>&1 & echo $!; cat /proc/self/cgroup; wait";
    let mut killed = Command::new(env!("CARGO_BIN_EXE_bed"))
        .args(["sh", "-c", script])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(killed.stdout.take().unwrap()).lines();
    let lines: Vec<_> =
        lines.take_while(|line| line.as_ref().is_ok_and(|line| !line.starts_with("0::"))).collect();
    let pid = lines.first().expect("a bed was made").as_ref().unwrap().parse()?;
    killed.kill()?;
    killed.wait()?;
    assert!(is_alive(pid), "what is to be swept is already gone");

    let owned = format!("chadtest-{}-", killed.id());
    let bed = Testbed::new("sweep")?;
    assert!(!is_alive(pid));
    let cgroups = fs::read_dir(bed.cgroup_root().parent().unwrap())?;
    for entry in fs::read_dir("/run/netns")?.chain(cgroups) {
        let name = entry?.file_name();
        assert!(!name.to_string_lossy().starts_with(&owned), "{name:?} is left");
    }
    Ok(())
}

#[test]
fn commands_die_with_the_process_that_started_them() -> anyhow::Result<()> {
    let mut killed = Command::new(env!("CARGO_BIN_EXE_bed"))
        .args(["sh", "-c", "echo $$; sleep 1000"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut pid = String::new();
    BufReader::new(killed.stdout.take().unwrap()).read_line(&mut pid)?;
    let pid: u32 = pid.trim().parse()?;
    killed.kill()?;
    killed.wait()?;
    until("the shell dies too", SECOND, || Ok((!is_alive(pid)).then_some(())))?;
    Testbed::new("after")?.close()
}

#[test]
fn a_change_of_the_kernels_state_is_seen() -> anyhow::Result<()> {
    let bed = Testbed::new("state")?;
    let before = KernelState::capture(&bed)?;
    let run = |program: &str, args: &str| {
        Process::spawn(bed.client().command(program).args(args.split(' ')))?.success(SECOND).map(drop)
    };
    let changes = [
        ("tc", "qdisc add dev ctclient root handle 1: htb", "qdisc del dev ctclient root", "qdisc htb 1:"),
        ("tc", "qdisc add dev ctclient clsact", "qdisc del dev ctclient clsact", "qdisc clsact"),
        ("nft", "add table inet extra", "delete table inet extra", "table inet extra"),
        ("ip", "link add ctextra type veth", "link del ctextra", "link ctextra"),
        ("ip", "netns add chadtest-0-extra", "netns del chadtest-0-extra", "chadtest-0-extra"),
    ];
    for (program, make, undo, new) in changes {
        run(program, make)?;
        let difference = before.difference(&KernelState::capture(&bed)?);
        run(program, undo)?;
        let seen = difference.lines().any(|line| line.starts_with("+ ") && line.contains(new));
        assert!(seen, "{make}: {difference:?}");
        before.assert_returns(&bed, SECOND)?;
    }
    let cgroup = bed.cgroup("extra")?;
    let error = before.assert_returns(&bed, Duration::from_millis(50)).unwrap_err().to_string();
    assert!(error.contains(&format!("+ cgroup {}", cgroup.display())), "{error}");
    fs::remove_dir(cgroup)?;
    before.assert_returns(&bed, SECOND)
}

#[test]
fn a_filter_or_class_within_a_qdisc_is_seen() -> anyhow::Result<()> {
    let bed = Testbed::new("filters")?;
    let run = |args: &str| {
        Process::spawn(bed.router().command("tc").args(args.split(' ')))?.success(SECOND).map(drop)
    };
    run("qdisc add dev ctrserver root handle 1: htb")?;
    run("qdisc add dev ctrserver clsact")?;
    let before = KernelState::capture(&bed)?;
    let classes = "class add dev ctrserver parent 1: classid 1:7 htb rate 8mbit";
    let filters = ["parent 1:", "ingress", "egress"].map(|place| {
        format!("filter add dev ctrserver {place} protocol ip u32 match ip protocol 17 0xff flowid 1:7")
    });
    let mut seen = before.clone();
    for change in filters.iter().map(String::as_str).chain([classes]) {
        run(change)?;
        let now = KernelState::capture(&bed)?;
        assert_ne!(seen.difference(&now), "", "{change}");
        seen = now;
    }
    Ok(())
}
