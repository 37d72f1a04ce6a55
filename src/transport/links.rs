//! The connections of one process, by peer.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, watch};

use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Generations, Member, Peer};
use crate::wire::{Frame, Lsn, Query, Sent};

use super::batch::Batch;
use super::credentials::Credentials;
use super::outbox::{Outbox, Outgoing};
use super::problems::Problems;
use super::reached::Reached;
use super::refusals::Refusals;
use super::resolver::Resolver;
use super::shares::{Share, Shares};
use super::sockets::Sockets;
use super::traffic::Traffic;

/// About how many bytes of long messages may wait for the driver, or be worked on.
const INBOX_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A message up to this length is not counted: it is one of a bounded number.
pub(super) const INBOX_SHORT_BYTES: usize = 1024;

/// What comes from the network, in the order of each connection.
#[derive(Debug)]
pub(crate) enum Inbound {
    /// A connection to this peer is up.
    Connected {
        peer: Peer,
        /// Counts connections; of two to one peer the higher is the newer.
        link: u64,
    },
    /// A connection is gone.
    Disconnected { peer: Peer, link: u64 },
    /// Messages came, and their sender may say that.
    Messages(Batch),
    /// A replica's store is so far.
    Lsn { replica: ReplicaId, lsn: u64 },
    /// An operator asks.
    Query { from: Peer, query: Query },
    /// A replica answers, to an operator.
    Answer {
        from: ReplicaId,
        answer: crate::wire::Answer,
    },
}

impl Inbound {
    /// How many events it is.
    pub(crate) fn count(&self) -> usize {
        match self {
            Inbound::Messages(batch) => batch.messages.len(),
            Inbound::Connected { .. }
            | Inbound::Disconnected { .. }
            | Inbound::Lsn { .. }
            | Inbound::Query { .. }
            | Inbound::Answer { .. } => 1,
        }
    }
}

/// Why a connection is closed, as the other side sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Close {
    /// The process stops.
    Shutdown,
    /// A newer connection of the same peer took its place.
    Replaced,
    /// The peer does not read what is sent to it.
    Overflow,
    /// The peer said what it may not say, or no frame at all.
    Forbidden,
    /// The peer was not let in, and knows why.
    Refused,
    /// The replica is not wanted any more: it has another address, or was removed.
    Unwanted,
}

impl Close {
    fn text(self) -> &'static str {
        match self {
            Close::Shutdown => "shutdown",
            Close::Replaced => "replaced by a newer connection",
            Close::Overflow => "the peer does not read fast enough",
            Close::Forbidden => "the peer said what its identity may not say",
            Close::Refused => "refused",
            Close::Unwanted => "not wanted any more",
        }
    }

    pub(super) fn close(self, connection: &quinn::Connection) {
        connection.close(quinn::VarInt::from_u32(self as u32), self.text().as_bytes());
    }
}

/// Whether a replica takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Serving {
    /// Everyone may come.
    Yes,
    /// Other replicas may come and compare how far the stores are; nobody else.
    No(String),
}

/// What greetings are made of; and who is connected.
pub(crate) struct Links {
    pub(super) me: Peer,
    pub(super) credentials: Credentials,
    pub(super) sockets: Sockets,
    pub(super) resolver: Resolver,
    pub(super) inbox: mpsc::Sender<Inbound>,
    /// How many messages may wait.
    pub(super) inbox_messages: Arc<Semaphore>,
    /// How many bytes of long messages may wait, or be worked on.
    inbox_bytes: Arc<Semaphore>,
    pub(super) shares: Shares,
    pub(crate) refusals: Refusals,
    /// What a client that lies can cause any number of times, so that it does not fill the log.
    pub(crate) alarms: Refusals,
    links: Mutex<HashMap<Peer, Link>>,
    /// Connections that other replicas have dialed. They are answered this way as long as this one
    /// does not dial them: so one that was removed still learns that it was.
    guests: Mutex<HashMap<ReplicaId, Link>>,
    numbers: AtomicU64,
    pub(super) traffic: Arc<Traffic>,
    /// The generations that this process goes by: a client's are what it was told, a replica's what
    /// it has saved.
    pub(super) told: watch::Sender<Generations>,
    /// Replicas that are dialed although none of the generations names them yet.
    pub(super) also: watch::Sender<Vec<Member>>,
    pub(super) serving: watch::Sender<Serving>,
    pub(super) reached: Reached,
    lsns: Mutex<Lsns>,
    /// Another replica told how far the stores are.
    pub(crate) heard: Notify,
    /// Why the last attempt to reach a replica failed.
    pub(crate) problems: Problems,
}

