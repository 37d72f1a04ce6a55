//! The leader's side: phase 1, proposals, and what happens when one is chosen.

use super::*;

#[test]
fn a_candidate_does_not_lead() {
    let mut log = candidate(1);
    assert_eq!((log.is_leading(), log.is_free()), (false, false));
    assert_eq!(log.leader(), None);
    let before = log.clone();
    assert_eq!(propose(&mut log, plain('a')), (false, nothing()));
    assert_eq!(log, before);
}

#[test]
fn a_follower_does_not_propose() {
    let mut log = log(1);
    assert_eq!((log.is_leading(), log.is_free()), (false, false));
    let before = log.clone();
    assert_eq!(propose(&mut log, plain('a')), (false, nothing()));
    assert_eq!(log, before);
}

#[test]
fn a_majority_of_promises_makes_a_leader_once() {
    let mut log = leader();
    assert_eq!((log.is_leading(), log.is_free()), (true, true));
    assert_eq!(log.leader(), Some(id(1)));
    let late = hear(&mut log, 1, promise(SLOT, ballot(1, 1), None));
    assert_eq!(late, nothing());
}

#[test]
fn what_is_no_promise_of_this_ballot_does_not_count() {
    let mut log = candidate(1);
    hear(&mut log, 2, promise(SLOT, ballot(1, 1), None));
    let same_again = hear(&mut log, 2, promise(SLOT, ballot(1, 1), None));
    let of_another = hear(&mut log, 3, promise(SLOT, ballot(2, 1), None));
    assert_eq!((same_again, of_another), (nothing(), nothing()));
    assert!(!log.is_leading());
    let mut follower = super::log(1);
    let before = follower.clone();
    let none_asked = hear(&mut follower, 2, promise(SLOT, ballot(1, 1), None));
    assert_eq!((none_asked, &follower), (nothing(), &before));
}

/// Rule 4: an entry found in phase 1 is proposed unchanged.
#[test]
fn the_entry_of_the_highest_ballot_is_proposed() {
    let (low, high) = (ballot(1, 2), ballot(1, 3));
    let mut log = log(1);
    hear(&mut log, 3, lead(SLOT, ballot(4, 3)));
    until_it_acts(&mut log);
    let own = ballot(5, 1);
    let first = promise(SLOT, own, Some((high, change('h', &[1]))));
    assert_eq!(hear(&mut log, 3, first), nothing());
    let second = promise(SLOT, own, Some((low, plain('l'))));
    let proposed = hear(&mut log, 2, second);
    let bound = accept(SLOT, own, change('h', &[1]));
    assert_eq!(proposed, tells(bound.clone()));
    assert_eq!((log.is_leading(), log.is_free()), (true, false));
    assert_eq!(propose(&mut log, plain('a')), (false, nothing()));
    assert_eq!(until_it_acts(&mut log), (5, tells(bound)));
}

/// It was asked under the same number by an earlier life of this replica.
#[test]
fn a_ballot_that_was_used_before_is_given_up() {
    let mut log = candidate(1);
    let used = Some((ballot(1, 1), plain('a')));
    assert_eq!(
        hear(&mut log, 2, promise(SLOT, ballot(1, 1), used)),
        nothing()
    );
    hear(&mut log, 1, promise(SLOT, ballot(1, 1), None));
    hear(&mut log, 3, promise(SLOT, ballot(1, 1), None));
    assert!(!log.is_leading());
    let (_, effects) = until_it_acts(&mut log);
    assert_eq!(effects, starts(SLOT, ballot(2, 1)));
}

#[test]
fn one_entry_at_a_time() {
    let mut log = proposing(&plain('a'));
    assert_eq!((log.is_leading(), log.is_free()), (true, false));
    assert_eq!(log.leader(), Some(id(1)));
    let before = log.clone();
    for item in [plain('a'), plain('b')] {
        assert_eq!(propose(&mut log, item), (false, nothing()));
    }
    assert_eq!(log, before);
}

#[test]
fn an_entry_is_chosen_by_a_majority_at_this_ballot() {
    let mut log = proposing(&plain('a'));
    for other in [ballot(1, 2), ballot(2, 1), ballot(1, 3)] {
        for from in [1, 2, 3] {
            assert_eq!(hear(&mut log, from, accepted(SLOT, other)), nothing());
        }
    }
    assert_eq!(hear(&mut log, 2, accepted(SLOT, ballot(1, 1))), nothing());
    assert_eq!(hear(&mut log, 2, accepted(SLOT, ballot(1, 1))), nothing());
    let learned = hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
    let expected = Effects {
        chosen: vec![(SLOT, plain('a'))],
        ..tells(chosen(SLOT, plain('a')))
    };
    assert_eq!(learned, expected);
    let late = hear(&mut log, 1, accepted(SLOT, ballot(1, 1)));
    assert_eq!(late, nothing());
}

#[test]
fn nobody_else_counts() {
    let answer = accepted(SLOT, ballot(1, 1));
    for before in [log(1), candidate(1), leader()] {
        let mut log = before.clone();
        for from in [1, 2, 3] {
            assert_eq!(hear(&mut log, from, answer.clone()), nothing());
        }
        assert_eq!(log, before);
    }
}

