//! The disk: names, files, what is open, and what is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::time::SystemTime;

use fastrand::Rng;
use fuser::{Errno, FileAttr, FileType, INodeNo};

use super::file::{CutReport, FileState, Mercy, PAGE_BYTES};
use super::names::{Change, Entries, Ino, Metadata, Names, ROOT, Synced};

/// What the disk says that it has when nothing limits it.
const ROOMY_BYTES: u64 = 64 << 30;

const FULL_BYTES: u64 = PAGE_BYTES as u64;

/// What a sync does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Syncing {
    /// What it says.
    #[default]
    Honest,
    /// The next one fails with EIO.
    FailsOnce,
    /// All fail with EIO.
    Fails,
    /// It says that all is well, and does nothing.
    Lies,
}

/// What is wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) syncing: Syncing,
    /// How many bytes there is room for.
    pub(super) limit: Option<u64>,
    pub(super) is_read_only: bool,
}

/// What was asked of the disk.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) syncs: u64,
    pub(crate) failed_syncs: u64,
    pub(crate) lies: u64,
    /// Requests that were refused because there was no room.
    pub(crate) out_of_space: u64,
    /// Requests that were refused because of EROFS.
    pub(crate) read_only: u64,
}

#[derive(Debug)]
struct Inode {
    mode: u32,
    changed: SystemTime,
    /// `None` is a directory.
    file: Option<FileState>,
}

#[derive(Debug)]
pub(super) struct Disk {
    metadata: Metadata,
    names: Names,
    inodes: BTreeMap<Ino, Inode>,
    next_ino: Ino,
    handles: BTreeMap<u64, Ino>,
    next_handle: u64,
    /// What direct writes brought to the device, and no flush of it to the platter.
    device_cache: BTreeSet<(Ino, u64)>,
    pub(super) has_power: bool,
    pub(super) faults: Faults,
    pub(super) counts: Counts,
}

type Answer<T> = Result<T, Errno>;

impl Disk {
    pub(super) fn new(metadata: Metadata) -> Disk {
        let root = Inode {
            mode: 0o755,
            changed: SystemTime::now(),
            file: None,
        };
        Disk {
            metadata,
            names: Names::new(metadata),
            inodes: BTreeMap::from([(ROOT, root)]),
            next_ino: ROOT + 1,
            handles: BTreeMap::new(),
            next_handle: 1,
            device_cache: BTreeSet::new(),
            has_power: true,
            faults: Faults::default(),
            counts: Counts::default(),
        }
    }

    /// The power goes. Nothing works until it is [restored](Self::restore).
    pub(super) fn cut(&mut self, mercy: Mercy, rng: &mut Rng) -> CutReport {
        let mut report = CutReport::default();
        let lost = self.names.cut(|changes| match mercy {
            Mercy::Nothing => 0,
            Mercy::Everything => changes,
            Mercy::Draw => rng.usize(..=changes),
        });
        report.names_lost = lost as u64;
        let is_ordered = self.metadata == Metadata::Ordered;
        let files = self
            .inodes
            .values_mut()
            .filter_map(|inode| inode.file.as_mut());
        for file in files {
            report.add(file.cut(is_ordered, mercy, rng));
        }
        self.has_power = false;
        self.handles.clear();
        self.device_cache.clear();
        self.forget_unreachable();
        report
    }

    pub(super) fn restore(&mut self) {
        self.has_power = true;
    }

    pub(super) fn used_bytes(&self) -> u64 {
        self.files().map(FileState::allocated).sum()
    }

    fn files(&self) -> impl Iterator<Item = &FileState> {
        self.inodes.values().filter_map(|inode| inode.file.as_ref())
    }

    /// (room, free), in pages.
    pub(super) fn space(&self) -> (u64, u64) {
        let room = self.faults.limit.unwrap_or(ROOMY_BYTES);
        let free = room.saturating_sub(self.used_bytes());
        (room / PAGE_BYTES as u64, free / PAGE_BYTES as u64)
    }

    pub(super) fn expect_power(&self) -> Answer<()> {
        if self.has_power {
            Ok(())
        } else {
            Err(Errno::EIO)
        }
    }

    fn expect_writable(&mut self) -> Answer<()> {
        self.expect_power()?;
        if self.faults.is_read_only {
            self.counts.read_only += 1;
            return Err(Errno::EROFS);
        }
        Ok(())
    }

    fn expect_room(&mut self, bytes: u64) -> Answer<()> {
        let is_full = |limit| self.used_bytes() + bytes > limit;
        if bytes > 0 && self.faults.limit.is_some_and(is_full) {
            self.counts.out_of_space += 1;
            return Err(Errno::ENOSPC);
        }
        Ok(())
    }

