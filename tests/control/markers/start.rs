//! The state from which a model starts.

use paxos_commit::protocol::Input;
use paxos_commit::protocol::message::{Message, Unapplied};
use paxos_commit::protocol::participant::ParticipantCommand;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::paxos::{Ballot, ReplicaId};
use paxos_commit::protocol::replica::{Record, ReplicaTimer};
use paxos_commit::protocol::types::{BranchSet, Entry, Generations, Listed, Peer, Settle};

use crate::cast::{Cast, OPERATOR, REPLICAS, first, open, opened, replica_peer, second};
use crate::state::{Disk, NOBODY, bits};

use super::bounds::{Knows, Second};
use super::state::{Network, Node, State};
use super::store::{Kept, STORES, connected, name_of, session};
use super::system::System;
use super::tables::Envelope;

/// The slot of the Settle that lists the commit.
pub(crate) const SETTLE_SLOT: u64 = 2;

/// The Settle that lists the commit.
fn settle(cast: &Cast) -> Entry {
    Entry::Settle(Box::new(Settle {
        after: None,
        through: Generations::last_id(1),
        unfinished: vec![Listed {
            id: cast.id,
            unapplied: unapplied(cast),
        }],
    }))
}

fn unapplied(cast: &Cast) -> Unapplied {
    Unapplied {
        roster: cast.roster.clone(),
        read_only: BranchSet::default(),
    }
}

/// What stands on the disk of a replica that knows so much.
fn saved(cast: &Cast, knows: Knows) -> Vec<Record> {
    if matches!(knows, Knows::Absent | Knows::Nothing) {
        return Vec::new();
    }
    let mut records = vec![opened(2, first()), opened(3, first())];
    records.extend(cast.votes([true; 2]));
    records.push(Record::Committed {
        id: cast.id,
        unapplied: unapplied(cast),
    });
    records.push(Record::Frozen { generation: 1 });
    let (slot, entry) = (SETTLE_SLOT, settle(cast));
    if matches!(knows, Knows::Accepted | Knows::Listed) {
        let (round, replica) = (1, ReplicaId(1));
        records.push(Record::Log(LogRecord::Accept {
            slot,
            ballot: Ballot { round, replica },
            entry: entry.clone(),
        }));
    }
    if knows == Knows::Listed {
        records.push(Record::Chosen { slot, entry });
    }
    records
}

impl System {
    pub(crate) fn first_state(&self) -> State {
        let mut state = State {
            hosts: [NOBODY; REPLICAS],
            disks: [Disk::default(); REPLICAS],
            stores: self.first_stores(),
            network: Network::default(),
            wrong: 0,
            crashed: self.bounds.victims.is_empty(),
        };
        for index in 0..REPLICAS {
            let knows = self.bounds.knows[index];
            if knows != Knows::Absent {
                let mut tables = self.tables_mut();
                let records = saved(&tables.cast, knows);
                let disk = tables.ledger.disk(&records);
                state.disks[index] = tables.save(Disk::default(), disk);
                drop(tables);
                self.start_replica(&mut state, index);
            }
        }
        for index in 0..REPLICAS {
            if self.bounds.leads[index] {
                self.start_ballot(&mut state, index);
            }
        }
        self.send_news(&mut state);
        for store in 0..STORES {
            self.scan(&mut state, store);
        }
        self.drop_useless(&mut state);
        state
    }

    /// The sessions have heard that generation 3 is open.
    fn first_stores(&self) -> [Node; STORES] {
        let mut generations = Generations::genesis(first());
        for generation in 2..=3 {
            generations.apply(&open(generation, first()));
        }
        let kept = [
            Kept::Prepared,
            Kept::Prepared,
            match self.bounds.second {
                Second::None | Second::Empty => Kept::Nothing,
                Second::Copy => Kept::Prepared,
            },
        ];
        std::array::from_fn(|store| Node {
            host: if self.has_store(store) {
                let me = name_of(session(store, 0), self.bounds.plant);
                let of = connected(me, generations.clone());
                self.tables_mut().sessions.number(of)
            } else {
                NOBODY
            },
            run: 0,
            kept: kept[store],
            unproven: false,
        })
    }

    /// A replica starts from its disk; the sessions connect; the replica tells them to commit what
    /// waits for them.
    pub(crate) fn start_replica(&self, state: &mut State, index: usize) {
        state.hosts[index] = self.tables_mut().recover(index, state.disks[index]);
        for store in (0..STORES).filter(|store| self.has_store(*store)) {
            let name = name_of(session(store, state.stores[store].run), self.bounds.plant);
            self.feed(state, index, Input::Connected(Peer::Session(name)));
        }
        self.push(state, index);
    }

    pub(crate) fn push(&self, state: &mut State, index: usize) {
        let pushed = self.tables_mut().pushes(index, state.hosts[index]);
        state.network.add(&pushed);
    }

    /// Leaders have started a ballot before anything else happens. (A ballot whose first message
    /// arrives late starts late.)
    fn start_ballot(&self, state: &mut State, index: usize) {
        let is_own = |bit: u8| {
            let tables = self.tables();
            let Envelope { from, message } = tables.envelope(index, bit);
            let is_prepare = matches!(message, Message::Log(LogMessage::Prepare { .. }));
            is_prepare && *from == replica_peer(index)
        };
        while !bits(state.network.replicas[index]).any(is_own) {
            self.feed(state, index, Input::Timeout(ReplicaTimer::Tick));
        }
    }

    /// On their way are: the Settle to those who have not learned it, and an operator's wish.
    fn send_news(&self, state: &mut State) {
        let mut tables = self.tables_mut();
        let chosen = Message::Log(LogMessage::Chosen {
            slot: SETTLE_SLOT,
            entry: settle(&tables.cast),
        });
        let behind =
            |index: &usize| matches!(self.bounds.knows[*index], Knows::Commit | Knows::Accepted);
        let news = (0..REPLICAS).filter(behind);
        let news = news.map(|index| (replica_peer(index), chosen.clone()));
        let news = tables.post(&replica_peer(0), news.collect());
        state.network.add(&news);
        if self.bounds.replaces {
            let replace = Message::Reconfigure {
                latest: 3,
                configuration: second(),
            };
            let leaders = (0..REPLICAS).filter(|index| self.bounds.leads[*index]);
            let asked = leaders.map(|index| (replica_peer(index), replace.clone()));
            let asked = tables.post(&OPERATOR, asked.collect());
            state.network.add(&asked);
        }
    }

    /// A session asks about the branch that stands prepared in its store.
    pub(crate) fn scan(&self, state: &mut State, store: usize) {
        let id = self.tables().cast.id;
        let found = state.stores[store].kept.in_doubt(id);
        if self.has_store(store) && !found.is_empty() {
            let input = Input::Command(ParticipantCommand::InDoubt(found));
            let heard = self.tables_mut().tell(store, state.stores[store], input);
            self.take_heard(state, store, heard);
        }
    }
}
