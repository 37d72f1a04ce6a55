//! Generations, the settled horizon, and what is expired.

use super::*;
use crate::protocol::types::{Configuration, Entry, Generations, Open, Settle};

fn configuration(ids: &[u32]) -> Configuration {
    let ids = ids.iter().copied().map(ReplicaId);
    Acceptors::new(ids).unwrap().into()
}

fn open(generation: u32, ids: &[u32]) -> Entry {
    Entry::Open(Open {
        generation,
        configuration: configuration(ids),
    })
}

/// All of generation 1 is settled.
fn settle() -> Entry {
    Entry::Settle(Box::new(Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: Vec::new(),
    }))
}

fn generations(entries: &[Entry]) -> Generations {
    let mut generations = Generations::genesis(configuration(&[1, 2, 3]));
    for entry in entries {
        generations.apply(entry);
    }
    generations
}

/// Generation 1 is closed, then settled; the replicas of the latest are 2, 3 and 4.
fn closed() -> Vec<Entry> {
    vec![open(2, &[1, 2, 3]), open(3, &[2, 3, 4])]
}

fn settled() -> Vec<Entry> {
    let mut entries = closed();
    entries.push(settle());
    entries
}

fn announce(entries: &[Entry]) -> Message {
    Message::Announce(generations(entries))
}

fn horizon() -> ParticipantNotice {
    let through = Generations::last_id(1);
    ParticipantNotice::Settled { through }
}

fn expired(id: CommitId, session: u64) -> Message {
    let branch = Some(branch("a", session));
    Message::Expired { id, branch }
}

fn asks_to_expire(id: CommitId, session: u64) -> ParticipantNotice {
    let branch = branch("a", session);
    ParticipantNotice::Expired { id, branch }
}

fn not_prepared(id: CommitId, session: u64) -> ParticipantCommand {
    let branch = branch("a", session);
    ParticipantCommand::NotPrepared { id, branch }
}

fn to_those_in_force(message: Message) -> Vec<(Peer, Message)> {
    let each = [2, 3, 4].map(|id| (replica(id), message.clone()));
    each.to_vec()
}

#[test]
fn what_is_settled_and_done_is_forgotten() {
    let mut rig = Rig::committed();
    rig.begin(2);
    rig.asked(with_floor(2, 1));
    rig.prepared(2, ReadOnly);
    rig.begin(3);
    let (remembered, initiators) = (3, 1);
    let participant = &rig.participant;
    assert_eq!(participant.remembered(), remembered);
    assert_eq!(participant.initiators_remembered(), initiators);
    let out = rig.hear(4, announce(&settled()));
    assert_eq!(
        out,
        notifies([let_go(3), horizon()]),
        "from a replica that is new"
    );
    assert_eq!(rig.participant.remembered(), 0);
    assert_eq!(rig.participant.initiators_remembered(), 0);
    assert_eq!(
        rig.hear(4, announce(&settled())),
        nothing(),
        "known already"
    );
    // It can never begin, or be prepared, again.
    assert_eq!(rig.begin(1), notifies([refused(1)]));
    assert_eq!(rig.asked(with_request(1)), nothing());
    assert_eq!(rig.participant.remembered(), 0);
    assert_eq!(rig.participant.initiators_remembered(), 0);
}

#[test]
fn a_commit_of_the_past_is_applied_already() {
    let mut rig = Rig::committed();
    rig.hear(2, announce(&settled()));
    // A replica that was away still pushes it.
    let out = rig.hear(3, finish(id(1), me(), Commit));
    assert_eq!(out, sends([(replica(3), applied(id(1), me()))]));
}

#[test]
fn what_is_being_prepared_when_it_is_settled_can_only_abort() {
    let mut rig = Rig::preparing();
    assert_eq!(rig.hear(2, announce(&settled())), notifies([horizon()]));
    let out = rig.prepared(1, Prepared);
    let votes = to_those_in_force(vote(1, Aborted));
    let rolls_back = [let_go(1), asks_to_finish(id(1), 1, Abort)];
    assert_eq!(out, effects(votes, rolls_back));
}

#[test]
fn who_waits_asks_those_in_force_once_it_is_settled() {
    let mut rig = Rig::voted(Prepared);
    rig.hear(2, announce(&closed()));
    assert_eq!(rig.wait(), (3, sends(to_all(vote(1, Prepared)))));
    rig.hear(2, announce(&settled()));
    let asks = sends(to_those_in_force(vote(1, Prepared)));
    assert_eq!(rig.wait(), (1, asks));
    let back = |id| Input::Connected(replica(id));
    let out = rig.step(back(4));
    assert_eq!(out, sends([(replica(4), vote(1, Prepared))]));
    assert_eq!(rig.step(back(1)), nothing(), "it was removed");
}

