//! Judges one state: the invariants of the design, and PaxosCommit.tla.
//!
//! Disks and the network only ever grow, and every invariant speaks of what is on disks, what was
//! sent and what was told, so each state is judged by itself: [`Facts`] are told of all votes, then
//! of all disks, then of everything else.

use crate::invariant::{Facts, Violation};
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::replica::Record;
use paxos_commit::protocol::types::{Outcome, Peer, Vote};

use crate::bounds::{Sessions, Victim};
use crate::cast::{Place, replica_id};
use crate::disk::Summary;
use crate::leaf;
use crate::network::Envelope;
use crate::state::State;
use crate::system::System;
use crate::tables::{LET_GO, TOLD_ABORT, TOLD_COMMIT, Tables, bit_of};

/// What was found in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A bit for each of [`RULES`] that is broken.
    pub(crate) broken: u8,
    /// A bit for each of [`SIGHTS`].
    pub(crate) seen: u8,
}

/// What holds in every state.
pub(crate) const RULES: [&str; 6] = [
    "1: one outcome",
    "2: commit takes every vote",
    "3: one value is chosen, and nothing else is told",
    "4: promises are kept, and durable before they are told",
    "PaxosCommit.tla allows it",
    "no message of a correct host is refused",
];

/// What happens in some state.
pub(crate) const SIGHTS: [&str; 6] = [
    "commit",
    "abort",
    "a recovery ballot commits",
    "a recovery ballot aborts",
    "commit with a replica down throughout",
    "commit after a crash",
];

impl System {
    pub(crate) fn judge(&self, state: &State) -> Verdict {
        let leaves = self.told_to_leaves(state);
        let tables = self.tables();
        let mut court = Court::new(self, &tables, state);
        court.hear_network();
        court.hear_told(leaves);
        court.compare_with_tla(leaves);
        court.look_around(leaves);
        court.verdict
    }

    /// Which outcomes the learners that have no place in the state can be told.
    fn told_to_leaves(&self, state: &State) -> u8 {
        let mut told = self.told_to_initiator(state);
        if self.bounds.sessions == Sessions::Leaves {
            for (branch, node) in state.sessions.iter().enumerate() {
                let run = usize::from(node.run);
                let place = Place::Session { branch, run };
                if branch < self.branches() && node.up {
                    told |= self.told_to_session(state, place, branch);
                }
            }
        }
        told
    }

    fn told_to_session(&self, state: &State, place: Place, branch: usize) -> u8 {
        let word = state.network.at(Place::Learners.number());
        let host = state.sessions[branch].host;
        let known = self.tables().told.get(&(place, host, word)).copied();
        known.unwrap_or_else(|| {
            let mut tables = self.tables_mut();
            let votes = &self.bounds.votes[branch];
            let told = leaf::session(&mut tables, place, host, word, votes);
            tables.told.insert((place, host, word), told);
            told
        })
    }

    fn told_to_initiator(&self, state: &State) -> u8 {
        let place = Place::Learners;
        let word = state.network.at(place.number());
        let host = state.initiator;
        let known = self.tables().told.get(&(place, host, word)).copied();
        known.unwrap_or_else(|| {
            let mut tables = self.tables_mut();
            let told = leaf::initiator(&mut tables, host, word);
            tables.told.insert((place, host, word), told);
            told
        })
    }
}

/// One state before its judge.
struct Court<'s> {
    system: &'s System,
    tables: &'s Tables,
    state: &'s State,
    facts: Facts,
    disks: Vec<&'s Summary>,
    /// Which outcomes messages tell.
    claimed: u8,
    /// Some replica holds an Aborted.
    aborted: bool,
    verdict: Verdict,
}

impl<'s> Court<'s> {
    fn new(system: &'s System, tables: &'s Tables, state: &'s State) -> Self {
        let nodes = &state.replicas[..system.bounds.replicas];
        let disks = nodes.iter().map(|node| tables.ledger.summary(node.disk));
        let disks: Vec<&Summary> = disks.collect();
        Court {
            system,
            tables,
            state,
            facts: Facts::new(tables.cast.acceptors.clone()),
            aborted: disks.iter().any(|disk| !disk.aborted.is_empty()),
            disks,
            claimed: 0,
            verdict: Verdict::default(),
        }
    }

    fn note(&mut self, judged: Result<(), Violation>) {
        if let Err(violation) = judged {
            self.verdict.broken |= 1 << rule_of(&violation);
        }
    }

    fn hear_network(&mut self) {
        let envelopes = self.state.network.iter();
        let envelopes: Vec<&Envelope> = envelopes.map(|id| self.tables.envelope(id)).collect();
        for Envelope { from, message } in &envelopes {
            // A vote that no replica holds is as good as none.
            if let Message::Vote(cast) = message
                && self.is_held(from, cast.vote)
            {
                let judged = self.facts.sent(from, message);
                self.note(judged);
            }
        }
        self.hear_disks();
        for Envelope { from, message } in envelopes {
            let outcome = match message {
                Message::Vote(_) => continue,
                Message::Decided(decision) => Some(decision.outcome),
                Message::Finish { outcome, .. } => Some(*outcome),
                Message::Applied { .. } => Some(Outcome::Commit),
                Message::Phase2a { ballot, proposals } => {
                    self.hear_proposal(*ballot, proposals[0].outcome);
                    None
                }
                _ => None,
            };
            self.claimed |= outcome.map_or(0, bit_of);
            let judged = self.facts.sent(from, message);
            self.note(judged);
        }
    }

