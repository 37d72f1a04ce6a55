//! How a database is opened.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::protocol::types::Request;

use super::error::RequestError;
use super::work::Work;

type Handling = Pin<Box<dyn Future<Output = Result<(), RequestError>> + Send>>;

/// Runs the request of a `Prepare`.
pub(super) type RequestHandler = dyn Fn(Work, Request) -> Handling + Send + Sync;

/// How isolated the work of one transaction is from others **in this database**; see
/// [isolation](super#isolation).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Each statement sees what is committed when it begins. PostgreSQL's own default.
    ReadCommitted,
    /// All statements see what was committed before the first.
    RepeatableRead,
    /// As if transactions ran one after the other.
    Serializable,
}

impl fmt::Display for Isolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Isolation::ReadCommitted => "READ COMMITTED",
            Isolation::RepeatableRead => "REPEATABLE READ",
            Isolation::Serializable => "SERIALIZABLE",
        })
    }
}

/// How a database takes part.
#[derive(Clone)]
pub struct Options {
    pub(super) cluster: String,
    pub(super) participant: String,
    pub(super) schema: String,
    pub(super) isolation: Isolation,
    pub(super) work_connections: usize,
    pub(super) finish_connections: usize,
    pub(super) acquire_max: Duration,
    pub(super) answer_max: Duration,
    pub(super) lock_max: Duration,
    pub(super) idle_max: Duration,
    pub(super) requests: Option<Arc<RequestHandler>>,
}

impl Options {
    /// The usual settings, for a participant of a cluster. Both names are those of the
    /// participant's certificate; they stand in the name of every prepared transaction.
    pub fn new(cluster: impl Into<String>, participant: impl Into<String>) -> Self {
        Options {
            cluster: cluster.into(),
            participant: participant.into(),
            schema: "paxos_commit".into(),
            isolation: Isolation::ReadCommitted,
            work_connections: 16,
            finish_connections: 4,
            acquire_max: Duration::from_secs(5),
            answer_max: Duration::from_secs(30),
            lock_max: Duration::from_secs(5),
            idle_max: Duration::from_secs(300),
            requests: None,
        }
    }

    /// In which schema the adapter has its two tables. Usually `paxos_commit`. Participants that must
    /// not read each other's ids need a schema each.
    #[must_use]
    pub fn schema(mut self, schema: impl Into<String>) -> Self {
        self.schema = schema.into();
        self
    }

    /// How isolated work is. Usually [`ReadCommitted`](Isolation::ReadCommitted).
    #[must_use]
    pub fn isolation(mut self, isolation: Isolation) -> Self {
        self.isolation = isolation;
        self
    }

    /// How many transactions can work at a time; each has a connection of its own until it is
    /// prepared. Usually 16.
    #[must_use]
    pub fn work_connections(mut self, max: usize) -> Self {
        self.work_connections = max;
        self
    }

    /// How many connections there are, besides, to commit and roll back what is prepared: so work
    /// cannot keep others from coming to their end. Usually 4.
    #[must_use]
    pub fn finish_connections(mut self, max: usize) -> Self {
        self.finish_connections = max;
        self
    }

    /// How long to wait until somebody gives a connection back, or drops the one of the transaction.
    /// Usually 5 s.
    #[must_use]
    pub fn acquire_max(mut self, max: Duration) -> Self {
        self.acquire_max = max;
        self
    }

    /// How long the server may take to connect and to answer the adapter's own statements (a service's
    /// own take as long as they take). Usually 30 s.
    #[must_use]
    pub fn answer_max(mut self, max: Duration) -> Self {
        self.answer_max = max;
        self
    }

    /// How long a statement of the work waits for a lock (`lock_timeout`). Usually 5 s. PostgreSQL
    /// finds deadlocks within one server; those that go through several participants only this ends.
    #[must_use]
    pub fn lock_max(mut self, max: Duration) -> Self {
        self.lock_max = max;
        self
    }

    /// After how long without a statement the server ends the work of a transaction
    /// (`idle_in_transaction_session_timeout`): for the case that this whole machine is gone and the
    /// server does not notice. Usually 5 minutes; it must be longer than the participant's
    /// [`work_max`](crate::participant::ParticipantBuilder::work_max).
    #[must_use]
    pub fn idle_max(mut self, max: Duration) -> Self {
        self.idle_max = max;
        self
    }

    /// What runs the requests that travel inside a prepare. Without it they abort.
    ///
    /// If the handler returns an error the branch aborts. It must drop its [`Work`] by the time it
    /// returns; nobody else can work under the transaction by then.
    #[must_use]
    pub fn requests<F, R>(mut self, handler: F) -> Self
    where
        F: Fn(Work, Request) -> R + Send + Sync + 'static,
        R: Future<Output = Result<(), RequestError>> + Send + 'static,
    {
        self.requests = Some(Arc::new(move |work, request| {
            Box::pin(handler(work, request))
        }));
        self
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Options({}/{})", self.cluster, self.participant)
    }
}
