//! What a replica that was away takes over, and what it tells those who were.

use super::*;
use crate::protocol::types::LIST_MAX;

fn with_fourth() -> Vec<Entry> {
    let [second, third] = third();
    vec![second, third, settle(&[1]), open(4, &[1, 2, 3])]
}

#[test]
fn who_is_behind_is_sent_the_state() {
    let mut rig = knowing(1, &with_fourth(), []);
    let told = sends([(replica(2), state(&with_fourth(), [listed(1)]))]);
    assert_eq!(rig.hear(replica(2), fetch(0)), told);
    assert_eq!(rig.hear(replica(2), fetch(3)), told);
    assert_eq!(rig.hear(replica(2), fetch(4)), nothing());
    let ballot = ballot(1, 2);
    let prepare = log(LogMessage::Prepare { slot: 1, ballot });
    assert_eq!(rig.hear(replica(2), prepare), told);
    let asks_back = sends([(replica(2), fetch(4))]);
    assert_eq!(rig.hear(replica(2), fetch(9)), asks_back);
    let lead = log(LogMessage::Lead { slot: 5, ballot });
    assert_eq!(rig.hear(replica(2), lead), asks_back);
}

#[test]
fn an_operator_is_sent_the_list() {
    let mut rig = knowing(1, &with_fourth(), []);
    let told = sends([(operator(), state(&with_fourth(), [listed(1)]))]);
    assert_eq!(rig.hear(operator(), fetch(9)), told);
    let refused = rejected(a(), Rejection::NotFromSuchAPeer);
    assert_eq!(rig.hear(a(), fetch(0)), refused);
}

/// A replica that was away: it holds something of generation 1, and has learned nothing.
fn away() -> Rig {
    let records = [
        vote_record(1, 0, Prepared, Some(ab())),
        vote_record(2, 0, Prepared, Some(ab())),
        finished_record(3, Commit),
    ];
    Rig::with(config(2, 3), records.to_vec())
}

fn taken_over(listed: impl Into<Vec<Listed>>) -> Record {
    Record::State {
        generations: generations(&with_fourth()),
        listed: listed.into(),
        stores: Default::default(),
    }
}

#[test]
fn horizon_and_list_are_taken_over_in_one_record() {
    let mut rig = away();
    rig.hear(a(), ask(id(2), Some(branch("a", 1)), Voter::Unknown));
    let out = rig.hear(replica(1), state(&with_fourth(), [listed(1)]));
    let told = [(a(), expired(2, Some(branch("a", 1))))];
    assert_eq!(out, effects([taken_over([listed(1)])], told));
    assert_eq!(rig.replica.listed().collect::<Vec<_>>(), [&id(1)]);
    assert_eq!(
        (rig.replica.remembered(), rig.replica.undecided().count()),
        (1, 0)
    );
    assert_eq!(rig.replica.generations().latest(), 4);
    let mut rig = rig.restart();
    assert_eq!(rig.replica.remembered(), 1);
    // The log goes on from there.
    let entry = open(5, &[1, 2, 3]);
    let out = rig.hear(replica(1), learn(4, entry.clone()));
    assert_eq!(out, saves([chosen(4, entry)]));
}

#[test]
fn nothing_older_is_taken_over() {
    let mut rig = knowing(1, &with_fourth(), []);
    let [second, third] = third();
    let old = state(&[second, third], []);
    assert_eq!(rig.hear(replica(2), old), nothing());
    let same = state(&with_fourth(), []);
    assert_eq!(rig.hear(replica(2), same), nothing());
    assert_eq!(rig.replica.listed().count(), 1);
}

/// What a replica has heard from branches does not shorten its list: only the log does.
#[test]
fn the_list_is_that_of_the_log() {
    let mut rig = knowing(1, &with_fourth(), [finished_record(1, Commit)]);
    assert_eq!(rig.replica.remembered(), 1);
    let mut entries = with_fourth();
    entries.push(open(5, &[1, 2, 3]));
    rig.hear(replica(2), state(&entries, [listed(1)]));
    assert_eq!(rig.replica.remembered(), 1);
    assert_eq!(rig.restart().replica.remembered(), 1);
}

#[test]
fn what_another_one_no_longer_lists_is_dropped() {
    let mut rig = knowing(1, &with_fourth(), []);
    assert_eq!(rig.replica.remembered(), 1);
    let mut entries = with_fourth();
    entries.push(open(5, &[1, 2, 3]));
    rig.hear(replica(2), state(&entries, []));
    assert_eq!(rig.replica.remembered(), 0);
    assert_eq!(rig.restart().replica.remembered(), 0);
}

/// One page of a state.
fn page(after: Option<u32>, sequences: &[u32], more: bool) -> Message {
    Message::State {
        generations: generations(&with_fourth()),
        after: after.map(id),
        listed: sequences.iter().copied().map(listed).collect(),
        more,
        stores: Box::default(),
    }
}

