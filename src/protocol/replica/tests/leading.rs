//! A replica leads a ballot above 0, from the first message to the last.

use super::*;

/// Replica 1 with ballot 1.1 under way: a has voted here, and knows the roster.
fn leading() -> Rig {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 10, "the vote timeout");
    assert_eq!(out, starts(ballot(1, 1), &[id(1)]));
    rig
}

/// What replica 1 reports to itself.
fn own_report() -> Report {
    Report {
        held: set(&[0]),
        roster: Some(ab()),
        ..report(id(1))
    }
}

fn proposes(outcome: Outcome) -> Effects<Replica> {
    let unapplied = (outcome == Commit).then(|| whom(&[]));
    let proposal = decision(id(1), outcome, unapplied);
    sends(to(all(), phase2a(ballot(1, 1), [proposal])))
}

#[test]
fn one_replica_recovers_a_transaction_whose_branch_never_votes() {
    let mut rig = leading();
    let first = ballot(1, 1);
    assert_eq!(
        rig.hear(replica(1), phase1a(first, &[id(1)])),
        effects(
            [promise_record(1, first)],
            [(replica(1), phase1b(first, [own_report()]))]
        )
    );
    assert_eq!(
        rig.hear(replica(1), phase1b(first, [own_report()])),
        nothing()
    );
    assert_eq!(
        rig.hear(replica(3), phase1b(first, [report(id(1))])),
        proposes(Abort)
    );
    let accepted = phase2b(id(1), first, Abort);
    assert_eq!(
        rig.hear(replica(1), phase2a(first, [decision(id(1), Abort, None)])),
        effects(
            [accept_record(1, first, Abort)],
            to([initiator(), a(), b(), replica(1)], accepted.clone())
        )
    );
    assert_eq!(rig.hear(replica(1), accepted.clone()), nothing());
    assert_eq!(
        rig.hear(replica(3), accepted),
        effects(
            [finished_record(1, Abort)],
            [
                (replica(2), decided(id(1), Abort, None)),
                (replica(3), decided(id(1), Abort, None)),
                (initiator(), decided(id(1), Abort, None)),
                (a(), finish(id(1), branch("a", 1), Abort)),
                (b(), finish(id(1), branch("b", 1), Abort)),
            ]
        )
    );
    assert_eq!(rig.outcome(1), Some(Abort));
    rig.wait_quietly(50);
}

#[test]
fn the_union_of_the_votes_is_commit_and_travels_with_its_roster() {
    let mut rig = leading();
    let first = ballot(1, 1);
    rig.hear(replica(1), phase1b(first, [own_report()]));
    let other_half = Report {
        held: set(&[1]),
        ..report(id(1))
    };
    assert_eq!(
        rig.hear(replica(2), phase1b(first, [other_half])),
        proposes(Commit)
    );
    let accepted = phase2b(id(1), first, Commit);
    let proposal = decision(id(1), Commit, Some(whom(&[])));
    assert_eq!(
        rig.hear(replica(1), phase2a(first, [proposal])),
        effects(
            [accept_record(1, first, Commit)],
            to([initiator(), a(), b(), replica(1)], accepted.clone())
        )
    );
    rig.hear(replica(1), accepted.clone());
    assert_eq!(
        rig.hear(replica(3), accepted),
        effects(
            [committed_record(1)],
            [
                (replica(2), decided(id(1), Commit, Some(whom(&[])))),
                (replica(3), decided(id(1), Commit, Some(whom(&[])))),
                (initiator(), decided(id(1), Commit, None)),
                (a(), finish(id(1), branch("a", 1), Commit)),
                (b(), finish(id(1), branch("b", 1), Commit)),
            ]
        )
    );
    assert_eq!(rig.replica.unapplied().collect::<Vec<_>>(), [&id(1)]);
}

#[test]
fn a_read_only_branch_waits_for_no_finish() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    rig.wait();
    let first = ballot(1, 1);
    rig.hear(replica(1), phase1b(first, [own_report()]));
    let read_only = Report {
        held: set(&[1]),
        read_only: set(&[1]),
        ..report(id(1))
    };
    let proposal = phase2a(first, [decision(id(1), Commit, Some(whom(&[1])))]);
    assert_eq!(
        rig.hear(replica(2), phase1b(first, [read_only])),
        sends(to(all(), proposal.clone()))
    );
    let accepted = phase2b(id(1), first, Commit);
    let out = rig.hear(replica(1), proposal);
    assert_eq!(
        out.send,
        [
            (initiator(), accepted.clone()),
            (a(), accepted.clone()),
            (replica(1), accepted.clone()),
        ],
        "an acceptance is reported to all who wait"
    );
    rig.hear(replica(2), accepted.clone());
    assert_eq!(
        rig.hear(replica(3), accepted).send,
        [
            (replica(2), decided(id(1), Commit, Some(whom(&[1])))),
            (replica(3), decided(id(1), Commit, Some(whom(&[1])))),
            (initiator(), decided(id(1), Commit, None)),
            (a(), finish(id(1), branch("a", 1), Commit)),
        ]
    );
    assert_eq!(
        rig.hear(a(), applied(id(1), branch("a", 1))),
        saves([finished_record(1, Commit)])
    );
}

