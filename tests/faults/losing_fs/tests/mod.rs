//! The file system itself, through the mount.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;

mod cuts;
mod switches;

use super::*;
use crate::harness::Knobs;

const BOTH: [Metadata; 2] = [Metadata::Ordered, Metadata::StrictDirectories];

const PAGE: usize = 4096;

// The numbers of Linux.
const EIO: i32 = 5;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;

/// How long a test waits for something that must come.
const SURELY: Duration = Duration::from_secs(60);

fn until(what: &str, is_so: impl Fn() -> bool) {
    let since = Instant::now();
    while !is_so() {
        assert!(since.elapsed() < SURELY, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

fn sync(dir: &Path) {
    File::open(dir).unwrap().sync_all().unwrap();
}

/// A file with a name that is durable, and this content, that is too.
fn durable(fs: &LosingFs, name: &str, content: &[u8]) -> (PathBuf, File) {
    let path = fs.path().join(name);
    let mut options = OpenOptions::new();
    let options = options.read(true).write(true).create_new(true);
    let mut file = options.open(&path).unwrap();
    file.write_all(content).unwrap();
    file.sync_all().unwrap();
    sync(fs.path());
    (path, file)
}

fn code<T: std::fmt::Debug>(result: io::Result<T>) -> Option<i32> {
    result.unwrap_err().raw_os_error()
}

fn cut(fs: &LosingFs, rng: &mut Rng) -> CutReport {
    let report = fs.cut(rng);
    fs.restore();
    report
}
