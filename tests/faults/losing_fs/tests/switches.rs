//! What is wrong with a disk, and that a disk with which nothing is wrong is a file system.

use super::*;

#[test]
fn a_sync_that_fails_is_not_made_good_by_the_next() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let fs = LosingFs::mount(Metadata::Ordered);
    let (path, file) = durable(&fs, "file", b"old");
    file.write_all_at(b"new", 0).unwrap();
    fs.set_syncing(Syncing::FailsOnce);
    assert_eq!(code(file.sync_data()), Some(EIO));
    file.sync_data().unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new", "the page cache has it");
    fs.set_syncing(Syncing::Fails);
    for _ in 0..3 {
        assert_eq!(code(file.sync_all()), Some(EIO));
        assert_eq!(code(File::open(fs.path()).unwrap().sync_all()), Some(EIO));
    }
    assert_eq!(fs.counts().failed_syncs, 7);
    fs.set_syncing(Syncing::Honest);
    drop(file);
    cut(&fs, &mut rng);
    assert_eq!(fs::read(&path).unwrap(), b"old", "the disk never had it");
}

#[test]
fn a_lie_loses_what_it_promised() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let (mut lost, mut kept) = (0, 0);
    for _ in 0..50 {
        let fs = LosingFs::mount(Metadata::Ordered);
        let (path, file) = durable(&fs, "file", b"old");
        fs.set_syncing(Syncing::Lies);
        file.write_all_at(b"new", 0).unwrap();
        file.sync_all().unwrap();
        assert_eq!(fs.counts().lies, 1);
        drop(file);
        cut(&fs, &mut rng);
        match &*fs::read(&path).unwrap() {
            b"old" => lost += 1,
            b"new" => kept += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(lost > 0 && kept > 0, "{lost} lost, {kept} kept");
}

#[test]
fn a_full_disk_has_room_for_what_is_there_and_no_more() {
    let fs = LosingFs::mount(Metadata::Ordered);
    let (_, mut file) = durable(&fs, "file", &[1; 2 * PAGE]);
    file.set_len(1 << 30).unwrap();
    assert_eq!(
        fs.used_bytes(),
        2 * PAGE as u64,
        "what was never written takes no room"
    );
    fs.set_limit(Some(3 * PAGE as u64));
    file.write_all(&[1; PAGE]).unwrap();
    assert_eq!(code(file.write_all(&[1; PAGE])), Some(ENOSPC));
    assert_eq!(code(File::create(fs.path().join("more"))), Some(ENOSPC));
    file.write_all_at(&[2; PAGE], 0).unwrap();
    file.sync_all().unwrap();
    assert_eq!(fs.counts().out_of_space, 2);
    fs.set_limit(None);
    file.write_all(&[1; PAGE]).unwrap();
}

#[test]
fn a_read_only_disk_is_read() {
    let fs = LosingFs::mount(Metadata::Ordered);
    let (path, mut file) = durable(&fs, "file", b"content");
    file.write_all(b" and more").unwrap();
    fs.set_read_only(true);
    assert_eq!(code(file.write_all(b"x")), Some(EROFS));
    assert_eq!(code(file.sync_all()), Some(EROFS));
    assert_eq!(code(file.set_len(0)), Some(EROFS));
    assert_eq!(code(fs::remove_file(&path)), Some(EROFS));
    assert_eq!(code(File::create(fs.path().join("more"))), Some(EROFS));
    assert_eq!(
        code(fs::rename(&path, fs.path().join("moved"))),
        Some(EROFS)
    );
    assert_eq!(fs::read(&path).unwrap(), b"content and more");
    fs.set_read_only(false);
    file.sync_all().unwrap();
}

#[test]
fn a_stuck_disk_holds_whom_it_should_until_it_is_let_go() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let fs = LosingFs::mount(Metadata::Ordered);
    let (path, file) = durable(&fs, "file", b"content");

    fs.stall(Stall::Syncs);
    let (told, done) = mpsc::channel();
    let syncing = file.try_clone().unwrap();
    thread::spawn(move || told.send(syncing.sync_all().map_err(|error| error.raw_os_error())));
    until("the sync waits", || fs.waiting() == 1);
    assert_eq!(fs::read(&path).unwrap(), b"content", "only syncs are stuck");
    assert!(done.try_recv().is_err());
    fs.stall(Stall::Nothing);
    assert_eq!(done.recv_timeout(SURELY).unwrap(), Ok(()));

    fs.stall(Stall::SlowSyncs(Duration::from_millis(300)));
    let since = Instant::now();
    file.sync_all().unwrap();
    assert!(since.elapsed() >= Duration::from_millis(300));

    fs.stall(Stall::Everything);
    let (told, done) = mpsc::channel();
    let reading = path.clone();
    thread::spawn(move || told.send(fs::read(reading).map_err(|error| error.raw_os_error())));
    until("the read waits", || fs.waiting() == 1);
    assert!(done.try_recv().is_err());
    fs.cut(&mut rng);
    assert_eq!(
        done.recv_timeout(SURELY).unwrap(),
        Err(Some(EIO)),
        "the power is gone"
    );
}

