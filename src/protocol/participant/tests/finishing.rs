//! From the vote on: learn the outcome, apply it, say so.

use super::*;

#[test]
fn the_session_learns_by_itself_from_a_majority_at_one_ballot() {
    for at in [Ballot::ZERO, ballot(3)] {
        let mut rig = Rig::voted(Prepared);
        assert_eq!(rig.hear(1, phase2b(id(1), at, Commit)), nothing());
        assert_eq!(rig.hear(1, phase2b(id(1), at, Commit)), nothing(), "again");
        assert_eq!(
            rig.hear(3, phase2b(id(1), at, Commit)),
            notifies([asks_to_finish(id(1), 1, Commit)])
        );
    }
    let mut rig = Rig::voted(Prepared);
    rig.hear(1, phase2b(id(1), ballot(2), Abort));
    assert_eq!(
        rig.hear(2, phase2b(id(1), ballot(2), Abort)),
        notifies([asks_to_finish(id(1), 1, Abort)])
    );
}

#[test]
fn one_abort_at_ballot_0_will_do() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.hear(3, phase2b(id(1), Ballot::ZERO, Abort)),
        notifies([asks_to_finish(id(1), 1, Abort)])
    );
}

#[test]
fn mixed_ballots_and_other_instances_are_nothing() {
    let mut rig = Rig::voted(Prepared);
    for (from, at) in [(1, Ballot::ZERO), (2, ballot(1)), (3, ballot(2))] {
        assert_eq!(rig.hear(from, phase2b(id(1), at, Commit)), nothing());
    }
    for from in [1, 2, 3] {
        assert_eq!(
            rig.hear(from, phase2b(alone(1), ballot(9), Commit)),
            nothing()
        );
        assert_eq!(rig.hear(from, phase2b(id(2), ballot(9), Commit)), nothing());
    }
    assert_eq!(
        rig.hear(1, phase2b(alone(1), Ballot::ZERO, Abort)),
        nothing()
    );
    assert_eq!(rig.in_doubt(), [id(1)]);
}

#[test]
fn a_commit_is_applied_and_told_to_all_replicas() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.hear(2, finish(id(1), me(), Commit)),
        notifies([asks_to_finish(id(1), 1, Commit)])
    );
    assert_eq!(rig.in_doubt(), []);
    assert!(!rig.participant.is_idle());
    rig.wait_quietly(30);
    assert_eq!(rig.hear(3, finish(id(1), me(), Commit)), nothing(), "at it");
    assert_eq!(
        rig.finished(id(1), 1),
        effects(to_all(applied(id(1), me())), [ended(1, Commit)])
    );
    assert!(rig.participant.is_idle());
    assert_eq!(rig.finished(id(1), 1), nothing(), "again");
}

#[test]
fn an_abort_is_applied_and_interests_nobody() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.hear(2, finish(id(1), me(), Abort)),
        notifies([asks_to_finish(id(1), 1, Abort)])
    );
    assert_eq!(rig.finished(id(1), 1), notifies([ended(1, Abort)]));
    assert_eq!(rig.hear(2, finish(id(1), me(), Abort)), nothing());
    assert!(rig.participant.is_idle());
}

#[test]
fn applied_is_said_again_to_whoever_asks_again() {
    let mut rig = Rig::committed();
    assert_eq!(
        rig.hear(3, finish(id(1), me(), Commit)),
        sends([(replica(3), applied(id(1), me()))])
    );
    assert_eq!(rig.hear(3, finish(alone(1), me(), Commit)), nothing());
    assert_eq!(rig.hear(3, phase2b(id(1), Ballot::ZERO, Abort)), nothing());
    assert_eq!(
        rig.hear(3, finish(id(1), me(), Abort)),
        sends([(replica(3), applied(id(1), me()))]),
        "the truth, whatever it is told"
    );
}

#[test]
fn finish_for_an_instance_in_which_it_does_not_stand_is_ignored() {
    let mut applying = Rig::voted(Prepared);
    applying.hear(1, finish(id(1), me(), Commit));
    for mut rig in [
        Rig::preparing(),
        Rig::voted(Prepared),
        applying,
        Rig::committed(),
    ] {
        for outcome in [Commit, Abort] {
            let out = rig.hear(2, finish(alone(1), me(), outcome));
            assert_eq!(out, nothing());
        }
    }
}

#[test]
fn finish_for_another_participant_is_ignored() {
    let mut rig = Rig::voted(Prepared);
    let other = finish(id(1), branch("b", 1), Commit);
    assert_eq!(rig.hear(2, other), nothing());
    assert_eq!(rig.participant, Rig::voted(Prepared).participant);
}

