//! A person with a tool: looks at everything, ends what hangs, changes who the replicas are.
//!
//! Whatever an operator asks goes through the protocol like everything else, so that nothing it does
//! can contradict an outcome.

mod stores;
mod transactions;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout_at};

use crate::protocol::message::{Declined, Message};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, Configuration, Generations, Listed, Outcome, Peer};
use crate::random::draw;
use crate::transport::{Access, ConnectError, Inbound, Net, Role};
use crate::wire::{Answer, Frame, Query, Report};

pub use transactions::Transactions;

/// How long to wait for replicas that may be down.
const PATIENCE: Duration = Duration::from_secs(2);

/// How long a change may take: replicas may have to agree who leads the log.
const CHANGE_MAX: Duration = Duration::from_secs(30);

/// The pause before a change is asked for again.
const CHANGE_RETRY: Duration = Duration::from_millis(300);

/// A connected operator.
pub struct Operator {
    net: Net,
    inbound: mpsc::Receiver<Inbound>,
    /// What came with a message that was taken, and comes next.
    heard: VecDeque<(ReplicaId, Message)>,
    generations: Generations,
    /// The newest connection to each replica. What ends may be an older one.
    connected: BTreeMap<ReplicaId, u64>,
    /// What is being asked, and who has not answered so far.
    asking: Option<(Frame, BTreeSet<ReplicaId>)>,
}

/// Of each replica what it said, or why it said nothing.
pub type Said<T> = BTreeMap<ReplicaId, Result<T, String>>;

/// What came of a transaction that was to be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// This was chosen: now, or long before anybody wanted to end it.
    Chosen(Outcome),
    /// It came to its end so long ago that the outcome is forgotten.
    Forgotten,
}

/// Why an operator's wish did not come true.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum OperatorError {
    /// Too few replicas answer.
    #[error("no answer within {waited:?}: {why}")]
    NoAnswer {
        /// For how long was waited.
        waited: Duration,
        /// As far as it is known.
        why: String,
    },
    /// The replicas decline.
    #[error("declined: {0}")]
    Declined(#[from] Declined),
    /// Of a generation that is not known.
    #[error("no replica is known that decides {0}")]
    NobodyKnows(CommitId),
    /// The connection to the cluster has ended.
    #[error("the operator's connections have ended")]
    Stopped,
}

impl Operator {
    /// Connects, and waits a moment for every replica.
    ///
    /// # Errors
    /// When the credentials are not an operator's, or no replica lets it in.
    pub async fn connect(access: Access, wait: Duration) -> Result<Self, ConnectError> {
        let identity = access.credentials.identity();
        if !matches!(identity.role, Role::Operator(_)) {
            return Err(ConnectError::WrongRole {
                expected: "an operator",
                got: identity.to_string(),
            });
        }
        let (net, inbound) = Net::client(Peer::Operator(draw()), access)?;
        let generations = net.generations(wait).await?;
        let mut operator = Operator {
            net,
            inbound,
            heard: VecDeque::new(),
            generations,
            connected: BTreeMap::new(),
            asking: None,
        };
        let deadline = Instant::now() + PATIENCE;
        while !operator.is_connected_to_all() {
            if operator.next(deadline).await.is_none() {
                break;
            }
        }
        Ok(operator)
    }

    /// The generations, as far as they were told.
    pub fn generations(&self) -> &Generations {
        &self.generations
    }

    /// The replicas that the last attempt did not reach because this machine cannot resolve their
    /// addresses.
    pub fn unresolved(&self) -> BTreeSet<ReplicaId> {
        self.net.links.problems.unresolved()
    }

    /// How each replica is.
    pub async fn status(&mut self) -> Said<Report> {
        let reports = self.ask_all(&Frame::Query(Query::Status), |from, answer| match answer {
            Event::Answer(Answer::Status(report)) if report.replica == from => Some(*report),
            Event::Answer(_) | Event::Message(_) => None,
        });
        reports.await
    }

    /// What each replica turned away since it started, by kind; the kinds are those of the metric
    /// `paxos_commit_refusals_total`.
    pub async fn refusals(&mut self) -> Said<BTreeMap<String, u64>> {
        let counts = self.ask_all(&Frame::Query(Query::Refusals), |_, answer| match answer {
            Event::Answer(Answer::Refusals(counts)) => Some(counts.into_iter().collect()),
            Event::Answer(_) | Event::Message(_) => None,
        });
        counts.await
    }

    /// The settled commits that wait for a branch, and for which.
    ///
    /// # Errors
    /// When no replica answers.
    pub async fn waiting(&mut self) -> Result<Vec<Listed>, OperatorError> {
        Ok(self.state().await?.0)
    }

