//! A session works only when the replicas have let it in.

use super::*;
use crate::protocol::message::Admission;
use crate::protocol::participant::Standing;
use crate::protocol::types::Opening;

/// An opening of the store under test.
fn opening(number: u64) -> Opening {
    let nonce = 100 + number;
    Opening { number, nonce }
}

/// A session that nobody has let in, of the third opening of its store.
fn outside() -> Rig {
    let acceptors = Acceptors::new((1..=3).map(ReplicaId)).unwrap();
    let config = ParticipantConfig {
        openings: [1, 2, 3].map(opening).into(),
        tick: TICK,
        retry_ticks: 3,
        retry_ticks_max: 20,
        work_ticks_max: 5,
        ..ParticipantConfig::new(me(), acceptors)
    };
    let participant = Participant::recover(config, [], &mut Effects::default());
    Rig { participant }
}

fn present(after: Option<Opening>) -> Message {
    let opening = Some(opening(3));
    Message::Present { opening, after }
}

fn admission(slot: u64, admission: Admission) -> Message {
    Message::Admission { slot, admission }
}

fn entered(slot: u64) -> Message {
    admission(slot, Admission::Entered)
}

fn vacant(slot: u64) -> Message {
    admission(slot, Admission::Vacant)
}

fn other(slot: u64) -> Message {
    let entered = StoreId::from_u128(2);
    admission(slot, Admission::OtherStore { entered })
}

fn opened(slot: u64, number: u64) -> Message {
    let seen = opening(number);
    admission(slot, Admission::Opened { seen })
}

const OTHER: Standing = Standing::OtherStore {
    entered: StoreId::from_u128(2),
};

fn old(number: u64) -> Standing {
    let seen = opening(number);
    Standing::OldOpening { seen }
}

fn stands(standing: Standing) -> Effects<Participant> {
    notifies([ParticipantNotice::Stands(standing)])
}

fn not_entered(sequence: u32, standing: Standing) -> Effects<Participant> {
    notifies([ParticipantNotice::Refused {
        txn: txn(sequence),
        why: Refusal::NotEntered(standing),
    }])
}

#[test]
fn it_does_nothing_before_it_is_let_in() {
    let mut rig = outside();
    assert_eq!(
        rig.found([found(id(4), 2)]),
        nothing(),
        "not even a question"
    );
    let out = rig.step(Input::Connected(replica(2)));
    assert_eq!(out, sends([(replica(2), present(None))]));
    assert_eq!(rig.hear(2, vacant(0)), nothing());
    assert_eq!(rig.begin(1), not_entered(1, Standing::Asking));
    assert_eq!(rig.asked(with_request(1)), nothing());
    let applies = finish(id(5), branch("a", 2), Commit);
    assert_eq!(rig.hear(1, applies.clone()), nothing());
    let again = sends(to_all(present(None)));
    assert_eq!(rig.wait(), (20, again), "it asks again");
    let mut expected = stands(Standing::Entered);
    expected.send = to_all(question(id(4), 2, Voter::Unknown));
    assert_eq!(rig.hear(3, entered(1)), expected, "one replica is enough");
    assert_eq!(rig.begin(1), notifies([began(1)]));
    assert!(!rig.hear(1, applies).is_empty());
}

#[test]
fn on_another_store_it_finishes_what_that_holds_and_nothing_else() {
    let mut rig = outside();
    rig.found([found(id(4), 2)]);
    // One replica may be behind: it takes a majority.
    assert_eq!(rig.hear(1, other(1)), nothing());
    let mut expected = stands(OTHER);
    expected.send = to_all(question(id(4), 2, Voter::Unknown));
    assert_eq!(rig.hear(2, other(1)), expected);
    assert_eq!(rig.begin(1), not_entered(1, OTHER));
    assert_eq!(rig.asked(with_request(1)), nothing(), "it votes nothing");
    let asks = notifies([asks_to_finish(id(4), 2, Commit)]);
    assert_eq!(rig.hear(2, finish(id(4), branch("a", 2), Commit)), asks);
    let out = rig.finished(id(4), 2);
    assert_eq!(out, sends(to_all(applied(id(4), branch("a", 2)))));
}

