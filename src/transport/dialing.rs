//! Connections to replicas: dialed, kept up, dialed again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::time::timeout;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{Address, Generations, Member, Peer};
use crate::wire::{Frame, Hello, Refusal, VERSION, Welcome};

use super::accepting::next;
use super::batch::{Collector, Gone};
use super::credentials::identity_of;
use super::identity::Role;
use super::links::{Close, Inbound, Links};
use super::reaching::Way;
use super::stream::{FrameReader, Received, write, write_all};

/// How long a greeting may take.
const GREETING_MAX: Duration = Duration::from_secs(2);

/// The pause after a failed attempt: doubled each time, with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Keeps one connection to each replica of the generations that are known, or of `seeds` as long as
/// none is, and to those that are [dialed too](Links::dial_also); for ever.
pub(crate) async fn dial_all(links: Arc<Links>, seeds: Vec<Member>) {
    let (mut told, mut also) = (links.told.subscribe(), links.also.subscribe());
    let mut running: BTreeMap<ReplicaId, watch::Sender<Vec<Address>>> = BTreeMap::new();
    loop {
        let mut wanted = targets(&told.borrow_and_update(), &seeds, &links.me);
        for member in also.borrow_and_update().iter() {
            let address = member.address.clone();
            wanted.entry(member.id).or_insert_with(|| vec![address]);
        }
        // Dropping the sender ends the task of a replica that left.
        running.retain(|id, _| wanted.contains_key(id));
        for (id, addresses) in wanted {
            let Some(known) = running.get(&id) else {
                let (known, wanted) = watch::channel(addresses);
                tokio::spawn(keep(links.clone(), id, wanted));
                running.insert(id, known);
                continue;
            };
            known.send_if_modified(|known| {
                let is_changed = *known != addresses;
                *known = addresses;
                is_changed
            });
        }
        let changed = tokio::select! {
            changed = told.changed() => changed,
            changed = also.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
    }
}

/// Whom to dial, and where: the latest address of each counts. What this process was given is asked
/// only where the resolver does not know that address.
fn targets(told: &Generations, seeds: &[Member], me: &Peer) -> BTreeMap<ReplicaId, Vec<Address>> {
    let mut targets: BTreeMap<ReplicaId, Vec<Address>> = BTreeMap::new();
    let announced = told
        .unsettled()
        .flat_map(|(_, configuration)| configuration.members());
    for member in announced {
        targets.insert(member.id, vec![member.address]);
    }
    for Member { id, address } in seeds {
        match targets.get_mut(id) {
            Some(known) if !known.contains(address) => known.push(address.clone()),
            Some(_) => {}
            None if told.in_force().is_none() => {
                targets.insert(*id, vec![address.clone()]);
            }
            None => {}
        }
    }
    targets.retain(|id, _| *me != Peer::Replica(*id));
    targets
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum DialError {
    #[error("cannot resolve {address:?} (is this name known on this machine?): {error}")]
    Resolve { address: String, error: String },
    #[error("no connection to {address}: {error}")]
    Connect { address: String, error: String },
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("{0}")]
    Greeting(String),
}

/// Why a connection is not kept.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// It has ended.
    Ended,
    /// The replica has moved.
    Moved,
    /// The replica left.
    Left,
}

/// Keeps a connection to one replica up until it is not wanted any more.
async fn keep(links: Arc<Links>, replica: ReplicaId, mut wanted: watch::Receiver<Vec<Address>>) {
    let mut backoff = BACKOFF_MIN;
    let mut way = Way::new(links.clone(), replica);
    loop {
        let addresses = wanted.borrow_and_update().clone();
        let began = Instant::now();
        let greeted = tokio::select! {
            greeted = reach(&links, &mut way, replica, &addresses) => greeted,
            changed = wanted.changed() => match changed {
                // The attempt was on its way to where the replica has been.
                Ok(()) => continue,
                Err(_) => return,
            },
        };
        match greeted {
            Ok(greeted) => match stay(&links, &mut way, greeted, &mut wanted).await {
                End::Left => return,
                End::Moved => continue,
                End::Ended if began.elapsed() > BACKOFF_MAX => backoff = BACKOFF_MIN,
                End::Ended => {}
            },
            // Once, not at every attempt.
            Err(error) => {
                if links.problems.note(replica, &error) {
                    tracing::info!(%replica, problem = %error, "cannot reach a replica; trying on");
                }
            }
        }
        let pause = backoff.mul_f64(0.5 + fastrand::f64());
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            changed = wanted.changed() => if changed.is_err() {
                return;
            },
        }
    }
}

