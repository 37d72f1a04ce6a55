//! The power goes: what was not synced is lost, or torn.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use fastrand::Rng;
use tokio::time::{Instant, sleep};

use crate::harness::{Arena, Knobs, Options};
use crate::losing_fs::{CutReport, LosingFs, Metadata, Syncing};

/// A machine for each replica and for each ledger: a disk of its own.
struct Machines {
    disks: BTreeMap<String, LosingFs>,
    cuts: u64,
    lost: CutReport,
}

impl Machines {
    fn new(metadata: Metadata, options: &mut Options) -> Machines {
        let replicas = (1..=options.replicas).map(|id| format!("replica-{id}"));
        let ledgers = (1..=options.ledgers).map(|id| format!("ledger-{id}"));
        let disks: BTreeMap<String, LosingFs> = replicas
            .chain(ledgers)
            .map(|name| (name, LosingFs::mount(metadata)))
            .collect();
        let data = disks.iter().map(|(name, disk)| {
            // A folder below, so that its name can be lost too.
            (name.clone(), disk.path().join("data"))
        });
        options.data = data.collect();
        Machines {
            disks,
            cuts: 0,
            lost: CutReport::default(),
        }
    }

    /// Starts everything, on directories that are durable.
    async fn start(&self, knobs: &Knobs, options: Options) -> Arena {
        let mut arena = Arena::build(knobs, options).await;
        for disk in self.disks.values() {
            let root = File::open(disk.path()).unwrap();
            root.sync_all().unwrap();
        }
        arena.start_all();
        arena.wait_for_commits(5).await;
        arena
    }

    fn names(&self) -> Vec<String> {
        self.disks.keys().cloned().collect()
    }

    /// The power of these machines goes at one instant. What was lost.
    async fn cut(&mut self, arena: &mut Arena, names: &[String], rng: &mut Rng) -> CutReport {
        for name in names {
            arena.process(name).pause();
        }
        for name in names {
            arena.process(name).kill().await;
        }
        let mut lost = CutReport::default();
        for name in names {
            lost.add(self.disks[name].cut(rng));
            self.cuts += 1;
        }
        self.lost.add(lost);
        lost
    }

    fn restore(&self, arena: &mut Arena, names: &[String]) {
        for name in names {
            self.disks[name].restore();
            arena.process(name).start();
        }
    }

    fn summary(&self) -> String {
        let CutReport {
            pages_kept,
            pages_dropped,
            pages_torn,
            bytes_lost,
            names_lost,
        } = self.lost;
        let syncs: u64 = self.disks.values().map(|disk| disk.counts().syncs).sum();
        format!(
            "cuts {}, syncs {syncs}; of what was not synced: bytes lost {bytes_lost}, pages torn \
             {pages_torn}, dropped {pages_dropped}, kept {pages_kept}, names lost {names_lost}",
            self.cuts
        )
    }
}

/// Nobody refuses to come back from an honest disk, and nobody else ends.
fn nobody_has_ended(arena: &mut Arena) {
    for name in arena.names("") {
        if let Some(words) = arena.process(&name).ended() {
            arena.fail(&format!("{name} has ended by itself: {words}"));
        }
    }
}

async fn cuts_at_random_instants(metadata: Metadata, knobs: Knobs) {
    let mut rng = knobs.rng();
    let mut options = Options {
        // Old generations settle while the power goes.
        tuning: "generation_period_s = 2".to_owned(),
        ..Options::default()
    };
    let mut machines = Machines::new(metadata, &mut options);
    let mut arena = machines.start(&knobs, options).await;
    let millis = |rng: &mut Rng, most| Duration::from_millis(rng.u64(..most));
    let end = Instant::now() + knobs.duration;
    let mut round = 0;
    while Instant::now() < end {
        sleep(millis(&mut rng, 600)).await;
        let mut names = machines.names();
        rng.shuffle(&mut names);
        // All of them, one, or some.
        let count = match round % 5 {
            2 => names.len(),
            4 => rng.usize(2..names.len()),
            _ => 1,
        };
        round += 1;
        names.truncate(count);
        machines.cut(&mut arena, &names, &mut rng).await;
        sleep(millis(&mut rng, 200)).await;
        machines.restore(&mut arena, &names);
        if rng.u8(..4) == 0 {
            // Once more, while they recover.
            sleep(millis(&mut rng, 60)).await;
            machines.cut(&mut arena, &names, &mut rng).await;
            machines.restore(&mut arena, &names);
        }
        nobody_has_ended(&mut arena);
    }
    arena.wait_for_commits(20).await;
    nobody_has_ended(&mut arena);
    let audit = arena.finish().await;
    assert!(machines.cuts > 0 && audit.committed > 0);
    println!(
        "{metadata:?}: {}; transfers {}, committed {}, aborted {}, violations {}",
        machines.summary(),
        audit.transfers,
        audit.committed,
        audit.aborted,
        audit.violations.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_goes_where_names_are_ordered() {
    let knobs = Knobs::new(Duration::from_secs(8));
    cuts_at_random_instants(Metadata::Ordered, knobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_goes_where_only_synced_directories_last() {
    let knobs = Knobs::new(Duration::from_secs(8));
    cuts_at_random_instants(Metadata::StrictDirectories, knobs).await;
}