/// How far the stores of replicas are.
#[derive(Debug, Default)]
pub(crate) struct Lsns {
    /// Tells this run of the replica from its earlier ones.
    pub(crate) run: u64,
    /// This replica's own, durably.
    pub(crate) own: u64,
    /// What the others told.
    pub(crate) peers: BTreeMap<ReplicaId, u64>,
    /// How far this replica's own was at the start. Known before anybody is greeted.
    pub(crate) start: u64,
    /// Who was heard since the start.
    pub(crate) heard: BTreeSet<ReplicaId>,
    /// Which run of each other replica was heard, and found to be where its earlier ones were.
    pub(crate) runs: BTreeMap<ReplicaId, u64>,
    /// Somebody remembers this replica's store to have been further than it is: it has lost what it
    /// promised, and must not go on.
    pub(crate) lost: Option<(ReplicaId, u64)>,
}

struct Link {
    number: u64,
    outbox: Arc<Outbox>,
    connection: quinn::Connection,
}

impl Links {
    pub(super) fn new(
        me: Peer,
        credentials: Credentials,
        (sockets, resolver): (Sockets, Resolver),
        inbox: mpsc::Sender<Inbound>,
        (serving, lsns): (Serving, Lsns),
    ) -> Arc<Self> {
        Arc::new(Links {
            me,
            credentials,
            sockets,
            resolver,
            inbox_messages: Arc::new(Semaphore::new(inbox.max_capacity())),
            inbox,
            inbox_bytes: Arc::new(Semaphore::new(INBOX_BYTES_MAX)),
            shares: Shares::default(),
            refusals: Refusals::default(),
            alarms: Refusals::default(),
            links: Mutex::default(),
            guests: Mutex::default(),
            numbers: AtomicU64::new(1),
            traffic: Arc::default(),
            told: watch::Sender::new(Generations::default()),
            also: watch::Sender::default(),
            serving: watch::Sender::new(serving),
            reached: Reached::default(),
            lsns: Mutex::new(lsns),
            heard: Notify::new(),
            problems: Problems::default(),
        })
    }

    /// Queues a message for `peer`. Without a connection it is lost; the core sends again what
    /// matters when one is up.
    pub(crate) fn send(&self, peer: &Peer, message: &Message) {
        self.send_any(peer, Outgoing::Message(message));
    }

    /// Queues many, in order.
    pub(crate) fn send_all(&self, messages: &[(Peer, Message)]) {
        let links = lock(&self.links);
        for (peer, message) in messages {
            match links.get(peer) {
                Some(link) => self.push(link, peer, Outgoing::Message(message)),
                // Its answer shows that the address at which the replica was dialed is right.
                None if matches!(message, Message::Probe { .. }) => {}
                None => self.answer(peer, Outgoing::Message(message)),
            }
        }
    }

    /// Queues any frame.
    pub(crate) fn send_frame(&self, peer: &Peer, frame: &Frame) {
        self.send_any(peer, Outgoing::Frame(frame));
    }

    fn send_any(&self, peer: &Peer, what: Outgoing<'_>) {
        match lock(&self.links).get(peer) {
            Some(link) => self.push(link, peer, what),
            None => self.answer(peer, what),
        }
    }

    fn push(&self, link: &Link, peer: &Peer, what: Outgoing<'_>) {
        if link.outbox.push(what).is_ok() {
            self.traffic.count(what);
            return;
        }
        if let Some(unlogged) = self.refusals.note("overflow") {
            tracing::warn!(%peer, unlogged, "gave the connection up: the peer reads too slowly");
        }
        Close::Overflow.close(&link.connection);
    }

