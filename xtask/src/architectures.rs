//! Whether the program compiles for other processors than this machine's.

use std::path::Path;

use anyhow::Result;

use crate::process;

/// Those that people run it on beside `x86_64`.
const TARGETS: [&str; 2] = ["aarch64-unknown-linux-gnu", "riscv64gc-unknown-linux-gnu"];

/// Checks the program and the testbed for each whose standard library is installed.
pub(crate) fn check() -> Result<()> {
    let root = process::root()?;
    let mut rustc = std::process::Command::new("rustc");
    let sysroot = process::output(rustc.args(["--print", "sysroot"]).current_dir(&root))?;
    for target in TARGETS {
        if !Path::new(&sysroot).join("lib/rustlib").join(target).join("lib").is_dir() {
            println!(
                "NOT CHECKED: {target}, because its standard library is not installed (`rustup target add {target}`)"
            );
            continue;
        }
        let mut cargo = process::host_cargo(&root);
        cargo.args([
            "check",
            "--package",
            "chadthrottle",
            "--package",
            "testbed",
            "--all-features",
            "--target",
            target,
        ]);
        // Nothing is linked, so that SQLite need not be compiled, which would take a C compiler for that processor.
        cargo.env("LIBSQLITE3_SYS_USE_PKG_CONFIG", "1").env("SQLITE3_LIB_DIR", "/nonexistent");
        process::run(&mut cargo)?;
    }
    Ok(())
}
