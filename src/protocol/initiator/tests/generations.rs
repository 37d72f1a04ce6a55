//! Generations as they turn, and what is forgotten.

use super::*;
use crate::protocol::types::Settle;

/// After the fourth generation, on replicas 1 to 3, these are opened on replicas 2 to 4.
pub(super) fn later(generations: impl IntoIterator<Item = u32>) -> Generations {
    let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
    let mut known = fourth(acceptors);
    for generation in generations {
        let acceptors = Acceptors::new((2..=4).map(ReplicaId)).unwrap();
        known.apply(&Entry::Open(Open {
            generation,
            configuration: acceptors.into(),
        }));
    }
    known
}

/// Generations 1 to 4 are settled, and the seventh is the latest.
pub(super) fn settled() -> Generations {
    let mut known = later(5..=7);
    for generation in 1..=4 {
        known.apply(&Entry::Settle(Box::new(Settle {
            after: known.horizon(),
            through: Generations::last_id(generation),
            unfinished: Vec::new(),
        })));
    }
    known
}

pub(super) fn in_generation(generation: u32, sequence: u32) -> TxnId {
    TxnId {
        generation,
        ..txn(sequence)
    }
}

#[test]
fn transactions_begin_in_the_latest_generation() {
    let mut rig = Rig::begun(1);
    let announced = Message::Announce(later([5]));
    assert_eq!(
        rig.hear(4, announced),
        nothing(),
        "from a replica that is new"
    );
    let begun = InitiatorNotice::Begun(in_generation(5, 1));
    assert_eq!(rig.begin(), notifies([begun]));
    // What was known before is older.
    rig.hear(1, Message::Announce(later([])));
    let begun = InitiatorNotice::Begun(in_generation(5, 2));
    assert_eq!(rig.begin(), notifies([begun]));
}

#[test]
fn each_commits_with_the_replicas_of_its_generation() {
    let mut rig = Rig::begun(1);
    rig.hear(4, Message::Announce(later([5])));
    rig.begin();
    let old = rig.commit(0, Relay);
    assert_eq!(old.send[0].0, replica(1));
    let branches: Vec<_> = ab().iter().map(|branch| (branch.clone(), None)).collect();
    let new = rig.commit_with(in_generation(5, 1), branches, Relay);
    assert_eq!(new.send[0].0, replica(2));
    let id = CommitId::new(in_generation(5, 1), &ab());
    let report = phase2b(id, Ballot::ZERO, Commit);
    assert_eq!(rig.hear(1, report.clone()), nothing(), "no replica of it");
    assert_eq!(rig.hear(3, report.clone()), nothing());
    let out = rig.hear(4, report);
    assert_eq!(out.notify, [outcome(id, Commit)]);
}

#[test]
fn in_a_closed_generation_commit_is_refused_and_nothing_sent() {
    let mut rig = Rig::begun(1);
    rig.hear(2, Message::Announce(later([5, 6])));
    let error = CommitError::GenerationClosed(txn(0));
    assert_eq!(rig.commit(0, Relay), refused(txn(0), error));
    let branches = vec![ab().iter().next().unwrap().clone()];
    let rollback = InitiatorCommand::Rollback {
        txn: txn(0),
        branches,
    };
    assert_eq!(rig.command(rollback).send.len(), 3, "it can be rolled back");
}

#[test]
fn a_refusal_tells_what_to_do_next() {
    let mut rig = Rig::committing(Relay);
    let not_open = Message::NotOpen {
        id: id(0),
        generations: later([5, 6]),
    };
    assert_eq!(rig.hear(1, not_open), nothing());
    let begun = InitiatorNotice::Begun(in_generation(6, 1));
    assert_eq!(rig.begin(), notifies([begun]));
    // The outcome of the one that was refused is still asked for: another relay may have taken it.
    assert_eq!(rig.wait().1.send.len(), 1);
}

#[test]
fn what_expired_is_forgotten_and_not_aborted() {
    let mut rig = Rig::committing(Relay);
    let expired = |id| Message::Expired { id, branch: None };
    assert_eq!(rig.hear(1, expired(id(9))), nothing(), "nobody asked");
    let told = InitiatorNotice::Expired { id: id(0) };
    let out = rig.hear(1, expired(id(0)));
    assert_eq!(out, effects([], [told.clone()], [cancel_hedge(0)]));
    assert!(rig.is_at_rest());
    rig.ask(id(0));
    assert_eq!(rig.hear(2, expired(id(0))), notifies([told]));
    assert!(rig.is_at_rest());
    let forgotten = Message::Forgotten { txn: txn(0) };
    let told = InitiatorNotice::Forgotten {
        replica: ReplicaId(2),
        txn: txn(0),
    };
    assert_eq!(rig.hear(2, forgotten), notifies([told]));
}

#[test]
fn of_what_is_settled_those_in_force_are_asked() {
    let mut rig = Rig::committing(Relay);
    rig.hear(2, Message::Announce(settled()));
    let asks = [2, 3, 4].map(|to| (replica(to), question(id(0), TIMEOUT)));
    assert_eq!(rig.wait().1, sends(asks), "a relay could do nothing for it");
    let out = rig.command(InitiatorCommand::Inquire(txn(0)));
    let asks = [2, 3, 4].map(|to| (replica(to), Message::Inquire { txn: txn(0) }));
    assert_eq!(out, sends(asks));
    let participant: crate::protocol::types::ParticipantName = "a".parse().unwrap();
    let resolve = InitiatorCommand::Resolve(participant.clone());
    let asks = [2, 3, 4].map(|to| {
        let participant = participant.clone();
        (replica(to), Message::Resolve { participant })
    });
    assert_eq!(rig.command(resolve), sends(asks));
    let later = CommitId::new(in_generation(9, 0), &ab());
    let asked: Vec<Peer> = rig.ask(later).send.into_iter().map(|(to, _)| to).collect();
    assert_eq!(
        asked,
        [2, 3, 4].map(replica),
        "of one it has not heard of, too"
    );
}

#[test]
fn the_first_relay_is_kept_over_a_change_of_the_membership() {
    let mut rig = Rig::begun(1);
    rig.disconnected(replica(1));
    rig.hear(4, Message::Announce(later([5])));
    rig.disconnected(replica(3));
    rig.begin();
    let branches: Vec<_> = ab().iter().map(|branch| (branch.clone(), None)).collect();
    let out = rig.commit_with(in_generation(5, 1), branches, Relay);
    assert_eq!(
        out.send[0].0,
        replica(4),
        "the one after those that are away"
    );
    rig.disconnected(replica(1));
    let fewer = {
        let mut known = later([5]);
        known.apply(&Entry::Open(Open {
            generation: 6,
            configuration: Acceptors::new([ReplicaId(4)]).unwrap().into(),
        }));
        known
    };
    rig.hear(4, Message::Announce(fewer));
    rig.begin();
    let branches: Vec<_> = ab().iter().map(|branch| (branch.clone(), None)).collect();
    let out = rig.commit_with(in_generation(6, 2), branches, Relay);
    assert_eq!(out.send[0].0, replica(4));
}
