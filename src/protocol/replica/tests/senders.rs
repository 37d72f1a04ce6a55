//! Who may say what: every message from every kind of peer that may not send it.

use crate::protocol::message::Prepare;
use crate::protocol::types;

use super::*;

fn every_message() -> Vec<Message> {
    let participant: types::ParticipantName = "a".parse().unwrap();
    vec![
        begun(1),
        Message::Rollback {
            txn: txn(1),
            branches: Vec::new(),
            floor: 0,
        },
        ask(id(1), None, Voter::Unknown),
        Message::Inquire { txn: txn(1) },
        Message::Resolve {
            participant: participant.clone(),
        },
        Message::ForceAbort { id: id(1) },
        Message::Prepare(Prepare {
            id: id(1),
            roster: ab(),
            request: None,
            read_only: types::ReadOnly::Allowed,
            floor: 0,
            vote_timeout: TIMEOUT,
        }),
        Message::LetGo {
            txn: txn(1),
            floor: 0,
        },
        vote(1, Prepared),
        applied(id(1), branch("a", 1)),
        phase1a(ballot(1, 2), &[id(1)]),
        phase1b(ballot(1, 1), []),
        phase2a(ballot(1, 2), []),
        phase2b(id(1), ballot(1, 2), Abort),
        nack(ballot(1, 1), []),
        decided(id(1), Abort, None),
        finish(id(1), branch("a", 1), Abort),
        undecided(id(1), &[], &[]),
        Message::Status {
            txn: txn(1),
            instances: Vec::new(),
        },
        Message::Resolved {
            participant,
            branches: Vec::new(),
        },
        Message::Busy { id: id(1) },
        Message::Disputed {
            id: id(1),
            branch: branch("a", 1),
        },
        Message::Contradicted {
            id: id(1),
            branch: branch("a", 1),
        },
        Message::Unproven {
            id: id(1),
            branch: branch("a", 1),
        },
        Message::List {
            through: id(1),
            after: None,
        },
    ]
}

/// The names of the messages that a replica takes from `peer`.
fn taken_from(peer: &Peer) -> Vec<String> {
    let refused = rejected(peer.clone(), Rejection::NotFromSuchAPeer);
    let mut taken = Vec::new();
    for message in every_message() {
        let name = format!("{message:?}");
        if Rig::new(1).hear(peer.clone(), message) != refused {
            let end = name.find(['(', ' ']).unwrap();
            taken.push(name[..end].to_string());
        }
    }
    taken
}

#[test]
fn each_kind_of_peer_says_what_it_may_and_nothing_else() {
    let initiator_says = [
        "BeginCommit",
        "Rollback",
        "Ask",
        "Inquire",
        "Resolve",
        "ForceAbort",
    ];
    assert_eq!(taken_from(&initiator()), initiator_says);
    assert_eq!(
        taken_from(&a()),
        [
            "Ask",
            "Inquire",
            "Vote",
            "Applied",
            "Contradicted",
            "Unproven",
            "List"
        ]
    );
    let operator_says = ["Ask", "Inquire", "Resolve", "ForceAbort"];
    assert_eq!(taken_from(&operator()), operator_says);
    let replica_says = [
        "Phase1a", "Phase1b", "Phase2a", "Phase2b", "Nack", "Decided",
    ];
    assert_eq!(taken_from(&replica(2)), replica_says);
    assert!(taken_from(&replica(4)).is_empty(), "not of this cluster");
}