#[test]
fn files_are_as_everywhere() {
    let fs = LosingFs::mount(Metadata::Ordered);
    let folder = fs.path().join("folder");
    fs::create_dir(&folder).unwrap();
    let path = folder.join("file");
    let append = || {
        OpenOptions::new()
            .append(true)
            .create(true)
            .open(&path)
            .unwrap()
    };
    let (mut one, mut two) = (append(), append());
    one.write_all(b"one ").unwrap();
    two.write_all(b"two ").unwrap();
    one.write_all(b"three").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one two three");
    one.set_len(3).unwrap();
    one.set_len(5).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"one\0\0");
    assert_eq!(fs::metadata(&path).unwrap().len(), 5);

    one.try_lock().unwrap();
    assert!(two.try_lock().is_err(), "locks are the kernel's");
    drop(one);
    two.try_lock().unwrap();

    assert!(fs::remove_dir(&folder).is_err(), "not empty");
    fs::copy(&path, folder.join("copy")).unwrap();
    fs::rename(folder.join("copy"), fs.path().join("moved")).unwrap();
    let mut names: Vec<_> = fs::read_dir(fs.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["folder", "moved"]);
    for name in 0..500 {
        File::create(folder.join(name.to_string())).unwrap();
    }
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 501);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(fs::read_dir(fs.path()).unwrap().count(), 1);
}

/// Against the machine's own file system.
#[test]
fn a_drawn_history_reads_the_same_as_elsewhere() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let fs = LosingFs::mount(Metadata::StrictDirectories);
    let elsewhere = tempfile::tempdir().unwrap();
    for _ in 0..600 {
        let name = rng.usize(..4).to_string();
        let other = rng.usize(..4).to_string();
        let (what, offset, length) = (rng.u8(..8), rng.u64(..20_000), rng.usize(..10_000));
        let byte = rng.u8(..);
        let apply = |dir: &Path| -> io::Result<()> {
            let path = dir.join(&name);
            let mut options = OpenOptions::new();
            match what {
                0..=3 => {
                    let file = options
                        .write(true)
                        .create(true)
                        .truncate(false)
                        .open(path)?;
                    file.write_all_at(&vec![byte; length], offset)
                }
                4 => options
                    .append(true)
                    .open(path)?
                    .write_all(&vec![byte; length]),
                5 => options.write(true).open(path)?.set_len(offset),
                6 => fs::rename(path, dir.join(&other)),
                _ => fs::remove_file(path),
            }
        };
        let [here, there] = [fs.path(), elsewhere.path()].map(apply);
        assert_eq!(
            here.map_err(|e| e.raw_os_error()),
            there.map_err(|e| e.raw_os_error())
        );
        for name in 0..4 {
            let read = |dir: &Path| fs::read(dir.join(name.to_string())).ok();
            assert!(read(fs.path()) == read(elsewhere.path()), "{name}");
        }
        if rng.u8(..10) == 0
            && let Ok(file) = File::open(fs.path().join(&name))
        {
            file.sync_all().unwrap();
        }
    }
}
