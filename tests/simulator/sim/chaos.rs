//! Faults of hosts and links: crashes, restarts, partitions; and the end of all faults.

use paxos_commit::protocol::types::{CommitId, InitiatorId, Peer, Session};
use paxos_commit::protocol::{Initiator, Participant, Replica};

use super::crank::{Kind, boot};
use super::plan::MILLISECOND;
use super::plant::Plant;
use super::stats::{Fault, Sometimes};
use super::world::{At, Event, World};

/// What the fault schedule does.
#[derive(Clone, Debug)]
pub enum ChaosEvent {
    /// Draw a fault.
    Fault,
    /// Start a process again.
    Restart(At),
    /// Mend these cuts.
    Mend(Vec<(At, At)>),
    /// The last participant goes for good, with all its sessions.
    ParticipantGoes,
}

impl World {
    pub fn chaos(&mut self, event: ChaosEvent) {
        match event {
            ChaosEvent::Fault if self.healing.is_some() => {}
            ChaosEvent::Fault => {
                self.draw_fault();
                let after = self.between(0, 2 * self.plan.fault_every);
                self.schedule(after, Event::Chaos(ChaosEvent::Fault));
            }
            ChaosEvent::Restart(at) => {
                if !self.is_up(at) && !self.gone.contains(&at) {
                    self.start(at);
                }
            }
            ChaosEvent::Mend(cuts) => {
                for cut in cuts {
                    self.network.cut.remove(&cut);
                }
            }
            ChaosEvent::ParticipantGoes => self.participant_goes(),
        }
    }

    fn draw_fault(&mut self) {
        let plan = &self.plan;
        let weights = [
            plan.crash_weight,
            plan.partition_weight,
            plan.one_way_weight,
            plan.force_abort_weight,
            plan.pause_weight,
            plan.membership_weight,
        ];
        let total: u32 = weights.iter().sum();
        if total == 0 {
            return;
        }
        let mut drawn = self.rng.u32(..total);
        let mut which = 0;
        while drawn >= weights[which] {
            drawn -= weights[which];
            which += 1;
        }
        match which {
            0 => {
                let at = self.any_host();
                if self.is_up(at) {
                    self.crash(at);
                }
            }
            1 | 2 => self.partition(which == 2),
            3 => self.force_abort(),
            4 => self.pause(),
            _ => self.change_membership(),
        }
    }

    /// A process is stopped for a while, and goes on as if nothing had been.
    fn pause(&mut self) {
        let at = match self.leader {
            Some(leader) if self.rng.bool() => At::Replica(leader),
            Some(_) | None => self.any_host(),
        };
        if self.is_up(at) {
            self.stats.fault(Fault::ProcessPaused);
            let until = self.now + self.between(0, self.plan.outage_max);
            self.trace(|| format!("{at:?} is stopped until {until}"));
            self.paused.insert(at, until);
        }
    }

    fn any_host(&mut self) -> At {
        match self.rng.u32(..5) {
            0..=2 => At::Replica(self.rng.usize(..self.replicas.len())),
            3 => At::Session(self.rng.usize(..self.sessions.len())),
            _ => At::Initiator(self.rng.usize(..self.initiators.len())),
        }
    }

    /// Cuts one host off, or a random half of all hosts; in both directions or in one.
    fn partition(&mut self, one_way: bool) {
        let hosts: Vec<At> = self.hosts().collect();
        let alone = self.rng.bool();
        let lonely = self.any_host();
        let mut side: Vec<At> = Vec::new();
        for host in &hosts {
            if (alone && *host == lonely) || (!alone && self.rng.bool()) {
                side.push(*host);
            }
        }
        let outwards = self.rng.bool();
        let mut cuts = Vec::new();
        for inside in &side {
            for outside in hosts.iter().filter(|host| !side.contains(host)) {
                if !one_way || outwards {
                    cuts.push((*inside, *outside));
                }
                if !one_way || !outwards {
                    cuts.push((*outside, *inside));
                }
            }
        }
        self.stats.fault(if one_way {
            Fault::OneWayPartition
        } else {
            Fault::Partition
        });
        self.network.cut.extend(cuts.iter().copied());
        let after = self.between(0, self.plan.outage_max);
        self.schedule(after, Event::Chaos(ChaosEvent::Mend(cuts)));
    }

