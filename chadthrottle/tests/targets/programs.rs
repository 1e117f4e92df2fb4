//! `--program`.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use nix::sys::signal::Signal;
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    rig::{BURST, CAP, Copies, Meter, Sink, assert_held, comes_through, holds, limit, send_for, text},
    support::PATIENCE,
};

/// Blocks whoever executes a program.
fn block(bed: &Testbed, program: &Path) -> anyhow::Result<Process> {
    limit(bed, &["--program", text(program), "--upload-limit", "0"])
}

/// A shell script on the client, with its arguments.
fn script(bed: &Testbed, shell: &Path, script: &str, arguments: &[&Path]) -> Command {
    let mut command = bed.client().command(shell);
    command.args(["-c", script, "sh"]).args(arguments);
    command
}

const SH: &str = "/bin/sh";

#[test]
fn one_that_runs_and_a_hundred_short_ones_share_a_limit() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let program = copies.traffic("sender")?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    // From before.
    let mut running =
        Process::spawn(bed.client().command(&program).args(send_for(sink.address, 3_000_000, "30")))?;
    traffic::ready(&running)?;
    let _limiter = limit(&bed, &["--program", text(&program), "--upload-limit", "1M"])?;
    std::thread::sleep(Duration::from_millis(200));
    holds(&bed, CAP, "one that runs")?;

    // Each sends 60 KB at once, ten at a time.
    let burst = "for ten in 1 2 3 4 5 6 7 8 9 10; do for one in 1 2 3 4 5 6 7 8 9 10; do \
                 \"$1\" udp-send --to \"$2\" --rate 1000000 --size 1372 --seconds 0.06 > /dev/null & done; wait; done";
    let to = sink.address.to_string();
    let meter = Meter::uploads(&bed)?;
    Process::spawn(&mut script(&bed, Path::new(SH), burst, &[&program, Path::new(&to)]))?
        .success(PATIENCE)?;
    let (bytes, seconds) = meter.read()?;
    assert_held(bytes / seconds, CAP, "with a hundred short ones");
    running.signal(Signal::SIGTERM)?;
    running.wait_timeout(PATIENCE)?;

    // These alone: together no more than what had been saved up.
    std::thread::sleep(Duration::from_millis(300));
    let meter = Meter::uploads(&bed)?;
    Process::spawn(&mut script(&bed, Path::new(SH), burst, &[&program, Path::new(&to)]))?
        .success(PATIENCE)?;
    let (bytes, seconds) = meter.read()?;
    println!("a hundred short ones alone: {bytes} bytes in {seconds} s");
    assert!(bytes < 1.05 * CAP * (seconds + BURST), "{bytes} bytes in {seconds} s");
    Ok(())
}

#[test]
fn not_one_packet_of_a_hundred_short_processes_passes_a_block() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let (program, neighbour) = (copies.traffic("blocked")?, copies.traffic("neighbour")?);
    let _limiter = block(&bed, &program)?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let to = sink.address.to_string();
    let rush = "for ten in 1 2 3 4 5 6 7 8 9 10; do for one in 1 2 3 4 5 6 7 8 9 10; do \
                \"$1\" udp-send --to \"$2\" --rate 1000000 --size 1372 --datagrams 5 > /dev/null & \
                timeout 0.05 \"$1\" tcp-send --to \"$2\" --bytes 1000 > /dev/null 2>&1 & done; wait; done";
    let before = Meter::uploads(&bed)?;
    Process::spawn(&mut script(&bed, Path::new(SH), rush, &[&program, Path::new(&to)]))?.success(PATIENCE)?;
    let (bytes, _) = before.read()?;
    // What the hosts say to find each other.
    assert!(bytes < 1000.0, "{bytes} bytes have come through");
    assert_eq!(sink.report()?.datagrams, 0);
    assert!(comes_through(&bed, &mut bed.client().command(&neighbour))?, "the neighbour is held");
    Ok(())
}

