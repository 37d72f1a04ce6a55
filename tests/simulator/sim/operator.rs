//! The operators: they change the membership, replace replicas that lost their disk, and let go of
//! commits that wait for a participant that is gone for good.

use std::collections::BTreeSet;

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::replica::Records;
use paxos_commit::protocol::types::{Configuration, Generations, Member, ParticipantName, Peer};

use super::plan::{MILLISECOND, SECOND};
use super::stats::{Fault, Sometimes};
use super::world::{At, Event, World};

/// The operator who changes the cluster; those who force an abort have other numbers.
const OPERATOR: u64 = u64::MAX;

/// The most replicas of a configuration here.
const REPLICAS_MAX: usize = 5;

impl World {
    /// The generations as some running replica has them on its disk.
    pub fn some_generations(&mut self) -> Option<Generations> {
        let up = (0..self.replicas.len()).filter(|index| self.replicas[*index].is_up());
        let known = |index: &usize| self.disks[*index].generations().latest() > 0;
        let up: Vec<usize> = up.filter(known).collect();
        if up.is_empty() {
            return None;
        }
        let index = up[self.rng.usize(..up.len())];
        Some(self.disks[index].generations().clone())
    }

    fn in_force(&self) -> Vec<Member> {
        let configuration = self.facts.generations().in_force();
        configuration
            .into_iter()
            .flat_map(Configuration::members)
            .collect()
    }

    fn is_gone(&self, id: ReplicaId) -> bool {
        self.gone.contains(&At::Replica(id.0 as usize - 1))
    }

    /// Whether each unsettled generation keeps a majority that comes back, if this one does not.
    fn may_go(&self, id: ReplicaId) -> bool {
        let mut unsettled = self.facts.generations().unsettled();
        unsettled.all(|(_, configuration)| {
            let acceptors = configuration.acceptors();
            let gone = acceptors.iter().filter(|of| *of == id || self.is_gone(*of));
            acceptors.len() - gone.count() >= acceptors.majority()
        })
    }

    /// One change of the membership, or of an address.
    pub fn change_membership(&mut self) {
        if self.wanted.is_some() {
            return;
        }
        let mut members = self.in_force();
        let some = self.rng.usize(..members.len());
        let id = members[some].id;
        match self.rng.u32(..5) {
            0 | 1 => {
                if self.rng.bool() && !self.is_gone(id) && self.may_go(id) {
                    self.loses_disk(id);
                }
                let new = self.join();
                members[some] = member(new);
                self.stats.saw(Sometimes::ReplicaReplaced);
            }
            2 if members.len() + 2 <= REPLICAS_MAX => {
                members.push(member(self.join()));
                members.push(member(self.join()));
                self.stats.saw(Sometimes::ReplicasAdded);
            }
            3 if members.len() > 2 => {
                self.rng.shuffle(&mut members);
                members.sort_by_key(|member| !self.is_gone(member.id));
                members.drain(..2);
                self.stats.saw(Sometimes::ReplicasRemoved);
            }
            _ => {
                let moved = format!("moved:{}", self.now);
                members[some].address = moved.parse().expect("a short address");
                self.stats.saw(Sometimes::AddressMoved);
            }
        }
        let wanted = Configuration::new(members).expect("2F+1 distinct replicas");
        self.trace(|| format!("an operator wants {wanted:?}"));
        self.wanted = Some(wanted);
        self.schedule(0, Event::Operator);
    }

    /// The process dies, and its disk with it. It never comes back under its name.
    fn loses_disk(&mut self, id: ReplicaId) {
        let at = At::Replica(id.0 as usize - 1);
        self.stats.fault(Fault::DiskLost);
        self.gone.insert(at);
        if self.is_up(at) {
            self.crash(at);
        }
    }

    /// The operator asks again until it is so.
    pub fn operate_cluster(&mut self) {
        let Some(configuration) = self.wanted.clone() else {
            return;
        };
        let generations = self.facts.generations();
        if generations.in_force() == Some(&configuration) {
            self.wanted = None;
            return;
        }
        let latest = generations.latest();
        let message = Message::Reconfigure {
            latest,
            configuration,
        };
        self.tell_all_replicas(&message);
        let after = self.between(50 * MILLISECOND, SECOND);
        self.schedule(after, Event::Operator);
    }

    fn tell_all_replicas(&mut self, message: &Message) {
        for index in 0..self.replicas.len() {
            let event = Event::Deliver {
                to: At::Replica(index),
                life: 0,
                from: Peer::Operator(OPERATOR),
                message: message.clone(),
            };
            let after = self.delay();
            self.schedule(after, event);
        }
    }

    /// A replica says that nobody needs it any more.
    pub fn removed(&mut self, index: usize) {
        let at = At::Replica(index);
        let id = ReplicaId(index as u32 + 1);
        if self.facts.generations().contains(id) {
            self.check(Err::<(), _>(format!("replica {id} retires too early")));
        }
        self.stats.saw(Sometimes::RemovedReplicaStopped);
        self.gone.insert(at);
        self.crash(at);
    }

    /// The last participant goes for good.
    pub fn participant_goes(&mut self) {
        if self.healing.is_some() {
            return;
        }
        self.stats.fault(Fault::ParticipantGone);
        let participants = self.plan.participants;
        for index in 0..self.sessions.len() {
            if index % participants == participants - 1 {
                self.gone.insert(At::Session(index));
                if self.is_up(At::Session(index)) {
                    self.crash(At::Session(index));
                }
            }
        }
    }

    /// Whether this participant never comes back.
    pub fn is_dead(&self, participant: usize) -> bool {
        self.gone.contains(&At::Session(participant))
    }

    /// Whether the participant of this name never comes back.
    pub fn never_returns(&self, name: &ParticipantName) -> bool {
        let participants = 0..self.plan.participants;
        let mut gone = participants.filter(|participant| self.is_dead(*participant));
        gone.any(|participant| name.as_str() == format!("p{participant}"))
    }

    /// Lets go of what waits for a participant that is gone for good.
    pub fn release_listed(&mut self) {
        // As the replicas list them: perhaps the branch has applied it, and nobody heard of it.
        let listed = self.disks.iter().flat_map(Records::listed);
        let listed: BTreeSet<_> = listed.copied().collect();
        for id in listed {
            self.tell_all_replicas(&Message::Release { id });
        }
    }
}

fn member(id: ReplicaId) -> Member {
    Member {
        id,
        address: Default::default(),
    }
}
