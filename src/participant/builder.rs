//! Starts a participant, and stops it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use crate::driver::Driver;
use crate::protocol::participant::{
    NotEntered, Participant as Session, ParticipantCommand, ParticipantConfig, Standing,
};
use crate::protocol::types::{Branch as BranchName, Peer, TxnId};
use crate::protocol::{Effects, Host, Input};
use crate::transport::{Access, ConnectError, Net, Role, draw_session};
use crate::wire::Sent;

use super::branch::{Branch, BranchError};
use super::resource_manager::ResourceManager;
use super::shell::{Call, SessionShell};
use super::working::{Worker, attempt};

/// How many calls of the service wait for its session.
const CALLS_MAX: usize = 1_024;

/// How long what is queued may take to be written at the end.
const CLOSE_MAX: Duration = Duration::from_secs(1);

/// Settings of a [`Participant`].
#[derive(Debug)]
pub struct ParticipantBuilder {
    access: Access,
    scan_interval: Duration,
    connect_timeout: Duration,
    work_max: Duration,
}

/// One session of a participant. Cheap to clone; see the [module](super).
#[derive(Clone)]
pub struct Participant {
    inner: Arc<Inner>,
}

struct Inner {
    me: BranchName,
    calls: mpsc::Sender<Call>,
    net: Net,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl fmt::Debug for Participant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Participant({})", self.inner.me)
    }
}

impl ParticipantBuilder {
    /// How often branches in doubt are looked for: a slow prepare may surface after any scan.
    /// Usually 10 s.
    #[must_use]
    pub fn scan_interval(mut self, interval: Duration) -> Self {
        self.scan_interval = interval;
        self
    }

    /// How long to wait for the first replica. Usually 10 s.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// After how long a branch that was never asked to prepare lets go of its work and its locks:
    /// the longest that a transaction may work here. Usually one minute.
    #[must_use]
    pub fn work_max(mut self, work_max: Duration) -> Self {
        self.work_max = work_max;
        self
    }

    /// Connects, waits until a majority of the replicas has let this store work under the
    /// participant's name, and asks what became of the branches that stand prepared.
    ///
    /// # Errors
    /// When the credentials are not a participant's, when no replica lets it in or too few are reached,
    /// when the resource manager cannot tell what is in doubt, or when the participant's name stands for
    /// another store ([`ConnectError::NotEntered`], which says what to do).
    pub async fn connect<R: ResourceManager>(
        self,
        resource_manager: R,
    ) -> Result<Participant, ConnectError> {
        let identity = self.access.credentials.identity();
        let Role::Participant(name) = &identity.role else {
            return Err(ConnectError::WrongRole {
                expected: "a participant",
                got: identity.to_string(),
            });
        };
        let resource_manager = Arc::new(resource_manager);
        let serves = resource_manager.serves(identity.cluster.as_str(), name);
        serves.map_err(|error| ConnectError::NotItsStore(error.to_string()))?;
        let me = BranchName {
            participant: name.clone(),
            session: draw_session(),
            store: resource_manager.store(),
        };
        let in_doubt = attempt(async { resource_manager.in_doubt().await }).await;
        let in_doubt = in_doubt.map_err(ConnectError::ResourceManager)?;
        let (net, inbound) = Net::client(Peer::Session(me.clone()), self.access)?;
        let generations = net.generations(self.connect_timeout).await?;

        let mut config = ParticipantConfig::joining(me.clone(), generations);
        let ticks = self.work_max.as_millis().div_ceil(config.tick.as_millis());
        config.work_ticks_max = u32::try_from(ticks).unwrap_or(u32::MAX);
        config.openings = resource_manager.openings();
        let tick = config.tick;
        let mut effects = Effects::default();
        let mut session = Session::recover(config, [], &mut effects);
        let command = ParticipantCommand::InDoubt(in_doubt);
        session.step(Input::Command(command), &mut effects);

        let (calls, called) = mpsc::channel(CALLS_MAX);
        let (standing, stands) = watch::channel(Standing::Asking);
        let (back, from_back) = mpsc::unbounded_channel();
        let shell = SessionShell {
            links: net.links.clone(),
            worker: Worker {
                resource_manager: resource_manager.clone(),
                me: me.clone(),
            },
            back: back.clone(),
            beginning: BTreeMap::new(),
            begun: BTreeMap::new(),
            waiting: BTreeMap::new(),
            draining: None,
            standing,
            tick,
        };
        let driver = Driver::new(session, shell, effects, inbound, called, from_back);
        let tasks = vec![
            tokio::spawn(driver.run()),
            tokio::spawn(scan(resource_manager, self.scan_interval, back)),
        ];
        let participant = Participant {
            inner: Arc::new(Inner {
                me,
                calls,
                net,
                tasks,
            }),
        };
        let entered = participant.be_entered(stands, self.connect_timeout).await;
        match (entered, participant.inner.net.links.problems.summary()) {
            (Ok(()), _) => Ok(participant),
            (Err(error), problems)
                if error.standing == Standing::Asking && !problems.is_empty() =>
            {
                Err(ConnectError::TooFewReached {
                    waited: self.connect_timeout,
                    problems,
                })
            }
            (Err(error), _) => Err(error.into()),
        }
    }
}

