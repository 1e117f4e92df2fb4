//! Chooses the eBPF object that is embedded: the committed one, unless the environment names another. The checks
//! use that to test objects built by another toolchain than the recorded one.

use std::{env, path::PathBuf};

const VARIABLE: &str = "CHADTHROTTLE_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let committed = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/backends/ebpf/chadthrottle.bpf.o");
    let object = env::var_os(VARIABLE).map_or_else(committed, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env={VARIABLE}={}", object.display());
}
