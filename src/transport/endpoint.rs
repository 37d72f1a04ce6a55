//! The QUIC endpoint and its settings.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::FRAME_BYTES_MAX;

use super::credentials::{Credentials, CredentialsError};

/// A peer that is silent for so long is taken for gone. Nothing waits for that on the way of a
/// transaction.
const IDLE_TIMEOUT_MS: u32 = 3_000;

/// How often an idle connection says that it lives.
const KEEP_ALIVE: Duration = Duration::from_millis(750);

/// The round trip that is assumed before one was measured: what is lost of a handshake is sent
/// again after about three times that. (quinn's own, for the whole internet, is 333 ms.)
const INITIAL_RTT: Duration = Duration::from_millis(20);

/// After so many packets the peer acknowledges at once. (quinn's own, after two, makes a packet of
/// its own of every third: what answers a message comes when a disk has been written, not at once.)
const ACKNOWLEDGE_EVERY: u32 = 10;

/// After so long it acknowledges what there is, if nothing that it sends anyway has done so. What is
/// lost at the end of a burst is sent again that much later than after one round trip. (The usual is
/// 25 ms. That would save packets at a low rate, but with a replica cut off at 1,000 transactions a
/// second three of six runs then had a stall of 49 to 80 ms, and with this none of four above 15.)
const ACKNOWLEDGE_WITHIN: Duration = Duration::from_millis(5);

/// What a replica may have under way on a connection: two of the longest frames.
pub(super) const WINDOW: u32 = 2 * FRAME_BYTES_MAX as u32;

/// What everyone else may have under way to a replica. It lies in the replica's memory as long as
/// the replica is behind, once for each connection, and there may be thousands.
const GUEST_WINDOW: u32 = 256 * 1024;

/// What may wait in the kernel. What finds no room is lost, and sent again after some round trips;
/// and the usual 200 KiB are full after 90 datagrams, which come in less time than a busy machine
/// keeps a process waiting for a processor.
const RECEIVED_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Opens a replica's endpoint: it listens, and it dials from the same socket. With the same
/// `reset_key` at each start, the peers of a replica that crashed are told at once, by stateless
/// resets, that their connections are gone.
pub(super) fn listen(
    address: SocketAddr,
    credentials: &Credentials,
    reset_key: &[u8; 64],
) -> Result<quinn::Endpoint, ListenError> {
    let mut server = credentials.server()?;
    server.transport_config(transport(GUEST_WINDOW));
    server.migration(true);
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let config = EndpointConfig::new(Arc::new(key));
    let endpoint = bind(address).and_then(|socket| {
        let runtime = Arc::new(TokioRuntime);
        quinn::Endpoint::new(config, Some(server), socket, runtime)
    });
    endpoint.map_err(|error| ListenError::Bind { address, error })
}

/// Opens an endpoint that only dials.
pub(super) fn dial_only() -> Result<quinn::Endpoint, ListenError> {
    // One socket for both families, where the machine has both.
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let endpoint = bind(any).or_else(|_| bind(any_v4)).and_then(|socket| {
        let runtime = Arc::new(TokioRuntime);
        quinn::Endpoint::new(EndpointConfig::default(), None, socket, runtime)
    });
    endpoint.map_err(|error| ListenError::Bind {
        address: any_v4,
        error,
    })
}

/// A socket with a large buffer, and with IPv4 too where it is one of IPv6.
fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let domain = Domain::for_address(address);
    let socket = Socket::new(domain, Type::DGRAM, Some(Protocol::UDP))?;
    // What the system refuses is done without. (Of a buffer, Linux gives what it allows.)
    if address.is_ipv6()
        && let Err(error) = socket.set_only_v6(false)
    {
        tracing::debug!(%error, "the socket has no IPv4");
    }
    if socket.recv_buffer_size()? < RECEIVED_BYTES_MAX
        && let Err(error) = socket.set_recv_buffer_size(RECEIVED_BYTES_MAX)
    {
        tracing::debug!(%error, "the socket keeps its usual buffer");
    }
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// How a dialer proves itself, with the settings of every connection.
pub(super) fn dialer(credentials: &Credentials) -> Result<quinn::ClientConfig, CredentialsError> {
    let mut client = credentials.client()?;
    client.transport_config(transport(WINDOW));
    Ok(client)
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListenError {
    /// The socket.
    #[error("cannot open UDP address {address}: {error}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        error: io::Error,
    },
    /// The credentials.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
}

/// Up to `window` bytes may come that were not read yet.
fn transport(window: u32) -> Arc<TransportConfig> {
    let mut acknowledging = AckFrequencyConfig::default();
    acknowledging
        .ack_eliciting_threshold(VarInt::from_u32(ACKNOWLEDGE_EVERY))
        .max_ack_delay(Some(ACKNOWLEDGE_WITHIN));
    let mut transport = TransportConfig::default();
    transport
        .ack_frequency_config(Some(acknowledging))
        .initial_rtt(INITIAL_RTT)
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT_MS))))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_concurrent_bidi_streams(VarInt::from_u32(1))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(WINDOW))
        .receive_window(VarInt::from_u32(window))
        .send_window(u64::from(WINDOW))
        .datagram_receive_buffer_size(None);
    Arc::new(transport)
}
