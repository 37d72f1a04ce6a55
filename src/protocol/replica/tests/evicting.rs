//! What is finished leaves the memory, and is recalled before a step that consults it.

use super::control::{
    both_votes, chosen_all, collect, collected, expired, fetch, freeze, frozen, generations, holds,
    leading, learn, listed, log, settle, settle_through, state, third,
};
use super::*;
use crate::protocol::message::Waits;
use crate::protocol::paxos::log::LogMessage;
use crate::protocol::replica::{Lookup, ReplicaCommand, Stored};
use crate::protocol::types::{Entry, Generations};

/// 1 is committed and applied, 2 aborted by a ballot, 3 by a vote, 4 waits for a branch, 5 lacks a
/// vote.
fn history() -> Vec<Record> {
    let mut records = both_votes(1).to_vec();
    records.extend([
        finished_record(1, Commit),
        vote_record(2, 0, Prepared, Some(ab())),
        finished_record(2, Abort),
        vote_record(3, 0, Prepared, Some(ab())),
        vote_record(3, 1, Aborted, None),
        committed_record(4),
        vote_record(5, 0, Prepared, Some(ab())),
    ]);
    records
}

/// Replica 2 of three with all of that in memory, and what its store keeps.
fn whole(entries: &[Entry]) -> (Rig, Records) {
    let mut records = history();
    records.extend(chosen_all(entries));
    let rig = Rig::with(config(2, 3), records);
    let mut store = Records::new(rig.config.genesis.clone());
    for record in &rig.disk {
        store.apply(record.clone());
    }
    (rig, store)
}

impl Rig {
    fn command(&mut self, command: ReplicaCommand) {
        assert_eq!(self.step(Input::Command(command)), nothing());
    }

    fn evict(&mut self) {
        let finished = self.replica.finished().copied().collect();
        self.command(ReplicaCommand::Evict(finished));
    }

    /// As a shell does it: recall what the message needs, and take it. Says what was asked for.
    fn hear_recalling(
        &mut self,
        store: &Records,
        from: Peer,
        message: Message,
    ) -> (Vec<Lookup>, Effects<Replica>) {
        let unknown = self.replica.unknown(&message);
        let found = unknown.iter().flat_map(|lookup| store.look_up(*lookup));
        let found: Vec<Record> = found.collect();
        if !found.is_empty() {
            self.command(ReplicaCommand::Recall(found));
        }
        (unknown, self.hear(from, message))
    }
}

fn instances(sequences: &[u32]) -> Vec<Lookup> {
    let sequences = sequences.iter().copied();
    sequences.map(|n| Lookup::Instance(id(n))).collect()
}

#[test]
fn only_what_is_finished_is_evicted() {
    let (mut rig, _) = whole(&[]);
    assert_eq!(rig.replica.remembered(), 5);
    assert_eq!(
        rig.replica.finished().collect::<Vec<_>>(),
        [&id(1), &id(2), &id(3)]
    );
    let all = (1..=9).map(id).collect();
    rig.command(ReplicaCommand::Evict(all));
    assert_eq!(rig.replica.remembered(), 2);
    assert_eq!(rig.replica.unapplied().collect::<Vec<_>>(), [&id(4)]);
    assert_eq!(rig.replica.undecided().collect::<Vec<_>>(), [&id(5)]);
    assert_eq!(rig.replica.stored(), &[txn(3)].into_iter().collect());
}

