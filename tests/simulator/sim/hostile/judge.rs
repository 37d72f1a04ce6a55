//! What is judged when clients lie.
//!
//! A transaction is honest if its initiator and its whole roster are. Of every other instance the
//! observer is told nothing: its parties may be told anything. What must hold all the same:
//!
//! - no process fails (a failed assertion ends the run and names its seed);
//! - no instance of a hostile client ends a branch of an honest transaction;
//! - nothing is created for a generation that is not open, nor for an outcome that a session did not
//!   wait for;
//! - no floor of an honest initiator is higher than that initiator has announced;
//! - memory stays within bounds that follow from the plan, not from the number of messages;
//! - honest branches come to their end even in a transaction with a hostile party: see `audit`.

use crate::invariant::Violation;
use paxos_commit::protocol::message::{Message, State};
use paxos_commit::protocol::participant::ParticipantNotice;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::paxos::log::{LogMessage, LogRecord};
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{
    Branch, CommitId, Entry, InitiatorId, Outcome, Peer, Roster, RosterDigest, TxnId,
};
use paxos_commit::protocol::{Participant, Replica};

use super::super::world::World;
use super::{is_hostile_initiator, is_hostile_name};

/// Past its limit a replica takes on this part of it for each name, as `admitting` says.
const SHARES: usize = 64;

/// A name may hold so many times the limit.
const HELD_MAX: usize = 2;

impl World {
    /// An honest application has begun a transaction.
    pub fn note_honest(&mut self, txn: TxnId) {
        if self.is_attacked() {
            self.hostile.honest.insert(txn);
        }
    }

    /// A hostile client says this: what it names that is in no honest transaction is not judged.
    pub(super) fn taint(&mut self, message: &Message) {
        match message {
            Message::BeginCommit(begin) => self.taint_instance(begin.id, Some(&begin.roster)),
            Message::Vote(cast) => self.taint_instance(cast.id, Some(&cast.roster)),
            Message::Ask(question) => self.taint_instance(question.id, None),
            Message::Applied { id, .. }
            | Message::Contradicted { id, .. }
            | Message::Unproven { id, .. }
            | Message::ForceAbort { id } => {
                self.taint_instance(*id, None);
            }
            _ => {}
        }
    }

    pub(super) fn taint_instance(&mut self, id: CommitId, roster: Option<&Roster>) {
        let is_hostile = |roster: &Roster| {
            let mut branches = roster.iter();
            branches.any(|branch| is_hostile_name(&branch.participant))
        };
        if roster.is_some_and(is_hostile) || !self.hostile.honest.contains(&id.txn) {
            self.hostile.tainted.insert(id);
        }
    }

    /// Whether the instance belongs to honest parties only.
    pub fn is_judged(&self, id: &CommitId) -> bool {
        let hostile = &self.hostile;
        !is_hostile_initiator(id.txn.initiator)
            && !hostile.common.contains(&id.txn)
            && !hostile.tainted.contains(id)
    }

    /// Somebody was told an outcome.
    pub fn judge_told(&mut self, id: CommitId, outcome: Outcome) {
        if self.is_judged(&id) {
            let result = self.facts.tell(id, outcome);
            self.check(result);
        }
    }

    /// A record is durable: the observer is told what concerns honest instances.
    pub fn judge_durable(&mut self, replica: ReplicaId, record: &Record) -> Result<(), Violation> {
        if !self.is_attacked() {
            return self.facts.durable(replica, record);
        }
        match self.honest_record(record) {
            Some(record) => self.facts.durable(replica, &record),
            None => Ok(()),
        }
    }

    /// A message leaves: the observer is told what concerns honest instances.
    pub fn judge_sent(&mut self, from: &Peer, message: &Message) -> Result<(), Violation> {
        if !self.is_attacked() {
            return self.facts.sent(from, message);
        }
        if let (Peer::Initiator(initiator), Some(floor)) = (from, floor_in(message)) {
            self.note_floor(*initiator, floor);
        }
        match self.honest_message(message) {
            Some(message) => self.facts.sent(from, &message),
            None => Ok(()),
        }
    }

