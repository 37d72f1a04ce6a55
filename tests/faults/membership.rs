//! Replicas are replaced, added and removed, and generations turn every few seconds, while processes
//! die and networks fail.

use std::process::Output;
use std::time::Duration;

use fastrand::Rng;
use paxos_commit::cluster::{ClusterFiles, Relay};
use paxos_commit::protocol::paxos::ReplicaId;
use tokio::time::{Instant, sleep};

use crate::bank::{Bank, free_address, program, until};
use crate::harness::adversary::{NETWORK, PROCESSES, summary};
use crate::harness::arena::{PATIENCE, replica};
use crate::harness::console::{json, tool};
use crate::harness::{Adversary, Arena, Harm, Knobs, Options};

/// Before anything is written, and before a replica is asked.
#[tokio::test(flavor = "multi_thread")]
async fn an_address_that_is_none_or_taken_is_refused_before_anything_is_written() {
    let bank = Bank::open().await;
    let dir = bank.dir();
    let taken = bank.cluster.files().members()[1].address.to_string();
    let files = || std::fs::read_dir(&dir).unwrap().count();
    let before = files();
    for (wrong, says) in [
        ("http://127.0.0.1:7401", "leave out \"http://\""),
        ("127.0.0.1:0", "port 0"),
        ("127.0.0.1", "add the port"),
        ("::1", "brackets"),
        (&*taken, "an address of its own"),
    ] {
        for words in [
            &["replace", "1", wrong] as &[&str],
            &["move", "1", wrong],
            &["add", wrong, "127.0.0.1:9"],
        ] {
            let mut command = std::process::Command::new(program());
            command.args(["cluster", words[0], "--dir"]).arg(&dir);
            let output = command.args(&words[1..]).output().unwrap();
            let error = String::from_utf8_lossy(&output.stderr);
            assert!(!output.status.success(), "{words:?}");
            assert!(error.contains(says), "{words:?}: {error}");
            assert_eq!(files(), before, "{words:?}");
        }
    }
    bank.close();
}

/// A replica moves; and commands that stopped half-way, for whatever reason, go on where they were.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_stopped_is_repeated_and_a_replica_moves() {
    let mut bank = Bank::open().await;
    let dir = bank.dir();
    let access = dir.join("operator-admin/access.toml");
    let run = |bank: &Bank, words: &[&str]| {
        let place = ["--wait", "0", "--dir", dir.to_str().unwrap()];
        let access = ["--access", access.to_str().unwrap()];
        let words = [&["cluster"], &words[..1], &place, &access, &words[1..]].concat();
        bank.run(&words)
    };
    // Something stands where the new folder should be.
    let address = free_address();
    let in_the_way = dir.join("replica-4.new");
    std::fs::write(&in_the_way, "").unwrap();
    let stopped = run(&bank, &["replace", "3", &address]);
    let error = String::from_utf8_lossy(&stopped.stderr);
    assert!(error.contains("replica-4.new"), "{error}");
    assert!(!dir.join("replica-4").exists());
    std::fs::remove_file(&in_the_way).unwrap();
    // No majority is up.
    bank.kill(1).await;
    bank.kill(2).await;
    let stopped = run(&bank, &["replace", "3", &address]);
    assert!(!stopped.status.success());
    bank.start_well(1).await;
    bank.start_well(2).await;
    let unheard = run(&bank, &["replace", "3", &address]);
    let error = String::from_utf8_lossy(&unheard.stderr);
    assert!(error.contains("not heard: replica"), "{error}");
    bank.start_well(4).await;
    until("replica 4 takes the place of replica 3", async || {
        let done = run(&bank, &["replace", "3", &address]);
        done.status.success().then_some(())
    })
    .await;
    bank.transfer().await;
    // Replica 4 moves. It is heard where it still is.
    let place = free_address();
    until("replica 4 may move", async || {
        let moved = run(&bank, &["move", "4", &place]);
        moved.status.success().then_some(())
    })
    .await;
    let again = run(&bank, &["move", "4", &place]);
    assert!(again.status.success(), "it is done");
    bank.kill(4).await;
    let file = dir.join("replica-4/replica.toml");
    let text = std::fs::read_to_string(&file).unwrap();
    let listens = format!("listen = \"{address}\"");
    assert!(text.contains(&listens), "{text}");
    let text = text.replace(&listens, &format!("listen = \"{place}\""));
    std::fs::write(&file, text).unwrap();
    bank.start_well(4).await;
    bank.transfer().await;
    bank.kill(1).await;
    bank.transfer().await;
}

