//! What the kernel does not undo by itself when we are killed is undone at once, or by who comes next, and nothing that is
//! somebody else's is touched.

mod support;

use std::{fs, net::UdpSocket, os::fd::AsFd, path::PathBuf, time::Duration};

use anyhow::Context;
use chadthrottle::sys::socket_tag::{Field, TaggedSocket};
use nix::sys::signal::Signal;
use support::{BINARY, Holder, PATIENCE};
use testbed::{Host, KernelState, Process, Testbed};

const NOTES: &str = "/run/chadthrottle";

/// A limit on uploads by this backend, in force.
fn limit(bed: &Testbed, pid: u32, backend: &str) -> anyhow::Result<Process> {
    let options = ["--upload-limit", "1M", "--upload-backend", backend, "--download-backend", "none"];
    support::limit_pid(bed, pid, &options)
}

/// The same where no program of ours can be loaded, so that sockets carry the tags: on a kernel that does not tell of its
/// types.
fn limit_by_sockets(bed: &Testbed, pid: u32, backend: &str) -> anyhow::Result<Process> {
    let script = "mount --bind /dev/null /sys/kernel/btf/vmlinux && exec \"$@\"";
    let mut command = bed.client().command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", BINARY, "--pid", &pid.to_string()]);
    command.args(["--upload-limit", "1M", "--upload-backend", backend, "--download-backend", "none"]);
    let limiter = Process::spawn(&mut command)?;
    limiter.wait_for_line(|line| line.contains("is held to"), PATIENCE)?;
    Ok(limiter)
}

fn socket(bed: &Testbed) -> anyhow::Result<UdpSocket> {
    bed.client().run(|| Ok(UdpSocket::bind("0.0.0.0:0")?))
}

fn priority(socket: &UdpSocket) -> anyhow::Result<u32> {
    let socket = TaggedSocket::new(socket.as_fd().try_clone_to_owned()?).context("it is a socket")?;
    Ok(socket.field(Field::Priority)?)
}

/// The note of a process, where it has one.
fn note(pid: u32) -> Option<PathBuf> {
    let mut paths = fs::read_dir(NOTES).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let begins = format!("tc-{pid}-");
    paths.find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&begins)))
}

fn command(host: &Host, line: &str) -> anyhow::Result<String> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    Process::spawn(host.command(words[0]).args(&words[1..]))?.success(PATIENCE)
}

/// The queue of a device, without what changes with the traffic.
fn queue_of(bed: &Testbed, device: &str) -> anyhow::Result<String> {
    let text = command(bed.client(), &format!("tc qdisc show dev {device}"))?;
    let words = text.split_ascii_whitespace().collect::<Vec<_>>();
    let is_steady = |place: &usize| {
        let before = place.checked_sub(1).and_then(|before| words.get(before));
        !matches!(before, Some(&("refcnt" | "direct_packets_stat")))
    };
    Ok((0..words.len()).filter(is_steady).map(|place| words[place]).collect::<Vec<_>>().join(" "))
}

/// `chadthrottle cleanup`: what it says of what it does, and what it complains of.
fn cleanup(bed: &Testbed, options: &[&str]) -> anyhow::Result<(String, String)> {
    let mut cleanup = Process::spawn(bed.client().command(BINARY).arg("cleanup").args(options))?;
    let status = cleanup.wait_timeout(PATIENCE)?;
    anyhow::ensure!(status.success(), "{status}: {}", cleanup.stderr());
    Ok((cleanup.stdout(), cleanup.stderr()))
}

#[test]
fn queues_and_priorities_of_a_killed_one_are_undone_at_once() -> anyhow::Result<()> {
    for (backend, signal, by_sockets) in [
        ("tc_htb", Signal::SIGKILL, true),
        ("nftables", Signal::SIGKILL, true),
        ("tc_htb", Signal::SIGABRT, cfg!(not(feature = "ebpf"))),
    ] {
        let bed = Testbed::new("lives")?;
        let before = KernelState::capture(&bed)?;
        let socket = socket(&bed)?;
        TaggedSocket::new(socket.as_fd().try_clone_to_owned()?)
            .context("it is a socket")?
            .set_field(Field::Priority, 4)?;
        let holder = Holder::start(bed.client().command("sleep").arg("600"), &socket)?;
        let limit = if by_sockets { limit_by_sockets } else { limit };
        let mut limiter = limit(&bed, holder.pid(), backend)?;
        // Where packets carry the tags, nothing is set on a socket.
        assert_eq!(priority(&socket)? != 4, by_sockets, "{backend}");
        assert_eq!(note(limiter.pid()).is_some(), backend == "tc_htb");
        limiter.signal(signal)?;
        limiter.wait_timeout(PATIENCE)?;
        // Within a second, on a machine that has nothing else to do.
        before.assert_returns(&bed, PATIENCE)?;
        testbed::until("the priority is put back", PATIENCE, || Ok((priority(&socket)? == 4).then_some(())))?;
        testbed::until("the note is gone", PATIENCE, || Ok(note(limiter.pid()).is_none().then_some(())))?;
    }
    Ok(())
}

