//! A file system that loses what was not synced when its power is cut.
//!
//! SIGKILL does not test fsync: the page cache survives the process. Here every file and every
//! directory has two states, what was written and what is durable, and a [cut](LosingFs::cut)
//! leaves the durable one and a drawn part of the rest: pages as they were, pages as they are, and
//! pages of which some sectors are old and some new. Which names are there afterwards says
//! [`Metadata`]. It can also do what broken disks do: fail, be full, be stuck, be read-only, and lie.
//!
//! It is all in memory, behind FUSE, served by a thread of the test's process. What it does as Linux
//! and its disks do:
//!
//! - A direct write (`O_DIRECT`) over what is durable is in the device's cache when it returns; the
//!   next sync, of whatever file, flushes that too.
//! - After a sync that failed, the pages count as written: reads show them, and no later sync tries
//!   them again. A cut shows that they never were.
//! - A file that was removed lives on as long as somebody has it open.
//! - Locks are the kernel's, and end with the process.

mod disk;
mod file;
mod fuse;
mod gate;
mod names;
mod tests;

use std::io;
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex, MutexGuard};

use fastrand::Rng;
use fuser::{BackgroundSession, Config, MountOption};

pub(crate) use disk::{Counts, Syncing};
pub(crate) use file::CutReport;
pub(crate) use gate::Stall;
pub(crate) use names::Metadata;

use disk::Disk;
use file::Mercy;
use fuse::{Mounted, locked};
use gate::Gate;

/// The bit of an open file that says so. Not all architectures agree.
const O_DIRECT: i32 = if cfg!(any(target_arch = "aarch64", target_arch = "arm")) {
    0o200000
} else {
    0o40000
};

/// A mounted file system. Unmounted when dropped.
#[derive(Debug)]
pub(crate) struct LosingFs {
    mounted: Mounted,
    /// `None` when it is being dropped.
    session: Option<BackgroundSession>,
    folder: tempfile::TempDir,
}

impl LosingFs {
    /// Mounts an empty one on a folder of its own.
    pub(crate) fn mount(metadata: Metadata) -> LosingFs {
        let mounted = Mounted {
            disk: Arc::new(Mutex::new(Disk::new(metadata))),
            gate: Arc::new(Gate::default()),
            o_direct: O_DIRECT,
        };
        let folder = tempfile::Builder::new()
            .prefix("losing-fs-")
            .tempdir()
            .unwrap();
        let mut config = Config::default();
        config.mount_options = vec![
            MountOption::FSName("losing-fs".into()),
            MountOption::NoAtime,
        ];
        let session = fuser::spawn_mount(mounted.clone(), folder.path(), &config);
        let session = session.unwrap_or_else(|error| panic!("{}", why_not_mounted(&error)));
        LosingFs {
            mounted,
            session: Some(session),
            folder,
        }
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        locked(&self.mounted.disk)
    }

    /// The power goes: whatever is under way, and whatever is asked for from now on, fails with EIO.
    /// Kill the processes before; one that is stuck in a request dies only here. What was stuck is
    /// not any more.
    pub(crate) fn cut(&self, rng: &mut Rng) -> CutReport {
        self.cut_with(Mercy::draw(rng), rng)
    }

    /// The [same](Self::cut) at its worst: nothing is left that was not synced.
    pub(crate) fn worst_cut(&self) -> CutReport {
        self.cut_with(Mercy::Nothing, &mut Rng::new())
    }

    fn cut_with(&self, mercy: Mercy, rng: &mut Rng) -> CutReport {
        let report = self.disk().cut(mercy, rng);
        self.mounted.gate.let_go();
        report
    }

    /// The power is back: what survived the [cut](Self::cut) is there.
    pub(crate) fn restore(&self) {
        self.disk().restore();
    }

    /// What syncs do from now on.
    pub(crate) fn set_syncing(&self, syncing: Syncing) {
        self.disk().faults.syncing = syncing;
    }

    /// How many bytes there is room for: with what is used as the limit, the next page finds none.
    pub(crate) fn set_limit(&self, bytes: Option<u64>) {
        self.disk().faults.limit = bytes;
    }

    pub(crate) fn used_bytes(&self) -> u64 {
        self.disk().used_bytes()
    }

    pub(crate) fn set_read_only(&self, is_read_only: bool) {
        self.disk().faults.is_read_only = is_read_only;
    }

    /// What is stuck from now on.
    pub(crate) fn stall(&self, stall: Stall) {
        self.mounted.gate.set(stall);
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.mounted.gate.waiting()
    }

    pub(crate) fn counts(&self) -> Counts {
        self.disk().counts
    }
}

fn why_not_mounted(error: &io::Error) -> String {
    format!(
        "the feature fault-injection needs FUSE, and it cannot be mounted: {error}. It takes root, \
         and /dev/fuse: the kernel's module `fuse` (`modprobe fuse`); in a container, that device \
         and CAP_SYS_ADMIN. Whoever is not root needs Debian's package fuse3 too"
    )
}

impl Drop for LosingFs {
    fn drop(&mut self) {
        self.disk().has_power = false;
        self.mounted.gate.let_go();
        drop(self.session.take());
        // It stays if somebody still has a file open. Then it goes with the last of them.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        if mounts.contains(&*self.path().to_string_lossy()) {
            let detached = Command::new("umount").arg("-l").arg(self.path()).status();
            eprintln!(
                "{} was busy; umount -l: {detached:?}",
                self.path().display()
            );
        }
    }
}
