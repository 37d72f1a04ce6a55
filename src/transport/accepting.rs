//! Connections to a replica: let in, checked at every message.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::protocol::message::Message;
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Peer;
use crate::wire::{Frame, Hello, Refusal, VERSION, Welcome};

use super::dialing::{conflict, peer_identity};
use super::links::{Close, Inbound, Links, Serving};
use super::permission::may_say;
use super::stream::{Ended, FrameReader, write, write_all};

/// The most peers at a time.
const PEERS_MAX: usize = 4_096;

/// The most that are being greeted at a time.
const GREETINGS_MAX: usize = 256;

/// How long a greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(5);

/// Lets everyone in who may come; until the endpoint is closed.
pub(crate) async fn accept_all(links: Arc<Links>, me: ReplicaId) {
    let greetings = Arc::new(Semaphore::new(GREETINGS_MAX));
    while let Some(incoming) = links.endpoint.accept().await {
        let Ok(permit) = greetings.clone().try_acquire_owned() else {
            // Its dialer tries again.
            incoming.ignore();
            continue;
        };
        let links = links.clone();
        tokio::spawn(async move {
            let greeted = timeout(GREETING_MAX, greet(&links, me, incoming)).await;
            drop(permit);
            match greeted {
                Ok(Ok(guest)) => guest.stay(&links).await,
                Ok(Err(error)) => tracing::debug!(%error, "somebody was not let in"),
                Err(_) => tracing::debug!("a greeting took too long"),
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
}

async fn greet(links: &Links, me: ReplicaId, incoming: quinn::Incoming) -> Result<Guest, String> {
    let connection = incoming.await.map_err(|error| error.to_string())?;
    let streams = connection.accept_bi().await;
    let (mut send, receive) = streams.map_err(|error| error.to_string())?;
    let mut reader = FrameReader::new(receive);
    let hello = match reader.next().await {
        Ok(Frame::Hello(hello)) => Ok(hello),
        Ok(_) | Err(Ended::Wire(_)) => Err(Refusal::NoHello),
        Err(Ended::Closed(error)) => return Err(error),
    };
    let checked = hello.and_then(|hello| check(links, me, &connection, hello));
    let peer = match checked {
        Ok(peer) => peer,
        Err(refusal) => {
            let kind = kind(&refusal);
            metrics::counter!("paxos_commit_refusals_total", "kind" => kind).increment(1);
            let text = refusal.to_string();
            let written = write(&mut send, &Frame::Refused(refusal)).await;
            if written.is_ok() && send.finish().is_ok() {
                let _ = send.stopped().await;
            }
            Close::Refused.close(&connection);
            return Err(text);
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
    written.map_err(|error| error.to_string())?;
    Ok(Guest {
        peer,
        connection,
        send,
        reader,
    })
}

/// Whether the dialer may come in.
fn check(
    links: &Links,
    me: ReplicaId,
    connection: &quinn::Connection,
    hello: Hello,
) -> Result<Peer, Refusal> {
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
    let identity = peer_identity(connection);
    let allowed = |identity: &super::identity::Identity| {
        identity.cluster == own.cluster && identity.allows(&peer)
    };
    if !identity.as_ref().is_ok_and(allowed) {
        let certificate = identity.map_or_else(|error| error, |identity| identity.to_string());
        return Err(Refusal::Identity {
            certificate,
            claimed: peer.to_string(),
        });
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
    Ok(peer)
}

fn kind(refusal: &Refusal) -> &'static str {
    match refusal {
        Refusal::Version { .. } => "version",
        Refusal::Cluster { .. } => "cluster",
        Refusal::Replica { .. } => "replica",
        Refusal::Identity { .. } => "identity",
        Refusal::Configuration { .. } => "configuration",
        Refusal::Amnesia { .. } => "amnesia",
        Refusal::NotServing(_) => "not_serving",
        Refusal::NoHello => "no_hello",
        Refusal::TooMany { .. } => "too_many",
    }
}

impl Guest {
    /// From the welcome to the end of the connection.
    async fn stay(mut self, links: &Links) {
        if let Peer::Replica(replica) = self.peer {
            self.stay_as_replica(links, replica).await;
            return;
        }
        let (link, outbox) = links.add(&self.peer, &self.connection);
        let peer = self.peer.clone();
        tracing::debug!(%peer, "connected");
        let send = self.send;
        let writer = tokio::spawn(async move { write_all(&outbox, send).await });
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
        let (link, outbox) = links.add_guest(replica, &self.connection);
        let send = self.send;
        let writer = tokio::spawn(async move { write_all(&outbox, send).await });
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
    loop {
        let frame = match reader.next().await {
            Ok(frame) => frame,
            Err(Ended::Closed(error)) => {
                tracing::debug!(%peer, %error, "connection ended");
                return;
            }
            Err(Ended::Wire(error)) => {
                forbid(peer, connection, &error.to_string());
                return;
            }
        };
        let inbound = match (peer, frame) {
            (from, Frame::Message(message)) if may_say(from, &message) => Inbound::Message {
                from: from.clone(),
                message,
            },
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
                forbid(peer, connection, &kind_of(&message));
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
                forbid(peer, connection, "a frame that is none of its own");
                return;
            }
        };
        if links.inbox.send(inbound).await.is_err() {
            return;
        }
    }
}

/// The name of a message's kind, for the log.
fn kind_of(message: &Message) -> String {
    let text = format!("{message:?}");
    let end = text.find(|c: char| !c.is_alphanumeric());
    text[..end.unwrap_or(text.len())].to_owned()
}

fn forbid(peer: &Peer, connection: &quinn::Connection, what: &str) {
    tracing::warn!(%peer, what, "gave the connection up: the peer may not say that");
    metrics::counter!("paxos_commit_refusals_total", "kind" => "forbidden").increment(1);
    Close::Forbidden.close(connection);
}
