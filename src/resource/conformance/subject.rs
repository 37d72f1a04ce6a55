//! What the kit must know of a store to check its resource manager.

use std::error::Error;
use std::future::Future;

use crate::participant::ResourceManager;
use crate::protocol::types::{ParticipantName, Request, TxnId};

/// What went wrong in a subject's own code.
pub type Failure = Box<dyn Error + Send + Sync>;

/// Whether something was done to a store, or cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was done.
    Done,
    /// It does not apply to this store, for this reason. The report shows it.
    NotApplicable(&'static str),
}

/// How many processes can have the store open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processes {
    /// One: the store belongs to its process.
    One,
    /// Any number: the store is a server, or is shared in another way.
    Many,
}

/// A resource manager under test, and the store below it.
///
/// The store holds counters by name. One that nobody has added to is 0. Names are 1 to 32 of `a-z`,
/// `0-9` and `-`.
pub trait Subject: Sync {
    /// The resource manager.
    type Manager: ResourceManager;

    /// Opens the store as a new process does. All that are opened, one after another or at the same
    /// time, have the same durable state below.
    fn open(&self) -> impl Future<Output = Result<Self::Manager, Failure>> + Send;

    /// Opens a store of the same participant that is new and empty, and that has nothing in common
    /// with the one of [`open`](Self::open) nor with any other: what a service finds whose volume
    /// is not mounted. `None` if the subject cannot make one.
    fn open_another(&self) -> impl Future<Output = Result<Option<Self::Manager>, Failure>> + Send {
        async { Ok(None) }
    }

    /// Opens a physical copy of the store as it stands now, as one that is restored from a backup while
    /// the original goes on. `None` if the subject cannot make one.
    fn open_copy(&self) -> impl Future<Output = Result<Option<Self::Manager>, Failure>> + Send {
        async { Ok(None) }
    }

    /// Ends a process with no more order than `SIGKILL` does: nothing is finished, saved or said.
    fn kill(&self, manager: Self::Manager) -> impl Future<Output = Result<(), Failure>> + Send;

    /// The store itself crashes and starts again, while the processes that have it open live on:
    /// a database server, for example.
    fn crash_store(&self) -> impl Future<Output = Result<Applied, Failure>> + Send;

    /// How many processes can have it open at a time.
    fn processes(&self) -> Processes;

    /// Adds to a counter, under the transaction. May wait for others' locks, or fail because of
    /// them. Exact: what others add is neither lost nor seen before it is committed.
    fn add(
        &self,
        manager: &Self::Manager,
        txn: TxnId,
        counter: &str,
        amount: i64,
    ) -> impl Future<Output = Result<(), Failure>> + Send;

    /// Reads a counter under the transaction, and changes nothing.
    fn look(
        &self,
        manager: &Self::Manager,
        txn: TxnId,
        counter: &str,
    ) -> impl Future<Output = Result<i64, Failure>> + Send;

    /// The committed value of a counter, under no transaction. Waits for nobody's lock.
    fn read(
        &self,
        manager: &Self::Manager,
        counter: &str,
    ) -> impl Future<Output = Result<i64, Failure>> + Send;

    /// Breaks the connection on which the work under this transaction was done.
    fn lose_connection(
        &self,
        manager: &Self::Manager,
        txn: TxnId,
    ) -> impl Future<Output = Result<Applied, Failure>> + Send;

    /// The request that adds to a counter when it is prepared; `None` if none can travel there.
    fn request(&self, counter: &str, amount: i64) -> Option<Request>;

    /// How many markers of commits the store keeps; `None` if that cannot be counted.
    fn markers(
        &self,
        manager: &Self::Manager,
    ) -> impl Future<Output = Result<Option<u64>, Failure>> + Send {
        let _ = manager;
        async { Ok(None) }
    }

    /// The participant whose branches they are. Usually `conformance`.
    fn participant(&self) -> ParticipantName {
        let name = "conformance".parse();
        name.expect("letters make a name")
    }
}
