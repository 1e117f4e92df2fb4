//! What is used is recorded, survives a kill, and counts for quotas.

use std::{fs, path::Path};

use nix::sys::signal::Signal;
use serde_json::Value;
use testbed::{Family, Process, Testbed};

use crate::{
    rig::{Copies, DATAGRAM, Sink, comes_through, text},
    support::{PATIENCE, chadthrottle},
};

/// What a program has sent, by the command that shows it.
fn sent(bed: &Testbed, file: &Path, program: &Path) -> anyhow::Result<Option<u64>> {
    let mut command = chadthrottle(bed);
    let output = command.args(["--config", text(file), "history", "--json"]).output()?;
    let Ok(Value::Array(lines)) = serde_json::from_slice(&output.stdout) else { return Ok(None) };
    let line = lines.iter().find(|line| line["name"] == text(program));
    Ok(line.and_then(|line| line["upload_bytes"].as_u64()))
}

fn daemon(bed: &Testbed, file: &Path) -> anyhow::Result<Process> {
    let daemon =
        Process::spawn(chadthrottle(bed).args(["--config", text(file), "--socket", "none", "daemon"]))?;
    daemon.wait_for_line(|line| line.contains("in force"), PATIENCE)?;
    Ok(daemon)
}

#[test]
fn what_is_recorded_survives_a_kill_and_uses_a_quota_up() -> anyhow::Result<()> {
    const DATAGRAMS: u64 = 50;
    let (bed, copies) = (Testbed::new("history")?, Copies::new()?);
    let program = copies.traffic("counted")?;
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("config.toml");
    let history = directory.path().join("state/history.db");
    fs::write(
        &file,
        format!(
            "history.path = \"{}\"\n[[rule]]\nname = \"q\"\nmatch.program = \"{}\"\n\
             quota = {{ after = \"60K\", per = \"month\", upload = \"0\" }}\n",
            text(&history),
            text(&program)
        ),
    )?;
    let mut first = daemon(&bed, &file)?;
    let sink = Sink::start(bed.server(), Family::V4)?;
    let (to, datagrams) = (sink.address.to_string(), DATAGRAMS.to_string());
    let arguments =
        ["udp-send", "--to", &to, "--rate", "1000000", "--size", "1372", "--datagrams", &datagrams];
    Process::spawn(bed.client().command(&program).args(arguments))?.success(PATIENCE)?;
    assert_eq!(sink.report()?.datagrams, DATAGRAMS);

    let expected = DATAGRAMS * DATAGRAM;
    let recorded = testbed::until("it is recorded", PATIENCE, || sent(&bed, &file, &program))?;
    assert_eq!(recorded, expected, "to the byte");
    first.signal(Signal::SIGKILL)?;
    drop(first);
    assert_eq!(sent(&bed, &file, &program)?, Some(expected));

    let mut second = daemon(&bed, &file)?;
    testbed::until("the quota is used up", PATIENCE, || {
        let came = comes_through(&bed, &mut bed.client().command(&program))?;
        Ok((!came).then_some(()))
    })?;
    second.signal(Signal::SIGTERM)?;
    Ok(())
}