    /// The record without what concerns other instances.
    pub fn honest_record(&self, record: &Record) -> Option<Record> {
        let mut record = record.clone();
        match &mut record {
            Record::Vote { id, .. }
            | Record::Promise { id, .. }
            | Record::Accept { id, .. }
            | Record::Committed { id, .. }
            | Record::Disputed { id }
            | Record::Finished { id, .. } => return self.is_judged(id).then_some(record),
            Record::Log(LogRecord::Accept { entry, .. }) | Record::Chosen { entry, .. } => {
                self.strip(entry);
            }
            Record::State { listed, .. } => listed.retain(|listed| self.is_judged(&listed.id)),
            Record::Round { .. } | Record::Log(_) | Record::Frozen { .. } => {}
        }
        Some(record)
    }

    fn strip(&self, entry: &mut Entry) {
        if let Entry::Settle(settle) = entry {
            let unfinished = &mut settle.unfinished;
            unfinished.retain(|listed| self.is_judged(&listed.id));
        }
    }

    fn honest_message(&self, message: &Message) -> Option<Message> {
        let id = match message {
            Message::Vote(cast) => Some(cast.id),
            Message::Phase2b { id, .. }
            | Message::Finish { id, .. }
            | Message::Applied { id, .. }
            | Message::Disputed { id, .. }
            | Message::Contradicted { id, .. }
            | Message::Unproven { id, .. }
            | Message::Expired { id, .. } => Some(*id),
            Message::Decided(decision) => Some(decision.id),
            _ => None,
        };
        if id.is_some_and(|id| !self.is_judged(&id)) {
            return None;
        }
        let mut message = message.clone();
        match &mut message {
            Message::Phase1b { reports, .. } => reports.retain(|of| self.is_judged(&of.id)),
            Message::Phase2a { proposals, .. } => proposals.retain(|of| self.is_judged(&of.id)),
            Message::State { listed, .. } => listed.retain(|of| self.is_judged(&of.id)),
            Message::Log(
                LogMessage::Accept { entry, .. }
                | LogMessage::Chosen { entry, .. }
                | LogMessage::Promise {
                    accepted: Some((_, entry)),
                    ..
                },
            ) => self.strip(entry),
            _ => {}
        }
        Some(message)
    }

    /// An honest session tells its service something.
    pub fn judge_notice(&mut self, session: usize, notice: &ParticipantNotice) {
        if let ParticipantNotice::Outcome { id, .. } | ParticipantNotice::Forgotten { id } = notice
            && self.hostile.honest.contains(&id.txn)
            && !self.is_judged(id)
        {
            let me = &self.sessions[session].me;
            let what = format!("{me}: an instance of a hostile client ended its branch of {id}");
            self.check(Err::<(), _>(what));
        }
    }

    /// An outcome creates nothing in a session that does not wait for it.
    pub fn judge_growth(&mut self, session: usize, before: usize, message: &str) {
        let node = &self.sessions[session];
        let after = node.host.as_ref().map_or(0, Participant::remembered);
        if self.is_attacked() && after > before {
            let me = &node.me;
            let what = format!("{me}: {message} created a branch that nobody began");
            self.check(Err::<(), _>(what));
        }
    }

    /// What a session remembers, if this message must not add to it.
    pub fn remembered_before(&self, session: usize, message: &Message) -> Option<(usize, String)> {
        if !self.is_attacked() {
            return None;
        }
        let creates_nothing = matches!(
            message,
            Message::Finish { .. } | Message::Phase2b { .. } | Message::Expired { .. }
        );
        let host = self.sessions[session].host.as_ref()?;
        creates_nothing.then(|| (host.remembered(), format!("{message:?}")))
    }

    /// What every process keeps stays within its bounds.
    pub fn judge_bounds(&mut self) {
        if !self.is_attacked() {
            return;
        }
        let running = self.initiators.iter();
        let running =
            running.filter_map(|node| Some((node.config.id, node.host.as_ref()?.floor())));
        for (initiator, floor) in running.collect::<Vec<_>>() {
            self.note_floor(initiator, floor);
        }
        let replicas = (0..self.replicas.len()).find_map(|index| self.replica_exceeds(index));
        let sessions = (0..self.sessions.len()).find_map(|index| self.session_exceeds(index));
        if let Some(what) = replicas.or(sessions) {
            self.check(Err::<(), _>(what));
        }
    }

    /// An honest initiator has announced this floor.
    pub fn note_floor(&mut self, initiator: InitiatorId, floor: u32) {
        let held = self.hostile.floors.entry(initiator).or_default();
        *held = floor.max(*held);
    }

