//! The high-water sector: how far the store is known to have come, outside of the store.
//!
//! fjall forgets without a word what stands behind a damaged place of its journal, durable or not;
//! and a disk, a hypervisor or a person can put an older file in the place of a newer one. So every
//! save leaves a trace in a second file, and a store that has less than the trace says is refused.
//!
//! **What it costs.** A save is one `fdatasync`, and a second one would double its time. So when save
//! *n* is durable and everyone who waited for it was told, `complete = n` is written without being
//! forced, but with `O_DIRECT`: the bytes are in the device's cache when the write returns, and the
//! flush of that cache which the journal's next `fdatasync` asks for covers them. They never cost a
//! flush of their own, and when save *n+1* is durable, so is the trace of save *n*. When no save comes
//! for a while, the trace of the last one is forced.
//!
//! Where `O_DIRECT` is refused (tmpfs), writes go through the page cache: after a crash of the
//! process the trace is as good, after one of the machine it may be some seconds old. An old trace
//! sees less; it never accuses a store that is whole.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// The bytes of a slot: what the strictest devices take as the unit of a direct write. Only the
/// first [`USED_BYTES`] count, which no device tears.
const SLOT_BYTES: usize = 4096;

/// Two slots, written in turn: a torn write leaves the other one.
const SLOTS: u64 = 2;

const MAGIC: [u8; 16] = *b"paxos-commit hw1";

/// Magic, LSN and checksum.
const USED_BYTES: usize = 16 + 8 + 4;

/// The flag for writes that bypass the page cache, where it is known.
const O_DIRECT: i32 = if cfg!(any(
    target_arch = "x86_64",
    target_arch = "x86",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "loongarch64"
)) {
    0o40000
} else if cfg!(any(target_arch = "aarch64", target_arch = "arm")) {
    0o200000
} else {
    0
};

/// The file, open for writing.
pub(super) struct HighWater {
    file: File,
    /// Room for a slot at an address that is a multiple of its size.
    buffer: Vec<u8>,
    start: usize,
    /// Which slot is written next.
    turn: u64,
}

impl HighWater {
    /// Creates the file, with nothing complete.
    pub(super) fn create(path: &Path) -> io::Result<()> {
        let file = File::create_new(path)?;
        let slot = slot(0);
        for turn in 0..SLOTS {
            file.write_all_at(&slot, turn * SLOT_BYTES as u64)?;
        }
        file.sync_all()
    }

    /// Reads what is complete: the highest of the slots that are whole, if any is.
    pub(super) fn read(path: &Path) -> io::Result<Option<u64>> {
        let bytes = std::fs::read(path)?;
        let slots = bytes.chunks(SLOT_BYTES);
        Ok(slots.filter_map(complete).max())
    }

    /// Opens the file to go on after `complete`.
    pub(super) fn open(path: &Path, complete: u64) -> io::Result<Self> {
        let open = |flags| {
            let file = OpenOptions::new()
                .write(true)
                .custom_flags(flags)
                .open(path)?;
            let buffer = vec![0; 2 * SLOT_BYTES];
            let start = buffer.as_ptr().align_offset(SLOT_BYTES);
            let mut high_water = HighWater {
                file,
                buffer,
                start,
                turn: 0,
            };
            // Both slots: what a start finds may be torn in one of them.
            high_water.write(complete)?;
            high_water.write(complete)?;
            high_water.sync()?;
            Ok(high_water)
        };
        let direct: io::Result<Self> = open(O_DIRECT);
        direct.or_else(|_| open(0))
    }

    /// Says that everything up to `complete` is durable. The next flush of the device makes it
    /// durable itself.
    pub(super) fn write(&mut self, complete: u64) -> io::Result<()> {
        let room = &mut self.buffer[self.start..][..SLOT_BYTES];
        room.copy_from_slice(&slot(complete));
        self.file
            .write_all_at(room, (self.turn % SLOTS) * SLOT_BYTES as u64)?;
        self.turn += 1;
        Ok(())
    }

    /// Asks for that flush.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

pub(super) fn slot(complete: u64) -> [u8; SLOT_BYTES] {
    let mut slot = [0; SLOT_BYTES];
    slot[..16].copy_from_slice(&MAGIC);
    slot[16..24].copy_from_slice(&complete.to_be_bytes());
    let crc = crc32fast::hash(&slot[..24]);
    slot[24..USED_BYTES].copy_from_slice(&crc.to_be_bytes());
    slot
}

pub(super) fn complete(bytes: &[u8]) -> Option<u64> {
    let number = bytes.get(16..24)?.try_into().ok()?;
    let complete = u64::from_be_bytes(number);
    (bytes.get(..USED_BYTES)? == &slot(complete)[..USED_BYTES]).then_some(complete)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("highwater");
        HighWater::create(&path).unwrap();
        (folder, path)
    }

    #[test]
    fn the_last_that_was_written_is_read() {
        let (_folder, path) = file();
        assert_eq!(HighWater::read(&path).unwrap(), Some(0));
        let mut high_water = HighWater::open(&path, 5).unwrap();
        assert_eq!(HighWater::read(&path).unwrap(), Some(5));
        for complete in 6..=9 {
            high_water.write(complete).unwrap();
            assert_eq!(HighWater::read(&path).unwrap(), Some(complete));
        }
        high_water.sync().unwrap();
        let size = std::fs::metadata(&path).unwrap().len();
        assert_eq!(size, SLOTS * SLOT_BYTES as u64);
    }

    #[test]
    fn a_torn_slot_leaves_the_other() {
        for torn in 0..SLOTS as usize {
            let (_folder, path) = file();
            let mut high_water = HighWater::open(&path, 7).unwrap();
            high_water.write(8).unwrap();
            high_water.write(9).unwrap();
            let mut bytes = std::fs::read(&path).unwrap();
            bytes[torn * SLOT_BYTES + 23] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            let left = HighWater::read(&path).unwrap();
            assert_eq!(left, Some([9, 8][torn]));
            bytes[(1 - torn) * SLOT_BYTES] ^= 1;
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(HighWater::read(&path).unwrap(), None);
        }
        let (_folder, path) = file();
        std::fs::write(&path, b"").unwrap();
        assert_eq!(HighWater::read(&path).unwrap(), None);
    }

    #[test]
    fn a_file_system_without_direct_writes_does_as_well() {
        // tmpfs, where there is one.
        let Ok(folder) = tempfile::tempdir_in("/dev/shm") else {
            return;
        };
        let path = folder.path().join("highwater");
        HighWater::create(&path).unwrap();
        let mut high_water = HighWater::open(&path, 1).unwrap();
        high_water.write(2).unwrap();
        assert_eq!(HighWater::read(&path).unwrap(), Some(2));
    }
}
