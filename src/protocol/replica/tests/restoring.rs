//! What a replica is after a restart: the same whatever the order of its records.

use super::*;

/// Calls `check` with every permutation of `records`.
fn permutations(records: &mut Vec<Record>, fixed: usize, check: &mut impl FnMut(&[Record])) {
    if fixed == records.len() {
        check(records);
        return;
    }
    for other in fixed..records.len() {
        records.swap(fixed, other);
        permutations(records, fixed + 1, check);
        records.swap(fixed, other);
    }
}

/// Asserts that every order of `records` gives the same replica, and returns it.
fn recovered(records: impl Into<Vec<Record>>) -> Rig {
    let records = records.into();
    let expected = Rig::with(config(1, 3), records.clone());
    permutations(&mut records.clone(), 0, &mut |records| {
        let twice = records.iter().chain(records).cloned().collect();
        for disk in [records.to_vec(), twice] {
            let rig = Rig::with(config(1, 3), disk);
            assert_eq!(rig.replica, expected.replica, "from {records:?}");
        }
    });
    expected
}

fn reported_by(rig: &mut Rig, sequence: u32) -> Effects<Replica> {
    rig.hear(replica(3), phase1a(ballot(9, 3), &[id(sequence)]))
}

#[test]
fn nothing_was_saved() {
    let rig = recovered([]);
    assert_eq!(rig.replica.undecided().count(), 0);
    assert_eq!(rig.replica.unapplied().count(), 0);
}

