//! The power goes: what was not synced is lost, or torn.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use fastrand::Rng;
use paxos_commit::config::load_access;
use paxos_commit::initiator::{Initiator, Known};
use tokio::time::{Instant, sleep};

use crate::harness::arena::PATIENCE;
use crate::harness::audit::audit;
use crate::harness::evidence::{Evidence, Heard, Line, read_journal, read_ledger};
use crate::harness::{Arena, Knobs, Options};
use crate::losing_fs::{CutReport, LosingFs, Metadata, Stall, Syncing};

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

    /// The power of these machines goes at one instant. What was lost: without dice, all that could
    /// be.
    async fn cut(
        &mut self,
        arena: &mut Arena,
        names: &[String],
        mut dice: Option<&mut Rng>,
    ) -> CutReport {
        for name in names {
            arena.process(name).pause();
        }
        let mut lost = CutReport::default();
        for name in names {
            let disk = &self.disks[name];
            lost.add(match &mut dice {
                Some(rng) => disk.cut(rng),
                None => disk.worst_cut(),
            });
            self.cuts += 1;
        }
        // Not before: whoever waits for a slow disk dies only when that has answered.
        for name in names {
            arena.process(name).kill().await;
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

    fn set_syncing(&self, names: &[String], syncing: Syncing) {
        for name in names {
            self.disks[name].set_syncing(syncing);
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
    for disk in machines.disks.values() {
        // Most of the time a sync is under way.
        disk.stall(Stall::SlowSyncs(Duration::from_millis(4)));
    }
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
        if rng.bool() {
            machines.cut(&mut arena, &names, Some(&mut rng)).await;
            sleep(millis(&mut rng, 200)).await;
            machines.restore(&mut arena, &names);
        } else {
            // Only the processes die, and the next ones read what may not be on the disk.
            for name in &names {
                arena.process(name).kill().await;
                arena.process(name).start();
            }
        }
        if rng.u8(..3) > 0 {
            // Once more, while they recover, or soon after.
            sleep(millis(&mut rng, 250)).await;
            machines.cut(&mut arena, &names, Some(&mut rng)).await;
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
    let knobs = Knobs::new(Duration::from_secs(5));
    cuts_at_random_instants(Metadata::Ordered, knobs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_power_goes_where_only_synced_directories_last() {
    let knobs = Knobs::new(Duration::from_secs(5));
    cuts_at_random_instants(Metadata::StrictDirectories, knobs).await;
}

/// What a replica says that was told to have lost something, by its own store or by another replica.
const LOST: &str = "lost what it promised";

/// Waits until a replica has ended by itself, or serves: then nothing.
async fn refusal(arena: &mut Arena, name: &str, id: u32) -> Option<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(words) = arena.process(name).ended() {
            return Some(words);
        }
        if Instant::now() > deadline {
            arena.fail(&format!("{name} neither serves nor ends"));
        }
        let status = arena.status().await.unwrap();
        let replicas = status["replicas"].as_array().unwrap();
        let is_up = |replica: &serde_json::Value| replica["id"] == id && replica["up"] == true;
        if replicas.iter().any(is_up) {
            arena.wait_for_commits(20).await;
            return arena.process(name).ended();
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// How far a replica's store has come, if it is up.
async fn lsn(arena: &Arena, id: u32) -> Option<u64> {
    let status = arena.status().await.ok()?;
    let replicas = status["replicas"].as_array()?;
    let replica = replicas.iter().find(|replica| replica["id"] == id)?;
    replica["lsn"].as_u64()
}

/// Waits until a replica's store has come so much further.
async fn wait_for_saves(arena: &mut Arena, id: u32, more: u64) {
    let deadline = Instant::now() + PATIENCE;
    let mut from = None;
    loop {
        let now = lsn(arena, id).await;
        from = from.or(now);
        if let (Some(from), Some(now)) = (from, now)
            && now >= from + more
        {
            return;
        }
        if Instant::now() > deadline {
            arena.fail(&format!("replica {id} saves nothing"));
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// Replicas tell each other how far their stores are, each second. What a device loses of a shorter
/// time than that, sector and journal alike, nobody can see.
const TOLD: Duration = Duration::from_millis(2_500);

/// The first is cut at random, so that most times its own store can see the loss; the second loses
/// everything, so that only its peers can.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_disk_lies_is_caught() {
    let knobs = Knobs::new(Duration::ZERO);
    let mut rng = knobs.rng();
    let mut options = Options {
        replicas: 5,
        ..Options::default()
    };
    let mut machines = Machines::new(Metadata::Ordered, &mut options);
    let mut arena = machines.start(&knobs, options).await;
    for (id, name) in [(4, "replica-4"), (5, "replica-5")] {
        let victim = [name.to_owned()];
        let mut rounds = 0;
        let words = loop {
            rounds += 1;
            assert!(rounds <= 20, "{name}: twenty lies, and none was caught");
            machines.set_syncing(&victim, Syncing::Lies);
            wait_for_saves(&mut arena, id, 20).await;
            let dice = (id == 4).then_some(&mut rng);
            if dice.is_none() {
                sleep(TOLD).await;
            }
            machines.cut(&mut arena, &victim, dice).await;
            machines.set_syncing(&victim, Syncing::Honest);
            machines.restore(&mut arena, &victim);
            if let Some(words) = refusal(&mut arena, name, id).await {
                break words;
            }
        };
        assert!(words.contains(LOST), "{words}");
        let by_whom = match words.contains("remembers its store") {
            true => "by its peers",
            false => "by its store",
        };
        let last = words.lines().last();
        println!("{name}: caught {by_whom} in round {rounds}: {last:?}");
        // The others carry on.
        arena.process(name).bury();
        arena.wait_for_commits(20).await;
    }
    println!("{}", machines.summary());
}

/// All replicas lose what they promised, and none can tell the others: the auditor sees it.
#[tokio::test(flavor = "multi_thread")]
async fn lies_at_all_replicas_are_seen_by_the_auditor() {
    let violations = violations_after_lies("replica").await;
    assert!(violations.contains("contradicted"), "{violations}");
}

#[tokio::test(flavor = "multi_thread")]
async fn lies_at_a_ledger_are_seen_by_the_auditor() {
    let violations = violations_after_lies("ledger-1").await;
    assert!(violations.contains("torn"), "{violations}");
}

/// What the auditor says when these machines have lied, and have lost all of it.
async fn violations_after_lies(prefix: &str) -> String {
    let knobs = Knobs::new(Duration::ZERO);
    let mut options = Options::default();
    let mut machines = Machines::new(Metadata::Ordered, &mut options);
    let mut arena = machines.start(&knobs, options).await;
    let victims = arena.names(prefix);
    machines.set_syncing(&victims, Syncing::Lies);
    arena.wait_for_commits(50).await;
    let initiators = arena.names("initiator");
    for name in &initiators {
        arena.process(name).stop().await.unwrap();
    }
    // Everything has come to its end: whatever is missing afterwards is what the cut took.
    assert!(arena.settle().await.is_empty());
    machines.cut(&mut arena, &victims, None).await;
    machines.set_syncing(&victims, Syncing::Honest);
    machines.restore(&mut arena, &victims);
    let mut evidence = Evidence::default();
    for name in initiators {
        let journal = read_journal(&arena.journal(&name));
        evidence
            .asked
            .push(ask_for_a_commit(&arena, &name, &journal).await);
        evidence.journals.insert(name, journal);
    }
    for name in arena.names("ledger") {
        arena.process(&name).kill().await;
        evidence
            .ledgers
            .insert(name.clone(), read_ledger(&arena.data(&name)).await);
    }
    let violations = audit(&evidence).violations;
    println!("{}; violations {}", machines.summary(), violations.len());
    violations.join("\n")
}

/// Asks once more for the last transfer that this initiator was told to be committed.
async fn ask_for_a_commit(arena: &Arena, name: &str, journal: &[Line]) -> (u64, Heard) {
    let committed = journal.iter().rev().find_map(|line| match line {
        Line::Heard {
            number,
            outcome: Heard::Committed,
        } => Some(*number),
        _ => None,
    });
    let id = journal.iter().find_map(|line| match line {
        Line::Asking { number, id, .. } if Some(*number) == committed => Some(id.parse().unwrap()),
        _ => None,
    });
    let file = format!("initiator-{name}/access.toml");
    let access = load_access(&arena.cluster().join(file)).unwrap();
    let initiator = Initiator::builder(access).deadline(PATIENCE);
    let initiator = initiator.connect().await.unwrap();
    let heard = match initiator.outcome(id.unwrap()).await.unwrap() {
        Known::Committed => Heard::Committed,
        Known::Aborted => Heard::Aborted,
        Known::Forgotten => Heard::Forgotten,
    };
    (committed.unwrap(), heard)
}
