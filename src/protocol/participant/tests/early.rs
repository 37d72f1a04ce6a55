//! Work in a generation of which the session has not heard.

use super::generations::{announce, announce_second, open, to_those_in_force};
use super::*;

/// The same transaction in generation 2.
pub(super) fn in_second(sequence: u32) -> (TxnId, Prepare) {
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

/// The caller waits until this session has heard of its generation.
#[test]
fn work_begins_when_its_generation_is_known() {
    let mut rig = Rig::new();
    let (txn, prepare) = in_second(1);
    let out = rig.command(ParticipantCommand::Begin(txn));
    assert_eq!(out, sends(to_all(Message::Inquire { txn })));
    assert_eq!(rig.command(ParticipantCommand::Begin(txn)), nothing());
    // A relay asks again.
    assert_eq!(rig.asked(prepare.clone()), nothing());
    let second = [open(2, &[2, 3, 4])];
    let out = rig.hear(1, announce(&second));
    assert_eq!(out, notifies([ParticipantNotice::Began(txn)]));
    let itself = ParticipantCommand::Prepare(prepare.clone());
    let out = rig.command(itself);
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

/// (A service that takes garbage for an id would otherwise keep it for ever.)
#[test]
fn work_in_a_generation_that_never_opens_is_refused_and_forgotten() {
    let mut rig = Rig::new();
    let garbage = |sequence| TxnId {
        generation: u32::MAX,
        ..txn(sequence)
    };
    rig.command(ParticipantCommand::Begin(garbage(1)));
    assert_eq!(rig.participant.remembered(), 1);
    let refused = |txn, why| notifies([ParticipantNotice::Refused { txn, why }]);
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out), (40, refused(garbage(1), Refusal::NotOpen)));
    assert_eq!(rig.participant.remembered(), 0);
}

/// A caller invents ids of a generation that never opens, more of them than may wait. (The
/// counter-example to refusing the latest: the callers of the next generation are refused for as long
/// as that one goes on, and the session is a generation behind them for some milliseconds.)
#[test]
fn the_oldest_of_too_many_that_wait_for_their_generation_is_refused() {
    let mut rig = Rig::new();
    let garbage = |sequence| TxnId {
        generation: u32::MAX,
        ..txn(sequence)
    };
    for sequence in 0..1_024 {
        rig.command(ParticipantCommand::Begin(garbage(sequence)));
    }
    let (honest, _) = in_second(1);
    let out = rig.command(ParticipantCommand::Begin(honest));
    let refused = ParticipantNotice::Refused {
        txn: garbage(0),
        why: Refusal::TooMany,
    };
    assert_eq!(out, notifies([refused]));
    assert_eq!(rig.participant.remembered(), 1_024);
    let began = ParticipantNotice::Began(honest);
    assert_eq!(rig.hear(1, announce_second()), notifies([began]));
}

/// (One header of a request would otherwise be three messages.)
#[test]
fn the_replicas_are_asked_once_a_tick_for_all_who_wait() {
    let mut rig = Rig::new();
    let (first, _) = in_second(1);
    let (second, _) = in_second(2);
    let asks = |txn| sends(to_all(Message::Inquire { txn }));
    let begin = ParticipantCommand::Begin;
    assert_eq!(rig.command(begin(first)), asks(first));
    assert_eq!(rig.command(begin(second)), nothing());
    assert_eq!(rig.tick(), asks(second));
    assert_eq!(rig.tick(), nothing(), "all have been asked for");
    let (third, _) = in_second(3);
    assert_eq!(rig.command(begin(third)), asks(third));
}

/// Nobody waits for a session any more that has stopped, and is idle.
#[test]
fn a_session_that_stops_begins_nothing() {
    let mut rig = Rig::working();
    let (early, _) = in_second(2);
    rig.command(ParticipantCommand::Begin(early));
    let stopping = |txn| ParticipantNotice::Refused {
        txn,
        why: Refusal::Stopping,
    };
    let out = rig.command(ParticipantCommand::Stop);
    assert_eq!(out, notifies([stopping(early)]), "nobody waits any more");
    assert_eq!(rig.begin(3), notifies([stopping(txn(3))]));
    rig.hear(1, announce_second());
    let begun: Vec<_> = rig.participant.transactions().collect();
    assert_eq!(begun, [&txn(1)]);
    // What has begun may still be committed.
    assert_eq!(rig.asked(please(1)), notifies([asks_to_prepare(please(1))]));
}

/// The answer of a replica that is behind too.
#[test]
fn an_answer_that_opens_no_generation_lets_it_wait() {
    let mut rig = Rig::new();
    let (txn, _) = in_second(1);
    rig.command(ParticipantCommand::Begin(txn));
    assert_eq!(rig.hear(1, announce(&[])), nothing());
    let let_go = Message::LetGo { txn, floor: 0 };
    let why = Refusal::Over;
    let refused = notifies([ParticipantNotice::Refused { txn, why }]);
    assert_eq!(rig.hear(1, let_go), refused, "its initiator gives it up");
    assert_eq!(rig.participant.remembered(), 0);
}
