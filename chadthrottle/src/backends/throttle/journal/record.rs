//! A note as it stands in a file, and whether it can be believed.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Entry, PREFIX, SUFFIX};
use crate::{process::ProcessId, sys::note};

/// What a note says has a form, which may be another one some day.
const VERSION: u32 = 1;
/// Whoever else wrote one does not tell us what to remove.
const ROOT: u32 = 0;

/// A file.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    /// The kernel's name for the time since the last boot.
    pub(super) boot: String,
    /// Who made it, as in [`ProcessId`].
    pid: i32,
    start_time: u64,
    /// The inode of the network namespace.
    pub(super) network: u64,
    pub(super) interfaces: Vec<Entry>,
}

impl Record {
    /// Nothing of this process yet.
    pub(super) fn new(process: ProcessId, network: u64) -> io::Result<Self> {
        let ProcessId { pid, start_time } = process;
        Ok(Self { version: VERSION, boot: note::boot()?, pid, start_time, network, interfaces: Vec::new() })
    }

    pub(super) const fn process(&self) -> ProcessId {
        ProcessId { pid: self.pid, start_time: self.start_time }
    }
}

/// A file that has the name of a note.
#[derive(Debug)]
pub(super) struct Note {
    pub(super) path: PathBuf,
    /// Whose it is, by its name.
    pub(super) process: ProcessId,
    /// What it says, or why that cannot be believed.
    pub(super) record: Result<Record, String>,
}

impl Note {
    /// None where the name is not that of a note, or it is gone.
    pub(super) fn read(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.strip_suffix(SUFFIX)?.strip_prefix(PREFIX)?;
        let (pid, start_time) = name.split_once('-')?;
        let process = ProcessId { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? };
        let record = match note::read(path, ROOT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(text) => believed(&text, process),
        };
        Some(Self { path: path.to_owned(), process, record })
    }
}

fn believed(text: &[u8], process: ProcessId) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(text).map_err(|error| format!("it is damaged ({error})"))?;
    if record.version != VERSION {
        return Err(format!("another version of the program wrote it ({})", record.version));
    }
    if record.process() != process {
        return Err(format!("it is about process {}, and not the one in its name", record.pid));
    }
    Ok(record)
}

impl ProcessId {
    /// A number that queues of this process have and hardly any other: made of pid and start time, and of 31 bits, of
    /// which the highest is set, because small ones are what people choose.
    pub(super) fn signature(self) -> u32 {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let bytes = self.pid.to_ne_bytes().into_iter().chain(self.start_time.to_ne_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, mix);
        let [.., a, b, c, d] = (hash ^ hash >> 32).to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff | 0x4000_0000
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WE: ProcessId = ProcessId { pid: 7, start_time: 9 };

    fn record() -> Record {
        let interfaces = vec![Entry { index: 3, name: "eth0".into(), queue_len: 1000 }];
        Record { interfaces, ..Record::new(WE, 5).expect("/proc is there") }
    }

    #[test]
    fn a_note_is_believed_only_whole_and_of_whom_its_name_says() {
        let text = serde_json::to_vec(&record()).expect("numbers and words");
        assert_eq!(believed(&text, WE).expect("whole").interfaces, record().interfaces);
        for length in 0..text.len() {
            assert!(believed(&text[..length], WE).is_err(), "{length} bytes of it");
        }
        assert!(believed(&text, ProcessId { pid: 8, ..WE }).is_err());
        let other = Record { version: VERSION + 1, ..record() };
        assert!(believed(&serde_json::to_vec(&other).expect("likewise"), WE).is_err());
    }

    #[test]
    fn files_of_other_names_are_no_notes() -> io::Result<()> {
        let directory = tempfile::tempdir()?;
        for name in ["tc-7-9.new", "tc-7.json", "tc-x-9.json", "instance-7-9.json", "tc-7-9.json.bak"] {
            std::fs::write(directory.path().join(name), "{}")?;
            assert!(Note::read(&directory.path().join(name)).is_none(), "{name}");
        }
        let path = directory.path().join("tc-7-9.json");
        assert!(Note::read(&path).is_none(), "it is not there");
        std::os::unix::fs::symlink("/etc/passwd", &path)?;
        assert!(Note::read(&path).is_some_and(|note| note.process == WE && note.record.is_err()));
        Ok(())
    }

    proptest! {
        #[test]
        fn signatures_differ_from_each_other_and_from_what_people_choose(
            pid in 1..4_000_000_i32, start_time in 0..u64::from(u32::MAX)
        ) {
            let signature = ProcessId { pid, start_time }.signature();
            prop_assert!((0x4000_0000..=0x7fff_ffff).contains(&signature));
            prop_assert_ne!(signature, ProcessId { pid: pid + 1, start_time }.signature());
            prop_assert_ne!(signature, ProcessId { pid, start_time: start_time + 1 }.signature());
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(believed(&bytes, WE).is_err());
        }
    }
}
