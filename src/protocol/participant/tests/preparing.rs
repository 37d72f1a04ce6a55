//! Up to the vote.

use super::*;

#[test]
fn a_relay_asks_the_resource_manager_prepares_the_session_votes() {
    let mut rig = Rig::working();
    assert_eq!(rig.asked(please(1)), notifies([asks_to_prepare(please(1))]));
    assert_eq!(rig.in_doubt(), []);
    assert_eq!(rig.prepared(1, Prepared), sends(to_all(vote(1, Prepared))));
    assert_eq!(rig.in_doubt(), [id(1)]);
    assert!(!rig.participant.is_idle());
    assert_eq!(rig.participant.remembered(), 1);
}

#[test]
fn a_service_prepares_by_itself() {
    let mut rig = Rig::working();
    assert_eq!(
        rig.command(ParticipantCommand::Prepare(please(1))),
        notifies([asks_to_prepare(please(1))])
    );
    assert_eq!(rig.prepared(1, Prepared), sends(to_all(vote(1, Prepared))));
    assert_eq!(
        rig.command(ParticipantCommand::Prepare(please(1))),
        sends(to_all(vote(1, Prepared))),
        "again"
    );
}

#[test]
fn a_request_begins_a_branch_and_travels_to_the_resource_manager() {
    let mut rig = Rig::new();
    let expected = notifies([ParticipantNotice::Prepare {
        id: id(1),
        request: Some(request()),
        read_only: types::ReadOnly::Forbidden,
    }]);
    assert_eq!(rig.asked(with_request(1)), expected);
    let mut rig = Rig::working();
    assert_eq!(rig.asked(with_request(1)), expected);
}

#[test]
fn asked_while_it_prepares_it_runs_nothing_twice() {
    let mut rig = Rig::new();
    rig.asked(with_request(1));
    assert_eq!(rig.asked(with_request(1)), nothing());
    assert_eq!(
        rig.begin(1),
        notifies([refused(1)]),
        "it would not be durable"
    );
}

#[test]
fn asked_again_after_its_vote_it_repeats_it_to_whoever_asked() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.asked(with_request(1)),
        sends([(replica(2), vote(1, Prepared))])
    );
    assert_eq!(
        rig.hear(3, Message::Prepare(please(1))),
        sends([(replica(3), vote(1, Prepared))])
    );
}

#[test]
fn an_unknown_branch_votes_aborted() {
    let mut rig = Rig::new();
    assert_eq!(
        rig.asked(please(1)),
        effects(to_all(vote(1, Aborted)), [let_go(1)])
    );
    assert!(!rig.participant.is_idle(), "until it knows the outcome");
    assert_eq!(rig.in_doubt(), []);
    let mut rig = Rig::new();
    let out = rig.command(ParticipantCommand::Prepare(please(1)));
    assert_eq!(out.send, to_all(vote(1, Aborted)));
}

#[test]
fn a_poisoned_branch_votes_aborted_without_asking_anybody() {
    let mut rig = Rig::working();
    rig.poison(1);
    assert_eq!(
        rig.asked(with_request(1)),
        effects(to_all(vote(1, Aborted)), [let_go(1)])
    );
}

#[test]
fn poisoned_while_it_prepares_it_votes_aborted_and_rolls_back_what_was_prepared() {
    let mut rig = Rig::preparing();
    rig.poison(1);
    assert_eq!(
        rig.prepared(1, Prepared),
        effects(
            to_all(vote(1, Aborted)),
            [let_go(1), asks_to_finish(id(1), 1, Abort)]
        )
    );
    assert_eq!(
        rig.finished(id(1), 1),
        nothing(),
        "an abort interests nobody"
    );
    rig.hear(2, phase2b(id(1), Ballot::ZERO, Abort));
    assert!(rig.participant.is_idle());
}

#[test]
fn poisoned_while_it_prepares_and_nothing_was_prepared() {
    for answer in [Aborted, ReadOnly] {
        let mut rig = Rig::preparing();
        rig.poison(1);
        assert_eq!(
            rig.prepared(1, answer),
            effects(to_all(vote(1, Aborted)), [let_go(1)])
        );
    }
}

#[test]
fn poison_after_the_vote_or_for_nothing_changes_nothing() {
    let mut rig = Rig::voted(Prepared);
    rig.poison(1);
    rig.poison(2);
    assert_eq!(rig.participant, Rig::voted(Prepared).participant);
}

#[test]
fn the_resource_manager_may_refuse() {
    let mut rig = Rig::preparing();
    assert_eq!(
        rig.prepared(1, Aborted),
        effects(to_all(vote(1, Aborted)), [let_go(1)])
    );
}

#[test]
fn read_only_is_a_vote_where_it_is_allowed() {
    let mut rig = Rig::preparing();
    assert_eq!(rig.prepared(1, ReadOnly), sends(to_all(vote(1, ReadOnly))));
    assert!(rig.participant.is_idle());
    assert_eq!(rig.in_doubt(), []);
}

#[test]
fn read_only_is_an_aborted_vote_where_it_is_forbidden() {
    let mut rig = Rig::working();
    rig.asked(with_request(1));
    assert_eq!(
        rig.prepared(1, ReadOnly),
        effects(to_all(vote(1, Aborted)), [let_go(1)])
    );
    let mut rig = Rig::working();
    rig.asked(with_request(1));
    assert_eq!(rig.prepared(1, Prepared), sends(to_all(vote(1, Prepared))));
}

