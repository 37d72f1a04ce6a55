//! What the kernel asks, passed on to the disk.

use std::ffi::OsStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, OpenAccMode, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

use super::disk::Disk;
use super::gate::Gate;
use super::names::{ROOT, Synced};

/// The kernel keeps nothing: what a cut changes behind its back is seen at once.
const NOTHING_KEPT: Duration = Duration::ZERO;

/// Numbers are not used twice.
const ONLY: Generation = Generation(0);

/// Nothing of a file stays in the page cache: it would survive a cut.
const UNCACHED: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

// Linux, on all architectures that Debian has but two old ones.
const O_APPEND: i32 = 0o2000;
const FALLOC_FL_KEEP_SIZE: i32 = 1;

#[derive(Clone, Debug)]
pub(super) struct Mounted {
    pub(super) disk: Arc<Mutex<Disk>>,
    pub(super) gate: Arc<Gate>,
    pub(super) o_direct: i32,
}

/// A panic under the lock is a bug of the test, and has been told.
pub(super) fn locked(disk: &Mutex<Disk>) -> MutexGuard<'_, Disk> {
    disk.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Mounted {
    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.gate.pass_request();
        locked(&self.disk)
    }

    /// A sync that has to wait does so elsewhere: other requests go on.
    fn sync(&self, synced: Synced, reply: ReplyEmpty) {
        if !self.gate.holds_syncs() {
            return empty(self.disk().sync(synced), reply);
        }
        let here = self.clone();
        thread::spawn(move || {
            here.gate.pass_sync();
            empty(locked(&here.disk).sync(synced), reply);
        });
    }
}

fn empty(answer: Result<(), Errno>, reply: ReplyEmpty) {
    match answer {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn entry(answer: Result<FileAttr, Errno>, reply: ReplyEntry) {
    match answer {
        Ok(attributes) => reply.entry(&NOTHING_KEPT, &attributes, ONLY),
        Err(error) => reply.error(error),
    }
}

fn is_written(flags: OpenFlags) -> bool {
    flags.acc_mode() != OpenAccMode::O_RDONLY
}

impl Filesystem for Mounted {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.disk().lookup(parent.0, name), reply);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.disk().attributes(ino.0) {
            Ok(attributes) => reply.attr(&NOTHING_KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut disk = self.disk();
        let answer = mode.map_or(Ok(()), |mode| disk.set_mode(ino.0, mode));
        let answer = answer.and_then(|()| size.map_or(Ok(()), |size| disk.set_size(ino.0, size)));
        match answer.and_then(|()| disk.attributes(ino.0)) {
            Ok(attributes) => reply.attr(&NOTHING_KEPT, &attributes),
            Err(error) => reply.error(error),
        }
    }

    fn mknod(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        entry(self.disk().make(parent.0, name, mode, false), reply);
    }

    fn mkdir(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        entry(self.disk().make(parent.0, name, mode, true), reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name, false), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.disk().remove(parent.0, name, true), reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if flags.contains(RenameFlags::RENAME_EXCHANGE) {
            return reply.error(Errno::EINVAL);
        }
        let may_replace = !flags.contains(RenameFlags::RENAME_NOREPLACE);
        let (from, to) = ((parent.0, name), (new_parent.0, new_name));
        empty(self.disk().rename(from, to, may_replace), reply);
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        match self.disk().open(ino.0, is_written(flags)) {
            Ok(handle) => reply.opened(FileHandle(handle), UNCACHED),
            Err(error) => reply.error(error),
        }
    }

    fn create(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut disk = self.disk();
        let made = disk.make(parent.0, name, mode, false);
        let opened = made.and_then(|made| {
            let handle = disk.open(made.ino.0, is_written(OpenFlags(flags)))?;
            Ok((made, FileHandle(handle)))
        });
        match opened {
            Ok((made, handle)) => reply.created(&NOTHING_KEPT, &made, ONLY, handle, UNCACHED),
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.disk().read(handle.0, offset, size as usize) {
            Ok(bytes) => reply.data(&bytes),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let offset = (flags.0 & O_APPEND == 0).then_some(offset);
        let is_direct = flags.0 & self.o_direct != 0;
        match self.disk().write(handle.0, offset, data, is_direct) {
            Ok(count) => reply.written(count),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _flush: bool,
        reply: ReplyEmpty,
    ) {
        locked(&self.disk).release(handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let synced = if data_only {
            Synced::Data(ino.0)
        } else {
            Synced::File(ino.0)
        };
        self.sync(synced, reply);
    }

    fn fsyncdir(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        self.sync(Synced::Directory(ino.0), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listed = match self.disk().list(ino.0) {
            Ok(listed) => listed,
            Err(error) => return reply.error(error),
        };
        let dots = [".", ".."].map(|dot| (ino.0, FileType::Directory, dot.into()));
        let all = dots.into_iter().chain(listed).zip(1..);
        for ((ino, kind, name), next) in all.skip(offset as usize) {
            if reply.add(INodeNo(ino), next, kind, name) {
                break;
            }
        }
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let (room, free) = self.disk().space();
        let page = super::file::PAGE_BYTES as u32;
        reply.statfs(room, free, free, 1 << 20, 1 << 20, page, 255, page);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        if mode & !FALLOC_FL_KEEP_SIZE != 0 {
            return reply.error(Errno::EOPNOTSUPP);
        }
        let keeps_size = mode & FALLOC_FL_KEEP_SIZE != 0;
        let answer = self.disk().allocate(handle.0, offset + length, keeps_size);
        empty(answer, reply);
    }
}

const _: () = assert!(ROOT == INodeNo::ROOT.0);
