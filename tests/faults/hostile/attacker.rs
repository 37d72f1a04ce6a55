//! Somebody who speaks QUIC, TLS and the wire, and keeps to nothing else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Peer;
use paxos_commit::transport::{Identity, Issued, server_name};
use paxos_commit::wire::{self, ALPN, Frame, Hello, VERSION};
use quinn::crypto::rustls::QuicClientConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// How long anything may take before it counts as blocked.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where somebody dials, and what it shows.
#[derive(Clone)]
pub(crate) struct Attacker {
    pub(crate) target: SocketAddr,
    pub(crate) replica: ReplicaId,
    endpoints: Vec<Endpoint>,
    client: quinn::ClientConfig,
}

/// A connection that was let in.
pub(crate) struct Entered {
    pub(crate) connection: Connection,
    pub(crate) send: SendStream,
    pub(crate) receive: RecvStream,
    unread: Vec<u8>,
}

impl Attacker {
    /// Dials from a few sockets: QUIC needs no more for any number of connections. With `window`,
    /// it takes no more than so many bytes that it has not read.
    pub(crate) fn new(
        target: (ReplicaId, SocketAddr),
        authority: &str,
        shown: Option<&Issued>,
        window: u32,
    ) -> Attacker {
        let endpoint = || Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let (replica, target) = target;
        Attacker {
            target,
            replica,
            endpoints: (0..4).map(|_| endpoint()).collect(),
            client: client(authority, shown, window),
        }
    }

    /// A connection and a stream, as far as QUIC and TLS are concerned.
    pub(crate) async fn dial(&self, number: usize) -> Result<Entered, String> {
        let endpoint = &self.endpoints[number % self.endpoints.len()];
        let name = server_name(&"arena".parse().unwrap(), self.replica);
        let connecting = endpoint.connect_with(self.client.clone(), self.target, &name);
        let dialing = async {
            let connection = connecting.unwrap().await?;
            let (send, receive) = connection.open_bi().await?;
            Ok(Entered {
                connection,
                send,
                receive,
                unread: Vec::new(),
            })
        };
        within(dialing)
            .await
            .map_err(|error: quinn::ConnectionError| error.to_string())
    }

    /// Says hello as `peer`; the answer, or why there is none.
    pub(crate) async fn greet(
        &self,
        number: usize,
        peer: &Peer,
    ) -> Result<(Frame, Entered), String> {
        let mut entered = self.dial(number).await?;
        let hello = Hello {
            version: VERSION,
            cluster: "arena".into(),
            peer: peer.clone(),
            to: self.replica,
            generation: None,
            lsn: None,
        };
        entered.say(&[Frame::Hello(hello)]).await;
        let answer = within(entered.next()).await?;
        Ok((answer, entered))
    }

    /// Comes in as `peer`. Who dials again and again may have to do so more than once.
    pub(crate) async fn enter(&self, number: usize, peer: &Peer) -> Entered {
        let entering = async {
            loop {
                match self.greet(number, peer).await {
                    Ok((Frame::Welcome(_), entered)) => return entered,
                    Ok((other, _)) => panic!("expected a Welcome, got {other:?}"),
                    Err(_) => {}
                }
            }
        };
        within(entering).await
    }
}

impl Entered {
    /// Whether the other side takes it does not matter: it may have closed the connection by now.
    pub(crate) async fn say(&mut self, frames: &[Frame]) {
        let mut bytes = Vec::new();
        for frame in frames {
            wire::encode(frame, &mut bytes).unwrap();
        }
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        let frames: Vec<Frame> = messages.into_iter().map(Frame::Message).collect();
        self.say(&frames).await;
    }

    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = within(self.send.write_all(bytes)).await;
    }

    /// The next frame, which must come.
    pub(crate) async fn hear(&mut self) -> Result<Frame, String> {
        within(self.next()).await
    }

    async fn next(&mut self) -> Result<Frame, String> {
        loop {
            let decoded = wire::decode(&self.unread).map_err(|error| error.to_string())?;
            if let Some((frame, length)) = decoded {
                self.unread.drain(..length);
                return Ok(frame);
            }
            match self.receive.read_chunk(64 * 1024, true).await {
                Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err("the stream has ended".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// Reads, and takes no notice of it, until the connection ends or is dropped.
    pub(crate) fn drain(mut self) -> Draining {
        let connection = self.connection.clone();
        let task = tokio::spawn(async move {
            while let Ok(Some(_)) = self.receive.read_chunk(64 * 1024, true).await {}
        });
        Draining {
            connection,
            send: self.send,
            _task: task,
        }
    }

    pub(crate) async fn closed(&self) {
        within(self.connection.closed()).await;
    }
}

/// A connection that is read all the time.
pub(crate) struct Draining {
    pub(crate) connection: Connection,
    send: SendStream,
    _task: tokio::task::JoinHandle<()>,
}

impl Draining {
    pub(crate) async fn say_all(&mut self, messages: impl IntoIterator<Item = Message>) {
        let mut bytes = Vec::new();
        for message in messages {
            wire::encode(&Frame::Message(message), &mut bytes).unwrap();
        }
        let _ = within(self.send.write_all(&bytes)).await;
    }
}

fn client(authority: &str, shown: Option<&Issued>, window: u32) -> quinn::ClientConfig {
    let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(pem(authority)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots);
    let mut tls = match shown {
        Some(issued) => {
            let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).unwrap();
            let chain = vec![pem(&issued.certificate)];
            builder.with_client_auth_cert(chain, key).unwrap()
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let mut transport = quinn::TransportConfig::default();
    transport
        .stream_receive_window(window.into())
        .initial_rtt(Duration::from_millis(20))
        .max_idle_timeout(Some(Duration::from_secs(60).try_into().unwrap()))
        .keep_alive_interval(Some(Duration::from_secs(1)));
    let quic = QuicClientConfig::try_from(tls).unwrap();
    let mut client = quinn::ClientConfig::new(Arc::new(quic));
    client.transport_config(Arc::new(transport));
    client
}

/// A part in the cluster.
pub(crate) fn identity(text: &str) -> Identity {
    format!("paxos-commit://arena/{text}").parse().unwrap()
}

async fn within<T>(coming: impl Future<Output = T>) -> T {
    let come = tokio::time::timeout(PATIENCE, coming).await;
    come.expect("something that should come does not")
}
