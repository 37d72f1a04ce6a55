//! Mutually authenticated QUIC between replicas and everyone else.
//!
//! | file | what |
//! |---|---|
//! | `identity` | who a certificate says one is: a URI |
//! | `credentials`, `authority` | certificates: used, issued |
//! | `sockets`, `endpoint` | the UDP sockets; the settings of QUIC |
//! | `resolver`, `reaching` | the addresses behind a name; which of them leads to the replica |
//! | `problems` | why replicas cannot be reached |
//! | `dialing`, `accepting` | connections to and of replicas; the greeting, checked on both sides |
//! | `permission` | what an identity may say |
//! | `outbox`, `stream` | what waits for a connection; frames on it |
//! | `links` | the connections, by peer |
//! | `shares` | what the connections of one name may take together |
//! | `reached` | what is said in the log of replicas that are reached |
//! | `refusals` | what is turned away: counted, and logged without flooding |
//!
//! Everyone dials replicas, replicas each other too: what a replica sends to another goes over the
//! connection that it dialed itself, so that there is no question which of two to keep. (One that
//! was removed is dialed no more, and answered where it dialed: it learns in this way that nobody
//! needs it.) A client has one connection to each replica, used both ways.
//!
//! Nothing here is reliable beyond one connection: when a queue overflows or a peer is silent for
//! too long the connection is given up, and when the next one is up the core sends again whatever
//! was not acknowledged.

mod accepting;
mod access;
#[cfg(feature = "cluster")]
mod authority;
mod batch;
mod credentials;
mod dialing;
mod endpoint;
mod identity;
mod links;
mod outbox;
mod permission;
mod problems;
mod reached;
mod reaching;
mod refusals;
mod resolver;
mod shares;
mod sockets;
mod stream;
mod traffic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Generations, Peer};

pub use access::{Access, ConnectError};
#[cfg(feature = "cluster")]
pub use authority::{AUTHORITY_FILE, Authority, AuthorityError, Issued};
#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
pub(crate) use credentials::fuzz_certificate;
#[cfg(all(test, feature = "cluster", feature = "embedded"))]
pub(crate) use credentials::fuzz_der;
pub use credentials::{Credentials, CredentialsError, server_name};
pub use endpoint::ListenError;
pub(crate) use identity::are_of_one_name;
pub use identity::{Identity, IdentityError, Name, Role, draw_initiator, draw_session, is_bound};
#[doc(hidden)]
pub use permission::may_say;
pub use resolver::Resolver;

use links::Lsns;
pub(crate) use links::{Inbound, Links, Serving};

/// How many events wait for the driver before connections are read no further.
const INBOX_MAX: usize = 16_384;

/// The network of one process. Its tasks end when it is dropped.
pub(crate) struct Net {
    pub(crate) links: Arc<Links>,
    tasks: Vec<JoinHandle<()>>,
}

/// Where a replica listens.
pub(crate) struct Listening<'a> {
    pub(crate) replica: ReplicaId,
    pub(crate) address: SocketAddr,
    pub(crate) reset_key: &'a [u8; 64],
    /// How far its store is, and how far it remembers the others'.
    pub(crate) lsn: u64,
    pub(crate) peers: BTreeMap<ReplicaId, u64>,
}

impl Net {
    /// Dials replicas, as `me`.
    pub(crate) fn client(
        me: Peer,
        access: Access,
    ) -> Result<(Net, mpsc::Receiver<Inbound>), ListenError> {
        let Access {
            credentials,
            replicas: seeds,
            resolver,
        } = access;
        let network = (endpoint::dial_only()?, resolver);
        let (inbox, inbound) = mpsc::channel(INBOX_MAX);
        let links = Links::new(
            me,
            credentials,
            network,
            inbox,
            (Serving::Yes, Lsns::default()),
        );
        let tasks = vec![tokio::spawn(dialing::dial_all(links.clone(), seeds))];
        Ok((Net { links, tasks }, inbound))
    }

    /// Listens, and dials the other replicas. Only those are let in until it is
    /// [serving](Links::serve).
    pub(crate) fn replica(
        listening: &Listening<'_>,
        access: Access,
    ) -> Result<(Net, mpsc::Receiver<Inbound>), ListenError> {
        let Listening {
            replica,
            address,
            reset_key,
            lsn,
            peers,
        } = listening;
        let Access {
            credentials,
            replicas: seeds,
            resolver,
        } = access;
        let sockets = endpoint::listen(*address, &credentials, reset_key)?;
        let network = (sockets, resolver);
        let (inbox, inbound) = mpsc::channel(INBOX_MAX);
        let me = Peer::Replica(*replica);
        let serving = Serving::No("it is starting".into());
        let lsns = Lsns {
            run: crate::random::draw(),
            own: *lsn,
            start: *lsn,
            peers: peers.clone(),
            ..Lsns::default()
        };
        let links = Links::new(me, credentials, network, inbox, (serving, lsns));
        let tasks = vec![
            tokio::spawn(dialing::dial_all(links.clone(), seeds)),
            tokio::spawn(accepting::accept_all(links.clone(), *replica)),
        ];
        Ok((Net { links, tasks }, inbound))
    }

    /// Waits until a replica has told which generations there are.
    pub(crate) async fn generations(&self, wait: Duration) -> Result<Generations, ConnectError> {
        let mut told = self.links.generations();
        let known = told.wait_for(|told| told.in_force().is_some());
        if let Ok(Ok(generations)) = tokio::time::timeout(wait, known).await {
            return Ok(generations.clone());
        }
        Err(ConnectError::NobodyAnswers {
            waited: wait,
            problems: self.links.problems.summary(),
        })
    }

    /// Writes what is queued, then ends every connection.
    pub(crate) async fn close(&self, grace: Duration) {
        // First, since a connection ends with the task that has dialed it.
        self.links.flush(grace).await;
        for task in &self.tasks {
            task.abort();
        }
        self.links.close(grace).await;
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
        self.links.abandon();
    }
}