#[test]
fn votes_and_what_was_promised_after_them() {
    let mut rig = recovered([
        vote_record(1, 0, Prepared, Some(ab())),
        vote_record(1, 1, ReadOnly, None),
        promise_record(1, ballot(3, 2)),
        promise_record(1, ballot(1, 3)),
        Record::Round { round: 2 },
        vote_record(2, 1, Prepared, Some(ab())),
    ]);
    let undecided: Vec<_> = rig.replica.undecided().copied().collect();
    assert_eq!(undecided, [id(1), id(2)]);
    // A promise hides no vote that was held before.
    let accepted = Report {
        accepted: Some((Ballot::ZERO, Commit)),
        held: set(&[0, 1]),
        read_only: set(&[1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    let refused = nack(ballot(3, 1), [(id(1), ballot(3, 2))]);
    let low = phase1a(ballot(3, 1), &[id(1)]);
    assert_eq!(rig.hear(replica(1), low), sends([(replica(1), refused)]));
    assert_eq!(
        reported_by(&mut rig, 1).send,
        [(replica(3), phase1b(ballot(9, 3), [accepted]))]
    );
    let held = Report {
        held: set(&[1]),
        roster: Some(ab()),
        ..report(id(2))
    };
    assert_eq!(
        reported_by(&mut rig, 2).send,
        [(replica(3), phase1b(ballot(9, 3), [held]))]
    );
}

#[test]
fn acceptances_of_which_the_highest_counts() {
    let mut rig = recovered([
        vote_record(1, 0, Prepared, Some(ab())),
        vote_record(1, 1, Prepared, None),
        promise_record(1, ballot(2, 2)),
        accept_record(1, ballot(3, 3), Abort),
        accept_record(1, ballot(1, 2), Commit),
        Record::Round { round: 1 },
    ]);
    let accepted = Report {
        accepted: Some((ballot(3, 3), Abort)),
        held: set(&[0, 1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    assert_eq!(
        reported_by(&mut rig, 1).send,
        [(replica(3), phase1b(ballot(9, 3), [accepted]))]
    );
}

#[test]
fn an_accepted_commit_brings_its_roster() {
    let mut rig = recovered([accept_record(1, ballot(1, 2), Commit)]);
    let accepted = Report {
        accepted: Some((ballot(1, 2), Commit)),
        roster: Some(ab()),
        ..report(id(1))
    };
    assert_eq!(
        reported_by(&mut rig, 1).send,
        [(replica(3), phase1b(ballot(9, 3), [accepted]))]
    );
}

#[test]
fn the_rounds_used_and_those_promised_there() {
    let saved = [
        (
            vec![Record::Round { round: 4 }, Record::Round { round: 2 }],
            5,
        ),
        (
            vec![promise_record(1, ballot(6, 2)), Record::Round { round: 2 }],
            7,
        ),
        (
            vec![
                accept_record(1, ballot(8, 3), Abort),
                promise_record(1, ballot(6, 2)),
            ],
            9,
        ),
    ];
    for (records, round) in saved {
        let mut rig = recovered(records);
        let out = rig.hear(operator(), Message::ForceAbort { id: id(1) });
        assert_eq!(out.save, [Record::Round { round }]);
    }
}

#[test]
fn an_aborted_vote_is_an_outcome() {
    let mut rig = recovered([
        vote_record(1, 0, Prepared, Some(ab())),
        vote_record(1, 1, Aborted, None),
        promise_record(1, ballot(1, 2)),
    ]);
    assert_eq!(rig.outcome(1), Some(Abort));
    assert_eq!(rig.replica.undecided().count(), 0);
    rig.wait_quietly(50);
}

#[test]
fn what_was_finished_stays_finished() {
    let mut rig = recovered([
        vote_record(1, 0, Prepared, Some(ab())),
        accept_record(1, ballot(1, 2), Abort),
        finished_record(1, Abort),
        committed_record(2),
        finished_record(2, Commit),
        finished_record(3, Commit),
    ]);
    assert_eq!(rig.outcome(1), Some(Abort));
    assert_eq!(rig.outcome(2), Some(Commit));
    assert_eq!(rig.outcome(3), Some(Commit));
    assert_eq!(rig.replica.undecided().count(), 0);
    assert_eq!(rig.replica.unapplied().count(), 0);
    rig.connect(a());
    rig.wait_quietly(50);
}

#[test]
fn a_commit_that_was_not_applied_is_pushed_again() {
    let mut rig = recovered([
        committed_record(1),
        vote_record(1, 1, ReadOnly, None),
        promise_record(1, ballot(1, 2)),
    ]);
    assert_eq!(rig.replica.unapplied().collect::<Vec<_>>(), [&id(1)]);
    assert_eq!(rig.replica.undecided().count(), 0);
    rig.connect(a());
    rig.connect(b());
    let push = finish(id(1), branch("a", 1), Commit);
    assert_eq!(rig.wait(), (4, sends([(a(), push)])));
    rig.hear(a(), applied(id(1), branch("a", 1)));
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 0);
}

#[test]
fn a_commit_of_read_only_branches_alone_is_finished() {
    let rig = recovered([
        committed_record(1),
        vote_record(1, 0, ReadOnly, None),
        vote_record(1, 1, ReadOnly, Some(ab())),
    ]);
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 0);
}

#[test]
#[should_panic(expected = "lost a record and kept a later one")]
fn a_store_that_lost_the_roster_of_a_vote_must_not_serve() {
    recovered([vote_record(1, 1, Aborted, None)]);
}

#[test]
#[should_panic(expected = "lost a record and kept a later one")]
fn a_vote_of_no_branch_is_no_vote_of_this_roster() {
    recovered([
        vote_record(1, 2, Aborted, None),
        vote_record(1, 0, Prepared, Some(ab())),
    ]);
}

#[test]
fn what_is_undecided_waits_the_shortest_vote_timeout_and_its_turn() {
    let disk = vec![vote_record(1, 0, Prepared, Some(ab()))];
    let mut rig = Rig::with(config(3, 3), disk);
    assert_eq!(rig.wait().0, 5 + 4);
}

#[test]
fn what_is_undecided_counts_against_the_limit() {
    let disk = (1..=3).map(|sequence| promise_record(sequence, ballot(1, 2)));
    let mut rig = Rig::with(config(1, 3), disk.collect());
    assert_eq!(
        rig.hear(initiator(), begun(4)),
        sends([(initiator(), Message::Busy { id: id(4) })])
    );
}

#[test]
fn alone_what_was_accepted_is_decided() {
    let alone = |disk: Vec<Record>| Rig::with(config(1, 1), disk);
    let votes = vec![
        vote_record(1, 0, Prepared, Some(ab())),
        vote_record(1, 1, Prepared, None),
    ];
    let rig = alone(votes.clone());
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.replica.unapplied().count(), 1);
    assert_eq!(Rig::with(config(1, 3), votes).outcome(1), None);
    let rig = alone(vec![accept_record(1, ballot(1, 1), Commit)]);
    assert_eq!(rig.outcome(1), Some(Commit));
    let rig = alone(vec![accept_record(1, ballot(1, 1), Abort)]);
    assert_eq!(rig.outcome(1), Some(Abort));
    assert_eq!(rig.replica.undecided().count(), 0);
    let rig = alone(vec![vote_record(1, 0, Prepared, Some(ab()))]);
    assert_eq!(rig.outcome(1), None);
    assert_eq!(rig.replica.undecided().count(), 1);
}

#[test]
fn a_whole_history_survives_a_restart() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared))
        .given(b(), vote(2, Aborted))
        .given(replica(2), phase1a(ballot(1, 2), &[id(1), id(3)]));
    rig.hear(replica(2), decided(id(3), Commit, Some(whom(&[]))));
    let rig = rig.restart();
    assert_eq!(rig.outcome(1), None);
    assert_eq!(rig.outcome(2), Some(Abort));
    assert_eq!(rig.outcome(3), Some(Commit));
}

#[test]
#[should_panic(expected = "a replica is one of the acceptors")]
fn a_replica_outside_the_configuration_is_a_mistake() {
    Rig::with(config(4, 3), Vec::new());
}
