//! What a replica counts.

use metrics::{Counter, Gauge, Unit, counter, gauge, histogram};
use metrics::{describe_counter, describe_gauge, describe_histogram};

use crate::protocol::message::Message;
use crate::protocol::replica::Record;
use crate::protocol::types::{Outcome, Peer, Vote};
use crate::store::committer::Observer;

/// Tells the recorder of this process, which must be installed by now, what each metric of this
/// crate means. They are counted with the crate [`metrics`], whatever recorder there is.
pub fn describe_metrics() {
    describe_counter!(
        "paxos_commit_commits_total",
        Unit::Count,
        "Transactions whose commit this replica knows to be finished: every branch has applied it."
    );
    describe_counter!(
        "paxos_commit_aborts_total",
        Unit::Count,
        "Aborts, by reason. `vote`: votes to abort that came here, one for each branch that cast \
         one. `ballot`: transactions that replicas decided to abort because a vote was missing, or \
         an operator wished it."
    );
    describe_counter!(
        "paxos_commit_recoveries_total",
        Unit::Count,
        "Transactions for which this replica started a ballot: a vote was late, or somebody asked. \
         Each attempt counts. Over the whole cluster it should stay far below the commits."
    );
    describe_gauge!(
        "paxos_commit_undecided",
        Unit::Count,
        "Transactions of which a vote or a ballot came here, and no outcome yet."
    );
    describe_gauge!(
        "paxos_commit_oldest_undecided_seconds",
        Unit::Seconds,
        "For how long the oldest undecided transaction has been the oldest here. Beyond the vote \
         timeout it tells of a majority that is missing."
    );
    describe_gauge!(
        "paxos_commit_unapplied",
        Unit::Count,
        "Commits that some branch has not said that it applied. They grow while a participant is \
         away."
    );
    describe_gauge!(
        "paxos_commit_transactions_in_memory",
        Unit::Count,
        "Transactions in memory, finished ones that are about to leave it among them."
    );
    describe_gauge!(
        "paxos_commit_generation",
        "The latest generation that this replica knows. If it stands still, or differs between \
         replicas for long, the control log does not go on."
    );
    describe_gauge!(
        "paxos_commit_disk_bytes",
        Unit::Bytes,
        "What the replica's database has on disk; its journal takes 64 MiB from the start."
    );
    describe_histogram!(
        "paxos_commit_save_seconds",
        Unit::Seconds,
        "How long one save took, from the first write until it was durable. Every vote waits for \
         one."
    );
    describe_histogram!(
        "paxos_commit_save_jobs",
        Unit::Count,
        "How many turns of the replica one save made durable at once: group commit."
    );
    describe_gauge!(
        "paxos_commit_connections",
        Unit::Count,
        "Peers that this process can send to: participants, initiators, operators, and replicas."
    );
    describe_counter!(
        "paxos_commit_refusals_total",
        Unit::Count,
        "What was turned away, by kind. `rejected`: messages that make no sense, or come from the \
         wrong peer. `busy`: transactions that were not taken on because there are too many. \
         `not_open`: those of a generation that does not run here. `overflow`: connections given up \
         because the peer does not read. `forbidden`: connections given up because the peer said \
         what its identity may not say. All others: peers that were not let in, and why; \
         `handshake` if their certificate was no good, `silent` if they did not say who they are, \
         `crowded` if too many were coming in at a time. `status` shows them too."
    );
    describe_counter!(
        "paxos_commit_contradictions_total",
        Unit::Count,
        "Settled commits that are aborted here: a client said different things to different \
         replicas. The log names the branch that voted to abort."
    );
    describe_counter!(
        "paxos_commit_unproven_total",
        Unit::Count,
        "In a participant: commits of which its store has neither the branch nor a marker. Another \
         store of the name holds the branch, or it is lost."
    );
    describe_counter!(
        "paxos_commit_contradicted_total",
        Unit::Count,
        "In a participant: branches that had rolled back what the others commit, because a \
         participant of the transaction said different things to different replicas."
    );
    describe_counter!(
        "paxos_commit_resource_manager_errors_total",
        Unit::Count,
        "In a participant: commits and rollbacks that failed and are tried again. While it grows, \
         branches stay in doubt."
    );
    describe_counter!(
        "paxos_commit_work_unasked_total",
        Unit::Count,
        "In a participant: branches whose work ended because no process asked to commit it or to \
         roll it back. Callers crash, or they do not enlist the branch: then a transaction can \
         commit without this work. The log names each transaction."
    );
    describe_gauge!(
        "paxos_commit_postgres_prepared",
        Unit::Count,
        "In a participant with PostgreSQL: its branches that stand prepared, of every session. They \
         keep their locks, and hold back vacuum in the whole server."
    );
    describe_gauge!(
        "paxos_commit_postgres_prepared_oldest_seconds",
        Unit::Seconds,
        "For how long the oldest of them has stood so, by the server's clock."
    );
    describe_gauge!(
        "paxos_commit_mariadb_prepared",
        Unit::Count,
        "In a participant with MariaDB: its branches that stand prepared, of every session. They keep \
         their locks, and hold back purge."
    );
    describe_gauge!(
        "paxos_commit_mariadb_prepared_oldest_seconds",
        Unit::Seconds,
        "For how long this process has seen the oldest of them so."
    );
}

/// Counts what is saved, on the thread that saves.
pub(super) fn save_observer() -> Observer {
    let latency = histogram!("paxos_commit_save_seconds");
    let jobs = histogram!("paxos_commit_save_jobs");
    Box::new(move |saved| {
        latency.record(saved.latency);
        jobs.record(saved.jobs as f64);
    })
}

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
            | Record::Disputed { .. }
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// What stands in quotes and begins like a metric.
    fn names(text: &str) -> BTreeSet<String> {
        let pieces = text.split('"').skip(1).step_by(2);
        let names = pieces.filter(|piece| piece.starts_with(concat!("paxos_", "commit_")));
        names.map(str::to_owned).collect()
    }

    fn names_under(dir: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                names_under(&path, found);
            } else {
                let text = fs::read_to_string(&path).unwrap();
                for line in text.lines().filter(|line| line.contains("!(\"")) {
                    found.extend(names(line));
                }
            }
        }
    }

    #[test]
    fn every_metric_is_described() {
        let own = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file!())).unwrap();
        let (_, after) = own.split_once("pub fn describe_metrics").unwrap();
        let (described, _) = after.split_once("\n}\n").unwrap();
        let mut counted = BTreeSet::new();
        names_under(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut counted,
        );
        assert!(counted.len() > 10, "{counted:?}");
        assert_eq!(counted, names(described));
    }
}
