//! A note as it stands in a file, and whether it can be believed.

use std::{
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{Entry, PREFIX, SUFFIX};
use crate::{process::ProcessId, sys::note};

/// What a note says has a form, which may be another one some day.
const VERSION: u32 = 2;
/// One without classes, which it is read as.
const OLDEST: u32 = 1;
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
    /// The classes in all of their queues, where these have another number than ours.
    #[serde(default)]
    pub(super) classes: Vec<u32>,
}

impl Record {
    /// Nothing of this process yet.
    pub(super) fn new(process: ProcessId, network: u64) -> io::Result<Self> {
        let ProcessId { pid, start_time } = process;
        let (interfaces, classes) = (Vec::new(), Vec::new());
        Ok(Self { version: VERSION, boot: note::boot()?, pid, start_time, network, interfaces, classes })
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
        let process = named(path.file_name()?.to_str()?)?;
        let record = match note::read(path, ROOT) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Err(error) => Err(error.to_string()),
            Ok(text) => believed(&text, process),
        };
        Some(Self { path: path.to_owned(), process, record })
    }
}

/// Whose note has this name.
fn named(name: &str) -> Option<ProcessId> {
    let (pid, start_time) = name.strip_suffix(SUFFIX)?.strip_prefix(PREFIX)?.split_once('-')?;
    Some(ProcessId { pid: pid.parse().ok()?, start_time: start_time.parse().ok()? })
}

fn believed(text: &[u8], process: ProcessId) -> Result<Record, String> {
    let record: Record = serde_json::from_slice(text).map_err(|error| format!("it is damaged ({error})"))?;
    if !(OLDEST..=VERSION).contains(&record.version) {
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
    pub(in crate::backends::throttle) fn signature(self) -> u32 {
        // FNV-1a.
        let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        let bytes = self.pid.to_ne_bytes().into_iter().chain(self.start_time.to_ne_bytes());
        let hash = bytes.fold(0xcbf2_9ce4_8422_2325, mix);
        let [.., a, b, c, d] = (hash ^ hash >> 32).to_be_bytes();
        u32::from_be_bytes([a, b, c, d]) & 0x7fff_ffff | 0x4000_0000
    }
}

/// What is believed of any text is believed of nobody else, and again when it is written.
#[cfg(feature = "fuzzing")]
pub(super) fn fuzz(text: &[u8]) {
    let name = String::from_utf8_lossy(text);
    let process = named(&name).unwrap_or(ProcessId { pid: 7, start_time: 9 });
    if let Ok(record) = believed(text, process) {
        assert!(believed(text, ProcessId { pid: process.pid ^ 1, ..process }).is_err());
        let again = serde_json::to_vec(&record).map(|text| believed(&text, process));
        let again = again.expect("numbers and words").expect("it was believed once");
        assert_eq!((again.boot, again.interfaces), (record.boot, record.interfaces));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        backends::throttle::tc_htb::OURS,
        sys::{links::Link, tc::Handle},
    };

    const WE: ProcessId = ProcessId { pid: 7, start_time: 9 };

    fn record() -> Record {
        let link = Link { index: 3, name: "eth0".into(), queue_len: 1000, ..Link::default() };
        let shared = Entry { is_shared: true, ..Entry::new(&link, Handle::new(1, 0)) };
        Record {
            interfaces: vec![Entry::new(&link, OURS), shared],
            classes: vec![0x0001_cad1],
            ..Record::new(WE, 5).expect("/proc is there")
        }
    }

    #[test]
    fn a_note_is_believed_only_whole_and_of_whom_its_name_says() {
        let text = serde_json::to_vec(&record()).expect("numbers and words");
        assert_eq!(believed(&text, WE).expect("whole").interfaces, record().interfaces);
        for length in 0..text.len() {
            assert!(believed(&text[..length], WE).is_err(), "{length} bytes of it");
        }
        assert!(believed(&text, ProcessId { pid: 8, ..WE }).is_err());
        let old = r#"{"version":1,"boot":"x","pid":7,"start_time":9,"network":5,"interfaces":[{"index":3,"name":"eth0","queue_len":1000}]}"#;
        let old = believed(old.as_bytes(), WE).expect("it has all that there was then");
        assert_eq!((&old.interfaces[0], old.classes.len()), (&record().interfaces[0], 0));
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
