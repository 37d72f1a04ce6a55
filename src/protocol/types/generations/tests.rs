//! Which generations are open, and what entries come to.

use super::*;
use crate::protocol::types::InitiatorId;
use crate::protocol::types::{Listed, Roster, StoreId, Unapplied};

fn configuration(ids: &[u32]) -> Configuration {
    let ids = ids.iter().copied().map(ReplicaId);
    Acceptors::new(ids).unwrap().into()
}

fn open(generation: u32, ids: &[u32]) -> Entry {
    Entry::Open(Open {
        generation,
        configuration: configuration(ids),
    })
}

fn id(generation: u32, sequence: u32) -> CommitId {
    CommitId {
        txn: TxnId {
            generation,
            initiator: InitiatorId::from_u128(1),
            sequence,
            nonce: 9,
        },
        roster: RosterDigest::MIN,
    }
}

/// Generations 1 to 3; the last has other replicas.
fn third() -> Generations {
    let mut generations = Generations::genesis(configuration(&[1, 2, 3]));
    for entry in [open(2, &[1, 2, 3]), open(3, &[2, 3, 5])] {
        assert_eq!(generations.apply(&entry), Applies::Yes);
    }
    generations
}

fn settle(after: Option<CommitId>, through: CommitId) -> Entry {
    Entry::Settle(Box::new(Settle {
        after,
        through,
        unfinished: Vec::new(),
    }))
}

fn openness(generations: &Generations) -> [Openness; 5] {
    [0, 1, 2, 3, 4].map(|generation| generations.openness(generation))
}

#[test]
fn two_generations_are_open_and_the_oldest_closed_one_is_settled_first() {
    use Openness::{Closed, Open, Settled, Unknown};
    let mut generations = third();
    let expected = [Settled, Closed, Open, Open, Unknown];
    assert_eq!(openness(&generations), expected);
    assert_eq!(generations.closed(), Some(1));
    let last = Generations::last_id(1);
    assert_eq!(generations.apply(&settle(None, id(1, 5))), Applies::Yes);
    assert!(generations.is_settled(&id(1, 5)) && !generations.is_settled(&id(1, 6)));
    assert!(
        !generations.is_txn_settled(id(1, 5).txn),
        "other rosters of it are not"
    );
    assert!(generations.is_txn_settled(id(1, 4).txn));
    assert_eq!(openness(&generations), expected, "a part of it is left");
    let rest = settle(Some(id(1, 5)), last);
    assert_eq!(generations.apply(&rest), Applies::Yes);
    assert_eq!(
        openness(&generations),
        [Settled, Settled, Open, Open, Unknown]
    );
    assert_eq!((generations.closed(), generations.oldest()), (None, 2));
    assert_eq!((generations.horizon(), generations.slot()), (Some(last), 4));
}

#[test]
fn what_does_not_follow_is_counted_and_changes_nothing() {
    let start = third();
    let elsewhere = Listed {
        id: id(2, 1),
        unapplied: Unapplied {
            roster: Roster::new([crate::protocol::types::Branch {
                participant: "a".parse().unwrap(),
                session: crate::protocol::types::Session(1),
                store: StoreId::from_u128(1),
            }])
            .unwrap(),
            read_only: crate::protocol::types::BranchSet::default(),
        },
    };
    let wrong = [
        open(3, &[1]),
        open(5, &[1]),
        settle(Some(id(1, 1)), id(1, 5)),
        settle(None, id(2, 5)),
        Entry::Settle(Box::new(Settle {
            after: None,
            through: id(1, 5),
            unfinished: vec![elsewhere],
        })),
        Entry::Release { id: id(1, 1) },
    ];
    for entry in wrong {
        let mut generations = start.clone();
        assert_eq!(generations.apply(&entry), Applies::No, "{entry:?}");
        assert_eq!(generations.slot(), 3);
        Arc::make_mut(&mut generations.0).slot = start.slot();
        assert_eq!(generations, start);
    }
    let mut once = start.clone();
    once.apply(&settle(None, id(1, 5)));
    assert_eq!(once.apply(&settle(None, id(1, 9))), Applies::No, "twice");
    let back = settle(Some(id(1, 5)), id(1, 4));
    assert_eq!(once.apply(&back), Applies::No);
    assert_eq!(once.apply(&Entry::Release { id: id(1, 5) }), Applies::Yes);
}

#[test]
fn who_decides_and_who_knows() {
    let mut generations = third();
    let those = |ids: &[u32]| configuration(ids).acceptors().clone();
    let who = |generations: &Generations, generation| {
        generations.who_knows(id(generation, 1).txn).cloned()
    };
    assert_eq!(who(&generations, 1), Some(those(&[1, 2, 3])));
    assert_eq!(who(&generations, 4), None);
    assert!(generations.contains(ReplicaId(1)) && !generations.contains(ReplicaId(4)));
    assert!(generations.is_new(ReplicaId(6)) && !generations.is_new(ReplicaId(4)));
    generations.apply(&settle(None, Generations::last_id(1)));
    assert_eq!(
        who(&generations, 1),
        Some(those(&[2, 3, 5])),
        "those in force"
    );
    assert_eq!(generations.acceptors(1), None);
    assert!(
        !generations.is_new(ReplicaId(5)),
        "names are never used again"
    );
}

#[test]
fn no_more_generations_than_can_wait() {
    let mut generations = Generations::genesis(configuration(&[1]));
    for generation in 2..=UNSETTLED_MAX as u32 {
        assert_eq!(generations.apply(&open(generation, &[1])), Applies::Yes);
    }
    let next = open(UNSETTLED_MAX as u32 + 1, &[1]);
    assert!(!generations.may_follow(Some(&next)));
    assert_eq!(generations.apply(&next), Applies::No);
}

/// What a peer tells, changed a little.
fn told(change: impl FnOnce(&mut Known)) -> Result<Generations, GenerationsError> {
    let mut told = Known::clone(&third().0);
    change(&mut told);
    told.try_into()
}

#[test]
fn generations_of_a_peer_are_those_of_some_log() {
    assert_eq!(told(|_| {}), Ok(third()));
    let nothing = |told: &mut Known| {
        told.unsettled.clear();
        (told.slot, told.highest) = (0, 0);
    };
    assert_eq!(
        told(nothing),
        Ok(Generations::default()),
        "of one that joins"
    );
    let refused = Err(GenerationsError);
    assert_eq!(told(|told| told.unsettled.clear()), refused);
    assert_eq!(told(|told| drop(told.unsettled.remove(&2))), refused);
    assert_eq!(told(|told| told.slot = u64::MAX), refused);
    assert_eq!(told(|told| told.highest = 4), refused);
    let horizon = |id| move |told: &mut Known| told.horizon = Some(id);
    assert!(told(horizon(id(1, 5))).is_ok());
    assert_eq!(
        told(horizon(Generations::last_id(1))),
        refused,
        "it would be settled"
    );
    let at = |generation: u32| {
        move |told: &mut Known| {
            told.unsettled = BTreeMap::from([(generation, configuration(&[1]))]);
        }
    };
    assert!(told(at(7)).is_ok());
    assert_eq!(told(at(0)), refused);
    assert_eq!(told(at(u32::MAX)), refused);
    let many = |told: &mut Known| {
        let all = 1..=UNSETTLED_MAX as u32 + 1;
        told.unsettled = all
            .map(|generation| (generation, configuration(&[1])))
            .collect();
    };
    assert_eq!(told(many), refused);
}
