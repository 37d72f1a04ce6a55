//! The leader settles a closed generation; everyone forgets it.

use super::*;

/// The leader asks at its next tick, or when grace has passed.
pub(super) fn asked(rig: &mut Rig) -> Vec<(Peer, Message)> {
    let (_, out) = rig.wait();
    assert_eq!(out.save, []);
    out.send
}

#[test]
fn a_generation_without_anything_is_settled_with_two_round_trips() {
    let mut rig = leading([]);
    assert_eq!(asked(&mut rig), to(all(), freeze(1)));
    assert_eq!(rig.hear(replica(3), frozen(1, &[], false)), nothing());
    let out = rig.hear(replica(2), frozen(1, &[], false));
    assert_eq!(out, sends(proposed(settle(&[]))));
    let out = accepted(&mut rig);
    let news = learn(2, settle(&[]));
    assert_eq!(out, effects([chosen(2, settle(&[]))], to(all(), news)));
    assert_eq!(rig.replica.generations().oldest(), 2);
    rig.wait_quietly(50);
}

#[test]
fn what_is_under_way_gets_its_grace() {
    let mut rig = leading([]);
    // It came before the generation was closed, as far as this replica is concerned.
    rig = {
        let mut records = rig.disk;
        records.push(vote_record(1, 0, Prepared, Some(ab())));
        leading(
            records
                .into_iter()
                .filter(|it| matches!(it, Record::Vote { .. }))
                .collect::<Vec<_>>(),
        )
    };
    let quiet = (0..10).find(|_| rig.tick().send.contains(&(replica(2), freeze(1))));
    assert_eq!(
        quiet,
        Some(1),
        "two ticks more than the one in which it took the lead"
    );
}

#[test]
fn silence_is_asked_again() {
    let mut rig = leading([]);
    assert_eq!(asked(&mut rig), to(all(), freeze(1)));
    rig.hear(replica(3), frozen(1, &[], true));
    assert_eq!(rig.wait(), (4, sends(to([1, 2].map(replica), freeze(1)))));
}

#[test]
fn what_anybody_lists_everybody_is_asked_for() {
    let mut rig = leading([]);
    asked(&mut rig);
    rig.hear(replica(3), frozen(1, &[id(1)], false));
    let out = rig.hear(replica(2), frozen(1, &[id(2)], false));
    let mut ids = [id(1), id(2)];
    ids.sort_unstable();
    assert_eq!(out, sends(to(all(), collect(&ids))));
    assert_eq!(
        rig.wait(),
        (4, sends(to(all(), collect(&ids)))),
        "and again"
    );
    // One abort that is finished settles it; a finished commit waits for nobody.
    let aborted = holds(report(id(1)), Some((Abort, Waits::None)));
    let finished = holds(report(id(2)), Some((Commit, Waits::None)));
    let out = rig.hear(replica(2), collected([aborted, finished]));
    assert_eq!(out, sends(proposed(settle(&[]))));
}

/// What two replicas hold of transaction 1, and whether it is listed.
fn lists(first: Frozen, second: Frozen) -> bool {
    let mut rig = leading([]);
    asked(&mut rig);
    rig.hear(replica(3), frozen(1, &[id(1)], false));
    rig.hear(replica(2), frozen(1, &[], false));
    let out = rig.hear(replica(2), collected([first]));
    assert_eq!(out, nothing(), "one is no majority");
    let out = rig.hear(replica(3), collected([second]));
    let is_listed = out == sends(proposed(settle(&[1])));
    assert!(is_listed || out == sends(proposed(settle(&[]))), "{out:?}");
    is_listed
}

#[test]
fn each_outcome_by_the_rule_of_recovery() {
    let held = |held: &[usize]| Report {
        held: set(held),
        roster: Some(ab()),
        ..report(id(1))
    };
    let accepted = |ballot, outcome| Report {
        accepted: Some((ballot, outcome)),
        ..held(&[])
    };
    let of = |report| holds(report, None);
    assert!(
        lists(of(held(&[0])), of(held(&[1]))),
        "the union is complete"
    );
    assert!(!lists(of(held(&[0])), of(held(&[0]))), "a vote is missing");
    let (low, high) = (ballot(1, 2), ballot(2, 3));
    assert!(lists(of(accepted(low, Abort)), of(accepted(high, Commit))));
    assert!(!lists(of(accepted(high, Abort)), of(accepted(low, Commit))));
    assert!(!lists(of(held(&[])), of(report(id(1)))));
}

#[test]
fn who_knows_the_outcome_is_believed_alone() {
    let mut rig = leading([]);
    asked(&mut rig);
    rig.hear(replica(3), frozen(1, &[id(1)], false));
    rig.hear(replica(2), frozen(1, &[], false));
    let known = Report {
        roster: Some(ab()),
        ..report(id(1))
    };
    let known = holds(known, Some((Commit, Waits::Some)));
    let out = rig.hear(replica(2), collected([known]));
    assert_eq!(out, sends(proposed(settle(&[1]))));
}

