//! What the fuzzer starts from, and what it has found, is read as it should be.

use std::{fs, io, path::Path};

use chadthrottle::fuzzing::TARGETS;

#[test]
fn every_input_of_the_corpus_is_read() -> io::Result<()> {
    for (name, target) in TARGETS {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut inputs = 0;
        for input in fs::read_dir(directory)? {
            let path = input?.path();
            println!("{}", path.display());
            target(&fs::read(path)?);
            inputs += 1;
        }
        assert!(inputs > 0, "there is nothing for {name}");
    }
    Ok(())
}