    /// The process dies at once; part of the batch on its way may reach the disk.
    pub fn crash(&mut self, at: At) {
        self.trace(|| format!("{at:?} crashes"));
        self.paused.remove(&at);
        match at {
            At::Replica(index) => {
                self.stats.fault(Fault::ReplicaCrash);
                self.crash_node::<Replica>(index);
            }
            At::Session(index) => {
                self.stats.fault(Fault::SessionCrash);
                self.crash_node::<Participant>(index);
            }
            At::Initiator(index) => {
                self.stats.fault(Fault::InitiatorCrash);
                self.apps[index].working.clear();
                self.crash_node::<Initiator>(index);
            }
        }
        let me = self.peer_at(at).clone();
        for other in self.counterparts(at) {
            let life = self.life(other);
            let after = self.between(0, 50 * MILLISECOND);
            let peer = me.clone();
            let (to, up) = (other, false);
            self.schedule(after, Event::Link { to, life, peer, up });
        }
        let after = self.between(0, self.plan.outage_max);
        self.schedule(after, Event::Chaos(ChaosEvent::Restart(at)));
    }

    fn crash_node<H: Kind>(&mut self, index: usize) {
        let unsaved = H::node(self, index).unsaved();
        // All, none, or a torn batch.
        let survivors = match self.rng.u32(..3) {
            0 => 0,
            1 => unsaved,
            _ => self.rng.usize(..=unsaved),
        };
        if unsaved > 0 {
            self.stats.fault(if survivors == 0 {
                Fault::LostBatch
            } else {
                Fault::TornBatch
            });
        }
        for record in H::node(self, index).crash(survivors) {
            H::durable(self, index, &record);
        }
    }

    /// Starts a process. A session and an initiator draw a new number each time.
    pub fn start(&mut self, at: At) {
        self.trace(|| format!("{at:?} starts"));
        match at {
            At::Replica(index) => boot::<Replica>(self, index),
            At::Session(index) => self.start_session(index),
            At::Initiator(index) => self.start_initiator(index),
        }
        if let At::Replica(index) = at {
            self.hostile_connects(index);
        }
        for other in self.counterparts(at) {
            for (to, from) in [(at, other), (other, at)] {
                let (life, peer) = (self.life(to), self.peer_at(from).clone());
                let (after, up) = (self.delay(), true);
                self.schedule(after, Event::Link { to, life, peer, up });
            }
        }
    }

    fn start_session(&mut self, index: usize) {
        let restart = self.sessions[index].life > 0;
        if restart && self.options.plant != Some(Plant::VotesAgain) {
            let number = self.session_number(At::Session(index));
            let node = &mut self.sessions[index];
            node.config.me.session = Session(number);
            self.draw_volume(index);
            let node = &mut self.sessions[index];
            node.me = Peer::Session(node.config.me.clone());
        }
        if let Some(generations) = self.some_generations() {
            self.sessions[index].config.generations = generations;
        }
        boot::<Participant>(self, index);
        if self.plan.is_fair() {
            let config = self.sessions[index].config.clone();
            self.sessions[index].host = Some(Participant::entered(config));
        }
        let life = self.sessions[index].life;
        let after = self.between(0, 20 * MILLISECOND);
        self.schedule_scan(index, life, after);
    }

    fn start_initiator(&mut self, index: usize) {
        if self.initiators[index].life > 0 {
            let number = self.session_number(At::Initiator(index));
            let node = &mut self.initiators[index];
            node.config.id = InitiatorId::from_u128(number.into());
            node.me = Peer::Initiator(node.config.id);
        }
        if let Some(generations) = self.some_generations() {
            self.initiators[index].config.generations = generations;
        }
        boot::<Initiator>(self, index);
        // The application asks for what it does not know.
        let open: Vec<CommitId> = self.apps[index].open.keys().copied().collect();
        for id in open {
            self.stats.saw(Sometimes::InitiatorAskedAfterRestart);
            self.ask_later(index, id);
        }
        for _ in 0..self.plan.in_flight {
            self.next_transaction(index);
        }
    }

    /// Those with whom a host has connections, as far as they are up.
    fn counterparts(&self, at: At) -> Vec<At> {
        let is_replica = |at: &At| matches!(at, At::Replica(_));
        let all = self.hosts();
        all.filter(|other| is_replica(other) != is_replica(&at) && self.is_up(*other))
            .collect()
    }

    /// The faults stop: everything is up, connected and quick from now on.
    pub fn heal(&mut self) {
        self.trace(|| "the faults stop".into());
        self.healing = Some(self.now);
        let plan = &mut self.plan;
        for fault in [
            &mut plan.loss,
            &mut plan.duplicate,
            &mut plan.spike,
            &mut plan.very_late,
            &mut plan.stall,
            &mut plan.failed_sync,
            &mut plan.crash_in_step,
        ] {
            *fault = 0.0;
        }
        self.network.cut.clear();
        self.paused.clear();
        self.mount_volumes();
        let down = self
            .hosts()
            .filter(|at| !self.is_up(*at) && !self.gone.contains(at));
        let down: Vec<At> = down.collect();
        for at in down {
            self.start(at);
        }
    }
}
