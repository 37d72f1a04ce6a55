//! Attacks on transactions and generations: equivocation, guessed ids, invented generations. Each is
//! one that a stolen certificate allows, and none harms another party.

use std::time::Duration;

use paxos_commit::protocol::message::{CastVote, Message, Question, Voter};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Peer, Roster, StoreId, TxnId, Vote,
};
use paxos_commit::transport::{draw_initiator, draw_session};
use paxos_commit::wire::Frame;
use tokio::time::Instant;

use crate::bank::until;
use crate::harness::Knobs;
use crate::harness::arena::PATIENCE;

use super::USUAL;
use super::attacker::Draining;
use super::siege::Siege;

const REPLICAS: [u32; 3] = [1, 2, 3];

/// The longest that a transaction may wait for votes.
const LONG: Duration = Duration::from_secs(600);

/// How much more memory a service may take than before the attack: entries of 200,000 ids would be
/// several times as much.
const SERVICE_GROWTH_MAX: u64 = 16 * 1024 * 1024;

/// A generation is not ended by its transactions before this age.
const GENERATION_AGE_MIN: Duration = Duration::from_secs(60);

fn mallory() -> Branch {
    Branch {
        participant: "mallory".parse().unwrap(),
        session: draw_session(),
        store: StoreId::from_u128(666),
    }
}

fn invented(generation: u32, initiator: InitiatorId, sequence: u32) -> TxnId {
    TxnId {
        generation,
        initiator,
        sequence,
        nonce: fastrand::u64(..),
    }
}

fn vote(id: CommitId, roster: &Roster, vote: Vote) -> Message {
    Message::Vote(CastVote {
        id,
        roster: roster.clone(),
        vote,
        vote_timeout: LONG,
    })
}

/// A hostile participant, connected to every replica.
struct Liar {
    own: Branch,
    links: Vec<Draining>,
    /// The commits that it has brought about and says that it has applied, at the end.
    alone: Vec<CommitId>,
}

impl Liar {
    async fn enter(siege: &Siege) -> Liar {
        let mut liar = Liar {
            own: mallory(),
            links: Vec::new(),
            alone: Vec::new(),
        };
        liar.connect(siege).await;
        liar
    }

    async fn connect(&mut self, siege: &Siege) {
        let peer = Peer::Session(self.own.clone());
        self.links.clear();
        for replica in REPLICAS {
            let attacker = siege.attacker_of(ReplicaId(replica), "participant/mallory");
            self.links.push(attacker.enter(0, &peer).await.drain());
        }
    }

    fn roster(&self) -> Roster {
        Roster::new([self.own.clone()]).unwrap()
    }

    async fn say_to(&mut self, replica: u32, messages: Vec<Message>) {
        self.links[replica as usize - 1].say_all(messages).await;
    }

    /// New transactions that have no branch but its own.
    fn invent(&mut self, generation: u32, count: u32) -> Vec<CommitId> {
        let nobody = InitiatorId::from_u128(7);
        let txns = (0..count).map(|sequence| invented(generation, nobody, sequence));
        let ids = txns.map(|txn| CommitId::new(txn, &self.roster()));
        let ids: Vec<CommitId> = ids.collect();
        self.alone.extend(&ids);
        ids
    }

    fn votes(&self, ids: &[CommitId], say: Vote) -> Vec<Message> {
        let roster = self.roster();
        ids.iter().map(|id| vote(*id, &roster, say)).collect()
    }

    /// What it has brought about waits for itself only. It says that it has applied it, so that the
    /// arena's verdict is about the others.
    async fn clean_up(&mut self) {
        let own = &self.own;
        let applied = |id: &CommitId| Message::Applied {
            id: *id,
            branch: own.clone(),
        };
        let applied: Vec<Message> = self.alone.iter().map(applied).collect();
        for replica in REPLICAS {
            self.say_to(replica, applied.clone()).await;
        }
    }
}

