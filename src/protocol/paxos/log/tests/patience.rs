//! Time: who waits how long for what, in ticks.

use super::*;

/// The ticks between the ballots of a replica that nobody answers, from its start.
fn lonely(mut log: Log<Item>, ballots: usize) -> Vec<u32> {
    let mut waits = Vec::new();
    for round in 1..=ballots as u64 {
        let (ticks, effects) = until_it_acts(&mut log);
        assert_eq!(effects, starts(SLOT, ballot(round, log.me.0)));
        waits.push(ticks);
    }
    waits
}

/// A candidate that was not answered `times` times.
fn frustrated(times: u32) -> Log<Item> {
    let mut log = candidate(1);
    for _ in 0..times {
        until_it_acts(&mut log);
    }
    assert_eq!(log.attempts, times);
    log
}

/// Gives `log` a ballot of its own that leads; answers with the ballot.
fn promote(log: &mut Log<Item>) -> Ballot {
    let own = ballot(log.used, 1);
    hear(log, 2, promise(SLOT, own, None));
    hear(log, 3, promise(SLOT, own, None));
    assert!(log.is_free());
    own
}

/// How many ticks a leader goes on that hears nothing, and what it says meanwhile.
fn goes_on_for(log: &mut Log<Item>) -> (u32, Vec<Effects>) {
    let mut said = Vec::new();
    for ticks in 1..=EVER {
        let effects = tick(log);
        if effects != nothing() {
            said.push(effects);
        }
        if !log.is_leading() {
            return (ticks, said);
        }
    }
    panic!("it goes on for ever");
}

#[test]
fn the_default_is_a_sign_of_life_each_200_ms_and_a_new_leader_after_1_s() {
    let expected = LogConfig {
        heartbeat_ticks: 4,
        silence_ticks: 20,
        stagger_ticks: 8,
        silence_ticks_max: 400,
    };
    assert_eq!(LogConfig::default(), expected);
}

/// Position, doubling up to the most, and a number that is each replica's own.
#[test]
fn each_ballot_waits_longer() {
    let expected = [
        [11, 11, 29, 87, 127, 164, 177, 189, 138],
        [14, 14, 26, 61, 125, 225, 238, 187, 200],
        [17, 17, 44, 58, 98, 223, 236, 248, 197],
    ];
    for (me, waits) in (1..).zip(expected) {
        assert_eq!(lonely(log(me), 9), waits);
    }
}

#[test]
fn the_first_wait_is_never_cut_short() {
    let config = LogConfig {
        silence_ticks_max: 3,
        ..CONFIG
    };
    let log = Log::new(id(1), config, SLOT, acceptors(&[1, 2, 3]));
    assert_eq!(lonely(log, 5), [11, 11, 18, 54, 67]);
}

/// Sixteen doublings are the most, and four of what is random.
#[test]
fn doubling_ends() {
    let config = LogConfig {
        silence_ticks: 1,
        stagger_ticks: 0,
        silence_ticks_max: u32::MAX,
        ..CONFIG
    };
    let mut log: Log<Item> = Log::new(id(1), config, SLOT, acceptors(&[1, 2, 3]));
    let mut waits = Vec::new();
    for attempts in 0..20 {
        log.attempts = attempts;
        log.wait();
        waits.push(log.patience);
    }
    let expected = [
        1, 3, 7, 8, 29, 42, 70, 131, 256, 525, 1033, 2054, 4099, 8192, 16396, 32777, 65542, 65539,
        65551, 65548,
    ];
    assert_eq!(waits, expected);
}

