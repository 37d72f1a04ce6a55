//! Which store may work under a name, as one replica sees it.

use super::control::{chosen, knowing, learn};
use super::*;
use crate::protocol::message::{Admission, Declined};
use crate::protocol::paxos::log::LogMessage;
use crate::protocol::types::{Entered, Entering, Entry, Opening, ParticipantName};

fn name(text: &str) -> ParticipantName {
    text.parse().unwrap()
}

fn store(number: u128) -> StoreId {
    StoreId::from_u128(number)
}

/// A session of participant a on this store.
fn on(number: u128, session: u64) -> Branch {
    Branch {
        store: store(number),
        ..branch("a", session)
    }
}

fn entering(number: u128, opening: Option<Opening>, after: Option<Opening>) -> Entering {
    Entering {
        participant: name("a"),
        store: store(number),
        opening,
        after,
    }
}

fn enter(number: u128) -> Entry {
    let stores = vec![entering(number, None, None)];
    Entry::Enter { stores }
}

/// An opening of store 1 is entered after another one.
fn enter_opening(opening: Option<Opening>, after: Option<Opening>) -> Entry {
    let stores = vec![entering(1, opening, after)];
    Entry::Enter { stores }
}

fn present() -> Message {
    let (opening, after) = (None, None);
    Message::Present { opening, after }
}

fn opening(number: u64) -> Option<Opening> {
    let nonce = 100 + number;
    Some(Opening { number, nonce })
}

/// The session connects and presents itself.
fn presents(rig: &mut Rig, session: Branch) -> Effects<Replica> {
    let peer = Peer::Session(session);
    rig.connect(peer.clone());
    rig.hear(peer, present())
}

fn admits(session: Branch, slot: u64, admission: Admission) -> Effects<Replica> {
    let message = Message::Admission { slot, admission };
    sends([(Peer::Session(session), message)])
}

fn accept(slot: u64, entry: Entry) -> Vec<(Peer, Message)> {
    let ballot = ballot(1, 1);
    let accept = LogMessage::Accept {
        slot,
        ballot,
        entry,
    };
    to(all(), Message::Log(accept))
}

/// Store 1 is entered.
fn entered() -> Rig {
    knowing(1, &[enter(1)], [])
}

#[test]
fn a_session_is_told_what_its_name_stands_for_now_and_when_that_changes() {
    let mut rig = Rig::new(1);
    for session in [on(1, 1), on(2, 2)] {
        let vacant = admits(session.clone(), 0, Admission::Vacant);
        assert_eq!(presents(&mut rig, session), vacant);
    }
    let out = rig.hear(replica(2), learn(0, enter(1)));
    assert_eq!(out.save, [chosen(0, enter(1))]);
    let other = Admission::OtherStore { entered: store(1) };
    let mut sent = out.send;
    sent.retain(|(_, message)| matches!(message, Message::Admission { .. }));
    let mut told = admits(on(1, 1), 1, Admission::Entered).send;
    told.extend(admits(on(2, 2), 1, other).send);
    assert_eq!(sent, told);
    // Who comes later is told the same, after a restart too.
    let mut rig = rig.restart();
    let out = presents(&mut rig, on(1, 3));
    assert_eq!(out, admits(on(1, 3), 1, Admission::Entered));
    let out = presents(&mut rig, on(2, 4));
    assert_eq!(out, admits(on(2, 4), 1, other));
}

#[test]
fn the_leader_enters_the_first_store_that_it_hears_of_and_no_second_one() {
    let mut rig = super::control::leading_the_first(config(1, 3));
    let mut expected = admits(on(1, 1), 0, Admission::Vacant);
    expected.send.extend(accept(0, enter(1)));
    assert_eq!(presents(&mut rig, on(1, 1)), expected);
    let vacant = admits(on(2, 2), 0, Admission::Vacant);
    assert_eq!(presents(&mut rig, on(2, 2)), vacant, "nothing is proposed");
    let stores = vec![entering(2, None, None)];
    assert_eq!(rig.hear(replica(2), Message::Enter { stores }), nothing());
}

