//! Votes come in, acceptances of ballot 0 go out.

use super::*;

fn reported(peers: impl IntoIterator<Item = Peer>, outcome: Outcome) -> Vec<(Peer, Message)> {
    to(peers, phase2b(id(1), Ballot::ZERO, outcome))
}

#[test]
fn the_last_vote_is_reported_to_the_initiator_and_the_branches() {
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(a(), vote(1, Prepared)),
        saves([vote_record(1, 0, Prepared, Some(ab()))])
    );
    assert_eq!(
        rig.hear(b(), vote(1, Prepared)),
        effects(
            [vote_record(1, 1, Prepared, None)],
            reported([initiator(), a(), b()], Commit)
        )
    );
    assert_eq!(rig.outcome(1), None, "one acceptance of three");
}

#[test]
fn the_roster_is_saved_with_the_first_vote_even_if_the_relay_knew_it() {
    let mut rig = Rig::new(1).given(initiator(), begun(1));
    assert_eq!(
        rig.hear(b(), vote(1, Prepared)),
        saves([vote_record(1, 1, Prepared, Some(ab()))])
    );
    assert_eq!(
        rig.hear(a(), vote(1, ReadOnly)).save,
        [vote_record(1, 0, ReadOnly, None)]
    );
}

#[test]
fn after_commit_no_read_only_branch_is_told() {
    let mut rig = Rig::new(1).given(a(), vote(1, ReadOnly));
    assert_eq!(
        rig.hear(b(), vote(1, Prepared)),
        effects(
            [vote_record(1, 1, Prepared, None)],
            reported([initiator(), b()], Commit)
        )
    );
}

#[test]
fn one_aborted_is_final_and_finished_at_once() {
    let mut rig = Rig::new(1);
    assert_eq!(
        rig.hear(b(), vote(1, Aborted)),
        effects(
            [vote_record(1, 1, Aborted, Some(ab()))],
            reported([initiator(), a(), b()], Abort)
        )
    );
    assert_eq!(rig.outcome(1), Some(Abort));
    assert_eq!(rig.replica.undecided().count(), 0);
    let answer = sends([(a(), finish(id(1), branch("a", 1), Abort))]);
    assert_eq!(rig.hear(a(), vote(1, Prepared)), answer);
    rig.wait_quietly(50);
}

#[test]
fn all_read_only_waits_for_nothing_but_a_majority() {
    let mut rig = Rig::new(1).given(a(), vote(1, ReadOnly));
    assert_eq!(
        rig.hear(b(), vote(1, ReadOnly)),
        effects(
            [vote_record(1, 1, ReadOnly, None)],
            reported([initiator()], Commit)
        )
    );
    let report = phase2b(id(1), Ballot::ZERO, Commit);
    assert_eq!(
        rig.hear(replica(3), report),
        effects(
            [finished_record(1, Commit)],
            [(replica(3), decided(id(1), Commit, None))]
        )
    );
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 0);
}

#[test]
fn the_first_vote_of_a_branch_stands() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    assert_eq!(rig.hear(a(), vote(1, Prepared)), nothing());
    assert_eq!(
        rig.hear(a(), vote(1, Aborted)),
        rejected(a(), Rejection::VotesOtherwise)
    );
    assert_eq!(rig.outcome(1), None);
}

#[test]
fn a_branch_that_says_it_again_gets_the_report_again() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    assert_eq!(
        rig.hear(a(), vote(1, Prepared)),
        sends(reported([a()], Commit))
    );
    assert_eq!(
        rig.hear(b(), vote(1, Aborted)),
        rejected(b(), Rejection::VotesOtherwise),
        "a contradiction changes nothing"
    );
}

#[test]
fn after_a_promise_a_vote_does_not_count() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(replica(2), phase1a(ballot(1, 2), &[id(1)]));
    assert_eq!(rig.hear(b(), vote(1, Aborted)), nothing());
    assert_eq!(rig.outcome(1), None);
    let proposal = decision(id(1), Abort, None);
    rig.hear(replica(2), phase2a(ballot(1, 2), [proposal]));
    let report = phase2b(id(1), ballot(1, 2), Abort);
    assert_eq!(rig.hear(b(), vote(1, Prepared)), sends([(b(), report)]));
}

