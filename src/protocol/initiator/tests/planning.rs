//! Plans and rollback: after a plan, only an outcome ends the transaction.

use super::generations::{later, settled};
use super::*;

fn force_abort(to: u32) -> Vec<(Peer, Message)> {
    vec![(replica(to), Message::ForceAbort { id: id(0) })]
}

/// The branches of transaction 0 release what they have not prepared.
fn release() -> Vec<(Peer, Message)> {
    to_all(Message::Rollback {
        txn: txn(0),
        branches: ab().iter().cloned().collect(),
        floor: 1,
    })
}

fn expired() -> Message {
    Message::Expired {
        id: id(0),
        branch: None,
    }
}

#[test]
fn a_plan_fixes_the_roster_once_and_sends_nothing() {
    let mut rig = Rig::planned();
    assert_eq!(rig.initiator.commit_id(txn(0)), Some(id(0)));
    let other = InitiatorCommand::Plan {
        txn: txn(0),
        branches: vec![branch("c", 1)],
        vote_timeout: TIMEOUT,
    };
    assert_eq!(
        rig.command(other),
        notifies([InitiatorNotice::Planned(id(0))])
    );
    let out = rig.commit_with(txn(0), vec![(branch("c", 1), None)], Itself);
    assert_eq!(
        out,
        effects([], [InitiatorNotice::Asked(id(0))], [set_tick()])
    );
    assert_eq!(
        rig.plan(0),
        notifies([InitiatorNotice::Planned(id(0))]),
        "committing"
    );
}

#[test]
fn a_plan_that_cannot_be_is_refused_and_the_transaction_stays_open() {
    let mut rig = Rig::begun(2);
    let error = CommitError::NotOpen(txn(2));
    assert_eq!(rig.plan(2), refused(txn(2), error));
    let empty = InitiatorCommand::Plan {
        txn: txn(0),
        branches: Vec::new(),
        vote_timeout: TIMEOUT,
    };
    let error = CommitError::Roster("a transaction has 1 to 32 branches, got 0".into());
    assert_eq!(rig.command(empty), refused(txn(0), error));
    rig.plan(0);
    rig.hear(2, Message::Announce(later([5, 6])));
    let error = CommitError::GenerationClosed(txn(1));
    assert_eq!(rig.plan(1), refused(txn(1), error));
    assert_eq!(rig.rollback(1).send.len(), 3, "no plan was handed out");
}

#[test]
fn commit_of_a_plan_prepares_with_the_roster_of_the_plan() {
    let mut rig = Rig::planned();
    assert_eq!(
        rig.commit(0, Relay),
        effects(
            [(replica(1), begin_commit(0))],
            [InitiatorNotice::Asked(id(0))],
            [set_hedge(0), set_tick()]
        )
    );
    assert_eq!(
        rig.commit(0, Itself),
        notifies([InitiatorNotice::Asked(id(0))]),
        "the same question"
    );
}

/// The seen lie: services that hold a plan committed, and the application was told to do it again.
#[test]
fn commit_of_a_plan_in_a_closed_generation_is_a_question() {
    for prepare in [Relay, Itself] {
        let mut rig = Rig::planned();
        rig.hear(2, Message::Announce(later([5, 6])));
        let asks = || to_all(question(id(0), TIMEOUT));
        let asked = InitiatorNotice::Asked(id(0));
        assert_eq!(
            rig.commit(0, prepare),
            effects(asks(), [asked], [set_tick()])
        );
        let not_open = Message::NotOpen {
            id: id(0),
            generations: later([5, 6]),
        };
        for from in 1..=3 {
            assert_eq!(rig.hear(from, not_open.clone()), nothing(), "no answer");
        }
        assert_eq!(rig.wait(), (2, sends(asks())), "it asks on");
        let told = InitiatorNotice::Expired { id: id(0) };
        assert_eq!(
            rig.hear(1, expired()),
            effects([], [told], [cancel_hedge(0)])
        );
        assert!(rig.is_at_rest());
    }
}

#[test]
fn of_a_settled_plan_those_in_force_are_asked() {
    let mut rig = Rig::planned();
    rig.hear(2, Message::Announce(settled()));
    let asks = [2, 3, 4].map(|to| (replica(to), question(id(0), TIMEOUT)));
    assert_eq!(rig.commit(0, Itself).send, asks);
    let mut rig = Rig::planned();
    rig.hear(2, Message::Announce(settled()));
    let force = (replica(2), Message::ForceAbort { id: id(0) });
    assert_eq!(rig.rollback(0).send, [force]);
    let told = InitiatorNotice::Expired { id: id(0) };
    assert_eq!(
        rig.hear(2, expired()),
        effects([], [told], [cancel_hedge(0)])
    );
}

#[test]
fn an_outcome_that_came_before_it_was_asked_for_is_kept() {
    for outcome in [Commit, Abort] {
        for commits in [true, false] {
            let mut rig = Rig::planned();
            let report = phase2b(id(0), ballot(1), outcome);
            assert_eq!(rig.hear(1, report.clone()), nothing());
            assert_eq!(rig.hear(3, report), nothing());
            assert_eq!(rig.initiator.floor(), 0, "the plan is still needed");
            rig.hear(2, Message::Announce(settled()));
            let told = super::outcome(id(0), outcome);
            let out = match commits {
                true => rig.commit(0, Itself),
                false => rig.rollback(0),
            };
            let asked = InitiatorNotice::Asked(id(0));
            let expected = if commits {
                vec![asked, told]
            } else {
                vec![told]
            };
            assert_eq!(out.notify, expected);
            assert!(rig.is_at_rest());
            assert_eq!(rig.initiator.floor(), 1);
        }
    }
}