#[test]
fn another_replica_tells_the_leader_of_a_store_to_enter() {
    let mut rig = super::control::leading_the_first(config(1, 3));
    let stores = vec![entering(2, None, None)];
    let out = rig.hear(replica(3), Message::Enter { stores });
    assert_eq!(out, sends(accept(0, enter(2))));
}

#[test]
fn one_name_that_presents_ever_new_openings_takes_few_slots() {
    let mut rig = super::control::leading_the_first(config(1, 3));
    presents(&mut rig, on(1, 1));
    super::control::choose(&mut rig);
    let mut proposed = 0;
    for number in 0..100 {
        let present = Message::Present {
            opening: opening(number),
            after: None,
        };
        let out = rig.hear(Peer::Session(on(1, 1)), present);
        let accepts = |(_, message): &(_, Message)| {
            matches!(message, Message::Log(LogMessage::Accept { .. }))
        };
        proposed += usize::from(out.send.iter().any(accepts));
    }
    assert_eq!(proposed, 0, "one was entered at this very tick");
}

#[test]
fn an_opening_is_entered_after_the_one_that_the_log_has_and_not_otherwise() {
    let mut rig = super::control::leading_the_first(config(1, 3));
    rig.hear(replica(2), learn(0, enter_opening(opening(5), None)));
    // Now replica 2 leads: it is told.
    let session = Peer::Session(on(1, 1));
    rig.connect(session.clone());
    let mut told = |number, after| {
        let (opening, after) = (opening(number), after);
        let out = rig.hear(session.clone(), Message::Present { opening, after });
        out.send
    };
    let seen = opening(5).unwrap();
    let opened = admits(on(1, 1), 1, Admission::Opened { seen }).send;
    assert_eq!(told(6, None), opened);
    assert_eq!(told(6, opening(4)), opened, "not after another one");
    assert_eq!(told(9, opening(9)), opened);
    let stores = vec![entering(1, opening(6), opening(5))];
    let enter = [(replica(2), Message::Enter { stores })];
    assert_eq!(
        told(6, opening(5)),
        enter,
        "and no answer before the log has it"
    );
    let entered = admits(on(1, 1), 1, Admission::Entered).send;
    assert_eq!(told(5, None), entered, "another session of that opening");
    // A later one is entered: this one is told.
    let out = rig.hear(replica(2), learn(1, enter_opening(opening(6), opening(5))));
    let seen = opening(6).unwrap();
    let opened = admits(on(1, 1), 2, Admission::Opened { seen }).send;
    assert!(out.send.contains(&opened[0]), "{out:?}");
}

#[test]
fn after_a_restoration_the_next_opening_is_vacant() {
    let restored = Entry::Restored {
        participant: name("a"),
        store: store(1),
    };
    let entries = [enter_opening(opening(5), None), restored];
    let mut rig = knowing(1, &entries, []);
    let session = Peer::Session(on(1, 1));
    rig.connect(session.clone());
    let present = Message::Present {
        opening: opening(3),
        after: None,
    };
    let vacant = admits(on(1, 1), 2, Admission::Vacant);
    assert_eq!(rig.hear(session, present), vacant);
}

#[test]
fn a_vote_of_another_store_is_not_counted() {
    let mut rig = entered();
    let intruder = on(2, 1);
    let roster = Roster::new([intruder.clone(), branch("b", 1)]).unwrap();
    let id = CommitId::new(txn(1), &roster);
    let out = rig.hear(
        Peer::Session(intruder.clone()),
        cast(id, roster.clone(), Prepared),
    );
    let other = Admission::OtherStore { entered: store(1) };
    let mut expected = admits(intruder.clone(), 1, other);
    expected.notify.push(ReplicaNotice::Rejected {
        from: Peer::Session(intruder),
        reason: Rejection::OtherStore,
    });
    assert_eq!(out, expected);
    assert_eq!(rig.replica.remembered(), 0);
    // Before the log names a store, nothing can be said against it.
    let out = Rig::new(1).hear(Peer::Session(on(2, 1)), cast(id, roster, Prepared));
    assert_eq!(out.save.len(), 1);
}

