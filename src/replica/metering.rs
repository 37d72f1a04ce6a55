//! What a replica counts.

use metrics::{Counter, Gauge, counter, gauge};

use crate::protocol::message::Message;
use crate::protocol::replica::Record;
use crate::protocol::types::{Outcome, Peer, Vote};

/// Handles of a replica's metrics, made once.
pub(super) struct Meters {
    commits: Counter,
    aborts_by_vote: Counter,
    aborts_by_ballot: Counter,
    ballots: Counter,
    pub(super) undecided: Gauge,
    pub(super) oldest: Gauge,
    pub(super) unapplied: Gauge,
    pub(super) remembered: Gauge,
    pub(super) generation: Gauge,
    pub(super) disk: Gauge,
}

impl Meters {
    pub(super) fn new() -> Self {
        Meters {
            commits: counter!("paxos_commit_commits_total"),
            aborts_by_vote: counter!("paxos_commit_aborts_total", "reason" => "vote"),
            aborts_by_ballot: counter!("paxos_commit_aborts_total", "reason" => "ballot"),
            ballots: counter!("paxos_commit_recoveries_total"),
            undecided: gauge!("paxos_commit_undecided"),
            oldest: gauge!("paxos_commit_oldest_undecided_seconds"),
            unapplied: gauge!("paxos_commit_unapplied"),
            remembered: gauge!("paxos_commit_transactions_in_memory"),
            generation: gauge!("paxos_commit_generation"),
            disk: gauge!("paxos_commit_disk_bytes"),
        }
    }

    /// A record that is about to be saved. Every commit is finished once at each replica; an abort
    /// shows as a vote or as what a ballot came to.
    pub(super) fn count_record(&self, record: &Record) {
        match record {
            Record::Finished {
                outcome: Outcome::Commit,
                ..
            } => self.commits.increment(1),
            Record::Finished {
                outcome: Outcome::Abort,
                ..
            } => self.aborts_by_ballot.increment(1),
            Record::Vote {
                vote: Vote::Aborted,
                ..
            } => self.aborts_by_vote.increment(1),
            Record::Vote { .. }
            | Record::Promise { .. }
            | Record::Accept { .. }
            | Record::Committed { .. }
            | Record::Round { .. }
            | Record::Log(_)
            | Record::Frozen { .. }
            | Record::Chosen { .. }
            | Record::State { .. } => {}
        }
    }

    /// A message that is about to be sent by `me`.
    pub(super) fn count_message(&self, me: &Peer, to: &Peer, message: &Message) {
        // To itself too: so each ballot is counted once.
        if let Message::Phase1a { ids, .. } = message
            && me == to
        {
            self.ballots.increment(ids.len() as u64);
        }
    }
}
