//! Starts an initiator, and stops it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::driver::Driver;
use crate::protocol::initiator::{Initiator as Core, InitiatorConfig};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, InitiatorId, Peer};
use crate::protocol::{Effects, Host};
use crate::transport::{Access, ConnectError, Net, Role, are_of_one_name, draw_initiator};
use crate::wire::Sent;

use super::shell::{Answer, Call, GivenUp, InitiatorShell};
use super::transaction::Transaction;
use super::{CommitError, Known};

/// How many calls of the application wait for its initiator.
const CALLS_MAX: usize = 4_096;

/// How long what is queued may take to be written at the end.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Settings of an [`Initiator`].
#[derive(Clone, Debug)]
pub struct InitiatorBuilder {
    access: Access,
    connect_timeout: Duration,
    vote_timeout: Duration,
    deadline: Duration,
}

/// Begins transactions. Cheap to clone; see the [module](super).
#[derive(Clone)]
pub struct Initiator {
    settings: Arc<InitiatorBuilder>,
    /// Replaced by another when its ids are used up.
    current: Arc<Mutex<Inner>>,
    redrawing: Arc<tokio::sync::Mutex<()>>,
}

/// One initiator of the protocol, with its connections.
#[derive(Clone)]
pub(super) struct Inner {
    id: InitiatorId,
    calls: mpsc::Sender<Call>,
    running: Arc<Running>,
}

struct Running {
    net: Net,
    driver: tokio::task::JoinHandle<()>,
    runtime: tokio::runtime::Handle,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Initiator({})", self.id)
    }
}

impl fmt::Debug for Initiator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.current().fmt(f)
    }
}

/// Why no transaction can begin.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BeginError {
    /// The initiator was shut down.
    #[error("the initiator has stopped")]
    Stopped,
    /// Its ids are used up, and another one could not connect.
    #[error("all ids of this initiator are used, and a new one cannot connect: {0}")]
    Redraw(#[from] ConnectError),
}

impl InitiatorBuilder {
    /// How long to wait for the first replica. Usually 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// How long replicas wait for votes before they decide without the missing ones. Usually 10 s;
    /// it can be set for each transaction.
    #[must_use]
    pub fn vote_timeout(mut self, timeout: Duration) -> Self {
        self.vote_timeout = timeout;
        self
    }

    /// How long a commit waits for its outcome before it answers that it is not known. Usually
    /// 30 s; it can be set for each transaction.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    /// Connects.
    ///
    /// # Errors
    /// When the credentials are not an initiator's, or no replica lets it in.
    pub async fn connect(self) -> Result<Initiator, ConnectError> {
        let inner = self.start().await?;
        Ok(Initiator {
            settings: Arc::new(self),
            current: Arc::new(Mutex::new(inner)),
            redrawing: Arc::default(),
        })
    }

    async fn start(&self) -> Result<Inner, ConnectError> {
        let identity = self.access.credentials.identity();
        let Role::Initiator(name) = &identity.role else {
            return Err(ConnectError::WrongRole {
                expected: "an initiator",
                got: identity.to_string(),
            });
        };
        let id = draw_initiator(name);
        let (net, inbound) = Net::client(Peer::Initiator(id), self.access.clone())?;
        let generations = net.generations(self.connect_timeout).await?;
        let mut effects = Effects::default();
        let core = Core::recover(InitiatorConfig::joining(id, generations), [], &mut effects);
        let (calls, called) = mpsc::channel(CALLS_MAX);
        let (back, from_back) = mpsc::unbounded_channel();
        let shell = InitiatorShell::new(net.links.clone(), back);
        let driver = Driver::new(core, shell, effects, inbound, called, from_back);
        Ok(Inner {
            id,
            calls,
            running: Arc::new(Running {
                net,
                driver: tokio::spawn(driver.run()),
                runtime: tokio::runtime::Handle::current(),
            }),
        })
    }
}

impl Initiator {
    /// Begins transactions in a cluster, with credentials that say as whom.
    pub fn builder(access: Access) -> InitiatorBuilder {
        InitiatorBuilder {
            access,
            connect_timeout: Duration::from_secs(10),
            vote_timeout: Duration::from_secs(10),
            deadline: Duration::from_secs(30),
        }
    }

    /// Begins a transaction. Costs no message.
    ///
    /// # Errors
    /// When the initiator has stopped.
    pub async fn begin(&self) -> Result<Transaction, BeginError> {
        loop {
            let inner = self.current();
            let (answer, answered) = oneshot::channel();
            inner.call(Call::Begin(answer)).await;
            let begun = answered.await.map_err(|_| BeginError::Stopped)?;
            let settings = &self.settings;
            match begun {
                Some(txn) => {
                    let (timeout, deadline) = (settings.vote_timeout, settings.deadline);
                    return Ok(Transaction::new(inner, txn, timeout, deadline));
                }
                None => self.redraw(inner.id).await?,
            }
        }
    }

