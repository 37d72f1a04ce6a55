//! Disks that fail, are full, are stuck, or can only be read: the process ends and says why, the
//! others carry on, and it comes back when the disk does.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::harness::arena::PATIENCE;
use crate::harness::{Arena, Knobs, Options};
use crate::losing_fs::{LosingFs, Metadata, Stall, Syncing};

/// Who gets the disk.
const VICTIMS: [&str; 2] = ["replica-1", "ledger-1"];

/// What the process says when a save fails, and what is to be done.
const RESTART: &str = "this process ends, restart is the only repair";

/// One replica and one ledger, each on a disk of its own.
struct Sick {
    arena: Arena,
    disks: Vec<LosingFs>,
}

impl Sick {
    async fn start(knobs: &Knobs) -> Sick {
        let disks = VICTIMS.map(|_| LosingFs::mount(Metadata::Ordered));
        let data = VICTIMS.iter().zip(&disks);
        let options = Options {
            data: data
                .map(|(name, disk)| ((*name).to_owned(), disk.path().join("data")))
                .collect(),
            ..Options::default()
        };
        Sick {
            arena: Arena::start(knobs, options).await,
            disks: disks.into(),
        }
    }

    async fn each(
        &mut self,
        what: &str,
        breaks: impl Fn(&LosingFs),
        mends: impl Fn(&LosingFs),
        says: &[&str],
    ) {
        for (index, name) in VICTIMS.into_iter().enumerate() {
            breaks(&self.disks[index]);
            let started = Instant::now();
            let words = self.arena.wait_for_end(name).await;
            let took = started.elapsed();
            let last = words.lines().last().unwrap_or_default().to_owned();
            println!("{what}, {name}, after {took:.1?}: {last}");
            for say in says.iter().chain([&RESTART]) {
                assert!(words.contains(say), "expected {say:?}, got {words}");
            }
            // The others carry on.
            carry_on(&mut self.arena, name).await;
            mends(&self.disks[index]);
            self.arena.process(name).bury();
            self.arena.process(name).start();
            serves(&mut self.arena, name).await;
        }
    }
}

/// Nobody waits for a replica that is gone. What concerns a ledger that is gone is aborted, so that
/// nobody waits for it either.
async fn carry_on(arena: &mut Arena, name: &str) {
    if name.starts_with("replica") {
        arena.wait_for_commits(30).await;
    } else {
        wait_for_outcomes(arena, 30).await;
    }
}

/// Waits for so many more answers, of whatever kind.
async fn wait_for_outcomes(arena: &mut Arena, more: usize) {
    let answers = |arena: &Arena| -> usize {
        let journals = arena.names("initiator").into_iter();
        let texts = journals.map(|name| std::fs::read_to_string(arena.journal(&name)).unwrap());
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
    arena.wait_for_commits(30).await;
    if let Some(words) = arena.process(name).ended() {
        arena.fail(&format!("{name} has ended again: {words}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_fails_is_full_or_read_only_ends_the_process_and_nobody_else() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut sick = Sick::start(&knobs).await;
    let once = |disk: &LosingFs| disk.set_syncing(Syncing::FailsOnce);
    let honest = |disk: &LosingFs| disk.set_syncing(Syncing::Honest);
    sick.each("a sync fails once", once, honest, &["os error 5"])
        .await;
    let always = |disk: &LosingFs| disk.set_syncing(Syncing::Fails);
    sick.each("syncs fail", always, honest, &["os error 5"])
        .await;
    let full = |disk: &LosingFs| disk.set_limit(Some(disk.used_bytes()));
    let room = |disk: &LosingFs| disk.set_limit(None);
    sick.each("full", full, room, &["No space left on device"])
        .await;
    let read_only = |disk: &LosingFs| disk.set_read_only(true);
    let writable = |disk: &LosingFs| disk.set_read_only(false);
    sick.each("read-only", read_only, writable, &["Read-only file system"])
        .await;
    let audit = sick.arena.finish().await;
    println!(
        "transfers {}, committed {}, violations 0",
        audit.transfers, audit.committed
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_stuck_ends_the_process_and_nobody_else() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut sick = Sick::start(&knobs).await;
    // A process that is stuck in the kernel is gone only when the disk answers.
    let stuck = |disk: &LosingFs| disk.stall(Stall::Syncs);
    let moves = |disk: &LosingFs| disk.stall(Stall::Nothing);
    sick.each(
        "stuck",
        stuck,
        moves,
        &["a commit takes longer than 10s; is the disk stuck?"],
    )
    .await;
    sick.arena.finish().await;
}
