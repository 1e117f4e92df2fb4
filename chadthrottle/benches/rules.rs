//! What rules cost: to read a file of a thousand, to match a process, to look at all processes.
//!
//! `cargo bench --bench rules`

use std::{hint::black_box, path::Path, time::Instant};

use chadthrottle::{
    backends::throttle::Subject,
    config::{Config, Source},
    process::{KnownNames, ProcessId},
    rules::{conditions::Facts, host, resolve::Claims},
};

const RULES: usize = 1000;
const ROUNDS: usize = 20;

fn main() {
    // Cargo runs it as a test, too.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let kinds = [
        "program = \"/opt/app-{}/bin/run\"",
        "name = \"worker-{}-*\"",
        "unit = \"job-{}.service\"",
        "user = \"{}\"",
    ];
    let mut text = String::new();
    for number in 0..RULES {
        let conditions = kinds[number % kinds.len()].replace("{}", &number.to_string());
        let rule = [
            "[[rule]]\nname = \"rule ",
            &number.to_string(),
            "\"\nmatch = { ",
            &conditions,
            " }\nupload = \"1M\"\ndownload = \"500K\"\nwhen = \"Mon-Fri 08:00-18:00\"\n\n",
        ];
        text.push_str(&rule.concat());
    }
    let read = || {
        let source = Source::new(Path::new("config.toml"), text.clone());
        Config::of(&[source]).expect("nothing is wrong").rules
    };
    median("read a file of 1,000 rules", "ms", 1e3, || {
        black_box(read());
    });

    let rules = read();
    let mut names = KnownNames::default();
    let subjects: Vec<Vec<Subject>> =
        rules.iter().map(|rule| host::subjects(rule, None, &mut names)).collect();
    let claims = Claims::new(&rules, |_| true, &subjects);
    let facts = Facts {
        id: ProcessId { pid: 1, start_time: 1 },
        name: "unknown".into(),
        exe: Some("/usr/bin/unknown".into()),
        command: "unknown --to nobody".into(),
        cgroup: "/user.slice/user-1000.slice/session-1.scope".into(),
        container: None,
        uid: 123_456,
        user: None,
    };
    median("match a process that no rule of 1,000 is for", "us", 1e6, || {
        black_box(claims.holder(&rules, &facts));
    });
    let count = host::processes(&mut names).expect("/proc is there").len();
    println!("{count} processes run");
    median("look at all processes", "ms", 1e3, || {
        black_box(host::processes(&mut names).expect("/proc is there"));
    });
}

/// Prints how long some work takes, the median of some rounds.
fn median(what: &str, unit: &str, scale: f64, mut work: impl FnMut()) {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            work();
            start.elapsed().as_secs_f64() * scale
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("{what}: {:.2} {unit}, {:.2} at most", times[ROUNDS / 2], times[ROUNDS - 1]);
}
