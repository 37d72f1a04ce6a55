//! The hedge, the tick, busy relays, lost connections.

use super::*;

/// To which replica the next new commit goes first.
fn first_relay(rig: &mut Rig) -> Peer {
    let out = rig.begin();
    let [InitiatorNotice::Begun(txn)] = out.notify[..] else {
        panic!("it begins");
    };
    let mut out = rig.commit(txn.sequence, Relay);
    rig.abandon(txn);
    out.send.remove(0).0
}

#[test]
fn when_nothing_was_heard_the_next_relay_is_asked_too_and_first_from_now_on() {
    let mut rig = Rig::begun(2);
    rig.commit(0, Relay);
    rig.commit(1, Relay);
    let asked = |sequence, next| {
        let begin = (replica(next), begin_commit(sequence));
        effects([begin], [], [set_hedge(sequence)])
    };
    assert_eq!(rig.hedge(0), asked(0, 2));
    assert_eq!(first_relay(&mut rig), replica(2));
    assert_eq!(rig.hedge(1), asked(1, 2));
    assert_eq!(first_relay(&mut rig), replica(2), "it had moved on already");
}

#[test]
fn hedges_go_around_and_wait_for_each_replica_once() {
    let mut rig = Rig::committing(Relay);
    let timers = [vec![set_hedge(0)], vec![], vec![], vec![]];
    for (next, timers) in [2, 3, 1, 2].into_iter().zip(timers) {
        let begin = (replica(next), begin_commit(0));
        assert_eq!(rig.hedge(0), effects([begin], [], timers));
        assert_eq!(first_relay(&mut rig), replica(next));
    }
    let mut alone = Rig::among(1);
    alone.begin();
    alone.commit(0, Relay);
    assert_eq!(alone.hedge(0), sends([(replica(1), begin_commit(0))]));
}

/// The counter-example: a hiccup of the second moves everything on to the third, one of the third to
/// the first, which is dead; and everybody waits for it again.
#[test]
fn who_was_silent_is_passed_over_until_it_is_heard_of() {
    let mut rig = Rig::begun(3);
    rig.commit(0, Relay);
    rig.hedge(0);
    assert_eq!(first_relay(&mut rig), replica(2));
    rig.commit(1, Relay);
    assert_eq!(rig.hedge(1).send[0].0, replica(3));
    rig.hear(2, phase2b(id(1), Ballot::ZERO, Commit));
    rig.commit(2, Relay);
    assert_eq!(
        rig.hedge(2).send[0].0,
        replica(2),
        "the first was not heard of"
    );
    assert_eq!(first_relay(&mut rig), replica(2));
    rig.connected(replica(1));
    rig.disconnected(replica(2));
    assert_eq!(first_relay(&mut rig), replica(1), "the third is silent");
}

#[test]
fn a_hedge_that_comes_too_late_is_nothing() {
    let mut rig = Rig::committing(Relay);
    rig.hear(1, decided(id(0), Commit));
    assert_eq!(rig.hedge(0), nothing());
    assert_eq!(first_relay(&mut rig), replica(1));
}

#[test]
fn the_hedge_delay_can_be_changed() {
    let mut rig = Rig::begun(1);
    let after = Duration::from_millis(9);
    assert_eq!(rig.command(InitiatorCommand::HedgeAfter(after)), nothing());
    let timer = InitiatorTimer::Hedge(id(0));
    assert_eq!(
        rig.commit(0, Relay).timers,
        [TimerOp::Set { timer, after }, set_tick()]
    );
}

#[test]
fn an_unanswered_commit_goes_to_one_relay_after_the_other() {
    let mut rig = Rig::committing(Relay);
    for (gap, next) in [(2, 2), (4, 3), (5, 1), (5, 2)] {
        let again = sends([(replica(next), begin_commit(0))]);
        assert_eq!(rig.wait(), (gap, again));
    }
    assert_eq!(
        first_relay(&mut rig),
        replica(1),
        "which says nothing of speed"
    );
}

#[test]
fn branches_that_prepare_by_themselves_are_asked_about_at_all_replicas() {
    let mut rig = Rig::committing(Itself);
    for gap in [2, 4, 5, 5] {
        let asked = to_all(question(id(0), TIMEOUT));
        assert_eq!(rig.wait(), (gap, sends(asked)));
    }
}

