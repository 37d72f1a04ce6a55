//! What all hosts share: effects that are used again, and how things are printed.

use serde::Deserialize;
use serde::de::IntoDeserializer;
use serde::de::value::{Error, U32Deserializer};

use crate::protocol::types::{ParticipantName, Request};

use super::*;

#[test]
fn cleared_effects_are_empty() {
    let mut out = starts(ballot(1, 1), &[id(1)]);
    out.set(ReplicaTimer::Tick, TICK);
    let refused = rejected(a(), Rejection::TooLong);
    out.notify = refused.notify;
    out.clear();
    assert_eq!(out, nothing());
    assert!(out.is_empty());
}

#[test]
fn any_effect_makes_them_not_empty() {
    let mut timers = nothing();
    timers.set(ReplicaTimer::Tick, TICK);
    for out in [
        saves([finished_record(1, Abort)]),
        sends([(a(), vote(1, Prepared))]),
        rejected(a(), Rejection::TooLong),
        timers,
    ] {
        assert!(!out.is_empty());
    }
}

#[test]
fn peers_and_outcomes_are_printed_as_people_say_them() {
    assert_eq!(replica(2).to_string(), "replica/2");
    assert_eq!(
        a().to_string(),
        "participant/a/0000000000000001/00000000000000000000000000000001"
    );
    assert_eq!(
        initiator().to_string(),
        "initiator/00000000000000000000000000000007"
    );
    assert_eq!(operator().to_string(), "operator/1");
    assert_eq!(Commit.to_string(), "commit");
    assert_eq!(Abort.to_string(), "abort");
}

#[test]
fn a_request_prints_its_length_and_not_its_bytes() {
    let request = Request([1, 2, 3].into());
    assert_eq!(format!("{request:?}"), "Request(3 bytes)");
}

#[test]
fn acceptors_are_written_as_the_list_that_they_are_read_from() {
    let list = Vec::from(acceptors(3));
    assert_eq!(list, [1, 2, 3].map(ReplicaId));
    assert_eq!(Acceptors::try_from(list), Ok(acceptors(3)));
}

#[test]
fn what_is_read_where_a_name_should_be_is_quoted() {
    let number: U32Deserializer<Error> = 1_u32.into_deserializer();
    assert_eq!(
        ParticipantName::deserialize(number)
            .unwrap_err()
            .to_string(),
        "invalid type: integer `1`, expected a participant's name"
    );
}
