//! Ids and the floor; commit, rollback, abandon.

use crate::protocol::types::{REQUEST_BYTES_MAX, ROSTER_MAX};

use super::*;

fn with_requests(requests: [Option<Request>; 2]) -> Vec<(Branch, Option<Request>)> {
    [branch("b", 1), branch("a", 1)]
        .into_iter()
        .zip(requests)
        .collect()
}

#[test]
fn transactions_are_numbered_from_zero() {
    let mut rig = Rig::begun(2);
    assert_eq!(rig.begin(), notifies([InitiatorNotice::Begun(txn(2))]));
}

#[test]
fn the_last_sequence_number_is_used_and_none_after_it() {
    let mut rig = Rig::new();
    rig.initiator.next = Some(u32::MAX - 1);
    assert_eq!(rig.initiator.floor(), u32::MAX - 1);
    for sequence in [u32::MAX - 1, u32::MAX] {
        assert_eq!(
            rig.begin(),
            notifies([InitiatorNotice::Begun(txn(sequence))])
        );
    }
    for _ in 0..2 {
        assert_eq!(rig.begin(), notifies([InitiatorNotice::SequenceExhausted]));
    }
    assert_eq!(rig.initiator.floor(), u32::MAX - 1);
    rig.abandon(txn(u32::MAX - 1));
    assert_eq!(rig.initiator.floor(), u32::MAX);
    rig.abandon(txn(u32::MAX));
    assert_eq!(rig.initiator.floor(), u32::MAX);
}

#[test]
fn the_floor_is_the_oldest_that_is_open() {
    let mut rig = Rig::new();
    assert_eq!(rig.initiator.floor(), 0);
    let mut rig2 = Rig::begun(3);
    assert_eq!(rig2.initiator.floor(), 0);
    rig2.abandon(txn(1));
    assert_eq!(rig2.initiator.floor(), 0);
    rig2.abandon(txn(0));
    assert_eq!(rig2.initiator.floor(), 2);
    rig2.abandon(txn(2));
    assert_eq!(rig2.initiator.floor(), 3);
    rig.begin();
    rig.commit(0, Relay);
    assert_eq!(rig.initiator.floor(), 0, "until the outcome is known");
    rig.hear(1, decided(id(0), Abort));
    assert_eq!(rig.initiator.floor(), 1);
}

#[test]
fn commit_goes_to_one_relay_and_sets_the_hedge() {
    let mut rig = Rig::begun(1);
    assert_eq!(
        rig.commit(0, Relay),
        effects(
            [(replica(1), begin_commit(0))],
            [InitiatorNotice::Asked(id(0))],
            [set_hedge(0), set_tick()]
        )
    );
}

#[test]
fn commit_carries_the_floor() {
    let mut rig = Rig::begun(3);
    rig.abandon(txn(0));
    let out = rig.commit(2, Relay);
    assert_eq!(out.send, [(replica(1), with_floor(2, 1))]);
}

#[test]
fn branches_that_prepare_by_themselves_need_no_relay() {
    let mut rig = Rig::begun(1);
    assert_eq!(
        rig.commit(0, Itself),
        effects([], [InitiatorNotice::Asked(id(0))], [set_tick()])
    );
}

#[test]
fn the_tick_is_set_once_for_all_that_is_open() {
    let mut rig = Rig::begun(2);
    rig.commit(0, Relay);
    assert_eq!(rig.commit(1, Relay).timers, [set_hedge(1)]);
}

#[test]
fn requests_travel_in_the_order_of_the_roster() {
    let mut rig = Rig::begun(1);
    let branches = with_requests([Some(request(2)), None]);
    let out = rig.commit_with(txn(0), branches, Relay);
    let expected = Message::BeginCommit(BeginCommit {
        id: id(0),
        roster: ab(),
        requests: vec![None, Some(request(2))],
        floor: 0,
        vote_timeout: TIMEOUT,
    });
    assert_eq!(out.send, [(replica(1), expected)]);
}

#[test]
fn a_request_has_a_limit() {
    let got = REQUEST_BYTES_MAX + 1;
    let long = with_requests([Some(request(got)), Some(request(1))]);
    let mut rig = Rig::begun(1);
    let error = CommitError::RequestTooLong { got };
    assert_eq!(
        error.to_string(),
        "a request has at most 65536 bytes, got 65537"
    );
    assert_eq!(rig.commit_with(txn(0), long, Relay), refused(txn(0), error));
    let full = with_requests([Some(request(REQUEST_BYTES_MAX)), None]);
    let out = rig.commit_with(txn(0), full, Relay);
    assert_eq!(out.notify, [InitiatorNotice::Asked(id(0))]);
}

#[test]
fn a_branch_that_prepares_by_itself_is_given_no_request() {
    let mut rig = Rig::begun(1);
    let branches = with_requests([None, Some(request(0))]);
    assert_eq!(
        rig.commit_with(txn(0), branches, Itself),
        refused(txn(0), CommitError::RequestWithoutRelay)
    );
}

