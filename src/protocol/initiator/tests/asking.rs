//! Questions about any transaction, and about participants.

use crate::protocol::message::State;
use crate::protocol::types::ParticipantName;

use super::*;

#[test]
fn a_question_goes_to_all_replicas_until_one_knows() {
    let mut rig = Rig::new();
    let asked = || to_all(question(old_id(), Duration::ZERO));
    assert_eq!(rig.ask(old_id()), effects(asked(), [], [set_tick()]));
    for gap in [2, 4, 5, 5] {
        assert_eq!(rig.wait(), (gap, sends(asked())));
    }
    assert_eq!(
        rig.hear(2, decided(old_id(), Commit)),
        notifies([outcome(old_id(), Commit)])
    );
    assert_eq!(rig.hear(3, decided(old_id(), Commit)), nothing(), "once");
    assert!(rig.is_at_rest());
}

#[test]
fn asked_again_it_asks_again_at_once() {
    let mut rig = Rig::new();
    rig.ask(old_id());
    rig.wait();
    assert_eq!(
        rig.ask(old_id()),
        sends(to_all(question(old_id(), Duration::ZERO)))
    );
    assert_eq!(rig.wait().0, 2);
}

#[test]
fn a_question_about_its_own_open_commit_is_told_once() {
    let mut rig = Rig::committing(Relay);
    rig.ask(id(0));
    assert_eq!(
        rig.hear(2, decided(id(0), Commit)),
        effects([], [outcome(id(0), Commit)], [cancel_hedge(0)])
    );
    assert!(rig.is_at_rest());
}

#[test]
fn a_question_about_its_own_open_commit_gives_the_votes_their_time() {
    let mut rig = Rig::committing(Relay);
    assert_eq!(rig.ask(id(0)), sends(to_all(question(id(0), TIMEOUT))));
    let (_, out) = rig.wait();
    let mut expected = vec![(replica(2), begin_commit(0))];
    expected.extend(to_all(question(id(0), TIMEOUT)));
    assert_eq!(out, sends(expected));
}

#[test]
fn why_there_is_no_outcome_is_told_if_it_was_asked() {
    let said = |id| Undecided {
        id,
        missing: vec![branch("b", 1)],
        silent: vec![ReplicaId(3)],
    };
    let told = |id| {
        notifies([InitiatorNotice::Undecided {
            replica: ReplicaId(2),
            undecided: said(id),
        }])
    };
    let mut rig = Rig::committing(Itself);
    rig.ask(old_id());
    for asked in [id(0), old_id()] {
        assert_eq!(rig.hear(2, Message::Undecided(said(asked))), told(asked));
    }
    let theirs = CommitId {
        txn: TxnId {
            initiator: InitiatorId::from_u128(5),
            ..txn(0)
        },
        ..id(0)
    };
    for not_asked in [id(1), theirs] {
        let message = Message::Undecided(said(not_asked));
        assert_eq!(rig.hear(2, message), nothing());
    }
}

#[test]
fn an_inquiry_goes_to_all_and_every_answer_is_passed_on() {
    let mut rig = Rig::new();
    let txn = old_id().txn;
    assert_eq!(
        rig.command(InitiatorCommand::Inquire(txn)),
        sends(to_all(Message::Inquire { txn }))
    );
    let state = State::Decided {
        outcome: Abort,
        unapplied: Vec::new(),
    };
    let instances = vec![(old_id(), state)];
    let status = Message::Status {
        txn,
        instances: instances.clone(),
    };
    let notice = InitiatorNotice::Status {
        replica: ReplicaId(3),
        txn,
        instances,
    };
    assert_eq!(rig.hear(3, status), notifies([notice]));
}

#[test]
fn a_participant_is_resolved_by_all() {
    let mut rig = Rig::new();
    let participant: ParticipantName = "a".parse().unwrap();
    let resolve = Message::Resolve {
        participant: participant.clone(),
    };
    assert_eq!(
        rig.command(InitiatorCommand::Resolve(participant.clone())),
        sends(to_all(resolve))
    );
    let branches = vec![branch("a", 1), branch("a", 2)];
    let resolved = Message::Resolved {
        participant: participant.clone(),
        branches: branches.clone(),
    };
    let notice = InitiatorNotice::Resolved {
        replica: ReplicaId(1),
        participant,
        branches,
    };
    assert_eq!(rig.hear(1, resolved), notifies([notice]));
}
