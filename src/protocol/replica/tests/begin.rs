//! The relay: BeginCommit and Rollback.

use crate::protocol::message::Prepare;
use crate::protocol::types::{self, REQUEST_BYTES_MAX, ROSTER_MAX, Request};

use super::*;

fn prepare(request: Option<Request>, read_only: types::ReadOnly) -> Message {
    Message::Prepare(Prepare {
        id: id(1),
        roster: ab(),
        request,
        read_only,
        floor: 5,
        vote_timeout: TIMEOUT,
    })
}

fn please() -> Message {
    prepare(None, types::ReadOnly::Allowed)
}

fn request(bytes: usize) -> Request {
    Request(vec![7; bytes].into())
}

fn with_requests(requests: Vec<Option<Request>>) -> Message {
    Message::BeginCommit(BeginCommit {
        requests,
        ..begin(id(1), ab())
    })
}

#[test]
fn the_relay_asks_every_branch_to_prepare_and_saves_nothing() {
    let mut rig = Rig::new(1);
    let out = rig.hear(initiator(), begun(1));
    assert_eq!(out, sends(to([a(), b()], please())));
    assert_eq!(rig.replica.undecided().collect::<Vec<_>>(), [&id(1)]);
    assert_eq!(rig.replica.unapplied().count(), 0);
    assert_eq!(rig.outcome(1), None);
}

#[test]
fn one_request_forbids_read_only_to_all() {
    let mut rig = Rig::new(1);
    let out = rig.hear(initiator(), with_requests(vec![None, Some(request(3))]));
    let forbidden = types::ReadOnly::Forbidden;
    let expected = [
        (a(), prepare(None, forbidden)),
        (b(), prepare(Some(request(3)), forbidden)),
    ];
    assert_eq!(out, sends(expected));
}

#[test]
fn a_list_of_no_requests_allows_read_only() {
    let out = Rig::new(1).hear(initiator(), with_requests(vec![None, None]));
    assert_eq!(out, sends(to([a(), b()], please())));
}

#[test]
fn asked_twice_it_asks_again_those_that_have_not_voted() {
    let mut rig = Rig::new(1).given(initiator(), begun(1));
    assert_eq!(
        rig.hear(initiator(), begun(1)),
        sends(to([a(), b()], please()))
    );
    rig.hear(a(), vote(1, Prepared));
    assert_eq!(rig.hear(initiator(), begun(1)), sends([(b(), please())]));
    assert_eq!(rig.replica.undecided().count(), 1);
}

#[test]
fn the_second_relay_of_a_hedge_tells_what_it_has_accepted() {
    let mut rig = Rig::new(2)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, ReadOnly));
    let report = phase2b(id(1), Ballot::ZERO, Commit);
    assert_eq!(
        rig.hear(initiator(), begun(1)),
        sends([(initiator(), report)])
    );
}

#[test]
fn after_a_promise_nobody_is_asked_to_prepare_any_more() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(replica(2), phase1a(ballot(1, 2), &[id(1)]));
    assert_eq!(rig.hear(initiator(), begun(1)), nothing());
    let proposal = decision(id(1), Abort, None);
    rig.hear(replica(2), phase2a(ballot(1, 2), [proposal]));
    let report = phase2b(id(1), ballot(1, 2), Abort);
    assert_eq!(
        rig.hear(initiator(), begun(1)),
        sends([(initiator(), report)])
    );
}