/// The heart of it: to evict, and to recall what each message needs, is to keep everything. Each
/// kind of message meets each kind of finished transaction.
#[test]
fn every_message_meets_what_it_would_have_met() {
    let high = ballot(9, 3);
    let closed = third();
    let cases = [1, 2, 3].map(|n| [(n, &[][..]), (n, &closed[..])]);
    for (n, entries) in cases.into_iter().flatten() {
        let id = id(n);
        let accepted = log(LogMessage::Accepted {
            slot: 2,
            ballot: high,
        });
        let settling = learn(2, settle(&[1]));
        let page = {
            let [second, third] = third();
            state(&[second, third, settle(&[1])], [listed(1)])
        };
        let needing: Vec<(Peer, Message)> = vec![
            (initiator(), begun(n)),
            (b(), vote(n, Prepared)),
            (b(), vote(n, ReadOnly)),
            (a(), applied(id, branch("a", 1))),
            (a(), ask(id, Some(branch("a", 1)), Voter::Gone)),
            (initiator(), ask(id, None, Voter::Unknown)),
            (operator(), ask(id, None, Voter::Unknown)),
            (operator(), Message::ForceAbort { id }),
            (operator(), Message::Release { id }),
            (replica(3), phase1a(high, &[id])),
            (replica(3), phase1b(ballot(9, 2), [report(id)])),
            (replica(3), phase2a(high, [decision(id, Abort, None)])),
            (replica(3), phase2b(id, Ballot::ZERO, Commit)),
            (replica(3), phase2b(id, ballot(9, 2), Abort)),
            (replica(3), nack(ballot(9, 2), [(id, high)])),
            (replica(3), decided(id, Commit, None)),
            (replica(3), decided(id, Commit, Some(whom(&[])))),
            (replica(3), decided(id, Abort, None)),
            (replica(3), expired(n, None)),
            (replica(3), collect(&[id])),
        ];
        let txn_wide = vec![
            (initiator(), Message::Inquire { txn: id.txn }),
            (operator(), Message::Inquire { txn: id.txn }),
        ];
        let mut needing_nothing = vec![
            (replica(3), freeze(1)),
            (replica(3), frozen(1, &[id], false)),
            (replica(3), collected([])),
            (replica(3), fetch(0)),
            (replica(3), accepted),
            (
                replica(3),
                log(LogMessage::Lead {
                    slot: 2,
                    ballot: high,
                }),
            ),
        ];
        // A list names commits alone.
        let mut listing = vec![(replica(3), settling), (replica(3), page)];
        if n != 1 {
            needing_nothing.append(&mut listing.split_off(0));
        }
        let expected = needing
            .into_iter()
            .chain(listing)
            .map(|heard| (heard, instances(&[n])))
            .chain(
                txn_wide
                    .into_iter()
                    .map(|heard| (heard, vec![Lookup::Transaction(id.txn)])),
            )
            .chain(needing_nothing.into_iter().map(|heard| (heard, vec![])));
        for ((from, message), expected) in expected {
            let (mut kept, store) = whole(entries);
            let (mut evicted, _) = whole(entries);
            if n != 1 {
                // The lists of this test are about 1.
                let finished = [2, 3].map(super::id).to_vec();
                evicted.command(ReplicaCommand::Evict(finished));
            } else {
                evicted.evict();
            }
            assert_eq!(evicted.outcome(n), None);
            let what = format!("{message:?}");
            assert_eq!(
                kept.replica.unknown(&message),
                instances(&[]),
                "all is in memory: {what}"
            );
            let effects = kept.hear(from.clone(), message.clone());
            let (asked, same) = evicted.hear_recalling(&store, from, message);
            assert_eq!(asked, expected, "{what}");
            assert_eq!(effects, same, "{what}");
            // And so they stay, as far as anybody can tell.
            kept.evict();
            evicted.evict();
            assert_eq!(kept.replica.commit, evicted.replica.commit, "{what}");
        }
    }
}