/// Rule 2: phase 1 is skipped in the next slot, at the same ballot.
#[test]
fn a_stable_leader_goes_straight_to_phase_2() {
    let mut log = proposing(&plain('a'));
    for (slot, item, next) in [(SLOT, 'a', 'b'), (SLOT + 1, 'b', 'c'), (SLOT + 2, 'c', 'd')] {
        hear(&mut log, 1, accepted(slot, ballot(1, 1)));
        let learned = hear(&mut log, 2, accepted(slot, ballot(1, 1)));
        let expected = Effects {
            chosen: vec![(slot, plain(item))],
            ..tells(chosen(slot, plain(item)))
        };
        assert_eq!(learned, expected);
        assert_eq!((log.slot(), log.is_free()), (slot + 1, true));
        assert_eq!(log.leader(), Some(id(1)));
        let proposed = propose(&mut log, plain(next));
        let sent = accept(slot + 1, ballot(1, 1), plain(next));
        assert_eq!(proposed, (true, tells(sent)));
    }
    // A report counts in the slot that it is of.
    assert_eq!(
        hear(&mut log, 3, accepted(SLOT + 2, ballot(1, 1))),
        nothing()
    );
    assert_eq!(
        hear(&mut log, 1, accepted(SLOT + 3, ballot(1, 1))),
        nothing()
    );
}

#[test]
fn a_leader_with_nothing_to_propose_shows_that_it_lives() {
    let mut log = proposing(&plain('a'));
    hear(&mut log, 1, accepted(SLOT, ballot(1, 1)));
    hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    let sign = tells(lead(SLOT + 1, ballot(1, 1)));
    assert_eq!(until_it_acts(&mut log), (5, sign));
}

/// The same acceptors, named again, are no other acceptors.
#[test]
fn an_entry_that_names_the_same_acceptors_changes_nothing() {
    let item = change('m', &[3, 2, 1]);
    let mut log = proposing(&item);
    hear(&mut log, 1, accepted(SLOT, ballot(1, 1)));
    let learned = hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    assert_eq!(learned.send, tells(chosen(SLOT, item)).send);
    assert!(log.is_free());
}

/// Rule 3: after a change of the acceptors phase 1 is never skipped.
#[test]
fn other_acceptors_force_phase_1() {
    for next in [&[1, 2, 4][..], &[1], &[1, 2, 3, 4, 5]] {
        let item = change('m', next);
        let mut log = proposing(&item);
        hear(&mut log, 1, accepted(SLOT, ballot(1, 1)));
        let learned = hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
        let again = starts(SLOT + 1, ballot(2, 1));
        let mut expected = Effects {
            chosen: vec![(SLOT, item.clone())],
            send: vec![(To::All, chosen(SLOT, item))],
            ..again.clone()
        };
        expected.send.extend(again.send);
        assert_eq!(learned, expected);
        assert_eq!(log.acceptors(), &acceptors(next));
        assert_eq!((log.is_leading(), log.is_free()), (false, false));
        assert_eq!(propose(&mut log, plain('b')), (false, nothing()));
        // Promises of the ballot before are worth nothing.
        let old = hear(&mut log, 1, promise(SLOT + 1, ballot(1, 1), None));
        assert_eq!((old, log.is_leading()), (nothing(), false));
    }
}

/// The new ballot takes a majority of the new acceptors.
#[test]
fn the_new_acceptors_promise() {
    let mut log = proposing(&change('m', &[1, 4, 5]));
    hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
    let own = ballot(2, 1);
    for old in [2, 3] {
        assert_eq!(hear(&mut log, old, promise(SLOT + 1, own, None)), nothing());
    }
    assert_eq!(hear(&mut log, 4, promise(SLOT + 1, own, None)), nothing());
    let led = hear(&mut log, 5, promise(SLOT + 1, own, None));
    assert_eq!(led, tells(lead(SLOT + 1, own)));
}

#[test]
fn a_leader_that_is_removed_steps_down() {
    for next in [&[2, 3, 4][..], &[4]] {
        let item = change('m', next);
        let mut log = proposing(&item);
        hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
        let learned = hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
        let expected = Effects {
            chosen: vec![(SLOT, item.clone())],
            ..tells(chosen(SLOT, item))
        };
        assert_eq!(learned, expected);
        assert_eq!((log.is_leading(), log.leader()), (false, None));
        for _ in 0..EVER {
            assert_eq!(tick(&mut log), nothing());
        }
    }
}

#[test]
fn a_refusal_by_a_higher_ballot_ends_a_ballot() {
    for before in [candidate(1), leader(), proposing(&plain('a'))] {
        for high in [ballot(1, 2), ballot(9, 3), ballot(2, 1)] {
            let mut log = before.clone();
            let refused = hear(&mut log, 3, nack(SLOT, ballot(1, 1), high));
            assert_eq!(refused, nothing());
            assert_eq!((log.is_leading(), log.leader()), (false, None));
            let (_, effects) = until_it_acts(&mut log);
            assert_eq!(effects, starts(SLOT, ballot(high.round + 1, 1)));
        }
    }
}

