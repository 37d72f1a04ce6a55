//! Starts a replica, and stops it.

use std::collections::BTreeSet;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::driver::Driver;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::replica::{ReplicaCommand, ReplicaConfig, Stored};
use crate::protocol::types::{Configuration, Peer, TxnId};
use crate::protocol::{Effects, Host, Input, Replica as Core};
use crate::store::{Loaded, OpenError, Store, StoreConfig};
use crate::transport::{Access, Links, ListenError, Listening, Net, Role, Serving};
use crate::wire::Frame;

use super::metering::save_observer;
use super::shell::{Call, Exit, ReplicaShell};
use super::starting::{hear_peers, watch_amnesia, watch_data};

/// How often the others are told how far this replica's store is.
const TELL_LSN: Duration = Duration::from_secs(1);

/// How long what is queued may take to be written at the end.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Settings of a [`Replica`].
#[derive(Clone, Debug)]
pub struct ReplicaBuilder {
    data: PathBuf,
    listen: SocketAddr,
    access: Access,
    tuning: Tuning,
}

/// What can be tuned of a replica. The usual values suit most; all replicas of a cluster should
/// have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tuning {
    /// How long a generation lasts. Usually ten minutes. Disk and memory hold about three of them.
    pub generation_period: Duration,
    /// After how many transactions a new generation is opened before its time. Usually a million.
    pub generation_transactions_max: u64,
    /// How long a generation lasts at least, however many transactions it holds. Usually one minute.
    pub generation_min: Duration,
    /// How long transactions under way get to finish once their generation is closed. Usually one
    /// minute.
    pub grace: Duration,
    /// How many undecided transactions a replica takes on. Usually 100,000.
    pub undecided_max: usize,
    /// The longest that a transaction may ask replicas to wait for votes. Usually ten minutes.
    pub vote_timeout_max: Duration,
}

impl Default for Tuning {
    fn default() -> Self {
        Tuning {
            generation_period: Duration::from_secs(600),
            generation_transactions_max: 1_000_000,
            generation_min: Duration::from_secs(60),
            grace: Duration::from_secs(60),
            undecided_max: 100_000,
            vote_timeout_max: Duration::from_secs(600),
        }
    }
}

impl Tuning {
    fn apply(&self, config: &mut ReplicaConfig) {
        let tick = config.tick.as_millis().max(1);
        let ticks = |time: Duration| u32::try_from(time.as_millis() / tick).unwrap_or(u32::MAX);
        config.generation_ticks = ticks(self.generation_period).max(1);
        config.generation_transactions_max = self.generation_transactions_max.max(1);
        config.generation_ticks_min = ticks(self.generation_min);
        config.grace_ticks = ticks(self.grace);
        config.undecided_max = self.undecided_max;
        // Of honest participants with transactions of their own alone, only the relay is asked.
        let unvouched_max = self.generation_transactions_max.saturating_mul(4);
        config.unvouched_max = usize::try_from(unvouched_max).unwrap_or(usize::MAX);
        config.vote_timeout_max = self.vote_timeout_max;
    }

    /// Whatever is set can be applied.
    #[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
    pub(crate) fn check(&self) {
        self.apply(&mut ReplicaConfig::joining(ReplicaId(1)));
    }
}

/// Why a replica did not start, or stopped.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ReplicaError {
    /// The credentials are not a replica's.
    #[error(
        "{data} is the data directory of replica {expected} of {cluster}, and the credentials are \
         those of {got}. Give each replica its own data directory and its own credentials (`data`, \
         `certificate` and `key` in its settings)"
    )]
    WrongIdentity {
        /// The data directory.
        data: PathBuf,
        /// The data directory's replica.
        expected: ReplicaId,
        /// The data directory's cluster.
        cluster: String,
        /// What the credentials are for.
        got: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The endpoint.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// Another replica remembers more than there is.
    #[error(
        "replica {replica} has lost what it promised: replica {by} remembers its store up to \
         {remembered}, but at the start it ended at {found}. It must not vote any more. Replace it \
         by a new replica with a new id (`paxos-commit cluster replace`); never restore it from a \
         backup"
    )]
    Amnesia {
        /// This replica.
        replica: ReplicaId,
        /// Who remembers.
        by: ReplicaId,
        /// What it remembers.
        remembered: u64,
        /// What the store held at the start.
        found: u64,
    },
    /// Its data directory is not there any more.
    #[error(
        "the data directory {data} has gone under this replica ({why}): nothing is saved there any \
         more. Bring it back (is its disk mounted?) and start the replica; if it is lost, replace the \
         replica by one with a new id (`paxos-commit cluster replace`)"
    )]
    DataGone {
        /// The directory.
        data: PathBuf,
        /// What was found.
        why: String,
    },
    /// It does not run any more.
    #[error("the replica's driver has ended; its last words are in the log")]
    Ended,
}