/// One connection, until it is greeted.
async fn reach(
    links: &Links,
    way: &mut Way,
    replica: ReplicaId,
    addresses: &[Address],
) -> Result<Greeted, DialError> {
    let connection = way.connect(addresses).await?;
    let address = connection.remote_address();
    let greeting = timeout(GREETING_MAX, greet(links, replica, connection)).await;
    greeting.unwrap_or_else(|_| {
        Err(DialError::Connect {
            address: address.to_string(),
            error: "no answer".into(),
        })
    })
}

/// One connection, from its greeting to its end.
async fn stay(
    links: &Arc<Links>,
    way: &mut Way,
    greeted: Greeted,
    wanted: &mut watch::Receiver<Vec<Address>>,
) -> End {
    let Greeted {
        replica,
        connection,
        send,
        mut reader,
        welcome,
    } = greeted;
    links.problems.solved(replica);
    if !matches!(links.me, Peer::Replica(_)) {
        links.learn(&welcome.generations);
    }
    let peer = Peer::Replica(replica);
    let (link, outbox) = links.add(&peer, &connection, Arc::default());
    tracing::debug!(%replica, address = %connection.remote_address(), "connected");
    links.reached.say(links, replica, true);
    let writer = {
        let traffic = links.traffic.clone();
        tokio::spawn(async move { write_all(&outbox, send, &traffic).await })
    };
    let connected = Inbound::Connected {
        peer: peer.clone(),
        link,
    };
    if let Some(lsn) = welcome.lsn
        && matches!(links.me, Peer::Replica(_))
    {
        // To be saved.
        let lsn = lsn.own;
        let _ = links.inbox.send(Inbound::Lsn { replica, lsn }).await;
    }
    let mut end = End::Ended;
    if links.inbox.send(connected).await.is_ok() {
        tokio::select! {
            () = read(links, replica, &mut reader, &connection) => {}
            unwanted = unwanted(way, &connection, wanted) => {
                end = unwanted;
                Close::Unwanted.close(&connection);
            }
        }
    }
    let reason = connection.close_reason();
    let is_own = reason == Some(quinn::ConnectionError::LocallyClosed);
    let reason = reason.map(|reason| reason.to_string());
    tracing::debug!(%replica, reason, "connection ended");
    links.remove(&peer, link);
    if !is_own {
        links.reached.say(links, replica, false);
    }
    writer.abort();
    let _ = links.inbox.send(Inbound::Disconnected { peer, link }).await;
    end
}

/// Waits until the replica leaves, or moves away from the other end of this connection. A replica is
/// known by its certificate: another spelling of the same address is no move.
async fn unwanted(
    way: &mut Way,
    connection: &quinn::Connection,
    wanted: &mut watch::Receiver<Vec<Address>>,
) -> End {
    loop {
        if wanted.changed().await.is_err() {
            return End::Left;
        }
        let addresses = wanted.borrow_and_update().clone();
        if way
            .leads_elsewhere(&addresses, connection.remote_address())
            .await
        {
            return End::Moved;
        }
    }
}

/// A connection on which both sides have said who they are.
struct Greeted {
    replica: ReplicaId,
    connection: quinn::Connection,
    send: quinn::SendStream,
    reader: FrameReader,
    welcome: Welcome,
}

/// Says hello.
async fn greet(
    links: &Links,
    replica: ReplicaId,
    connection: quinn::Connection,
) -> Result<Greeted, DialError> {
    let cluster = &links.credentials.identity().cluster;
    check_identity(links, replica, &connection)?;
    let greeting = |error: String| DialError::Greeting(error);
    let streams = connection.open_bi().await;
    let (mut send, receive) = streams.map_err(|error| greeting(error.to_string()))?;
    let hello = Hello {
        version: VERSION,
        cluster: cluster.to_string(),
        peer: links.me.clone(),
        to: replica,
        generation: latest(&links.told.borrow()),
        lsn: links.lsn_for(replica),
    };
    let written = write(&mut send, &Frame::Hello(hello)).await;
    written.map_err(|error| greeting(error.to_string()))?;
    let mut reader = FrameReader::new(receive);
    reader.share(Arc::default());
    let welcome = match reader.next().await {
        Ok(Frame::Welcome(welcome)) => welcome,
        Ok(Frame::Refused(refusal)) => {
            if let Refusal::Amnesia { remembered, .. } = &refusal {
                links.hear_of_loss(replica, *remembered);
            }
            return Err(DialError::Refused(refusal));
        }
        Ok(_) => return Err(greeting("expected a Welcome as the first frame".into())),
        Err(error) => {
            // A certificate that was refused shows here and no sooner.
            let reason = connection.close_reason();
            let reason = reason.map_or(error.to_string(), |reason| reason.to_string());
            return Err(greeting(reason));
        }
    };
    check_welcome(links, replica, &welcome)?;
    Ok(Greeted {
        replica,
        connection,
        send,
        reader,
        welcome,
    })
}