#[test]
fn pages_are_taken_over_together_or_not_at_all() {
    let mut rig = away();
    let next = |after| Message::Fetch {
        slot: 0,
        after: Some(id(after)),
        after_name: None,
    };
    let out = rig.hear(replica(1), page(None, &[1, 4], true));
    assert_eq!(out, sends([(replica(1), next(4))]));
    // A page of somebody else, or out of order, or twice.
    assert_eq!(rig.hear(replica(3), page(Some(4), &[5], false)), nothing());
    assert_eq!(rig.hear(replica(1), page(Some(5), &[6], false)), nothing());
    let out = rig.hear(replica(1), page(Some(4), &[5, 6], true));
    assert_eq!(out, sends([(replica(1), next(6))]));
    assert_eq!(
        rig.hear(replica(1), page(Some(4), &[5, 6], true)),
        nothing()
    );
    assert_eq!(rig.replica.generations().slot(), 0, "nothing counts yet");
    let out = rig.hear(replica(1), page(Some(6), &[7], false));
    assert_eq!(out, saves([taken_over([1, 4, 5, 6, 7].map(listed))]));
    // The first page begins anew.
    let mut rig = away();
    rig.hear(replica(1), page(None, &[1, 4], true));
    let out = rig.hear(replica(3), page(None, &[4], false));
    assert_eq!(out, saves([taken_over([listed(4)])]));
}

#[test]
fn a_long_list_is_sent_in_pages() {
    let sequences: Vec<u32> = (0..LIST_MAX as u32 + 1).collect();
    let entries: Vec<Entry> = {
        let [second, third] = third();
        vec![second, third, settle(&sequences)]
    };
    let mut rig = knowing(1, &entries, []);
    let last = sequences.len() as u32 - 2;
    let out = rig.hear(replica(2), fetch(0));
    let Some((_, Message::State { listed, more, .. })) = out.send.first() else {
        panic!("{out:?}");
    };
    let end = listed.last().map(|listed| listed.id);
    assert_eq!(
        (listed.len(), *more, end),
        (sequences.len() - 1, true, Some(id(last)))
    );
    let after = Some(id(last));
    let out = rig.hear(
        replica(2),
        Message::Fetch {
            slot: 0,
            after,
            after_name: None,
        },
    );
    let rest = Message::State {
        generations: generations(&entries),
        after,
        listed: vec![super::listed(last + 1)],
        more: false,
        stores: Box::default(),
    };
    assert_eq!(out, sends([(replica(2), rest)]));
    let too_long = state(
        &entries,
        sequences.into_iter().map(super::listed).collect::<Vec<_>>(),
    );
    let refused = rejected(replica(1), Rejection::TooLong);
    assert_eq!(away().hear(replica(1), too_long), refused);
}

#[test]
fn a_replica_that_joins_asks_whoever_speaks_of_the_log() {
    let mut rig = joining();
    rig.connect(a());
    let entry = open(2, &[2, 3, 4]);
    let out = rig.hear(replica(1), learn(0, entry.clone()));
    assert_eq!(out, sends([(replica(1), fetch(0))]));
    let out = rig.hear(replica(1), state(std::slice::from_ref(&entry), []));
    let generations = generations(std::slice::from_ref(&entry));
    let save = Record::State {
        generations: generations.clone(),
        listed: Vec::new(),
        stores: Default::default(),
    };
    let told = Message::Announce(generations);
    assert_eq!(out, effects([save], [(a(), told)]));
    // From now on it is one of those who decide the log.
    let ballot = ballot(1, 2);
    let out = rig.hear(replica(2), log(LogMessage::Prepare { slot: 1, ballot }));
    assert_eq!(out.save, [Record::Log(LogRecord::Promise { ballot })]);
}

#[test]
fn who_is_no_longer_in_force_asks_for_news_until_it_is_not_needed() {
    let entries = [open(2, &[2, 3, 4])];
    let mut rig = knowing(1, &entries, []);
    rig.config.log.silence_ticks = 3;
    let config = rig.config.clone();
    let mut rig = Rig::with(config, rig.disk);
    let asks = || sends(to([2, 3, 4].map(replica), fetch(1)));
    assert_eq!(rig.wait(), (1, asks()));
    assert_eq!(rig.wait(), (3, asks()));
    let mut gone = entries.to_vec();
    gone.extend([open(3, &[2, 3, 4]), settle(&[])]);
    let out = rig.hear(replica(2), state(&gone, []));
    assert_eq!(out.notify, [ReplicaNotice::Removed]);
    assert!(rig.replica.is_removed());
    rig.wait_quietly(20);
}

#[test]
#[should_panic(expected = "and not slot 1")]
fn a_store_that_lost_an_entry_of_the_log_must_not_serve() {
    Rig::with(
        config(1, 3),
        vec![chosen(0, open(2, &[1, 2, 3])), chosen(2, settle(&[]))],
    );
}