/// Generations turn all the time.
pub(crate) const TUNING: &str = "generation_period_s = 2\ngrace_s = 1";

#[tokio::test(flavor = "multi_thread")]
async fn replicas_come_and_go_and_generations_turn_under_fire() {
    let knobs = Knobs::new(Duration::from_secs(10));
    let options = Options {
        tuning: TUNING.into(),
        ..Options::default()
    };
    let mut arena = Arena::start(&knobs, options).await;
    let menu = [PROCESSES, NETWORK].concat();
    let mut adversary = Adversary::new(knobs.rng(), &menu);
    let mut operator = Operator::new(knobs.rng());
    let end = Instant::now() + knobs.duration;
    while Instant::now() < end || operator.changes < 3 {
        adversary.step(&mut arena).await;
        operator.step(&mut arena, &mut adversary).await;
    }
    operator.finish(&mut arena, &mut adversary).await;
    let audit = arena.finish().await;
    println!("{}", summary(adversary.done(), &audit));
}

/// Changes who the replicas are, one change after the other, as the README says.
pub(crate) struct Operator {
    rng: Rng,
    /// Relays for replicas that are to join.
    relays: Vec<Relay>,
    /// The words of the change that has not come to its end.
    wanted: Option<Vec<String>>,
    /// The latest generation that was seen.
    latest: u64,
    /// A replica whose disk is gone.
    lost: Option<ReplicaId>,
    /// How many changes were made.
    pub(crate) changes: u32,
}

impl Operator {
    pub(crate) fn new(rng: Rng) -> Operator {
        Operator {
            rng,
            relays: Vec::new(),
            wanted: None,
            latest: 0,
            lost: None,
            changes: 0,
        }
    }

    /// Makes the next change, if nobody is needed any more whom the last one removed.
    pub(crate) async fn step(&mut self, arena: &mut Arena, adversary: &mut Adversary) {
        let Some(members) = self.reconcile(arena, adversary).await else {
            return;
        };
        if self.wanted.is_some() {
            self.insist(arena, adversary).await;
            return;
        }
        if let Some(lost) = self.lost {
            if self.may_go(arena, adversary, lost).await {
                self.lost = None;
            }
            return;
        }
        if !arena.leaving.is_empty() {
            return;
        }
        let out = self.rng.choice(&members).copied().expect("there are some");
        let other = members.iter().copied().find(|id| *id != out);
        let harm = match (members.len(), self.rng.u8(0..3)) {
            (3, 0) => {
                let joining = [self.relay().await, self.relay().await];
                self.wanted = Some(change(arena, "add", &[&joining[0], &joining[1]]));
                Harm::AddTwoReplicas
            }
            (5, 0 | 1) => {
                let other = other.expect("there are five").to_string();
                self.wanted = Some(change(arena, "remove", &[&out.to_string(), &other]));
                Harm::RemoveTwoReplicas
            }
            (_, 1) => {
                let name = replica(out);
                arena.process(&name).kill().await;
                std::fs::remove_dir_all(arena.data(&name)).unwrap();
                arena.dismiss(&name);
                self.lost = Some(out);
                self.replace(arena, out).await;
                Harm::ReplaceLostDisk
            }
            _ => {
                self.replace(arena, out).await;
                Harm::ReplaceReplica
            }
        };
        self.insist(arena, adversary).await;
        adversary.count(harm);
        self.changes += 1;
    }

    /// Repeats the command, with the same words, and starts what it has made. It ends when the cluster
    /// hears what was started.
    async fn insist(&mut self, arena: &mut Arena, adversary: &mut Adversary) {
        let Some(command) = self.wanted.clone() else {
            return;
        };
        let done = meanwhile(arena, adversary, command).await.status.success();
        self.start_joining(arena);
        if done {
            self.wanted = None;
        }
    }

