//! `--cgroup` and `--unit`.

use std::{fs, path::Path, time::Duration};

use testbed::{Family, Process, Testbed, traffic};

use crate::rig::{CAP, Sink, comes_through, holds, limit, send_for, text};

/// The path in the tree of a cgroup of the bed.
pub(crate) fn in_tree(cgroup: &Path) -> anyhow::Result<String> {
    let inside = Process::spawn(
        std::process::Command::new("sh")
            .args(["-c", "echo $$ > \"$1/cgroup.procs\" && sed -n 's/^0:://p' /proc/$$/cgroup", "sh"])
            .arg(cgroup),
    )?;
    Ok(inside.success(Duration::from_secs(5))?.trim_end().to_owned())
}

#[test]
fn a_unit_is_held_with_what_is_below_it_and_its_sibling_is_not() -> anyhow::Result<()> {
    let bed = Testbed::new("unit")?;
    let unit = bed.cgroup("a.service")?;
    let (nested, sibling) = (bed.cgroup("a.service/inner")?, bed.cgroup("a.service.other")?);
    let program = traffic::traffic_binary()?;
    let path = in_tree(&unit)?;
    for option in [["--unit", "a.service"], ["--cgroup", &path], ["--cgroup", text(&unit)]] {
        let _limiter = limit(&bed, &[option[0], option[1], "--upload-limit", "0"])?;
        assert!(!comes_through(&bed, &mut bed.client().command_in(&unit, program)?)?, "{option:?}");
        assert!(!comes_through(&bed, &mut bed.client().command_in(&nested, program)?)?, "{option:?}: nested");
        assert!(
            comes_through(&bed, &mut bed.client().command_in(&sibling, program)?)?,
            "{option:?}: sibling"
        );
        assert!(comes_through(&bed, &mut bed.client().command(program))?, "{option:?}: parent");
    }
    Ok(())
}

#[test]
fn the_innermost_limited_cgroup_holds() -> anyhow::Result<()> {
    let bed = Testbed::new("unit")?;
    let (unit, nested) = (bed.cgroup("a.service")?, bed.cgroup("a.service/inner")?);
    let program = traffic::traffic_binary()?;
    let limiter = |cgroup: &Path, rate| limit(&bed, &["--cgroup", text(cgroup), "--upload-limit", rate]);
    // Of one program: two have programs of their own in the kernel, and each holds.
    let mut inside = crate::inside::Inside::alone(&bed)?;
    let subject =
        |cgroup: &Path| anyhow::Ok(chadthrottle::backends::throttle::Subject::Cgroup(in_tree(cgroup)?));
    inside.set(&subject(&unit)?, Some(0), None)?;
    inside.set(&subject(&nested)?, Some(100_000_000), None)?;
    assert!(!comes_through(&bed, &mut bed.client().command_in(&unit, program)?)?);
    assert!(comes_through(&bed, &mut bed.client().command_in(&nested, program)?)?);
    inside.set(&subject(&nested)?, None, None)?;
    assert!(!comes_through(&bed, &mut bed.client().command_in(&nested, program)?)?);
    drop(inside);
    let _limiter = limiter(&nested, "0")?;
    assert!(comes_through(&bed, &mut bed.client().command_in(&unit, program)?)?);
    Ok(())
}

#[test]
fn sockets_of_a_unit_from_before_and_after_share_a_limit() -> anyhow::Result<()> {
    let bed = Testbed::new("unit")?;
    let (unit, nested) = (bed.cgroup("b.service")?, bed.cgroup("b.service/inner")?);
    let sink = Sink::start(bed.server(), Family::V4)?;
    let send = send_for(sink.address, 3_000_000, "30");
    let program = traffic::traffic_binary()?;
    let before = Process::spawn(bed.client().command_in(&nested, program)?.args(&send))?;
    traffic::ready(&before)?;
    let _limiter = limit(&bed, &["--unit", "b.service", "--upload-limit", "1M"])?;
    std::thread::sleep(Duration::from_millis(200));
    holds(&bed, CAP, "a socket from before")?;
    let after = Process::spawn(bed.client().command_in(&unit, program)?.args(&send))?;
    traffic::ready(&after)?;
    holds(&bed, CAP, "with one from after")?;
    Ok(())
}

#[test]
fn a_unit_that_is_restarted_is_covered_from_its_first_packet() -> anyhow::Result<()> {
    let bed = Testbed::new("unit")?;
    let slice = bed.cgroup("some.slice")?;
    let unit = bed.cgroup("some.slice/c.service")?;
    let program = traffic::traffic_binary()?;
    let _limiter = limit(&bed, &["--unit", "c.service", "--upload-limit", "0"])?;
    assert!(!comes_through(&bed, &mut bed.client().command_in(&unit, program)?)?);
    for removes_slice in [false, true, false] {
        testbed::until("the cgroup is empty", Duration::from_secs(5), || Ok(fs::remove_dir(&unit).ok()))?;
        if removes_slice {
            fs::remove_dir(&slice)?;
            fs::create_dir(&slice)?;
        }
        fs::create_dir(&unit)?;
        assert!(!comes_through(&bed, &mut bed.client().command_in(&unit, program)?)?);
    }
    assert!(comes_through(&bed, &mut bed.client().command_in(&slice, program)?)?);
    Ok(())
}
