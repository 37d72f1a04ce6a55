//! What PaxosCommit.tla would say.
//!
//! There, each branch (RM) has a Paxos instance of its own whose value is `prepared` or `aborted`,
//! and one message of a leader carries all of them. Here one instance decides the transaction. This
//! module runs the former beside the latter, as a ghost that changes nothing:
//!
//! - An acceptor of branch i's instance has accepted at ballot 0 what branch i's vote on its disk
//!   says, and at a ballot b above 0 the i-th value of the *vector* that b proposed, if its disk
//!   shows that it accepted b.
//! - `Phase2a` of PaxosCommit.tla: for each branch, the value of the highest ballot that a majority
//!   reports in that branch's instance, or `aborted` if it reports none. That gives the vector of b,
//!   fixed when the leader proposes, from the very reports that it had heard. What the leader
//!   proposes for the transaction must be what the vector adds up to: Commit if all is `prepared`.
//! - `Decide`: Commit may be told when `prepared` is chosen in every branch's instance, by a
//!   majority at one ballot, not necessarily the same for all of them. Abort may be told when
//!   `aborted` is chosen in some branch's instance, *or some branch voted `Aborted`*: then `aborted`
//!   is all that its ballot 0 ever proposes, hence all that any later ballot can report or pick,
//!   and nothing else can be chosen in its instance. In PaxosCommit.tla this is what lets any
//!   process abort once an RM has (`TCDecide(r)` to aborted asks for no more than that nobody is
//!   committed, and here nobody ever will be).
//! - In no branch's instance are two values chosen.

use std::collections::BTreeMap;

use paxos_commit::protocol::message::{Message, Report};
use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::Outcome;

use crate::disk::Summary;
use crate::tables::{TOLD_ABORT, TOLD_COMMIT};

/// What a branch's instance may choose: the values of PaxosCommit.tla.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Value {
    Prepared,
    Aborted,
}

/// What is remembered of ballots.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Ghost {
    /// What each ballot's leader has heard before it proposed: of which replicas, the highest ballot
    /// above 0 at which each has accepted.
    heard: BTreeMap<Ballot, BTreeMap<usize, Option<Ballot>>>,
    /// What each ballot proposed for each branch.
    vectors: BTreeMap<Ballot, Vec<Value>>,
}

impl Ghost {
    /// A leader has heard a report.
    pub(crate) fn hear(&mut self, ballot: Ballot, replica: usize, report: &Report) {
        if !self.vectors.contains_key(&ballot) {
            let accepted = report.accepted.map(|(at, _)| at);
            let accepted = accepted.filter(|at| !at.is_zero() && *at < ballot);
            let heard = self.heard.entry(ballot).or_default();
            heard.entry(replica).or_insert(accepted);
        }
    }

    /// A leader has given up this ballot.
    pub(crate) fn give_up(&mut self, ballot: Ballot) {
        self.heard.remove(&ballot);
    }

    /// A leader crashed, has started another ballot or needs none any more: what it has heard is
    /// gone.
    pub(crate) fn forget(&mut self, leader: usize) {
        self.heard
            .retain(|ballot, _| ballot.replica.0 as usize != leader + 1);
    }

    /// A leader proposes, having heard what it has heard. A second proposal at the same ballot is no
    /// step of PaxosCommit.tla; the first one's vector stands.
    pub(crate) fn propose(&mut self, ballot: Ballot, disks: &[&Summary], branches: usize) {
        let heard = self.heard.remove(&ballot).unwrap_or_default();
        let is_majority = 2 * heard.len() > disks.len();
        if is_majority && !self.vectors.contains_key(&ballot) {
            let values = 0..branches;
            let vector = values.map(|branch| self.pick(branch, &heard, disks));
            let vector = vector.collect();
            self.vectors.insert(ballot, vector);
        }
    }

    /// The value that a ballot has to propose in this branch's instance. (What an acceptor held at
    /// ballot 0 when it promised is what its disk shows now: it has held no vote since.)
    fn pick(
        &self,
        branch: usize,
        heard: &BTreeMap<usize, Option<Ballot>>,
        disks: &[&Summary],
    ) -> Value {
        let reported = heard
            .iter()
            .filter_map(|(replica, accepted)| match accepted {
                Some(at) => Some((*at, self.vectors.get(at)?[branch])),
                None => Some((Ballot::ZERO, vote_on(disks[*replica], branch)?)),
            });
        let highest = reported.max_by_key(|(at, _)| *at);
        highest.map_or(Value::Aborted, |(_, value)| value)
    }

    /// Whether PaxosCommit.tla allows this proposal.
    pub(crate) fn allows_proposal(&self, ballot: Ballot, outcome: Outcome) -> bool {
        let prepared = |value: &Value| *value == Value::Prepared;
        self.vectors.get(&ballot).is_some_and(|vector| {
            let adds_up = if vector.iter().all(prepared) {
                Outcome::Commit
            } else {
                Outcome::Abort
            };
            adds_up == outcome
        })
    }

    /// Whether PaxosCommit.tla allows that these outcomes were told. `aborted`: some branch said so.
    pub(crate) fn allows_outcomes(
        &self,
        told: u8,
        disks: &[&Summary],
        branches: usize,
        aborted: bool,
    ) -> bool {
        let chosen = |branch, value| self.is_chosen(branch, value, disks);
        let commit = (0..branches).all(|branch| chosen(branch, Value::Prepared));
        let abort = (0..branches).any(|branch| chosen(branch, Value::Aborted));
        let two = (0..branches).any(|b| chosen(b, Value::Prepared) && chosen(b, Value::Aborted));
        let commit_allowed = told & TOLD_COMMIT == 0 || commit;
        let abort_allowed = told & TOLD_ABORT == 0 || abort || aborted;
        commit_allowed && abort_allowed && !two
    }

    fn is_chosen(&self, branch: usize, value: Value, disks: &[&Summary]) -> bool {
        let majority = |count: usize| 2 * count > disks.len();
        let votes = disks
            .iter()
            .filter(|disk| vote_on(disk, branch) == Some(value));
        if majority(votes.count()) {
            return true;
        }
        self.vectors.iter().any(|(ballot, vector)| {
            let accepted = |disk: &&&Summary| disk.accepted.iter().any(|(at, _)| at == ballot);
            vector[branch] == value && majority(disks.iter().filter(accepted).count())
        })
    }
}

fn vote_on(disk: &Summary, branch: usize) -> Option<Value> {
    if disk.prepared.contains(branch) {
        Some(Value::Prepared)
    } else if disk.aborted.contains(branch) {
        Some(Value::Aborted)
    } else {
        None
    }
}

/// The only report in a message; this model has one instance.
pub(crate) fn report(message: &Message) -> Option<(Ballot, &Report)> {
    match message {
        Message::Phase1b { ballot, reports } => Some((*ballot, reports.first()?)),
        _ => None,
    }
}