/// Waits until a generation is open.
async fn wait_for_generation(siege: &mut Siege, generation: u32) {
    let deadline = Instant::now() + PATIENCE;
    while siege.latest_generation().await < generation {
        if Instant::now() > deadline {
            let what = format!("generation {generation} is not open within {PATIENCE:?}");
            siege.arena.fail(&what);
        }
    }
}

/// Six messages ended a majority of the replicas: a transaction with no branch but the attacker's,
/// Prepared at two replicas, then Aborted at the third, and settled.
#[tokio::test(flavor = "multi_thread")]
async fn equivocation_across_settlements_ends_no_replica() {
    let knobs = Knobs::new(USUAL);
    let tuning = "generation_period_s = 2\ngrace_s = 1\nvote_timeout_max_s = 6";
    let mut siege = Siege::start(&knobs, tuning).await;
    let mut liar = Liar::enter(&siege).await;
    let cost = siege.withstand("equivocates across settlements", async |siege| {
        for odd in [2, 3, 1] {
            let generation = siege.latest_generation().await;
            let ids = liar.invent(generation, 8);
            for replica in REPLICAS.into_iter().filter(|replica| *replica != odd) {
                let prepared = liar.votes(&ids, Vote::Prepared);
                liar.say_to(replica, prepared).await;
            }
            // The two exchange reports meanwhile.
            siege.arena.wait_for_commits(60).await;
            let aborted = liar.votes(&ids, Vote::Aborted);
            liar.say_to(odd, aborted).await;
            wait_for_generation(siege, generation + 4).await;
            siege.all_live();
        }
        3 * 3 * 8
    });
    cost.await;
    siege.all_live();
    // It did contradict itself, and the replicas say so; even one that starts anew goes on.
    let mut contradictions = 0;
    for id in REPLICAS {
        let process = siege.arena.process(&format!("replica-{id}"));
        let log = std::fs::read_to_string(&process.log).unwrap();
        contradictions += log.matches("a commit is aborted here").count();
    }
    assert!(contradictions > 0, "no replica has noticed anything");
    for id in REPLICAS {
        let process = siege.arena.process(&format!("replica-{id}"));
        let log = process.log.clone();
        let served = move || {
            let log = std::fs::read_to_string(&log).unwrap_or_default();
            log.matches("serving").count()
        };
        let before = served();
        assert!(process.kill().await);
        process.start();
        until("it serves again", async || {
            (served() > before).then_some(())
        })
        .await;
        siege.arena.wait_for_commits(20).await;
        siege.all_live();
    }
    liar.connect(&siege).await;
    liar.clean_up().await;
    siege.finish().await;
}