#[test]
fn branches_that_make_no_roster_are_refused_and_the_transaction_stays_open() {
    let mut rig = Rig::begun(1);
    let many = (0..=ROSTER_MAX as u64).map(|session| (branch("a", session), None));
    let twice = vec![(branch("a", 1), None), (branch("a", 1), Some(request(1)))];
    for (branches, why) in [
        (Vec::new(), "a transaction has 1 to 32 branches, got 0"),
        (
            many.clone().collect(),
            "a transaction has 1 to 32 branches, got 33",
        ),
        (
            twice,
            "branch a/0000000000000001/00000000000000000000000000000001 is enlisted twice",
        ),
    ] {
        let error = CommitError::Roster(why.into());
        assert_eq!(error.to_string(), why);
        assert_eq!(
            rig.commit_with(txn(0), branches, Relay),
            refused(txn(0), error)
        );
    }
    let out = rig.commit_with(txn(0), many.take(ROSTER_MAX).collect(), Relay);
    assert_eq!(out.send.len(), 1);
}

#[test]
fn only_what_was_begun_here_and_is_open_can_be_committed() {
    let mut rig = Rig::begun(2);
    rig.abandon(txn(1));
    let theirs = TxnId {
        initiator: InitiatorId::from_u128(6),
        ..txn(0)
    };
    for txn in [txn(1), txn(2), theirs] {
        let branches = vec![(branch("a", 1), None)];
        let error = CommitError::NotOpen(txn);
        assert_eq!(
            rig.commit_with(txn, branches, Relay),
            refused(txn, error.clone())
        );
        let rollback = InitiatorCommand::Rollback {
            txn,
            branches: vec![branch("a", 1)],
        };
        assert_eq!(rig.command(rollback), refused(txn, error));
    }
    let error = CommitError::NotOpen(txn(1)).to_string();
    assert_eq!(
        error,
        "transaction 00000004-00000000000000000000000000000007-00000001-0000000000000009 is not \
         open at this initiator: it was never begun or has ended"
    );
}

#[test]
fn a_transaction_of_another_initiator_with_an_open_sequence_number_is_not_open() {
    let mut rig = Rig::begun(1);
    let theirs = old_id().txn;
    let branches = vec![(branch("a", 1), None)];
    assert_eq!(
        rig.commit_with(theirs, branches, Relay),
        refused(theirs, CommitError::NotOpen(theirs))
    );
    assert_eq!(rig.abandon(theirs), nothing());
    assert_eq!(rig.initiator.floor(), 0);
}

#[test]
fn rollback_goes_to_all_replicas_and_ends_the_transaction() {
    let mut rig = Rig::begun(1);
    let branches = vec![branch("a", 1), branch("a", 1)];
    let (txn, rollback) = (txn(0), branches.clone());
    let message = Message::Rollback {
        txn,
        branches,
        floor: 1,
    };
    let branches = rollback;
    assert_eq!(
        rig.command(InitiatorCommand::Rollback { txn, branches }),
        sends(to_all(message))
    );
    assert_eq!(rig.initiator.floor(), 1);
    assert_eq!(
        rig.commit(0, Relay),
        refused(txn, CommitError::NotOpen(txn))
    );
}

#[test]
fn a_long_rollback_goes_in_pieces() {
    let mut rig = Rig::begun(1);
    let branches = vec![branch("a", 1); ROSTER_MAX + 1];
    let txn = txn(0);
    let piece = |count| {
        to_all(Message::Rollback {
            txn,
            branches: vec![branch("a", 1); count],
            floor: 1,
        })
    };
    assert_eq!(
        rig.command(InitiatorCommand::Rollback { txn, branches }),
        sends([piece(ROSTER_MAX), piece(1)].concat())
    );
}

#[test]
fn an_abandoned_commit_is_asked_for_no_more_and_its_outcome_not_told() {
    let mut rig = Rig::committing(Relay);
    assert_eq!(rig.abandon(txn(0)), effects([], [], [cancel_hedge(0)]));
    assert_eq!(rig.hear(1, decided(id(0), Commit)), nothing());
    assert_eq!(rig.hedge(0), nothing());
    assert!(rig.is_at_rest());
    let mut begun = Rig::begun(1);
    assert_eq!(begun.abandon(txn(0)), nothing());
    assert_eq!(begun.abandon(txn(0)), nothing(), "again");
    assert_eq!(begun.initiator.floor(), 1);
}

#[test]
fn an_abandoned_question_is_asked_no_more() {
    let mut rig = Rig::new();
    rig.ask(old_id());
    rig.abandon(txn(0));
    rig.busy_tick();
    assert_eq!(rig.abandon(old_id().txn), nothing());
    assert_eq!(rig.hear(1, decided(old_id(), Commit)), nothing());
    assert!(rig.is_at_rest());
}
