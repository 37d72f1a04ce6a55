//! The acceptor's side, and what is learned from others.

use super::*;

#[test]
fn a_promise_is_saved_and_tells_that_nothing_was_accepted() {
    let mut log = log(1);
    let promised = hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    let answer = promise(SLOT, ballot(3, 2), None);
    let record = promise_record(ballot(3, 2));
    assert_eq!(promised, answers_saved(record, 2, answer));
}

#[test]
fn a_promise_tells_what_was_accepted_last() {
    let mut log = log(1);
    hear(&mut log, 2, accept(SLOT, ballot(1, 2), plain('a')));
    hear(&mut log, 3, accept(SLOT, ballot(1, 3), plain('b')));
    let promised = hear(&mut log, 2, prepare(SLOT, ballot(2, 2)));
    let last = Some((ballot(1, 3), plain('b')));
    let answer = promise(SLOT, ballot(2, 2), last);
    let record = promise_record(ballot(2, 2));
    assert_eq!(promised, answers_saved(record, 2, answer));
}

#[test]
fn a_promise_again_needs_no_save() {
    let mut log = log(1);
    hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    let before = log.clone();
    let again = hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    assert_eq!(again, answers(2, promise(SLOT, ballot(3, 2), None)));
    assert_eq!(log, before);
    // After it accepted at that ballot, it promises it still, and tells.
    hear(&mut log, 2, accept(SLOT, ballot(3, 2), plain('a')));
    let before = log.clone();
    let again = hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    let held = Some((ballot(3, 2), plain('a')));
    assert_eq!(again, answers(2, promise(SLOT, ballot(3, 2), held)));
    assert_eq!(log, before);
}

#[test]
fn what_is_below_the_promise_is_refused() {
    let mut log = log(1);
    hear(&mut log, 3, prepare(SLOT, ballot(3, 3)));
    let before = log.clone();
    for low in [ballot(3, 2), ballot(1, 2)] {
        let refused = answers(2, nack(SLOT, low, ballot(3, 3)));
        assert_eq!(hear(&mut log, 2, prepare(SLOT, low)), refused);
        assert_eq!(hear(&mut log, 2, accept(SLOT, low, plain('a'))), refused);
        assert_eq!(hear(&mut log, 2, lead(SLOT, low)), refused);
        assert_eq!(log, before);
    }
}

#[test]
fn an_entry_is_accepted_at_the_promise_and_above_it() {
    for at in [ballot(3, 2), ballot(4, 2)] {
        let mut log = log(1);
        hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
        let took = hear(&mut log, 2, accept(SLOT, at, plain('a')));
        let record = accept_record(SLOT, at, plain('a'));
        assert_eq!(took, answers_saved(record, 2, accepted(SLOT, at)));
        assert_eq!(log.leader(), Some(id(2)));
        let lower = hear(&mut log, 3, prepare(SLOT, ballot(2, 3)));
        assert_eq!(lower, answers(3, nack(SLOT, ballot(2, 3), at)));
    }
}

#[test]
fn accepting_again_needs_no_save() {
    let mut log = log(1);
    hear(&mut log, 2, accept(SLOT, ballot(1, 2), plain('a')));
    let again = hear(&mut log, 2, accept(SLOT, ballot(1, 2), plain('a')));
    assert_eq!(again, answers(2, accepted(SLOT, ballot(1, 2))));
    let higher = hear(&mut log, 2, accept(SLOT, ballot(2, 2), plain('a')));
    let record = accept_record(SLOT, ballot(2, 2), plain('a'));
    let answer = accepted(SLOT, ballot(2, 2));
    assert_eq!(higher, answers_saved(record, 2, answer));
}

#[test]
fn two_entries_at_one_ballot_are_nobodys_right() {
    let mut log = log(1);
    hear(&mut log, 2, accept(SLOT, ballot(1, 2), plain('a')));
    for other in [plain('b'), change('a', &[1])] {
        let refused = refusal(&mut log, 2, accept(SLOT, ballot(1, 2), other));
        assert_eq!(refused, LogRefusal::BallotUsedTwice);
    }
}

