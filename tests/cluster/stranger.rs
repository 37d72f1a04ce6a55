//! A client made by hand, that says what no program of this crate would say.

use std::net::SocketAddr;
use std::sync::Arc;

use paxos_commit::cluster::LocalCluster;
use paxos_commit::protocol::message::Message;
use paxos_commit::protocol::paxos::ReplicaId;
use paxos_commit::protocol::types::Peer;
use paxos_commit::transport::{Issued, Role, server_name};
use paxos_commit::wire::{self, ALPN, Frame, Hello, Lsn, VERSION};
use quinn::crypto::rustls::QuicClientConfig;
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::within;

/// What a replica closes a connection with, if the peer said what it may not say.
pub(crate) const FORBIDDEN: u32 = 3;

/// What a replica closes a connection with, if the peer does not read.
pub(crate) const OVERFLOW: u32 = 2;

/// A connection to one replica.
pub(crate) struct Stranger {
    pub(crate) connection: quinn::Connection,
    send: quinn::SendStream,
    receive: quinn::RecvStream,
    unread: Vec<u8>,
    _endpoint: quinn::Endpoint,
}

/// What a stranger shows, and how it listens.
pub(crate) struct Papers {
    pub(crate) authority: String,
    pub(crate) issued: Issued,
    pub(crate) alpn: Vec<u8>,
    /// How many bytes it takes before it has read any.
    pub(crate) window: u32,
}

impl Papers {
    /// As they should be.
    pub(crate) fn right(cluster: &LocalCluster, role: Role) -> Papers {
        Papers {
            authority: cluster.authority().certificate().to_owned(),
            issued: cluster.authority().issue(role).unwrap(),
            alpn: ALPN.to_vec(),
            window: 1024 * 1024,
        }
    }

    fn client(&self) -> quinn::ClientConfig {
        let mut roots = RootCertStore::empty();
        let pem = |text: &str| CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        roots.add(pem(&self.authority)).unwrap();
        let chain = vec![pem(&self.issued.certificate)];
        let key = PrivateKeyDer::from_pem_slice(self.issued.key.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(chain, key)
            .unwrap();
        tls.alpn_protocols = vec![self.alpn.clone()];
        let quic = QuicClientConfig::try_from(tls).unwrap();
        let mut transport = quinn::TransportConfig::default();
        transport
            .stream_receive_window(self.window.into())
            .keep_alive_interval(Some(std::time::Duration::from_secs(1)));
        let mut client = quinn::ClientConfig::new(Arc::new(quic));
        client.transport_config(Arc::new(transport));
        client
    }
}

/// Where replica `id` is reached.
pub(crate) fn address(cluster: &LocalCluster, id: u32) -> SocketAddr {
    let members = cluster.members();
    let member = members.iter().find(|member| member.id.0 == id);
    let member = member.expect("there is such a replica");
    member.address.as_str().parse().unwrap()
}

/// What a right dialer says first.
pub(crate) fn hello(peer: Peer, to: u32) -> Hello {
    // Further than any store is, or it would be taken for one that has lost something. The replica
    // itself is taken for that from now on, should it connect again.
    let replica = matches!(peer, Peer::Replica(_)).then_some(Lsn {
        run: 1,
        own: 1 << 40,
        remembered: 0,
    });
    Hello {
        version: VERSION,
        cluster: "local".into(),
        peer,
        to: ReplicaId(to),
        generation: None,
        lsn: replica,
    }
}

impl Stranger {
    /// Connects, and says nothing.
    pub(crate) async fn dial(
        address: SocketAddr,
        to: u32,
        papers: &Papers,
    ) -> Result<Stranger, quinn::ConnectionError> {
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let name = server_name(&"local".parse().unwrap(), ReplicaId(to));
        let connecting = endpoint.connect_with(papers.client(), address, &name);
        let connection = within("a connection, or none", connecting.unwrap()).await?;
        let (send, receive) = connection.open_bi().await?;
        Ok(Stranger {
            connection,
            send,
            receive,
            unread: Vec::new(),
            _endpoint: endpoint,
        })
    }

    /// Comes in as `peer`, with right papers for `role`.
    pub(crate) async fn enter(cluster: &LocalCluster, to: u32, role: Role, peer: Peer) -> Stranger {
        let papers = Papers::right(cluster, role);
        Stranger::enter_with(cluster, to, &papers, peer).await
    }

    /// Comes in as `peer`, with these papers.
    pub(crate) async fn enter_with(
        cluster: &LocalCluster,
        to: u32,
        papers: &Papers,
        peer: Peer,
    ) -> Stranger {
        let dialed = Stranger::dial(address(cluster, to), to, papers).await;
        let mut stranger = dialed.unwrap();
        stranger.say(&Frame::Hello(hello(peer, to))).await;
        match stranger.next().await {
            Ok(Frame::Welcome(_)) => stranger,
            other => panic!("expected a Welcome, got {other:?}"),
        }
    }

    pub(crate) async fn say(&mut self, frame: &Frame) {
        let mut bytes = Vec::new();
        wire::encode(frame, &mut bytes).unwrap();
        self.say_bytes(&bytes).await;
    }

    pub(crate) async fn say_message(&mut self, message: Message) {
        self.say(&Frame::Message(message)).await;
    }

    /// Whether the other side takes it does not matter: it may have closed the connection by now.
    pub(crate) async fn say_bytes(&mut self, bytes: &[u8]) {
        let _ = within("the bytes leave", self.send.write_all(bytes)).await;
    }

    /// The next frame; or why there is none.
    pub(crate) async fn next(&mut self) -> Result<Frame, String> {
        loop {
            match wire::decode(&self.unread) {
                Ok(Some((frame, bytes))) => {
                    self.unread.drain(..bytes);
                    return Ok(frame);
                }
                Ok(None) => {}
                Err(error) => return Err(error.to_string()),
            }
            let chunk = self.receive.read_chunk(64 * 1024, true);
            match within("a frame, or the end", chunk).await {
                Ok(Some(chunk)) => self.unread.extend_from_slice(&chunk.bytes),
                Ok(None) => return Err("the stream has ended".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    /// The code with which the other side closes the connection.
    pub(crate) async fn closed(&self) -> u32 {
        let closed = within("the connection is closed", self.connection.closed()).await;
        match closed {
            quinn::ConnectionError::ApplicationClosed(close) => {
                u32::try_from(close.error_code.into_inner()).unwrap()
            }
            other => panic!("expected a close with a code, got {other}"),
        }
    }
}
