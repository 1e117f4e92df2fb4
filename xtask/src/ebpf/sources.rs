//! What the object is built from: for taking paths out of it, and for telling whether it is out of date.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use super::{
    byte_order::ByteOrder,
    toolchain::{Compiler, FLAGS},
};
use crate::process;

/// The packages that are compiled into the object.
#[derive(Debug)]
pub(crate) struct Sources {
    packages: Vec<Package>,
}

#[derive(Debug)]
struct Package {
    /// With the version.
    name: String,
    features: String,
    directory: PathBuf,
    /// Of this workspace, so that its files count and not its version.
    local: bool,
}

impl Sources {
    /// Asks cargo.
    pub(crate) fn find(compiler: &Compiler, root: &Path) -> Result<Self> {
        // The same for both.
        let target = ByteOrder::Little.target();
        let tree = process::output(compiler.cargo(root, "tree")?.args([
            "--package",
            "chadthrottle-ebpf",
            "--target",
            target,
            "--edges",
            // What runs on the target. Macros' dependencies are shared with the host's crates and move all the time.
            "normal,no-proc-macro",
            "--prefix",
            "none",
            "--no-dedupe",
            "--format",
            "{f}\t{p}",
        ]))?;
        let metadata = process::output(compiler.cargo(root, "metadata")?.args([
            "--format-version",
            "1",
            "--filter-platform",
            target,
        ]))?;
        Self::parse(&tree, &serde_json::from_str(&metadata).context("cargo metadata is not JSON")?)
    }

    fn parse(tree: &str, metadata: &Value) -> Result<Self> {
        let packages: BTreeMap<String, Package> = tree
            .lines()
            .filter(|line| !line.is_empty())
            .map(|line| Package::parse(line, metadata).map(|package| (package.name.clone(), package)))
            .collect::<Result<_>>()?;
        Ok(Self { packages: packages.into_values().collect() })
    }

    /// What stands for each path that a compiler would write into the object, general ones first.
    ///
    /// None of the stand-ins exists, or LLVM would read the lines of the sources through it into the BTF.
    pub(crate) fn remap(
        &self,
        compiler: &Compiler,
        root: &Path,
        target_dir: &Path,
    ) -> Vec<(PathBuf, String)> {
        let mut remap = vec![
            (root.to_owned(), "/chadthrottle-source".to_owned()),
            (target_dir.to_owned(), "/chadthrottle-target".to_owned()),
        ];
        remap.extend(
            self.packages.iter().filter(|package| !package.local).map(|package| {
                (package.directory.clone(), format!("/chadthrottle-registry/{}", package.name))
            }),
        );
        remap.extend(compiler.core_sources());
        remap
    }

    /// A number that changes with the sources: the files of this workspace's packages, the versions of the others,
    /// and the compiler's flags.
    pub(crate) fn digest(&self) -> Result<String> {
        let mut digest = Digest::new();
        for flag in FLAGS {
            digest.add(flag.as_bytes());
        }
        for package in &self.packages {
            digest.add(package.name.as_bytes());
            digest.add(package.features.as_bytes());
            if package.local {
                for file in files(package)? {
                    let relative = file.strip_prefix(&package.directory).unwrap_or(&file);
                    digest.add(relative.to_string_lossy().as_bytes());
                    digest.add(&fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?);
                }
            }
        }
        Ok(format!("{:016x}", digest.0))
    }
}

impl Package {
    /// From a line of `cargo tree`: `[features]<tab>name vVERSION [(path or kind)]`.
    fn parse(line: &str, metadata: &Value) -> Result<Self> {
        let (features, package) =
            line.split_once('\t').with_context(|| format!("cargo tree printed: {line}"))?;
        let mut words = package.split(' ');
        let (Some(name), Some(version)) =
            (words.next(), words.next().and_then(|word| word.strip_prefix('v')))
        else {
            bail!("cargo tree printed a package without name and version: {line}");
        };
        let package = metadata["packages"]
            .as_array()
            .and_then(|all| {
                all.iter().find(|package| package["name"] == name && package["version"] == version)
            })
            .with_context(|| format!("cargo metadata does not know {name} {version}"))?;
        let manifest = package["manifest_path"].as_str().context("a package without a manifest")?;
        Ok(Self {
            name: format!("{name}-{version}"),
            features: features.to_owned(),
            directory: Path::new(manifest).parent().context("a manifest without a directory")?.to_owned(),
            local: package["source"].is_null(),
        })
    }
}

