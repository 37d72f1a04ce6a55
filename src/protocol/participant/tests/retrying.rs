//! Votes and questions are sent again until they are answered.

use super::*;

#[test]
fn a_vote_is_repeated_less_and_less_often_until_the_outcome_is_known() {
    for said in [Prepared, Aborted] {
        let mut rig = Rig::voted(said);
        for gap in [3, 6, 12, 20, 20] {
            assert_eq!(rig.wait(), (gap, sends(to_all(vote(1, said)))));
        }
        rig.hear(2, phase2b(id(1), Ballot::ZERO, Abort));
        rig.wait_quietly(30);
    }
}

#[test]
fn a_question_is_repeated_less_and_less_often_until_it_is_answered() {
    let mut rig = Rig::new();
    rig.found([found(id(1), 2)]);
    for gap in [3, 6, 12, 20, 20] {
        let expected = to_all(question(id(1), 2, Voter::Unknown));
        assert_eq!(rig.wait(), (gap, sends(expected)));
    }
    rig.hear(2, finish(id(1), branch("a", 2), Abort));
    rig.wait_quietly(30);
}

#[test]
fn a_read_only_branch_repeats_nothing() {
    Rig::voted(ReadOnly).wait_quietly(30);
}

#[test]
fn what_is_due_at_one_tick_is_all_sent() {
    let mut rig = Rig::voted(Prepared);
    rig.begin(2);
    rig.tick();
    rig.found([found(id(3), 2)]);
    rig.tick();
    assert_eq!(rig.tick(), sends(to_all(vote(1, Prepared))));
    let expected = to_all(question(id(3), 2, Voter::Unknown));
    assert_eq!(rig.tick(), sends(expected));
    assert_eq!(rig.tick(), notifies([let_go(2), unasked(2, 5)]));
}

#[test]
fn a_busy_replica_is_told_again_later() {
    let mut rig = Rig::voted(Prepared);
    rig.tick();
    assert_eq!(rig.hear(1, Message::Busy { id: id(1) }), nothing());
    assert_eq!(rig.wait().0, 6);
    assert_eq!(rig.wait().0, 12);
    let mut rig = Rig::voted(Prepared);
    rig.tick();
    rig.hear(1, Message::Busy { id: id(2) });
    rig.hear(1, Message::Busy { id: alone(1) });
    assert_eq!(rig.wait().0, 2, "busy about something else");
}

#[test]
fn a_replica_that_comes_back_is_told_all_votes_and_questions() {
    let mut rig = Rig::voted(Prepared);
    rig.begin(2);
    rig.asked(please(3));
    rig.found([found(id(4), 2)]);
    rig.hear(2, finish(id(5), branch("a", 2), Commit));
    let expected = [
        presents(2),
        (replica(2), vote(1, Prepared)),
        (replica(2), Message::Inquire { txn: txn(2) }),
        (replica(2), vote(3, Aborted)),
        (replica(2), question(id(4), 2, Voter::Unknown)),
    ];
    assert_eq!(rig.step(Input::Connected(replica(2))), sends(expected));
    let session = Peer::Session(branch("b", 1));
    assert_eq!(rig.step(Input::Connected(session)), nothing());
    assert_eq!(rig.step(Input::Connected(replica(9))), nothing());
    assert_eq!(rig.step(Input::Disconnected(replica(2))), nothing());
}

#[test]
fn a_read_only_vote_is_told_again_to_a_replica_that_comes_back() {
    let mut rig = Rig::voted(ReadOnly);
    assert_eq!(
        rig.step(Input::Connected(replica(3))),
        sends([presents(3), (replica(3), vote(1, ReadOnly))])
    );
    let mut done = Rig::committed();
    assert_eq!(
        done.step(Input::Connected(replica(3))),
        sends([presents(3)])
    );
}

/// (Counter-example: a service that was stopped while its transaction was aborted keeps its locks for
/// a minute.)
#[test]
fn work_whose_transaction_was_aborted_meanwhile_is_released() {
    let status = |outcome| Message::Status {
        txn: txn(1),
        instances: vec![(
            id(1),
            State::Decided {
                outcome,
                unapplied: Vec::new(),
            },
        )],
    };
    let mut rig = Rig::working();
    assert_eq!(
        rig.hear(2, status(Commit)),
        nothing(),
        "not without its vote"
    );
    let out = rig.hear(2, status(Abort));
    assert_eq!(out, notifies([let_go(1), ended(1, Abort)]));
    let mut rig = Rig::working();
    let unknown = Message::Status {
        txn: txn(1),
        instances: Vec::new(),
    };
    assert_eq!(rig.hear(2, unknown), nothing());
    let forgotten = Message::Forgotten { txn: txn(1) };
    assert_eq!(rig.hear(2, forgotten.clone()), notifies([let_go(1)]));
    let mut voted = Rig::voted(Prepared);
    assert_eq!(voted.hear(2, status(Abort)), nothing(), "it asks");
    assert_eq!(voted.hear(2, forgotten), nothing());
}
