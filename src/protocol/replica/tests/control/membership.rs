//! Who has to be heard before the membership changes.

use super::*;
use crate::protocol::message::Declined;

fn reconfigure(latest: u32, ids: &[u32]) -> Message {
    Message::Reconfigure {
        latest,
        configuration: configuration(ids),
    }
}

fn probed(rig: &mut Rig, from: u32, slot: u64) -> Effects<Replica> {
    rig.hear(replica(from), Message::Probed { slot })
}

fn proposes(out: &Effects<Replica>) -> bool {
    let is_accept = |message: &Message| matches!(message, Message::Log(LogMessage::Accept { .. }));
    out.send.iter().any(|(_, message)| is_accept(message))
}

/// What the operator is told, within the patience of the leader.
fn told(rig: &mut Rig) -> Option<Declined> {
    for _ in 0..1_000 {
        for (to, message) in rig.tick().send {
            if let (Peer::Operator(_), Message::Declined(why)) = (to, message) {
                return Some(why);
            }
        }
    }
    None
}

fn unheard(ids: &[u32]) -> Option<Declined> {
    let ids = ids.iter().copied().map(ReplicaId).collect();
    Some(Declined::Unheard(ids))
}

/// The counter-example: replica 3 is down, and an operator removes 1 and 2. What is left of the
/// cluster is the replica that is down.
#[test]
fn a_configuration_whose_majority_is_not_heard_is_declined() {
    let mut rig = leading_the_first(config(1, 3));
    let out = rig.hear(operator(), reconfigure(1, &[3]));
    assert!(!proposes(&out));
    assert_eq!(told(&mut rig), unheard(&[3]));
    assert_eq!(rig.replica.generations().latest(), 1);
}

/// The counter-example: a cluster of one is to grow by two replicas, at addresses where no process
/// answers. It would be the last entry of its log.
#[test]
fn a_replica_that_is_added_and_not_heard_is_declined() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 3, 4, 5]));
    for heard in [2, 3, 4] {
        assert!(
            !proposes(&probed(&mut rig, heard, 0)),
            "a majority, but not 5"
        );
    }
    assert_eq!(told(&mut rig), unheard(&[5]));
}

#[test]
fn an_operator_that_asks_again_does_not_make_the_leader_begin_anew() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 3, 4, 5]));
    for heard in [2, 4] {
        probed(&mut rig, heard, 0);
        assert_eq!(
            rig.hear(operator(), reconfigure(1, &[1, 2, 3, 4, 5])),
            nothing()
        );
    }
    assert!(proposes(&probed(&mut rig, 5, 0)));
}

/// Those that stay need not all be up: one of them may be the reason for the change.
#[test]
fn a_majority_of_those_that_stay_is_enough() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 4]));
    assert!(proposes(&probed(&mut rig, 4, 0)), "1 and 4, and 2 is down");
}

#[test]
fn one_that_lags_does_not_count_before_it_has_caught_up() {
    let mut rig = Rig::with(leading([]).config, chosen_all(&third()));
    rig.tick();
    for from in [2, 3] {
        let promise = log(LogMessage::Promise {
            slot: 2,
            ballot: ballot(1, 1),
            accepted: None,
        });
        rig.hear(replica(from), promise);
    }
    assert!(rig.replica.is_leading());
    rig.hear(operator(), reconfigure(3, &[1, 2, 4]));
    assert!(!proposes(&probed(&mut rig, 4, 1)), "it lacks an entry");
    let out = rig.tick();
    let again = (replica(4), Message::Probe { slot: 2 });
    assert!(out.send.contains(&again), "it is asked again");
    assert!(proposes(&probed(&mut rig, 4, 2)));
}

#[test]
fn one_that_is_none_of_the_new_configuration_counts_for_nothing() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 4]));
    assert!(!proposes(&probed(&mut rig, 3, 0)));
    assert!(!proposes(&probed(&mut rig, 9, 0)));
}

#[test]
fn a_leader_that_is_deposed_while_it_waits_says_so() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 4]));
    let ballot = ballot(4, 2);
    rig.hear(replica(2), log(LogMessage::Lead { slot: 0, ballot }));
    let declined = told(&mut rig);
    let is_told = matches!(declined, Some(Declined::NotLeader { .. }));
    assert!(is_told, "{declined:?}");
    assert!(!proposes(&probed(&mut rig, 4, 0)));
}

#[test]
fn a_generation_that_turns_while_it_waits_is_told() {
    let mut rig = leading_the_first(config(1, 3));
    rig.hear(operator(), reconfigure(1, &[1, 2, 4]));
    rig.hear(replica(2), learn(0, open(2, &[1, 2, 3])));
    rig.tick();
    for from in [2, 3] {
        let promise = log(LogMessage::Promise {
            slot: 1,
            ballot: ballot(2, 1),
            accepted: None,
        });
        rig.hear(replica(from), promise);
    }
    let out = probed(&mut rig, 4, 1);
    let declined = told(&mut rig);
    assert!(!proposes(&out), "{declined:?}");
}

/// A replica that waits to be added answers before it knows the cluster, learns what there is, and
/// ends when an id above its own is used.
#[test]
fn one_that_waits_to_be_added_answers_and_ends_when_it_is_passed_over() {
    let mut rig = joining();
    let out = rig.hear(replica(1), Message::Probe { slot: 0 });
    assert_eq!(out.send, [(replica(1), Message::Probed { slot: 0 })]);
    let out = rig.hear(replica(1), Message::Probe { slot: 2 });
    assert!(
        out.send.contains(&(replica(1), fetch(0))),
        "it asks for what it lacks"
    );
    let [second, third] = third();
    let out = rig.hear(replica(1), state(&[second.clone(), third.clone()], []));
    assert!(!out.notify.contains(&ReplicaNotice::Removed), "it waits");
    assert!(!rig.replica.is_removed());
    let mut rig = rig.restart();
    assert!(!rig.replica.is_removed(), "also after a restart");
    let out = rig.hear(replica(1), Message::Probe { slot: 2 });
    assert_eq!(out.send, [(replica(1), Message::Probed { slot: 2 })]);
    let passed = open(4, &[1, 2, 5]);
    let out = rig.hear(replica(1), state(&[second, third, passed], []));
    assert!(out.notify.contains(&ReplicaNotice::Removed), "{out:?}");
    assert!(rig.replica.is_removed());
}