#[test]
fn an_answer_that_nobody_waits_for_is_nothing() {
    let mut rig = Rig::working();
    assert_eq!(rig.prepared(1, Prepared), nothing());
    rig.asked(please(1));
    let (id, vote) = (alone(1), Prepared);
    let other = ParticipantCommand::Prepared { id, vote };
    assert_eq!(rig.command(other), nothing(), "of another instance");
    rig.prepared(1, Prepared);
    assert_eq!(rig.prepared(1, Aborted), nothing(), "it says one thing");
}

#[test]
fn a_prepare_for_another_roster_than_its_id_names_is_ignored() {
    let mut rig = Rig::working();
    let wrong = Prepare {
        roster: only_a(),
        floor: 9,
        ..please(1)
    };
    assert_eq!(rig.asked(wrong), nothing());
    let roster = Roster::new([branch("a", 2), branch("b", 1)]).unwrap();
    let not_mine = Prepare {
        id: CommitId::new(txn(1), &roster),
        roster,
        floor: 9,
        ..please(1)
    };
    assert_eq!(rig.asked(not_mine), nothing());
    assert_eq!(rig.participant, Rig::working().participant);
}

#[test]
fn of_a_second_roster_for_its_transaction_it_knows_nothing() {
    let second = || Prepare {
        id: alone(1),
        roster: only_a(),
        ..please(1)
    };
    for mut rig in [
        Rig::preparing(),
        Rig::voted(Prepared),
        Rig::voted(Aborted),
        Rig::committed(),
    ] {
        assert_eq!(rig.asked(second()), nothing());
    }
    let mut applying = Rig::voted(Prepared);
    applying.hear(1, finish(id(1), me(), Commit));
    assert_eq!(applying.asked(second()), nothing());
    assert_eq!(applying.asked(please(1)), nothing());
}

#[test]
fn before_the_vote_a_branch_may_let_go_and_then_votes_aborted() {
    for by_replica in [false, true] {
        let mut rig = Rig::working();
        let out = if by_replica {
            rig.hear(
                1,
                Message::LetGo {
                    txn: txn(1),
                    floor: 0,
                },
            )
        } else {
            rig.rollback(1)
        };
        assert_eq!(out, notifies([let_go(1)]));
        assert!(rig.participant.is_idle());
        assert_eq!(rig.participant.remembered(), 1);
        assert_eq!(rig.rollback(1), nothing(), "again");
        assert_eq!(rig.begin(1), notifies([refused(1)]), "too late");
        assert_eq!(
            rig.asked(with_request(1)),
            effects(to_all(vote(1, Aborted)), [let_go(1)])
        );
    }
}

#[test]
fn let_go_while_it_prepares_it_votes_aborted() {
    let mut rig = Rig::preparing();
    assert_eq!(rig.rollback(1), nothing());
    let out = rig.prepared(1, Prepared);
    assert_eq!(out.send, to_all(vote(1, Aborted)));
}

#[test]
fn after_the_vote_only_a_replica_can_undo_it() {
    let mut rig = Rig::voted(Prepared);
    assert_eq!(rig.rollback(1), nothing());
    assert_eq!(
        rig.hear(
            1,
            Message::LetGo {
                txn: txn(1),
                floor: 0
            }
        ),
        nothing()
    );
    assert_eq!(rig.participant, Rig::voted(Prepared).participant);
    assert_eq!(rig.begin(1), notifies([refused(1)]), "work comes too late");
}

#[test]
fn work_under_a_branch_at_its_end_is_refused() {
    let mut applying = Rig::voted(Prepared);
    applying.hear(1, finish(id(1), me(), Commit));
    for mut rig in [applying, Rig::committed()] {
        assert_eq!(rig.begin(1), notifies([refused(1)]));
        assert_eq!(rig.rollback(1), nothing());
    }
}

#[test]
fn work_that_begins_twice_is_one_branch() {
    let mut rig = Rig::working();
    rig.poison(1);
    assert_eq!(rig.begin(1), notifies([began(1)]));
    let out = rig.asked(please(1));
    assert_eq!(out.send, to_all(vote(1, Aborted)), "still poisoned");
}

#[test]
fn work_that_no_process_asks_for_ends_and_is_reported() {
    let mut rig = Rig::working();
    rig.wait_quietly(3);
    rig.begin(2);
    assert_eq!(rig.wait(), (2, notifies([let_go(1), unasked(1, 5)])));
    assert_eq!(rig.wait(), (3, notifies([let_go(2), unasked(2, 5)])));
    rig.wait_quietly(30);
    assert!(rig.participant.is_idle());
    let mut rig = Rig::preparing();
    rig.wait_quietly(30);
}

#[test]
fn work_that_is_rolled_back_in_time_is_not_reported() {
    let released = Message::LetGo {
        txn: txn(1),
        floor: 0,
    };
    let aborted = phase2b(id(1), Ballot::ZERO, Abort);
    for message in [released, aborted] {
        let mut rig = Rig::working();
        assert_eq!(rig.hear(1, message).notify[0], let_go(1));
        rig.wait_quietly(30);
    }
    let mut rig = Rig::working();
    assert_eq!(rig.rollback(1), notifies([let_go(1)]));
    rig.wait_quietly(30);
}

#[test]
fn strangers_are_ignored() {
    let mut rig = Rig::working();
    let message = || Message::Prepare(please(1));
    assert_eq!(rig.hear(4, message()), nothing(), "not of this cluster");
    for from in [
        Peer::Session(branch("b", 1)),
        Peer::Initiator(OWNER),
        Peer::Operator(1),
    ] {
        let message = message();
        assert_eq!(rig.step(Input::Message { from, message }), nothing());
    }
    assert_eq!(rig.participant, Rig::working().participant);
}