    /// Queues a frame for a replica that has dialed this one.
    fn answer(&self, peer: &Peer, what: Outgoing<'_>) {
        if let Peer::Replica(replica) = peer
            && let Some(link) = lock(&self.guests).get(replica)
        {
            self.push(link, peer, what);
        }
    }

    /// Queues a frame for every replica that this process has dialed.
    pub(crate) fn send_to_replicas(&self, frame: &Frame) {
        for (peer, link) in lock(&self.links).iter() {
            if matches!(peer, Peer::Replica(_)) {
                self.push(link, peer, Outgoing::Frame(frame));
            }
        }
    }

    /// What was written to all connections so far.
    pub(crate) fn sent(&self) -> Sent {
        self.traffic.sent()
    }

    /// The peers that something can be sent to.
    pub(crate) fn connected(&self) -> Vec<Peer> {
        let mut peers: Vec<Peer> = lock(&self.links).keys().cloned().collect();
        peers.sort_unstable();
        peers
    }

    /// A connection to `peer` is up: what is sent to it goes this way from now on.
    pub(super) fn add(
        &self,
        peer: &Peer,
        connection: &quinn::Connection,
        share: Arc<Share>,
    ) -> (u64, Arc<Outbox>) {
        let link = self.link(connection, share);
        let added = (link.number, link.outbox.clone());
        metrics::gauge!("paxos_commit_connections").increment(1.0);
        let old = lock(&self.links).insert(peer.clone(), link);
        if let Some(old) = old {
            old.replace();
        }
        added
    }

    /// Another replica has dialed this one.
    pub(super) fn add_guest(
        &self,
        replica: ReplicaId,
        connection: &quinn::Connection,
        share: Arc<Share>,
    ) -> (u64, Arc<Outbox>) {
        let link = self.link(connection, share);
        let added = (link.number, link.outbox.clone());
        let old = lock(&self.guests).insert(replica, link);
        if let Some(old) = old {
            old.replace();
        }
        added
    }