    fn is_held(&self, from: &Peer, vote: Vote) -> bool {
        let roster = &self.tables.cast.roster;
        let index = match from {
            Peer::Session(branch) => roster.index_of(branch),
            Peer::Replica(_) | Peer::Initiator(_) | Peer::Operator(_) => None,
        };
        let held = |disk: &Summary, index| match vote {
            Vote::Prepared | Vote::ReadOnly => disk.prepared.contains(index),
            Vote::Aborted => disk.aborted.contains(index),
        };
        index.is_some_and(|index| self.disks.iter().any(|disk| held(disk, index)))
    }

    fn hear_disks(&mut self) {
        let nodes = &self.state.replicas[..self.system.bounds.replicas];
        // What was settled was chosen before, by what stands on other disks as well.
        let is_settled =
            |record: &Record| matches!(record, Record::Committed { .. } | Record::Finished { .. });
        for settled in [false, true] {
            for (index, node) in nodes.iter().enumerate() {
                for record in self.tables.ledger.records(node.disk) {
                    if is_settled(&record) == settled {
                        let judged = self.facts.durable(replica_id(index), &record);
                        self.note(judged);
                    }
                }
            }
        }
        for node in nodes {
            if node.went_back || node.untrue {
                self.verdict.broken |= 1 << 3;
            }
            if node.refused {
                self.verdict.broken |= 1 << 5;
            }
        }
    }

    fn hear_proposal(&mut self, ballot: paxos_commit::protocol::paxos::Ballot, outcome: Outcome) {
        let ghost = self.tables.ghosts.value(self.state.ghost);
        if !ghost.allows_proposal(ballot, outcome) {
            self.verdict.broken |= 1 << 4;
        }
    }

    fn told(&self, leaves: u8) -> u8 {
        let sessions = self.state.sessions.iter();
        sessions.fold(leaves | self.claimed, |told, node| told | node.told)
    }

    fn hear_told(&mut self, leaves: u8) {
        let told = self.told(leaves);
        let id = self.tables.cast.id;
        for outcome in [Outcome::Commit, Outcome::Abort] {
            if told & bit_of(outcome) != 0 {
                let judged = self.facts.tell(id, outcome);
                self.note(judged);
            }
        }
        for (branch, node) in self.state.sessions.iter().enumerate() {
            for _ in 0..node.requests {
                let judged = self.facts.request_ran(id, &self.tables.cast.branch(branch));
                self.note(judged);
            }
        }
        // A branch that let its work go has aborted, whatever the others are told.
        if told & TOLD_COMMIT != 0 && told & (TOLD_ABORT | LET_GO) != 0 {
            self.verdict.broken |= 1;
        }
    }

    fn compare_with_tla(&mut self, leaves: u8) {
        let ghost = self.tables.ghosts.value(self.state.ghost);
        let branches = self.system.branches();
        let told = self.told(leaves);
        if !ghost.allows_outcomes(told, &self.disks, branches, self.aborted) {
            self.verdict.broken |= 1 << 4;
        }
    }

    fn look_around(&mut self, leaves: u8) {
        let told = self.told(leaves);
        let commit = told & TOLD_COMMIT != 0;
        let by_ballot = |outcome| self.is_chosen_by_ballot(outcome);
        let all = self.tables.cast.roster.all();
        let complete = |disk: &&&Summary| disk.prepared.covers(all);
        let by_votes = 2 * self.disks.iter().filter(complete).count() > self.disks.len();
        let sights = [
            commit,
            told & TOLD_ABORT != 0,
            commit && by_ballot(Outcome::Commit) && !by_votes,
            by_ballot(Outcome::Abort) && !self.aborted,
            commit && self.is_somebody_idle(),
            commit && self.has_crashed(),
        ];
        for (index, seen) in sights.into_iter().enumerate() {
            self.verdict.seen |= u8::from(seen) << index;
        }
    }

    fn is_chosen_by_ballot(&self, outcome: Outcome) -> bool {
        let ballots = self.disks.iter().flat_map(|disk| disk.accepted.iter());
        let mut ballots = ballots.filter(|(_, value)| *value == outcome);
        ballots.any(|accepted| {
            let same = |disk: &&&Summary| disk.accepted.contains(accepted);
            2 * self.disks.iter().filter(same).count() > self.disks.len()
        })
    }

    /// A replica that has done nothing at all is as good as one that was never up.
    fn is_somebody_idle(&self) -> bool {
        let nodes = self.state.replicas[..self.system.bounds.replicas].iter();
        let mut nodes = nodes.zip(&self.system.idle);
        nodes.any(|(node, idle)| node.host == *idle)
    }

    fn has_crashed(&self) -> bool {
        let victims = &self.system.bounds.victims;
        let up = |victim: &Victim| match victim {
            Victim::Replica(index) => self.state.replicas[*index].up,
            Victim::Session(branch) => self.state.sessions[*branch].up,
        };
        !victims.is_empty() && self.state.victim.is_none() && victims.iter().all(up)
    }
}

fn rule_of(violation: &Violation) -> u8 {
    match violation {
        Violation::TwoOutcomes { .. } => 0,
        Violation::CommitWithoutVotes { .. }
        | Violation::TwoVotes { .. }
        | Violation::TwoVotesHeld { .. }
        | Violation::RequestRanTwice { .. } => 1,
        Violation::TwoChosen { .. }
        | Violation::TwoProposals { .. }
        | Violation::BallotUsedTwice { .. }
        | Violation::NotChosen { .. } => 2,
        Violation::WentBack { .. }
        | Violation::NotDurable { .. }
        | Violation::RoundNotDurable { .. } => 3,
        violation => panic!("a violation that no rule names: {violation}"),
    }
}
