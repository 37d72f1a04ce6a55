//! Which messages are not taken at all.

use super::*;

/// One message of each kind from `from`, in `slot`.
fn one_of_each(slot: u64, from: u32) -> [Message; 8] {
    let (own, high) = (ballot(1, 1), ballot(9, from));
    [
        prepare(slot, high),
        accept(slot, high, plain('x')),
        lead(slot, high),
        promise(slot, own, None),
        accepted(slot, own),
        nack(slot, own, high),
        following(slot, own),
        chosen(slot, plain('x')),
    ]
}

/// A message that tells its sender's slot: it asks something of others.
const REQUESTS: usize = 3;

#[test]
fn every_message_tells_its_slot() {
    for message in one_of_each(42, 2) {
        assert_eq!(message.slot(), 42, "{message:?}");
    }
}

/// Rule 1: nothing is promised or accepted in a slot before all earlier ones are learned.
#[test]
fn whoever_speaks_of_a_later_slot_is_ahead() {
    for before in [log(1), candidate(1), leader(), proposing(&plain('a'))] {
        for slot in [SLOT + 1, SLOT + 9, u64::MAX] {
            for message in one_of_each(slot, 2) {
                let mut log = before.clone();
                let ahead = Some(id(2));
                let expected = Effects { ahead, ..nothing() };
                assert_eq!(hear(&mut log, 2, message), expected);
                assert_eq!(log, before);
            }
        }
    }
}

/// A request tells where its sender is; an answer, or news, may just be late.
#[test]
fn whoever_asks_about_an_earlier_slot_is_behind() {
    for before in [log(1), candidate(1), leader(), proposing(&plain('a'))] {
        for slot in [0, SLOT - 1] {
            for (kind, message) in one_of_each(slot, 2).into_iter().enumerate() {
                let mut log = before.clone();
                let behind = if kind < REQUESTS { vec![id(2)] } else { vec![] };
                let expected = Effects {
                    behind,
                    ..nothing()
                };
                assert_eq!(hear(&mut log, 2, message), expected);
                assert_eq!(log, before);
            }
        }
    }
}

/// One that is not an acceptor is behind or ahead like any other.
#[test]
fn a_stranger_can_be_behind_and_ahead() {
    let mut log = log(1);
    let late = hear(&mut log, 9, prepare(SLOT - 1, ballot(1, 9)));
    assert_eq!(late.behind, [id(9)]);
    let early = hear(&mut log, 9, prepare(SLOT + 1, ballot(1, 9)));
    assert_eq!(early.ahead, Some(id(9)));
}

/// It sends to all, itself among them, and may have learned something in between.
#[test]
fn a_replica_is_not_behind_itself() {
    let mut log = log(1);
    for message in one_of_each(SLOT - 1, 1) {
        assert_eq!(hear(&mut log, 1, message), nothing());
    }
}

#[test]
fn a_stranger_takes_no_part() {
    for before in [log(1), candidate(1), leader(), proposing(&plain('a'))] {
        let mut messages = one_of_each(SLOT, 4).to_vec();
        assert_eq!(messages.pop(), Some(chosen(SLOT, plain('x'))));
        for message in messages {
            let mut log = before.clone();
            assert_eq!(hear(&mut log, 4, message), nothing());
            assert_eq!(log, before);
        }
    }
}

/// What is chosen is chosen, whoever tells it: one that was removed may be the only one that knows.
#[test]
fn a_stranger_may_tell_what_was_chosen() {
    let mut log = log(1);
    let learned = hear(&mut log, 4, chosen(SLOT, plain('x')));
    assert_eq!(learned, learns(SLOT, plain('x')));
    assert_eq!(log.slot(), SLOT + 1);
}

#[test]
fn a_ballot_is_its_owners() {
    for before in [log(1), candidate(1), leader(), proposing(&plain('a'))] {
        for foreign in [ballot(9, 3), ballot(9, 1), Ballot::ZERO, ballot(0, 2)] {
            let messages = [
                prepare(SLOT, foreign),
                accept(SLOT, foreign, plain('x')),
                lead(SLOT, foreign),
            ];
            for message in messages {
                let refused = refusal(&mut before.clone(), 2, message);
                assert_eq!(refused, LogRefusal::NotItsBallot);
            }
        }
    }
}

#[test]
fn the_errors_say_what_is_wrong() {
    let texts = [LogRefusal::NotItsBallot, LogRefusal::BallotUsedTwice].map(|e| e.to_string());
    assert_eq!(texts[0], "the ballot is not the sender's");
    assert!(texts[1].ends_with("its leader used it twice"));
}