#[test]
fn after_very_many_attempts_it_still_tries_again() {
    let mut rig = Rig::committing(Relay);
    for _ in 0..40 {
        rig.wait();
    }
    assert_eq!(rig.wait().0, 5);
}

#[test]
fn what_is_due_at_one_tick_is_all_sent() {
    let mut rig = Rig::begun(3);
    rig.commit(0, Relay);
    rig.commit(1, Itself);
    rig.ask(old_id());
    assert_eq!(rig.busy_tick(), nothing());
    let mut expected = vec![(replica(2), begin_commit(0))];
    expected.extend(to_all(question(id(1), TIMEOUT)));
    expected.extend(to_all(question(old_id(), Duration::ZERO)));
    assert_eq!(rig.busy_tick(), sends(expected));
}

#[test]
fn it_ticks_only_while_something_is_open() {
    let mut rig = Rig::committing(Relay);
    rig.busy_tick();
    rig.hear(1, decided(id(0), Commit));
    assert!(rig.is_at_rest());
    rig.begin();
    assert_eq!(rig.commit(1, Relay).timers, [set_hedge(1), set_tick()]);
    let mut begun = Rig::begun(1);
    assert!(
        begun.is_at_rest(),
        "a transaction without commit needs no tick"
    );
    assert_eq!(begun.connected(replica(1)), nothing());
}

#[test]
fn a_busy_relay_is_left_alone_and_the_next_asked_later() {
    let mut rig = Rig::committing(Relay);
    rig.busy_tick();
    assert_eq!(rig.busy(1, id(0)), effects([], [], [cancel_hedge(0)]));
    let again = sends([(replica(2), begin_commit(0))]);
    assert_eq!(rig.wait(), (4, again));
    assert_eq!(rig.wait().0, 5);
}

#[test]
fn busy_about_a_question_backs_it_off() {
    let mut rig = Rig::new();
    rig.ask(old_id());
    rig.busy_tick();
    assert_eq!(rig.busy(1, old_id()), nothing());
    assert_eq!(rig.wait().0, 4);
}

#[test]
fn busy_about_something_else_changes_nothing() {
    let mut rig = Rig::committing(Relay);
    rig.ask(old_id());
    rig.busy_tick();
    assert_eq!(rig.busy(1, id(1)), nothing());
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out.send.len()), (1, 4));
}

#[test]
fn a_relay_that_went_away_is_not_waited_for() {
    let mut rig = Rig::begun(3);
    rig.commit(0, Relay);
    rig.commit(1, Itself);
    rig.commit(2, Relay);
    let moved = [(replica(2), begin_commit(0)), (replica(2), begin_commit(2))];
    let timers = [set_hedge(0), set_hedge(2)];
    assert_eq!(rig.disconnected(replica(1)), effects(moved, [], timers));
    assert_eq!(first_relay(&mut rig), replica(2));
    assert_eq!(rig.disconnected(replica(1)), nothing());
    assert_eq!(rig.disconnected(replica(3)), nothing());
    assert_eq!(rig.disconnected(Peer::Session(branch("a", 1))), nothing());
    assert_eq!(first_relay(&mut rig), replica(2));
}

#[test]
fn the_first_relay_that_went_away_is_not_asked_first() {
    let mut rig = Rig::new();
    for next in [2, 3, 1] {
        let gone = first_relay(&mut rig);
        assert_eq!(rig.disconnected(gone), nothing());
        assert_eq!(first_relay(&mut rig), replica(next));
    }
    let mut alone = Rig::among(1);
    assert_eq!(alone.disconnected(replica(1)), nothing());
    assert_eq!(first_relay(&mut alone), replica(1));
}

#[test]
fn after_a_new_connection_all_is_asked_again_at_the_next_tick() {
    let mut rig = Rig::committing(Relay);
    rig.ask(old_id());
    for _ in 0..3 {
        rig.wait();
    }
    assert_eq!(rig.connected(Peer::Session(branch("a", 1))), nothing());
    assert_eq!(rig.busy_tick(), nothing());
    assert_eq!(rig.connected(replica(2)), nothing(), "the tick is set");
    let (ticks, out) = rig.wait();
    assert_eq!((ticks, out.send.len()), (1, 4));
}