#[test]
fn who_asks_for_another_session_asks_those_in_force() {
    let mut rig = Rig::new();
    rig.found([found(id(1), 9)]);
    rig.hear(2, announce(&settled()));
    let asks = question(id(1), 9, Voter::Unknown);
    assert_eq!(rig.wait(), (1, sends(to_those_in_force(asks.clone()))));
    let out = rig.step(Input::Connected(replica(4)));
    assert_eq!(out, sends([(replica(4), asks)]));
    assert_eq!(rig.step(Input::Connected(replica(1))), nothing());
}

#[test]
fn only_the_resource_manager_knows_whether_an_expired_branch_stands_prepared() {
    let mut rig = Rig::voted(Prepared);
    let out = rig.hear(3, expired(id(1), 1));
    assert_eq!(out, notifies([asks_to_expire(id(1), 1)]));
    assert_eq!(rig.hear(2, expired(id(1), 1)), nothing(), "once");
    assert_eq!(rig.found([found(id(1), 1)]), nothing());
    assert!(!rig.participant.is_idle());
    rig.wait_quietly(50);
    let out = rig.finished(id(1), 1);
    assert_eq!(
        out,
        notifies([ended(1, Abort)]),
        "it did, and was rolled back"
    );
    assert!(rig.participant.is_idle());
}

#[test]
fn a_branch_that_another_session_has_finished_is_forgotten() {
    let mut rig = Rig::voted(Prepared);
    rig.hear(3, expired(id(1), 1));
    let out = rig.command(not_prepared(id(1), 1));
    let forgotten = ParticipantNotice::Forgotten { id: id(1) };
    assert_eq!(out, notifies([forgotten]));
    assert!(rig.participant.is_idle());
    assert_eq!(rig.command(not_prepared(id(1), 1)), nothing());
    // It never says anything else in this transaction.
    assert_eq!(rig.asked(with_request(1)), nothing());
    assert_eq!(rig.begin(1), notifies([refused(1)]));
    assert_eq!(rig.hear(1, finish(id(1), me(), Abort)), nothing());
    let out = rig.hear(1, finish(id(1), me(), Commit));
    assert_eq!(out, sends([(replica(1), applied(id(1), me()))]));
    // If it is found prepared after all, it is asked about.
    let out = rig.found([found(id(1), 1)]);
    assert_eq!(out, sends(to_all(question(id(1), 1, Voter::Unknown))));
}

#[test]
fn what_expired_means_to_the_other_phases() {
    let mut rig = Rig::preparing();
    assert_eq!(rig.hear(3, expired(id(1), 1)), nothing());
    let out = rig.prepared(1, Prepared);
    assert_eq!(out, notifies([asks_to_finish(id(1), 1, Abort)]));
    let mut rig = Rig::voted(Aborted);
    assert_eq!(rig.hear(3, expired(id(1), 1)), notifies([ended(1, Abort)]));
    let mut rig = Rig::voted(ReadOnly);
    assert_eq!(rig.hear(3, expired(id(1), 1)), nothing());
    assert_eq!(rig.asked(please(1)), nothing(), "it has voted");
    let mut rig = Rig::committed();
    assert_eq!(rig.hear(3, expired(id(1), 1)), nothing());
    let mut rig = Rig::working();
    assert_eq!(rig.hear(3, expired(id(1), 1)), nothing());
    let mut rig = Rig::voted(Prepared);
    assert_eq!(
        rig.hear(3, expired(alone(1), 1)),
        nothing(),
        "another instance"
    );
    let of_b = Message::Expired {
        id: id(1),
        branch: Some(branch("b", 1)),
    };
    assert_eq!(rig.hear(3, of_b), nothing(), "another participant");
    let of_nobody = Message::Expired {
        id: id(1),
        branch: None,
    };
    assert_eq!(rig.hear(3, of_nobody), nothing());
}

#[test]
fn a_branch_of_another_session_that_is_expired() {
    for answer in [
        not_prepared(id(1), 9),
        ParticipantCommand::Finished {
            id: id(1),
            branch: branch("a", 9),
        },
    ] {
        let mut rig = Rig::new();
        assert_eq!(rig.hear(3, expired(id(1), 9)), nothing(), "nobody asked");
        rig.found([found(id(1), 9)]);
        assert_eq!(
            rig.command(not_prepared(id(1), 9)),
            nothing(),
            "nobody asked"
        );
        let out = rig.hear(3, expired(id(1), 9));
        assert_eq!(out, notifies([asks_to_expire(id(1), 9)]));
        assert_eq!(rig.hear(2, expired(id(1), 9)), nothing(), "once");
        assert!(!rig.participant.is_idle());
        assert_eq!(rig.command(answer), nothing());
        assert!(rig.participant.is_idle());
    }
}