/// Looks for branches in doubt, again and again.
async fn scan<R: ResourceManager>(
    manager: Arc<R>,
    interval: Duration,
    back: mpsc::UnboundedSender<Input<Session>>,
) {
    loop {
        tokio::time::sleep(interval).await;
        match attempt(async { manager.in_doubt().await }).await {
            Ok(found) if found.is_empty() => {}
            Ok(found) => {
                let command = ParticipantCommand::InDoubt(found);
                if back.send(Input::Command(command)).is_err() {
                    return;
                }
            }
            Err(error) => tracing::warn!(error, "cannot look for branches in doubt"),
        }
    }
}

impl Participant {
    /// Takes part in a cluster, with credentials that say as whom.
    pub fn builder(access: Access) -> ParticipantBuilder {
        ParticipantBuilder {
            access,
            scan_interval: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
            work_max: Duration::from_secs(60),
        }
    }

    /// Begins to work under a transaction, or goes on with it.
    ///
    /// # Errors
    /// When the transaction is over here, or this participant stops.
    pub async fn branch(&self, txn: TxnId) -> Result<Branch, BranchError> {
        let (answer, answered) = oneshot::channel();
        self.call(Call::Begin(txn, answer)).await;
        let open = answered.await.map_err(|_| BranchError::Stopping)??;
        Ok(Branch {
            txn,
            participant: self.clone(),
            open,
        })
    }

    /// The participant's name and this session.
    pub fn me(&self) -> &BranchName {
        &self.inner.me
    }

    /// What this session has sent so far.
    pub fn sent(&self) -> Sent {
        self.inner.net.links.sent()
    }

    /// From where it dials the replicas: its UDP port, on every address of the machine.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn local_address(&self) -> std::io::Result<SocketAddr> {
        self.inner.net.links.address()
    }

    /// Stops in order: nothing new begins; what is under way comes to its end, at most for `grace`;
    /// what was never asked to prepare lets go; the connections end. True if nothing was left in
    /// doubt.
    pub async fn shutdown(&self, grace: Duration) -> bool {
        let drained = tokio::time::timeout(grace, self.drain(grace / 2)).await;
        self.inner.net.close(CLOSE_MAX).await;
        for task in &self.inner.tasks {
            task.abort();
        }
        drained.is_ok()
    }

    /// Waits until the replicas have let this session in. One that is not let in finishes what its
    /// store holds, if it may, before the error is returned.
    async fn be_entered(
        &self,
        mut stands: watch::Receiver<Standing>,
        patience: Duration,
    ) -> Result<(), NotEntered> {
        let is_known = |standing: &Standing| *standing != Standing::Asking;
        let known = async { stands.wait_for(is_known).await.map(|standing| *standing) };
        // At the deadline, and when the session has ended, it is still asking.
        let known = tokio::time::timeout(patience, known).await;
        let standing = known.map_or(Standing::Asking, |it| it.unwrap_or(Standing::Asking));
        match standing {
            Standing::Entered => return Ok(()),
            Standing::OtherStore { .. } => {
                let (answer, drained) = oneshot::channel();
                self.call(Call::Drain(answer)).await;
                let _ = tokio::time::timeout(patience, drained).await;
            }
            Standing::Asking | Standing::OldOpening { .. } | Standing::TooManyNames => {}
        }
        let me = self.inner.me.clone();
        Err(NotEntered { me, standing })
    }

    async fn drain(&self, patience: Duration) {
        let (answer, drained) = oneshot::channel();
        self.call(Call::Drain(answer)).await;
        let mut drained = std::pin::pin!(drained);
        if tokio::time::timeout(patience, &mut drained).await.is_err() {
            // Nobody has asked for commit so far.
            self.call(Call::LetGo).await;
            let _ = drained.await;
        }
    }

    pub(super) async fn call(&self, call: Call) {
        // Without a session whoever waits for the answer finds the sender dropped.
        let _ = self.inner.calls.send(call).await;
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}
