//! What a cut leaves.

use super::*;

#[test]
fn what_was_synced_is_there_after_every_cut() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for metadata in BOTH {
        let fs = LosingFs::mount(metadata);
        let mut content = vec![7; 3 * PAGE + 100];
        durable(&fs, "file", &content);
        for round in 0..20 {
            let path = fs.path().join("file");
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .open(&path)
                .unwrap();
            let offset = rng.usize(..content.len());
            let more = vec![round; rng.usize(1..2 * PAGE)];
            content.resize(content.len().max(offset + more.len()), 0);
            content[offset..][..more.len()].copy_from_slice(&more);
            file.seek(SeekFrom::Start(offset as u64)).unwrap();
            file.write_all(&more).unwrap();
            match rng.bool() {
                true => file.sync_all().unwrap(),
                false => file.sync_data().unwrap(),
            }
            drop(file);
            assert_eq!(cut(&fs, &mut rng), CutReport::default());
            assert!(fs::read(&path).unwrap() == content);
        }
    }
}

#[test]
fn what_was_not_synced_may_be_there_or_not_or_torn() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for metadata in BOTH {
        let fs = LosingFs::mount(metadata);
        let old = vec![1; 8 * PAGE];
        let (path, file) = durable(&fs, "file", &old);
        drop(file);
        let mut sum = CutReport::default();
        let mut torn_bytes = 0;
        for _ in 0..60 {
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            file.write_all_at(&old, 0).unwrap();
            file.sync_all().unwrap();
            file.write_all_at(&[2; 4 * PAGE], 2 * PAGE as u64).unwrap();
            drop(file);
            sum.add(cut(&fs, &mut rng));
            let found = fs::read(&path).unwrap();
            assert_eq!(found.len(), old.len());
            let (changed, rest) = (
                &found[2 * PAGE..6 * PAGE],
                [&found[..2 * PAGE], &found[6 * PAGE..]],
            );
            assert!(rest.iter().all(|bytes| bytes.iter().all(|byte| *byte == 1)));
            for page in changed.chunks(PAGE) {
                for sector in page.chunks(512) {
                    assert!(
                        sector.iter().all(|byte| *byte == sector[0]),
                        "no sector is torn"
                    );
                }
                torn_bytes += usize::from(page.contains(&1) && page.contains(&2));
            }
        }
        assert!(
            sum.pages_kept > 0 && sum.pages_dropped > 0 && sum.pages_torn > 0,
            "{sum:?}"
        );
        assert_eq!(sum.pages_torn, torn_bytes as u64);
        assert_eq!(sum.pages_kept + sum.pages_dropped + sum.pages_torn, 60 * 4);
        assert!(sum.bytes_lost > 0);
    }
}

/// A file that grows grows over what was written, or over zeros, and only the first kind is ordered.
#[test]
fn growth_that_was_not_synced() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for metadata in BOTH {
        let (mut shorter, mut grown, mut holes) = (0, 0, 0);
        for _ in 0..60 {
            let fs = LosingFs::mount(metadata);
            let (path, mut file) = durable(&fs, "file", &[1; PAGE]);
            file.write_all(&[2; 5 * PAGE]).unwrap();
            drop(file);
            cut(&fs, &mut rng);
            let found = fs::read(&path).unwrap();
            assert!((PAGE..=6 * PAGE).contains(&found.len()));
            assert!(found[..PAGE].iter().all(|byte| *byte == 1));
            shorter += u32::from(found.len() < 6 * PAGE);
            grown += u32::from(found.len() > PAGE);
            holes += u32::from(found[PAGE..].contains(&0));
        }
        assert!(shorter > 0 && grown > 0);
        assert_eq!(holes > 0, metadata == Metadata::StrictDirectories);
    }
}

#[test]
fn the_name_of_a_synced_file_is_durable_only_where_names_are_ordered() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for metadata in BOTH {
        for _ in 0..10 {
            let fs = LosingFs::mount(metadata);
            fs::create_dir(fs.path().join("folder")).unwrap();
            let path = fs.path().join("folder/file");
            let file = File::create(&path).unwrap();
            (&file).write_all(b"content").unwrap();
            file.sync_data().unwrap();
            drop(file);
            let lost = cut(&fs, &mut rng).names_lost;
            let is_there = metadata == Metadata::Ordered;
            assert_eq!(
                (path.exists(), lost),
                (is_there, if is_there { 0 } else { 2 })
            );

            // With its directories, it is durable everywhere.
            if !is_there {
                fs::create_dir(fs.path().join("folder")).unwrap();
                fs::write(&path, b"content").unwrap();
                File::open(&path).unwrap().sync_all().unwrap();
                sync(&fs.path().join("folder"));
                sync(fs.path());
                assert_eq!(cut(&fs, &mut rng).names_lost, 0);
            }
            assert_eq!(fs::read(&path).unwrap(), b"content");
        }
    }
}

