//! A frozen generation is not touched, and tells what it holds.

use super::*;

/// A replica that froze generation 1 with one vote of transaction 1.
fn froze() -> Rig {
    let mut rig = closed(2, [vote_record(1, 0, Prepared, Some(ab()))]);
    let out = rig.hear(replica(1), freeze(1));
    let answer = frozen(1, &[id(1)], false);
    assert_eq!(out, effects([FROZEN], [(replica(1), answer)]));
    rig
}

#[test]
fn frozen_is_saved_before_it_is_said_and_said_again_without() {
    let mut rig = froze();
    let again = sends([(replica(3), frozen(1, &[id(1)], false))]);
    assert_eq!(rig.hear(replica(3), freeze(1)), again, "whoever asks");
    let mut rig = rig.restart();
    assert_eq!(rig.hear(replica(3), freeze(1)), again);
}

#[test]
fn nothing_of_a_frozen_generation_is_touched() {
    let untouched = |rig: &mut Rig| {
        assert_eq!(rig.hear(b(), vote(1, Prepared)), nothing());
        assert_eq!(rig.hear(b(), vote(2, Aborted)), nothing());
        let ballot = ballot(9, 3);
        assert_eq!(
            rig.hear(replica(3), phase1a(ballot, &[id(1), id(2)])),
            nothing()
        );
        let proposals = [decision(id(1), Commit, Some(whom(&[])))];
        assert_eq!(rig.hear(replica(3), phase2a(ballot, proposals)), nothing());
        assert_eq!(rig.hear(initiator(), begun(1)), nothing());
        rig.wait_quietly(100);
    };
    let mut rig = froze();
    untouched(&mut rig);
    untouched(&mut rig.restart());
}

#[test]
fn who_asks_is_told_why_and_told_when_it_is_settled() {
    let mut rig = froze();
    let a_waits = ask(id(1), Some(branch("a", 1)), Voter::Gone);
    let why = undecided(id(1), &[branch("b", 1)], &[]);
    assert_eq!(rig.hear(a(), a_waits), sends([(a(), why.clone())]));
    let force = Message::ForceAbort { id: id(1) };
    assert_eq!(rig.hear(operator(), force), sends([(operator(), why)]));
    assert_eq!(
        rig.hear(b(), ask(id(2), Some(branch("b", 1)), Voter::Gone)),
        nothing()
    );
    let out = rig.hear(replica(1), learn(2, settle(&[])));
    let told = [
        (a(), expired(1, Some(branch("a", 1)))),
        (operator(), expired(1, None)),
    ];
    assert_eq!(out, effects([chosen(2, settle(&[]))], told));
}

#[test]
fn an_outcome_that_is_known_is_told_all_the_same() {
    let mut rig = froze();
    let out = rig.hear(replica(3), decided(id(1), Abort, None));
    assert_eq!(out.save, [finished_record(1, Abort)]);
    let told = finish(id(1), branch("a", 1), Abort);
    assert_eq!(rig.hear(a(), vote(1, Prepared)), sends([(a(), told)]));
}

#[test]
fn it_lists_what_might_be_a_commit_in_pages() {
    let mut records = vec![
        promise_record(1, ballot(1, 3)),
        finished_record(2, Commit),
        accept_record(3, ballot(1, 3), Abort),
        committed_record(4),
    ];
    records.extend(both_votes(5));
    let mut rig = closed(2, records);
    let mut ids = [id(3), id(4), id(5)];
    ids.sort_unstable();
    let out = rig.hear(replica(1), freeze(1));
    assert_eq!(out.send, [(replica(1), frozen(1, &ids, false))]);
    let later = Message::Freeze {
        generation: 1,
        after: Some(ids[0]),
    };
    let answer = Message::Frozen {
        generation: 1,
        after: Some(ids[0]),
        ids: ids[1..].to_vec(),
        more: false,
    };
    assert_eq!(rig.hear(replica(1), later), sends([(replica(1), answer)]));
    // A cursor beyond the generation is nobody's, and does no harm.
    let beyond = Message::Freeze {
        generation: 1,
        after: Some(Generations::last_id(2)),
    };
    assert_eq!(rig.hear(replica(1), beyond).send.len(), 1);
}