#[test]
fn other_refusals_do_not() {
    for before in [candidate(1), leader(), proposing(&plain('a')), log(1)] {
        let refusals = [
            nack(SLOT, ballot(1, 2), ballot(9, 3)),
            nack(SLOT, ballot(2, 1), ballot(9, 3)),
            nack(SLOT, ballot(1, 1), ballot(1, 1)),
            nack(SLOT, ballot(1, 1), Ballot::ZERO),
        ];
        for refusal in refusals {
            let mut log = before.clone();
            assert_eq!(hear(&mut log, 2, refusal), nothing());
            assert_eq!(log, before);
        }
    }
    let mut follower = log(1);
    hear(&mut follower, 2, nack(SLOT, ballot(1, 1), ballot(9, 3)));
    assert_eq!(next_ballot(&follower), ballot(1, 1), "it asked nobody");
}

#[test]
fn whoever_hears_a_higher_ballot_stands_back() {
    for before in [candidate(1), leader(), proposing(&plain('a'))] {
        for (high, leads) in [
            (prepare(SLOT, ballot(1, 2)), None),
            (accept(SLOT, ballot(1, 2), plain('x')), Some(id(2))),
            (lead(SLOT, ballot(1, 2)), Some(id(2))),
        ] {
            let mut log = before.clone();
            hear(&mut log, 2, high);
            assert_eq!((log.is_leading(), log.leader()), (false, leads));
            let late = hear(&mut log, 3, promise(SLOT, ballot(1, 1), None));
            assert_eq!((late, log.is_leading()), (nothing(), false));
            assert_eq!(next_ballot(&log), ballot(2, 1));
        }
    }
}

/// Its own messages to itself have not arrived yet, so its acceptor still answers a lower ballot.
#[test]
fn a_lower_ballot_is_answered_and_does_not_end_ones_own() {
    let lower = ballot(1, 2);
    let own = ballot(1, 3);
    for request in [
        prepare(SLOT, lower),
        accept(SLOT, lower, plain('x')),
        lead(SLOT, lower),
    ] {
        let mut log = candidate(3);
        assert_eq!(hear(&mut log, 2, request).send.len(), 1);
        hear(&mut log, 1, promise(SLOT, own, None));
        let led = hear(&mut log, 2, promise(SLOT, own, None));
        assert_eq!(led, tells(lead(SLOT, own)));
        assert_eq!(log.leader(), Some(id(3)));
    }
}

#[test]
fn a_new_ballot_is_above_all_used_heard_and_promised() {
    let record = |round| LogRecord::Round { round };
    let mut used = log(1);
    used.restore(record(6));
    let mut heard = log(1);
    hear(&mut heard, 2, lead(SLOT, ballot(6, 2)));
    let mut promised = log(1);
    promised.restore(promise_record(ballot(6, 2)));
    for log in [&mut used, &mut heard, &mut promised] {
        assert_eq!(until_it_acts(log).1, starts(SLOT, ballot(7, 1)));
        assert_eq!(until_it_acts(log).1, starts(SLOT, ballot(8, 1)));
    }
}

#[test]
fn a_candidate_has_no_leader() {
    let mut log = log(1);
    hear(&mut log, 2, lead(SLOT, ballot(1, 2)));
    assert_eq!(log.leader(), Some(id(2)));
    until_it_acts(&mut log);
    assert_eq!(log.leader(), None);
}

/// It takes a peer that sends absurd ballots. Then it leads no more, and stays safe.
#[test]
fn when_rounds_are_exhausted_it_leads_no_more() {
    let last = u64::MAX - 1;
    let mut log = log(1);
    log.restore(LogRecord::Round { round: last - 1 });
    let (_, effects) = until_it_acts(&mut log);
    assert_eq!(effects, starts(SLOT, ballot(last, 1)));
    for _ in 0..EVER {
        assert_eq!(tick(&mut log), nothing());
    }
    for absurd in [ballot(last, 2), ballot(u64::MAX, 2)] {
        let promised = hear(&mut log, 2, prepare(SLOT, absurd));
        let answer = promise(SLOT, absurd, None);
        assert_eq!(promised, answers_saved(promise_record(absurd), 2, answer));
        for _ in 0..EVER {
            assert_eq!(tick(&mut log), nothing());
        }
    }
}

/// One replica is a majority of one.
#[test]
fn a_single_acceptor_leads_by_its_own_promise() {
    let mut log = Log::new(id(1), CONFIG, SLOT, acceptors(&[1]));
    until_it_acts(&mut log);
    let own = ballot(1, 1);
    let led = hear(&mut log, 1, promise(SLOT, own, None));
    assert_eq!(led, tells(lead(SLOT, own)));
    propose(&mut log, plain('a'));
    let learned = hear(&mut log, 1, accepted(SLOT, own));
    assert_eq!(learned.chosen, [(SLOT, plain('a'))]);
    assert!(log.is_free());
}
