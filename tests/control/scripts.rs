//! Schedules worth keeping, step by step, over the very hosts.

use crate::invariant::Violation;
use paxos_commit::protocol::Input;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::Outcome;

use crate::cast::{Cast, OPERATOR, first, opened, replica_id, replica_peer, session_peer};
use crate::stage::Stage;

fn is_prepare(message: &Message) -> bool {
    matches!(message, Message::Log(LogMessage::Prepare { .. }))
}

fn is_promise(message: &Message) -> bool {
    matches!(message, Message::Log(LogMessage::Promise { .. }))
}

fn is_accept(message: &Message) -> bool {
    matches!(message, Message::Log(LogMessage::Accept { .. }))
}

fn is_accepted(message: &Message) -> bool {
    matches!(message, Message::Log(LogMessage::Accepted { .. }))
}

fn is_chosen(message: &Message) -> bool {
    matches!(message, Message::Log(LogMessage::Chosen { .. }))
}

fn is_freeze(message: &Message) -> bool {
    matches!(message, Message::Freeze { .. })
}

fn is_frozen(message: &Message) -> bool {
    matches!(message, Message::Frozen { .. })
}

fn is_collect(message: &Message) -> bool {
    matches!(message, Message::Collect { .. })
}

fn is_collected(message: &Message) -> bool {
    matches!(message, Message::Collected { .. })
}

fn is_vote(message: &Message) -> bool {
    matches!(message, Message::Vote(_))
}

/// Three replicas that have learned that generation 3 is open, each with the votes that it holds of
/// each transaction. Every branch has voted, and its vote is on its way to everyone.
fn closed(list_max: usize, transactions: &[(Cast, [[bool; 2]; 3])]) -> Stage {
    let opens = [opened(2, first()), opened(3, first())];
    let saved = [0, 1, 2].map(|index| {
        let votes = transactions.iter();
        let votes = votes.flat_map(|(cast, held)| cast.votes(held[index]));
        opens.iter().cloned().chain(votes).collect()
    });
    let mut stage = Stage::new(list_max, &saved);
    for record in &opens {
        let Record::Chosen { slot, entry } = record.clone() else {
            unreachable!("the opening of a generation");
        };
        for index in 0..3 {
            let (round, replica) = (0, ReplicaId(1));
            let accept = Record::Log(LogRecord::Accept {
                slot,
                ballot: Ballot { round, replica },
                entry: entry.clone(),
            });
            let judged = stage.facts.durable(replica_id(index), &accept);
            stage.note(judged);
            if index > 0 {
                let of = if index == 1 { 0..2 } else { 2..3 };
                for index in of {
                    let judged = stage.facts.durable(replica_id(index), record);
                    stage.note(judged);
                }
            }
        }
    }
    for (cast, _) in transactions {
        for branch in 0..cast.roster.len() {
            for index in 0..3 {
                stage.send(session_peer(branch), replica_peer(index), cast.vote());
            }
        }
    }
    for (index, saved) in saved.iter().enumerate() {
        for record in &saved[opens.len()..] {
            let judged = stage.facts.durable(replica_id(index), record);
            stage.note(judged);
        }
    }
    assert_eq!(stage.violations, []);
    stage
}

/// `leader` waits until it starts a ballot of the log.
fn start(stage: &mut Stage, leader: usize) {
    let has_started = |stage: &Stage| {
        let mut sent = stage.sent.iter();
        sent.any(|sent| sent.from == replica_peer(leader) && is_prepare(&sent.message))
    };
    while !has_started(stage) {
        stage.tick(leader);
    }
}

/// `leader` leads, by the promises of itself and `other`.
fn lead(stage: &mut Stage, leader: usize, other: usize) {
    for to in [leader, other] {
        stage.ask(leader, to, is_prepare, is_promise);
    }
    assert!(stage.replicas[&leader].is_leading());
}

/// The leader asks `majority` for what they hold, and its list is made.
fn collect(stage: &mut Stage, leader: usize, majority: [usize; 2]) {
    stage.tick(leader);
    for to in majority {
        stage.ask(leader, to, is_freeze, is_frozen);
    }
    for to in majority {
        stage.ask(leader, to, is_collect, is_collected);
    }
}

