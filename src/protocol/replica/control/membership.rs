//! Changing the membership: which replicas have to be heard before it is proposed (DESIGN 2.6).
//!
//! The chosen configuration decides every later entry of the log, and there is no way back without
//! its majority. So the leader proposes it only when every replica that it adds, and a majority of
//! it, has answered a [`Probe`](Message::Probe) after the operator asked: it runs, its certificate is
//! right, and it knows the log up to where it stood then. Replicas that are added are dialed at the
//! address at which the configuration names them. A replica that moves is asked where it still is.
//!
//! (Counter-examples: of three replicas the third is down, and an operator removes the other two: the
//! cluster is the one that is down. And an operator adds two replicas to a cluster of one, with two
//! addresses where no process answers: no further entry is ever chosen, not even one that takes them
//! back.)

use std::collections::BTreeSet;

use crate::protocol::message::{Declined, Message};
use crate::protocol::paxos::{Acceptors, ReplicaId};
use crate::protocol::types::{
    Configuration, Entry, Generations, Member, Open, Peer, UNSETTLED_MAX,
};

use crate::protocol::replica::vocabulary::{Out, Rejection, ReplicaNotice};

use super::{Control, Rest};

/// A change that an operator asked of this leader, until its replicas were heard.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Probing {
    peer: Peer,
    /// The generation that the operator takes for the latest.
    latest: u32,
    configuration: Configuration,
    /// Up to which slot they must know the log.
    slot: u64,
    heard: BTreeSet<ReplicaId>,
    /// Ticks until the change is declined.
    patience: u32,
}

impl Control {
    /// An operator changes the membership: the next generation runs on the new configuration.
    pub(crate) fn on_reconfigure(
        &mut self,
        from: &Peer,
        latest: u32,
        configuration: Configuration,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        let is_same = |probing: &Probing| {
            (&probing.peer, probing.latest, &probing.configuration)
                == (from, latest, &configuration)
        };
        if self.is_leading() && self.probing.as_ref().is_some_and(is_same) {
            // The operator asks again. Those that were heard stay heard.
            return Ok(());
        }
        if let Err(declined) = self.may_probe(from, latest, &configuration) {
            rest.out.send(from.clone(), Message::Declined(declined));
            return Ok(());
        }
        let added = self.added(&configuration);
        if !added.is_empty() {
            rest.out.notify.push(ReplicaNotice::Dial(added));
        }
        self.probing = Some(Probing {
            peer: from.clone(),
            latest,
            configuration,
            slot: self.generations.slot(),
            heard: BTreeSet::from([rest.config.id]),
            patience: rest.config.log.silence_ticks.saturating_mul(2).max(2),
        });
        self.probe(rest.out);
        self.propose_if_heard(rest);
        Ok(())
    }

    fn may_probe(
        &self,
        from: &Peer,
        latest: u32,
        configuration: &Configuration,
    ) -> Result<(), Declined> {
        if !self.is_leading() {
            return Err(self.not_leader());
        }
        self.check_reconfigure(latest, configuration)?;
        let others = self.probing.as_ref();
        let others = others.is_some_and(|probing| probing.peer != *from);
        match others || self.operator.is_some() {
            true => Err(Declined::UnderWay),
            false => Ok(()),
        }
    }

    fn check_reconfigure(&self, latest: u32, next: &Configuration) -> Result<(), Declined> {
        let generations = &self.generations;
        if generations.latest() != latest {
            let latest = generations.latest();
            return Err(Declined::Changed { latest });
        }
        let unsettled = generations.unsettled().count();
        if unsettled >= UNSETTLED_MAX {
            return Err(Declined::TooManyUnsettled(unsettled));
        }
        let used = self.added(next);
        match used.iter().find(|member| !generations.is_new(member.id)) {
            Some(member) => Err(Declined::UsedId(member.id)),
            None => Ok(()),
        }
    }

    /// The members of `next` that are none of the configuration in force.
    fn added(&self, next: &Configuration) -> Vec<Member> {
        let before = self.generations.in_force().map(Configuration::acceptors);
        let stays = |id| before.is_some_and(|before| before.contains(id));
        next.members().filter(|member| !stays(member.id)).collect()
    }

    /// Asks the replicas of the new configuration that were not heard.
    fn probe(&self, out: &mut Out) {
        let Some(probing) = &self.probing else {
            return;
        };
        for replica in probing.configuration.acceptors().iter() {
            if !probing.heard.contains(&replica) {
                let slot = probing.slot;
                out.send(Peer::Replica(replica), Message::Probe { slot });
            }
        }
    }