#[test]
fn who_executes_it_is_covered_from_the_first_packet_and_free_with_the_next_program() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let (program, other) = (copies.traffic("blocked")?, copies.traffic("other")?);
    let shell = copies.of(Path::new(SH), "shell")?;
    let _limiter = block(&bed, &program)?;
    let _limiter = block(&bed, &shell)?;
    let execute = "program=$1; shift; exec \"$program\" \"$@\"";
    let fork = "program=$1; shift; \"$program\" \"$@\"; exit";
    for (by, what, is_free) in [
        (Path::new(SH), &program, false),
        (Path::new(SH), &other, true),
        // The shell itself is blocked, and what it becomes or starts is not.
        (&shell, &other, true),
        (&shell, &program, false),
    ] {
        for words in [execute, fork] {
            let came = comes_through(&bed, &mut script(&bed, by, words, &[what]))?;
            assert_eq!(came, is_free, "{} from {}: {words}", what.display(), by.display());
        }
    }
    Ok(())
}

#[test]
fn forks_share_the_limit() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let program = copies.traffic("server")?;
    let _limiter = limit(&bed, &["--program", text(&program), "--upload-limit", "1M"])?;
    let listen = bed.client().socket_address(Family::V4, 0).to_string();
    let serve =
        ["prefork", "--listen", &listen, "--workers", "4", "--connections", "1", "--answer", "500000"];
    let server = Process::spawn(bed.client().command(&program).args(serve))?;
    let from = traffic::ready(&server)?.to_string();
    let meter = Meter::uploads(&bed)?;
    let receivers: Vec<_> = (0..4)
        .map(|_| Process::spawn(traffic::command(bed.server())?.args(["tcp-receive", "--from", &from])))
        .collect::<Result<_, _>>()?;
    for receiver in receivers {
        receiver.success(PATIENCE)?;
    }
    let (bytes, seconds) = meter.read()?;
    println!("{bytes} bytes in {seconds} s");
    assert!(bytes > 1.9e6, "{bytes}");
    assert!(bytes < 1.05 * CAP * (seconds + BURST), "{bytes} bytes in {seconds} s");
    Ok(())
}

#[test]
fn a_program_that_is_replaced_is_covered_from_its_first_packet() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let program = copies.traffic("upgraded")?;
    let _limiter = block(&bed, &program)?;
    for _ in 0..3 {
        let next = copies.traffic("upgraded.new")?;
        assert!(comes_through(&bed, &mut bed.client().command(&next))?, "{}", next.display());
        fs::rename(&next, &program)?;
        assert!(!comes_through(&bed, &mut bed.client().command(&program))?);
    }
    Ok(())
}

#[test]
fn a_file_with_the_inode_number_of_one_that_was_replaced_is_free() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("program")?, Copies::new()?);
    let program = copies.traffic("upgraded")?;
    let _limiter = block(&bed, &program)?;
    let number = fs::metadata(&program)?.ino();
    fs::rename(copies.traffic("upgraded.new")?, &program)?;
    let Some(stranger) = file_with_number(&program, number)? else {
        println!("the file system of {} does not give a number twice", program.display());
        return Ok(());
    };
    // What is there already keeps its number.
    copies.traffic(text(Path::new(stranger.file_name().expect("it has one"))))?;
    fs::set_permissions(&stranger, PermissionsExt::from_mode(0o755))?;
    assert_eq!(fs::metadata(&stranger)?.ino(), number);
    assert!(comes_through(&bed, &mut bed.client().command(&stranger))?, "a stranger is blocked");
    assert!(!comes_through(&bed, &mut bed.client().command(&program))?, "the program is free");
    Ok(())
}

/// Makes files beside another until one has this inode number.
fn file_with_number(beside: &Path, number: u64) -> anyhow::Result<Option<PathBuf>> {
    for attempt in 0..200 {
        let file = beside.with_file_name(format!("stranger{attempt}"));
        fs::write(&file, "")?;
        if fs::metadata(&file)?.ino() == number {
            return Ok(Some(file));
        }
    }
    Ok(None)
}
