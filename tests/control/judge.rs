//! Judges one state, from all disks, and from what was ever told.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use paxos_commit::protocol::paxos::Ballot;
use paxos_commit::protocol::types::{Entry, Outcome, Vote};

use crate::bounds::Known;
use crate::cast::{Cast, REPLICAS};
use crate::finish;
use crate::intern::Mix;
use crate::state::{NOBODY, State, bits, told};
use crate::summary::{Summary, settles};
use crate::system::System;
use crate::tables::Tables;

/// What was found in a state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// A bit for each of [`RULES`] that is broken.
    pub(crate) broken: u8,
    /// A bit for each of [`SIGHTS`].
    pub(crate) seen: u16,
}

/// What holds in every state.
pub(crate) const RULES: [&str; 8] = [
    "one entry for each slot, learned when it is chosen",
    "one outcome, and no commit is forgotten that a branch has not applied",
    "nobody is told otherwise",
    "Expired is final",
    "commit takes every vote",
    "what is frozen or settled is not touched, and what is told is on disk",
    "no message of a correct host is refused, and none is fatal",
    "every prepared branch can reach its outcome, and nothing is left of it",
];

/// What happens in some state.
pub(crate) const SIGHTS: [&str; 9] = [
    "a Settle found in phase 1 is proposed by another leader",
    "committed by Settle alone",
    "aborted by Settle",
    "committed by votes and then listed",
    "committed by a ballot and then listed",
    "a branch is told Expired",
    "a late vote is refused by a frozen replica",
    "committed, applied and forgotten",
    "aborted by a ballot and settled",
];

/// What all disks together show.
#[derive(Debug, Default)]
pub(crate) struct Truth {
    /// Two entries were chosen in one slot, or one was learned that was not.
    log_broken: bool,
    /// What the Settle that was chosen says of the transaction: that it is a commit, or not.
    settled: Option<bool>,
    by_votes: bool,
    commit_by_ballot: bool,
    abort_by_ballot: bool,
}

impl Truth {
    fn committed_before(&self) -> bool {
        self.by_votes || self.commit_by_ballot
    }

    /// The outcome, if it is decided.
    pub(crate) fn outcome(&self) -> Option<Outcome> {
        if self.committed_before() || self.settled == Some(true) {
            Some(Outcome::Commit)
        } else if self.abort_by_ballot || self.settled == Some(false) {
            Some(Outcome::Abort)
        } else {
            None
        }
    }
}

/// Whether a majority of three has it.
fn majority(by: u8) -> bool {
    by.count_ones() >= 2
}

/// Who has it, of the replicas in these places.
fn who(disks: &[Arc<Summary>], members: &[usize], has: impl Fn(&Summary) -> bool) -> u8 {
    let of = members.iter().filter(|index| has(&disks[**index]));
    of.fold(0, |by, index| by | 1 << index)
}

impl System {
    pub(crate) fn truth(&self, tables: &Tables, state: &State) -> Truth {
        let disks: Vec<Arc<Summary>> = state
            .disks
            .iter()
            .map(|disk| {
                tables
                    .ledger
                    .summaries
                    .get(disk)
                    .cloned()
                    .unwrap_or_default()
            })
            .collect();
        let mut truth = Truth::default();
        self.read_log(&tables.cast, &disks, &mut truth);
        let all = tables.cast.roster.all();
        truth.by_votes = majority(who(&disks, &[0, 1, 2], |disk| disk.held.covers(all)));
        for (ballot, outcome) in disks.iter().flat_map(|disk| &disk.accepted) {
            let by = who(&disks, &[0, 1, 2], |disk| {
                disk.accepted.contains(&(*ballot, *outcome))
            });
            match outcome {
                Outcome::Commit => truth.commit_by_ballot |= majority(by),
                Outcome::Abort => truth.abort_by_ballot |= majority(by),
            }
        }
        truth
    }

    fn read_log(&self, cast: &Cast, disks: &[Arc<Summary>], truth: &mut Truth) {
        let mut chosen: Vec<(u64, &Entry)> = Vec::new();
        for (slot, ballot, entry) in disks.iter().flat_map(|disk| &disk.entries) {
            let members: &[usize] = if self.bounds.moves && *slot > 0 {
                &[1, 2, 3]
            } else {
                &[0, 1, 2]
            };
            let same = |it: &(u64, Ballot, Entry)| (it.0, it.1, &it.2) == (*slot, *ballot, entry);
            let by = who(disks, members, |disk| disk.entries.iter().any(same));
            if majority(by) && !chosen.contains(&(*slot, entry)) {
                truth.log_broken |= chosen.iter().any(|(of, _)| of == slot);
                chosen.push((*slot, entry));
            }
        }
        let known = self.bounds.known.iter();
        let before = known.map(|known| match known {
            Known::Absent | Known::Nothing => 0,
            Known::Second | Known::ThirdAccepted => 1,
            Known::Third => 2,
        });
        let before = before.max().unwrap_or(0);
        for (slot, entry) in disks.iter().flat_map(|disk| &disk.learned) {
            truth.log_broken |= *slot >= before && !chosen.contains(&(*slot, entry));
        }
        chosen.sort_by_key(|(slot, _)| *slot);
        let mut settled = chosen.iter().filter_map(|(_, entry)| settles(cast, entry));
        truth.settled = settled.next();
    }

