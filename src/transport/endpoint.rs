//! The QUIC endpoint and its settings.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use quinn::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, TokioRuntime, TransportConfig, VarInt,
};
use quinn_proto::HashedConnectionIdGenerator;
use socket2::{Domain, Protocol, Socket, Type};

use crate::wire::{ALPN, FRAME_BYTES_MAX};

use super::credentials::{Credentials, CredentialsError};
use super::sockets::{Families, Sockets};

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

/// The least time between two stateless resets. A replica that restarts sends one to each peer: at
/// quinn's own 20 ms, the 150th would come after the idle timeout. A reset is smaller than the packet
/// that it answers, so a stranger gains nothing from asking for many.
const RESET_INTERVAL_MIN: Duration = Duration::from_millis(1);

/// What is signed to derive the key of connection ids from the reset key.
const CONNECTION_ID_LABEL: &[u8] = b"paxos-commit key of connection ids 1";

/// The TLS alert `no_application_protocol` (RFC 7301, section 3.2).
const NO_APPLICATION_PROTOCOL: u8 = 120;

/// Opens a replica's endpoint: it listens, and it dials from the same socket. With the same
/// `reset_key` at each start, the peers of a replica that crashed are told at once, by stateless
/// resets, that their connections are gone.
pub(super) fn listen(
    address: SocketAddr,
    credentials: &Credentials,
    reset_key: &[u8; 64],
) -> Result<Sockets, ListenError> {
    let mut server = credentials.server()?;
    server.transport_config(transport(GUEST_WINDOW));
    server.migration(true);
    let config = keyed(reset_key);
    let bound = bind(address).or_else(|error| match fallback(address, &error) {
        Some(instead) => bind(instead),
        None => Err(error),
    });
    let sockets = bound.and_then(|(socket, families)| {
        let runtime = Arc::new(TokioRuntime);
        let endpoint = quinn::Endpoint::new(config, Some(server), socket, runtime)?;
        Ok(Sockets::new(endpoint, families))
    });
    sockets.map_err(|error| ListenError::Bind { address, error })
}

/// Where to listen on a machine without IPv6, if all addresses of both families were asked for.
fn fallback(address: SocketAddr, error: &io::Error) -> Option<SocketAddr> {
    // What would be the same with IPv4.
    let is_taken = matches!(
        error.kind(),
        io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied
    );
    let is_all = address.ip() == Ipv6Addr::UNSPECIFIED;
    (is_all && !is_taken).then(|| SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
}

/// The settings of an endpoint whose stateless resets are believed after a restart.
///
/// Two things must be the same before and after it. The reset key: a peer believes the reset only if
/// the token in it is the one that it was told, and the token is made from this key and the connection
/// id. And the key of connection ids: quinn answers only packets whose connection id it could have
/// made itself, and drops all others. (With a new key at each start, which is quinn's own way, it
/// drops every packet of an earlier connection, and the peer waits for its idle timeout.)
///
/// The key of connection ids is derived: quinn's hash is not a cryptographic one, and its input must
/// not tell the reset key. A copy of the data directory has the same keys. Resets that a copy sends
/// from elsewhere are not believed, because a peer believes those from the address that it dialed.
fn keyed(reset_key: &[u8; 64]) -> EndpointConfig {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, reset_key);
    let derived = ring::hmac::sign(&key, CONNECTION_ID_LABEL);
    let mut half = [0; 8];
    half.copy_from_slice(&derived.as_ref()[..8]);
    let id_key = u64::from_be_bytes(half);
    let mut config = EndpointConfig::new(Arc::new(key));
    config
        .cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(id_key)))
        .min_reset_interval(RESET_INTERVAL_MIN);
    config
}

/// Why a handshake failed. That no protocol is common to both sides is said as what it is: one of them is
/// another version of this program.
pub(super) fn reason(error: &quinn::ConnectionError) -> String {
    let code = match error {
        quinn::ConnectionError::TransportError(error) => Some(error.code),
        quinn::ConnectionError::ConnectionClosed(close) => Some(close.error_code),
        quinn::ConnectionError::VersionMismatch
        | quinn::ConnectionError::ApplicationClosed(_)
        | quinn::ConnectionError::Reset
        | quinn::ConnectionError::TimedOut
        | quinn::ConnectionError::LocallyClosed
        | quinn::ConnectionError::CidsExhausted => None,
    };
    match code == Some(quinn::TransportErrorCode::crypto(NO_APPLICATION_PROTOCOL)) {
        true => format!(
            "the other side does not speak {}: it is another version of this program. Run versions that \
             speak the same protocol",
            String::from_utf8_lossy(ALPN)
        ),
        false => error.to_string(),
    }
}

/// Opens an endpoint that only dials.
pub(super) fn dial_only() -> Result<Sockets, ListenError> {
    // One socket for both families, where the machine has both.
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    let any_v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0));
    let sockets = dial_from(any).or_else(|_| dial_from(any_v4));
    sockets.map_err(|error| ListenError::Bind {
        address: any_v4,
        error,
    })
}

/// Opens an endpoint that only dials, from this address. Its keys are new at each start: a client
/// that restarts has another port, where no packet of its earlier connections arrives.
pub(super) fn dial_from(address: SocketAddr) -> io::Result<Sockets> {
    let (socket, families) = bind(address)?;
    let runtime = Arc::new(TokioRuntime);
    let endpoint = quinn::Endpoint::new(EndpointConfig::default(), None, socket, runtime)?;
    Ok(Sockets::new(endpoint, families))
}

/// A socket with a large buffer, and with IPv4 too where it is one of IPv6 and of all addresses.
fn bind(address: SocketAddr) -> io::Result<(UdpSocket, Families)> {
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
    let is_all = address.ip() == Ipv6Addr::UNSPECIFIED;
    let v4 = address.ip().to_canonical().is_ipv4() || is_all && !socket.only_v6()?;
    let v6 = !address.ip().to_canonical().is_ipv4();
    Ok((socket.into(), Families { v4, v6 }))
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

#[cfg(test)]
#[cfg(feature = "cluster")]
mod tests;
