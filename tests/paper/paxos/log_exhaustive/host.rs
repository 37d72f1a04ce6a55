//! A replica with its disk, as it is and with bugs planted around it.

use std::collections::{BTreeMap, BTreeSet};

use paxos_commit::protocol::paxos::log::{
    Log, LogConfig, LogEffects, LogEntry, LogMessage, LogRecord, To,
};
use paxos_commit::protocol::paxos::{Acceptors, Ballot, ReplicaId};

/// The replica that wished for it, and the acceptors that it brings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Entry {
    pub(super) of: u32,
    acceptors: Option<Acceptors>,
}

impl LogEntry for Entry {
    fn acceptors(&self) -> Option<&Acceptors> {
        self.acceptors.as_ref()
    }
}

/// What is explored.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    /// The acceptors of slot 0.
    pub(super) first: &'static [u32],
    /// Those of slot 1, if everybody wishes to change them.
    pub(super) then: Option<&'static [u32]>,
    /// How many ballots each replica may have used when it loses patience and starts another.
    pub(super) ballots: [usize; 3],
    /// Whether messages arrive that only make others give up a ballot, or keep it.
    pub(super) hints: bool,
    /// Who restarts.
    pub(super) restarts: [bool; 3],
    /// Whether what changes nothing any more is taken out of the states, which makes them fewer.
    pub(super) tidy: bool,
}

/// The bugs that can be planted. `None` is the code as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Bug {
    None,
    /// A leader whose entry changes the acceptors proposes at its ballot, which they never promised.
    SkipsPhase1,
    /// A replica accepts in the next slot before it has learned this one. It forgets nothing.
    AcceptsEarly,
    /// A replica that restarts has forgotten its promises.
    ForgetsPromises,
    /// Whoever accepts an entry tells that it was chosen.
    TellsEarly,
}

/// The slots that are decided: 0 and 1.
pub(super) const SLOTS: u64 = 2;

/// No time passes: whoever is asked to act does.
const CONFIG: LogConfig = LogConfig {
    heartbeat_ticks: 0,
    silence_ticks: 0,
    stagger_ticks: 0,
    silence_ticks_max: 0,
};

pub(super) type Message = LogMessage<Entry>;

/// A replica and its disk. What it learned and what else it saved are both there.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct Host {
    me: u32,
    log: Log<Entry>,
    learned: Vec<Entry>,
    saved: BTreeSet<LogRecord<Entry>>,
    /// How many ballots it has used, and where it started the last.
    ballots: usize,
    last: Option<(u64, Ballot)>,
}

/// What somebody who sees all disks can tell.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fact {
    Accepted {
        by: u32,
        slot: u64,
        ballot: Ballot,
        entry: Entry,
    },
    Prepared {
        slot: u64,
        ballot: Ballot,
    },
    Learned {
        slot: u64,
        entry: Entry,
    },
}

impl Scope {
    pub(super) fn first_acceptors(&self) -> Acceptors {
        Acceptors::new(self.first.iter().copied().map(ReplicaId)).expect("an odd number")
    }

    /// What `me` would have in `slot`.
    fn wish(&self, me: u32, slot: u64) -> Entry {
        let then = self.then.filter(|_| slot == 0);
        let then = then.map(|ids| Acceptors::new(ids.iter().copied().map(ReplicaId)));
        let acceptors = then.map(|acceptors| acceptors.expect("an odd number"));
        Entry { of: me, acceptors }
    }
}

impl Host {
    pub(super) fn new(me: u32, scope: &Scope) -> Self {
        Host {
            me,
            log: Log::new(ReplicaId(me), CONFIG, 0, scope.first_acceptors()),
            learned: Vec::new(),
            saved: BTreeSet::new(),
            ballots: 0,
            last: None,
        }
    }

    pub(super) fn me(&self) -> u32 {
        self.me
    }

    pub(super) fn slot(&self) -> u64 {
        self.log.slot()
    }

    /// Takes a message; answers with what it sends, to one or to all.
    pub(super) fn on_message(
        &mut self,
        scope: &Scope,
        bug: Bug,
        from: u32,
        message: Message,
    ) -> Vec<(To, Message)> {
        let mut out = LogEffects::default();
        let slot = self.log.slot();
        let before = self.log.acceptors().clone();
        if bug == Bug::AcceptsEarly && self.accept_early(&message, &mut out) {
            return self.settle(scope, out);
        }
        let taken = self
            .log
            .on_message(ReplicaId(from), message.clone(), &mut out);
        assert!(taken.is_ok() || bug != Bug::None, "{taken:?}");
        if let (Bug::SkipsPhase1, LogMessage::Accepted { ballot, .. }) = (bug, message)
            && slot < self.log.slot()
            && before != *self.log.acceptors()
        {
            let (slot, ballot) = (self.log.slot(), ballot);
            let entry = scope.wish(self.me, slot);
            let accept = LogMessage::Accept {
                slot,
                ballot,
                entry,
            };
            out.send.push((To::All, accept));
        }
        let accepted = out.save.iter().find_map(|record| match record.clone() {
            LogRecord::Accept { slot, entry, .. } => Some(LogMessage::Chosen { slot, entry }),
            LogRecord::Round { .. } | LogRecord::Promise { .. } => None,
        });
        if bug == Bug::TellsEarly {
            out.send.extend(accepted.map(|news| (To::All, news)));
        }
        self.settle(scope, out)
    }