/// Absurd times are no reason to stop.
#[test]
fn no_number_of_ticks_overflows() {
    let config = |ticks| LogConfig {
        heartbeat_ticks: ticks,
        silence_ticks: ticks,
        stagger_ticks: ticks,
        silence_ticks_max: ticks,
    };
    let mut longest = Log::new(id(3), config(u32::MAX), SLOT, acceptors(&[1, 2, 3]));
    assert_eq!(longest.patience, u32::MAX);
    longest.attempts = u32::MAX;
    longest.wait();
    assert_eq!(longest.patience, u32::MAX);
    longest.patience = 1;
    until_it_acts(&mut longest);
    assert_eq!((longest.attempts, longest.patience), (u32::MAX, u32::MAX));
    let mut none: Log<Item> = Log::new(id(3), config(0), SLOT, acceptors(&[1, 2, 3]));
    for round in 1..9 {
        assert_eq!(tick(&mut none), starts(SLOT, ballot(round, 3)));
        assert_eq!(none.patience, 0);
    }
}

/// It does not take part, so it does not matter; but there must be some number.
#[test]
fn whoever_has_no_position_waits_like_the_first() {
    let waits = [1, 2, 3, 4].map(|me| log(me).patience);
    assert_eq!(waits, [11, 14, 17, 11]);
}

/// Two that get in each other's way do not do so in the same tick again.
#[test]
fn no_two_replicas_wait_alike() {
    let five = acceptors(&[1, 2, 3, 4, 5]);
    let wait = |me, attempts| {
        let config = LogConfig::default();
        let mut log: Log<Item> = Log::new(id(me), config, SLOT, five.clone());
        log.attempts = attempts;
        log.wait();
        log.patience
    };
    for attempts in 0..12 {
        let waits: std::collections::BTreeSet<u32> = (1..=5).map(|me| wait(me, attempts)).collect();
        assert_eq!(waits.len(), 5, "after {attempts} attempts: {waits:?}");
    }
}

#[test]
fn another_attempt_is_counted_when_something_got_in_the_way() {
    let mut timed_out = candidate(1);
    until_it_acts(&mut timed_out);
    assert_eq!(quiet_for(&timed_out), 29);
    for mut refused in [candidate(1), leader(), proposing(&plain('a'))] {
        hear(&mut refused, 3, nack(SLOT, ballot(1, 1), ballot(9, 3)));
        assert_eq!(quiet_for(&refused), 29);
    }
    for mut unanswered in [leader(), proposing(&plain('a'))] {
        goes_on_for(&mut unanswered);
        assert_eq!(quiet_for(&unanswered), 29);
    }
    // To stand back before a ballot, or to learn what another got chosen, is no failure.
    let mut stood_back = candidate(1);
    hear(&mut stood_back, 2, prepare(SLOT, ballot(1, 2)));
    assert_eq!(quiet_for(&stood_back), 11);
}

#[test]
fn a_leader_makes_the_attempts_forgotten() {
    let messages = [
        lead(SLOT, ballot(9, 2)),
        accept(SLOT, ballot(9, 2), plain('x')),
    ];
    for message in messages {
        let mut log = frustrated(2);
        assert_eq!(quiet_for(&log), 87);
        hear(&mut log, 2, message);
        assert_eq!(quiet_for(&log), 11);
    }
    let mut log = frustrated(2);
    let own = promote(&mut log);
    hear(&mut log, 3, nack(SLOT, own, ballot(9, 3)));
    assert_eq!(quiet_for(&log), 29, "the first attempt again");
    // A ballot that is not known to lead does not.
    let mut log = frustrated(2);
    hear(&mut log, 2, prepare(SLOT, ballot(9, 2)));
    assert_eq!(quiet_for(&log), 87);
    let mut log = frustrated(2);
    hear(&mut log, 2, chosen(SLOT, plain('x')));
    assert_eq!(quiet_for(&log), 87);
}

#[test]
fn a_follower_is_patient_again_when_it_hears_of_a_ballot_under_way() {
    let high = ballot(9, 3);
    let news = [
        prepare(SLOT, high),
        accept(SLOT, high, plain('x')),
        lead(SLOT, high),
        lead(SLOT, ballot(4, 3)),
        chosen(SLOT, plain('x')),
    ];
    for message in news {
        let mut log = log(2);
        hear(&mut log, 1, accept(SLOT, ballot(4, 1), plain('x')));
        for _ in 0..13 {
            tick(&mut log);
        }
        assert_eq!(quiet_for(&log), 1);
        hear(&mut log, 3, message);
        assert_eq!(quiet_for(&log), 14);
    }
}