/// The manifest and everything under `src`, sorted.
fn files(package: &Package) -> Result<BTreeSet<PathBuf>> {
    let mut files = BTreeSet::from([package.directory.join("Cargo.toml")]);
    let mut directories = vec![package.directory.join("src")];
    while let Some(directory) = directories.pop() {
        let entries =
            fs::read_dir(&directory).with_context(|| format!("cannot list {}", directory.display()))?;
        for entry in entries {
            let path = entry.with_context(|| format!("cannot list {}", directory.display()))?.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.insert(path);
            }
        }
    }
    Ok(files)
}

/// FNV-1a over length-prefixed parts: whoever wants to fool it can as well edit the record.
struct Digest(u64);

impl Digest {
    fn new() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }

    fn add(&mut self, part: &[u8]) {
        for &byte in (part.len() as u64).to_le_bytes().iter().chain(part) {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::env;

    use serde_json::json;

    use super::*;

    const TREE: &str = "\tprogram v0.1.0 (/a checkout/program)\nunsafe\thelpers v1.2.3\n\tprogram v0.1.0 (/a checkout/program)";

    /// A checkout with one local package and what cargo says of it.
    fn checkout(name: &str, code: &str) -> (PathBuf, Sources) {
        let root = env::temp_dir().join(format!("xtask sources {name} {}", std::process::id()));
        fs::create_dir_all(root.join("program/src/deeper")).expect("a directory");
        fs::write(root.join("program/Cargo.toml"), "[package]").expect("a manifest");
        fs::write(root.join("program/src/deeper/code.rs"), code).expect("a source");
        let metadata = json!({ "packages": [
            { "name": "program", "version": "0.1.0", "source": null, "manifest_path": root.join("program/Cargo.toml") },
            { "name": "helpers", "version": "1.2.3", "source": "registry", "manifest_path": "/home/registry/x/Cargo.toml" },
            { "name": "other", "version": "1.0.0", "source": "registry", "manifest_path": "/home/registry/y/Cargo.toml" },
        ]});
        (root, Sources::parse(TREE, &metadata).expect("sources"))
    }

    #[test]
    fn the_digest_is_of_the_code_and_not_of_the_place() {
        let (first, sources) = checkout("one", "fn main() {}");
        let digest = sources.digest().expect("a digest");
        let (second, elsewhere) = checkout("two", "fn main() {}");
        assert_eq!(elsewhere.digest().expect("a digest"), digest);
        let (_, changed) = checkout("two", "fn main() { }");
        assert_ne!(changed.digest().expect("a digest"), digest);
        for root in [first, second] {
            fs::remove_dir_all(root).expect("removed");
        }
    }

    #[test]
    fn only_packages_from_elsewhere_are_renamed_one_by_one() {
        let (root, sources) = checkout("three", "");
        let compiler = Compiler {
            kind: super::super::toolchain::Kind::Debian,
            bin: "/usr/bin".into(),
            sysroot: "/usr".into(),
            verbose_version: "rustc 1.96.0\ncommit-hash: abc".to_owned(),
        };
        let remap = sources.remap(&compiler, &root, &root.join("target"));
        let expected = [
            (root.clone(), "/chadthrottle-source"),
            (root.join("target"), "/chadthrottle-target"),
            ("/home/registry/x".into(), "/chadthrottle-registry/helpers-1.2.3"),
            ("/usr/lib/rustlib/src/rust".into(), "/rustc/abc"),
        ];
        assert_eq!(remap, expected.map(|(from, to)| (from, to.to_owned())));
        fs::remove_dir_all(root).expect("removed");
    }
}