    /// Whether a branch can have learned that it is a commit: from reports, or because it was told.
    pub(crate) fn can_apply(&self, state: &State) -> bool {
        let truth = self.truth(&self.tables(), state);
        truth.committed_before() || state.told & told::COMMIT != 0
    }

    pub(crate) fn judge(&self, state: &State) -> Verdict {
        let tables = self.tables();
        let truth = self.truth(&tables, state);
        let outcome = truth.outcome();
        let all = (1 << self.bounds.branches) - 1;
        let applied = state.applied == all;
        let told = |bits: u16| state.told & bits != 0;
        let disks = state.disks.iter();
        let decided = disks.flat_map(|disk| tables.ledger.summaries.get(disk));
        let mut decided = decided.flat_map(|disk| &disk.decided);
        let expired_wrongly = (0..self.bounds.branches).any(|branch| {
            let expired = told(told::EXPIRED_BRANCH << branch);
            expired && outcome == Some(Outcome::Commit) && state.applied & (1 << branch) == 0
        });
        let any_expired = told::EXPIRED | told::EXPIRED_BRANCH | told::EXPIRED_BRANCH << 1;
        let forgotten = truth.settled == Some(false) && truth.committed_before() && !applied;
        let two = truth.abort_by_ballot && outcome == Some(Outcome::Commit);
        let broken = [
            truth.log_broken,
            two || forgotten,
            (told(told::COMMIT) && outcome != Some(Outcome::Commit))
                || (told(told::ABORT) && outcome != Some(Outcome::Abort))
                || decided.any(|decided| outcome != Some(*decided)),
            (told(any_expired) && truth.settled.is_none()) || expired_wrongly,
            outcome == Some(Outcome::Commit) && state.voted != all,
            told(told::TOUCHED | told::UNTRUE | told::ANNOUNCED),
            told(told::REFUSED | told::PANICKED),
            self.is_sampled(state) && !finish::all_can_finish(&tables, state, outcome),
        ];
        let seen = [
            self.is_found_again(&tables, state),
            truth.settled == Some(true) && !truth.committed_before(),
            truth.settled == Some(false) && !truth.committed_before() && !truth.abort_by_ballot,
            truth.settled == Some(true) && truth.by_votes,
            truth.settled == Some(true) && truth.commit_by_ballot,
            told(told::EXPIRED_BRANCH),
            self.is_late(&tables, state),
            truth.settled == Some(false) && truth.committed_before() && applied,
            truth.settled == Some(false) && truth.abort_by_ballot,
        ];
        let bit = |(index, set): (usize, bool)| u16::from(set) << index;
        Verdict {
            broken: broken.into_iter().enumerate().map(bit).sum::<u16>() as u8,
            seen: seen.into_iter().enumerate().map(bit).sum(),
        }
    }

    /// One of so many states, by its hash, is run to its end.
    fn is_sampled(&self, state: &State) -> bool {
        let mut hash = Mix::default();
        state.hash(&mut hash);
        self.bounds.sample > 0 && (hash.finish() >> 16).is_multiple_of(self.bounds.sample)
    }

    /// A Settle stands on some disks at the ballots of two leaders.
    fn is_found_again(&self, tables: &Tables, state: &State) -> bool {
        let disks = state.disks.iter();
        let disks = disks.filter_map(|disk| tables.ledger.summaries.get(disk));
        let entries: Vec<_> = disks.flat_map(|disk| &disk.entries).collect();
        entries.iter().any(|(_, ballot, entry)| {
            settles(&tables.cast, entry).is_some()
                && entries
                    .iter()
                    .any(|(_, at, other)| other == entry && at.replica != ballot.replica)
        })
    }

    /// A vote has come to a replica that is frozen, and changes nothing.
    fn is_late(&self, tables: &Tables, state: &State) -> bool {
        (0..REPLICAS).any(|index| {
            let Some(disk) = tables.ledger.summaries.get(&state.disks[index]) else {
                return false;
            };
            let host = state.hosts[index];
            let waits = host != NOBODY && disk.frozen && !disk.settled;
            let is_late = |bit: u8| {
                let message = &tables.envelope(index, bit).message;
                let vote = matches!(message, paxos_commit::protocol::message::Message::Vote(it) if it.vote == Vote::Prepared);
                let step = tables.steps.get(&(host, bit));
                vote && !disk.held.covers(tables.cast.roster.all())
                    && step.is_some_and(|step| step.host == host)
            };
            waits && bits(state.network[index]).any(is_late)
        })
    }
}