/// The list stands in its own memory, and the acceptance that gets it chosen does not bring it.
#[test]
fn a_leader_recalls_what_its_own_settle_lists() {
    let mut rig = leading(history());
    let mut store = Records::new(rig.config.genesis.clone());
    for record in &rig.disk {
        store.apply(record.clone());
    }
    rig.evict();
    for _ in 0..4 {
        rig.tick();
    }
    rig.hear(replica(2), frozen(1, &[id(1)], false));
    rig.hear(replica(3), frozen(1, &[], false));
    // Replica 2 has not heard that all branches have applied it.
    let waits = Report {
        roster: Some(ab()),
        ..report(id(1))
    };
    let waits = holds(waits, Some((Commit, Waits::Some)));
    rig.hear(replica(2), collected([waits]));
    let (slot, ballot) = (2, ballot(1, 1));
    let accepted = log(LogMessage::Accepted { slot, ballot });
    for from in [2, 3] {
        let (asked, _) = rig.hear_recalling(&store, replica(from), accepted.clone());
        assert_eq!(asked, instances(&[1]), "it may be the last");
        rig.evict();
    }
    assert_eq!(rig.replica.generations().oldest(), 2, "it was chosen");
    let id = id(1);
    assert_eq!(rig.replica.listed().collect::<Vec<_>>(), [&id]);
    let generations = rig.replica.generations();
    let applied = rig.replica.commit.listed_and_applied(generations);
    assert_eq!(applied.collect::<Vec<_>>(), [&id], "as it knows");
}

#[test]
fn an_id_above_the_mark_needs_no_look_at_the_disk() {
    let (mut rig, _) = whole(&[]);
    rig.evict();
    assert_eq!(rig.replica.unknown(&vote(9, Prepared)), instances(&[]));
    assert_eq!(rig.replica.unknown(&vote(3, Prepared)), instances(&[3]));
    assert_eq!(
        rig.replica.unknown(&vote(5, Prepared)),
        instances(&[]),
        "in memory"
    );
    let others = TxnId {
        initiator: InitiatorId::from_u128(8),
        ..txn(1)
    };
    let other = CommitId::new(others, &ab());
    assert_eq!(
        rig.replica.unknown(&cast(other, ab(), Prepared)),
        instances(&[])
    );
}

#[test]
fn of_a_batch_only_those_are_looked_up_that_are_not_in_memory() {
    let (mut rig, _) = whole(&[]);
    rig.evict();
    let batch: Vec<CommitId> = (1..=9).map(id).collect();
    let asked = rig.replica.unknown(&phase1a(ballot(9, 3), &batch));
    assert_eq!(asked, instances(&[1, 2, 3]));
}

#[test]
fn what_is_settled_is_not_looked_up_and_its_marks_go() {
    let (mut rig, _) = whole(&third());
    rig.evict();
    assert_eq!(rig.replica.stored().len(), 1);
    rig.hear(replica(3), learn(2, settle(&[4])));
    assert!(rig.replica.stored().is_empty());
    assert_eq!(rig.replica.unknown(&vote(1, Prepared)), instances(&[]));
    let late: Stored = [txn(3)].into_iter().collect();
    rig.command(ReplicaCommand::Stored(late));
    assert!(rig.replica.stored().is_empty());
    rig.command(ReplicaCommand::Recall(vec![finished_record(2, Abort)]));
    assert_eq!(rig.outcome(2), None, "it is settled");
}

#[test]
fn a_generation_that_is_settled_in_part_keeps_its_marks() {
    let (mut rig, store) = whole(&third());
    rig.evict();
    let part = settle_through(id(1), &[]);
    rig.hear(replica(3), learn(2, part));
    for (n, expected) in [(1, &[][..]), (2, &[2]), (3, &[3])] {
        let asked = rig.replica.unknown(&vote(n, Prepared));
        assert_eq!(asked, instances(expected));
    }
    let (_, out) = rig.hear_recalling(&store, a(), vote(2, Prepared));
    assert_eq!(out, sends([(a(), finish(id(2), branch("a", 1), Abort))]));
}

/// What was recalled for an earlier page may have been evicted when the last one comes.
#[test]
fn the_last_page_of_a_state_recalls_what_all_pages_list() {
    let [second, third_entry] = third();
    let generations = generations(&[second, third_entry, settle(&[1, 4])]);
    let page = |after, listed, more| Message::State {
        generations: generations.clone(),
        after,
        listed,
        more,
        stores: Box::default(),
    };
    let (mut rig, store) = whole(&third());
    rig.evict();
    let first = page(None, vec![listed(1)], true);
    let (asked, _) = rig.hear_recalling(&store, replica(3), first);
    assert_eq!(asked, instances(&[]), "it is only kept");
    let last = page(Some(id(1)), vec![listed(4)], false);
    let (asked, _) = rig.hear_recalling(&store, replica(3), last);
    assert_eq!(asked, instances(&[1]));
    assert_eq!(rig.replica.listed().collect::<Vec<_>>(), [&id(1), &id(4)]);
}