impl ReplicaError {
    /// Whether the replica has lost what it promised, or may have. It can never serve again, and must be
    /// replaced by one with a new id: a supervisor need not start it again.
    pub fn must_be_replaced(&self) -> bool {
        match self {
            ReplicaError::Store(error) => error.must_be_replaced(),
            ReplicaError::Amnesia { .. } => true,
            ReplicaError::WrongIdentity { .. }
            | ReplicaError::Listen(_)
            | ReplicaError::DataGone { .. }
            | ReplicaError::Ended => false,
        }
    }
}

/// Why a replica that ran stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It was asked to.
    Shutdown,
    /// It was removed from the cluster, and the last generation that it decided is settled: nobody
    /// needs it any more, and its data directory may be deleted.
    Removed,
}

/// A replica that runs. Dropping it stops it without warning, as far as that can be done within a
/// process: what was saved stays saved, what waited is lost.
pub struct Replica {
    id: ReplicaId,
    address: SocketAddr,
    net: Net,
    store: Arc<Store>,
    calls: mpsc::Sender<Call>,
    driver: Running,
    _telling: Running,
    removed: watch::Receiver<bool>,
}

/// A task that ends when it is dropped.
struct Running(JoinHandle<()>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl fmt::Debug for Replica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Replica({} at {})", self.id, self.address)
    }
}

impl ReplicaBuilder {
    /// Other settings than the usual.
    #[must_use]
    pub fn tuning(mut self, tuning: Tuning) -> Self {
        self.tuning = tuning;
        self
    }

    /// Runs until `shutdown` completes, or nobody needs the replica any more.
    ///
    /// # Errors
    /// When it cannot start, or learns that it has lost what it promised. A failing store ends the
    /// process.
    pub async fn run_until(self, shutdown: impl Future<Output = ()>) -> Result<End, ReplicaError> {
        let mut shutdown = std::pin::pin!(shutdown);
        let replica = tokio::select! {
            started = self.start() => started?,
            () = &mut shutdown => return Ok(End::Shutdown),
        };
        tracing::info!(replica = %replica.id, address = %replica.address, "serving");
        let end = tokio::select! {
            end = replica.ended() => end,
            () = shutdown => Ok(End::Shutdown),
        };
        replica.shutdown().await;
        end
    }

    /// Starts, and returns when it serves: F of the other replicas must be up for that.
    ///
    /// # Errors
    /// When it cannot start, or has lost what it promised.
    pub async fn start(self) -> Result<Replica, ReplicaError> {
        self.start_listening(|_| {}).await
    }

    /// As [`start`](Self::start); `listening` is told the address as soon as there is one.
    pub(crate) async fn start_listening(
        self,
        listening: impl FnOnce(SocketAddr) + Send,
    ) -> Result<Replica, ReplicaError> {
        let settings = StoreConfig {
            observer: Some(save_observer()),
            ..StoreConfig::default()
        };
        let (store, loaded) = Store::open_with(&self.data, settings)?;
        let Loaded {
            identity,
            lsn,
            peers,
            records,
            finished,
            ..
        } = loaded;
        let me = identity.replica;
        let own = self.access.credentials.identity();
        if own.role != Role::Replica(me) || own.cluster.as_str() != identity.cluster {
            return Err(ReplicaError::WrongIdentity {
                data: self.data,
                expected: me,
                cluster: identity.cluster,
                got: own.to_string(),
            });
        }
        let store = Arc::new(store);
        let place = Listening {
            replica: me,
            address: self.listen,
            reset_key: &identity.reset_key,
            lsn,
            peers,
        };
        let seeds = self.access.replicas.clone();
        let (net, inbound) = Net::replica(&place, self.access)?;
        let address = net.links.address();
        let address = address.map_err(|error| ListenError::Bind {
            address: self.listen,
            error,
        })?;
        listening(address);

        let mut config = match identity.genesis {
            Some(genesis) => ReplicaConfig::new(me, genesis),
            None => ReplicaConfig::joining(me),
        };
        self.tuning.apply(&mut config);
        let txn = |((generation, initiator), sequence)| TxnId {
            generation,
            initiator,
            sequence,
            nonce: 0,
        };
        let stored: Stored = finished.into_iter().map(txn).collect();
        let mut effects = Effects::default();
        let mut core = Core::recover(config, records, &mut effects);
        core.step(Input::Command(ReplicaCommand::Stored(stored)), &mut effects);
        net.links.learn(core.generations());
        tokio::select! {
            heard = hear_peers(&net.links, me, core.generations(), &seeds) => heard?,
            error = watch_data(&store) => return Err(error),
        }

        let (calls, called) = mpsc::channel(64);
        let (back, from_back) = mpsc::unbounded_channel();
        let (removed, watching) = watch::channel(core.is_removed());
        let exit = Exit {
            me: Peer::Replica(me),
            links: net.links.clone(),
            back,
            removed: Arc::new(removed),
            durable: Arc::new(AtomicU64::new(0)),
            spares: Arc::default(),
        };
        let shell = ReplicaShell::new(me, store.clone(), exit);
        let driver = Driver::new(core, shell, effects, inbound, called, from_back);
        net.links.serve(Serving::Yes);
        let links = net.links.clone();
        Ok(Replica {
            id: me,
            address,
            net,
            store,
            calls,
            driver: Running(tokio::spawn(driver.run())),
            _telling: Running(tokio::spawn(tell_lsn(links))),
            removed: watching,
        })
    }
}

