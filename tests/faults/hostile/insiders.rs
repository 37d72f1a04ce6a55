//! Those who are let in, and misuse it.

use std::time::Duration;

use paxos_commit::protocol::message::{BeginCommit, CastVote, Message};
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::{
    Branch, CommitId, InitiatorId, Peer, Request, Roster, RosterDigest, StoreId, TxnId, Vote,
};
use paxos_commit::transport::{draw_initiator, draw_session};

use crate::harness::Knobs;

use super::siege::Siege;
use super::{USUAL, scaled};

/// The longest that a transaction may wait for votes.
const LONG: Duration = Duration::from_secs(600);

fn branch(name: &str) -> Branch {
    Branch {
        participant: name.parse().unwrap(),
        session: draw_session(),
        store: StoreId::from_u128(1),
    }
}

fn roster(branches: &[&Branch]) -> Roster {
    Roster::new(branches.iter().map(|branch| (*branch).clone())).unwrap()
}

fn txn(generation: u32, initiator: InitiatorId, sequence: usize) -> TxnId {
    TxnId {
        generation,
        initiator,
        sequence: sequence as u32,
        nonce: 9,
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

fn begin(id: CommitId, roster: &Roster, request: Option<Request>) -> Message {
    let requests = match request {
        Some(request) => vec![Some(request); roster.len()],
        None => Vec::new(),
    };
    Message::BeginCommit(BeginCommit {
        id,
        roster: roster.clone(),
        requests,
        floor: 0,
        vote_timeout: LONG,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_that_lies_is_not_believed() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    let own = branch("mallory");
    let peer = Peer::Session(own.clone());
    let (other, sibling) = (branch("ledger-1"), branch("mallory"));
    let initiator = InitiatorId::from_u128(7);

    // Each costs the connection.
    let count = scaled(&knobs, 100);
    for (what, named) in [
        ("votes for another participant", &other),
        ("votes under another session", &sibling),
    ] {
        let roster = roster(&[named]);
        let cost = siege.withstand(what, async |siege| {
            let attacker = siege.attacker("participant/mallory");
            for number in 0..count {
                let mut entered = attacker.enter(number, &peer).await;
                let id = CommitId::new(txn(1, initiator, number), &roster);
                entered.say_all([vote(id, &roster, Vote::Prepared)]).await;
                entered.closed().await;
            }
            count
        });
        cost.await.counted(&["forbidden"], count as u64);
    }

    let count = scaled(&knobs, 3_000);
    let both = roster(&[&own, &other]);
    let what = "votes twice, and differently";
    let cost = siege.withstand(what, async |siege| {
        let mut entered = siege.enter("participant/mallory", &peer).await;
        for number in 0..count {
            let id = CommitId::new(txn(1, initiator, number), &both);
            let votes = [Vote::Prepared, Vote::Aborted, Vote::ReadOnly];
            entered.say_all(votes.map(|say| vote(id, &both, say))).await;
        }
        2 * count
    });
    cost.await.counted(&["rejected"], 2 * count as u64);

    let what = "votes with a roster that is not the id's";
    let cost = siege.withstand(what, async |siege| {
        let mut entered = siege.enter("participant/mallory", &peer).await;
        for number in 0..count {
            let id = CommitId {
                txn: txn(1, initiator, number),
                roster: RosterDigest::MIN,
            };
            entered.say_all([vote(id, &both, Vote::Prepared)]).await;
        }
        count
    });
    cost.await.counted(&["rejected"], count as u64);
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_initiator_that_lies_is_not_believed() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    let own = draw_initiator(&"mallory".parse().unwrap());
    let peer = Peer::Initiator(own);
    let ghost = branch("ghost");

    let count = scaled(&knobs, 100);
    let of_ghost = roster(&[&ghost]);
    let cost = siege.withstand("commits of another initiator's ids", async |siege| {
        let attacker = siege.attacker("initiator/mallory");
        let victim = draw_initiator(&"initiator-1".parse().unwrap());
        for number in 0..count {
            let mut entered = attacker.enter(number, &peer).await;
            let id = CommitId::new(txn(1, victim, number), &of_ghost);
            entered.say_all([begin(id, &of_ghost, None)]).await;
            entered.closed().await;
        }
        count
    });
    cost.await.counted(&["forbidden"], count as u64);

    let count = scaled(&knobs, 3_000);
    let cost = siege.withstand("generations of the future", async |siege| {
        let mut entered = siege.enter("initiator/mallory", &peer).await;
        for number in 0..count {
            let id = CommitId::new(txn(1_000, own, number), &of_ghost);
            entered.say_all([begin(id, &of_ghost, None)]).await;
        }
        count
    });
    cost.await.counted(&["not_open"], count as u64);

    let cost = siege.withstand("rosters that are not the ids'", async |siege| {
        let mut entered = siege.enter("initiator/mallory", &peer).await;
        for number in 0..count {
            let id = CommitId::new(txn(1, own, number), &of_ghost);
            let changed = roster(&[&ghost, &branch("ghost")]);
            entered.say_all([begin(id, &changed, None)]).await;
        }
        count
    });
    cost.await.counted(&["rejected"], count as u64);

    // Each roster is an instance of its own, so nothing is contradicted: they all come to nothing.
    let cost = siege.withstand("one id with many rosters", async |siege| {
        let mut entered = siege.enter("initiator/mallory", &peer).await;
        for _ in 0..count {
            let roster = roster(&[&branch("ghost")]);
            let id = CommitId::new(txn(1, own, 0), &roster);
            entered.say_all([begin(id, &roster, None)]).await;
        }
        count
    });
    cost.await;
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_long_requests_waits_outside() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    // To sessions that are not there, so that nobody is asked to hold any of it.
    let ghosts: Vec<Branch> = (0..32).map(|_| branch("ghost")).collect();
    let roster = roster(&ghosts.iter().collect::<Vec<_>>());
    let request = Request(vec![7; 60 * 1024].into());
    let count = scaled(&knobs, 8);
    let connections = 16;
    let cost = siege.withstand("a flood of requests of 2 MB", async |siege| {
        let attacker = siege.attacker("initiator/mallory");
        let floods = (0..connections).map(|number| {
            let (attacker, roster, request) = (attacker.clone(), roster.clone(), request.clone());
            tokio::spawn(async move {
                let own = draw_initiator(&"mallory".parse().unwrap());
                let entered = attacker.enter(number, &Peer::Initiator(own)).await;
                let mut entered = entered.drain();
                for number in 0..count {
                    let id = CommitId::new(txn(1, own, number), &roster);
                    let message = begin(id, &roster, Some(request.clone()));
                    entered.say_all([message]).await;
                }
            })
        });
        let floods: Vec<_> = floods.collect();
        for flood in floods {
            flood.await.unwrap();
        }
        connections * count
    });
    cost.await;
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_read_holds_up_nobody() {
    let knobs = Knobs::new(USUAL);
    let mut siege = Siege::start(&knobs, "vote_timeout_max_s = 6").await;
    let connections = 8;
    let count = scaled(&knobs, 80);
    let questions: Vec<Message> = (0..1_024)
        .map(|sequence| Message::Inquire {
            txn: txn(1, InitiatorId::from_u128(7), sequence),
        })
        .collect();
    let what = "peers that ask and do not read";
    let cost = siege.withstand(what, async |siege| {
        let issued = siege.issue("operator/mallory");
        let attacker = siege.attacker_with(Some(&issued), 2_048);
        let floods = (0..connections).map(|number| {
            let (attacker, questions) = (attacker.clone(), questions.clone());
            tokio::spawn(async move {
                let mut deaf = attacker.enter(number, &Peer::Operator(number as u64)).await;
                for _ in 0..count {
                    deaf.say_all(questions.iter().cloned()).await;
                }
                deaf.closed().await;
            })
        });
        let floods: Vec<_> = floods.collect();
        for flood in floods {
            flood.await.unwrap();
        }
        connections
    });
    cost.await.counted(&["overflow"], connections as u64);
    siege.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fills_a_replica_with_inventions_keeps_nobody_out() {
    let knobs = Knobs::new(USUAL);
    let limit = 2_000;
    let mut siege = Siege::start(&knobs, &format!("undecided_max = {limit}")).await;
    let (own, ghost) = (branch("mallory"), branch("ghost"));
    let both = roster(&[&own, &ghost]);
    let count = 2 * limit;
    let votes = |say| -> Vec<Message> {
        let inventions = (0..count).map(|number| txn(1, InitiatorId::from_u128(7), number));
        let ids = inventions.map(|txn| CommitId::new(txn, &both));
        ids.map(|id| vote(id, &both, say)).collect()
    };
    let cost = siege.withstand("votes for invented transactions", async |siege| {
        // At every replica, or the others would not be held up.
        let mut held = Vec::new();
        for replica in 1..=3 {
            let attacker = siege.attacker_of(ReplicaId(replica), "participant/mallory");
            let peer = Peer::Session(own.clone());
            let mut entered = attacker.enter(0, &peer).await.drain();
            entered.say_all(votes(Vote::Prepared)).await;
            held.push(entered);
        }
        // What honest transactions leave free is taken again. (Some are always under way.)
        let nearly = limit as u64 * 9 / 10;
        siege.wait_until_full(nearly).await;
        for _ in 0..4 {
            for entered in &mut held {
                entered.say_all(votes(Vote::Prepared)).await;
            }
            siege.arena.wait_for_commits(25).await;
        }
        assert!(siege.is_full(nearly).await);
        assert!(
            held.iter()
                .all(|one| one.connection.close_reason().is_none())
        );
        3 * count
    });
    cost.await.counted(&["busy"], (count - limit) as u64 / 2);
    // The branch that was missing ends it, so that nobody waits for the vote timeout.
    let mut held = Vec::new();
    for replica in 1..=3 {
        let attacker = siege.attacker_of(ReplicaId(replica), "participant/ghost");
        let peer = Peer::Session(ghost.clone());
        let mut entered = attacker.enter(0, &peer).await.drain();
        entered.say_all(votes(Vote::Aborted)).await;
        held.push(entered);
    }
    siege.finish().await;
}
