//! Whether what fjall is about to read is what it has written.
//!
//! fjall 3.1.13 (lsm-tree 3.1.10) has a checksum for every block, and does not look at two things
//! whose change it would follow without a word:
//!
//! - the list of a keyspace's tables, `keyspaces/N/vM`, though `current` holds its checksum: a
//!   sequence number in it lifts a whole table above what was written later;
//! - the sequence number of a batch in the journal, which its checksum does not cover: one that is
//!   too high lets an old value hide newer ones, one that is too low makes it a batch that was
//!   written to a table already.
//!
//! And it takes a damaged batch in the journal for the last, torn one, whatever follows it; but if
//! only its checksum is wrong, it refuses the database for ever, also when the batch is the last and
//! the power cut it off: then a sector in the middle of a value may be missing.
//!
//! What is looked at here: each list against its checksum; that the batches of the journals, in
//! order, have rising numbers; and, on demand, that no whole batch follows a damaged one. And the last
//! batch is cut off if it was torn in that way: a sector of it was never written, and is all zeros.
//! (A bit that has flipped in it makes no sector of zeros, and is refused.)

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::{Path, PathBuf};

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

/// The bytes of `current`: version (8), checksum of the list (16), kind of the checksum (1).
const CURRENT_BYTES: usize = 8 + 16 + 1;

/// What ends a batch.
const TRAILER: &[u8] = b"FJL\x03";

/// Above, a sequence number is fjall's own mark for what is not committed.
const SEQNO_MAX: u64 = u64::MAX >> 1;

/// What a disk writes as a whole.
const SECTOR_BYTES: u64 = 512;

const START: u8 = 1;
const ITEM: u8 = 2;
const END: u8 = 3;
const CLEAR: u8 = 4;

/// Whether each batch is forced to disk before the next one is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forced {
    /// Then only the last can be torn.
    Each,
    /// Then those after the last that was forced can be lost in any order.
    Some,
}

/// What is wrong with a database.
#[derive(Debug)]
pub(crate) enum Damage {
    /// It is not what was written.
    Rotten(String),
    /// It cannot be read.
    Io(io::Error),
}

impl From<io::Error> for Damage {
    fn from(error: io::Error) -> Self {
        Damage::Io(error)
    }
}

/// Looks at the files of a database that nobody has open, and cuts a torn batch off at the end. What
/// is missing is somebody else's affair.
pub(crate) fn check(database: &Path, forced: Forced) -> Result<(), Damage> {
    for entry in fs::read_dir(database.join("keyspaces"))? {
        check_tables(&entry?.path())?;
    }
    let mut journals: Vec<(u64, PathBuf)> = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        let number = name.and_then(|name| name.strip_suffix(".jnl")?.parse().ok());
        journals.extend(number.map(|number| (number, path)));
    }
    journals.sort();
    let mut last = None;
    let mut torn = None;
    for (_, path) in journals {
        let at = check_journal(&path, forced, &mut last)?;
        torn = at.map(|at| (path, at));
    }
    if let Some((path, at)) = torn {
        let file = File::options().write(true).open(&path)?;
        file.set_len(at)?;
        file.sync_all()?;
        tracing::info!(path = %path.display(), at, "cut off a batch that was torn, and never saved");
    }
    Ok(())
}

fn check_tables(keyspace: &Path) -> Result<(), Damage> {
    let path = keyspace.join("current");
    let current = match fs::read(&path) {
        Ok(current) => current,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    let rotten = |path: &Path, what: &str| {
        let path = path.display();
        Damage::Rotten(format!("{path} {what}"))
    };
    let current: [u8; CURRENT_BYTES] = current
        .try_into()
        .map_err(|_| rotten(&path, "has another length than it was written with"))?;
    let (version, rest) = current.split_at(8);
    let version = u64::from_le_bytes(version.try_into().expect("8 bytes"));
    let (checksum, kind) = rest.split_at(16);
    let list = keyspace.join(format!("v{version}"));
    let bytes = match fs::read(&list) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(rotten(&list, "is missing"));
        }
        Err(error) => return Err(error.into()),
    };
    if kind != [0] || checksum != xxh3_128(&bytes).to_le_bytes() {
        let what = "is not the list of tables that `current` holds the checksum of";
        return Err(rotten(&list, what));
    }
    Ok(())
}