/// Its own requests come to it like anybody's, and make it no follower of itself.
#[test]
fn a_leader_is_an_acceptor_too() {
    let mut log = candidate(1);
    let own = ballot(1, 1);
    let before = quiet_for(&log);
    let promised = hear(&mut log, 1, prepare(SLOT, own));
    let answer = promise(SLOT, own, None);
    assert_eq!(promised, answers_saved(promise_record(own), 1, answer));
    assert_eq!(quiet_for(&log), before);
    hear(&mut log, 1, promise(SLOT, own, None));
    hear(&mut log, 2, promise(SLOT, own, None));
    let following_itself = hear(&mut log, 1, lead(SLOT, own));
    assert_eq!(following_itself, answers(1, following(SLOT, own)));
    assert!(log.is_free());
    propose(&mut log, plain('a'));
    let took = hear(&mut log, 1, accept(SLOT, own, plain('a')));
    let record = accept_record(SLOT, own, plain('a'));
    assert_eq!(took, answers_saved(record, 1, accepted(SLOT, own)));
    assert!(log.is_leading());
    log.follow();
    assert_eq!(log.leader(), None, "it was never taken for another");
}

/// What arrives of an own ballot that was given up makes nobody the leader.
#[test]
fn an_own_ballot_given_up_has_no_leader() {
    let mut log = candidate(1);
    log.follow();
    hear(&mut log, 1, lead(SLOT, ballot(1, 1)));
    assert_eq!((log.leader(), log.is_leading()), (None, false));
}

#[test]
fn a_sign_of_life_is_answered_and_promises_nothing() {
    let mut log = log(1);
    hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    assert_eq!(
        log.leader(),
        None,
        "it has not been heard to have a majority"
    );
    for at in [ballot(3, 2), ballot(4, 2)] {
        let answer = hear(&mut log, 2, lead(SLOT, at));
        assert_eq!(answer, answers(2, following(SLOT, at)));
        assert_eq!(log.leader(), Some(id(2)));
    }
    let between = hear(&mut log, 3, prepare(SLOT, ballot(3, 3)));
    let record = promise_record(ballot(3, 3));
    let answer = promise(SLOT, ballot(3, 3), None);
    assert_eq!(between, answers_saved(record, 3, answer));
}

/// One that was removed, or is not yet to vote, has no say. But it remembers how high ballots are.
#[test]
fn a_replica_that_is_no_acceptor_accepts_nothing() {
    for heard in [ballot(6, 2), ballot(9, 2)] {
        let requests = [
            (prepare(SLOT, heard), nothing()),
            (accept(SLOT, heard, plain('a')), nothing()),
            (lead(SLOT, heard), answers(2, following(SLOT, heard))),
        ];
        for (request, expected) in requests {
            let mut log = log(4);
            assert_eq!(hear(&mut log, 2, request), expected);
            for _ in 0..EVER {
                assert_eq!(tick(&mut log), nothing());
            }
            hear(&mut log, 2, chosen(SLOT, change('m', &[2, 3, 4])));
            assert_eq!(next_ballot(&log), ballot(heard.round + 1, 4));
            let nothing_promised = hear(&mut log, 3, prepare(SLOT + 1, ballot(1, 3)));
            let answer = promise(SLOT + 1, ballot(1, 3), None);
            let record = promise_record(ballot(1, 3));
            assert_eq!(nothing_promised, answers_saved(record, 3, answer));
        }
    }
}

/// A lower ballot is heard of too, and does not take back what was heard before.
#[test]
fn the_highest_round_heard_stays() {
    let mut log = log(1);
    hear(&mut log, 2, lead(SLOT, ballot(9, 2)));
    hear(&mut log, 2, lead(SLOT, ballot(4, 2)));
    hear(&mut log, 2, prepare(SLOT, ballot(3, 2)));
    hear(&mut log, 2, accept(SLOT, ballot(3, 2), plain('a')));
    assert_eq!(next_ballot(&log), ballot(10, 1));
}