/// TLS has verified the name; the identity must say the same.
fn check_identity(
    links: &Links,
    replica: ReplicaId,
    connection: &quinn::Connection,
) -> Result<(), DialError> {
    let identity = peer_identity(connection).map_err(DialError::Greeting)?;
    let own = links.credentials.identity();
    if identity.cluster != own.cluster || identity.role != Role::Replica(replica) {
        let text = format!(
            "expected replica {replica} of {}, got {identity}",
            own.cluster
        );
        return Err(DialError::Greeting(text));
    }
    Ok(())
}

/// Who the other side is, as TLS has verified.
pub(super) fn peer_identity(
    connection: &quinn::Connection,
) -> Result<super::identity::Identity, String> {
    let chain = connection.peer_identity();
    let chain = chain.and_then(|chain| {
        chain
            .downcast::<Vec<rustls::pki_types::CertificateDer<'static>>>()
            .ok()
    });
    let chain = chain.ok_or("the peer has shown no certificate")?;
    identity_of(&chain).map_err(|error| error.to_string())
}

fn check_welcome(links: &Links, replica: ReplicaId, welcome: &Welcome) -> Result<(), DialError> {
    if welcome.version != VERSION {
        return Err(DialError::Refused(Refusal::Version {
            expected: welcome.version,
            got: VERSION,
        }));
    }
    if let Some(generation) = conflict(&links.told.borrow(), latest(&welcome.generations)) {
        return Err(DialError::Refused(Refusal::Configuration { generation }));
    }
    if let Some(lsn) = welcome.lsn
        && matches!(links.me, Peer::Replica(_))
        && let Err(remembered) = links.hear_lsn(replica, lsn)
    {
        return Err(DialError::Refused(Refusal::Amnesia {
            replica,
            remembered,
            got: lsn.own,
        }));
    }
    Ok(())
}

/// The latest generation, and its configuration.
pub(super) fn latest(
    generations: &Generations,
) -> Option<(u32, crate::protocol::types::ConfigurationDigest)> {
    let configuration = generations.in_force()?;
    Some((generations.latest(), configuration.digest()))
}

/// The generation by which the two do not mean the same.
pub(super) fn conflict(
    told: &Generations,
    other: Option<(u32, crate::protocol::types::ConfigurationDigest)>,
) -> Option<u32> {
    let (generation, digest) = other?;
    let (_, mine) = told.unsettled().find(|(of, _)| *of == generation)?;
    (mine.digest() != digest).then_some(generation)
}

/// Reads what a replica sends, until the connection ends.
async fn read(
    links: &Links,
    replica: ReplicaId,
    reader: &mut FrameReader,
    connection: &quinn::Connection,
) {
    let mut collector = Collector::new(links, Peer::Replica(replica));
    loop {
        let taken = match next(reader, &mut collector).await {
            Ok(Some(Received {
                frame: Frame::Message(message),
                ..
            })) => collector.take_any(message).await,
            Ok(Some(Received {
                frame: Frame::Answer(answer),
                ..
            })) => {
                let from = replica;
                collector.pass(Inbound::Answer { from, answer }).await
            }
            Ok(Some(Received {
                frame:
                    Frame::Hello(_)
                    | Frame::Welcome(_)
                    | Frame::Refused(_)
                    | Frame::Lsn(_)
                    | Frame::Query(_),
                ..
            })) => {
                let _ = collector.hand_over().await;
                Close::Forbidden.close(connection);
                return;
            }
            Ok(None) => return,
            Err(error) => {
                tracing::debug!(%replica, %error, "connection ended");
                // One that has ended keeps its own reason, by which it is known whose end it was.
                if connection.close_reason().is_none() {
                    Close::Forbidden.close(connection);
                }
                return;
            }
        };
        if let Err(Gone) = taken {
            return;
        }
    }
}
