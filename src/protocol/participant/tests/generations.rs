//! Generations, the settled horizon, and what is expired.

use super::early::in_second;
use super::*;
use crate::protocol::types::{Configuration, Entry, Generations, InitiatorId, Open, Settle};

fn configuration(ids: &[u32]) -> Configuration {
    let ids = ids.iter().copied().map(ReplicaId);
    Acceptors::new(ids).unwrap().into()
}

pub(super) fn open(generation: u32, ids: &[u32]) -> Entry {
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

pub(super) fn announce(entries: &[Entry]) -> Message {
    Message::Announce(generations(entries))
}

pub(super) fn through() -> CommitId {
    Generations::last_id(1)
}

pub(super) fn announce_settled() -> Message {
    announce(&settled())
}

/// Generation 2 is open, too.
pub(super) fn announce_second() -> Message {
    announce(&closed()[..1])
}

/// The horizon has moved: the first replica in force is asked for the list.
fn horizon() -> (Peer, Message) {
    let (through, after) = (through(), None);
    (replica(2), Message::List { through, after })
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

pub(super) fn to_those_in_force(message: Message) -> Vec<(Peer, Message)> {
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
        effects([horizon()], [let_go(3), unasked(3, 0)]),
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
fn a_commit_of_the_past_is_proved_by_the_store() {
    let mut rig = Rig::committed();
    rig.hear(2, announce(&settled()));
    // A replica that was away still pushes it.
    let out = rig.hear(3, finish(id(1), me(), Commit));
    assert_eq!(out, notifies([asks_to_finish(id(1), 1, Commit)]));
    assert_eq!(
        rig.finished(id(1), 1).send,
        to_those_in_force(applied(id(1), me()))
    );
}

#[test]
fn what_is_being_prepared_when_it_is_settled_can_only_abort() {
    let mut rig = Rig::preparing();
    assert_eq!(rig.hear(2, announce(&settled())), sends([horizon()]));
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
    assert_eq!(out, sends([presents(4), (replica(4), vote(1, Prepared))]));
    let out = rig.step(back(1));
    assert_eq!(out, sends([presents(1)]), "it was removed");
}

#[test]
fn who_asks_for_another_session_asks_those_in_force() {
    let mut rig = Rig::new();
    rig.found([found(id(1), 9)]);
    rig.hear(2, announce(&settled()));
    let asks = question(id(1), 9, Voter::Unknown);
    assert_eq!(rig.wait(), (1, sends(to_those_in_force(asks.clone()))));
    let out = rig.step(Input::Connected(replica(4)));
    assert_eq!(out, sends([presents(4), (replica(4), asks)]));
    let out = rig.step(Input::Connected(replica(1)));
    assert_eq!(out, sends([presents(1)]), "it was removed");
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
    // Only the store can tell how it ended.
    let out = rig.hear(1, finish(id(1), me(), Commit));
    assert_eq!(out, notifies([asks_to_finish(id(1), 1, Commit)]));
    rig.finished(id(1), 1);
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

/// A plan travels through services, which know nothing of whose id it is.
#[test]
fn only_a_relay_raises_the_floor() {
    let mut rig = Rig::working();
    let plan = Prepare {
        floor: u32::MAX,
        ..please(1)
    };
    rig.command(ParticipantCommand::Prepare(plan));
    assert_eq!(rig.begin(2), notifies([began(2)]));
    rig.asked(Prepare {
        floor: 9,
        ..please(2)
    });
    assert_eq!(rig.begin(3), notifies([refused(3)]));
}

#[test]
fn the_floors_of_one_name_are_bounded() {
    let mut rig = Rig::new();
    for run in 0..5_000 {
        let txn = TxnId {
            initiator: InitiatorId::from_u128(run),
            ..txn(1)
        };
        rig.hear(1, Message::LetGo { txn, floor: 7 });
    }
    assert_eq!(rig.participant.initiators_remembered(), 4_096);
    let unknown = TxnId {
        generation: 2,
        initiator: InitiatorId::MAX,
        ..txn(1)
    };
    let let_go = |txn| Message::LetGo { txn, floor: 7 };
    rig.hear(1, let_go(unknown));
    assert_eq!(rig.participant.initiators_remembered(), 4_096);
    rig.hear(
        1,
        let_go(TxnId {
            generation: 1,
            ..unknown
        }),
    );
    assert_eq!(
        rig.participant.initiators_remembered(),
        4_097,
        "another name"
    );
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
    assert_eq!(rig.hear(2, not_open), sends([horizon()]));
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
    assert_eq!(
        out,
        notifies([ParticipantNotice::Refused {
            txn,
            why: Refusal::Over,
        }])
    );
}
