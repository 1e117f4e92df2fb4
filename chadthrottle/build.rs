//! Chooses the eBPF object that is embedded: the committed one for the target's byte order, unless the environment names
//! another. The checks use that to test objects built by another toolchain than the recorded one.

use std::{env, path::PathBuf};

const VARIABLE: &str = "CHADTHROTTLE_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let committed = || {
        let is_big_endian = env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big");
        let name = if is_big_endian { "chadthrottle.bpfeb.o" } else { "chadthrottle.bpf.o" };
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/backends/ebpf").join(name)
    };
    let object = env::var_os(VARIABLE).map_or_else(committed, PathBuf::from);
    println!("cargo::rerun-if-changed={}", object.display());
    println!("cargo::rustc-env={VARIABLE}={}", object.display());
}
