//! What the program says of this host is so, and nobody is told to do what does not work.

mod support;

use std::process::Command;

use serde_json::Value;
use support::{BINARY, PATIENCE};
use testbed::{KernelState, Process, Testbed};

fn doctor(bed: &Testbed, options: &[&str]) -> anyhow::Result<String> {
    Process::spawn(bed.client().command(BINARY).arg("doctor").args(options))?.success(PATIENCE)
}

fn presence<'a>(report: &'a Value, name: &str) -> &'a str {
    let mut features = report["features"].as_array().into_iter().flatten();
    let feature = features.find(|feature| feature["name"] == name);
    feature
        .and_then(|feature| feature["presence"].as_str())
        .unwrap_or_else(|| panic!("{name} is not told of"))
}

/// Whether `tc` gets the kernel to make a queue of this kind, which may load its module, on a device of the bed's.
fn can_be_made(bed: &Testbed, kind: &str) -> anyhow::Result<bool> {
    let mut add = bed.client().command("tc");
    let mut add = Process::spawn(add.args(["qdisc", "add", "dev", "trial", "root"]).args(kind.split(' ')))?;
    let made = add.wait_timeout(PATIENCE)?.success();
    if made {
        let mut delete = bed.client().command("tc");
        Process::spawn(delete.args(["qdisc", "del", "dev", "trial", "root"]))?.success(PATIENCE)?;
    }
    Ok(made)
}

#[test]
fn queues_are_there_or_not_as_it_says() -> anyhow::Result<()> {
    let bed = Testbed::new("doctor")?;
    let report: Value = serde_json::from_str(&doctor(&bed, &["--json"])?)?;
    let mut add = bed.client().command("ip");
    Process::spawn(add.args(["link", "add", "trial", "type", "veth", "peer", "name", "other"]))?
        .success(PATIENCE)?;
    for (name, arguments) in [
        ("htb", "htb"),
        ("fq", "fq"),
        ("fq_codel", "fq_codel"),
        ("cake", "cake"),
        ("netem", "netem delay 1ms"),
        ("tbf", "tbf rate 1mbit burst 5kb latency 50ms"),
    ] {
        let is_there = matches!(presence(&report, name), "present" | "loadable");
        assert_eq!(is_there, can_be_made(&bed, arguments)?, "{name} is {}", presence(&report, name));
    }
    Ok(())
}

#[test]
fn it_changes_nothing_and_says_nothing_private() -> anyhow::Result<()> {
    let bed = Testbed::new("doctor")?;
    let command = |line: &str| -> anyhow::Result<String> {
        let words: Vec<&str> = line.split(' ').collect();
        Process::spawn(bed.client().command(words[0]).args(&words[1..]))?.success(PATIENCE)
    };
    command("ip link add acme-vpn type veth peer name acme-peer")?;
    command("ip link set acme-vpn up")?;
    command("ip address add 10.99.1.1/24 dev acme-vpn")?;
    command("tc qdisc add dev acme-vpn root handle 1: pfifo")?;
    command("nft add table inet acme_secret")?;
    let before = KernelState::capture(&bed)?;
    let text = doctor(&bed, &[])?;
    for word in ["acme-vpn", "pfifo 1:", "acme_secret", "somebody chose it", "BTF"] {
        assert!(text.contains(word), "no {word:?} in\n{text}");
    }
    let json = doctor(&bed, &["--json"])?;
    let hostname = Process::spawn(Command::new("uname").arg("-n"))?.success(PATIENCE)?;
    for private in ["acme", "10.99", hostname.trim()] {
        // The name of this machine may be a word that is in there anyway, such as `vm`.
        let is_told = json.contains(private) && private.len() > 3;
        assert!(!is_told, "{private:?} is in\n{json}");
    }
    let report: Value = serde_json::from_str(&json)?;
    assert_eq!(report["neighbours"]["tables"][0]["count"], 1, "{json}");
    let queues = report["neighbours"]["queues"].as_array().into_iter().flatten();
    assert!(
        queues.clone().any(|queue| queue["is_chosen"] == true && queue["queues"][0] == "pfifo 1:"),
        "{json}"
    );
    let difference = before.difference(&KernelState::capture(&bed)?);
    let ours: Vec<&str> = difference.lines().filter(|line| !line.contains("BPF")).collect();
    assert!(ours.is_empty(), "{difference}");
    Ok(())
}

#[test]
fn what_it_advises_works() -> anyhow::Result<()> {
    let bed = Testbed::new("doctor")?;
    let interface = bed.client().interfaces()[0];
    let mut add = bed.client().command("tc");
    Process::spawn(add.args(["qdisc", "add", "dev", interface, "root", "handle", "1:", "pfifo"]))?
        .success(PATIENCE)?;
    // Without a tree of cgroups at this place the backends on eBPF are out, and a queue that was chosen is in the way.
    let mut unshare = bed.client().command("unshare");
    unshare.args(["--mount", "sh", "-c"]);
    let script = format!(
        "for mount in $(awk '$3 == \"cgroup2\" {{ print $2 }}' /proc/self/mounts); do umount \"$mount\"; done; {BINARY} doctor \
         --json"
    );
    let report: Value = serde_json::from_str(&Process::spawn(unshare.arg(&script))?.success(PATIENCE)?)?;
    let advice = report["advice"].as_array().cloned().unwrap_or_default();
    let commands: Vec<&str> = advice.iter().filter_map(|one| one["command"].as_str()).collect();
    assert!(commands.iter().any(|command| command.contains("mount -t cgroup2")), "{advice:?}");
    let delete =
        commands.iter().find(|command| command.starts_with("tc qdisc del")).expect("the queue is in the way");
    // Without names; by number it is the one that we know.
    let words: Vec<&str> =
        delete.split(' ').map(|word| if word.starts_with("interface#") { interface } else { word }).collect();
    Process::spawn(bed.client().command(words[0]).args(&words[1..]))?.success(PATIENCE)?;
    // Each of the others is about a module, which there is.
    for command in commands.iter().filter_map(|command| command.strip_prefix("modprobe ")) {
        Process::spawn(Command::new("modprobe").args(["--dry-run", command]))?.success(PATIENCE)?;
    }
    Ok(())
}

#[test]
fn without_privilege_it_says_what_is_missing() -> anyhow::Result<()> {
    let bed = Testbed::new("doctor")?;
    let everybodys = support::Everybodys::new()?;
    let mut command = everybodys.command(&bed, BINARY.as_ref())?;
    let report: Value =
        serde_json::from_str(&Process::spawn(command.args(["doctor", "--json"]))?.success(PATIENCE)?)?;
    let held =
        report["capabilities"].as_array().into_iter().flatten().filter(|one| one["held"] == true).count();
    assert_eq!(held, 0, "{report}");
    let advice = report["advice"].as_array().cloned().unwrap_or_default();
    assert!(
        advice.iter().any(|one| one["what"].as_str().is_some_and(|what| what.contains("CAP_NET_ADMIN"))),
        "{report}"
    );
    Ok(())
}