#[test]
fn finish_for_a_branch_of_another_session_is_applied_for_it() {
    let mut rig = Rig::new();
    let other = || finish(id(1), branch("a", 2), Commit);
    assert_eq!(
        rig.hear(2, other()),
        notifies([asks_to_finish(id(1), 2, Commit)])
    );
    assert!(!rig.participant.is_idle());
    assert_eq!(rig.hear(3, other()), nothing(), "at it");
    assert_eq!(rig.finished(id(1), 3), nothing(), "not that session");
    assert_eq!(
        rig.finished(id(1), 2),
        sends(to_all(applied(id(1), branch("a", 2))))
    );
    assert!(rig.participant.is_idle());
    assert_eq!(
        rig.hear(3, other()),
        notifies([asks_to_finish(id(1), 2, Commit)]),
        "it keeps no memory of others' branches"
    );
}

#[test]
fn an_abort_for_another_session_is_told_to_nobody() {
    let mut rig = Rig::new();
    rig.hear(2, finish(id(1), branch("a", 2), Abort));
    assert_eq!(rig.finished(id(1), 2), nothing());
    assert!(rig.participant.is_idle());
}

#[test]
fn the_answer_for_another_session_is_not_mistaken_for_its_own() {
    let mut rig = Rig::voted(Prepared);
    rig.hear(2, finish(id(1), me(), Commit));
    rig.hear(2, finish(id(1), branch("a", 2), Commit));
    assert_eq!(
        rig.finished(id(1), 2),
        sends(to_all(applied(id(1), branch("a", 2))))
    );
    assert!(!rig.participant.is_idle());
    assert_eq!(rig.finished(alone(1), 1), nothing());
    assert!(!rig.participant.is_idle());
    assert_eq!(
        rig.finished(id(1), 1),
        effects(to_all(applied(id(1), me())), [ended(1, Commit)])
    );
}

#[test]
fn another_branchs_abort_ends_work_before_the_vote() {
    for message in [
        phase2b(id(1), Ballot::ZERO, Abort),
        finish(id(1), me(), Abort),
    ] {
        let mut rig = Rig::working();
        assert_eq!(rig.hear(2, message), notifies([let_go(1), ended(1, Abort)]));
        assert!(rig.participant.is_idle());
        assert_eq!(rig.asked(with_request(1)), nothing(), "it is over");
    }
}

#[test]
fn another_branchs_abort_waits_for_the_resource_manager_to_answer() {
    for message in [
        phase2b(id(1), Ballot::ZERO, Abort),
        finish(id(1), me(), Abort),
    ] {
        let mut rig = Rig::preparing();
        assert_eq!(rig.hear(2, message.clone()), nothing());
        assert_eq!(
            rig.prepared(1, Prepared),
            notifies([asks_to_finish(id(1), 1, Abort)]),
            "and no vote"
        );
        assert_eq!(rig.finished(id(1), 1), notifies([ended(1, Abort)]));
        for answer in [ReadOnly, Aborted] {
            let mut rig = Rig::preparing();
            rig.hear(2, message.clone());
            assert_eq!(
                rig.prepared(1, answer),
                notifies([let_go(1), ended(1, Abort)]),
                "nothing is durable, nothing to roll back"
            );
        }
    }
}

#[test]
fn before_its_vote_a_branch_believes_nothing_but_that() {
    for working in [true, false] {
        let rig = || {
            if working {
                Rig::working()
            } else {
                Rig::preparing()
            }
        };
        let mut told = rig();
        for message in [
            phase2b(id(1), Ballot::ZERO, Commit),
            phase2b(id(1), ballot(1), Abort),
            finish(id(1), me(), Commit),
        ] {
            for from in [1, 2, 3] {
                assert_eq!(told.hear(from, message.clone()), nothing());
            }
        }
        assert_eq!(told.participant, rig().participant);
    }
    let mut preparing = Rig::preparing();
    let other = phase2b(alone(1), Ballot::ZERO, Abort);
    assert_eq!(preparing.hear(2, other), nothing());
    assert_eq!(preparing.participant, Rig::preparing().participant);
}

#[test]
fn a_read_only_branch_has_nothing_to_apply() {
    for outcome in [Commit, Abort] {
        let mut rig = Rig::voted(ReadOnly);
        assert_eq!(
            rig.hear(2, finish(id(1), me(), outcome)),
            notifies([ended(1, outcome)])
        );
        assert!(rig.participant.is_idle());
    }
}

#[test]
fn a_branch_that_voted_aborted_ends_with_abort_and_believes_no_commit() {
    let mut rig = Rig::voted(Aborted);
    assert_eq!(rig.hear(2, finish(id(1), me(), Commit)), nothing());
    assert_eq!(rig.participant, Rig::voted(Aborted).participant);
    assert_eq!(
        rig.hear(2, phase2b(id(1), Ballot::ZERO, Abort)),
        notifies([ended(1, Abort)])
    );
    assert!(rig.participant.is_idle());
    rig.wait_quietly(30);
}

#[test]
fn a_branch_that_let_go_is_told_of_the_abort_and_believes_no_commit() {
    let mut rig = Rig::working();
    rig.rollback(1);
    assert_eq!(rig.hear(2, finish(id(1), me(), Commit)), nothing());
    assert_eq!(
        rig.hear(2, finish(id(1), me(), Abort)),
        notifies([ended(1, Abort)])
    );
    assert_eq!(rig.asked(with_request(1)), nothing());
}