    pub(super) fn lookup(&self, dir: Ino, name: &OsStr) -> Answer<FileAttr> {
        self.expect_power()?;
        self.attributes(self.names.find(dir, name).ok_or(Errno::ENOENT)?)
    }

    pub(super) fn attributes(&self, ino: Ino) -> Answer<FileAttr> {
        self.expect_power()?;
        let inode = self.inodes.get(&ino).ok_or(Errno::ENOENT)?;
        let (kind, size, allocated) = match &inode.file {
            Some(file) => (FileType::RegularFile, file.size(), file.allocated()),
            None => (FileType::Directory, 0, 0),
        };
        Ok(FileAttr {
            ino: INodeNo(ino),
            size,
            blocks: allocated / 512,
            atime: inode.changed,
            mtime: inode.changed,
            ctime: inode.changed,
            crtime: inode.changed,
            kind,
            perm: inode.mode as u16 & 0o7777,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: PAGE_BYTES as u32,
            flags: 0,
        })
    }

    pub(super) fn set_mode(&mut self, ino: Ino, mode: u32) -> Answer<()> {
        self.expect_writable()?;
        self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?.mode = mode;
        Ok(())
    }

    pub(super) fn set_size(&mut self, ino: Ino, size: u64) -> Answer<()> {
        self.expect_writable()?;
        self.file(ino)?.set_size(size);
        Ok(())
    }

    /// Makes a file, or a directory.
    pub(super) fn make(
        &mut self,
        dir: Ino,
        name: &OsStr,
        mode: u32,
        is_dir: bool,
    ) -> Answer<FileAttr> {
        self.expect_writable()?;
        self.expect_room(FULL_BYTES)?;
        self.names.directory(dir).ok_or(Errno::ENOENT)?;
        if self.names.find(dir, name).is_some() {
            return Err(Errno::EEXIST);
        }
        let ino = self.next_ino;
        self.next_ino += 1;
        let inode = Inode {
            mode,
            changed: SystemTime::now(),
            file: (!is_dir).then(FileState::default),
        };
        self.inodes.insert(ino, inode);
        self.names.change(Change::Link {
            dir,
            name: name.to_owned(),
            ino,
            is_dir,
        });
        self.attributes(ino)
    }