/// Else one that nobody follows could keep all others quiet.
#[test]
fn nothing_else_makes_it_patient() {
    let idle = [
        prepare(SLOT, ballot(4, 1)),
        prepare(SLOT, ballot(3, 1)),
        accept(SLOT, ballot(3, 1), plain('y')),
        lead(SLOT, ballot(3, 1)),
        lead(SLOT + 1, ballot(9, 1)),
        lead(SLOT - 1, ballot(9, 1)),
        promise(SLOT, ballot(9, 2), None),
        accepted(SLOT, ballot(9, 2)),
        nack(SLOT, ballot(9, 2), ballot(9, 3)),
        following(SLOT, ballot(4, 1)),
        chosen(SLOT - 1, plain('x')),
    ];
    for message in idle {
        let mut log = log(2);
        hear(&mut log, 1, prepare(SLOT, ballot(4, 1)));
        tick(&mut log);
        hear(&mut log, 1, message.clone());
        assert_eq!(quiet_for(&log), 13, "{message:?}");
    }
}

#[test]
fn a_leader_repeats_itself_each_heartbeat() {
    let mut free = leader();
    let sign = tells(lead(SLOT, ballot(1, 1)));
    assert_eq!(until_it_acts(&mut free), (5, sign.clone()));
    assert_eq!(until_it_acts(&mut free), (5, sign));
    // Whatever it says counts as a sign of life: the next comes a whole heartbeat later.
    let mut log = leader();
    tick(&mut log);
    propose(&mut log, plain('a'));
    let again = tells(accept(SLOT, ballot(1, 1), plain('a')));
    assert_eq!(until_it_acts(&mut log), (5, again.clone()));
    assert_eq!(until_it_acts(&mut log), (5, again));
    tick(&mut log);
    hear(&mut log, 1, accepted(SLOT, ballot(1, 1)));
    hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    assert_eq!(quiet_for(&log), 5);
}

/// A leader that nobody answers would keep the others quiet and get nothing done.
#[test]
fn a_leader_that_nobody_answers_steps_down() {
    let mut free = leader();
    let sign = tells(lead(SLOT, ballot(1, 1)));
    assert_eq!(goes_on_for(&mut free), (15, vec![sign.clone(), sign]));
    assert_eq!(free.leader(), None);
    assert_eq!(until_it_acts(&mut free), (29, starts(SLOT, ballot(2, 1))));
    let mut busy = proposing(&plain('a'));
    let again = tells(accept(SLOT, ballot(1, 1), plain('a')));
    assert_eq!(goes_on_for(&mut busy), (15, vec![again.clone(), again]));
}

/// It goes on as long as followers do not take over, and no longer.
#[test]
fn exactly_when_its_silence_is_longer_than_theirs() {
    for (silence_ticks, expected) in [(4, 5), (5, 10), (9, 10), (10, 15), (11, 15), (14, 15)] {
        let config = LogConfig {
            silence_ticks,
            ..CONFIG
        };
        let mut log = Log::new(id(1), config, SLOT, acceptors(&[1, 2, 3]));
        until_it_acts(&mut log);
        promote(&mut log);
        assert_eq!(goes_on_for(&mut log).0, expected, "{silence_ticks}");
    }
}

