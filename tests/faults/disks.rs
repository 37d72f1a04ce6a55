//! Disks that fail, are full, are stuck, or can only be read: the process ends and says why, the
//! others carry on, and it comes back when the disk does.

use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::harness::adversary::summary;
use crate::harness::arena::{PATIENCE, text};
use crate::harness::{Arena, Knobs, Options};
use crate::losing_fs::{LosingFs, Metadata, Stall, Syncing};

/// Who gets the disk.
const VICTIMS: [&str; 2] = ["replica-1", "ledger-1"];

/// What a process says when a save fails, and what is to be done.
const RESTART: &str = "this process ends, restart is the only repair";

/// What happens to a disk.
struct Fault {
    name: &'static str,
    breaks: fn(&LosingFs),
    mends: fn(&LosingFs),
    /// Whether it is still so when the process starts again.
    lasts: bool,
    says: &'static str,
}

const FAULTS: [Fault; 5] = [
    Fault {
        name: "a sync fails once",
        breaks: |disk| disk.set_syncing(Syncing::FailsOnce),
        mends: |_| {},
        lasts: false,
        says: "Input/output error",
    },
    Fault {
        name: "syncs fail",
        breaks: |disk| disk.set_syncing(Syncing::Fails),
        mends: |disk| disk.set_syncing(Syncing::Honest),
        lasts: true,
        says: "Input/output error",
    },
    Fault {
        name: "full",
        breaks: |disk| disk.set_limit(Some(disk.used_bytes())),
        mends: |disk| disk.set_limit(None),
        lasts: true,
        says: "No space left on device",
    },
    Fault {
        name: "full while generations turn over",
        breaks: |disk| disk.set_limit(Some(disk.used_bytes() + 128 * 1024)),
        mends: |disk| disk.set_limit(None),
        lasts: true,
        says: "No space left on device",
    },
    Fault {
        name: "read-only",
        breaks: |disk| disk.set_read_only(true),
        mends: |disk| disk.set_read_only(false),
        lasts: true,
        says: "Read-only file system",
    },
];

/// One replica and one ledger, each on a disk of its own.
struct Sick {
    arena: Arena,
    disks: Vec<LosingFs>,
}

impl Sick {
    async fn start(knobs: &Knobs) -> Sick {
        let disks = VICTIMS.map(|_| LosingFs::mount(Metadata::Ordered));
        let data = VICTIMS.iter().zip(&disks);
        let data = data.map(|(name, disk)| ((*name).to_owned(), disk.path().join("data")));
        let options = Options {
            data: data.collect(),
            tuning: "generation_period_s = 2".to_owned(),
            ..Options::default()
        };
        Sick {
            arena: Arena::start(knobs, options).await,
            disks: disks.into(),
        }
    }

    /// Breaks one disk after the other, and mends it.
    async fn each(&mut self, fault: &Fault) {
        for (index, name) in VICTIMS.into_iter().enumerate() {
            (fault.breaks)(&self.disks[index]);
            expect_end(&mut self.arena, name, fault.name, &[fault.says, RESTART]).await;
            // The others carry on.
            carry_on(&mut self.arena, name).await;
            if fault.lasts {
                // It may try again, and says again why not.
                self.arena.process(name).start();
                expect_end(&mut self.arena, name, fault.name, &[fault.says]).await;
            }
            (fault.mends)(&self.disks[index]);
            self.arena.process(name).start();
            serves(&mut self.arena, name).await;
        }
    }
}

/// Waits until a process ends by itself, and says where, what, and what is to be done.
async fn expect_end(arena: &mut Arena, name: &str, fault: &str, says: &[&str]) {
    let words = arena.wait_for_end(name).await;
    println!(
        "{fault}, {name}: {}",
        words.lines().last().unwrap_or_default()
    );
    let place = arena.data(name);
    for say in says.iter().chain([&text(&place)]) {
        assert!(
            words.contains(say),
            "{fault}: expected {say:?}, got {words}"
        );
    }
    arena.process(name).bury();
}

/// Nobody waits for a replica that is gone. What concerns a ledger that is gone is aborted, so that
/// nobody waits for it either.
async fn carry_on(arena: &mut Arena, name: &str) {
    if name.starts_with("replica") {
        arena.wait_for_commits(10).await;
    } else {
        wait_for_outcomes(arena, 10).await;
    }
}

