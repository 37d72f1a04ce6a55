//! The acceptor's side of ballots that others lead.

use super::*;

fn proposal(outcome: Outcome) -> Decision {
    decision(id(1), outcome, (outcome == Commit).then(|| whom(&[])))
}

#[test]
fn a_promise_is_saved_and_reports_what_was_voted_before() {
    let mut rig = Rig::new(2).given(a(), vote(1, Prepared));
    let held = Report {
        held: set(&[0]),
        roster: Some(ab()),
        ..report(id(1))
    };
    assert_eq!(
        rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)])),
        effects(
            [promise_record(1, ballot(1, 1))],
            [(replica(1), phase1b(ballot(1, 1), [held]))]
        )
    );
}

#[test]
fn a_promise_reports_what_was_accepted_before() {
    let mut rig = Rig::new(2)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, ReadOnly));
    let reported = |accepted| Report {
        accepted: Some(accepted),
        held: set(&[0, 1]),
        read_only: set(&[1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    let expected = phase1b(ballot(1, 1), [reported((Ballot::ZERO, Commit))]);
    let out = rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    assert_eq!(out.send, [(replica(1), expected)]);
    let same = decision(id(1), Commit, Some(whom(&[1])));
    rig.hear(replica(1), phase2a(ballot(1, 1), [same]));
    let expected = phase1b(ballot(2, 3), [reported((ballot(1, 1), Commit))]);
    let out = rig.hear(replica(3), phase1a(ballot(2, 3), &[id(1)]));
    assert_eq!(out.send, [(replica(3), expected)]);
}

#[test]
fn the_same_promise_again_is_answered_and_not_saved() {
    let mut rig = Rig::new(2).given(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    let again = phase1b(ballot(1, 1), [report(id(1))]);
    assert_eq!(
        rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)])),
        sends([(replica(1), again)])
    );
}

#[test]
fn a_lower_ballot_is_refused_in_both_phases() {
    let mut rig = Rig::new(2).given(replica(3), phase1a(ballot(2, 3), &[id(1)]));
    let refused = |at| nack(at, [(id(1), ballot(2, 3))]);
    let low = ballot(2, 1);
    assert_eq!(
        rig.hear(replica(1), phase1a(low, &[id(1)])),
        sends([(replica(1), refused(low))])
    );
    assert_eq!(
        rig.hear(replica(1), phase2a(low, [proposal(Abort)])),
        sends([(replica(1), refused(low))])
    );
}

#[test]
fn one_batch_may_be_promised_refused_and_answered_at_once() {
    let mut rig = Rig::new(2)
        .given(replica(3), phase1a(ballot(2, 3), &[id(2)]))
        .given(a(), vote(3, Aborted));
    let first = ballot(1, 1);
    assert_eq!(
        rig.hear(replica(1), phase1a(first, &[id(1), id(2), id(3)])),
        effects(
            [promise_record(1, first)],
            [
                (replica(1), decided(id(3), Abort, None)),
                (replica(1), phase1b(first, [report(id(1))])),
                (replica(1), nack(first, [(id(2), ballot(2, 3))])),
            ]
        )
    );
    let proposals = [1, 2, 3].map(|sequence| decision(id(sequence), Abort, None));
    assert_eq!(
        rig.hear(replica(1), phase2a(first, proposals)),
        effects(
            [accept_record(1, first, Abort)],
            [
                (initiator(), phase2b(id(1), first, Abort)),
                (replica(1), phase2b(id(1), first, Abort)),
                (replica(1), decided(id(3), Abort, None)),
                (replica(1), nack(first, [(id(2), ballot(2, 3))])),
            ]
        )
    );
}

#[test]
fn a_proposal_may_come_without_phase_1() {
    let mut rig = Rig::new(2);
    let first = ballot(1, 1);
    let report = phase2b(id(1), first, Commit);
    assert_eq!(
        rig.hear(replica(1), phase2a(first, [proposal(Commit)])),
        effects(
            [accept_record(1, first, Commit)],
            to([initiator(), a(), b(), replica(1)], report)
        ),
        "its roster says whom to tell"
    );
    let low = nack(ballot(1, 0), [(id(1), first)]);
    let mut other = Rig::with(
        ReplicaConfig {
            genesis: Some(Acceptors::new([0, 1, 2].map(ReplicaId)).unwrap().into()),
            ..config(2, 3)
        },
        rig.disk.clone(),
    );
    assert_eq!(
        other.hear(replica(0), phase1a(ballot(1, 0), &[id(1)])),
        sends([(replica(0), low)]),
        "an acceptance is a promise, on disk too"
    );
}

