//! What Debian has and these tests need.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

/// Fails unless the program is there.
pub(crate) fn expect_program(program: &str, package: &str) {
    let found = Command::new(program).arg("--version").output();
    let found = found.is_ok_and(|output| output.status.success());
    assert!(
        found,
        "{program} is missing: install Debian's package {package}"
    );
}

/// The library that fakes the time of a process with threads.
pub(crate) fn libfaketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").unwrap();
    let libraries = folders.map(|folder| {
        let folder = folder.unwrap().path();
        folder.join("faketime/libfaketimeMT.so.1")
    });
    let mut libraries = libraries.filter(|library| library.exists());
    let found = libraries.next();
    found.expect("libfaketimeMT.so.1 is missing: install Debian's package faketime")
}
