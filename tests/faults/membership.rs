//! Replicas are replaced, added and removed, and generations turn every few seconds, while processes
//! die and networks fail.

use std::process::Output;
use std::time::Duration;

use fastrand::Rng;
use paxos_commit::cluster::Relay;
use paxos_commit::protocol::paxos::ReplicaId;
use tokio::time::{Instant, sleep};

use crate::harness::adversary::{NETWORK, PROCESSES, summary};
use crate::harness::arena::{PATIENCE, replica};
use crate::harness::console::{json, tool};
use crate::harness::{Adversary, Arena, Harm, Knobs, Options};

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
        if let Some(lost) = self.lost {
            if members.contains(&lost) {
                // Nobody has answered for the change until now.
                self.replace(arena, adversary, lost).await;
            } else if self.may_go(arena, adversary, lost).await {
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
                let command = arena.change("add", &[&joining[0], &joining[1]]);
                meanwhile(arena, adversary, command).await;
                Harm::AddTwoReplicas
            }
            (5, 0 | 1) => {
                let other = other.expect("there are five").to_string();
                let command = arena.change("remove", &[&out.to_string(), &other]);
                meanwhile(arena, adversary, command).await;
                Harm::RemoveTwoReplicas
            }
            (_, 1) => {
                let name = replica(out);
                arena.process(&name).kill().await;
                std::fs::remove_dir_all(arena.data(&name)).unwrap();
                arena.dismiss(&name);
                self.lost = Some(out);
                self.replace(arena, adversary, out).await;
                Harm::ReplaceLostDisk
            }
            _ => {
                self.replace(arena, adversary, out).await;
                Harm::ReplaceReplica
            }
        };
        adversary.count(harm);
        self.changes += 1;
    }

    /// Lets the last change come to its end, when nothing else is wrong any more.
    pub(crate) async fn finish(&mut self, arena: &mut Arena, adversary: &mut Adversary) {
        let deadline = Instant::now() + PATIENCE;
        adversary.rest(arena).await;
        loop {
            let members = self.reconcile(arena, adversary).await.unwrap_or_default();
            adversary.look_for_the_fallen(arena);
            match self.lost {
                Some(lost) if members.contains(&lost) => self.replace(arena, adversary, lost).await,
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

    /// Whether that succeeds is seen when the cluster is asked who its replicas are.
    async fn replace(&mut self, arena: &mut Arena, adversary: &mut Adversary, out: ReplicaId) {
        let address = self.relay().await;
        let command = arena.change("replace", &[&out.to_string(), &address]);
        meanwhile(arena, adversary, command).await;
    }

    /// Whether no generation needs the replica any more.
    async fn may_go(&self, arena: &mut Arena, adversary: &mut Adversary, id: ReplicaId) -> bool {
        let command = arena.change("retire", &[&id.to_string()]);
        meanwhile(arena, adversary, command).await.status.success()
    }

    /// Asks who the replicas are, starts those that are new, and notes who is leaving. None when
    /// that cannot be asked now, or only somebody answers who is behind.
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
            let address = one["address"].as_str()?;
            let relays = &mut self.relays;
            let relay = relays
                .iter()
                .position(|relay| relay.address().to_string() == address);
            if let Some(relay) = relay {
                arena.set_relay(id, self.relays.remove(relay));
                arena.add_replica(id);
                arena.process(&replica(id)).start();
            }
        }
        for name in arena.names("replica") {
            if !members.iter().any(|id| replica(*id) == name) {
                arena.leaving.insert(name);
            }
        }
        Some(members)
    }
}

/// Runs a command while the adversary goes on.
async fn meanwhile(arena: &mut Arena, adversary: &mut Adversary, command: Vec<String>) -> Output {
    let running = tokio::spawn(tool(command));
    while !running.is_finished() {
        adversary.step(arena).await;
    }
    running.await.unwrap()
}
