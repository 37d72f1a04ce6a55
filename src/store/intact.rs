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

/// What a batch begins with: a tag, how many items, its sequence number.
const HEAD_BYTES: usize = 1 + 4 + 8;

/// How far the numbers of batches that were lost can be ahead.
const SEQNOS_AHEAD_MAX: u64 = 1 << 16;

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
    let newest = journals.pop();
    for (_, path) in journals {
        check_sealed(&path, &mut last)?;
    }
    if let Some((_, path)) = newest {
        let at = check_newest(&path, forced, &mut last)?;
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
        // fjall would take the keyspace for one that was never made, and delete all of it.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(rotten(&path, "is missing"));
        }
        Err(error) => return Err(error.into()),
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

fn rotten(path: &Path, what: &str) -> Damage {
    let path = path.display();
    Damage::Rotten(format!("{path} {what}"))
}

/// A journal that another one follows: it was forced to disk as a whole before that was made. `last`
/// is the highest sequence number so far.
fn check_sealed(path: &Path, last: &mut Option<u64>) -> Result<(), Damage> {
    let mut reader = BufReader::new(File::open(path)?);
    let End { at, .. } = whole_batches(path, &mut reader, last)?;
    reader.seek(SeekFrom::Start(at))?;
    match up_to_zeros(&mut reader)?.is_empty() {
        true => Ok(()),
        false => Err(rotten(
            path,
            &format!("is damaged in the middle, at byte {at}"),
        )),
    }
}

/// `last` is the highest sequence number so far. Returns where a torn batch begins that fjall would
/// not let pass, if there is one and no whole one follows.
fn check_newest(
    path: &Path,
    forced: Forced,
    last: &mut Option<u64>,
) -> Result<Option<u64>, Damage> {
    let mut reader = BufReader::new(File::open(path)?);
    let End { at, wrong } = whole_batches(path, &mut reader, last)?;
    if forced == Forced::Some && wrong.is_none() {
        return Ok(None);
    }
    reader.seek(SeekFrom::Start(at))?;
    let rest = up_to_zeros(&mut reader)?;
    let is_last = is_last(&rest, *last)?;
    match wrong {
        Some(Wrong { range, .. }) if is_last && misses_a_sector(&rest, &range) => Ok(Some(at)),
        Some(Wrong { is_odd: true, .. }) => {
            let what = format!("has a length that contradicts another, at byte {at}");
            Err(rotten(path, &what))
        }
        _ if !is_last && forced == Forced::Each => {
            let what = format!("is damaged in the middle, at byte {at}");
            Err(rotten(path, &what))
        }
        _ => Ok(None),
    }
}

/// A batch that is not what was written.
struct Wrong {
    range: Range<u64>,
    /// Two lengths contradict each other.
    is_odd: bool,
}

/// Where the whole batches of a journal end.
struct End {
    at: u64,
    /// The batch there, if it is whole but for its checksum or a length.
    wrong: Option<Wrong>,
}

fn whole_batches(
    path: &Path,
    reader: &mut BufReader<File>,
    last: &mut Option<u64>,
) -> Result<End, Damage> {
    let length = reader.get_ref().metadata()?.len();
    let mut at = 0;
    loop {
        match batch(reader, length - at)? {
            Batch::Whole { seqno, .. } if Some(seqno) <= *last || seqno > SEQNO_MAX => {
                let what = format!("has a batch out of order, at byte {at}");
                return Err(rotten(path, &what));
            }
            Batch::Whole { seqno, bytes } => {
                *last = Some(seqno);
                at += bytes;
            }
            Batch::Wrong { bytes, is_odd } => {
                let range = at..at + bytes;
                let wrong = Some(Wrong { range, is_odd });
                return Ok(End { at, wrong });
            }
            Batch::Torn => return Ok(End { at, wrong: None }),
        }
    }
}

/// Whether no whole batch follows the damaged one that `rest` begins with. What only looks like one,
/// because somebody has stored such bytes in a row, has no number that fits.
fn is_last(rest: &[u8], last: Option<u64>) -> io::Result<bool> {
    let next = last.map_or(0, |last| last + 1);
    for behind in 1..rest.len() {
        let mut bytes = &rest[behind..];
        let head: Option<&[u8; HEAD_BYTES]> = bytes.first_chunk();
        let Some([START, head @ ..]) = head else {
            continue;
        };
        let (count, seqno) = head.split_at(4);
        let count = u32::from_le_bytes(count.try_into().expect("4 bytes"));
        let seqno = u64::from_le_bytes(seqno.try_into().expect("8 bytes"));
        if count == 0 || seqno < next || seqno - next > SEQNOS_AHEAD_MAX {
            continue;
        }
        let left = bytes.len() as u64;
        if matches!(batch(&mut bytes, left)?, Batch::Whole { .. }) {
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
    /// Whole but for its checksum, or for two lengths that must be the same.
    Wrong {
        bytes: u64,
        is_odd: bool,
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
        if is_odd || expected != checksum.digest() {
            return Ok(Batch::Wrong { bytes, is_odd });
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
mod tests;
