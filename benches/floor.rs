//! What a commit takes on an idle cluster, against the floor: the least that any such protocol takes
//! on the same machine, network stack and disk, measured in the same run.
//!
//! The floor is a skeleton without any protocol, with the same fan-out: the initiator tells one
//! replica; that tells two participants; each forces one record to disk and tells three replicas;
//! each of those, when it has heard both, forces one record to disk and tells the initiator; who is
//! done when two have told it. Four one-way QUIC hops and two `fdatasync`s in sequence, over
//! long-lived streams, everything in this process.
//!
//! `cargo bench --bench floor`; with `-- --test` it only shows that it runs.

mod support;

use std::collections::HashMap;
use std::fs::File;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::transport::{Authority, Role, server_name};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::sync::mpsc;

use support::Cluster;

/// About as long as a vote.
const MESSAGE_BYTES: usize = 100;

/// Which of the skeleton's messages it is.
const BEGIN: u8 = 0;
const PREPARE: u8 = 1;
const VOTE: u8 = 2;
const CHOSEN: u8 = 3;

type Message = [u8; MESSAGE_BYTES];

fn message(kind: u8, number: u32) -> Message {
    let mut message = [0; MESSAGE_BYTES];
    message[0] = kind;
    message[1..5].copy_from_slice(&number.to_le_bytes());
    message
}

/// An end of the skeleton: what it receives, and whom it can tell.
struct Node {
    endpoint: quinn::Endpoint,
    inbox: mpsc::UnboundedReceiver<Message>,
    outboxes: Vec<mpsc::UnboundedSender<Message>>,
}

struct Security {
    server: quinn::ServerConfig,
    client: quinn::ClientConfig,
    name: String,
}

fn security(authority: &Authority) -> Security {
    let issued = authority
        .issue(Role::Replica(ReplicaId(1)))
        .expect("a certificate");
    let chain = CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("PEM");
    let root = CertificateDer::from_pem_slice(authority.certificate().as_bytes()).expect("PEM");
    let mut roots = rustls::RootCertStore::empty();
    roots.add(root).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = [&rustls::version::TLS13];
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .expect("a certificate");
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&versions)
        .expect("TLS 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let server = QuicServerConfig::try_from(server).expect("QUIC");
    let client = QuicClientConfig::try_from(client).expect("QUIC");
    Security {
        server: quinn::ServerConfig::with_crypto(Arc::new(server)),
        client: quinn::ClientConfig::new(Arc::new(client)),
        name: server_name(authority.cluster(), ReplicaId(1)),
    }
}