    fn names(&self) -> usize {
        let certificates = self.plan.hostile.as_ref().map_or(0, |of| of.certificates);
        // The honest participants, the honest initiators, who have one name, and the operators.
        self.plan.participants + certificates + 2
    }

    fn replica_exceeds(&self, index: usize) -> Option<String> {
        let host = self.replicas[index].host.as_ref()?;
        let name = &self.replicas[index].me;
        let first = CommitId {
            txn: TxnId::first_of(self.facts.generations().latest() + 1),
            roster: RosterDigest::MIN,
        };
        if let Some((id, _)) = host.under_way(first..).next() {
            return Some(format!(
                "{name} holds {id} of a generation that is not open"
            ));
        }
        let max = self.plan.undecided_max;
        let share = self.names() * (max / SHARES + 1);
        // A ballot of another replica brings what that replica took on. After a restart, each name
        // has its share again. What operators force takes no place.
        let lives: usize = self.replicas.iter().map(|node| node.life as usize).sum();
        let bound = self.replicas.len() * (max + share) + lives * share + self.known.len();
        let undecided = host.undecided().count();
        if undecided > bound {
            return Some(format!("{name} holds {undecided} undecided, bound {bound}"));
        }
        // Each replica brings what it took on itself, anew after a restart. A commit takes its place
        // when it is first pushed, so as many again may be on their way to that.
        let bound = 2 * HELD_MAX * max * (self.replicas.len() + lives);
        for certificate in &self.hostile.certificates {
            let super::Name::Participant(participant) = &certificate.name else {
                continue;
            };
            let waits = |id: &&CommitId| {
                let Some(State::Decided { unapplied, .. }) = host.state(id) else {
                    return false;
                };
                let mut waits = unapplied.iter();
                waits.any(|branch| branch.participant == *participant)
            };
            let listed = host.unapplied().filter(waits).count();
            if listed > bound {
                return Some(format!(
                    "{name}: {listed} commits wait for {participant}, bound {bound}"
                ));
            }
        }
        None
    }

    fn session_exceeds(&self, index: usize) -> Option<String> {
        let host = self.sessions[index].host.as_ref()?;
        let name = &self.sessions[index].me;
        let latest = self.facts.generations().latest();
        if let Some(txn) = host.transactions().find(|txn| txn.generation > latest) {
            return Some(format!(
                "{name} remembers {txn} of a generation that is not open"
            ));
        }
        let (floors, bound) = (host.initiators_remembered(), self.initiators_drawn());
        if floors > bound {
            return Some(format!("{name} remembers {floors} floors, bound {bound}"));
        }
        // A confused initiator announces a floor that is a little too high.
        let slack = if self.plan.confused > 0.0 { 3 } else { 0 };
        let too_high =
            self.hostile.floors.iter().find(|(initiator, floor)| {
                host.floor_of(**initiator) > floor.saturating_add(slack)
            });
        let (initiator, floor) = too_high?;
        let held = host.floor_of(*initiator);
        Some(format!(
            "{name} holds floor {held} of initiator {initiator}, which announced {floor}"
        ))
    }

    /// How many runs of initiators there were.
    fn initiators_drawn(&self) -> usize {
        self.numbers.len() + self.hostile.drawn as usize
    }

    /// Whether this replica keeps the instance for a hostile branch, and for nobody else who could still
    /// apply it. (As long as the store of a branch is connected and has not said that it has no proof,
    /// no operator lets its commit go. So a hostile branch also keeps what a participant that is gone for
    /// good has not applied: seed 7096.)
    pub fn waits_for_hostile_only(&self, host: &Replica, id: &CommitId) -> bool {
        if !self.is_attacked() {
            return false;
        }
        match host.state(id) {
            // The leader has not heard of it: a hostile branch told this replica alone.
            Some(State::Decided { unapplied, .. }) if unapplied.is_empty() => !self.is_judged(id),
            Some(State::Decided { unapplied, .. }) => {
                let is_hostile = |branch: &Branch| is_hostile_name(&branch.participant);
                let is_gone = |branch: &Branch| self.never_returns(&branch.participant);
                unapplied.iter().any(is_hostile)
                    && unapplied.iter().all(|it| is_hostile(it) || is_gone(it))
            }
            Some(State::Undecided { .. }) | None => false,
        }
    }
}

fn floor_in(message: &Message) -> Option<u32> {
    match message {
        Message::BeginCommit(begin) => Some(begin.floor),
        Message::Rollback { floor, .. } => Some(*floor),
        _ => None,
    }
}