    /// Ends an undecided transaction: replicas decide it now, by a ballot. If commit may have been
    /// chosen before, commit it is; the answer tells what was chosen.
    ///
    /// # Errors
    /// When too few replicas answer in time.
    pub async fn force_abort(&mut self, id: CommitId) -> Result<Ended, OperatorError> {
        let who = self.generations.who_knows(id.txn);
        let who = who.ok_or(OperatorError::NobodyKnows(id))?;
        let replicas: Vec<ReplicaId> = who.iter().collect();
        let deadline = Instant::now() + CHANGE_MAX;
        loop {
            for replica in &replicas {
                self.send(*replica, Message::ForceAbort { id });
            }
            let retry = (Instant::now() + PATIENCE).min(deadline);
            while let Some((_, event)) = self.next(retry).await {
                match event {
                    Event::Message(Message::Decided(decision)) if decision.id == id => {
                        return Ok(Ended::Chosen(decision.outcome));
                    }
                    Event::Message(Message::Expired { id: of, .. }) if of == id => {
                        return Ok(Ended::Forgotten);
                    }
                    Event::Message(_) | Event::Answer(_) => {}
                }
            }
            if Instant::now() >= deadline {
                return Err(self.no_answer(CHANGE_MAX));
            }
        }
    }

    /// Lets a settled commit go that waits for a branch which will never come back.
    ///
    /// # Errors
    /// When the replicas decline, or too few answer.
    pub async fn release(&mut self, id: CommitId) -> Result<(), OperatorError> {
        let is_done = move |_: &Generations, event: &Event| matches!(event, Event::Message(Message::Expired { id: of, .. }) if *of == id);
        self.change(&Message::Release { id }, is_done).await
    }

    /// Opens the next generation on this configuration, instead of the one in force that
    /// [`generations`](Self::generations) tells.
    ///
    /// # Errors
    /// When the replicas decline, among other reasons because somebody else has changed the
    /// configuration; or too few answer.
    pub async fn reconfigure(
        &mut self,
        configuration: Configuration,
    ) -> Result<u32, OperatorError> {
        let wanted = configuration.digest();
        let seen = self.generations.in_force().map(Configuration::digest);
        loop {
            let latest = self.generations.latest();
            let message = Message::Reconfigure {
                latest,
                configuration: configuration.clone(),
            };
            let is_done = move |generations: &Generations, _: &Event| {
                let after = generations.unsettled().find(|(of, _)| *of == latest + 1);
                after.is_some_and(|(_, configuration)| configuration.digest() == wanted)
            };
            let error = match self.change(&message, is_done).await {
                Ok(()) => return Ok(latest + 1),
                Err(error) => error,
            };
            // Generations are opened all the time. As long as they are opened on what the caller
            // saw, nobody has changed anything.
            let OperatorError::Declined(Declined::Changed { latest: newer }) = error else {
                return Err(error);
            };
            let learned = newer > latest && self.learn(newer).await;
            if !learned || self.generations.in_force().map(Configuration::digest) != seen {
                return Err(error);
            }
        }
    }

    /// Waits until this generation is known here. False if nobody tells of it.
    async fn learn(&mut self, generation: u32) -> bool {
        let deadline = Instant::now() + PATIENCE;
        while self.generations.latest() < generation {
            if self.next(deadline).await.is_none() {
                return false;
            }
        }
        true
    }

    /// Asks whoever leads the log until it is done.
    async fn change(
        &mut self,
        message: &Message,
        is_done: impl Fn(&Generations, &Event) -> bool,
    ) -> Result<(), OperatorError> {
        let deadline = Instant::now() + CHANGE_MAX;
        let mut leader: Option<ReplicaId> = None;
        let mut declined = None;
        loop {
            let asked = leader.take().or_else(|| self.any());
            if let Some(asked) = asked {
                self.send(asked, message.clone());
            }
            let retry = (Instant::now() + PATIENCE).min(deadline);
            while let Some((from, event)) = self.next(retry).await {
                if is_done(&self.generations, &event) {
                    return Ok(());
                }
                let Event::Message(Message::Declined(why)) = event else {
                    continue;
                };
                if Some(from) != asked {
                    continue;
                }
                match &why {
                    Declined::NotLeader { leader: other } => leader = *other,
                    Declined::UnderWay | Declined::LostSight => {}
                    Declined::Changed { .. }
                    | Declined::UsedId(_)
                    | Declined::Unheard(_)
                    | Declined::TooManyUnsettled(_)
                    | Declined::Connected(_)
                    | Declined::NotItsStore { .. }
                    | Declined::StoreConnected { .. }
                    | Declined::NotListed(_) => return Err(why.into()),
                }
                declined = Some(why);
                tokio::time::sleep(CHANGE_RETRY).await;
                break;
            }
            if Instant::now() >= deadline {
                return Err(declined.map_or_else(|| self.no_answer(CHANGE_MAX), Into::into));
            }
        }
    }

