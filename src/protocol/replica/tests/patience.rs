//! When something is done: vote timeouts, turns, back-off, and the exchange before a ballot.

use super::*;

fn begun_with(vote_timeout: Duration) -> Message {
    Message::BeginCommit(BeginCommit {
        vote_timeout,
        ..begin(id(1), ab())
    })
}

#[test]
fn the_vote_timeout_has_a_floor_and_a_ceiling_and_rounds_up_to_ticks() {
    let millis = Duration::from_millis;
    for (timeout, ticks) in [
        (Duration::ZERO, 5),
        (millis(49), 5),
        (millis(50), 5),
        (millis(51), 6),
        (millis(60), 6),
        (millis(199), 20),
        (millis(200), 20),
        (millis(201), 20),
        (Duration::MAX, 20),
    ] {
        let mut rig = Rig::new(1).given(initiator(), begun_with(timeout));
        assert_eq!(rig.wait().0, ticks, "for {timeout:?}");
    }
}

#[test]
fn a_tick_of_no_length_is_no_reason_to_panic() {
    let mut config = config(1, 3);
    config.tick = Duration::ZERO;
    let mut out = Effects::default();
    let mut replica = Replica::recover(config, [], &mut out);
    let (from, message) = (initiator(), begun(1));
    replica.step(Input::Message { from, message }, &mut out);
    assert_eq!(replica.undecided().count(), 1);
}

#[test]
fn the_first_word_of_a_transaction_starts_its_vote_timeout() {
    let vote_with = |vote_timeout| {
        Message::Vote(CastVote {
            id: id(1),
            roster: ab(),
            vote: Prepared,
            vote_timeout,
        })
    };
    let mut rig = Rig::new(1).given(a(), vote_with(7 * TICK));
    rig.hear(initiator(), begun(1));
    assert_eq!(rig.wait().0, 7);
    let question = |vote_timeout| {
        Message::Ask(Question {
            id: id(1),
            branch: None,
            voter: Voter::Unknown,
            vote_timeout,
        })
    };
    let mut rig = Rig::new(1).given(initiator(), question(8 * TICK));
    rig.hear(a(), vote_with(6 * TICK));
    assert_eq!(rig.wait().0, 8);
}

#[test]
fn the_vote_timeout_that_is_told_counts_once_and_never_shortens() {
    let question = Message::Ask(Question {
        id: id(1),
        branch: None,
        voter: Voter::Unknown,
        vote_timeout: Duration::ZERO,
    });
    let asked = || Rig::new(1).given(initiator(), question.clone());
    assert_eq!(asked().wait().0, 5, "nobody knows better");
    let mut told = asked();
    told.hear(a(), vote(1, Prepared));
    told.wait_quietly(9);
    told.hear(a(), vote(1, Prepared));
    told.hear(initiator(), begun(1));
    assert_eq!(told.wait().0, 1, "to say it again makes it no longer");
    let mut tried = asked();
    assert_eq!(tried.wait().0, 5);
    tried.hear(a(), vote(1, Prepared));
    assert!(tried.wait().0 < 10, "a ballot was started already");
    let disk = vec![vote_record(1, 0, Prepared, Some(ab()))];
    let mut restarted = Rig::with(config(1, 3), disk);
    restarted.hear(a(), vote(1, Prepared));
    assert_eq!(restarted.wait().0, 10, "as before the restart");
}

#[test]
fn complete_votes_are_asked_about_soon() {
    let mut settings = config(2, 3);
    settings.exchange_ticks = 3;
    let complete = |votes: [Vote; 2]| {
        let mut rig = Rig::with(settings.clone(), Vec::new());
        rig.hear(a(), vote(1, votes[0]));
        rig.hear(b(), vote(1, votes[1]));
        rig.wait().0
    };
    assert_eq!(complete([Prepared, Prepared]), 3 + 2, "then its turn");
    assert_eq!(complete([ReadOnly, Prepared]), 3 + 2);
    assert_eq!(complete([ReadOnly, ReadOnly]), 1, "nobody says Applied");
}

#[test]
fn each_replica_waits_for_those_before_it() {
    for (replica, ticks) in [(1, 10), (2, 12), (3, 14)] {
        let mut rig = Rig::new(replica).given(a(), vote(1, Prepared));
        assert_eq!(rig.wait().0, ticks, "replica {replica}");
    }
}

#[test]
fn ballots_back_off_to_a_limit_and_each_replica_to_another_one() {
    for (replica, gaps) in [
        (1, [10, 6, 12, 20, 20, 20]),
        (2, [12, 8, 16, 26, 28, 30]),
        (3, [14, 10, 20, 32, 36, 40]),
    ] {
        let mut rig = Rig::new(replica).given(a(), vote(1, Prepared));
        assert_eq!(rig.gaps(6), gaps, "replica {replica}");
    }
}

#[test]
fn after_very_many_attempts_it_still_tries_again() {
    let mut rig = Rig::new(2).given(a(), vote(1, Prepared));
    rig.gaps(40);
    assert_eq!(rig.gaps(2), [20 + 2 * 16; 2]);
}

#[test]
fn an_accepted_commit_is_exchanged_before_a_ballot_is_started() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    let report = phase2b(id(1), Ballot::ZERO, Commit);
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 10);
    assert_eq!(out, sends(to([replica(2), replica(3)], report)));
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 3, "nobody answers");
    assert_eq!(out, starts(ballot(1, 1), &[id(1)]));
    assert_eq!(rig.wait().0, 12, "which was the second attempt");
}

#[test]
fn an_answered_exchange_needs_no_ballot() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    rig.wait();
    let answer = decided(id(1), Commit, Some(whom(&[])));
    assert_eq!(rig.hear(replica(2), answer), saves([committed_record(1)]));
    rig.wait_quietly(50);
}