#[test]
fn a_decided_transaction_is_answered_with_its_outcome() {
    let mut rig = Rig::new(1).given(a(), vote(1, Aborted));
    assert_eq!(
        rig.hear(initiator(), begun(1)),
        sends([(initiator(), decided(id(1), Abort, None))])
    );
    let mut rig = Rig::new(1)
        .given(initiator(), begun(1))
        .given(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    assert_eq!(
        rig.hear(initiator(), begun(1)),
        sends([(initiator(), decided(id(1), Commit, None))])
    );
}

#[test]
fn only_its_own_initiator_commits_a_transaction() {
    let mut rig = Rig::new(1);
    let stranger = Peer::Initiator(InitiatorId::from_u128(8));
    assert_eq!(
        rig.hear(stranger.clone(), begun(1)),
        rejected(stranger, Rejection::NotItsInitiator)
    );
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn the_roster_must_be_the_one_that_the_id_names() {
    let wrong = || Message::BeginCommit(begin(id(1), only_a()));
    let refused = rejected(initiator(), Rejection::WrongRoster);
    let mut rig = Rig::new(1);
    assert_eq!(rig.hear(initiator(), wrong()), refused);
    assert_eq!(rig.replica.undecided().count(), 0);
    rig.hear(initiator(), begun(1));
    assert_eq!(rig.hear(initiator(), wrong()), refused);
}

#[test]
fn there_is_one_request_for_each_branch_or_none_at_all() {
    let mut rig = Rig::new(1);
    for count in [1, 3] {
        let begin = with_requests(vec![None; count]);
        assert_eq!(
            rig.hear(initiator(), begin),
            rejected(initiator(), Rejection::WrongRoster)
        );
    }
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn a_request_has_a_limit() {
    let mut rig = Rig::new(1);
    let long = with_requests(vec![None, Some(request(REQUEST_BYTES_MAX + 1))]);
    assert_eq!(
        rig.hear(initiator(), long),
        rejected(initiator(), Rejection::TooLong)
    );
    let full = with_requests(vec![None, Some(request(REQUEST_BYTES_MAX))]);
    assert_eq!(rig.hear(initiator(), full).send.len(), 2);
}

#[test]
fn past_the_limit_new_transactions_are_busy_and_known_ones_go_on() {
    let mut rig = Rig::new(1);
    for sequence in 1..=3 {
        assert_eq!(rig.hear(initiator(), begun(sequence)).send.len(), 2);
    }
    let busy = |peer: Peer| sends([(peer, Message::Busy { id: id(4) })]);
    assert_eq!(rig.hear(initiator(), begun(4)), busy(initiator()));
    assert_eq!(rig.hear(a(), vote(4, Prepared)), busy(a()));
    let question = ask(id(4), None, Voter::Unknown);
    assert_eq!(rig.hear(initiator(), question), busy(initiator()));
    assert_eq!(rig.replica.undecided().count(), 3);

    assert_eq!(
        rig.hear(a(), vote(1, Prepared)),
        saves([vote_record(1, 0, Prepared, Some(ab()))])
    );
    assert_eq!(rig.hear(initiator(), begun(2)).send.len(), 2);
    let question = ask(id(3), None, Voter::Unknown);
    assert!(matches!(
        rig.hear(initiator(), question).send[..],
        [(_, Message::Undecided(_))]
    ));
}

#[test]
fn a_decision_makes_room_for_a_new_transaction() {
    let full = || {
        let rig = Rig::new(1).given(initiator(), begun(1));
        rig.given(initiator(), begun(2))
            .given(initiator(), begun(3))
    };
    let decisions = [
        (a(), vote(3, Aborted)),
        (replica(2), decided(id(3), Abort, None)),
        (replica(2), decided(id(3), Commit, Some(whom(&[])))),
        (replica(2), decided(id(3), Commit, None)),
    ];
    for (from, message) in decisions {
        let mut rig = full().given(from, message);
        assert_eq!(rig.hear(initiator(), begun(4)).send.len(), 2);
        let out = rig.hear(initiator(), begun(5));
        assert_eq!(out, sends([(initiator(), Message::Busy { id: id(5) })]));
        // Finishing it later frees no second place.
        rig.hear(replica(2), decided(id(3), Commit, None));
        let out = rig.hear(initiator(), begun(5));
        assert_eq!(out, sends([(initiator(), Message::Busy { id: id(5) })]));
    }
}

#[test]
fn a_commit_that_all_branches_have_applied_makes_room_too() {
    let mut rig = Rig::new(1);
    for sequence in 1..=3 {
        rig.hear(a(), vote(sequence, Prepared));
        rig.hear(b(), vote(sequence, Prepared));
    }
    rig.hear(a(), applied(id(1), branch("a", 1)));
    rig.hear(b(), applied(id(1), branch("b", 1)));
    assert_eq!(rig.hear(initiator(), begun(4)).send.len(), 2);
    let busy = Message::Busy { id: id(5) };
    assert_eq!(
        rig.hear(initiator(), begun(5)),
        sends([(initiator(), busy)])
    );
}

#[test]
fn recovery_and_the_operator_pass_the_limit() {
    let rig = Rig::new(1).given(initiator(), begun(1));
    let rig = rig.given(initiator(), begun(2));
    let mut rig = rig.given(initiator(), begun(3));
    let out = rig.hear(replica(2), phase1a(ballot(1, 2), &[id(4)]));
    assert_eq!(out.save, [promise_record(4, ballot(1, 2))]);
    let out = rig.hear(operator(), Message::ForceAbort { id: id(5) });
    assert_eq!(out.save, [Record::Round { round: 2 }]);
}

#[test]
fn rollback_is_passed_on_to_the_sessions_and_remembered_nowhere() {
    let mut rig = Rig::new(1);
    let branches = vec![branch("a", 1), branch("b", 2)];
    let rollback = Message::Rollback {
        txn: txn(1),
        branches,
        floor: 3,
    };
    let let_go = Message::LetGo {
        txn: txn(1),
        floor: 3,
    };
    assert_eq!(
        rig.hear(initiator(), rollback),
        sends(to([a(), session("b", 2)], let_go))
    );
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn only_its_own_initiator_rolls_a_transaction_back() {
    let stranger = Peer::Initiator(InitiatorId::from_u128(8));
    let rollback = Message::Rollback {
        txn: txn(1),
        branches: vec![branch("a", 1)],
        floor: 0,
    };
    assert_eq!(
        Rig::new(1).hear(stranger.clone(), rollback),
        rejected(stranger, Rejection::NotItsInitiator)
    );
}

#[test]
fn a_rollback_names_no_more_branches_than_a_roster() {
    let rollback = |count| Message::Rollback {
        txn: txn(1),
        branches: vec![branch("a", 1); count],
        floor: 0,
    };
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(initiator(), rollback(ROSTER_MAX + 1)),
        rejected(initiator(), Rejection::TooLong)
    );
    assert_eq!(
        rig.hear(initiator(), rollback(ROSTER_MAX)).send.len(),
        ROSTER_MAX
    );
}