/// The schedule of DESIGN 2.6, with a transaction of two branches of which the second one's vote is
/// late, and three leaders: a list that one replica accepted before the transaction was committed is
/// found by the third.
fn three_leaders(freezes: bool) -> Stage {
    let cast = Cast::new(1, 2);
    let mut stage = closed(256, &[(cast, [[true, false]; 3])]);
    stage.freezes = freezes;
    for leader in 0..3 {
        start(&mut stage, leader);
    }
    lead(&mut stage, 0, 1);
    collect(&mut stage, 0, [0, 1]);
    stage.ask(0, 0, is_accept, is_accepted);
    // The late vote comes to 2 and 3: a majority, if both still take it.
    for to in [1, 2] {
        stage.deliver(&session_peer(1), to, is_vote);
    }
    lead(&mut stage, 1, 2);
    collect(&mut stage, 1, [1, 2]);
    stage.ask(1, 1, is_accept, is_accepted);
    // The third finds the first one's list, and has to propose it.
    lead(&mut stage, 2, 0);
    for to in [2, 0] {
        stage.ask(2, to, is_accept, is_accepted);
    }
    stage
}

#[test]
fn three_leaders_without_freezing_forget_a_commit() {
    let stage = three_leaders(false);
    let forgotten = |it: &Violation| matches!(it, Violation::CommitForgotten { .. });
    assert!(
        stage.violations.iter().any(forgotten),
        "{:?}",
        stage.violations
    );
}

#[test]
fn three_leaders_and_a_frozen_generation_abort_it() {
    let mut stage = three_leaders(true);
    assert_eq!(stage.violations, []);
    let id = Cast::new(1, 2).id;
    assert_eq!(stage.facts.chosen(&id), Some(Outcome::Abort));
    // The second leader's list had it as a commit, and told nobody.
    stage.deliver(&session_peer(1), 2, is_vote);
    let last = stage.sent.last().expect("it is answered");
    assert!(matches!(last.message, Message::Expired { .. }), "{last:?}");
    assert_eq!(stage.violations, []);
}

/// A leader that found a Settle in phase 1 asks nobody before the slot is decided. (What it would
/// collect meanwhile is of the past when the Settle is chosen: proposed in the next slot, it made a
/// commit of what had been aborted.)
///
/// Replica 3 alone holds the vote of the first transaction. The first leader collects from 1 and 2,
/// so its list, one commit long, goes as far as the second transaction and aborts the first. The
/// second leader, replica 3, finds that list.
#[test]
fn a_leader_that_found_a_settle_collects_nothing_before_it_is_chosen() {
    let all = [[true, false]; 3];
    let only_the_third = [[false; 2], [false; 2], [true, false]];
    let [one, two, three] = [1, 2, 3].map(|sequence| Cast::new(sequence, 1));
    let transactions = [(one.clone(), only_the_third), (two, all), (three, all)];
    let mut stage = closed(1, &transactions);
    for leader in [0, 2] {
        start(&mut stage, leader);
    }
    lead(&mut stage, 0, 1);
    collect(&mut stage, 0, [0, 1]);
    stage.ask(0, 0, is_accept, is_accepted);
    lead(&mut stage, 2, 0);
    stage.tick(2);
    let third = replica_peer(2);
    let mut sent = stage.sent.iter();
    assert!(!sent.any(|sent| sent.from == third && is_freeze(&sent.message)));
    for to in [2, 0] {
        stage.ask(2, to, is_accept, is_accepted);
    }
    assert_eq!(stage.facts.chosen(&one.id), Some(Outcome::Abort));
    stage.pass(2, 0, is_chosen);
    stage.tick(2);
    stage.pass(2, 0, is_freeze);
    assert_eq!(stage.violations, []);
    assert_ne!(stage.replicas[&2].outcome(&one.id), Some(Outcome::Commit));
}

/// An operator's question to a frozen replica is not lost: the Settle answers it.
#[test]
fn whoever_asks_a_frozen_replica_is_answered_by_the_settle() {
    let cast = Cast::new(1, 1);
    let mut stage = closed(
        256,
        &[(cast.clone(), [[true, false], [false; 2], [false; 2]])],
    );
    start(&mut stage, 1);
    lead(&mut stage, 1, 0);
    stage.tick(1);
    stage.pass(1, 0, is_freeze);
    let ask = Input::Message {
        from: OPERATOR,
        message: Message::ForceAbort { id: cast.id },
    };
    stage.feed(0, ask);
    let told = |stage: &Stage| {
        let mut sent = stage.sent.iter();
        sent.any(|sent| sent.to == OPERATOR && matches!(sent.message, Message::Decided(_)))
    };
    assert!(!told(&stage));
    stage.pass(0, 1, is_frozen);
    stage.ask(1, 1, is_freeze, is_frozen);
    for to in [0, 1] {
        stage.ask(1, to, is_collect, is_collected);
    }
    for to in [0, 1] {
        stage.ask(1, to, is_accept, is_accepted);
    }
    stage.pass(1, 0, is_chosen);
    assert!(told(&stage), "it was in the list: {:?}", stage.sent.last());
    assert_eq!(stage.facts.chosen(&cast.id), Some(Outcome::Commit));
    assert_eq!(stage.violations, []);
}