#[test]
fn to_recall_is_to_recover() {
    let (all, store) = whole(&third());
    let mut rig = Rig::with(config(2, 3), store.unfinished().collect());
    assert_eq!(rig.replica.remembered(), 2);
    rig.command(ReplicaCommand::Recall(store.finished().collect()));
    assert_eq!(rig.replica, all.replica);
    // Nothing changes when it comes twice, or when it is about what goes on in memory.
    rig.command(ReplicaCommand::Recall(store.iter().collect()));
    assert_eq!(rig.replica, all.replica);
    rig.command(ReplicaCommand::Recall(vec![finished_record(5, Abort)]));
    assert_eq!(rig.replica, all.replica);
}

/// A store may take an instance for finished that is not; it is what it would be after a restart.
#[test]
fn what_is_recalled_may_be_under_way() {
    let (all, store) = whole(&[]);
    let (other, under_way): (Vec<Record>, Vec<Record>) = store
        .iter()
        .partition(|record| record.id().is_none_or(|of| *of != id(5)));
    let mut rig = Rig::with(config(2, 3), other);
    assert_eq!(rig.replica.undecided().count(), 0);
    rig.command(ReplicaCommand::Recall(under_way));
    assert_eq!(rig.replica.undecided().collect::<Vec<_>>(), [&id(5)]);
    assert_eq!(rig.replica.commit, all.replica.commit);
}

#[test]
fn at_start_a_replica_is_told_what_the_store_holds_besides() {
    let (_, store) = whole(&[]);
    let mut rig = Rig::with(config(2, 3), store.unfinished().collect());
    rig.command(ReplicaCommand::Stored(store.stored()));
    assert_eq!(rig.replica.stored(), &[txn(3)].into_iter().collect());
    let (asked, out) = rig.hear_recalling(&store, b(), vote(2, Prepared));
    assert_eq!(asked, instances(&[2]));
    assert_eq!(out, sends([(b(), finish(id(2), branch("b", 1), Abort))]));
}

#[test]
fn marks_are_those_of_one_initiator_in_one_generation_and_never_go_down() {
    let of = |generation, initiator, sequence| TxnId {
        generation,
        initiator: InitiatorId::from_u128(initiator),
        sequence,
        nonce: 9,
    };
    let mut stored: Stored = [of(1, 7, 5), of(1, 7, 3), of(2, 7, 1)]
        .into_iter()
        .collect();
    assert_eq!(stored.len(), 2);
    assert!(stored.may_hold(of(1, 7, 5)) && stored.may_hold(of(1, 7, 0)));
    assert!(!stored.may_hold(of(1, 7, 6)));
    assert!(stored.may_hold(of(2, 7, 1)) && !stored.may_hold(of(2, 7, 2)));
    assert!(!stored.may_hold(of(1, 8, 0)) && !stored.may_hold(of(3, 7, 0)));
    stored.merge([of(1, 7, 4), of(2, 7, 8)].into_iter().collect());
    assert!(stored.may_hold(of(1, 7, 5)) && stored.may_hold(of(2, 7, 8)));
    stored.forget_settled(&Generations::default());
    assert_eq!(stored.len(), 2);
}

#[test]
fn what_was_taken_on_counts_although_it_is_evicted() {
    let config = ReplicaConfig {
        generation_transactions_max: 2,
        ..config(1, 1)
    };
    let mut rig = Rig::with(config, Vec::new());
    for sequence in 1..=2 {
        rig.hear(initiator(), Message::BeginCommit(begin(id(sequence), ab())));
        rig.hear(a(), vote(sequence, Aborted));
        rig.evict();
    }
    assert_eq!(
        (rig.replica.remembered(), rig.replica.commit.begun()),
        (0, 2)
    );
}