    /// Some replica of the configuration in force that is connected.
    fn any(&self) -> Option<ReplicaId> {
        let in_force = self.generations.in_force()?.acceptors();
        let up: Vec<ReplicaId> = in_force
            .iter()
            .filter(|id| self.connected.contains_key(id))
            .collect();
        fastrand::choice(up)
    }

    /// Asks every replica, and waits for those that are connected.
    async fn ask_all<T>(
        &mut self,
        question: &Frame,
        mut pick: impl FnMut(ReplicaId, Event) -> Option<T>,
    ) -> Said<T> {
        let deadline = Instant::now() + PATIENCE;
        let asked: BTreeSet<ReplicaId> = self.connected.keys().copied().collect();
        for replica in &asked {
            let peer = Peer::Replica(*replica);
            self.net.links.send_frame(&peer, question);
        }
        self.asking = Some((question.clone(), asked));
        let mut said: Said<T> = BTreeMap::new();
        while self.is_asking() {
            let Some((from, event)) = self.next(deadline).await else {
                break;
            };
            if let Some(answer) = pick(from, event) {
                said.insert(from, Ok(answer));
                if let Some((_, unanswered)) = &mut self.asking {
                    unanswered.remove(&from);
                }
            }
        }
        self.asking = None;
        let problems = self.net.links.problems.texts();
        for replica in self.generations.replicas() {
            said.entry(replica).or_insert_with(|| {
                let problem = problems.get(&replica).cloned();
                Err(problem.unwrap_or_else(|| "no answer".into()))
            });
        }
        said
    }

    fn send(&self, replica: ReplicaId, message: Message) {
        self.net.links.send(&Peer::Replica(replica), &message);
    }

    fn is_connected_to_all(&self) -> bool {
        let replicas = self.generations.replicas();
        replicas.iter().all(|id| self.connected.contains_key(id))
    }

    fn is_asking(&self) -> bool {
        let unanswered = self.asking.as_ref().map(|(_, unanswered)| unanswered);
        unanswered.is_some_and(|unanswered| !unanswered.is_empty())
    }

    /// A connection is up. What was asked over an earlier one is lost with it.
    fn is_up(&mut self, id: ReplicaId, link: u64) {
        self.connected.insert(id, link);
        if let Some((question, unanswered)) = &self.asking
            && unanswered.contains(&id)
        {
            self.net.links.send_frame(&Peer::Replica(id), question);
        }
    }

    /// A connection has ended; maybe not the newest one.
    fn is_down(&mut self, id: ReplicaId, link: u64) {
        if self.connected.get(&id) == Some(&link) {
            self.connected.remove(&id);
        }
    }

    fn no_answer(&self, waited: Duration) -> OperatorError {
        let why = match self.net.links.problems.summary() {
            none if none.is_empty() => "the replicas that are connected do not answer".into(),
            problems => problems,
        };
        OperatorError::NoAnswer { waited, why }
    }

    /// What comes next from a replica; None at the deadline.
    async fn next(&mut self, deadline: Instant) -> Option<(ReplicaId, Event)> {
        loop {
            if let Some((id, message)) = self.heard.pop_front() {
                if let Message::Announce(generations) | Message::NotOpen { generations, .. } =
                    &message
                    && self.generations.is_older_than(generations)
                {
                    self.generations = generations.clone();
                    self.net.links.learn(generations);
                }
                return Some((id, Event::Message(message)));
            }
            match timeout_at(deadline, self.inbound.recv()).await.ok()?? {
                Inbound::Connected {
                    peer: Peer::Replica(id),
                    link,
                } => {
                    self.is_up(id, link);
                    if self.is_connected_to_all() {
                        return Some((
                            id,
                            Event::Message(Message::Announce(self.generations.clone())),
                        ));
                    }
                }
                Inbound::Disconnected {
                    peer: Peer::Replica(id),
                    link,
                } => self.is_down(id, link),
                Inbound::Messages(batch) => {
                    if let Peer::Replica(id) = batch.from {
                        let messages = batch.messages.into_iter();
                        self.heard.extend(messages.map(|message| (id, message)));
                    }
                }
                Inbound::Answer { from, answer } => return Some((from, Event::Answer(answer))),
                Inbound::Connected { .. }
                | Inbound::Disconnected { .. }
                | Inbound::Lsn { .. }
                | Inbound::Query { .. } => {}
            }
        }
    }
}

/// What a replica says to an operator.
enum Event {
    Message(Message),
    Answer(Answer),
}