#[test]
fn a_reported_acceptance_binds_the_ballot() {
    let mut rig = leading();
    rig.hear(replica(1), phase1b(ballot(1, 1), [own_report()]));
    let accepted = Report {
        accepted: Some((Ballot::ZERO, Abort)),
        held: set(&[1]),
        ..report(id(1))
    };
    assert_eq!(
        rig.hear(replica(2), phase1b(ballot(1, 1), [accepted])),
        proposes(Abort),
        "although the union of the votes is complete"
    );
}

#[test]
fn of_several_acceptances_the_highest_binds_in_whatever_order_they_are_reported() {
    let accepted = |at, outcome| Report {
        accepted: Some((at, outcome)),
        roster: Some(ab()),
        ..report(id(1))
    };
    for (low, high) in [(Commit, Abort), (Abort, Commit)] {
        let mut reports = [
            accepted(ballot(1, 2), low),
            accepted(ballot(2, 3), high),
            accepted(ballot(1, 4), low),
        ];
        for _ in 0..3 {
            reports.rotate_left(1);
            let heard = phase1a(ballot(5, 2), &[id(2)]);
            let mut rig = Rig::with(config(1, 5), Vec::new()).given(replica(2), heard);
            rig.hear(operator(), Message::ForceAbort { id: id(1) });
            let [first, second, third] = reports.clone();
            rig.hear(replica(2), phase1b(ballot(6, 1), [first]));
            rig.hear(replica(3), phase1b(ballot(6, 1), [second]));
            let out = rig.hear(replica(4), phase1b(ballot(6, 1), [third]));
            let unapplied = (high == Commit).then(|| whom(&[]));
            let proposal = phase2a(ballot(6, 1), [decision(id(1), high, unapplied)]);
            assert_eq!(out, sends(to((1..=5).map(replica), proposal)));
        }
    }
}

#[test]
fn nothing_is_proposed_twice() {
    let mut rig = leading();
    let first = ballot(1, 1);
    rig.hear(replica(1), phase1b(first, [own_report()]));
    rig.hear(replica(2), phase1b(first, [report(id(1))]));
    let late = Report {
        held: set(&[1]),
        ..report(id(1))
    };
    assert_eq!(rig.hear(replica(3), phase1b(first, [late])), nothing());
}

#[test]
fn reports_of_another_ballot_or_of_unknown_instances_are_nothing() {
    let mut rig = leading();
    rig.hear(replica(1), phase1b(ballot(1, 1), [own_report()]));
    assert_eq!(
        rig.hear(replica(2), phase1b(ballot(2, 1), [report(id(1))])),
        nothing()
    );
    assert_eq!(
        rig.hear(replica(2), phase1b(ballot(1, 1), [report(id(2))])),
        nothing()
    );
}

