//! Connections to a replica: let in, checked at every message.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Peer;
use crate::wire::{Frame, Hello, Refusal, VERSION, Welcome};

use super::batch::{Collector, Gone};
use super::dialing::{conflict, peer_identity};
use super::endpoint::{WINDOW, reason};
use super::links::{Close, Inbound, Links, Serving};
use super::permission::may_say;
use super::shares::{PEERS_OF_A_NAME_MAX, Seat};
use super::stream::{Ended, FrameReader, Received, write, write_all};

/// The most peers at a time.
const PEERS_MAX: usize = 4_096;

/// The most that are being greeted at a time.
const GREETINGS_MAX: usize = 256;

/// How long a greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// Lets everyone in who may come; until the endpoint is closed.
pub(crate) async fn accept_all(links: Arc<Links>, me: ReplicaId) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    while let Some(incoming) = links.sockets.accept().await {
        // Anybody can write any address into a datagram. When there is a crowd, whoever comes has to
        // show first that it can be reached where it says it is; that takes no memory here.
        let is_crowded = greetings.available_permits() < GREETINGS_MAX / 2;
        if is_crowded && !incoming.remote_address_validated() && incoming.may_retry() {
            let _ = incoming.retry();
            continue;
        }
        let Ok(permit) = greetings.clone().try_acquire_owned() else {
            // Its dialer tries again.
            links.refusals.note("crowded");
            incoming.ignore();
            continue;
        };
        let links = links.clone();
        let address = incoming.remote_address();
        tokio::spawn(async move {
            let greeted = timeout(GREETING_MAX, greet(&links, me, incoming)).await;
            drop(permit);
            match greeted {
                Ok(Ok(guest)) => guest.stay(&links).await,
                Ok(Err(Stranger::Told)) => {}
                Ok(Err(Stranger::Lost(kind, error))) => turn_away(&links, address, kind, &error),
                Err(_) => turn_away(&links, address, "silent", "the greeting took too long"),
            }
        });
    }
}

/// A peer that was let in.
struct Guest {
    peer: Peer,
    connection: quinn::Connection,
    send: quinn::SendStream,
    reader: FrameReader,
    seat: Seat,
}

/// Somebody who was not let in.
enum Stranger {
    /// It was refused, counted, and told why.
    Told,
    /// It cannot be told anything: the kind of that, and a text.
    Lost(&'static str, String),
}

/// The kind of refusal by a replica that does not serve yet, or no longer.
const NOT_SERVING: &str = "not_serving";

fn turn_away(links: &Links, address: SocketAddr, kind: &'static str, error: &str) {
    let Some(unlogged) = links.refusals.note(kind) else {
        return;
    };
    // A peer that connects while a replica starts tries again; the replica logs that it waits.
    if kind == NOT_SERVING {
        tracing::debug!(%address, kind, error, unlogged, "somebody was not let in");
    } else {
        tracing::info!(%address, kind, error, unlogged, "somebody was not let in");
    }
}

async fn greet(links: &Links, me: ReplicaId, incoming: quinn::Incoming) -> Result<Guest, Stranger> {
    let address = incoming.remote_address();
    // Whoever has no certificate, or a wrong one, comes to its end here or before it says a word.
    let handshake = |error: quinn::ConnectionError| Stranger::Lost("handshake", reason(&error));
    let connection = incoming.await.map_err(handshake)?;
    let streams = connection.accept_bi().await;
    let (mut send, receive) = streams.map_err(handshake)?;
    let mut reader = FrameReader::new(receive);
    let hello = match reader.next().await {
        Ok(Frame::Hello(hello)) => Ok(hello),
        Ok(_) | Err(Ended::Wire(_)) => Err(Refusal::NoHello),
        Err(Ended::Closed(error)) => return Err(Stranger::Lost("silent", error)),
    };
    let checked = hello.and_then(|hello| check(links, me, &connection, hello));
    let (peer, seat) = match checked {
        Ok(checked) => checked,
        Err(refusal) => {
            // First, so that who was refused was counted.
            turn_away(links, address, kind(&refusal), &refusal.to_string());
            let written = write(&mut send, &Frame::Refused(refusal)).await;
            if written.is_ok() && send.finish().is_ok() {
                let _ = send.stopped().await;
            }
            Close::Refused.close(&connection);
            return Err(Stranger::Told);
        }
    };
    let lsn = match &peer {
        Peer::Replica(replica) => links.lsn_for(*replica),
        Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_) => None,
    };
    let welcome = Welcome {
        version: VERSION,
        generations: links.told.borrow().clone(),
        lsn,
    };
    let written = write(&mut send, &Frame::Welcome(welcome)).await;
    written.map_err(|error| Stranger::Lost("silent", error.to_string()))?;
    reader.share(seat.share.clone());
    if let Peer::Replica(_) = peer {
        connection.set_receive_window(quinn::VarInt::from_u32(WINDOW));
    }
    Ok(Guest {
        peer,
        connection,
        send,
        reader,
        seat,
    })
}