/// Tells the other replicas how far this one's store is: they remember it, and notice if it is ever
/// behind that.
async fn tell_lsn(links: Arc<Links>) {
    let mut told = 0;
    loop {
        tokio::time::sleep(TELL_LSN).await;
        let own = links.lsns().own;
        if own > told {
            links.send_to_replicas(&Frame::Lsn(own));
            told = own;
        }
    }
}

impl Replica {
    /// A replica with this data directory, which [`init`](super::init) has made, listening on this
    /// address. The replicas in `access` are whom it asks before it knows the cluster.
    pub fn builder(data: PathBuf, listen: SocketAddr, access: Access) -> ReplicaBuilder {
        ReplicaBuilder {
            data,
            listen,
            access,
            tuning: Tuning::default(),
        }
    }

    /// Its id.
    pub fn id(&self) -> ReplicaId {
        self.id
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Waits until it ends by itself: removed, found to have lost its memory, or without its data
    /// directory.
    ///
    /// # Errors
    /// When it has lost what it promised or its data directory, or does not run any more.
    pub async fn ended(&self) -> Result<End, ReplicaError> {
        let mut removed = self.removed.clone();
        let removed = removed.wait_for(|removed| *removed);
        tokio::select! {
            removed = removed => removed.map(|_| End::Removed).map_err(|_| ReplicaError::Ended),
            error = watch_amnesia(&self.net.links, self.id) => Err(error),
            error = watch_data(&self.store) => Err(error),
        }
    }

    /// Whether it can be of use: it runs, and is connected to a majority of the configuration in
    /// force, itself counted.
    ///
    /// # Errors
    /// Why not.
    pub fn is_ready(&self) -> Result<(), String> {
        if self.driver.0.is_finished() {
            return Err("its driver has ended; its last words are in the log".into());
        }
        let links = &self.net.links;
        let generations = links.generations();
        let generations = generations.borrow();
        let in_force = generations.in_force().map(Configuration::acceptors);
        let in_force = in_force.ok_or("it does not know the replicas of the cluster yet")?;
        let mut reached: BTreeSet<ReplicaId> = BTreeSet::from([self.id]);
        for peer in links.connected() {
            if let Peer::Replica(replica) = peer {
                reached.insert(replica);
            }
        }
        let count = in_force.iter().filter(|id| reached.contains(id)).count();
        if count < in_force.majority() {
            return Err(format!(
                "it reaches {count} of the {} replicas of generation {}, itself counted; a \
                 majority is {}",
                in_force.len(),
                generations.latest(),
                in_force.majority()
            ));
        }
        Ok(())
    }

    /// Looks at its core.
    pub async fn inspect<T: Send + 'static>(
        &self,
        look: impl FnOnce(&Core) -> T + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = tokio::sync::oneshot::channel();
        let look = Box::new(move |core: &Core| drop(answer.send(look(core))));
        self.calls.send(Call::Inspect(look)).await.ok()?;
        answered.await.ok()
    }

    /// Stops without warning, and returns when its data directory and its address are free again.
    /// What was saved stays saved; connections end without a word.
    pub async fn kill(self) {
        let Replica {
            net,
            store,
            mut driver,
            ..
        } = self;
        driver.0.abort();
        let _ = (&mut driver.0).await;
        drop(net);
        // It ends with its thread, which this one must not wait for.
        let _ = tokio::task::spawn_blocking(move || drop(store)).await;
    }

    /// Stops in order: lets nobody in any more, saves what is under way, sends what waits for that,
    /// ends the connections.
    pub async fn shutdown(self) {
        let Replica {
            net,
            store,
            calls,
            mut driver,
            ..
        } = self;
        net.links.serve(Serving::No("it is shutting down".into()));
        // The driver ends with its last call.
        drop(calls);
        let _ = (&mut driver.0).await;
        let closed = tokio::task::spawn_blocking(move || store.close()).await;
        if let Err(error) = closed {
            tracing::error!(%error, "the store was not closed in order");
        }
        net.close(CLOSE_MAX).await;
    }
}
