//! Examples of what is said of the control log, and of participants' stores.

use crate::protocol::message::{Admission, Declined, Message};
use crate::protocol::paxos::log::LogMessage;
use crate::protocol::paxos::{Ballot, ReplicaId};
use crate::protocol::types::{
    Entered, Entering, Entry, Open, Opening, ParticipantName, Settle, StoreId,
};

use super::nouns::{ballot, configuration, id, listed};

pub(super) fn name() -> ParticipantName {
    "ledger".parse().unwrap()
}

pub(super) fn entered() -> Entered {
    let store = StoreId::from_u128(0x5704_e1d0);
    let opening = Some(opening());
    Entered { store, opening }
}

fn opening() -> Opening {
    Opening {
        number: 300,
        nonce: 0x0123_4567_89ab_cdef,
    }
}

fn entering() -> Entering {
    Entering {
        participant: name(),
        store: entered().store,
        opening: Some(opening()),
        after: None,
    }
}

pub(super) fn stores() -> Vec<(&'static str, Message)> {
    let (participant, store) = (name(), entered().store);
    let admission = |admission| Message::Admission {
        slot: 300,
        admission,
    };
    vec![
        (
            "Present",
            Message::Present {
                opening: Some(opening()),
                after: None,
            },
        ),
        ("Admission::Entered", admission(Admission::Entered)),
        (
            "Admission::OtherStore",
            admission(Admission::OtherStore { entered: store }),
        ),
        ("Admission::Vacant", admission(Admission::Vacant)),
        (
            "Admission::Opened",
            admission(Admission::Opened { seen: opening() }),
        ),
        (
            "Admission::TooManyNames",
            admission(Admission::TooManyNames),
        ),
        (
            "Enter",
            Message::Enter {
                stores: vec![entering()],
            },
        ),
        (
            "Gone",
            Message::Gone {
                participant: name(),
                store,
            },
        ),
        ("Restored", Message::Restored { participant, store }),
        (
            "Named",
            Message::Named {
                participant: name(),
                entered: Some(entered()),
            },
        ),
        ("Probe", Message::Probe { slot: 7 }),
        ("Probed", Message::Probed { slot: 7 }),
    ]
}

pub(super) fn log() -> [(&'static str, LogMessage<Entry>); 11] {
    let (slot, ballot) = (300, ballot());
    let open = Entry::Open(Open {
        generation: 2,
        configuration: configuration(),
    });
    let settle = Entry::Settle(Box::new(Settle {
        after: None,
        through: id(),
        unfinished: vec![listed()],
    }));
    let release = Entry::Release { id: id() };
    [
        ("Log::Prepare", LogMessage::Prepare { slot, ballot }),
        (
            "Log::Promise",
            LogMessage::Promise {
                slot,
                ballot,
                accepted: Some((ballot, release)),
            },
        ),
        (
            "Log::Accept",
            LogMessage::Accept {
                slot,
                ballot,
                entry: settle,
            },
        ),
        ("Log::Accepted", LogMessage::Accepted { slot, ballot }),
        (
            "Log::Nack",
            LogMessage::Nack {
                slot,
                ballot,
                promised: Ballot::LAST,
            },
        ),
        ("Log::Chosen", LogMessage::Chosen { slot, entry: open }),
        (
            "Log::Chosen Enter",
            LogMessage::Chosen {
                slot,
                entry: Entry::Enter {
                    stores: vec![entering()],
                },
            },
        ),
        (
            "Log::Chosen Gone",
            LogMessage::Chosen {
                slot,
                entry: Entry::Gone {
                    participant: name(),
                    store: entered().store,
                },
            },
        ),
        (
            "Log::Chosen Restored",
            LogMessage::Chosen {
                slot,
                entry: Entry::Restored {
                    participant: name(),
                    store: entered().store,
                },
            },
        ),
        ("Log::Lead", LogMessage::Lead { slot, ballot }),
        ("Log::Following", LogMessage::Following { slot, ballot }),
    ]
}

pub(super) fn declined() -> [(&'static str, Declined); 10] {
    [
        (
            "Declined::NotLeader",
            Declined::NotLeader {
                leader: Some(ReplicaId(2)),
            },
        ),
        ("Declined::UnderWay", Declined::UnderWay),
        ("Declined::Changed", Declined::Changed { latest: 3 }),
        ("Declined::UsedId", Declined::UsedId(ReplicaId(3))),
        ("Declined::TooManyUnsettled", Declined::TooManyUnsettled(16)),
        ("Declined::LostSight", Declined::LostSight),
        (
            "Declined::Connected",
            Declined::Connected("a".parse().unwrap()),
        ),
        (
            "Declined::NotItsStore",
            Declined::NotItsStore {
                participant: name(),
                store: entered().store,
                entered: None,
            },
        ),
        (
            "Declined::StoreConnected",
            Declined::StoreConnected {
                participant: name(),
                store: entered().store,
            },
        ),
        ("Declined::NotListed", Declined::NotListed(id())),
    ]
}