#[test]
fn what_was_chosen_is_learned_once_and_frees_the_acceptor() {
    let mut log = log(1);
    hear(&mut log, 2, accept(SLOT, ballot(5, 2), plain('a')));
    let news = chosen(SLOT, plain('b'));
    assert_eq!(hear(&mut log, 3, news.clone()), learns(SLOT, plain('b')));
    assert_eq!((log.slot(), log.leader()), (SLOT + 1, Some(ReplicaId(3))));
    assert_eq!(log.acceptors(), &acceptors(&[1, 2, 3]));
    assert_eq!(hear(&mut log, 3, news), nothing());
    assert_eq!(log.slot(), SLOT + 1);
    // Rule 2: the promise holds in the next slot. What was accepted belongs to this one.
    let low = hear(&mut log, 3, prepare(SLOT + 1, ballot(4, 3)));
    let refused = nack(SLOT + 1, ballot(4, 3), ballot(5, 2));
    assert_eq!(low, answers(3, refused));
    let high = hear(&mut log, 3, prepare(SLOT + 1, ballot(5, 3)));
    let answer = promise(SLOT + 1, ballot(5, 3), None);
    let record = promise_record(ballot(5, 3));
    assert_eq!(high, answers_saved(record, 3, answer));
}

#[test]
fn a_chosen_entry_changes_the_acceptors() {
    let mut log = log(1);
    let entry = change('m', &[1, 4, 5]);
    let learned = hear(&mut log, 2, chosen(SLOT, entry.clone()));
    assert_eq!(learned, learns(SLOT, entry));
    assert_eq!(log.acceptors(), &acceptors(&[1, 4, 5]));
    let removed = hear(&mut log, 2, prepare(SLOT + 1, ballot(1, 2)));
    assert_eq!(removed, nothing());
    let added = hear(&mut log, 4, prepare(SLOT + 1, ballot(1, 4)));
    assert_eq!(added.save, [promise_record(ballot(1, 4))]);
}

/// Somebody else got it chosen, so somebody else leads.
#[test]
fn a_leader_that_is_told_what_was_chosen_steps_down() {
    for mut log in [candidate(1), leader(), proposing(&plain('a'))] {
        let learned = hear(&mut log, 2, chosen(SLOT, plain('b')));
        assert_eq!(learned, learns(SLOT, plain('b')));
        assert!(!log.is_leading());
        assert_eq!(
            until_it_acts(&mut log),
            (11, starts(SLOT + 1, ballot(2, 1)))
        );
    }
}

#[test]
fn a_later_state_is_installed() {
    for slot in [SLOT + 1, SLOT + 5] {
        let mut log = proposing(&plain('a'));
        hear(&mut log, 1, accept(SLOT, ballot(1, 1), plain('a')));
        log.install(slot, acceptors(&[1, 4, 5]));
        assert_eq!(log.slot(), slot);
        assert_eq!(log.acceptors(), &acceptors(&[1, 4, 5]));
        assert_eq!((log.is_leading(), log.leader()), (false, None));
        // What was accepted belonged to an earlier slot.
        let high = hear(&mut log, 4, prepare(slot, ballot(1, 4)));
        let answer = promise(slot, ballot(1, 4), None);
        let record = promise_record(ballot(1, 4));
        assert_eq!(high, answers_saved(record, 4, answer));
    }
}

#[test]
fn the_promise_outlives_an_installed_state() {
    let mut log = log(1);
    hear(&mut log, 3, prepare(SLOT, ballot(5, 3)));
    log.install(SLOT + 5, acceptors(&[1, 2, 3]));
    let low = hear(&mut log, 2, prepare(SLOT + 5, ballot(5, 2)));
    let refused = nack(SLOT + 5, ballot(5, 2), ballot(5, 3));
    assert_eq!(low, answers(2, refused));
}

#[test]
fn a_state_that_is_not_later_changes_nothing() {
    let mut followed = log(1);
    hear(&mut followed, 2, accept(SLOT, ballot(1, 2), plain('a')));
    for before in [followed, leader(), proposing(&plain('a'))] {
        for slot in [0, SLOT - 1, SLOT] {
            let mut log = before.clone();
            log.install(slot, acceptors(&[4]));
            assert_eq!(log, before);
        }
    }
}