#[test]
fn a_replica_that_is_behind_refuses_nobody() {
    let mut rig = outside();
    // The other store was given up, and this one is to be entered: the third has not heard of it.
    rig.hear(3, other(4));
    assert_eq!(rig.hear(1, vacant(5)), nothing());
    assert_eq!(rig.hear(2, vacant(5)), nothing());
    assert_eq!(rig.participant.standing(), Standing::Asking);
    assert_eq!(rig.hear(1, entered(6)), stands(Standing::Entered));
    assert_eq!(rig.hear(3, other(4)), nothing());
    assert_eq!(rig.hear(3, opened(5, 9)), nothing());
}

#[test]
fn it_comes_after_an_opening_that_its_store_remembers() {
    let mut rig = outside();
    let after = present(Some(opening(2)));
    assert_eq!(rig.hear(2, opened(1, 2)), sends([(replica(2), after)]));
    assert_eq!(rig.hear(2, entered(2)), stands(Standing::Entered));
}

#[test]
fn an_older_copy_does_nothing_for_good() {
    let mut rig = outside();
    rig.found([found(id(4), 2)]);
    assert_eq!(rig.hear(1, opened(1, 4)), nothing());
    assert_eq!(rig.hear(2, opened(1, 4)), stands(old(4)));
    assert_eq!(rig.begin(1), not_entered(1, old(4)));
    let finishes = finish(id(4), branch("a", 2), Commit);
    assert_eq!(rig.hear(2, finishes), nothing());
    assert_eq!(rig.hear(3, entered(9)), nothing());
    assert_eq!(rig.step(Input::Connected(replica(2))), nothing());
    rig.wait_quietly(50);
}

#[test]
fn an_opening_of_its_own_number_is_not_its_own() {
    let mut rig = outside();
    let seen = Opening {
        number: 2,
        nonce: 7,
    };
    let opened = admission(1, Admission::Opened { seen });
    rig.hear(1, opened.clone());
    let standing = Standing::OldOpening { seen };
    assert_eq!(rig.hear(2, opened), stands(standing));
}

#[test]
fn a_store_that_was_opened_again_elsewhere_stops() {
    let mut rig = outside();
    rig.hear(1, entered(1));
    rig.begin(1);
    let out = rig.hear(3, opened(2, 4));
    let expected = [ParticipantNotice::Stands(old(4)), let_go(1)];
    assert_eq!(out, notifies(expected));
}

#[test]
fn who_has_more_of_the_log_knows_better() {
    let mut rig = outside();
    rig.hear(1, entered(1));
    assert_eq!(rig.hear(2, other(5)), stands(OTHER));
    assert_eq!(rig.hear(3, entered(1)), nothing(), "it has not heard of it");
    // An operator has given the other store up, and this one is entered again.
    assert_eq!(rig.hear(1, entered(7)), stands(Standing::Entered));
}

#[test]
fn a_store_that_is_given_up_lets_go_of_its_work_and_votes_abort_for_what_it_prepares() {
    let mut rig = Rig::working();
    rig.asked(please(1));
    rig.begin(2);
    let out = rig.hear(2, other(9));
    let expected = [ParticipantNotice::Stands(OTHER), let_go(2)];
    assert_eq!(out, notifies(expected));
    let out = rig.prepared(1, Prepared);
    assert_eq!(out.send, to_all(vote(1, Aborted)));
}

#[test]
fn a_replica_that_has_not_answered_is_asked_again() {
    let mut rig = outside();
    for from in [1, 2] {
        rig.hear(from, entered(1));
    }
    let asks = sends([(replica(3), present(None))]);
    assert_eq!(rig.wait(), (20, asks));
    rig.hear(3, entered(1));
    rig.wait_quietly(50);
    // What was heard on a connection that is lost counts no longer.
    rig.step(Input::Disconnected(replica(2)));
    let asks = sends([(replica(2), present(None))]);
    assert_eq!(rig.wait().1, asks);
}
