//! A link that rules share, kept by `daemon`.

use std::{path::Path, time::Instant};

use anyhow::ensure;
use testbed::{Family, Process, Testbed, traffic};

use crate::{
    rig::{Copies, DATAGRAM, Sink, holds, in_three_attempts, send_for, text},
    rules::{Kept, rule},
    support::PATIENCE,
};

/// What the link has, in IP bytes a second, and what each sends in bytes of payload.
const LINK: f64 = 4e6;
const MUCH: u64 = 10_000_000;

/// Two rules by path on one link, of which the second one has this priority.
fn rules(programs: [&Path; 2], priority: u8) -> String {
    let program = |index: usize| format!("program = \"{}\"", text(programs[index]));
    let link = format!("[[link]]\nname = \"test\"\nupload = \"{LINK}\"\n");
    link + &rule("one", &program(0), "link = \"test\"")
        + &rule("two", &program(1), &format!("link = \"test\"\npriority = {priority}"))
}

/// Which part of the link a program has from its first packet to its last, while the sum is that of the link.
fn part(bed: &Testbed, program: &Path) -> anyhow::Result<f64> {
    let sink = Sink::start(bed.server(), Family::V4)?;
    let sender = Process::spawn(bed.client().command(program).args(send_for(sink.address, MUCH, "4")))?;
    traffic::ready(&sender)?;
    let begun = Instant::now();
    holds(bed, LINK, "both together")?;
    sender.success(PATIENCE)?;
    let seconds = begun.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
    let bytes = (sink.report()?.datagrams * DATAGRAM) as f64;
    println!("it has {:.3} of the link", bytes / seconds / LINK);
    Ok(bytes / seconds / LINK)
}

#[test]
fn rules_of_a_link_lend_each_other_what_they_leave() -> anyhow::Result<()> {
    in_three_attempts(|| {
        let (bed, copies) = (Testbed::new("link")?, Copies::new()?);
        let programs = [copies.traffic("one")?, copies.traffic("two")?];
        let rules = |priority| rules([&programs[0], &programs[1]], priority);
        let mut kept = Kept::start(&bed, &rules(4))?;
        let sink = Sink::start(bed.server(), Family::V4)?;
        let first =
            Process::spawn(bed.client().command(&programs[0]).args(send_for(sink.address, MUCH, "60")))?;
        traffic::ready(&first)?;
        holds(&bed, LINK, "one alone")?;
        let even = part(&bed, &programs[1])?;
        ensure!((0.25..0.6).contains(&even), "{even} of the link is no half");
        holds(&bed, LINK, "one alone again")?;
        kept.replace(&rules(1))?;
        let most = part(&bed, &programs[1])?;
        ensure!(most > 0.6, "{most} of the link for who comes first");
        Ok(())
    })
}
