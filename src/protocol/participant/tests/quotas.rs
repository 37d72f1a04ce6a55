//! What a session remembers on whose account.
//!
//! It remembers four transactions of one name whose runs a relay has vouched for, and six of all
//! other runs together.

use super::*;

fn rig() -> Rig {
    Rig::with(ParticipantConfig {
        remembered_max: 4,
        strangers_max: 6,
        work_ticks_max: 1_000,
        ..config()
    })
}

/// Transaction `sequence` of another run of the honest initiator's name.
fn of_run(run: u128, sequence: u32) -> TxnId {
    TxnId {
        initiator: InitiatorId::from_u128(run),
        ..txn(sequence)
    }
}

/// A relay tells the floor of this run: it has checked who owns it.
fn vouch(rig: &mut Rig, run: u128) {
    let txn = of_run(run, 0);
    assert_eq!(rig.hear(2, Message::LetGo { txn, floor: 0 }), nothing());
}

/// Whether work begins, or there are too many.
fn begins(rig: &mut Rig, txn: TxnId) -> bool {
    let out = rig.command(ParticipantCommand::Begin(txn));
    let began = notifies([ParticipantNotice::Began(txn)]);
    let why = Refusal::TooMany;
    let refused = notifies([ParticipantNotice::Refused { txn, why }]);
    assert!(out == began || out == refused, "{out:?}");
    out == began
}

/// Whether a relay that asks for the vote of a branch with a request has it prepared.
fn prepares(rig: &mut Rig, txn: TxnId) -> bool {
    let id = CommitId::new(txn, &ab());
    let asked = Prepare {
        id,
        ..with_request(1)
    };
    let out = rig.asked(asked.clone());
    assert!(out == nothing() || out == notifies([asks_to_prepare(asked)]));
    out != nothing()
}

/// A service begins work under the id that its caller names. The caller knows the name of an honest
/// initiator, and invents the rest.
#[test]
fn ids_that_a_caller_invents_use_up_nothing_of_an_initiator_whose_run_is_vouched_for() {
    let mut rig = rig();
    vouch(&mut rig, 7);
    let begun = (100..120).filter(|run| begins(&mut rig, of_run(*run, 1)));
    assert_eq!(begun.count(), 6, "all strangers together");
    assert!(begins(&mut rig, txn(1)));
    assert!(prepares(&mut rig, txn(2)));
}

/// Ids with invented names, too.
#[test]
fn all_runs_that_nobody_has_vouched_for_share_one_quota() {
    let mut rig = rig();
    let name = |name: u128| name << InitiatorId::RUN_BITS;
    let begun = (1..20).filter(|of| begins(&mut rig, of_run(name(*of), 1)));
    assert_eq!(begun.count(), 6);
    // What began in vain is remembered until its generation is settled.
    assert_eq!(rig.participant.remembered(), 6);
}

#[test]
fn all_vouched_runs_of_one_name_share_its_quota() {
    let mut rig = rig();
    let asked = (1..10).filter(|run| prepares(&mut rig, of_run(*run, 1)));
    assert_eq!(asked.count(), 4);
    assert!(!begins(&mut rig, of_run(1, 2)));
    assert!(begins(&mut rig, of_run(50, 1)), "a stranger");
    let other = InitiatorId::MAX.to_u128();
    assert!(prepares(&mut rig, of_run(other, 1)), "another name");
}

/// The relay that asks for the first vote vouches for what began before.
#[test]
fn what_a_run_began_is_charged_to_its_name_once_the_run_is_vouched_for() {
    let mut rig = rig();
    for sequence in 1..=6 {
        assert!(begins(&mut rig, txn(sequence)));
    }
    assert!(!begins(&mut rig, of_run(8, 1)));
    vouch(&mut rig, 7);
    assert!(!begins(&mut rig, txn(7)), "its name has more than it may");
    assert!(begins(&mut rig, of_run(8, 1)), "strangers have none");
}

/// An initiator may have so many runs that this session does not keep their floors. It pays for them
/// itself.
#[test]
fn a_name_with_too_many_runs_is_no_stranger() {
    let mut rig = rig();
    for run in 0..4_096 {
        vouch(&mut rig, run);
    }
    assert!(!prepares(&mut rig, of_run(5_000, 1)));
    assert!(prepares(&mut rig, of_run(1, 1)));
}

/// The counter-example to forgetting work that nobody asked for: it takes too long, and is let go
/// of. Its caller comes back with the second half of the work, and commits.
#[test]
fn work_that_was_let_go_of_never_begins_again() {
    let mut rig = Rig::working();
    assert_eq!(rig.wait().1, notifies([let_go(1), unasked(1, 5)]));
    assert_eq!(rig.begin(1), notifies([refused(1)]));
    let out = rig.asked(with_request(1));
    assert_eq!(out, effects(to_all(vote(1, Aborted)), [let_go(1)]));
}