#[test]
fn a_state_stands_for_all_entries_before_it() {
    let records = [
        chosen(0, open(2, &[1, 2, 3])),
        taken_over([listed(1)]),
        chosen(4, open(5, &[1, 2, 3])),
        Record::Frozen { generation: 1 },
        Record::Frozen { generation: 2 },
    ];
    let mut rig = Rig::with(config(1, 3), records.to_vec());
    assert_eq!(rig.replica.generations().latest(), 5);
    let mut records = records.to_vec();
    records.reverse();
    assert_eq!(rig.replica, Rig::with(config(1, 3), records).replica);
    let out = rig.hear(replica(2), freeze(2));
    assert_eq!(out.save, [], "it was frozen before");
}

#[test]
fn a_list_under_way_goes_on_and_begins_anew_only_with_newer_generations() {
    let mut rig = away();
    rig.hear(replica(1), page(None, &[1, 4], true));
    let lives = |from: u32| {
        let ballot = ballot(1, from);
        log(LogMessage::Lead { slot: 4, ballot })
    };
    let next = Message::Fetch {
        slot: 0,
        after: Some(id(4)),
        after_name: None,
    };
    assert_eq!(rig.hear(replica(1), lives(1)), sends([(replica(1), next)]));
    let anew = sends([(replica(3), fetch(0))]);
    assert_eq!(rig.hear(replica(3), lives(3)), anew, "of another one");
    let mut entries = with_fourth();
    entries.push(open(5, &[1, 2, 3]));
    let newer = Message::State {
        generations: generations(&entries),
        after: Some(id(4)),
        listed: vec![listed(5)],
        more: false,
        stores: Box::default(),
    };
    let anew = sends([(replica(1), fetch(0))]);
    assert_eq!(rig.hear(replica(1), newer), anew);
}

#[test]
fn a_state_without_generations_is_none() {
    let mut rig = Rig::new(1);
    let nothing_at_all = Message::State {
        generations: Generations::default(),
        after: None,
        listed: Vec::new(),
        more: false,
        stores: Box::default(),
    };
    let refused = rejected(replica(2), Rejection::DoesNotFollow);
    assert_eq!(rig.hear(replica(2), nothing_at_all), refused);
}

#[test]
fn a_generation_that_does_not_follow_is_refused() {
    let mut rig = Rig::new(1);
    let refused = rejected(replica(2), Rejection::DoesNotFollow);
    for generation in [0, 1, 3, u32::MAX] {
        let entry = open(generation, &[2]);
        assert_eq!(rig.hear(replica(2), learn(0, entry.clone())), refused);
        let ballot = ballot(1, 2);
        let accept = log(LogMessage::Accept {
            slot: 0,
            ballot,
            entry,
        });
        assert_eq!(rig.hear(replica(2), accept), refused);
    }
}

#[test]
fn a_page_that_is_just_full_is_the_last() {
    let sequences: Vec<u32> = (0..LIST_MAX as u32).collect();
    let [second, third] = third();
    let entries = [second, third, settle(&sequences)];
    let mut rig = knowing(1, &entries, []);
    let full: Vec<Listed> = sequences.into_iter().map(listed).collect();
    let told = state(&entries, full);
    assert_eq!(
        rig.hear(replica(2), fetch(0)),
        sends([(replica(2), told.clone())])
    );
    let mut rig = Rig::new(2);
    rig.hear(replica(1), told);
    assert_eq!(
        rig.replica.listed().count(),
        LIST_MAX,
        "as long as a page may be"
    );
}

#[test]
fn what_is_news_in_a_list_is_taken_over() {
    let mut rig = away();
    rig.hear(replica(1), state(&with_fourth(), [listed(1), listed(9)]));
    let known: Vec<CommitId> = rig.replica.listed().copied().collect();
    assert_eq!(
        known,
        [id(1), id(9)],
        "one that it holds a vote of, one unheard of"
    );
    let mut entries = with_fourth();
    entries.push(open(5, &[1, 2, 3]));
    rig.hear(replica(1), state(&entries, [listed(1), listed(9)]));
    assert_eq!(rig.replica.listed().count(), 2, "and stays");
}

#[test]
fn ages_begin_anew_with_what_a_state_brings() {
    let aged = |rig: &mut Rig| {
        for _ in 0..5 {
            rig.tick();
        }
        rig.replica.control.ages()
    };
    let ages = |rig: &Rig| rig.replica.control.ages();
    // A new generation, and by it the first one is closed.
    let mut rig = knowing(1, &third()[..1], []);
    assert_eq!(aged(&mut rig), (5, 5));
    rig.hear(replica(2), state(&third(), []));
    assert_eq!(ages(&rig), (0, 0));
    // A part is settled: neither the latest nor the oldest has changed.
    assert_eq!(aged(&mut rig), (5, 5));
    let [second, third] = third();
    let part = [second, third, settle_through(id(7), &[])];
    rig.hear(replica(2), state(&part, []));
    assert_eq!(ages(&rig), (5, 5));
}
