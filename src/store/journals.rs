//! Journals that an earlier process has left.
//!
//! What a process reads at its start is what the system has in memory, and that can be more than what
//! is on the disk: an earlier process may have been killed between its write and its `fdatasync`, or
//! that `fdatasync` failed. In the second case Linux takes the pages for written from then on, and no
//! later `fdatasync` tries them again. Whoever then acts on what he read loses it when the power goes;
//! and with it what he makes durable afterwards, since fjall stops reading at the damaged place.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

const EXTENSION: &str = "jnl";

/// What the system keeps, or loses, as a whole.
const PAGE_BYTES: usize = 4096;

/// How much is read at once.
const READ_BYTES: usize = 256 * PAGE_BYTES;

/// Whether a database has a journal. There is always one: without, fjall would go on in silence.
pub(crate) fn exist(database: &Path) -> io::Result<bool> {
    Ok(!list(database)?.is_empty())
}

/// Writes all journals of a database once more, with the same bytes, and forces them to disk: what is
/// read of them afterwards is durable. To be called before the database is opened, by whoever holds
/// its directory. A crash in between changes nothing.
///
/// # Errors
/// When the disk says no. The database must not be opened then.
pub(crate) fn force(database: &Path) -> io::Result<()> {
    for path in list(database)? {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        write_again(&file)?;
        file.sync_all()?;
    }
    // A journal's name, too, may be one that was never forced.
    File::open(database)?.sync_all()
}

fn list(database: &Path) -> io::Result<Vec<PathBuf>> {
    let mut journals = Vec::new();
    for entry in fs::read_dir(database)? {
        let path = entry?.path();
        if path.extension().is_some_and(|it| it == EXTENSION) {
            journals.push(path);
        }
    }
    Ok(journals)
}

/// Holes stay holes: a journal is made with room for 64 MiB, and most of it was never written.
fn write_again(file: &File) -> io::Result<()> {
    let mut buffer = vec![0; READ_BYTES];
    let mut offset = 0;
    loop {
        let count = file.read_at(&mut buffer, offset)?;
        if count == 0 {
            return Ok(());
        }
        let pages = buffer[..count].chunks(PAGE_BYTES);
        for (page, at) in pages.zip((offset..).step_by(PAGE_BYTES)) {
            if page.iter().any(|byte| *byte != 0) {
                file.write_all_at(page, at)?;
            }
        }
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn journals_are_the_same_afterwards() {
        let folder = tempfile::tempdir().unwrap();
        assert!(!exist(folder.path()).unwrap());
        let path = folder.path().join("0.jnl");
        let file = File::create(&path).unwrap();
        file.write_all_at(b"a batch", 5_000).unwrap();
        file.write_all_at(b"another", 3 * READ_BYTES as u64 - 4)
            .unwrap();
        file.set_len(64 << 20).unwrap();
        fs::write(folder.path().join("version"), b"3").unwrap();
        let blocks = file.metadata().unwrap().blocks();
        let before = fs::read(&path).unwrap();
        assert!(exist(folder.path()).unwrap());
        force(folder.path()).unwrap();
        assert!(fs::read(&path).unwrap() == before);
        let after = file.metadata().unwrap();
        assert!(after.blocks() <= blocks, "holes stay holes");
        assert_eq!(after.len(), 64 << 20);
    }

    #[test]
    fn what_cannot_be_written_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("0.jnl")).unwrap();
        assert!(force(folder.path()).is_err());
        assert!(force(&folder.path().join("none")).is_err());
    }
}
