//! `--user`.

use std::{path::Path, process::Command, time::Duration};

use testbed::{Family, Process, Testbed, traffic};

use crate::{
    rig::{CAP, Copies, Sink, comes_through, holds, limit, send_for},
    support::PATIENCE,
};

const NOBODY: &str = "65534";

/// A command that nobody runs on the client.
fn as_nobody(bed: &Testbed, program: &Path) -> Command {
    // After the namespace has been entered, which takes root.
    let mut command = bed.client().command("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(program).current_dir("/");
    command
}

#[test]
fn sockets_of_a_user_from_before_and_after_share_a_limit() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("user")?, Copies::new()?);
    let program = copies.traffic("sender")?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let send = send_for(sink.address, 3_000_000, "30");
    let before = Process::spawn(as_nobody(&bed, &program).args(&send))?;
    traffic::ready(&before)?;
    let _limiter = limit(&bed, &["--user", NOBODY, "--upload-limit", "1M"])?;
    std::thread::sleep(Duration::from_millis(200));
    holds(&bed, CAP, "a socket from before")?;
    let after = Process::spawn(as_nobody(&bed, &program).args(&send))?;
    traffic::ready(&after)?;
    holds(&bed, CAP, "with one from after")?;
    drop(before);
    holds(&bed, CAP, "the one from after")?;
    drop(after);
    Ok(())
}

#[test]
fn a_user_is_covered_from_the_first_packet_and_root_is_not() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("user")?, Copies::new()?);
    let program = copies.traffic("sender")?;
    let mut limiter = limit(&bed, &["--user", "nobody", "--upload-limit", "0"])?;
    assert!(!comes_through(&bed, &mut as_nobody(&bed, &program))?);
    assert!(comes_through(&bed, &mut bed.client().command(&program))?, "root is held");
    limiter.signal(nix::sys::signal::Signal::SIGTERM)?;
    limiter.wait_timeout(PATIENCE)?;
    assert!(comes_through(&bed, &mut as_nobody(&bed, &program))?, "it is held when the limit has gone");
    Ok(())
}

#[test]
fn root_of_a_container_is_the_user_outside() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("user")?, Copies::new()?);
    let program = copies.traffic("sender")?;
    let limiter =
        |user| limit(&bed, &["--force", "--include-loopback", "--user", user, "--upload-limit", "0"]);
    // To itself, in a network that belongs to a user namespace: there nobody is root.
    let in_container = || -> anyhow::Result<u64> {
        let script = "ip link set lo up; report=$(mktemp); \
                      \"$1\" udp-sink --listen 127.0.0.1:7000 --idle-exit 300 --first-wait 2000 > \"$report\" & \
                      i=0; until grep -q ready \"$report\" || [ $((i+=1)) -gt 1000 ]; do sleep 0.01; done; \
                      \"$1\" udp-send --to 127.0.0.1:7000 --rate 1000000 --size 1000 --datagrams 50 > /dev/null; \
                      wait; cat \"$report\"; rm \"$report\"";
        let mut command = as_nobody(&bed, Path::new("unshare"));
        command.args(["--user", "--map-root-user", "--net", "sh", "-c", script, "sh"]).arg(&program);
        Ok(traffic::Report::parse(&Process::spawn(&mut command)?.success(PATIENCE)?)?.datagrams)
    };
    assert_eq!(in_container()?, 50);
    for (user, expected) in [("0", 50), (NOBODY, 0)] {
        let _limiter = limiter(user)?;
        assert_eq!(in_container()?, expected, "with {user} blocked");
    }
    Ok(())
}

#[test]
fn what_a_server_accepts_is_its_new_users_once_it_has_given_up_root() -> anyhow::Result<()> {
    let (bed, copies) = (Testbed::new("user")?, Copies::new()?);
    let program = copies.traffic("server")?;
    let _limiter = limit(&bed, &["--user", NOBODY, "--upload-limit", "1M"])?;
    let listen = bed.client().socket_address(Family::V4, 0).to_string();
    let serve = ["tcp-source", "--listen", &listen, "--bytes", "1500000", "--become", NOBODY];
    let server = Process::spawn(bed.client().command(&program).args(serve))?;
    let from = traffic::ready(&server)?.to_string();
    let receiver = Process::spawn(traffic::command(bed.server())?.args(["tcp-receive", "--from", &from]))?;
    let report = traffic::Report::parse(&receiver.success(PATIENCE)?)?;
    assert_eq!(report.bytes, 1_500_000);
    assert!(report.seconds > 1.15, "1.5 MB at 1 MB/s in {} s", report.seconds);
    Ok(())
}