#[test]
fn names_survive_in_the_order_in_which_they_were_made() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let mut counts = std::collections::BTreeSet::new();
    for _ in 0..40 {
        let fs = LosingFs::mount(Metadata::Ordered);
        for name in 0..5 {
            File::create(fs.path().join(name.to_string())).unwrap();
        }
        cut(&fs, &mut rng);
        let there: Vec<bool> = (0..5)
            .map(|name| fs.path().join(name.to_string()).exists())
            .collect();
        assert!(
            there.is_sorted_by(|earlier, later| earlier >= later),
            "{there:?}"
        );
        counts.insert(there.iter().filter(|is_there| **is_there).count());
    }
    assert!(counts.len() > 2, "{counts:?}");
}

#[test]
fn a_rename_is_done_or_not() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for metadata in BOTH {
        let mut moved = 0;
        for round in 0..100 {
            let fs = LosingFs::mount(metadata);
            let (target, _) = durable(&fs, "target", b"old");
            let (source, file) = durable(&fs, "source", b"new");
            fs::rename(&source, &target).unwrap();
            let is_synced = round % 2 == 0;
            if is_synced && metadata == Metadata::Ordered {
                file.sync_all().unwrap();
            } else if is_synced {
                sync(fs.path());
            }
            drop(file);
            cut(&fs, &mut rng);
            let is_moved = !source.exists();
            assert_eq!(
                fs::read(&target).unwrap(),
                if is_moved { b"new" } else { b"old" }
            );
            assert!(!is_synced || is_moved);
            moved += u32::from(is_moved && !is_synced);
        }
        assert_eq!(moved > 0, metadata == Metadata::Ordered, "{moved}");
    }
}

#[test]
fn a_removed_file_comes_back_if_that_was_not_synced() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let fs = LosingFs::mount(Metadata::StrictDirectories);
    let (path, file) = durable(&fs, "file", b"content");
    fs::remove_file(&path).unwrap();
    let mut content = String::new();
    (&file).seek(SeekFrom::Start(0)).unwrap();
    (&file).read_to_string(&mut content).unwrap();
    assert_eq!(content, "content", "it is still open");
    drop(file);
    cut(&fs, &mut rng);
    assert_eq!(fs::read(&path).unwrap(), b"content");
    fs::remove_file(&path).unwrap();
    sync(fs.path());
    cut(&fs, &mut rng);
    assert!(!path.exists());
    assert_eq!(fs.used_bytes(), 0, "nothing is left of it");
}

/// What the store relies on for its high-water sector.
#[test]
fn a_direct_write_becomes_durable_with_the_next_sync_of_anything() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    for is_direct in [true, false] {
        let mut lost = 0;
        for round in 0..50 {
            let fs = LosingFs::mount(Metadata::StrictDirectories);
            let (path, _) = durable(&fs, "sector", &[1; PAGE]);
            let (_, other) = durable(&fs, "other", b"");
            let mut options = OpenOptions::new();
            let flags = if is_direct { O_DIRECT } else { 0 };
            let file = options.write(true).custom_flags(flags).open(&path).unwrap();
            let room = vec![2; 2 * PAGE];
            let start = room.as_ptr().align_offset(PAGE);
            file.write_all_at(&room[start..][..PAGE], 0).unwrap();
            let is_flushed = round % 2 == 0;
            if is_flushed {
                other.sync_data().unwrap();
            }
            drop((file, other));
            cut(&fs, &mut rng);
            let is_lost = fs::read(&path).unwrap() != [2; PAGE];
            assert!(!(is_direct && is_flushed && is_lost));
            lost += u32::from(is_lost);
        }
        assert!(lost > 0);
    }
}

#[test]
fn without_power_nothing_works_and_what_was_open_never_does_again() {
    let mut rng = Knobs::new(Duration::ZERO).rng();
    let fs = LosingFs::mount(Metadata::Ordered);
    let (path, mut file) = durable(&fs, "file", b"content");
    fs.cut(&mut rng);
    assert_eq!(code(file.write_all(b"more")), Some(EIO));
    assert_eq!(code(file.sync_all()), Some(EIO));
    assert_eq!(code(fs::read(&path)), Some(EIO));
    assert_eq!(code(fs::create_dir(fs.path().join("folder"))), Some(EIO));
    fs.restore();
    assert_eq!(code(file.write_all(b"more")), Some(EIO));
    assert_eq!(code(file.read(&mut [0; 8])), Some(EIO));
    assert_eq!(fs::read(&path).unwrap(), b"content");
    fs::write(&path, b"again").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"again");
}