/// Between two signs of life, a majority must answer: with an acceptance, or as a follower.
#[test]
fn a_leader_that_is_answered_goes_on() {
    let own = ballot(1, 1);
    let (follows, took) = (following(SLOT, own), accepted(SLOT, own));
    let majorities = [
        [(1, follows.clone()), (3, follows.clone())],
        [(2, follows.clone()), (3, took)],
    ];
    for (majority, mut log) in majorities
        .into_iter()
        .zip([leader(), proposing(&plain('a'))])
    {
        for _ in 0..20 {
            for (from, answer) in majority.clone() {
                assert_eq!(hear(&mut log, from, answer), nothing());
            }
            assert_eq!(until_it_acts(&mut log).0, 5);
        }
        assert_eq!(goes_on_for(&mut log).0, 15, "when they fall silent");
    }
}

#[test]
fn answers_that_do_not_keep_a_leader() {
    let own = ballot(1, 1);
    let cases = [
        vec![(1, following(SLOT, own)), (1, following(SLOT, own))],
        vec![
            (1, following(SLOT, own)),
            (2, following(SLOT, ballot(1, 2))),
        ],
        vec![
            (1, following(SLOT, own)),
            (2, following(SLOT, ballot(2, 1))),
        ],
        vec![(1, following(SLOT, own)), (2, accepted(SLOT, ballot(2, 1)))],
        vec![(1, following(SLOT, own)), (2, promise(SLOT, own, None))],
        vec![(1, following(SLOT, own)), (4, following(SLOT, own))],
    ];
    for answers in cases {
        let mut log = proposing(&plain('a'));
        for _ in 0..2 {
            for (from, answer) in answers.clone() {
                hear(&mut log, from, answer);
            }
            assert_eq!(until_it_acts(&mut log).0, 5);
        }
        for (from, answer) in answers.clone() {
            hear(&mut log, from, answer);
        }
        assert_eq!(goes_on_for(&mut log).0, 5, "{answers:?}");
    }
}

/// The answers of each heartbeat are counted anew, and what was missed before is forgiven.
#[test]
fn one_answered_heartbeat_is_enough_for_a_while() {
    let mut log = leader();
    let follow = |log: &mut Log<Item>, from| hear(log, from, following(SLOT, ballot(1, 1)));
    for _ in 0..2 {
        assert_eq!(until_it_acts(&mut log).0, 5);
    }
    follow(&mut log, 2);
    follow(&mut log, 3);
    assert_eq!(until_it_acts(&mut log).0, 5, "it would have stepped down");
    assert_eq!(goes_on_for(&mut log).0, 15);
    // One answer in each of two heartbeats makes no majority in any of them.
    let mut log = leader();
    for from in [2, 3] {
        follow(&mut log, from);
        assert_eq!(until_it_acts(&mut log).0, 5);
    }
    assert_eq!(goes_on_for(&mut log).0, 5);
}

/// A chosen entry is the best of answers.
#[test]
fn the_next_slot_begins_with_all_answered() {
    let mut log = proposing(&plain('a'));
    for _ in 0..2 {
        assert_eq!(until_it_acts(&mut log).0, 5);
    }
    hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
    assert_eq!(goes_on_for(&mut log).0, 15);
}

#[test]
fn a_candidate_waits_like_a_follower() {
    let mut log = candidate(2);
    hear(&mut log, 3, promise(SLOT, ballot(1, 2), None));
    assert_eq!(quiet_for(&log), 14);
}

/// The new position, among the new acceptors.
#[test]
fn an_installed_state_makes_it_patient_again() {
    let mut log = log(2);
    for _ in 0..13 {
        tick(&mut log);
    }
    log.install(SLOT + 1, acceptors(&[0, 1, 2]));
    assert_eq!(quiet_for(&log), 17);
}

/// The first ballot among other acceptors has the time of any first ballot.
#[test]
fn phase_1_after_a_change_waits_by_the_new_position() {
    let mut log = proposing(&change('m', &[0, 1, 2]));
    hear(&mut log, 2, accepted(SLOT, ballot(1, 1)));
    hear(&mut log, 3, accepted(SLOT, ballot(1, 1)));
    assert_eq!(
        until_it_acts(&mut log),
        (14, starts(SLOT + 1, ballot(3, 1)))
    );
}
