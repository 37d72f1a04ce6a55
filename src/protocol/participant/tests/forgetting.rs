//! The initiator's floor: what it may forget, and what it then refuses.

use super::*;

/// Raises the floor by a prepare for transaction 8.
fn raise(rig: &mut Rig, floor: u32) {
    rig.begin(8);
    assert_eq!(rig.asked(with_floor(8, floor)).notify.len(), 1);
}

#[test]
fn what_is_done_below_the_floor_is_forgotten() {
    let mut rig = Rig::committed();
    raise(&mut rig, 1);
    assert_eq!(rig.participant.remembered(), 2, "1 is not below 1");
    rig.asked(with_floor(8, 2));
    assert_eq!(rig.participant.remembered(), 1);
}

#[test]
fn below_the_floor_there_is_no_vote_and_no_work() {
    let mut rig = Rig::committed();
    raise(&mut rig, 3);
    for sequence in [1, 2] {
        assert_eq!(rig.asked(please(sequence)), nothing());
        assert_eq!(rig.asked(with_request(sequence)), nothing());
        assert_eq!(rig.begin(sequence), notifies([refused(sequence)]));
        assert_eq!(rig.rollback(sequence), nothing());
    }
    assert_eq!(rig.participant.remembered(), 1, "and no trace");
    assert_eq!(rig.begin(3), notifies([began(3)]), "at the floor there is");
    assert_eq!(rig.participant.remembered(), 2);
}

#[test]
fn the_floor_of_a_late_prepare_counts_before_the_prepare_does() {
    let mut rig = Rig::new();
    assert_eq!(rig.asked(with_floor(1, 2)), nothing());
    assert_eq!(rig.participant.remembered(), 0);
}

#[test]
fn the_floor_never_goes_back() {
    let mut rig = Rig::new();
    raise(&mut rig, 5);
    rig.asked(with_floor(8, 2));
    assert_eq!(rig.begin(4), notifies([refused(4)]));
}

#[test]
fn each_initiator_has_a_floor_of_its_own() {
    let theirs = TxnId {
        initiator: InitiatorId::from_u128(8),
        ..txn(1)
    };
    let mut rig = Rig::committed();
    rig.command(ParticipantCommand::Begin(theirs));
    rig.command(ParticipantCommand::Rollback(theirs));
    raise(&mut rig, 5);
    assert_eq!(rig.participant.remembered(), 2, "theirs stays");
    let begins = TxnId {
        sequence: 2,
        ..theirs
    };
    let out = rig.command(ParticipantCommand::Begin(begins));
    assert_eq!(out, notifies([ParticipantNotice::Began(begins)]));
}

#[test]
fn what_is_not_at_its_end_is_not_forgotten() {
    let mut applying = Rig::voted(Prepared);
    applying.hear(1, finish(id(1), me(), Commit));
    for mut rig in [
        Rig::working(),
        Rig::preparing(),
        Rig::voted(Prepared),
        Rig::voted(Aborted),
        applying,
    ] {
        raise(&mut rig, 5);
        assert_eq!(rig.participant.remembered(), 2);
    }
    let mut read_only = Rig::voted(ReadOnly);
    raise(&mut read_only, 5);
    assert_eq!(read_only.participant.remembered(), 1);
}

#[test]
fn work_below_the_floor_still_prepares_and_is_forgotten_at_its_end() {
    let mut rig = Rig::working();
    raise(&mut rig, 5);
    assert_eq!(rig.asked(please(1)), notifies([asks_to_prepare(please(1))]));
    rig.prepared(1, Prepared);
    rig.hear(1, finish(id(1), me(), Commit));
    assert_eq!(rig.participant.remembered(), 2);
    assert_eq!(
        rig.finished(id(1), 1),
        effects(to_all(applied(id(1), me())), [ended(1, Commit)])
    );
    assert_eq!(rig.participant.remembered(), 1);
}

#[test]
fn below_the_floor_a_read_only_branch_is_forgotten_as_it_votes() {
    for (vote, remembered) in [(ReadOnly, 1), (Prepared, 2), (Aborted, 2)] {
        let mut rig = Rig::preparing();
        raise(&mut rig, 5);
        rig.prepared(1, vote);
        assert_eq!(rig.participant.remembered(), remembered);
    }
    let mut at_the_floor = Rig::preparing();
    raise(&mut at_the_floor, 1);
    at_the_floor.prepared(1, ReadOnly);
    assert_eq!(at_the_floor.participant.remembered(), 2);
}

#[test]
fn work_below_the_floor_that_lets_go_is_forgotten() {
    let mut rig = Rig::working();
    raise(&mut rig, 5);
    assert_eq!(rig.rollback(1), notifies([let_go(1)]));
    assert_eq!(rig.participant.remembered(), 1);
    assert_eq!(rig.asked(with_request(1)), nothing(), "no vote, no work");
}

#[test]
fn a_branch_that_was_forgotten_is_told_to_the_store() {
    for mut rig in [Rig::committed(), Rig::voted(ReadOnly)] {
        raise(&mut rig, 5);
        assert_eq!(
            rig.hear(3, finish(id(1), me(), Commit)),
            notifies([asks_to_finish(id(1), 1, Commit)]),
            "it has the marker"
        );
        rig.finished(id(1), 1);
        assert_eq!(rig.hear(3, finish(id(1), me(), Abort)), nothing());
        assert_eq!(rig.participant.remembered(), 1);
    }
}

/// It can vote in no transaction that it does not remember, so only its store can tell.
#[test]
fn a_commit_of_a_branch_that_is_not_remembered_is_for_the_store() {
    let mut rig = Rig::new();
    let out = rig.hear(3, finish(id(1), me(), Commit));
    assert_eq!(out, notifies([asks_to_finish(id(1), 1, Commit)]));
    assert_eq!(rig.participant.remembered(), 0);
    let out = rig.not_proven(id(1), 1);
    assert_eq!(out, sends(to_all(tells_unproven(id(1), 1))));
    assert_eq!(rig.wait().1.notify, [unproven(id(1), 1)]);
}

/// (A million ids would be a million entries.)
#[test]
fn an_abort_of_a_branch_that_is_not_known_creates_nothing() {
    let mut rig = Rig::new();
    assert_eq!(rig.hear(3, finish(id(1), me(), Abort)), nothing());
    let other = branch("a", 2);
    assert_eq!(rig.hear(3, finish(id(2), other, Abort)), nothing());
    let let_go = Message::LetGo {
        txn: txn(3),
        floor: 0,
    };
    assert_eq!(rig.hear(3, let_go), nothing());
    assert_eq!(rig.participant.remembered(), 0);
    assert_eq!(rig.participant.others_remembered(), 0);
    assert_eq!(rig.begin(1), notifies([began(1)]));
}