#[test]
fn a_damaged_note_is_told_of_and_only_what_is_signed_is_removed() -> anyhow::Result<()> {
    let bed = Testbed::new("lives")?;
    let before = KernelState::capture(&bed)?;
    let target = Process::spawn(bed.client().command("sleep").arg("600"))?;
    let mut limiter = limit(&bed, target.pid(), "tc_htb")?;
    support::kill_with_guards(&mut limiter)?;
    let path = note(limiter.pid()).context("it is written down")?;
    let text = fs::read(&path)?;
    fs::write(&path, &text[..text.len() / 2])?;
    // Somebody else's, with the same kind and number.
    command(bed.client(), "ip link add foreign type veth peer name other")?;
    command(bed.client(), "tc qdisc add dev foreign root handle 7cad: htb")?;
    let queue = |device: &str| queue_of(&bed, device);
    let foreign = queue("foreign")?;
    let (out, complaint) = cleanup(&bed, &["--dry-run"])?;
    assert!(out.contains("would remove"), "{out}");
    assert!(complaint.contains("damaged") && complaint.contains(&path.display().to_string()), "{complaint}");
    let ours = bed.client().interfaces()[0];
    assert!(queue(ours)?.contains("htb 7cad:"), "nothing is removed yet");
    cleanup(&bed, &[])?;
    assert_eq!(queue("foreign")?, foreign);
    assert!(!queue(ours)?.contains("htb"), "{}", queue(ours)?);
    command(bed.client(), "ip link delete foreign")?;
    before.assert_returns(&bed, Duration::from_secs(10))?;
    // There are other network namespaces, and what the note was about may be there.
    fs::remove_file(path)?;
    Ok(())
}

#[test]
fn a_queue_that_somebody_else_put_in_the_place_of_ours_stays() -> anyhow::Result<()> {
    let bed = Testbed::new("lives")?;
    let target = Process::spawn(bed.client().command("sleep").arg("600"))?;
    let mut limiter = limit(&bed, target.pid(), "tc_htb")?;
    support::kill_with_guards(&mut limiter)?;
    let ours = bed.client().interfaces()[0];
    command(bed.client(), &format!("tc qdisc replace dev {ours} root handle 1: pfifo"))?;
    command(bed.client(), &format!("tc qdisc replace dev {ours} root handle 7cad: htb"))?;
    let queue = || queue_of(&bed, ours);
    let foreign = queue()?;
    cleanup(&bed, &[])?;
    assert_eq!(queue()?, foreign);
    assert!(note(limiter.pid()).is_none(), "there is nothing left to be undone");
    Ok(())
}

/// Anybody may read what is there, and so lock it, and never let go.
#[test]
fn who_keeps_notes_locked_keeps_nobody_waiting_for_long() -> anyhow::Result<()> {
    let bed = Testbed::new("lives")?;
    let before = KernelState::capture(&bed)?;
    let target = Process::spawn(bed.client().command("sleep").arg("60"))?;
    fs::create_dir_all(NOTES)?;
    let directory = fs::File::open(NOTES)?;
    directory.lock()?;
    let mut limiter = limit(&bed, target.pid(), "tc_htb")?;
    drop(directory);
    let path = note(limiter.pid()).context("it is written down")?;
    let locked = fs::File::open(&path)?;
    locked.lock()?;
    limiter.signal(Signal::SIGKILL)?;
    limiter.wait_timeout(PATIENCE)?;
    before.assert_returns(&bed, PATIENCE)?;
    testbed::until("the note is gone", PATIENCE, || Ok((!path.exists()).then_some(())))
}