/// Waits for so many more answers, of whatever kind.
async fn wait_for_outcomes(arena: &mut Arena, more: usize) {
    let answers = |arena: &Arena| -> usize {
        let journals = arena.names("initiator").into_iter();
        let texts = journals.map(|name| fs::read_to_string(arena.journal(&name)).unwrap());
        texts.map(|text| text.matches("\"heard\"").count()).sum()
    };
    let wanted = answers(arena) + more;
    let deadline = Instant::now() + PATIENCE;
    while answers(arena) < wanted {
        if Instant::now() > deadline {
            arena.fail(&format!("fewer than {more} answers within {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Waits until everything is as before.
async fn serves(arena: &mut Arena, name: &str) {
    arena.wait_for_commits(10).await;
    if let Some(words) = arena.process(name).ended() {
        arena.fail(&format!("{name} has ended again: {words}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_full_or_read_only_ends_the_process_and_nobody_else() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut sick = Sick::start(&knobs).await;
    for fault in &FAULTS {
        sick.each(fault).await;
    }
    let count = (FAULTS.len() * VICTIMS.len()) as u64;
    let audit = sick.arena.finish().await;
    println!("{}", summary(&[("disks", count)].into(), &audit));
}

/// A process that is stuck in the kernel is gone only when the disk answers. Nobody waits for that.
#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_stuck_ends_the_process_and_nobody_else() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut sick = Sick::start(&knobs).await;
    let arena = &mut sick.arena;
    for disk in &sick.disks {
        disk.stall(Stall::Syncs);
    }
    let deadline = Instant::now() + PATIENCE;
    let stuck = "a commit takes longer than 10s; is the disk stuck?";
    for name in VICTIMS {
        while !arena.process(name).printed().contains(stuck) {
            if Instant::now() > deadline {
                arena.fail(&format!("{name} does not notice that its disk is stuck"));
            }
            sleep(Duration::from_millis(50)).await;
        }
    }
    carry_on(arena, VICTIMS[1]).await;
    for (name, disk) in VICTIMS.iter().zip(&sick.disks) {
        disk.stall(Stall::Nothing);
        expect_end(arena, name, "stuck", &[stuck, RESTART]).await;
        arena.process(name).start();
    }
    serves(arena, VICTIMS[0]).await;
    let audit = sick.arena.finish().await;
    println!("{}", summary(&[("stuck", 2)].into(), &audit));
}

/// A tmpfs, to be full. Unmounted when dropped.
struct Tmpfs(TempDir);

impl Tmpfs {
    fn mount(size: &str) -> Tmpfs {
        let folder = tempfile::tempdir().unwrap();
        let size = format!("size={size}");
        let arguments = ["-t", "tmpfs", "-o", &size, "tmpfs", text(folder.path())];
        let mounted = Command::new("mount").args(arguments).output();
        let mounted = mounted.expect("the command mount (Debian's package mount)");
        let error = String::from_utf8_lossy(&mounted.stderr);
        assert!(mounted.status.success(), "a tmpfs takes root: {error}");
        Tmpfs(folder)
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut file = File::create(self.0.path().join("filler")).unwrap();
        let mut piece = 1 << 20;
        while piece > 0 {
            if file.write_all(&vec![1; piece]).is_err() {
                piece /= 2;
            }
        }
    }

    fn empty(&self) {
        fs::remove_file(self.0.path().join("filler")).unwrap();
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        if unmounted.is_err() {
            eprintln!("{} stays mounted", self.0.path().display());
        }
    }
}

/// A copy has no holes, and the journal, which is made with room to spare, would never be full.
fn dig_holes(database: &std::path::Path) {
    for entry in fs::read_dir(database).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "jnl") {
            let dug = Command::new("fallocate")
                .arg("--dig-holes")
                .arg(path)
                .status();
            let dug = dug.expect("the command fallocate (Debian's package util-linux)");
            assert!(dug.success());
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_tmpfs_ends_the_process_and_nobody_else() {
    let knobs = Knobs::new(Duration::ZERO);
    let disks = VICTIMS.map(|_| Tmpfs::mount("100m"));
    let data = VICTIMS.iter().zip(&disks);
    let data = data.map(|(name, disk)| ((*name).to_owned(), disk.0.path().join("data")));
    let options = Options {
        data: data.collect(),
        ..Options::default()
    };
    let mut arena = Arena::build(&knobs, options).await;
    dig_holes(&arena.data(VICTIMS[0]).join("database"));
    arena.start_all();
    arena.wait_for_commits(5).await;
    for (name, disk) in VICTIMS.into_iter().zip(&disks) {
        disk.fill();
        expect_end(
            &mut arena,
            name,
            "full tmpfs",
            &["No space left on device", RESTART],
        )
        .await;
        carry_on(&mut arena, name).await;
        disk.empty();
        arena.process(name).start();
        serves(&mut arena, name).await;
    }
    let audit = arena.finish().await;
    println!("{}", summary(&[("full tmpfs", 2)].into(), &audit));
}

/// After a sync that failed, Linux shows what was written and never writes it: the next process reads
/// from the page cache what the disk does not have. Then the power goes.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_failed_sync_left_in_the_page_cache_is_not_taken_for_durable() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut sick = Sick::start(&knobs).await;
    let arena = &mut sick.arena;
    for (name, disk) in VICTIMS.into_iter().zip(&sick.disks) {
        disk.set_syncing(Syncing::FailsOnce);
        expect_end(
            arena,
            name,
            "a sync fails once",
            &["Input/output error", RESTART],
        )
        .await;
        arena.process(name).start();
        serves(arena, name).await;
        arena.process(name).kill().await;
        let lost = disk.worst_cut();
        disk.restore();
        println!("{name}: {lost:?}");
        arena.process(name).start();
        serves(arena, name).await;
    }
    let audit = sick.arena.finish().await;
    println!(
        "{}",
        summary(&[("failed syncs and cuts", 2)].into(), &audit)
    );
}
