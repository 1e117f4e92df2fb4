//! Which packages have the shared libraries that a program needs, in Debian's words.

use std::{fs, path::Path};

use anyhow::{Context, Result, bail};
use object::{
    LittleEndian,
    elf::FileHeader64,
    read::elf::{Dyn as _, FileHeader as _},
};

/// The value of `Depends` for a program: the C library with the newest version of a symbol that it uses, and the
/// unwinder's library. Nothing for one that is linked statically.
pub(super) fn of(program: &Path) -> Result<String> {
    let data = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
    read(&data).with_context(|| format!("cannot tell which libraries {} needs", program.display()))
}

fn read(data: &[u8]) -> Result<String> {
    let header = FileHeader64::<LittleEndian>::parse(data)?;
    let endian = header.endian()?;
    let sections = header.sections(endian, data)?;
    let mut names = Vec::new();
    if let Some((entries, link)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        for entry in entries.iter().filter(|entry| entry.d_tag(endian) == object::elf::DT_NEEDED) {
            names.push(String::from_utf8(entry.string(endian, strings)?.to_vec())?);
        }
    }
    let mut newest = (0, 0);
    if let Some((mut files, link)) = sections.gnu_verneed(endian, data)? {
        let strings = sections.strings(endian, data, link)?;
        while let Some((_, mut versions)) = files.next()? {
            while let Some(version) = versions.next()? {
                newest = newest.max(glibc(version.name(endian, strings)?));
            }
        }
    }
    packages(&names, newest)
}

/// `GLIBC_2.34` as a pair; nothing that other libraries call their versions is newer than (0, 0).
fn glibc(name: &[u8]) -> (u32, u32) {
    let version = std::str::from_utf8(name).ok().and_then(|name| name.strip_prefix("GLIBC_"));
    let pair = version.and_then(|version| version.split_once('.'));
    // The few with three numbers (2.2.5) are older than anything that still runs.
    pair.and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?))).unwrap_or_default()
}

fn packages(libraries: &[String], (major, minor): (u32, u32)) -> Result<String> {
    let mut packages = Vec::new();
    for library in libraries {
        let package = match library.as_str() {
            "libgcc_s.so.1" => "libgcc-s1".to_owned(),
            "libc.so.6" | "libm.so.6" => format!("libc6 (>= {major}.{minor})"),
            // The loader, which comes with the C library.
            name if name.starts_with("ld-linux") => continue,
            name => bail!("{name} is in no package that this knows of"),
        };
        if !packages.contains(&package) {
            packages.push(package);
        }
    }
    Ok(packages.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_and_each_package_once() {
        assert_eq!(
            [glibc(b"GLIBC_2.34"), glibc(b"GCC_3.0"), glibc(b"GLIBC_2.2.5")],
            [(2, 34), (0, 0), (0, 0)]
        );
        let libraries =
            ["libgcc_s.so.1", "libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2"].map(str::to_owned);
        assert_eq!(packages(&libraries, (2, 34)).expect("all known"), "libgcc-s1, libc6 (>= 2.34)");
        assert_eq!(packages(&[], (0, 0)).expect("nothing"), "");
        assert!(packages(&["libz.so.1".to_owned()], (2, 34)).is_err(), "nobody knows it");
    }

    /// Test programs are linked to what the program is linked to.
    #[test]
    fn this_program_needs_a_c_library() {
        let needs = of(&std::env::current_exe().expect("a path")).expect("readable");
        assert!(needs.contains("libc6 (>= 2."), "{needs}");
    }
}