#[test]
fn a_read_only_branch_is_not_told_of_an_acceptance() {
    let mut rig = Rig::new(2).given(a(), vote(1, ReadOnly));
    let first = ballot(1, 1);
    let out = rig.hear(replica(1), phase2a(first, [proposal(Commit)]));
    let report = phase2b(id(1), first, Commit);
    assert_eq!(out.send, to([initiator(), b(), replica(1)], report));
}

#[test]
fn the_same_proposal_again_is_accepted_again() {
    let mut rig = Rig::new(2).given(replica(1), phase2a(ballot(1, 1), [proposal(Abort)]));
    let out = rig.hear(replica(1), phase2a(ballot(1, 1), [proposal(Abort)]));
    let report = phase2b(id(1), ballot(1, 1), Abort);
    assert_eq!(out.send, to([initiator(), replica(1)], report));
}

#[test]
fn a_ballot_with_two_values_is_refused() {
    let mut rig = Rig::new(2).given(replica(1), phase2a(ballot(1, 1), [proposal(Abort)]));
    assert_eq!(
        rig.hear(replica(1), phase2a(ballot(1, 1), [proposal(Commit)])),
        rejected(replica(1), Rejection::BallotUsedTwice)
    );
    let report = Report {
        accepted: Some((ballot(1, 1), Abort)),
        ..report(id(1))
    };
    let out = rig.hear(replica(3), phase1a(ballot(1, 3), &[id(1)]));
    assert_eq!(out.send, [(replica(3), phase1b(ballot(1, 3), [report]))]);
}

#[test]
fn a_decided_instance_is_answered_with_its_outcome_and_its_roster() {
    let mut rig = Rig::new(2).given(replica(3), decided(id(1), Commit, Some(whom(&[]))));
    let answer = || sends([(replica(1), decided(id(1), Commit, Some(whom(&[]))))]);
    let first = ballot(1, 1);
    assert_eq!(rig.hear(replica(1), phase1a(first, &[id(1)])), answer());
    let late = phase2a(first, [proposal(Abort)]);
    assert_eq!(rig.hear(replica(1), late), answer());
    rig.hear(replica(3), decided(id(1), Commit, None));
    let all_applied = sends([(replica(1), decided(id(1), Commit, None))]);
    assert_eq!(rig.hear(replica(1), phase1a(first, &[id(1)])), all_applied);
}

#[test]
fn a_ballot_belongs_to_its_replica_and_ballot_0_to_the_votes() {
    let mut rig = Rig::new(1);
    let refused = rejected(replica(2), Rejection::NotItsBallot);
    for not_its in [ballot(1, 3), Ballot::ZERO, ballot(0, 2)] {
        let message = phase1a(not_its, &[id(1)]);
        assert_eq!(rig.hear(replica(2), message), refused);
        let message = phase2a(not_its, [proposal(Abort)]);
        assert_eq!(rig.hear(replica(2), message), refused);
    }
    for not_mine in [ballot(1, 2), Ballot::ZERO, ballot(0, 1)] {
        let message = phase1b(not_mine, [report(id(1))]);
        assert_eq!(rig.hear(replica(2), message), refused);
        let message = nack(not_mine, [(id(1), ballot(9, 3))]);
        assert_eq!(rig.hear(replica(2), message), refused);
    }
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn commit_is_proposed_with_its_roster_and_abort_with_none() {
    let mut rig = Rig::new(2);
    for (outcome, unapplied) in [
        (Commit, None),
        (Commit, Some(of_another())),
        (Abort, Some(whom(&[]))),
    ] {
        let message = phase2a(ballot(1, 1), [decision(id(1), outcome, unapplied)]);
        assert_eq!(
            rig.hear(replica(1), message),
            rejected(replica(1), Rejection::WrongRoster)
        );
    }
    assert_eq!(rig.replica.undecided().count(), 0);
}