#[test]
fn a_page_has_a_limit() {
    let config = config(2, 3);
    let count = BATCH_MAX as u32 + 1;
    let votes = (0..count).map(|n| vote_record(n, 0, Prepared, Some(ab())));
    let mut records: Vec<Record> = votes.collect();
    records.extend(chosen_all(&third()));
    let mut rig = Rig::with(config, records);
    let out = rig.hear(replica(1), freeze(1));
    let Some((_, Message::Frozen { ids, more, .. })) = out.send.first() else {
        panic!("{out:?}");
    };
    assert_eq!((ids.len(), *more), (BATCH_MAX, true));
    let too_many = vec![id(1); BATCH_MAX + 1];
    let refused = rejected(replica(1), Rejection::TooLong);
    assert_eq!(rig.hear(replica(1), collect(&too_many)), refused);
    let listed = frozen(1, &too_many, false);
    assert_eq!(rig.hear(replica(1), listed), refused);
    let held = vec![holds(report(id(1)), None); BATCH_MAX + 1];
    assert_eq!(rig.hear(replica(1), collected(held)), refused);
}

#[test]
fn it_tells_what_it_holds_of_each_and_freezes_for_that_too() {
    let mut records = vec![
        vote_record(1, 0, ReadOnly, Some(ab())),
        finished_record(2, Abort),
        finished_record(3, Commit),
        committed_record(4),
    ];
    records.extend(both_votes(5));
    let mut rig = closed(2, records);
    let out = rig.hear(replica(1), collect(&[1, 2, 3, 4, 5, 6].map(id)));
    let roster = || Some(ab());
    let told = [
        holds(
            Report {
                held: set(&[0]),
                read_only: set(&[0]),
                roster: roster(),
                ..report(id(1))
            },
            None,
        ),
        holds(report(id(2)), Some((Abort, Waits::None))),
        holds(report(id(3)), Some((Commit, Waits::None))),
        holds(
            Report {
                roster: roster(),
                ..report(id(4))
            },
            Some((Commit, Waits::Some)),
        ),
        holds(
            Report {
                accepted: Some((Ballot::ZERO, Commit)),
                held: set(&[0, 1]),
                roster: roster(),
                ..report(id(5))
            },
            None,
        ),
        holds(report(id(6)), None),
    ];
    assert_eq!(out, effects([FROZEN], [(replica(1), collected(told))]));
}

#[test]
fn who_has_not_seen_it_closed_asks_for_the_log_first() {
    let mut rig = knowing(2, &[open(2, &[1, 2, 3])], []);
    let asks = sends([(replica(1), fetch(1))]);
    assert_eq!(rig.hear(replica(1), freeze(1)), asks);
    assert_eq!(rig.hear(replica(1), freeze(u32::MAX)), asks);
    assert_eq!(rig.hear(replica(1), collect(&[id(1)])), asks);
    assert_eq!(rig.restart().disk.len(), 1, "nothing was frozen");
}

#[test]
fn who_has_seen_it_settled_tells_the_leader() {
    let [second, third] = third();
    let entries = [second, third, settle(&[7])];
    let mut rig = knowing(2, &entries, []);
    let told = sends([(replica(1), state(&entries, [listed(7)]))]);
    assert_eq!(rig.hear(replica(1), freeze(1)), told);
    assert_eq!(rig.hear(replica(1), collect(&[id(1)])), told);
    // A part is settled, which the leader has not learned.
    let [second, third] = super::third();
    let entries = [second, third, settle_through(id(7), &[7])];
    let mut rig = knowing(2, &entries, []);
    let out = rig.hear(replica(1), collect(&[id(7), id(8)]));
    let told = (replica(1), state(&entries, [listed(7)]));
    assert_eq!(out, effects([FROZEN], [told]));
}

#[test]
fn only_those_who_decide_a_generation_freeze_it() {
    let entries = [
        open(2, &[2, 3, 4]),
        open(3, &[2, 3, 4]),
        open(4, &[2, 3, 4]),
    ];
    let mut rig = knowing(1, &entries, []);
    let refused = rejected(replica(2), Rejection::NotItsGeneration);
    assert_eq!(rig.hear(replica(2), freeze(2)), refused);
    let mut rig = closed(1, []);
    let refused = rejected(replica(9), Rejection::NotFromSuchAPeer);
    assert_eq!(rig.hear(replica(9), freeze(1)), refused);
}

#[test]
fn a_page_may_be_full() {
    let ids: Vec<CommitId> = (0..BATCH_MAX as u32).map(id).collect();
    let mut rig = closed(2, []);
    assert_eq!(rig.hear(replica(1), collect(&ids)).send.len(), 1);
    let held: Vec<Frozen> = ids.iter().map(|id| holds(report(*id), None)).collect();
    assert_eq!(rig.hear(replica(1), collected(held)), nothing());
    let mut rig = leading([]);
    rig.wait();
    assert_eq!(rig.hear(replica(3), frozen(1, &ids, false)), nothing());
    let asks = sends(to(all(), collect(&ids)));
    assert_eq!(rig.hear(replica(2), frozen(1, &ids, false)), asks);
}
