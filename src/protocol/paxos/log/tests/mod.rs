//! Unit tests of the log: the exact effects of every step.
//!
//! | module | of |
//! |---|---|
//! | `guards` | earlier and later slots, strangers, ballots that are not the sender's |
//! | `accepting` | phase 1b and 2b, signs of life, and what is learned and installed |
//! | `leading` | ballots, proposals, the next slot, the next acceptors |
//! | `patience` | every number of ticks |
//! | `restoring` | what comes back from disk |

mod accepting;
mod guards;
mod leading;
mod patience;
mod restoring;

use super::{Log, LogConfig, LogEffects, LogEntry, LogMessage, LogRecord, LogRefusal, To};
use crate::protocol::paxos::{Acceptors, Ballot, ReplicaId};

/// An entry that is a letter, and perhaps changes the acceptors.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    name: char,
    acceptors: Option<Acceptors>,
}

impl LogEntry for Item {
    fn acceptors(&self) -> Option<&Acceptors> {
        self.acceptors.as_ref()
    }
}

type Message = LogMessage<Item>;
type Effects = LogEffects<Item>;

/// The numbers have no common factors, so that none of them can stand for another.
const CONFIG: LogConfig = LogConfig {
    heartbeat_ticks: 5,
    silence_ticks: 11,
    stagger_ticks: 3,
    silence_ticks_max: 71,
};

/// The slot that the logs of these tests begin with.
const SLOT: u64 = 7;

/// More ticks than any patience of [`CONFIG`].
const EVER: u32 = 1000;

const fn id(id: u32) -> ReplicaId {
    ReplicaId(id)
}

const fn ballot(round: u64, replica: u32) -> Ballot {
    Ballot {
        round,
        replica: ReplicaId(replica),
    }
}

fn acceptors(ids: &[u32]) -> Acceptors {
    Acceptors::new(ids.iter().copied().map(ReplicaId)).expect("an odd number")
}

fn plain(name: char) -> Item {
    Item {
        name,
        acceptors: None,
    }
}

fn change(name: char, to: &[u32]) -> Item {
    let acceptors = Some(acceptors(to));
    Item { name, acceptors }
}

/// A replica of which nothing is known but its name, among the acceptors 1, 2 and 3.
fn log(me: u32) -> Log<Item> {
    Log::new(id(me), CONFIG, SLOT, acceptors(&[1, 2, 3]))
}

/// A replica that has just started ballot 1.
fn candidate(me: u32) -> Log<Item> {
    let mut log = log(me);
    let (_, effects) = until_it_acts(&mut log);
    assert_eq!(effects, starts(SLOT, ballot(1, me)));
    log
}

/// Replica 1, which leads by the promises of 2 and 3 and is free.
fn leader() -> Log<Item> {
    let mut log = candidate(1);
    let first = hear(&mut log, 2, promise(SLOT, ballot(1, 1), None));
    assert_eq!(first, nothing());
    let second = hear(&mut log, 3, promise(SLOT, ballot(1, 1), None));
    assert_eq!(second, tells(lead(SLOT, ballot(1, 1))));
    log
}

/// The same, after it proposed `item`.
fn proposing(item: &Item) -> Log<Item> {
    let mut log = leader();
    let proposed = propose(&mut log, item.clone());
    let sent = accept(SLOT, ballot(1, 1), item.clone());
    assert_eq!(proposed, (true, tells(sent)));
    log
}

fn hear(log: &mut Log<Item>, from: u32, message: Message) -> Effects {
    let mut out = Effects::default();
    let result = log.on_message(id(from), message, &mut out);
    assert_eq!(result, Ok(()));
    out
}

/// The same, for a message that no correct replica sends. It must change nothing.
fn refusal(log: &mut Log<Item>, from: u32, message: Message) -> LogRefusal {
    let before = log.clone();
    let mut out = Effects::default();
    let result = log.on_message(id(from), message, &mut out);
    assert_eq!((&*log, out), (&before, nothing()));
    result.expect_err("no correct replica sends it")
}

fn propose(log: &mut Log<Item>, item: Item) -> (bool, Effects) {
    let mut out = Effects::default();
    (log.propose(item, &mut out), out)
}

fn tick(log: &mut Log<Item>) -> Effects {
    let mut out = Effects::default();
    log.on_tick(&mut out);
    out
}

/// Lets time pass until something leaves. Answers with the ticks that it took, and what left.
fn until_it_acts(log: &mut Log<Item>) -> (u32, Effects) {
    for ticks in 1..=EVER {
        let effects = tick(log);
        if effects != nothing() {
            return (ticks, effects);
        }
    }
    panic!("it does nothing in {EVER} ticks");
}

/// How long it would stay quiet, if nobody said anything.
fn quiet_for(log: &Log<Item>) -> u32 {
    until_it_acts(&mut log.clone()).0
}

/// The ballot that it would start, if nobody said anything.
fn next_ballot(log: &Log<Item>) -> Ballot {
    let mut log = log.clone();
    log.follow();
    let (_, effects) = until_it_acts(&mut log);
    match &effects.send[..] {
        [(To::All, LogMessage::Prepare { ballot, .. })] => *ballot,
        other => panic!("not a ballot: {other:?}"),
    }
}

fn nothing() -> Effects {
    Effects::default()
}

/// One message to all.
fn tells(message: Message) -> Effects {
    Effects {
        send: vec![(To::All, message)],
        ..nothing()
    }
}

/// One message to one, and nothing to save.
fn answers(to: u32, message: Message) -> Effects {
    Effects {
        send: vec![(To::One(id(to)), message)],
        ..nothing()
    }
}

/// One message to one, when `record` is saved.
fn answers_saved(record: LogRecord<Item>, to: u32, message: Message) -> Effects {
    Effects {
        save: vec![record],
        ..answers(to, message)
    }
}

/// A new ballot.
fn starts(slot: u64, ballot: Ballot) -> Effects {
    let round = ballot.round;
    Effects {
        save: vec![LogRecord::Round { round }],
        ..tells(prepare(slot, ballot))
    }
}

/// Something was learned from another.
fn learns(slot: u64, item: Item) -> Effects {
    Effects {
        chosen: vec![(slot, item)],
        ..nothing()
    }
}

fn promise_record(ballot: Ballot) -> LogRecord<Item> {
    LogRecord::Promise { ballot }
}

fn accept_record(slot: u64, ballot: Ballot, entry: Item) -> LogRecord<Item> {
    LogRecord::Accept {
        slot,
        ballot,
        entry,
    }
}

fn prepare(slot: u64, ballot: Ballot) -> Message {
    Message::Prepare { slot, ballot }
}

fn promise(slot: u64, ballot: Ballot, accepted: Option<(Ballot, Item)>) -> Message {
    Message::Promise {
        slot,
        ballot,
        accepted,
    }
}

fn accept(slot: u64, ballot: Ballot, entry: Item) -> Message {
    Message::Accept {
        slot,
        ballot,
        entry,
    }
}

fn accepted(slot: u64, ballot: Ballot) -> Message {
    Message::Accepted { slot, ballot }
}

fn nack(slot: u64, ballot: Ballot, promised: Ballot) -> Message {
    Message::Nack {
        slot,
        ballot,
        promised,
    }
}

fn chosen(slot: u64, entry: Item) -> Message {
    Message::Chosen { slot, entry }
}

fn lead(slot: u64, ballot: Ballot) -> Message {
    Message::Lead { slot, ballot }
}

fn following(slot: u64, ballot: Ballot) -> Message {
    Message::Following { slot, ballot }
}
