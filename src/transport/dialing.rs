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
use super::credentials::{identity_of, server_name};
use super::endpoint;
use super::identity::Role;
use super::links::{Close, Inbound, Links, lock};
use super::stream::{FrameReader, Received, write, write_all};

/// How long one attempt may take before the next one.
const ATTEMPT_MAX: Duration = Duration::from_secs(2);

/// The pause after a failed attempt: doubled each time, with jitter.
const BACKOFF_MIN: Duration = Duration::from_millis(10);
const BACKOFF_MAX: Duration = Duration::from_secs(1);

/// Keeps one connection to each replica of the generations that are known, or of `seeds` as long as
/// none is; for ever.
pub(crate) async fn dial_all(links: Arc<Links>, seeds: Vec<Member>) {
    let mut told = links.told.subscribe();
    let mut running: BTreeMap<ReplicaId, (Address, watch::Sender<()>)> = BTreeMap::new();
    loop {
        let wanted = targets(&told.borrow_and_update(), &seeds, &links.me);
        // Dropping the sender ends the task of a replica that left or has moved.
        running.retain(|id, (address, _)| wanted.get(id) == Some(address));
        for (id, address) in wanted {
            running.entry(id).or_insert_with(|| {
                let (stop, stopped) = watch::channel(());
                tokio::spawn(keep(links.clone(), id, address.clone(), stopped));
                (address, stop)
            });
        }
        if told.changed().await.is_err() {
            return;
        }
    }
}

/// Whom to dial, and where: the latest address of each counts.
fn targets(told: &Generations, seeds: &[Member], me: &Peer) -> BTreeMap<ReplicaId, Address> {
    let members: Vec<Member> = match told.in_force() {
        Some(_) => told
            .unsettled()
            .flat_map(|(_, configuration)| configuration.members())
            .collect(),
        None => seeds.to_vec(),
    };
    let others = members
        .into_iter()
        .filter(|member| *me != Peer::Replica(member.id));
    others.map(|member| (member.id, member.address)).collect()
}

/// Why an attempt failed.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot resolve {address:?}: {error}")]
    Resolve { address: String, error: String },
    #[error("no connection to {address}: {error}")]
    Connect { address: String, error: String },
    #[error("refused: {0}")]
    Refused(Refusal),
    #[error("{0}")]
    Greeting(String),
}

/// Keeps a connection to one replica up until it is not wanted any more.
async fn keep(
    links: Arc<Links>,
    replica: ReplicaId,
    address: Address,
    mut stopped: watch::Receiver<()>,
) {
    let mut backoff = BACKOFF_MIN;
    loop {
        let began = Instant::now();
        let attempt = connect_once(&links, replica, &address, &mut stopped);
        match attempt.await {
            Ok(()) => {
                tracing::debug!(%replica, "connection ended");
                if began.elapsed() > BACKOFF_MAX {
                    backoff = BACKOFF_MIN;
                }
            }
            Err(error) => {
                let problem = error.to_string();
                let before = lock(&links.problems).insert(replica, problem.clone());
                // Once, not at every attempt.
                if before.as_ref() != Some(&problem) {
                    tracing::info!(%replica, %problem, "cannot reach a replica; trying on");
                }
            }
        }
        let pause = backoff.mul_f64(0.5 + fastrand::f64());
        backoff = (backoff * 2).min(BACKOFF_MAX);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.changed() => return,
        }
    }
}

/// One connection, from its beginning to its end.
async fn connect_once(
    links: &Arc<Links>,
    replica: ReplicaId,
    address: &Address,
    stopped: &mut watch::Receiver<()>,
) -> Result<(), DialError> {
    let attempt = timeout(ATTEMPT_MAX, greet(links, replica, address));
    let greeted = tokio::select! {
        greeted = attempt => greeted,
        _ = stopped.changed() => return Ok(()),
    };
    let (connection, send, mut reader, welcome) = greeted.map_err(|_| DialError::Connect {
        address: address.to_string(),
        error: "no answer".into(),
    })??;
    lock(&links.problems).remove(&replica);
    if !matches!(links.me, Peer::Replica(_)) {
        links.learn(&welcome.generations);
    }
    let peer = Peer::Replica(replica);
    let (link, outbox) = links.add(&peer, &connection, Arc::default());
    tracing::debug!(%replica, %address, "connected");
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
    if links.inbox.send(connected).await.is_ok() {
        tokio::select! {
            () = read(links, replica, &mut reader, &connection) => {}
            _ = stopped.changed() => Close::Unwanted.close(&connection),
        }
    }
    links.remove(&peer, link);
    writer.abort();
    let _ = links.inbox.send(Inbound::Disconnected { peer, link }).await;
    Ok(())
}

type Greeted = (quinn::Connection, quinn::SendStream, FrameReader, Welcome);

/// Connects and says hello.
async fn greet(links: &Links, replica: ReplicaId, address: &Address) -> Result<Greeted, DialError> {
    let failed = |error: String| DialError::Connect {
        address: address.to_string(),
        error,
    };
    let unresolved = |error: String| DialError::Resolve {
        address: address.to_string(),
        error,
    };
    let resolved = tokio::net::lookup_host(address.as_str()).await;
    let mut resolved = resolved.map_err(|error| unresolved(error.to_string()))?;
    let target = resolved
        .next()
        .ok_or_else(|| unresolved("no address".into()))?;
    let config = endpoint::dialer(&links.credentials).map_err(|error| failed(error.to_string()))?;
    let cluster = &links.credentials.identity().cluster;
    let name = server_name(cluster, replica);
    let connecting = links.endpoint.connect_with(config, target, &name);
    let connecting = connecting.map_err(|error| failed(error.to_string()))?;
    let connection = connecting
        .await
        .map_err(|error| failed(error.to_string()))?;
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
    Ok((connection, send, reader, welcome))
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
                Close::Forbidden.close(connection);
                return;
            }
        };
        if let Err(Gone) = taken {
            return;
        }
    }
}
