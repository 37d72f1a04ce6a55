//! Decided: tell everyone who waits, until every branch has applied it.

use super::*;

/// Commit is decided, by another replica; nobody has applied it.
fn committed() -> Rig {
    Rig::new(1).given(replica(2), decided(id(1), Commit, Some(whom(&[]))))
}

#[test]
fn when_all_branches_have_applied_it_is_finished() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    assert_eq!(rig.hear(a(), applied(id(1), branch("a", 1))), nothing());
    assert_eq!(rig.outcome(1), None, "one branch may lie");
    assert_eq!(
        rig.hear(b(), applied(id(1), branch("b", 1))),
        saves([finished_record(1, Commit)])
    );
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 0);
    assert_eq!(rig.hear(b(), applied(id(1), branch("b", 1))), nothing());
    rig.wait_quietly(50);
}

#[test]
fn a_branch_that_says_applied_twice_counts_once() {
    let mut rig = committed();
    rig.hear(a(), applied(id(1), branch("a", 1)));
    assert_eq!(rig.hear(a(), applied(id(1), branch("a", 1))), nothing());
    assert_eq!(rig.replica.unapplied().count(), 1);
}

#[test]
fn the_only_branch_that_is_not_read_only_finishes_it_at_once() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, ReadOnly));
    assert_eq!(
        rig.hear(a(), applied(id(1), branch("a", 1))),
        saves([finished_record(1, Commit)])
    );
}

#[test]
fn another_session_applies_for_one_that_is_gone() {
    let mut rig = committed();
    rig.hear(session("a", 2), applied(id(1), branch("a", 1)));
    assert_eq!(
        rig.hear(session("b", 9), applied(id(1), branch("b", 1))),
        saves([finished_record(1, Commit)])
    );
}

#[test]
fn applied_counts_only_for_ones_own_participant_and_roster() {
    let mut rig = committed();
    let refused = |from: Peer| rejected(from, Rejection::NotInRoster);
    assert_eq!(rig.hear(b(), applied(id(1), branch("a", 1))), refused(b()));
    assert_eq!(rig.hear(a(), applied(id(1), branch("a", 2))), refused(a()));
    assert_eq!(rig.hear(b(), applied(id(2), branch("a", 1))), refused(b()));
}

#[test]
fn applied_to_something_unknown_is_nothing() {
    let mut rig = Rig::new(1);
    assert_eq!(rig.hear(a(), applied(id(1), branch("a", 1))), nothing());
    assert_eq!(rig.outcome(1), None);
    // Known, but not its roster.
    rig.hear(replica(2), phase1a(ballot(1, 2), &[id(1)]));
    assert_eq!(rig.hear(a(), applied(id(1), branch("a", 1))), nothing());
    assert_eq!(rig.outcome(1), None);
}

#[test]
fn decided_by_another_replica_is_saved_and_ends_the_ballot_here() {
    let mut rig = Rig::new(1).given(initiator(), begun(1));
    rig.wait();
    assert_eq!(
        rig.hear(replica(2), decided(id(1), Commit, Some(whom(&[])))),
        saves([committed_record(1)])
    );
    assert_eq!(rig.outcome(1), Some(Commit));
    for from in [2, 3] {
        let late = phase1b(ballot(1, 1), [report(id(1))]);
        assert_eq!(rig.hear(replica(from), late), nothing());
    }
    assert_eq!(
        rig.hear(replica(2), decided(id(1), Commit, Some(whom(&[])))),
        nothing(),
        "again"
    );
}

#[test]
fn decided_of_something_unknown_is_taken() {
    assert_eq!(
        Rig::new(1).hear(replica(2), decided(id(1), Commit, Some(whom(&[])))),
        saves([committed_record(1)])
    );
    for outcome in [Commit, Abort] {
        let mut rig = Rig::new(1);
        assert_eq!(
            rig.hear(replica(2), decided(id(1), outcome, None)),
            saves([finished_record(1, outcome)])
        );
        assert_eq!(rig.outcome(1), Some(outcome));
        assert_eq!(rig.replica.undecided().count(), 0);
    }
}

#[test]
fn what_all_have_applied_elsewhere_is_finished_here() {
    let mut rig = committed();
    assert_eq!(
        rig.hear(replica(3), decided(id(1), Commit, None)),
        saves([finished_record(1, Commit)])
    );
    assert_eq!(
        rig.hear(replica(3), decided(id(1), Commit, None)),
        nothing(),
        "again"
    );
}

#[test]
fn what_is_known_does_not_change() {
    let mut rig = committed();
    let liar = decided(id(1), Abort, None);
    assert_eq!(rig.hear(replica(3), liar), nothing());
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 1);
    let mut rig = Rig::new(1).given(a(), vote(1, Aborted));
    let liar = decided(id(1), Commit, None);
    assert_eq!(rig.hear(replica(3), liar), nothing());
    assert_eq!(rig.outcome(1), Some(Abort));
}

#[test]
fn a_decision_with_the_wrong_roster_is_dropped() {
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(replica(2), decided(id(1), Commit, Some(of_another()))),
        rejected(replica(2), Rejection::WrongRoster)
    );
    assert_eq!(rig.outcome(1), None);
}

#[test]
fn a_commit_is_pushed_to_connected_sessions_less_and_less_often() {
    let mut rig = committed();
    rig.connect(a());
    rig.connect(session("c", 1));
    let push = || sends([(a(), finish(id(1), branch("a", 1), Commit))]);
    for gap in [4, 4, 8, 10, 10] {
        assert_eq!(rig.wait(), (gap, push()));
    }
    rig.disconnect(a());
    rig.wait_quietly(30);
    rig.connect(a());
    rig.connect(b());
    rig.hear(a(), applied(id(1), branch("a", 1)));
    let (ticks, out) = rig.wait();
    assert!(ticks <= 10);
    assert_eq!(out, sends([(b(), finish(id(1), branch("b", 1), Commit))]));
}

#[test]
fn the_pushes_of_one_that_was_tried_before_begin_anew() {
    let mut rig = Rig::new(1).given(initiator(), begun(1));
    rig.gaps(4);
    rig.connect(a());
    rig.hear(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    assert_eq!(rig.gaps(3), [4, 4, 8]);
}

#[test]
fn a_branch_whose_session_is_gone_is_pushed_to_the_others_in_turns() {
    let mut rig = Rig::new(1).given(replica(2), decided(id(1), Commit, Some(whom(&[1]))));
    for other in [2, 3, 4] {
        rig.connect(session("a", other));
    }
    for other in [2, 3, 4, 2] {
        let push = finish(id(1), branch("a", 1), Commit);
        assert_eq!(rig.wait().1, sends([(session("a", other), push)]));
    }
    rig.connect(a());
    let push = finish(id(1), branch("a", 1), Commit);
    assert_eq!(rig.wait().1, sends([(a(), push)]), "its own comes first");
}

#[test]
fn after_very_many_pushes_it_still_pushes() {
    let mut rig = committed();
    rig.connect(a());
    rig.gaps(40);
    assert_eq!(rig.gaps(2), [10, 10]);
}