#[test]
fn a_commit_that_all_read_waits_for_nobody() {
    let read_only = Report {
        accepted: Some((Ballot::ZERO, Commit)),
        held: set(&[0, 1]),
        read_only: set(&[0, 1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    let of = || holds(read_only.clone(), None);
    assert!(!lists(of(), of()));
}

/// The ids of transactions 1 to 4, in order: digests of one roster, so by sequence.
fn four() -> [CommitId; 4] {
    [1, 2, 3, 4].map(id)
}

#[test]
fn a_part_goes_as_far_as_all_have_listed() {
    let mut rig = leading([]);
    asked(&mut rig);
    let [one, two, three, four] = four();
    rig.hear(replica(3), frozen(1, &[one, three], true));
    let out = rig.hear(replica(2), frozen(1, &[two, four], false));
    // Of replica 3 nothing is known beyond the third.
    assert_eq!(out, sends(to(all(), collect(&[one, two, three]))));
    let aborted = [one, two, three].map(|id| holds(report(id), Some((Abort, Waits::None))));
    let out = rig.hear(replica(2), collected(aborted));
    assert_eq!(out, sends(proposed(settle_through(three, &[]))));
    accepted(&mut rig);
    let next = Message::Freeze {
        generation: 1,
        after: Some(three),
    };
    assert_eq!(rig.wait(), (1, sends(to(all(), next))));
    // An answer to the first question is none to this one.
    assert_eq!(rig.hear(replica(2), frozen(1, &[], false)), nothing());
    assert_eq!(rig.hear(replica(3), frozen(1, &[], false)), nothing());
}

#[test]
fn a_long_list_is_cut() {
    let mut rig = leading([]);
    asked(&mut rig);
    let [one, two, three, _] = four();
    rig.hear(replica(3), frozen(1, &[one, two, three], false));
    rig.hear(replica(2), frozen(1, &[], false));
    let known = [one, two, three].map(|id| {
        let roster = Some(ab());
        let report = Report {
            roster,
            ..report(id)
        };
        holds(report, Some((Commit, Waits::Some)))
    });
    let out = rig.hear(replica(2), collected(known));
    assert_eq!(
        out,
        sends(proposed(settle_through(two, &[1, 2]))),
        "two at a time"
    );
}

#[test]
fn a_settle_found_in_phase_1_is_proposed_unchanged() {
    let mut rig = leading([]);
    // (The rig leads already; this one is asked anew.)
    let found = Some((ballot(0, 9), settle(&[3])));
    let mut other = Rig::with(rig.config.clone(), rig.disk.clone());
    other.tick();
    let ballot = ballot(2, 1);
    let promise = |accepted| {
        log(LogMessage::Promise {
            slot: 2,
            ballot,
            accepted,
        })
    };
    assert_eq!(other.hear(replica(2), promise(None)), nothing());
    let out = other.hear(replica(3), promise(found));
    let accept = log(LogMessage::Accept {
        slot: 2,
        ballot,
        entry: settle(&[3]),
    });
    assert_eq!(out, sends(to(all(), accept)));
    assert!(rig.replica.is_leading());
    rig.wait();
}

#[test]
fn who_leads_no_more_forgets_its_list() {
    let mut rig = leading([]);
    asked(&mut rig);
    let higher = ballot(7, 2);
    let nack = log(LogMessage::Nack {
        slot: 2,
        ballot: ballot(1, 1),
        promised: higher,
    });
    rig.hear(replica(2), nack);
    assert!(!rig.replica.is_leading());
    for from in [2, 3] {
        assert_eq!(rig.hear(replica(from), frozen(1, &[], false)), nothing());
    }
}

#[test]
fn strangers_to_the_generation_are_not_counted() {
    let entries = [open(2, &[1, 3, 4]), open(3, &[1, 3, 4])];
    let mut rig = Rig::with(leading([]).config, chosen_all(&entries));
    let members = [1, 3, 4].map(replica);
    rig.tick();
    for from in [3, 4] {
        rig.hear(replica(from), promise(None));
    }
    let asks = rig.wait().1;
    assert_eq!(asks, sends(to(all(), freeze(1))), "those of generation 1");
    let stranger = rejected(replica(4), Rejection::NotItsGeneration);
    assert_eq!(rig.hear(replica(4), frozen(1, &[], false)), stranger);
    rig.hear(replica(2), frozen(1, &[], false));
    let out = rig.hear(replica(3), frozen(1, &[], false));
    let ballot = ballot(1, 1);
    let accept = log(LogMessage::Accept {
        slot: 2,
        ballot,
        entry: settle(&[]),
    });
    let audience = to([1, 2, 3, 4].map(replica), accept);
    assert_eq!(
        out,
        sends(audience),
        "{members:?} decide, and replica 2 hears of it"
    );
    let stranger = rejected(replica(4), Rejection::NotItsGeneration);
    assert_eq!(rig.hear(replica(4), collected([])), stranger);
}

/// A replica that knows of every kind of transaction.
fn full() -> Vec<Record> {
    let mut records = vec![
        vote_record(1, 0, Prepared, Some(ab())),
        finished_record(2, Commit),
        finished_record(3, Abort),
        committed_record(4),
    ];
    records.extend(both_votes(5));
    records
}

#[test]
fn all_that_is_not_listed_is_dropped_and_the_list_adopted() {
    let mut rig = closed(2, full());
    rig.connect(a());
    assert_eq!(rig.replica.remembered(), 5);
    // 2 is finished here, 5 undecided, 6 unheard of: the list is that of the log.
    let entry = settle(&[2, 5, 6]);
    let out = rig.hear(replica(1), learn(2, entry.clone()));
    let turned = {
        let [second, third] = third();
        Message::Announce(generations(&[second, third, entry.clone()]))
    };
    assert_eq!(out, effects([chosen(2, entry)], [(a(), turned)]));
    let outcomes = [1, 2, 3, 4, 5, 6].map(|sequence| rig.outcome(sequence));
    let commit = Some(Commit);
    assert_eq!(outcomes, [None, commit, None, None, commit, commit]);
    assert_eq!(
        rig.replica.listed().copied().collect::<Vec<_>>(),
        [id(2), id(5), id(6)]
    );
    assert_eq!(
        (rig.replica.remembered(), rig.replica.undecided().count()),
        (3, 0)
    );
    let rig = rig.restart();
    assert_eq!(rig.replica.remembered(), 3);
}

#[test]
fn a_ballot_under_way_ends_with_its_generation() {
    let mut rig = closed(2, [vote_record(1, 0, Prepared, Some(ab()))]);
    let (_, out) = rig.wait();
    assert_eq!(out.send.len(), 3, "a ballot");
    rig.hear(replica(1), learn(2, settle(&[])));
    let held = Report {
        held: set(&[0, 1]),
        roster: Some(ab()),
        ..report(id(1))
    };
    let late = phase1b(ballot(1, 2), [held]);
    assert_eq!(rig.hear(replica(1), late.clone()), nothing());
    assert_eq!(rig.hear(replica(3), late), nothing());
    rig.wait_quietly(50);
}

/// (The leader that made the second list has since lost the slot, and led again: a list made for what
/// is settled already would turn an abort into a commit.)
#[test]
fn a_settle_that_does_not_follow_changes_nothing() {
    let mut rig = closed(2, full());
    rig.hear(replica(1), learn(2, settle(&[5])));
    let out = rig.hear(replica(1), learn(3, settle(&[1])));
    assert_eq!(out, saves([chosen(3, settle(&[1]))]));
    assert_eq!((rig.outcome(1), rig.outcome(5)), (None, Some(Commit)));
    let rig = rig.restart();
    assert_eq!(rig.replica.remembered(), 1);
    let mut rig = knowing(2, &third()[..1], full());
    rig.hear(replica(1), learn(1, settle(&[])));
    assert_eq!(rig.replica.remembered(), 5, "the generation is not closed");
}

#[test]
fn what_is_frozen_waits_for_no_grace() {
    let votes = [vote_record(1, 0, Prepared, Some(ab())), FROZEN];
    let mut rig = leading(votes);
    assert_eq!(rig.wait(), (1, sends(to(all(), freeze(1)))));
}

/// A leader that does not decide the generation sees nothing of what is under way in it.
#[test]
fn who_cannot_see_what_is_under_way_grants_the_whole_grace() {
    let entries = [open(2, &[2, 3, 4]), open(3, &[2, 3, 4])];
    let state = Record::State {
        generations: generations(&entries),
        listed: Vec::new(),
        stores: Default::default(),
    };
    let config = ReplicaConfig {
        id: ReplicaId(4),
        genesis: None,
        grace_ticks: 10,
        ..leading([]).config
    };
    let mut rig = Rig::with(config, vec![state]);
    rig.tick();
    for from in [2, 3] {
        let promise = log(LogMessage::Promise {
            slot: 2,
            ballot: ballot(1, 4),
            accepted: None,
        });
        rig.hear(replica(from), promise);
    }
    assert!(rig.replica.is_leading());
    assert_eq!(
        rig.wait(),
        (9, sends(to(all(), freeze(1)))),
        "one has passed"
    );
}
