//! One turn of a replica: the input, what it answers to itself at once, and the tick that a new
//! leader needs to go on.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::replica::{Record, Rejection, Replica, ReplicaNotice, ReplicaTimer};
use paxos_commit::protocol::types::Peer;
use paxos_commit::protocol::{Effects, Host, Input};

use crate::bounds::{Answers, Plant};
use crate::cast::replica_peer;
use crate::state::told;

/// What came of a turn.
#[derive(Debug)]
pub(crate) struct Turn {
    pub(crate) replica: Replica,
    pub(crate) save: Vec<Record>,
    pub(crate) send: Vec<(Peer, Message)>,
    pub(crate) told: u16,
}

/// How replicas take their turns.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules {
    pub(crate) answers: Answers,
    pub(crate) plant: Option<Plant>,
}

impl Rules {
    /// One turn of the replica in place `index`.
    pub(crate) fn turn(self, index: usize, replica: &Replica, input: Input<Replica>) -> Turn {
        let me = replica_peer(index);
        let mut turn = Turn {
            replica: replica.clone(),
            save: Vec::new(),
            send: Vec::new(),
            told: 0,
        };
        let mut inputs = VecDeque::from([input]);
        while let Some(input) = inputs.pop_front() {
            let leads = |replica: &Replica| {
                let slot = replica.generations().slot();
                replica.is_leading().then_some(slot)
            };
            let before = leads(&turn.replica);
            let Some(out) = self.step(&mut turn.replica, input) else {
                turn.told |= told::PANICKED;
                return turn;
            };
            if out.notify.iter().any(is_objection) {
                turn.told |= told::REFUSED;
            }
            for (to, message) in out.send {
                if let Message::Probe { slot } = message {
                    // Those that are asked are there. When they answer decides only when the change is
                    // proposed, and the operator's wish itself arrives at any time.
                    let message = Message::Probed { slot };
                    inputs.push_back(Input::Message { from: to, message });
                    continue;
                }
                let question = matches!(message, Message::Collect { .. });
                if to == me && !question && self.is_at_once_to_itself(&message) {
                    let from = me.clone();
                    inputs.push_back(Input::Message { from, message });
                } else {
                    turn.send.push((to, message));
                }
            }
            if self.plant == Some(Plant::ExpiredEarly) {
                inputs.extend(
                    out.save
                        .iter()
                        .filter_map(|record| taken_for_chosen(&me, record)),
                );
            }
            turn.save.extend(out.save);
            // A leader goes on at its next tick: the sooner, the more can come after it.
            let now = leads(&turn.replica);
            if now.is_some() && now != before {
                inputs.push_back(Input::Timeout(ReplicaTimer::Tick));
            }
        }
        turn
    }

    /// Whether a message of a replica to itself arrives at once.
    fn is_at_once_to_itself(self, message: &Message) -> bool {
        let proposal = matches!(
            message,
            Message::Log(LogMessage::Accept { .. }) | Message::Phase2a { .. }
        );
        self.is_at_once(message) || (proposal && self.answers == Answers::Straight)
    }

    /// Whether a message arrives at once.
    pub(crate) fn is_at_once(self, message: &Message) -> bool {
        match message {
            _ if self.answers == Answers::Anytime => false,
            Message::Log(LogMessage::Promise { .. } | LogMessage::Accepted { .. }) => true,
            Message::Phase2b { ballot, .. } => !ballot.is_zero(),
            Message::Frozen { .. } | Message::Collected { .. } | Message::Phase1b { .. } => true,
            Message::Collect { .. } => self.answers == Answers::Straight,
            _ => false,
        }
    }

    /// One step; none if the host panics.
    fn step(self, replica: &mut Replica, input: Input<Replica>) -> Option<Effects<Replica>> {
        let mut out = Effects::default();
        let input = self.planted(input);
        let question = matches!(
            &input,
            Input::Message {
                message: Message::Freeze { .. } | Message::Collect { .. },
                ..
            }
        );
        let mut stepped = replica.clone();
        let step = AssertUnwindSafe(|| stepped.step(input, &mut out));
        catch_unwind(step).ok()?;
        if question && self.plant == Some(Plant::NoFreezing) {
            out.save.clear();
        } else {
            *replica = stepped;
        }
        Some(out)
    }

    fn planted(self, mut input: Input<Replica>) -> Input<Replica> {
        if self.plant == Some(Plant::FreshList)
            && let Input::Message {
                message: Message::Log(LogMessage::Promise { accepted, .. }),
                ..
            } = &mut input
        {
            *accepted = None;
        }
        input
    }
}

/// Whether a replica refuses a message. (One that was removed may still send some; they are dropped.)
fn is_objection(notice: &ReplicaNotice) -> bool {
    match notice {
        ReplicaNotice::Rejected { from, reason } => {
            *reason != Rejection::NotFromSuchAPeer || *from != replica_peer(0)
        }
        // Nobody lies here.
        ReplicaNotice::Contradiction { .. } => true,
        ReplicaNotice::Removed | ReplicaNotice::Dial(_) => false,
    }
}

fn taken_for_chosen(me: &Peer, record: &Record) -> Option<Input<Replica>> {
    let Record::Log(LogRecord::Accept { slot, entry, .. }) = record else {
        return None;
    };
    let chosen = LogMessage::Chosen {
        slot: *slot,
        entry: entry.clone(),
    };
    Some(Input::Message {
        from: me.clone(),
        message: Message::Log(chosen),
    })
}