/// Makes a node that listens: whoever connects is read.
fn node(security: &Security) -> Node {
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoint = quinn::Endpoint::server(security.server.clone(), anywhere).expect("a socket");
    let (heard, inbox) = mpsc::unbounded_channel();
    let accepting = endpoint.clone();
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let heard = heard.clone();
            tokio::spawn(async move {
                let connection = incoming.await.expect("a connection");
                let mut stream = connection.accept_uni().await.expect("a stream");
                let mut message = [0; MESSAGE_BYTES];
                while stream.read_exact(&mut message).await.is_ok() {
                    if heard.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    Node {
        endpoint,
        inbox,
        outboxes: Vec::new(),
    }
}

/// A stream to another node, with a task that writes.
async fn connect(from: &mut Node, to: SocketAddr, security: &Security) {
    let connecting = from
        .endpoint
        .connect_with(security.client.clone(), to, &security.name);
    let connection = connecting.expect("settings").await.expect("a connection");
    let mut stream = connection.open_uni().await.expect("a stream");
    let (outbox, mut queue) = mpsc::unbounded_channel::<Message>();
    tokio::spawn(async move {
        let _connection = connection;
        while let Some(message) = queue.recv().await {
            stream.write_all(&message).await.expect("written");
        }
    });
    from.outboxes.push(outbox);
}

/// Forces records to disk on a thread of its own, then tells everyone.
fn disk(
    folder: &Path,
    name: &str,
) -> std::sync::mpsc::Sender<(Message, Vec<mpsc::UnboundedSender<Message>>)> {
    let mut file = File::create(folder.join(name)).expect("a file");
    // As a journal does: the file has its length from the start.
    file.set_len(16 * 1024 * 1024).expect("space");
    file.sync_all().expect("synced");
    let (submit, jobs) =
        std::sync::mpsc::channel::<(Message, Vec<mpsc::UnboundedSender<Message>>)>();
    std::thread::spawn(move || {
        for (message, outboxes) in jobs {
            file.write_all(&message).expect("written");
            file.sync_data().expect("synced");
            for outbox in outboxes {
                let _ = outbox.send(message);
            }
        }
    });
    submit
}

/// The skeleton; each item on the one channel starts a round, and comes back on the other.
async fn skeleton(folder: &Path) -> (mpsc::UnboundedSender<u32>, mpsc::UnboundedReceiver<u32>) {
    let authority = Authority::new("floor".parse().expect("a name")).expect("an authority");
    let security = security(&authority);
    let mut initiator = node(&security);
    let mut participants = [node(&security), node(&security)];
    let mut replicas = [node(&security), node(&security), node(&security)];
    let address = |node: &Node| node.endpoint.local_addr().expect("an address");
    let places: Vec<SocketAddr> = replicas.iter().map(address).collect();
    connect(&mut initiator, places[0], &security).await;
    for participant in &mut participants {
        let place = address(participant);
        connect(&mut replicas[0], place, &security).await;
        for place in &places {
            connect(participant, *place, &security).await;
        }
    }
    let home = address(&initiator);
    for replica in &mut replicas {
        connect(replica, home, &security).await;
    }
    for (index, mut participant) in participants.into_iter().enumerate() {
        let disk = disk(folder, &format!("participant-{index}"));
        tokio::spawn(async move {
            while let Some(heard) = participant.inbox.recv().await {
                let mut vote = heard;
                vote[0] = VOTE;
                let _ = disk.send((vote, participant.outboxes.clone()));
            }
        });
    }
    for (index, mut replica) in replicas.into_iter().enumerate() {
        let disk = disk(folder, &format!("replica-{index}"));
        tokio::spawn(async move {
            let mut votes: HashMap<[u8; 4], u32> = HashMap::new();
            while let Some(heard) = replica.inbox.recv().await {
                let number = [heard[1], heard[2], heard[3], heard[4]];
                if heard[0] == BEGIN {
                    let mut prepare = heard;
                    prepare[0] = PREPARE;
                    for outbox in &replica.outboxes[..2] {
                        let _ = outbox.send(prepare);
                    }
                    continue;
                }
                let count = votes.entry(number).or_default();
                *count += 1;
                if *count == 2 {
                    votes.remove(&number);
                    let mut chosen = heard;
                    chosen[0] = CHOSEN;
                    let home = replica.outboxes.last().cloned();
                    let _ = disk.send((chosen, home.into_iter().collect()));
                }
            }
        });
    }
    let (start, mut starting) = mpsc::unbounded_channel::<u32>();
    let (done, ended) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Some(number) = starting.recv().await {
            let _ = initiator.outboxes[0].send(message(BEGIN, number));
            let mut told = 0;
            // Two of three; the third of an earlier round is passed over.
            while told < 2 {
                let Some(heard) = initiator.inbox.recv().await else {
                    return;
                };
                told += u32::from(heard[1..5] == number.to_le_bytes());
            }
            let _ = done.send(number);
        }
    });
    (start, ended)
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    let is_test = std::env::args().any(|argument| argument == "--test");
    let (rounds, commits) = if is_test { (2, 5) } else { (10, 200) };
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(async {
        // In the target folder, which is on a real disk; the system's temporary one may not be.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let floor_folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (start, mut ended) = skeleton(floor_folder.path()).await;
        let cluster = Cluster::start(folder.path(), 3, 2).await;
        let mut number = 0;
        let (mut floors, mut products, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..=rounds {
            let (mut floor, mut product) = (Vec::new(), Vec::new());
            // In turns, so that both see the same machine.
            for _ in 0..commits {
                number += 1;
                let began = Instant::now();
                start.send(number).expect("the skeleton runs");
                ended.recv().await.expect("the skeleton runs");
                floor.push(began.elapsed());
                product.push(cluster.commit(number).await);
                // What is still under way would be measured with the next.
                cluster.wait_until_applied(number).await;
            }
            // The first round warms up.
            if round > 0 {
                let (floor, product) = (median(&mut floor), median(&mut product));
                ratios.push(product.as_secs_f64() / floor.as_secs_f64());
                floors.push(floor);
                products.push(product);
            }
        }
        ratios.sort_by(f64::total_cmp);
        println!(
            "floor {:?}, commit {:?}: {:.2} times the floor (medians of {rounds} rounds of \
             {commits}; ratio {:.2} to {:.2})",
            median(&mut floors),
            median(&mut products),
            ratios[ratios.len() / 2],
            ratios[0],
            ratios[ratios.len() - 1],
        );
    });
    runtime.shutdown_timeout(Duration::from_secs(1));
}