    /// Starts what was made to join and does not run.
    fn start_joining(&mut self, arena: &mut Arena) {
        let Ok(files) = ClusterFiles::open(&arena.cluster()) else {
            return;
        };
        for member in files.joining() {
            let address = member.address.as_str();
            let mut relays = self.relays.iter();
            let relay = relays.position(|relay| relay.address().to_string() == address);
            if let Some(relay) = relay {
                arena.set_relay(member.id, self.relays.remove(relay));
                arena.add_replica(member.id);
                arena.process(&replica(member.id)).start();
            }
        }
    }

    /// Lets the last change come to its end, when nothing else is wrong any more.
    pub(crate) async fn finish(&mut self, arena: &mut Arena, adversary: &mut Adversary) {
        let deadline = Instant::now() + PATIENCE;
        adversary.rest(arena).await;
        loop {
            let members = self.reconcile(arena, adversary).await.unwrap_or_default();
            adversary.look_for_the_fallen(arena);
            match self.lost {
                _ if self.wanted.is_some() => self.insist(arena, adversary).await,
                Some(lost) if !self.may_go(arena, adversary, lost).await => {}
                Some(_) => self.lost = None,
                None if arena.leaving.is_empty() && !members.is_empty() => return,
                None => {}
            }
            if Instant::now() > deadline {
                arena.fail("the last change of the membership does not come to its end");
            }
            sleep(Duration::from_millis(200)).await;
        }
    }

    /// The address of one that will join.
    async fn relay(&mut self) -> String {
        // Where it leads to is known when the new one has its id.
        let nowhere = "127.0.0.1:9".parse().unwrap();
        let relay = Relay::start(nowhere).await.unwrap();
        let address = relay.address().to_string();
        self.relays.push(relay);
        address
    }

    async fn replace(&mut self, arena: &Arena, out: ReplicaId) {
        let address = self.relay().await;
        self.wanted = Some(change(arena, "replace", &[&out.to_string(), &address]));
    }

    /// Whether no generation needs the replica any more.
    async fn may_go(&self, arena: &mut Arena, adversary: &mut Adversary, id: ReplicaId) -> bool {
        let command = arena.change("retire", &[&id.to_string()]);
        meanwhile(arena, adversary, command).await.status.success()
    }

    /// Asks who the replicas are, and notes who is leaving. None when that cannot be asked now, or only
    /// a replica answers that is behind.
    async fn reconcile(
        &mut self,
        arena: &mut Arena,
        adversary: &mut Adversary,
    ) -> Option<Vec<ReplicaId>> {
        let command = arena.question(&["status"]);
        let status = json(&meanwhile(arena, adversary, command).await).ok()?;
        let latest = status["unsettled_generations"].as_array()?.last()?.clone();
        let generation = latest["generation"].as_u64()?;
        if generation < self.latest {
            return None;
        }
        self.latest = generation;
        let mut members = Vec::new();
        for one in latest["replicas"].as_array()? {
            let id = ReplicaId(one["id"].as_u64()? as u32);
            members.push(id);
        }
        let files = ClusterFiles::open(&arena.cluster()).ok()?;
        let joining = files.joining().iter().map(|member| member.id);
        let stay: Vec<ReplicaId> = members.iter().copied().chain(joining).collect();
        for name in arena.names("replica") {
            if !stay.iter().any(|id| replica(*id) == name) {
                arena.leaving.insert(name);
            }
        }
        Some(members)
    }
}

/// The words of a change that does not wait: what it makes is started, and then it is repeated.
fn change(arena: &Arena, command: &str, arguments: &[&str]) -> Vec<String> {
    arena.change(command, &[&["--wait", "0"], arguments].concat())
}

/// Runs a command while the adversary goes on.
async fn meanwhile(arena: &mut Arena, adversary: &mut Adversary, command: Vec<String>) -> Output {
    let running = tokio::spawn(tool(command));
    while !running.is_finished() {
        adversary.step(arena).await;
    }
    running.await.unwrap()
}