/// It knows the sessions, the stores and the initiators of others, and that sequence numbers count
/// upwards. It does not know the nonces.
#[tokio::test(flavor = "multi_thread")]
async fn guessed_ids_abort_no_transaction() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    let mut liar = Liar::enter(&siege).await;
    let victims = siege.sessions_of("ledger-1").await;
    let known = siege.some_honest_id();
    let own = liar.own.clone();
    let cost = siege.withstand("votes and asks under guessed ids", async |siege| {
        for (number, victim) in victims.iter().enumerate() {
            let roster = Roster::new([own.clone(), victim.clone()]).unwrap();
            let next = known.txn.sequence + number as u32;
            let sequences = next..next + 1_000;
            for replica in REPLICAS {
                let mut messages = Vec::new();
                for sequence in sequences.clone() {
                    let txn = TxnId {
                        nonce: [0, known.txn.nonce, fastrand::u64(..)][sequence as usize % 3],
                        sequence,
                        ..known.txn
                    };
                    let id = CommitId::new(txn, &roster);
                    messages.push(vote(id, &roster, Vote::Aborted));
                    messages.push(Message::Ask(Question {
                        id,
                        branch: Some(own.clone()),
                        voter: Voter::Gone,
                        vote_timeout: Duration::ZERO,
                    }));
                }
                liar.say_to(replica, messages).await;
            }
            siege.arena.wait_for_commits(30).await;
        }
        victims.len() * 2 * 3 * 1_000
    });
    cost.await;
    siege.all_live();
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_of_a_generation_that_is_not_open_take_no_memory_of_a_service() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    let victims = siege.sessions_of("ledger-1").await;
    let own = draw_initiator(&"mallory".parse().unwrap());
    let peer = Peer::Initiator(own);
    let before = siege.memory_of("ledger-1");
    let (rounds, each) = (100, 2_000);
    let cost = siege.withstand("rollbacks of the last generation", async |siege| {
        let mut entered = siege.enter("initiator/mallory", &peer).await;
        for round in 0..rounds {
            let sequences = round * each..(round + 1) * each;
            let rollbacks = sequences.map(|sequence| Message::Rollback {
                txn: invented(u32::MAX, own, sequence),
                branches: victims.clone(),
                floor: 0,
            });
            entered.say_all(rollbacks).await;
        }
        // The victim has taken them, for the same connections carry its transactions.
        siege.arena.wait_for_commits(60).await;
        (rounds * each) as usize
    });
    cost.await;
    let after = siege.memory_of("ledger-1");
    println!("memory of ledger-1: {before} bytes before, {after} bytes after");
    if after > before + SERVICE_GROWTH_MAX {
        siege
            .arena
            .fail(&format!("ledger-1 took {before}, then {after} bytes"));
    }
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invented_transactions_do_not_turn_generations() {
    let knobs = Knobs::new(USUAL);
    let start = Instant::now();
    let tuning = "generation_transactions_max = 1000\nvote_timeout_max_s = 6";
    let mut siege = Siege::start(&knobs, tuning).await;
    let mut liar = Liar::enter(&siege).await;
    let cost = siege.withstand("votes in transactions of its own", async |siege| {
        for _ in 0..3 {
            let generation = siege.latest_generation().await;
            let ids = liar.invent(generation, 1_000);
            for replica in REPLICAS {
                let prepared = liar.votes(&ids, Vote::Prepared);
                liar.say_to(replica, prepared).await;
            }
            siege.arena.wait_for_commits(25).await;
        }
        3 * 3 * 1_000
    });
    cost.await;
    let latest = siege.latest_generation().await;
    let ages = start.elapsed().as_secs() / GENERATION_AGE_MIN.as_secs();
    if u64::from(latest) > 1 + ages {
        siege.arena.fail(&format!(
            "generation {latest} is open, {ages} ages after the start"
        ));
    }
    liar.clean_up().await;
    siege.finish().await;
}

impl Siege {
    /// The latest generation, as the replicas say.
    async fn latest_generation(&mut self) -> u32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Ok(status) = self.arena.status().await
                && let Some(open) = status["unsettled_generations"].as_array()
                && let Some(latest) = open.last()
                && let Some(number) = latest["generation"].as_u64()
            {
                return number as u32;
            }
            if Instant::now() > deadline {
                self.arena
                    .fail("no replica says which generation is the latest");
            }
        }
    }

    /// The sessions of a participant, as any initiator may ask for them.
    async fn sessions_of(&self, name: &str) -> Vec<Branch> {
        let own = draw_initiator(&"mallory".parse().unwrap());
        let attacker = self.attacker("initiator/mallory");
        let mut entered = attacker.enter(0, &Peer::Initiator(own)).await;
        let participant = name.parse().unwrap();
        entered.say_all([Message::Resolve { participant }]).await;
        loop {
            match entered.hear().await.unwrap() {
                Frame::Message(Message::Resolved { branches, .. }) => return branches,
                _ => continue,
            }
        }
    }

    /// The id of some honest transaction, as if the attacker had taken part in it.
    fn some_honest_id(&self) -> CommitId {
        self.arena.asked_ids("initiator-1").pop().unwrap()
    }

    fn all_live(&mut self) {
        for name in self.arena.names("replica") {
            if let Some(words) = self.arena.process(&name).ended() {
                self.arena.fail(&format!("{name} has ended: {words}"));
            }
        }
    }
}
