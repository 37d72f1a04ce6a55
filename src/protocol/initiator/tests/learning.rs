//! The initiator learns the outcome by itself, and tells it once.

use super::*;

#[test]
fn a_majority_at_one_ballot_is_the_outcome() {
    for (at, chosen) in [
        (Ballot::ZERO, Commit),
        (ballot(1), Commit),
        (ballot(1), Abort),
    ] {
        let mut rig = Rig::committing(Relay);
        assert_eq!(rig.hear(1, phase2b(id(0), at, chosen)), nothing());
        assert_eq!(rig.hear(1, phase2b(id(0), at, chosen)), nothing(), "again");
        assert_eq!(
            rig.hear(3, phase2b(id(0), at, chosen)),
            effects([], [outcome(id(0), chosen)], [cancel_hedge(0)])
        );
        assert_eq!(rig.hear(2, phase2b(id(0), at, chosen)), nothing(), "once");
        assert_eq!(rig.hear(2, decided(id(0), chosen)), nothing());
        assert!(rig.is_at_rest());
    }
}

#[test]
fn one_abort_at_ballot_0_is_the_outcome() {
    let mut rig = Rig::committing(Itself);
    assert_eq!(
        rig.hear(2, phase2b(id(0), Ballot::ZERO, Abort)),
        effects([], [outcome(id(0), Abort)], [cancel_hedge(0)])
    );
}

#[test]
fn one_replica_that_says_decided_is_the_outcome() {
    let mut rig = Rig::committing(Relay);
    assert_eq!(
        rig.hear(2, decided(id(0), Commit)),
        effects([], [outcome(id(0), Commit)], [cancel_hedge(0)])
    );
}

#[test]
fn mixed_ballots_are_no_outcome() {
    let mut rig = Rig::committing(Relay);
    for (from, at) in [(1, Ballot::ZERO), (2, ballot(1)), (3, ballot(2))] {
        assert_eq!(rig.hear(from, phase2b(id(0), at, Commit)), nothing());
    }
}

#[test]
fn of_other_instances_it_learns_nothing() {
    let alone = Roster::new([branch("a", 1)]).unwrap();
    let mut rig = Rig::begun(2);
    rig.commit(0, Relay);
    for other in [CommitId::new(txn(0), &alone), id(1), id(2), old_id()] {
        let aborted = phase2b(other, Ballot::ZERO, Abort);
        assert_eq!(rig.hear(1, aborted), nothing());
        assert_eq!(rig.hear(1, decided(other, Abort)), nothing());
    }
    assert_eq!(rig.initiator.floor(), 0);
}

#[test]
fn strangers_are_ignored() {
    let mut rig = Rig::committing(Relay);
    assert_eq!(rig.hear(4, decided(id(0), Commit)), nothing());
    for from in [
        Peer::Session(branch("a", 1)),
        Peer::Initiator(ME),
        Peer::Operator(1),
    ] {
        let message = decided(id(0), Commit);
        assert_eq!(rig.step(Input::Message { from, message }), nothing());
    }
}

#[test]
fn of_five_replicas_three_make_a_majority_and_alone_one_does() {
    let mut rig = Rig::among(5);
    rig.begin();
    rig.commit(0, Relay);
    let accepted = || phase2b(id(0), Ballot::ZERO, Commit);
    assert_eq!(rig.hear(5, accepted()), nothing());
    assert_eq!(rig.hear(3, accepted()), nothing());
    assert_eq!(rig.hear(1, accepted()).notify, [outcome(id(0), Commit)]);
    let mut rig = Rig::among(1);
    rig.begin();
    rig.commit(0, Relay);
    assert_eq!(rig.hear(1, accepted()).notify, [outcome(id(0), Commit)]);
}