#[test]
fn nothing_begins_in_a_closed_generation() {
    let mut rig = Rig::working();
    rig.hear(2, announce(&closed()));
    assert_eq!(rig.begin(2), notifies([refused(2)]));
    assert_eq!(rig.begin(1), notifies([began(1)]), "what has begun goes on");
    let out = rig.asked(please(1));
    assert_eq!(out, notifies([asks_to_prepare(please(1))]));
}

/// The same transaction in generation 2.
fn in_second(sequence: u32) -> (TxnId, Prepare) {
    let txn = TxnId {
        generation: 2,
        ..txn(sequence)
    };
    let id = CommitId::new(txn, &ab());
    (
        txn,
        Prepare {
            id,
            ..please(sequence)
        },
    )
}

#[test]
fn a_generation_that_is_not_known_yet() {
    let mut rig = Rig::new();
    let (txn, prepare) = in_second(1);
    let out = rig.command(ParticipantCommand::Begin(txn));
    assert_eq!(out, notifies([ParticipantNotice::Began(txn)]));
    // A relay asks again; the service does not.
    assert_eq!(rig.asked(prepare.clone()), nothing());
    let itself = ParticipantCommand::Prepare(prepare.clone());
    assert_eq!(rig.command(itself), nothing());
    let second = [open(2, &[2, 3, 4])];
    let out = rig.hear(1, announce(&second));
    assert_eq!(out, notifies([asks_to_prepare(prepare.clone())]));
    let command = ParticipantCommand::Prepared {
        id: prepare.id,
        vote: Prepared,
    };
    let out = rig.command(command);
    let to: Vec<Peer> = out.send.into_iter().map(|(to, _)| to).collect();
    assert_eq!(
        to,
        [2, 3, 4].map(replica),
        "those who decide that generation"
    );
    // They are its learners' acceptors, too.
    let zero = Ballot::ZERO;
    assert_eq!(rig.hear(1, phase2b(prepare.id, zero, Commit)), nothing());
    assert_eq!(rig.hear(2, phase2b(prepare.id, zero, Commit)), nothing());
    let out = rig.hear(4, phase2b(prepare.id, zero, Commit));
    assert_eq!(out, notifies([asks_to_finish(prepare.id, 1, Commit)]));
    let out = rig.finished(prepare.id, 1);
    let told = to_those_in_force(applied(prepare.id, me()));
    assert_eq!(out.send, told);
}

#[test]
fn what_prepares_by_itself_waits_for_its_own_generation_only() {
    let mut rig = Rig::new();
    let (txn, _) = in_second(1);
    let third = TxnId {
        generation: 3,
        ..txn
    };
    rig.command(ParticipantCommand::Begin(third));
    let prepare = Prepare {
        id: CommitId::new(third, &ab()),
        ..please(1)
    };
    rig.command(ParticipantCommand::Prepare(prepare.clone()));
    assert_eq!(rig.hear(1, announce(&closed()[..1])), nothing());
    let out = rig.hear(1, announce(&closed()));
    assert_eq!(out, notifies([asks_to_prepare(prepare)]));
}

#[test]
fn an_abort_before_the_vote_counts_only_from_those_who_decide() {
    let mut rig = Rig::working();
    rig.hear(1, announce(&closed()));
    let stranger = rig.hear(4, phase2b(id(1), Ballot::ZERO, Abort));
    assert_eq!(stranger, nothing());
    let out = rig.hear(3, phase2b(id(1), Ballot::ZERO, Abort));
    assert_eq!(out.notify[0], let_go(1));
}

#[test]
fn a_refusal_tells_the_generations_too() {
    let mut rig = Rig::voted(Prepared);
    let not_open = Message::NotOpen {
        id: id(1),
        generations: generations(&settled()),
    };
    assert_eq!(rig.hear(2, not_open), notifies([horizon()]));
    assert_eq!(rig.wait(), (1, sends(to_those_in_force(vote(1, Prepared)))));
}

#[test]
fn a_floor_lasts_until_the_generation_that_told_it_is_settled() {
    let mut rig = Rig::new();
    rig.hear(2, announce(&closed()[..1]));
    let (_, second) = in_second(9);
    rig.asked(Prepare { floor: 5, ..second });
    rig.hear(2, announce(&settled()));
    assert_eq!(rig.participant.initiators_remembered(), 1);
    let (txn, _) = in_second(4);
    let out = rig.command(ParticipantCommand::Begin(txn));
    assert_eq!(out, notifies([ParticipantNotice::Refused(txn)]));
}
