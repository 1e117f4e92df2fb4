//! Rules by what containers are called.

use std::process::Command;

use testbed::{Process, Testbed, traffic};

use crate::{
    rig::comes_through,
    rules::{Kept, rule},
    support::{BINARY, PATIENCE},
};

/// Two containers' numbers.
const WEB: &str = "4c01db0b339c86e1a1f0a4d2b7c3e95d8f6a7b1c2d3e4f5061728394a5b6c7d8";
const OTHER: &str = "9f3ca51e77d04b5c6d7e8f90a1b2c3d4e5f60718293a4b5c6d7e8f9001122334";

/// The program where Docker has written down that a container is called `web`, and somebody who is not root that another one
/// is, for it alone.
fn with_docker(bed: &Testbed) -> Command {
    let script = "mount -t tmpfs none /var/lib && umask 022 && \
                  for number in \"$1\" \"$2\"; do \
                      mkdir -p /var/lib/docker/containers/$number && \
                      printf '{\"ID\":\"%s\",\"Name\":\"/web\"}' $number \
                          >/var/lib/docker/containers/$number/config.v2.json || exit; \
                  done && \
                  chown 65534 /var/lib/docker/containers/\"$2\"/config.v2.json && shift 2 && exec \"$@\"";
    let mut command = bed.client().command("unshare");
    command.args(["--mount", "sh", "-c", script, "sh", WEB, OTHER, BINARY]);
    command.arg("--cgroup-root").arg(bed.cgroup_root());
    command
}

#[test]
fn a_rule_by_the_name_of_a_container_holds_that_one() -> anyhow::Result<()> {
    let bed = Testbed::new("container")?;
    let web = bed.cgroup(&format!("docker-{WEB}.scope"))?;
    let (inner, other) =
        (bed.cgroup(&format!("docker-{WEB}.scope/init"))?, bed.cgroup(&format!("docker-{OTHER}.scope"))?);
    let rules = rule("shop", "container = \"web\"", "upload = \"0\"");
    let kept = Kept::start_by(&mut with_docker(&bed), &rules)?;
    let program = traffic::traffic_binary()?;
    for cgroup in [&web, &inner] {
        let mut inside = bed.client().command_in(cgroup, program)?;
        assert!(!comes_through(&bed, &mut inside)?, "{}: {}", cgroup.display(), kept.stderr());
    }
    assert!(comes_through(&bed, &mut bed.client().command_in(&other, program)?)?, "only root's files tell");

    let sleeper = Process::spawn(bed.client().command_in(&inner, "sleep")?.arg("60"))?;
    let mut explain = with_docker(&bed);
    explain.arg("--config").arg(kept.file()).args(["rules", "explain", &sleeper.pid().to_string()]);
    let explained = Process::spawn(&mut explain)?.success(PATIENCE)?;
    for words in ["container web", "rule \"shop\"", "from the first packet"] {
        assert!(explained.contains(words), "no {words:?} in {explained}");
    }
    Ok(())
}
