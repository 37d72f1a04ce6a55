//! Which generations a replica takes part in, and what it tells those who come with others.

use super::*;

fn not_open(id: CommitId, rig: &Rig) -> Message {
    let generations = rig.replica.generations().clone();
    Message::NotOpen { id, generations }
}

/// An id of another generation.
fn of(generation: u32, sequence: u32) -> CommitId {
    let txn = TxnId {
        generation,
        ..txn(sequence)
    };
    CommitId::new(txn, &ab())
}

#[test]
fn a_closed_generation_takes_nothing_that_is_new() {
    let mut rig = closed(1, []);
    let refused = not_open(id(1), &rig);
    let questions = [
        (a(), vote(1, Prepared)),
        (initiator(), begun(1)),
        (a(), ask(id(1), Some(branch("a", 1)), Voter::Gone)),
        (operator(), Message::ForceAbort { id: id(1) }),
    ];
    for (from, question) in questions {
        let answer = sends([(from.clone(), refused.clone())]);
        assert_eq!(rig.hear(from, question), answer);
    }
    let ballot = ballot(4, 2);
    assert_eq!(rig.hear(replica(2), phase1a(ballot, &[id(1)])), nothing());
    let proposal = decision(id(1), Abort, None);
    assert_eq!(rig.hear(replica(2), phase2a(ballot, [proposal])), nothing());
    assert_eq!(rig.replica.remembered(), 0);
}

#[test]
fn what_is_under_way_in_a_closed_generation_finishes() {
    let mut rig = closed(1, [vote_record(1, 0, Prepared, Some(ab()))]);
    let out = rig.hear(b(), vote(1, Prepared));
    assert_eq!(out.save, [vote_record(1, 1, Prepared, None)]);
    let mut rig = closed(1, [vote_record(1, 0, Prepared, Some(ab()))]);
    let out = rig.hear(replica(2), phase1a(ballot(4, 2), &[id(1)]));
    assert_eq!(out.save, [promise_record(1, ballot(4, 2))]);
}

#[test]
fn the_two_latest_generations_are_open_and_no_later_one_is() {
    let mut rig = closed(1, []);
    for generation in [2, 3] {
        let id = of(generation, 1);
        let out = rig.hear(a(), cast(id, ab(), Prepared));
        assert_eq!(out.save.len(), 1, "generation {generation}");
    }
    let id = of(4, 1);
    let refused = not_open(id, &rig);
    let out = rig.hear(a(), cast(id, ab(), Prepared));
    assert_eq!(out, sends([(a(), refused)]));
}

#[test]
fn a_generation_of_others_is_none_of_its_business() {
    let entries = [open(2, &[2, 3, 4])];
    let mut rig = knowing(1, &entries, []);
    let id = of(2, 1);
    let refused = not_open(id, &rig);
    let out = rig.hear(a(), cast(id, ab(), Prepared));
    assert_eq!(out, sends([(a(), refused)]));
    let out = rig.hear(replica(4), phase1a(ballot(1, 4), &[id]));
    assert_eq!(out, nothing());
    // Nor does a replica that is new take part in an old one.
    let out = rig.hear(replica(4), phase1a(ballot(1, 4), &[super::id(1)]));
    assert_eq!(out, nothing());
    let report = report(super::id(1));
    assert_eq!(
        rig.hear(replica(4), phase1b(ballot(1, 1), [report])),
        nothing()
    );
    let out = rig.hear(replica(4), decided(id, Abort, None));
    assert_eq!(out, nothing(), "what others decided is theirs to remember");
}

#[test]
fn its_first_generation_is_the_one_that_names_it() {
    let mut rig = joining();
    let out = rig.hear(replica(1), state(&[open(2, &[2, 3, 4])], []));
    assert_eq!(out.send, []);
    assert_eq!(rig.replica.generations().latest(), 2);
    let out = rig.hear(a(), vote(1, Prepared));
    assert_eq!(out.save, [], "generation 1 has no such replica");
    let out = rig.hear(a(), cast(of(2, 1), ab(), Prepared));
    assert_eq!(out.save.len(), 1);
}

#[test]
fn a_settled_generation_is_expired() {
    let [second, third] = third();
    let mut rig = knowing(1, &[second, third, settle(&[2])], []);
    let for_a = Some(branch("a", 1));
    let question = ask(id(1), for_a.clone(), Voter::Unknown);
    let told = sends([(a(), expired(1, for_a.clone()))]);
    assert_eq!(rig.hear(a(), question), told);
    assert_eq!(rig.hear(a(), vote(1, Prepared)), told);
    assert_eq!(
        rig.hear(a(), vote(1, ReadOnly)),
        nothing(),
        "it waits for nothing"
    );
    let to_initiator = sends([(initiator(), expired(1, None))]);
    assert_eq!(rig.hear(initiator(), begun(1)), to_initiator);
    let to_operator = sends([(operator(), expired(1, None))]);
    let force = Message::ForceAbort { id: id(1) };
    assert_eq!(rig.hear(operator(), force), to_operator);
    let to_replica = sends([(replica(2), expired(1, None))]);
    let (phase1a, proposal) = (
        phase1a(ballot(4, 2), &[id(1)]),
        decision(id(1), Abort, None),
    );
    assert_eq!(rig.hear(replica(2), phase1a), to_replica);
    let phase2a = phase2a(ballot(4, 2), [proposal]);
    assert_eq!(rig.hear(replica(2), phase2a), to_replica);
    // One that is listed is a commit.
    let question = ask(id(2), for_a.clone(), Voter::Unknown);
    let told = finish(id(2), branch("a", 1), Commit);
    assert_eq!(rig.hear(a(), question), sends([(a(), told)]));
}

#[test]
fn whoever_inquires_hears_that_it_is_forgotten() {
    let [second, third] = third();
    let mut rig = knowing(1, &[second, third, settle(&[2])], []);
    let forgotten = Message::Forgotten { txn: txn(1) };
    let out = rig.hear(initiator(), Message::Inquire { txn: txn(1) });
    assert_eq!(out, sends([(initiator(), forgotten)]));
    let out = rig.hear(initiator(), Message::Inquire { txn: txn(2) });
    let unapplied = ab().iter().cloned().collect();
    let outcome = Commit;
    let state = State::Decided { outcome, unapplied };
    let instances = vec![(id(2), state)];
    let status = Message::Status {
        txn: txn(2),
        instances,
    };
    assert_eq!(out, sends([(initiator(), status)]));
}

#[test]
fn the_generations_are_announced_in_time_and_when_they_turn() {
    let config = ReplicaConfig {
        announce_ticks: 3,
        ..config(1, 3)
    };
    let mut rig = Rig::with(config, Vec::new());
    rig.connect(a());
    rig.connect(initiator());
    rig.connect(replica(2));
    let clients = || [initiator(), a()];
    let now = Message::Announce(generations(&[]));
    assert_eq!(rig.wait(), (3, sends(to(clients(), now.clone()))));
    assert_eq!(rig.wait(), (3, sends(to(clients(), now))));
    let out = rig.hear(replica(2), learn(0, open(2, &[1, 2, 3])));
    let turned = Message::Announce(generations(&[open(2, &[1, 2, 3])]));
    let save = [chosen(0, open(2, &[1, 2, 3]))];
    assert_eq!(out, effects(save, to(clients(), turned.clone())));
    rig.disconnect(initiator());
    assert_eq!(rig.wait(), (3, sends([(a(), turned)])));
}
