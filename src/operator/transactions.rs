//! Transactions as the replicas see them.

use std::collections::{BTreeMap, BTreeSet};

use crate::protocol::message::{Message, State};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, Configuration, TxnId};
use crate::wire::{Answer, Frame, Query};

use super::{Event, Operator, OperatorError, PATIENCE, Said};

/// What is undecided, or decided and not yet applied by every branch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Transactions {
    /// By commit id, oldest first, and by replica.
    pub found: BTreeMap<CommitId, BTreeMap<ReplicaId, State>>,
    /// The replicas that did not answer, and why: what only they know is missing.
    pub silent: BTreeMap<ReplicaId, String>,
    /// Whether a majority of the replicas of every unsettled generation answered. If not, transactions
    /// may be missing that a participant waits for.
    pub is_whole: bool,
}

impl Operator {
    /// What is undecided, or decided and not yet applied, as each replica sees it.
    ///
    /// # Errors
    /// When no replica answers.
    pub async fn list(&mut self) -> Result<Transactions, OperatorError> {
        let mut transactions = Transactions::default();
        let mut after = None;
        loop {
            let query = Frame::Query(Query::List { after });
            let pages = self.ask_all(&query, |_, answer| match answer {
                Event::Answer(Answer::List(listing)) => Some(listing),
                Event::Answer(Answer::Status(_) | Answer::Refusals(_)) | Event::Message(_) => None,
            });
            let pages = pages.await;
            if pages.values().all(Result::is_err) {
                return Err(self.no_answer(PATIENCE));
            }
            let mut last = None;
            for (replica, page) in pages {
                let page = match page {
                    Ok(page) => page,
                    Err(problem) => {
                        transactions.silent.insert(replica, problem);
                        continue;
                    }
                };
                // Everyone goes on from the page that ends first.
                if let (true, Some((id, _))) = (page.more, page.transactions.last()) {
                    last = Some(last.map_or(*id, |last: CommitId| last.min(*id)));
                }
                for (id, state) in page.transactions {
                    let states = transactions.found.entry(id).or_default();
                    states.insert(replica, state);
                }
            }
            match last {
                None => break,
                Some(id) => after = Some(id),
            }
        }
        transactions.is_whole = self.is_majority_heard(&transactions.silent);
        Ok(transactions)
    }

    /// Whether a majority of every unsettled generation is left without these.
    fn is_majority_heard(&self, silent: &BTreeMap<ReplicaId, String>) -> bool {
        let mut configurations = self.generations.unsettled();
        configurations.all(|(_, configuration)| {
            let acceptors = configuration.acceptors();
            let heard = acceptors.iter().filter(|id| !silent.contains_key(id));
            heard.count() >= acceptors.majority()
        })
    }

    /// What each replica knows of a transaction: its instances, none if it is unknown there.
    pub async fn show(&mut self, txn: TxnId) -> Said<Vec<(CommitId, State)>> {
        let question = Frame::Message(Message::Inquire { txn });
        let answers = self.ask_all(&question, |_, answer| match answer {
            Event::Message(Message::Status { txn: of, instances }) if of == txn => Some(instances),
            Event::Message(Message::Forgotten { txn: of }) if of == txn => Some(Vec::new()),
            Event::Message(_) | Event::Answer(_) => None,
        });
        answers.await
    }

    /// The commit ids under which replicas know a transaction: none if it is forgotten, or was never
    /// heard of by a majority of those that decide it.
    ///
    /// # Errors
    /// When fewer than a majority of those that decide it answer, and none of these knows it.
    pub async fn commit_ids(&mut self, txn: TxnId) -> Result<BTreeSet<CommitId>, OperatorError> {
        let said = self.show(txn).await;
        let known = said.values().flatten().flatten();
        let known: BTreeSet<CommitId> = known.map(|(id, _)| *id).collect();
        let in_force = self.generations.in_force().map(Configuration::acceptors);
        let decides = self.generations.acceptors(txn.generation).or(in_force);
        let is_answered = decides.is_some_and(|acceptors| {
            let answers = acceptors
                .iter()
                .filter(|id| matches!(said.get(id), Some(Ok(_))));
            answers.count() >= acceptors.majority()
        });
        match known.is_empty() && !is_answered {
            true => Err(self.no_answer(PATIENCE)),
            false => Ok(known),
        }
    }
}