/// `last` is the highest sequence number so far. Returns where a torn batch begins that fjall would
/// not let pass, if there is one and no whole one follows.
fn check_journal(
    path: &Path,
    forced: Forced,
    last: &mut Option<u64>,
) -> Result<Option<u64>, Damage> {
    let file = File::open(path)?;
    let length = file.metadata()?.len();
    let mut reader = BufReader::new(file);
    let mut at = 0;
    let rotten = |at: u64, what: &str| {
        let path = path.display();
        Damage::Rotten(format!("{path} {what}, at byte {at}"))
    };
    let wrong = loop {
        match batch(&mut reader, length - at)? {
            Batch::Whole { seqno, bytes } => {
                if Some(seqno) <= *last || seqno > SEQNO_MAX {
                    return Err(rotten(at, "has a batch out of order"));
                }
                *last = Some(seqno);
                at += bytes;
            }
            Batch::Odd => return Err(rotten(at, "has a length that contradicts another")),
            Batch::Wrong { bytes } => break Some(at..at + bytes),
            Batch::Torn => break None,
        }
    };
    if forced == Forced::Some && wrong.is_none() {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let rest = up_to_zeros(&mut reader)?;
    if !is_last(&rest)? {
        return match forced {
            Forced::Each => Err(rotten(at, "is damaged in the middle")),
            Forced::Some => Ok(None),
        };
    }
    Ok(wrong
        .filter(|range| misses_a_sector(&rest, range))
        .map(|range| range.start))
}

/// Whether no whole batch follows the one that `rest` begins with.
fn is_last(rest: &[u8]) -> io::Result<bool> {
    for behind in 1..rest.len() {
        let mut bytes = &rest[behind..];
        let left = bytes.len() as u64;
        if bytes[0] == START && matches!(batch(&mut bytes, left)?, Batch::Whole { .. }) {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Whether a sector of the batch at `range`, with which `rest` begins, was never written.
fn misses_a_sector(rest: &[u8], range: &Range<u64>) -> bool {
    let mut sectors = range.start / SECTOR_BYTES..range.end.div_ceil(SECTOR_BYTES);
    sectors.any(|sector| {
        let start = (sector * SECTOR_BYTES).max(range.start) - range.start;
        let end = ((sector + 1) * SECTOR_BYTES).min(range.end) - range.start;
        let bytes = rest.get(start as usize..end as usize);
        bytes.is_some_and(|bytes| bytes.iter().all(|byte| *byte == 0))
    })
}

/// What is left to read, without the zeros at its end: journals are preallocated with them.
fn up_to_zeros(reader: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut rest = Vec::new();
    let mut zeros = 0;
    let mut buffer = [0; 4096];
    loop {
        let bytes = reader.read(&mut buffer)?;
        if bytes == 0 {
            return Ok(rest);
        }
        if buffer[..bytes].iter().all(|byte| *byte == 0) {
            zeros += bytes;
            continue;
        }
        rest.resize(rest.len() + std::mem::take(&mut zeros), 0);
        rest.extend(&buffer[..bytes]);
    }
}

enum Batch {
    Whole {
        seqno: u64,
        bytes: u64,
    },
    /// Whole but for two lengths that must be the same.
    Odd,
    /// Whole but for its checksum.
    Wrong {
        bytes: u64,
    },
    /// Anything else.
    Torn,
}

/// Reads one batch of a journal; nothing beyond `left` bytes.
fn batch(reader: &mut impl Read, left: u64) -> io::Result<Batch> {
    let mut taken = Taken {
        reader: reader.take(left),
        bytes: 0,
    };
    match taken.batch() {
        Ok(batch) => Ok(batch),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(Batch::Torn),
        Err(error) => Err(error),
    }
}

struct Taken<R> {
    reader: io::Take<R>,
    bytes: u64,
}

impl<R: Read> Taken<R> {
    fn batch(&mut self) -> io::Result<Batch> {
        let [START] = self.take()? else {
            return Ok(Batch::Torn);
        };
        let count = u32::from_le_bytes(self.take()?);
        let seqno = u64::from_le_bytes(self.take()?);
        let mut checksum = Xxh3::new();
        let mut is_odd = false;
        for _ in 0..count {
            match self.take()? {
                [ITEM] => is_odd |= self.item(&mut checksum)?,
                [CLEAR] => {
                    let keyspace: [u8; 8] = self.take()?;
                    checksum.update(&[CLEAR]);
                    checksum.update(&keyspace);
                }
                _ => return Ok(Batch::Torn),
            }
        }
        let [END] = self.take()? else {
            return Ok(Batch::Torn);
        };
        let expected = u64::from_le_bytes(self.take()?);
        let trailer: [u8; 4] = self.take()?;
        let bytes = self.bytes;
        if trailer != TRAILER {
            return Ok(Batch::Torn);
        }
        if is_odd {
            return Ok(Batch::Odd);
        }
        if expected != checksum.digest() {
            return Ok(Batch::Wrong { bytes });
        }
        Ok(Batch::Whole { seqno, bytes })
    }

    /// Whether its lengths contradict each other.
    fn item(&mut self, checksum: &mut Xxh3) -> io::Result<bool> {
        // Kind of value, compression, keyspace.
        let kind: [u8; 1 + 1 + 8] = self.take()?;
        let key: [u8; 2] = self.take()?;
        let lengths: [u8; 4 + 4] = self.take()?;
        for part in [&[ITEM][..], &kind, &key, &lengths] {
            checksum.update(part);
        }
        let (value, on_disk) = lengths.split_at(4);
        let on_disk_bytes = u32::from_le_bytes(on_disk.try_into().expect("4 bytes"));
        let mut left = u64::from(u16::from_le_bytes(key)) + u64::from(on_disk_bytes);
        let mut buffer = [0; 4096];
        while left > 0 {
            let part = left.min(buffer.len() as u64) as usize;
            self.reader.read_exact(&mut buffer[..part])?;
            checksum.update(&buffer[..part]);
            self.bytes += part as u64;
            left -= part as u64;
        }
        let is_compressed = kind[1] != 0;
        Ok(!is_compressed && value != on_disk)
    }

    fn take<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.reader.read_exact(&mut bytes)?;
        self.bytes += N as u64;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use fjall::{Database, KeyspaceCreateOptions, PersistMode};
    use tempfile::TempDir;

    use super::*;

    /// A database with four batches in its journal, and where each ends.
    fn database() -> (TempDir, PathBuf, Vec<usize>) {
        let folder = tempfile::tempdir().unwrap();
        let mut ends = Vec::new();
        let journal = folder.path().join("0.jnl");
        let database = Database::builder(folder.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
        let rows = rows.unwrap();
        for value in ["one", "two", "three", "four"] {
            rows.insert("key", value).unwrap();
            database.persist(PersistMode::SyncData).unwrap();
            let bytes = fs::read(&journal).unwrap();
            ends.push(bytes.iter().rposition(|byte| *byte != 0).unwrap() + 1);
        }
        drop((rows, database));
        // Most of the zeros behind it.
        let file = File::options().write(true).open(&journal).unwrap();
        file.set_len(ends[3] as u64 + 9_000).unwrap();
        (folder, journal, ends)
    }

    fn flip(path: &Path, at: usize, bit: u8) {
        let mut bytes = fs::read(path).unwrap();
        bytes[at] ^= bit;
        fs::write(path, bytes).unwrap();
    }

    fn says(folder: &TempDir, forced: Forced, expected: &str) {
        match check(folder.path(), forced) {
            Err(Damage::Rotten(text)) => assert!(text.contains(expected), "{text}"),
            other => panic!("expected {expected}, got {other:?}"),
        }
    }

    #[test]
    fn what_was_written_is_intact_also_when_its_end_is_torn() {
        let (folder, journal, ends) = database();
        for forced in [Forced::Each, Forced::Some] {
            check(folder.path(), forced).unwrap();
        }
        let whole = fs::read(&journal).unwrap();
        for torn in ends[2]..ends[3] {
            // Cut off, and overwritten with zeros.
            fs::write(&journal, &whole[..torn]).unwrap();
            check(folder.path(), Forced::Each).unwrap();
            let mut zeros = whole.clone();
            zeros[torn..ends[3]].fill(0);
            fs::write(&journal, &zeros).unwrap();
            check(folder.path(), Forced::Each).unwrap();
        }
    }

    #[test]
    fn numbers_of_batches_rise() {
        let (folder, journal, ends) = database();
        // The number of the second batch stands behind its tag and its count.
        let number = ends[0] + 1 + 4;
        for byte in 1..8 {
            flip(&journal, number + byte, 1);
            says(&folder, Forced::Some, "has a batch out of order");
            flip(&journal, number + byte, 1);
        }
        // In the last one even a high number changes nothing, unless it is one of fjall's own.
        let number = ends[2] + 1 + 4;
        flip(&journal, number + 5, 1);
        check(folder.path(), Forced::Each).unwrap();
        flip(&journal, number + 7, 0x80);
        says(&folder, Forced::Each, "has a batch out of order");
    }

    #[test]
    fn damage_before_whole_batches_is_no_torn_end() {
        let (folder, journal, ends) = database();
        for at in [0, ends[0] - 1, ends[0], ends[2] - 1] {
            flip(&journal, at, 0x10);
            says(&folder, Forced::Each, "is damaged in the middle");
            // Here the numbers of saves say it.
            check(folder.path(), Forced::Some).unwrap();
            flip(&journal, at, 0x10);
        }
    }

    #[test]
    fn lengths_that_contradict_each_other_are_noticed() {
        let (folder, journal, _) = database();
        // Tag, count and number of the batch; tag, kind, compression, keyspace, length of the key.
        let length = 13 + 1 + 1 + 1 + 8 + 2;
        flip(&journal, length, 4);
        says(
            &folder,
            Forced::Some,
            "has a length that contradicts another",
        );
    }

    #[test]
    fn a_last_batch_that_misses_a_sector_is_cut_off_and_no_other() {
        let (folder, journal, _) = database();
        let before = fs::metadata(&journal).unwrap().len();
        {
            let database = Database::builder(folder.path()).open().unwrap();
            let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
            rows.unwrap().insert("long", [b'x'; 3_000]).unwrap();
            database.persist(PersistMode::SyncData).unwrap();
        }
        let whole = fs::read(&journal).unwrap();
        let end = whole.iter().rposition(|byte| *byte != 0).unwrap() + 1;
        let value = whole
            .windows(9)
            .position(|bytes| bytes == [b'x'; 9])
            .unwrap();
        let sector = value.next_multiple_of(512);
        assert!(sector + 512 < end && end < before as usize + 4_000);
        for forced in [Forced::Each, Forced::Some] {
            let mut torn = whole.clone();
            torn[sector..sector + 512].fill(0);
            fs::write(&journal, &torn).unwrap();
            check(folder.path(), forced).unwrap();
            let cut = fs::metadata(&journal).unwrap().len() as usize;
            assert!(cut < value && value - cut < 64, "{cut} {value}");
            let database = Database::builder(folder.path()).open().unwrap();
            let rows = database.keyspace("rows", KeyspaceCreateOptions::default);
            let rows = rows.unwrap();
            assert_eq!(rows.get("key").unwrap().as_deref(), Some(&b"four"[..]));
            assert_eq!(rows.get("long").unwrap(), None);
            drop((rows, database));

            // A flipped bit is no torn sector: fjall refuses it.
            let mut rotten = whole.clone();
            rotten[sector] ^= 1;
            fs::write(&journal, &rotten).unwrap();
            check(folder.path(), forced).unwrap();
            assert_eq!(fs::metadata(&journal).unwrap().len(), whole.len() as u64);
            assert!(Database::builder(folder.path()).open().is_err());

            // Nor is anything cut off that whole batches follow.
            let mut followed = torn.clone();
            let first = followed[..64].to_vec();
            followed.truncate(end);
            followed.extend(first);
            followed.extend(&whole[..end]);
            fs::write(&journal, &followed).unwrap();
            match forced {
                Forced::Each => says(&folder, forced, "is damaged in the middle"),
                Forced::Some => check(folder.path(), forced).unwrap(),
            }
            assert_eq!(fs::metadata(&journal).unwrap().len(), followed.len() as u64);
        }
    }

    #[test]
    fn a_list_of_tables_is_what_it_was() {
        for name in ["current", "v0"] {
            let (folder, _, _) = database();
            let path = folder.path().join("keyspaces/1").join(name);
            let length = fs::metadata(&path).unwrap().len() as usize;
            for at in 0..length {
                flip(&path, at, 2);
                let found = check(folder.path(), Forced::Some);
                assert!(matches!(found, Err(Damage::Rotten(_))), "{name} {at}");
                flip(&path, at, 2);
            }
        }
    }
}