#[test]
fn only_a_session_that_may_work_is_resolved() {
    let resolved = |sessions: &[Branch]| {
        let message = Message::Resolved {
            participant: name("a"),
            branches: sessions.to_vec(),
        };
        sends([(initiator(), message)])
    };
    let resolve = || Message::Resolve {
        participant: name("a"),
    };
    let mut rig = entered();
    rig.connect(Peer::Session(on(1, 1)));
    assert_eq!(rig.hear(initiator(), resolve()), resolved(&[]));
    rig.hear(Peer::Session(on(1, 1)), present());
    presents(&mut rig, on(2, 2));
    assert_eq!(rig.hear(initiator(), resolve()), resolved(&[on(1, 1)]));
}

#[test]
fn a_store_is_given_up_only_by_its_name_and_when_nobody_has_it_open() {
    let mut rig = super::control::leading_the_first(config(1, 3));
    let declined = |declined| sends([(operator(), Message::Declined(declined))]);
    let gone = |number| Message::Gone {
        participant: name("a"),
        store: store(number),
    };
    let restored = |number| Message::Restored {
        participant: name("a"),
        store: store(number),
    };
    let participant = name("a");
    let not_its_store = || Declined::NotItsStore {
        participant: name("a"),
        store: store(1),
        entered: None,
    };
    let out = rig.hear(operator(), gone(1));
    assert_eq!(out, declined(not_its_store()));
    let out = rig.hear(operator(), restored(1));
    assert_eq!(out, declined(not_its_store()));
    presents(&mut rig, on(1, 1));
    super::control::choose(&mut rig);
    for asked in [gone(1), restored(1)] {
        let why = Declined::StoreConnected {
            participant: participant.clone(),
            store: store(1),
        };
        assert_eq!(rig.hear(operator(), asked), declined(why));
    }
    rig.disconnect(Peer::Session(on(1, 1)));
    let out = rig.hear(operator(), gone(1));
    let entry = Entry::Gone {
        participant: participant.clone(),
        store: store(1),
    };
    assert_eq!(out, sends(accept(1, entry)));
    let accepted = Message::Log(LogMessage::Accepted {
        slot: 1,
        ballot: ballot(1, 1),
    });
    rig.hear(replica(2), accepted.clone());
    let out = rig.hear(replica(3), accepted);
    let named = Message::Named {
        participant: participant.clone(),
        entered: None,
    };
    assert!(out.send.contains(&(operator(), named)), "{out:?}");
    assert_eq!(rig.replica.stores().get(&participant), None);
}

#[test]
fn stores_travel_with_the_state_in_pages() {
    let names: Vec<String> = (0..40).map(|number| format!("a{number:02}")).collect();
    let stores = names.iter().map(|text| Entering {
        participant: name(text),
        ..entering(1, None, None)
    });
    let entry = Entry::Enter {
        stores: stores.collect(),
    };
    let page = |after: Option<&str>, names: &[String], more| {
        let entered = Entered {
            store: store(1),
            opening: None,
        };
        Message::State {
            generations: super::control::generations(std::slice::from_ref(&entry)),
            after: None,
            listed: Vec::new(),
            stores: Box::new(crate::protocol::message::StoresPage {
                after: after.map(name),
                stores: names.iter().map(|text| (name(text), entered)).collect(),
            }),
            more,
        }
    };
    let fetch = |after: Option<&str>| Message::Fetch {
        slot: 0,
        after: None,
        after_name: after.map(name),
    };
    let pages = [
        (None, page(None, &names[..16], true)),
        (Some("a15"), page(Some("a15"), &names[16..32], true)),
        (Some("a31"), page(Some("a31"), &names[32..], false)),
    ];
    let teller = ReplicaConfig {
        list_max: 1,
        ..config(1, 3)
    };
    let mut teller = Rig::with(teller, vec![chosen(0, entry.clone())]);
    let mut learner = Rig::new(2);
    for (after, page) in pages {
        let out = teller.hear(replica(2), fetch(after));
        assert_eq!(out, sends([(replica(2), page.clone())]));
        learner.hear(replica(1), page);
    }
    assert_eq!(learner.replica.stores(), teller.replica.stores());
    assert_eq!(
        learner.restart().replica.stores(),
        teller.replica.stores(),
        "and it is saved"
    );
}