/// Whether the dialer may come in.
fn check(
    links: &Links,
    me: ReplicaId,
    connection: &quinn::Connection,
    hello: Hello,
) -> Result<(Peer, Seat), Refusal> {
    let Hello {
        version,
        cluster,
        peer,
        to,
        generation,
        lsn,
    } = hello;
    let own = links.credentials.identity();
    if version != VERSION {
        return Err(Refusal::Version {
            expected: VERSION,
            got: version,
        });
    }
    let not_allowed = |certificate| Refusal::Identity {
        certificate,
        claimed: peer.to_string(),
    };
    let identity = peer_identity(connection).map_err(not_allowed)?;
    if identity.cluster != own.cluster || !identity.allows(&peer) {
        return Err(not_allowed(identity.to_string()));
    }
    if cluster != own.cluster.as_str() {
        return Err(Refusal::Cluster {
            expected: own.cluster.to_string(),
            got: cluster,
        });
    }
    if to != me {
        return Err(Refusal::Replica {
            expected: me,
            got: to,
        });
    }
    if let Some(generation) = conflict(&links.told.borrow(), generation) {
        return Err(Refusal::Configuration { generation });
    }
    if let Peer::Replica(replica) = peer {
        let lsn = lsn.unwrap_or_default();
        if let Err(remembered) = links.hear_lsn(replica, lsn) {
            return Err(Refusal::Amnesia {
                replica,
                remembered,
                got: lsn.own,
            });
        }
    } else if let Serving::No(reason) = &*links.serving.borrow() {
        return Err(Refusal::NotServing(reason.clone()));
    }
    // Replicas are few, and must not stay out because of clients.
    if links.len() >= PEERS_MAX && !matches!(peer, Peer::Replica(_)) {
        return Err(Refusal::TooMany { max: PEERS_MAX });
    }
    match links.shares.seat(&identity.role) {
        Some(seat) => Ok((peer, seat)),
        None => Err(Refusal::TooManyOfAName {
            max: PEERS_OF_A_NAME_MAX,
        }),
    }
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Version { .. } => "version",
        Refusal::Cluster { .. } => "cluster",
        Refusal::Replica { .. } => "replica",
        Refusal::Identity { .. } => "identity",
        Refusal::Configuration { .. } => "configuration",
        Refusal::Amnesia { .. } => "amnesia",
        Refusal::NotServing(_) => NOT_SERVING,
        Refusal::NoHello => "no_hello",
        Refusal::TooMany { .. } => "too_many",
        Refusal::TooManyOfAName { .. } => "too_many_of_a_name",
    }
}

impl Guest {
    /// From the welcome to the end of the connection.
    async fn stay(mut self, links: &Links) {
        if let Peer::Replica(replica) = self.peer {
            self.stay_as_replica(links, replica).await;
            return;
        }
        let (link, outbox) = links.add(&self.peer, &self.connection, self.seat.share.clone());
        let peer = self.peer.clone();
        tracing::debug!(%peer, "connected");
        let (send, traffic) = (self.send, links.traffic.clone());
        let writer = tokio::spawn(async move { write_all(&outbox, send, &traffic).await });
        let connected = Inbound::Connected {
            peer: peer.clone(),
            link,
        };
        if links.inbox.send(connected).await.is_ok() {
            read(links, &peer, &self.connection, &mut self.reader).await;
        }
        links.remove(&peer, link);
        writer.abort();
        let _ = links.inbox.send(Inbound::Disconnected { peer, link }).await;
    }