#[test]
fn a_leader_decides_when_it_knows_whom_to_tell() {
    let mut rig = Rig::new(1).given(operator(), Message::ForceAbort { id: id(1) });
    let first = ballot(1, 1);
    rig.hear(replica(1), phase1b(first, [report(id(1))]));
    let all_votes = Report {
        held: set(&[0, 1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    assert_eq!(
        rig.hear(replica(2), phase1b(first, [all_votes])),
        proposes(Commit)
    );
    let accepted = phase2b(id(1), first, Commit);
    assert_eq!(rig.hear(replica(2), accepted.clone()), nothing());
    assert_eq!(rig.hear(replica(3), accepted.clone()), nothing());
    assert_eq!(rig.outcome(1), None, "chosen, but who has to apply it?");
    let proposal = decision(id(1), Commit, Some(whom(&[])));
    rig.hear(replica(1), phase2a(first, [proposal]));
    let out = rig.hear(replica(1), accepted);
    assert_eq!(out.save, [committed_record(1)]);
    assert_eq!(out.send.len(), 6, "and the operator");
}

#[test]
fn a_leader_that_restarted_and_does_not_know_the_roster_decides_no_commit() {
    let mut rig = Rig::new(1).given(operator(), Message::ForceAbort { id: id(1) });
    rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    let mut rig = rig.restart();
    let accepted = phase2b(id(1), ballot(1, 1), Commit);
    assert_eq!(rig.hear(replica(2), accepted.clone()), nothing());
    assert_eq!(rig.hear(replica(3), accepted), nothing());
    assert_eq!(rig.outcome(1), None);

    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 5, "the shortest vote timeout");
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
    rig.hear(replica(1), phase1b(ballot(2, 1), [report(id(1))]));
    let told = Report {
        accepted: Some((ballot(1, 1), Commit)),
        roster: Some(ab()),
        ..report(id(1))
    };
    let out = rig.hear(replica(2), phase1b(ballot(2, 1), [told]));
    let proposal = phase2a(ballot(2, 1), [decision(id(1), Commit, Some(whom(&[])))]);
    assert_eq!(out, sends(to(all(), proposal.clone())));
    rig.hear(replica(1), proposal);
    let accepted = phase2b(id(1), ballot(2, 1), Commit);
    let out = rig.hear(replica(1), accepted);
    assert_eq!(out.save, [committed_record(1)]);
    assert_eq!(rig.outcome(1), Some(Commit));
}

#[test]
fn an_abort_needs_no_roster() {
    let mut rig = Rig::new(1).given(operator(), Message::ForceAbort { id: id(1) });
    let accepted = phase2b(id(1), ballot(1, 1), Abort);
    rig.hear(replica(2), accepted.clone());
    assert_eq!(
        rig.hear(replica(3), accepted),
        effects(
            [finished_record(1, Abort)],
            [
                (replica(2), decided(id(1), Abort, None)),
                (replica(3), decided(id(1), Abort, None)),
                (initiator(), decided(id(1), Abort, None)),
                (operator(), decided(id(1), Abort, None)),
            ]
        )
    );
}

#[test]
fn a_ballot_is_used_once_across_a_restart() {
    let mut rig = leading().restart();
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 5);
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
}

#[test]
fn the_next_ballot_is_above_all_that_were_heard_of() {
    let mut rig = leading();
    rig.hear(replica(2), phase1a(ballot(4, 2), &[id(2)]));
    let proposal = decision(id(2), Abort, None);
    rig.hear(replica(3), phase2a(ballot(6, 3), [proposal]));
    rig.hear(replica(3), decided(id(2), Abort, None));
    let (_, out) = rig.wait();
    assert_eq!(out, starts(ballot(7, 1), &[id(1)]));
    let refused = nack(ballot(7, 1), [(id(1), ballot(9, 2))]);
    assert_eq!(rig.hear(replica(2), refused), nothing());
    assert_eq!(rig.wait().1, starts(ballot(10, 1), &[id(1)]));
}

#[test]
fn when_rounds_are_exhausted_it_leads_no_more() {
    let mut rig = leading();
    rig.hear(
        replica(1),
        nack(ballot(1, 1), [(id(1), ballot(u64::MAX, 2))]),
    );
    rig.wait_quietly(60);
}

#[test]
fn alone_a_replica_recovers_by_itself() {
    let mut rig = Rig::with(config(1, 1), Vec::new()).given(a(), vote(1, Prepared));
    let first = ballot(1, 1);
    let (_, out) = rig.wait();
    assert_eq!(out.send, [(replica(1), phase1a(first, &[id(1)]))]);
    let out = rig.hear(replica(1), phase1a(first, &[id(1)]));
    assert_eq!(out.send, [(replica(1), phase1b(first, [own_report()]))]);
    let out = rig.hear(replica(1), phase1b(first, [own_report()]));
    let proposal = phase2a(first, [decision(id(1), Abort, None)]);
    assert_eq!(out.send, [(replica(1), proposal.clone())]);
    rig.hear(replica(1), proposal);
    rig.hear(replica(1), phase2b(id(1), first, Abort));
    assert_eq!(rig.outcome(1), Some(Abort));
}

#[test]
fn of_five_replicas_three_must_promise_and_three_accept() {
    let mut rig = Rig::with(config(1, 5), Vec::new());
    rig.hear(operator(), Message::ForceAbort { id: id(1) });
    let first = ballot(1, 1);
    for from in [1, 2] {
        assert_eq!(
            rig.hear(replica(from), phase1b(first, [report(id(1))])),
            nothing()
        );
    }
    let out = rig.hear(replica(5), phase1b(first, [report(id(1))]));
    assert_eq!(out.send.len(), 5);
    for from in [1, 2] {
        assert_eq!(
            rig.hear(replica(from), phase2b(id(1), first, Abort)),
            nothing()
        );
    }
    rig.hear(replica(4), phase2b(id(1), first, Abort));
    assert_eq!(rig.outcome(1), Some(Abort));
}