    /// Waits until there is room for a long message of so many bytes.
    pub(super) async fn room_for(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let permits = u32::try_from(bytes.min(INBOX_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.inbox_bytes.clone().acquire_many_owned(permits);
        room.await.ok()
    }

    fn link(&self, connection: &quinn::Connection, share: Arc<Share>) -> Link {
        Link {
            number: self.numbers.fetch_add(1, Ordering::Relaxed),
            outbox: Arc::new(Outbox::new(share)),
            connection: connection.clone(),
        }
    }

    /// The connection is gone.
    pub(super) fn remove(&self, peer: &Peer, number: u64) {
        metrics::gauge!("paxos_commit_connections").decrement(1.0);
        let mut links = lock(&self.links);
        if links.get(peer).is_some_and(|link| link.number == number)
            && let Some(link) = links.remove(peer)
        {
            link.outbox.close();
        }
    }

    /// The connection that another replica had dialed is gone.
    pub(super) fn remove_guest(&self, replica: ReplicaId, number: u64) {
        let mut guests = lock(&self.guests);
        if guests
            .get(&replica)
            .is_some_and(|link| link.number == number)
            && let Some(link) = guests.remove(&replica)
        {
            link.outbox.close();
        }
    }

    /// How many peers there are.
    pub(super) fn len(&self) -> usize {
        lock(&self.links).len()
    }

    /// The generations are these, if they are newer.
    pub(crate) fn learn(&self, generations: &Generations) {
        self.told.send_if_modified(|told| {
            let newer = told.is_older_than(generations) || told.in_force().is_none();
            if newer && told != generations {
                *told = generations.clone();
                return true;
            }
            false
        });
    }

    /// Dials these replicas too, instead of those named before.
    pub(crate) fn dial_also(&self, members: Vec<Member>) {
        self.also.send_replace(members);
    }

    /// What to tell `replica` about stores; only replicas tell.
    pub(super) fn lsn_for(&self, replica: ReplicaId) -> Option<Lsn> {
        let Peer::Replica(_) = self.me else {
            return None;
        };
        let lsns = lock(&self.lsns);
        // One that was not heard since the start learns no more than there was at the start: what it
        // says when it is heard was then told by an earlier run, and proves what that run had. (The
        // counter-example: 1 comes to further saves while 3 is down; 1 greets 3, and 3 repeats what
        // it was just told; 1 takes that for the memory of an earlier run.)
        let own = match lsns.heard.contains(&replica) {
            true => lsns.own,
            false => lsns.start,
        };
        Some(Lsn {
            run: lsns.run,
            own,
            remembered: lsns.peers.get(&replica).copied().unwrap_or(0),
        })
    }

    /// What `replica` tells about stores. Err: what is remembered here of it, if it is behind that.
    pub(super) fn hear_lsn(&self, replica: ReplicaId, lsn: Lsn) -> Result<(), u64> {
        let mut lsns = lock(&self.lsns);
        // What it remembers when it is heard for the first time was told by an earlier run.
        let bound = match lsns.heard.contains(&replica) {
            true => lsns.own,
            false => lsns.start,
        };
        if lsn.remembered > bound {
            lsns.lost = Some((replica, lsn.remembered));
        }
        let is_known = lsns.runs.get(&replica) == Some(&lsn.run);
        let remembered = lsns.peers.entry(replica).or_default();
        // Of one run, what it said first counts. (The counter-example: both dial each other. 2 says
        // in one greeting how far it was at its start; meanwhile, over the other connection, it is
        // heard and tells how far it has come; then the first greeting arrives.)
        if lsn.own < *remembered && !is_known {
            let remembered = *remembered;
            drop(lsns);
            self.heard.notify_waiters();
            return Err(remembered);
        }
        *remembered = lsn.own.max(*remembered);
        lsns.runs.insert(replica, lsn.run);
        lsns.heard.insert(replica);
        drop(lsns);
        self.heard.notify_waiters();
        Ok(())
    }

    /// Another replica refuses this one: its store is behind what that one remembers.
    pub(super) fn hear_of_loss(&self, by: ReplicaId, remembered: u64) {
        lock(&self.lsns).lost = Some((by, remembered));
        self.heard.notify_waiters();
    }

    /// How far the stores are.
    pub(crate) fn lsns(&self) -> MutexGuard<'_, Lsns> {
        lock(&self.lsns)
    }

    /// Takes nothing more for the connections that there are, and waits until what is queued has
    /// arrived, or `grace` has passed.
    pub(super) async fn flush(&self, grace: std::time::Duration) {
        let mut closed = Vec::new();
        for link in lock(&self.links)
            .values()
            .chain(lock(&self.guests).values())
        {
            link.outbox.close();
            closed.push(Arc::downgrade(&link.outbox));
        }
        // Its writer holds it until it has ended.
        let is_flushed = || closed.iter().all(|outbox| outbox.strong_count() <= 1);
        let flushed = async {
            while !is_flushed() {
                tokio::time::sleep(std::time::Duration::from_millis(1)).await;
            }
        };
        let _ = tokio::time::timeout(grace, flushed).await;
    }

    /// Ends every connection, and waits until the peers know, or `grace` has passed.
    pub(super) async fn close(&self, grace: std::time::Duration) {
        self.abandon();
        self.sockets.wait_idle(grace).await;
    }

    /// Lets everyone in who may come, or nobody but replicas.
    pub(crate) fn serve(&self, serving: Serving) {
        self.serving.send_replace(serving);
    }

    /// The address that the endpoint has.
    pub(crate) fn address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.sockets.address()
    }

    /// Watches the generations that this process goes by.
    pub(crate) fn generations(&self) -> watch::Receiver<Generations> {
        self.told.subscribe()
    }

    /// Ends every connection at once.
    pub(super) fn abandon(&self) {
        let code = quinn::VarInt::from_u32(Close::Shutdown as u32);
        self.sockets.close(code, Close::Shutdown.text());
    }
}

impl Link {
    /// Another connection takes its place.
    fn replace(&self) {
        self.outbox.close();
        Close::Replaced.close(&self.connection);
    }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics while holding the lock")
}

#[cfg(test)]
#[cfg(feature = "cluster")]
pub(super) mod tests;