    /// What goes to another replica goes over the connection that was dialed to it; over this one
    /// as long as there is none.
    async fn stay_as_replica(mut self, links: &Links, replica: ReplicaId) {
        let (link, outbox) = links.add_guest(replica, &self.connection, self.seat.share.clone());
        let told = links.lsns().peers.get(&replica).copied();
        if let Some(lsn) = told {
            // To be saved.
            let _ = links.inbox.send(Inbound::Lsn { replica, lsn }).await;
        }
        let (send, traffic) = (self.send, links.traffic.clone());
        let writer = tokio::spawn(async move { write_all(&outbox, send, &traffic).await });
        read(links, &self.peer, &self.connection, &mut self.reader).await;
        links.remove_guest(replica, link);
        writer.abort();
    }
}

/// Reads what a peer says, until the connection ends, or it says what it may not.
async fn read(
    links: &Links,
    peer: &Peer,
    connection: &quinn::Connection,
    reader: &mut FrameReader,
) {
    let mut collector = Collector::new(links, peer.clone());
    loop {
        let Received { frame, bytes, room } = match next(reader, &mut collector).await {
            Ok(Some(received)) => received,
            Ok(None) => return,
            Err(Ended::Closed(error)) => {
                tracing::debug!(%peer, %error, "connection ended");
                return;
            }
            Err(Ended::Wire(error)) => {
                forbid(links, peer, connection, &error.to_string());
                return;
            }
        };
        let inbound = match (peer, frame) {
            (from, Frame::Message(message)) if may_say(from, &message) => {
                let taken = collector.take(message, bytes).await;
                // Its name's room is given back when it has that of the inbox.
                drop(room);
                match taken {
                    Ok(()) => continue,
                    Err(Gone) => return,
                }
            }
            (Peer::Replica(replica), Frame::Lsn(lsn)) => {
                let lsns = &mut links.lsns().peers;
                let remembered = lsns.entry(*replica).or_default();
                *remembered = lsn.max(*remembered);
                Inbound::Lsn {
                    replica: *replica,
                    lsn,
                }
            }
            (Peer::Operator(_), Frame::Query(query)) => Inbound::Query {
                from: peer.clone(),
                query,
            },
            (_, Frame::Message(message)) => {
                let _ = collector.hand_over().await;
                forbid(links, peer, connection, &kind_of(&message));
                return;
            }
            (
                _,
                Frame::Hello(_)
                | Frame::Welcome(_)
                | Frame::Refused(_)
                | Frame::Lsn(_)
                | Frame::Query(_)
                | Frame::Answer(_),
            ) => {
                let _ = collector.hand_over().await;
                forbid(links, peer, connection, "a frame that is none of its own");
                return;
            }
        };
        drop(room);
        if let Err(Gone) = collector.pass(inbound).await {
            return;
        }
    }
}

/// The next frame. What was collected is handed over before anything is waited for, and before an
/// end is told. None when the driver is gone.
pub(super) async fn next(
    reader: &mut FrameReader,
    collector: &mut Collector<'_>,
) -> Result<Option<Received>, Ended> {
    let received = reader.received();
    if let Ok(Some(received)) = received {
        return Ok(Some(received));
    }
    if let Err(Gone) = collector.hand_over().await {
        return Ok(None);
    }
    match received {
        Ok(_) => reader.receive().await.map(Some),
        Err(error) => Err(error),
    }
}

/// The name of a message's kind, for the log.
fn kind_of(message: &Message) -> String {
    let text = format!("{message:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn forbid(links: &Links, peer: &Peer, connection: &quinn::Connection, what: &str) {
    if let Some(unlogged) = links.refusals.note("forbidden") {
        tracing::warn!(
            %peer,
            what,
            unlogged,
            "gave the connection up: the peer may not say that"
        );
    }
    Close::Forbidden.close(connection);
}