#[test]
fn rollback_of_a_plan_is_a_ballot_that_one_replica_after_the_other_is_asked_for() {
    let mut rig = Rig::planned();
    assert_eq!(rig.rollback(0), effects(force_abort(1), [], [set_tick()]));
    assert_eq!(rig.wait(), (2, sends(force_abort(2))));
    assert_eq!(rig.wait(), (4, sends(force_abort(3))));
    assert_eq!(rig.wait(), (5, sends(force_abort(1))));
    assert_eq!(rig.initiator.floor(), 0);
    let told = [outcome(id(0), Abort)];
    assert_eq!(
        rig.hear(2, decided(id(0), Abort)),
        effects(release(), told, [cancel_hedge(0)])
    );
    assert!(rig.is_at_rest());
}

#[test]
fn rollback_of_a_plan_tells_the_commit_that_its_ballot_found() {
    let mut rig = Rig::planned();
    rig.rollback(0);
    assert_eq!(
        rig.hear(1, decided(id(0), Commit)),
        effects([], [outcome(id(0), Commit)], [cancel_hedge(0)])
    );
    assert!(rig.is_at_rest());
}

#[test]
fn rollback_of_a_commit_that_was_asked_for_is_a_ballot_too() {
    let mut rig = Rig::committing(Relay);
    let out = rig.rollback(0);
    assert_eq!(out, effects(force_abort(1), [], [cancel_hedge(0)]));
    assert_eq!(rig.wait(), (2, sends(force_abort(2))), "and no relay");
    rig.disconnected(replica(2));
    assert_eq!(rig.wait(), (4, sends(force_abort(3))));
}

#[test]
fn a_silent_replica_is_asked_for_a_ballot_last() {
    let mut rig = Rig::planned();
    rig.disconnected(replica(1));
    assert_eq!(rig.rollback(0).send, force_abort(2));
    assert_eq!(rig.wait(), (2, sends(force_abort(3))));
    assert_eq!(rig.wait(), (4, sends(force_abort(2))), "not replica 1");
    let out = rig.busy(2, id(0));
    assert_eq!(out, effects([], [], [cancel_hedge(0)]));
    assert_eq!(rig.wait().0, 5, "it backs off");
}

#[test]
fn a_transaction_of_an_earlier_run_is_rolled_back_by_its_id() {
    let force = |to| vec![(replica(to), Message::ForceAbort { id: old_id() })];
    let mut rig = Rig::new();
    let out = rig.command(InitiatorCommand::ForceAbort(old_id()));
    assert_eq!(out, effects(force(1), [], [set_tick()]));
    assert_eq!(rig.wait(), (2, sends(force(2))));
    let asks = to_all(question(old_id(), Duration::ZERO));
    assert_eq!(rig.ask(old_id()), sends(asks));
    assert_eq!(rig.wait(), (2, sends(force(2))), "it stays a ballot");
    let told = outcome(old_id(), Commit);
    assert_eq!(rig.hear(3, decided(old_id(), Commit)), notifies([told]));
    assert!(rig.is_at_rest());
}

#[test]
fn a_question_that_ends_leaves_the_transaction_open() {
    let mut rig = Rig::planned();
    let asks = to_all(question(id(0), TIMEOUT));
    assert_eq!(rig.ask(id(0)).send, asks);
    let stop = InitiatorCommand::StopAsking(id(0));
    assert_eq!(rig.command(stop.clone()), nothing());
    assert!(rig.is_at_rest());
    let out = rig.commit(0, Itself);
    assert_eq!(out.notify, [InitiatorNotice::Asked(id(0))]);
    rig.ask(id(0));
    assert_eq!(rig.command(stop), nothing());
    let out = rig.hear(1, decided(id(0), Commit));
    assert_eq!(out.notify, [outcome(id(0), Commit)]);
}

/// An application may mix up two ids that differ in the nonce alone, or be handed one that a client
/// guessed: it names no transaction of this initiator.
#[test]
fn an_id_with_another_nonce_is_another_transaction() {
    let other = TxnId {
        nonce: txn(0).nonce + 1,
        ..txn(0)
    };
    let branches: Vec<Branch> = ab().iter().cloned().collect();
    let not_open = || refused(other, CommitError::NotOpen(other));
    let mut rig = Rig::begun(1);
    let with_requests = branches.iter().map(|branch| (branch.clone(), None));
    let out = rig.commit_with(other, with_requests.collect(), Relay);
    assert_eq!(out, not_open());
    let out = rig.command(InitiatorCommand::Plan {
        txn: other,
        branches: branches.clone(),
        vote_timeout: TIMEOUT,
    });
    assert_eq!(out, not_open());
    let out = rig.command(InitiatorCommand::Rollback {
        txn: other,
        branches,
    });
    assert_eq!(out, not_open());
    assert_eq!(rig.abandon(other), nothing());
    assert_eq!(rig.initiator.floor(), 0, "transaction 0 is open");
    let asked = InitiatorNotice::Asked(id(0));
    let out = rig.commit(0, Itself);
    assert_eq!(out, effects([], [asked], [set_tick()]));
    let of_other = CommitId::new(other, &ab());
    let undecided = Message::Undecided(Undecided {
        id: of_other,
        missing: Vec::new(),
        silent: Vec::new(),
    });
    assert_eq!(rig.hear(1, undecided), nothing(), "nobody asked");
    assert_eq!(rig.abandon(other), nothing());
    assert_eq!(rig.hear(1, decided(of_other, Abort)), nothing());
    let out = rig.hear(1, decided(id(0), Commit));
    assert_eq!(out.notify, [outcome(id(0), Commit)]);
}
