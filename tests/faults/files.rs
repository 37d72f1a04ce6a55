//! Data directories: copied, listed, damaged.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

/// Journals are preallocated with zeros: what holds none but zeros is left out.
const BLOCK_BYTES: usize = 4096;

/// How long a process may take to run its program.
const LOCKED_MAX: Duration = Duration::from_secs(30);

/// Copies a directory that nobody uses. `to` must not be there.
pub(crate) fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else {
            copy_file(&entry.path(), &target);
        }
    }
}

/// Opens a store that this process may just have closed. Its other tests start processes, and until
/// such a one runs its program it holds every file that was open here, with the locks.
pub(crate) fn open_again<T, E>(
    open: impl Fn() -> Result<T, E>,
    is_in_use: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let deadline = Instant::now() + LOCKED_MAX;
    loop {
        match open() {
            Err(error) if is_in_use(&error) && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(5));
            }
            opened => return opened,
        }
    }
}

fn copy_file(from: &Path, to: &Path) {
    let bytes = fs::read(from).unwrap();
    let file = File::create_new(to).unwrap();
    file.set_len(bytes.len() as u64).unwrap();
    for (number, block) in bytes.chunks(BLOCK_BYTES).enumerate() {
        if block.iter().any(|byte| *byte != 0) {
            let at = (number * BLOCK_BYTES) as u64;
            file.write_all_at(block, at).unwrap();
        }
    }
}

/// Puts the directory `from` in the place of `to`.
pub(crate) fn replace(from: &Path, to: &Path) {
    match fs::remove_dir_all(to) {
        Err(error) if error.kind() != ErrorKind::NotFound => panic!("{}: {error}", to.display()),
        Ok(()) | Err(_) => fs::rename(from, to).unwrap(),
    }
}

/// All files below a directory, relative to it, in order.
pub(crate) fn all(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut left = vec![dir.to_owned()];
    while let Some(folder) = left.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                left.push(entry.path());
            } else {
                found.push(entry.path().strip_prefix(dir).unwrap().to_owned());
            }
        }
    }
    found.sort();
    found
}

/// The journal of a database of fjall's that is written now.
pub(crate) fn journal(database: &Path) -> PathBuf {
    let names = all(database).into_iter();
    let journals = names.filter(|name| name.extension().is_some_and(|it| it == "jnl"));
    let number = |name: &PathBuf| name.file_stem().unwrap().to_str().unwrap().parse::<u64>();
    let last = journals.max_by_key(|name| number(name).unwrap());
    database.join(last.unwrap())
}

/// Cuts so many bytes off the end of a file.
pub(crate) fn cut(file: &Path, bytes: u64) {
    let file = File::options().write(true).open(file).unwrap();
    let length = file.metadata().unwrap().len();
    file.set_len(length - bytes).unwrap();
}

/// Writes into a database of fjall's behind its owner's back: keyspace, key, value.
pub(crate) fn plant(database: &Path, rows: &[(&str, &[u8], &[u8])]) {
    let database = fjall::Database::builder(database).open().unwrap();
    for (keyspace, key, value) in rows {
        let keyspace = database.keyspace(keyspace, Default::default).unwrap();
        keyspace.insert(*key, *value).unwrap();
    }
}

/// Writes what a database of fjall's has in memory into tables, and compacts them.
pub(crate) fn flush(database: &Path) {
    let database = fjall::Database::builder(database).open().unwrap();
    for name in database.list_keyspace_names() {
        let keyspace = database
            .keyspace(&name, fjall::KeyspaceCreateOptions::default)
            .unwrap();
        keyspace.rotate_memtable_and_wait().unwrap();
    }
}