    /// The leader asks whether this replica knows the log up to `slot`.
    pub(crate) fn on_probe(
        &mut self,
        from: ReplicaId,
        slot: u64,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if slot > self.generations.slot() {
            self.fetch(from, rest.out);
        }
        let slot = self.generations.slot();
        rest.out.send(Peer::Replica(from), Message::Probed { slot });
        Ok(())
    }

    pub(crate) fn on_probed(
        &mut self,
        from: ReplicaId,
        slot: u64,
        rest: &mut Rest<'_>,
    ) -> Result<(), Rejection> {
        if let Some(probing) = &mut self.probing
            && slot >= probing.slot
            && probing.configuration.acceptors().contains(from)
        {
            probing.heard.insert(from);
            self.propose_if_heard(rest);
        }
        Ok(())
    }

    /// Proposes the change once its replicas were heard, and the slot is free.
    fn propose_if_heard(&mut self, rest: &mut Rest<'_>) {
        let is_free = self.is_free();
        let is_heard = |probing: &mut Probing| missing(&self.generations, probing).is_empty();
        if !is_free || self.operator.is_some() {
            return;
        }
        let Some(probing) = self.probing.take_if(is_heard) else {
            return;
        };
        self.stop_dialing(&probing, rest.out);
        let result = self.check_reconfigure(probing.latest, &probing.configuration);
        let entry = self.next_open(probing.configuration);
        self.propose_for(&probing.peer, entry, result, rest);
    }

    /// Time passes for a change whose replicas are waited for.
    pub(super) fn tick_probing(&mut self, rest: &mut Rest<'_>) {
        self.propose_if_heard(rest);
        let not_leader = (!self.is_leading()).then(|| self.not_leader());
        let Some(probing) = &mut self.probing else {
            return;
        };
        probing.patience = probing.patience.saturating_sub(1);
        let declined = match not_leader {
            Some(declined) => declined,
            None if probing.patience > 0 => {
                self.probe(rest.out);
                return;
            }
            None => match missing(&self.generations, probing) {
                missing if missing.is_empty() => Declined::UnderWay,
                missing => Declined::Unheard(missing),
            },
        };
        if let Some(probing) = self.probing.take() {
            self.stop_dialing(&probing, rest.out);
            rest.out.send(probing.peer, Message::Declined(declined));
        }
    }

    fn stop_dialing(&self, probing: &Probing, out: &mut Out) {
        if !self.added(&probing.configuration).is_empty() {
            out.notify.push(ReplicaNotice::Dial(Vec::new()));
        }
    }

    pub(super) fn next_open(&self, configuration: Configuration) -> Entry {
        Entry::Open(Open {
            generation: self.generations.latest().saturating_add(1),
            configuration,
        })
    }

    pub(super) fn not_leader(&self) -> Declined {
        let leader = self.leader();
        Declined::NotLeader { leader }
    }

    /// Whether this replica is needed no longer: no unsettled generation names it, and none ever will.
    /// To stop it earlier takes a replica from those that must decide what is under way.
    pub(crate) fn is_removed(&self, me: ReplicaId) -> bool {
        is_over(&self.generations, me)
    }

    /// A replica that no unsettled generation names has nothing left to do, unless it waits to be added.
    pub(super) fn look_whether_removed(&self, before: &Generations, rest: &mut Rest<'_>) {
        let me = rest.config.id;
        if !is_over(before, me) && self.is_removed(me) {
            rest.out.notify.push(ReplicaNotice::Removed);
        }
    }
}

/// Whether `replica` was removed, or will never be added, since an id above its own was used.
fn is_over(generations: &Generations, replica: ReplicaId) -> bool {
    generations.slot() > 0 && !generations.contains(replica) && !generations.is_new(replica)
}

/// The replicas that must still be heard: all that are added; and as long as those that were heard are
/// no majority, all others too.
fn missing(generations: &Generations, probing: &Probing) -> Vec<ReplicaId> {
    let next = probing.configuration.acceptors();
    let before = generations.in_force().map(Configuration::acceptors);
    let stays = |id| before.is_some_and(|before: &Acceptors| before.contains(id));
    let heard = next.iter().filter(|id| probing.heard.contains(id)).count();
    let is_majority = heard >= next.majority();
    let unheard = next.iter().filter(|id| !probing.heard.contains(id));
    unheard.filter(|id| !(is_majority && stays(*id))).collect()
}