    pub(super) fn remove(&mut self, dir: Ino, name: &OsStr, is_dir: bool) -> Answer<()> {
        self.expect_writable()?;
        let ino = self.names.find(dir, name).ok_or(Errno::ENOENT)?;
        match (self.names.directory(ino), is_dir) {
            (Some(_), false) => return Err(Errno::EISDIR),
            (None, true) => return Err(Errno::ENOTDIR),
            (Some(entries), true) if !entries.is_empty() => return Err(Errno::ENOTEMPTY),
            (Some(_), true) | (None, false) => {}
        }
        self.names.change(Change::Unlink {
            dir,
            name: name.to_owned(),
            ino,
        });
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn rename(
        &mut self,
        from: (Ino, &OsStr),
        to: (Ino, &OsStr),
        may_replace: bool,
    ) -> Answer<()> {
        self.expect_writable()?;
        let ino = self.names.find(from.0, from.1).ok_or(Errno::ENOENT)?;
        self.names.directory(to.0).ok_or(Errno::ENOENT)?;
        if let Some(replaced) = self.names.find(to.0, to.1) {
            if !may_replace {
                return Err(Errno::EEXIST);
            }
            if replaced == ino {
                return Ok(());
            }
            if self
                .names
                .directory(replaced)
                .is_some_and(|entries| !entries.is_empty())
            {
                return Err(Errno::ENOTEMPTY);
            }
        }
        self.names.change(Change::Rename {
            from: (from.0, from.1.to_owned()),
            to: (to.0, to.1.to_owned()),
            ino,
        });
        self.forget_unreachable();
        Ok(())
    }

    pub(super) fn list(&self, dir: Ino) -> Answer<Vec<(Ino, FileType, OsString)>> {
        self.expect_power()?;
        let entries: &Entries = self.names.directory(dir).ok_or(Errno::ENOENT)?;
        let kind = |ino: Ino| match self.names.directory(ino) {
            Some(_) => FileType::Directory,
            None => FileType::RegularFile,
        };
        let listed = entries.iter();
        Ok(listed
            .map(|(name, ino)| (*ino, kind(*ino), name.clone()))
            .collect())
    }

    pub(super) fn open(&mut self, ino: Ino, is_written: bool) -> Answer<u64> {
        if is_written {
            self.expect_writable()?;
        }
        self.expect_power()?;
        self.file(ino)?;
        let handle = self.next_handle;
        self.next_handle += 1;
        self.handles.insert(handle, ino);
        Ok(handle)
    }

    pub(super) fn release(&mut self, handle: u64) {
        if self.handles.remove(&handle).is_some() {
            self.forget_unreachable();
        }
    }

    pub(super) fn read(&mut self, handle: u64, offset: u64, length: usize) -> Answer<Vec<u8>> {
        let ino = self.opened(handle)?;
        Ok(self.file(ino)?.read(offset, length))
    }

    /// Says how many bytes were written.
    pub(super) fn write(
        &mut self,
        handle: u64,
        offset: Option<u64>,
        bytes: &[u8],
        is_direct: bool,
    ) -> Answer<u32> {
        let ino = self.opened(handle)?;
        self.expect_writable()?;
        let file = self.file(ino)?;
        // Without an offset it is an append.
        let offset = offset.unwrap_or(file.size());
        let missing = file.missing(offset, bytes.len());
        self.expect_room(missing)?;
        self.file(ino)?.write(offset, bytes);
        if is_direct {
            let first = offset / PAGE_BYTES as u64;
            let end = (offset + bytes.len() as u64) / PAGE_BYTES as u64;
            self.device_cache
                .extend((first..end).map(|page| (ino, page)));
        }
        if let Some(inode) = self.inodes.get_mut(&ino) {
            inode.changed = SystemTime::now();
        }
        Ok(bytes.len() as u32)
    }

    pub(super) fn allocate(&mut self, handle: u64, end: u64, keeps_size: bool) -> Answer<()> {
        let ino = self.opened(handle)?;
        self.expect_writable()?;
        let file = self.file(ino)?;
        if !keeps_size && end > file.size() {
            file.set_size(end);
        }
        Ok(())
    }

    pub(super) fn sync(&mut self, synced: Synced) -> Answer<()> {
        self.expect_power()?;
        self.counts.syncs += 1;
        match self.faults.syncing {
            Syncing::Honest => {}
            Syncing::Lies => {
                self.counts.lies += 1;
                return Ok(());
            }
            Syncing::Fails | Syncing::FailsOnce => {
                if self.faults.syncing == Syncing::FailsOnce {
                    self.faults.syncing = Syncing::Honest;
                }
                self.counts.failed_syncs += 1;
                if let Synced::Data(ino) | Synced::File(ino) = synced {
                    self.file(ino)?.fail_sync();
                }
                return Err(Errno::EIO);
            }
        }
        if self.faults.is_read_only && !self.is_clean(synced) {
            self.counts.read_only += 1;
            return Err(Errno::EROFS);
        }
        if let Synced::Data(ino) | Synced::File(ino) = synced {
            self.file(ino)?.sync();
        }
        self.names.sync(synced);
        // What the device was told before is flushed along with it.
        for (ino, page) in std::mem::take(&mut self.device_cache) {
            if let Ok(file) = self.file(ino) {
                file.sync_in_place([page]);
            }
        }
        self.forget_unreachable();
        Ok(())
    }

    fn is_clean(&mut self, synced: Synced) -> bool {
        let is_clean = self.names.is_clean(synced);
        match synced {
            Synced::Data(ino) | Synced::File(ino) => {
                is_clean && self.file(ino).is_ok_and(|file| file.is_clean())
            }
            Synced::Directory(_) => is_clean,
        }
    }

    fn file(&mut self, ino: Ino) -> Answer<&mut FileState> {
        let inode = self.inodes.get_mut(&ino).ok_or(Errno::ENOENT)?;
        inode.file.as_mut().ok_or(Errno::EISDIR)
    }

    /// What was opened before a cut is gone.
    fn opened(&self, handle: u64) -> Answer<Ino> {
        self.expect_power()?;
        self.handles.get(&handle).copied().ok_or(Errno::EIO)
    }

    /// Drops what nobody has open and no cut can bring back.
    fn forget_unreachable(&mut self) {
        let mut kept = self.names.reachable();
        kept.extend(self.handles.values());
        let gone: BTreeSet<Ino> = self
            .inodes
            .keys()
            .filter(|ino| !kept.contains(ino))
            .copied()
            .collect();
        if gone.is_empty() {
            return;
        }
        self.inodes.retain(|ino, _| !gone.contains(ino));
        self.names.forget(&gone);
    }
}