    /// All ids of `used` are used up: another initiator takes its place for what begins from now
    /// on. What is under way ends where it began.
    async fn redraw(&self, used: InitiatorId) -> Result<(), ConnectError> {
        let _one_at_a_time = self.redrawing.lock().await;
        if self.current().id == used {
            let next = self.settings.start().await?;
            *self.lock() = next;
        }
        Ok(())
    }

    /// What came of a transaction: of this initiator or an earlier one of the same name. Asks until
    /// it is known; if votes are missing and their time is up, asking decides it.
    ///
    /// # Errors
    /// When it is not known by the deadline of the [builder](InitiatorBuilder::deadline), or this
    /// initiator has stopped.
    pub async fn outcome(&self, id: CommitId) -> Result<Known, CommitError> {
        let inner = self.current();
        // Replicas give up the connection of an initiator that asks for what is not its own.
        if !are_of_one_name(inner.id, id.txn.initiator) {
            return Err(CommitError::NotOurs(id));
        }
        let (answer, answered) = oneshot::channel();
        self.ask(inner, Call::Ask(id, answer), answered, id).await
    }

    /// Rolls a transaction back of which this initiator, or an earlier one of the same name, handed
    /// out a plan or asked for commit. Replicas decide it by a ballot now, and the answer is the
    /// outcome that the ballot reached: it is [`Committed`](Known::Committed) if commit may have
    /// been chosen before.
    ///
    /// # Errors
    /// As of [`outcome`](Self::outcome).
    pub async fn rollback(&self, id: CommitId) -> Result<Known, CommitError> {
        let inner = self.current();
        if !are_of_one_name(inner.id, id.txn.initiator) {
            return Err(CommitError::NotOurs(id));
        }
        let (answer, answered) = oneshot::channel();
        let call = Call::ForceAbort(id, answer);
        self.ask(inner, call, answered, id).await
    }

    async fn ask(
        &self,
        inner: Inner,
        call: Call,
        answered: oneshot::Receiver<Answer>,
        id: CommitId,
    ) -> Result<Known, CommitError> {
        inner.call(call).await;
        match tokio::time::timeout(self.settings.deadline, answered).await {
            Ok(Ok(Answer::Committed)) => Ok(Known::Committed),
            Ok(Ok(Answer::Aborted(_))) => Ok(Known::Aborted),
            Ok(Ok(Answer::Forgotten(_))) => Ok(Known::Forgotten),
            Ok(Ok(Answer::Refused(error))) => Err(CommitError::Refused(error)),
            Ok(Err(_)) => Err(CommitError::Unknown {
                id,
                why: "the initiator has stopped".into(),
            }),
            Err(_) => {
                let (tell, told) = oneshot::channel();
                let what = GivenUp::Question(id);
                inner.call(Call::GiveUp(what, tell)).await;
                let why = told.await.ok().flatten();
                let why = why.map_or_else(String::new, |(_, why)| why);
                Err(CommitError::Unknown { id, why })
            }
        }
    }

    /// What this initiator has sent so far. (An initiator whose ids are used up is replaced by another
    /// one, which begins at nothing.)
    pub fn sent(&self) -> Sent {
        self.current().running.net.links.sent()
    }

    /// The replica that it asks first to have branches prepared, at this moment; none before a
    /// generation is known. The others serve as well: one that does not answer is passed over.
    pub async fn relay(&self) -> Option<ReplicaId> {
        let (answer, answered) = oneshot::channel();
        self.current().call(Call::Relay(answer)).await;
        answered.await.ok().flatten()
    }

    /// From where it dials the replicas: its UDP port, on every address of the machine.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.current().running.net.links.address()
    }

    /// Stops in order: waits for the commits and rollbacks that are in flight, at most for `grace`, then ends the
    /// connections. True if no commit was left without its outcome.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        let inner = self.current();
        let (answer, drained) = oneshot::channel();
        inner.call(Call::Drain(answer)).await;
        let drained = tokio::time::timeout(grace, drained).await;
        inner.running.net.close(CLOSE_MAX).await;
        inner.running.driver.abort();
        drained.is_ok()
    }

    fn current(&self) -> Inner {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        let lock = self.current.lock();
        lock.expect("nobody panics while holding the lock")
    }
}

impl Inner {
    /// Room for one call; none if the initiator has stopped. The call is made when it is sent, so
    /// waiting for the room can be cancelled.
    pub(super) async fn room(&self) -> Option<mpsc::Permit<'_, Call>> {
        self.calls.reserve().await.ok()
    }

    /// False if the initiator has stopped.
    pub(super) async fn call(&self, call: Call) -> bool {
        self.calls.send(call).await.is_ok()
    }

    /// From a destructor.
    pub(super) fn call_later(&self, call: Call) {
        if let Err(mpsc::error::TrySendError::Full(call)) = self.calls.try_send(call) {
            let calls = self.calls.clone();
            self.running
                .runtime
                .spawn(async move { calls.send(call).await });
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.driver.abort();
    }
}