#[test]
fn the_other_replica_counts_the_exchange_and_answers_it() {
    let mut rig = Rig::new(2)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared));
    let report = || phase2b(id(1), Ballot::ZERO, Commit);
    let answer = || sends([(replica(1), decided(id(1), Commit, Some(whom(&[]))))]);
    assert_eq!(rig.hear(replica(1), report()), answer());
    assert_eq!(rig.outcome(1), Some(Commit));
    assert_eq!(rig.hear(replica(1), report()), answer());
}

#[test]
fn a_replica_that_has_not_accepted_has_nothing_to_answer() {
    let report = || phase2b(id(1), Ballot::ZERO, Commit);
    let mut rig = Rig::new(2).given(a(), vote(1, Prepared));
    assert_eq!(rig.hear(replica(1), report()), nothing());
    assert_eq!(rig.outcome(1), None);
    let mut rig = Rig::new(2);
    assert_eq!(rig.hear(replica(1), report()), nothing(), "never heard of");
    assert_eq!(rig.replica.undecided().count(), 0);
}

#[test]
fn only_at_ballot_0_is_a_late_acceptance_answered() {
    let mut rig = Rig::new(1).given(replica(2), decided(id(1), Commit, Some(whom(&[]))));
    let report = phase2b(id(1), ballot(1, 1), Commit);
    assert_eq!(rig.hear(replica(3), report), nothing());
}

#[test]
fn one_replica_that_accepted_abort_at_ballot_0_decides() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    let report = phase2b(id(1), Ballot::ZERO, Abort);
    assert_eq!(
        rig.hear(replica(2), report),
        effects(
            [finished_record(1, Abort)],
            [(replica(2), decided(id(1), Abort, None))]
        ),
        "saved, because no vote on disk shows it"
    );
}

#[test]
fn a_restarted_replica_counts_its_own_acceptance_at_the_exchange() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared))
        .restart();
    let report = || phase2b(id(1), Ballot::ZERO, Commit);
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 5);
    assert_eq!(out, sends(to([replica(2), replica(3)], report())));
    let answer = sends([(replica(2), decided(id(1), Commit, Some(whom(&[]))))]);
    assert_eq!(rig.hear(replica(2), report()), answer);
    assert_eq!(rig.outcome(1), Some(Commit));
}

#[test]
fn what_was_accepted_above_ballot_0_gets_a_ballot_at_once() {
    let proposal = decision(id(1), Abort, None);
    let rig = Rig::new(1).given(replica(2), phase2a(ballot(1, 2), [proposal]));
    let mut rig = rig.restart();
    let (_, out) = rig.wait();
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
}

#[test]
fn a_promise_to_another_leader_gives_it_the_time_of_an_attempt() {
    let mut rig = Rig::new(2).given(a(), vote(1, Prepared));
    rig.wait_quietly(11);
    rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    rig.wait_quietly(3);
    let again = rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    assert_eq!(again.save, [], "the same promise is no news");
    assert_eq!(rig.wait().0, 5, "of 8: no more time for a duplicate");
    assert_eq!(rig.wait().0, 16, "standing back counted as the first");
}

#[test]
fn an_acceptance_gives_it_that_time_again() {
    let mut rig = Rig::new(2).given(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    rig.wait_quietly(6);
    let proposal = decision(id(1), Abort, None);
    rig.hear(replica(1), phase2a(ballot(1, 1), [proposal]));
    assert_eq!(rig.wait().0, 8);
}

#[test]
fn after_standing_back_there_is_no_exchange() {
    let mut rig = Rig::new(1)
        .given(a(), vote(1, Prepared))
        .given(b(), vote(1, Prepared))
        .given(replica(2), phase1a(ballot(1, 2), &[id(1)]));
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 6);
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
}

#[test]
fn to_its_own_ballot_a_replica_does_not_stand_back() {
    let mut rig = Rig::new(1).given(operator(), Message::ForceAbort { id: id(1) });
    rig.tick();
    rig.hear(replica(1), phase1a(ballot(1, 1), &[id(1)]));
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 2, "of the 3 before the first retry");
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
}

#[test]
fn a_nack_ends_the_ballot_and_backs_off() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    rig.wait();
    rig.wait_quietly(4);
    let higher = ballot(1, 3);
    let refused = || nack(ballot(1, 1), [(id(1), higher)]);
    assert_eq!(rig.hear(replica(3), refused()), nothing());
    // The ballot is over: its promises count no more.
    for from in [1, 2, 3] {
        let late = phase1b(ballot(1, 1), [report(id(1))]);
        assert_eq!(rig.hear(replica(from), late), nothing());
    }
    rig.wait_quietly(2);
    assert_eq!(rig.hear(replica(2), refused()), nothing(), "a second one");
    let (ticks, out) = rig.wait();
    assert_eq!(ticks, 4, "6 after the first");
    assert_eq!(out, starts(ballot(2, 1), &[id(1)]));
}

#[test]
fn a_nack_that_tells_no_higher_ballot_changes_nothing() {
    let mut rig = Rig::new(1).given(a(), vote(1, Prepared));
    rig.wait();
    rig.wait_quietly(4);
    rig.hear(replica(3), nack(ballot(1, 1), [(id(1), ballot(1, 1))]));
    rig.hear(replica(3), nack(ballot(2, 1), [(id(1), ballot(3, 2))]));
    rig.hear(replica(1), phase1b(ballot(1, 1), [report(id(1))]));
    let out = rig.hear(replica(2), phase1b(ballot(1, 1), [report(id(1))]));
    assert_eq!(out.send.len(), 3, "the ballot goes on");
    assert_eq!(rig.wait().0, 2);
}