#[test]
fn the_promise_may_come_before_anything_else_of_the_transaction() {
    let mut rig = Rig::new(1).given(replica(3), phase1a(ballot(1, 3), &[id(1)]));
    assert_eq!(rig.hear(a(), vote(1, Aborted)), nothing());
    let again = phase1a(ballot(2, 3), &[id(1)]);
    let known = Report {
        roster: Some(ab()),
        ..report(id(1))
    };
    assert_eq!(
        rig.hear(replica(3), again),
        effects(
            [promise_record(1, ballot(2, 3))],
            [(replica(3), phase1b(ballot(2, 3), [known]))]
        ),
        "the vote left its roster behind, and nothing else"
    );
}

#[test]
fn a_vote_in_the_wrong_roster_is_dropped() {
    let wrong = || cast(id(1), only_a(), Prepared);
    let mut rig = Rig::new(1);
    let refused = rejected(a(), Rejection::WrongRoster);
    assert_eq!(rig.hear(a(), wrong()), refused);
    rig.hear(b(), vote(1, Prepared));
    assert_eq!(rig.hear(a(), wrong()), refused);
    assert_eq!(rig.replica.undecided().count(), 1);
}

#[test]
fn only_the_session_that_the_roster_names_votes() {
    let mut rig = Rig::new(1);
    for stranger in [session("a", 2), session("c", 1)] {
        assert_eq!(
            rig.hear(stranger.clone(), vote(1, Prepared)),
            rejected(stranger, Rejection::NotInRoster)
        );
    }
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn two_rosters_of_one_transaction_are_two_instances() {
    let alone = CommitId::new(txn(1), &only_a());
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let out = rig.hear(a(), cast(alone, only_a(), Aborted));
    let report = phase2b(alone, Ballot::ZERO, Abort);
    assert_eq!(out.send, to([initiator(), a()], report));
    assert_eq!(rig.replica.outcome(&alone), Some(Abort));
    assert_eq!(rig.outcome(1), None);
}

#[test]
fn two_sessions_of_one_participant_are_two_branches() {
    let roster = Roster::new([branch("a", 1), branch("a", 2)]).unwrap();
    let id = CommitId::new(txn(1), &roster);
    let mut rig = Rig::new(1);
    let first = rig.hear(session("a", 2), cast(id, roster.clone(), Prepared));
    assert_eq!(first.send, []);
    let second = rig.hear(session("a", 1), cast(id, roster, Prepared));
    let report = phase2b(id, Ballot::ZERO, Commit);
    assert_eq!(
        second.send,
        to([initiator(), session("a", 1), session("a", 2)], report)
    );
}

#[test]
fn a_decided_transaction_is_answered_with_finish() {
    let mut rig = Rig::new(1).given(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    let answer = sends([(b(), finish(id(1), branch("b", 1), Commit))]);
    assert_eq!(rig.hear(b(), vote(1, Prepared)), answer);
}

#[test]
fn alone_a_replica_decides_at_the_last_vote() {
    let mut rig = Rig::with(config(1, 1), Vec::new()).given(a(), vote(1, Prepared));
    assert_eq!(
        rig.hear(b(), vote(1, Prepared)),
        effects(
            [vote_record(1, 1, Prepared, None)],
            reported([initiator(), a(), b()], Commit)
        )
    );
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().collect::<Vec<_>>(), [&id(1)]);
    let mut rig = Rig::with(config(1, 1), Vec::new()).given(a(), vote(1, ReadOnly));
    let out = rig.hear(b(), vote(1, ReadOnly));
    assert_eq!(
        out.save,
        [
            vote_record(1, 1, ReadOnly, None),
            finished_record(1, Commit)
        ]
    );
}

#[test]
fn of_five_replicas_three_acceptances_decide() {
    let mut rig = Rig::with(config(1, 5), Vec::new())
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    let report = || phase2b(id(1), Ballot::ZERO, Commit);
    assert_eq!(rig.hear(replica(2), report()), nothing());
    assert_eq!(rig.hear(replica(2), report()), nothing(), "again");
    assert_eq!(rig.outcome(1), None);
    rig.hear(replica(5), report());
    assert_eq!(rig.outcome(1), Some(Commit));
}