    /// It loses patience: a new ballot, if it is not leading and has one left.
    pub(super) fn on_tick(&mut self, scope: &Scope) -> Option<Vec<(To, Message)>> {
        let left = self.ballots < scope.ballots[self.me as usize - 1];
        if self.log.is_leading() || self.log.slot() >= SLOTS || !left {
            return None;
        }
        let mut out = LogEffects::default();
        self.log.on_tick(&mut out);
        Some(self.settle(scope, out))
    }

    /// What it is after a restart.
    pub(super) fn restarted(&self, scope: &Scope, bug: Bug) -> Host {
        let changes = self.learned.iter().rev().find_map(LogEntry::acceptors);
        let acceptors = changes.cloned().unwrap_or(scope.first_acceptors());
        let slot = self.learned.len() as u64;
        let mut log = Log::new(ReplicaId(self.me), CONFIG, slot, acceptors);
        let is_promise = |record: &LogRecord<Entry>| matches!(record, LogRecord::Promise { .. });
        for record in &self.saved {
            if bug != Bug::ForgetsPromises || !is_promise(record) {
                log.restore(record.clone());
            }
        }
        Host {
            log,
            ..self.clone()
        }
    }

    pub(super) fn facts(&self) -> Vec<Fact> {
        let accepted = self.saved.iter().filter_map(|record| match record.clone() {
            LogRecord::Accept {
                slot,
                ballot,
                entry,
            } => Some(Fact::Accepted {
                by: self.me,
                slot,
                ballot,
                entry,
            }),
            LogRecord::Round { .. } | LogRecord::Promise { .. } => None,
        });
        let learned = (0..).zip(self.learned.iter().cloned());
        let learned = learned.map(|(slot, entry)| Fact::Learned { slot, entry });
        let prepared = self.last.iter();
        let prepared = prepared.map(|&(slot, ballot)| Fact::Prepared { slot, ballot });
        accepted.chain(learned).chain(prepared).collect()
    }

    /// Saves what is to be saved, and proposes if it can.
    fn settle(&mut self, scope: &Scope, mut out: LogEffects<Entry>) -> Vec<(To, Message)> {
        let slot = self.log.slot();
        if self.log.is_free() && slot < SLOTS {
            let wish = scope.wish(self.me, slot);
            assert!(self.log.propose(wish, &mut out), "it is free");
        }
        for record in out.save {
            self.ballots += usize::from(matches!(record, LogRecord::Round { .. }));
            self.saved.insert(record);
        }
        for (slot, entry) in out.chosen {
            assert_eq!(slot, self.learned.len() as u64, "slots come in order");
            self.learned.push(entry);
            self.restore_early();
        }
        self.compact();
        for (_, message) in &out.send {
            if let LogMessage::Prepare { slot, ballot } = message {
                self.last = Some((*slot, *ballot));
            }
        }
        out.send
    }

    /// What was accepted early is remembered when its slot comes. As the code is, there is nothing.
    fn restore_early(&mut self) {
        let slot_now = self.log.slot();
        for record in &self.saved {
            if matches!(record, LogRecord::Accept { slot, .. } if *slot == slot_now) {
                self.log.restore(record.clone());
            }
        }
    }

    /// Forgets what a restart makes nothing of: of two records, the one that says less.
    fn compact(&mut self) {
        let slot_now = self.log.slot();
        let (mut rounds, mut promised) = (None, self.promised());
        let mut accepted: BTreeMap<u64, (Ballot, Entry)> = BTreeMap::new();
        for record in std::mem::take(&mut self.saved) {
            match record {
                LogRecord::Round { round } => rounds = rounds.max(Some(round)),
                LogRecord::Promise { ballot } => promised = promised.max(ballot),
                LogRecord::Accept {
                    slot,
                    ballot,
                    entry,
                } if slot >= slot_now => {
                    let highest = accepted.entry(slot).or_insert((ballot, entry.clone()));
                    if highest.0 < ballot {
                        *highest = (ballot, entry);
                    }
                }
                LogRecord::Accept { .. } => {}
            }
        }
        self.saved
            .extend(rounds.map(|round| LogRecord::Round { round }));
        if promised > Ballot::ZERO {
            let promise = LogRecord::Promise { ballot: promised };
            self.saved.insert(promise);
        }
        for (slot, (ballot, entry)) in accepted {
            self.saved.insert(LogRecord::Accept {
                slot,
                ballot,
                entry,
            });
        }
    }

    /// The highest ballot that its disk knows of, by a promise or an entry.
    fn promised(&self) -> Ballot {
        let ballots = self.saved.iter().filter_map(|record| match record {
            LogRecord::Promise { ballot } | LogRecord::Accept { ballot, .. } => Some(*ballot),
            LogRecord::Round { .. } => None,
        });
        ballots.max().unwrap_or(Ballot::ZERO)
    }

    fn accept_early(&mut self, message: &Message, out: &mut LogEffects<Entry>) -> bool {
        let LogMessage::Accept {
            slot,
            ballot,
            entry,
        } = message.clone()
        else {
            return false;
        };
        if slot != self.log.slot() + 1 || ballot < self.promised() {
            return false;
        }
        let record = LogRecord::Accept {
            slot,
            ballot,
            entry,
        };
        // Its promise holds from now on.
        self.log.restore(record.clone());
        out.save.push(record);
        let accepted = LogMessage::Accepted { slot, ballot };
        out.send.push((To::One(ballot.replica), accepted));
        true
    }
}
