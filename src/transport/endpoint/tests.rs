//! What a dialer notices of a replica that restarts.

use quinn::ConnectionError;
use tokio::net::UdpSocket;
use tokio::sync::watch;

use super::*;
use crate::protocol::paxos::ReplicaId;
use crate::transport::{Authority, Role, server_name};

const REPLICA: ReplicaId = ReplicaId(1);

/// A listener on loopback that accepts whatever comes.
fn listener(authority: &Authority, reset_key: [u8; 64]) -> SocketAddr {
    let credentials = authority.credentials(Role::Replica(REPLICA)).unwrap();
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let sockets = listen(anywhere, &credentials, &reset_key).unwrap();
    let address = sockets.address().unwrap();
    tokio::spawn(async move {
        let mut accepted = Vec::new();
        while let Some(incoming) = sockets.accept().await {
            accepted.push(incoming.await);
        }
    });
    address
}

/// Carries the datagrams of one client to the target, and back what comes from there.
async fn forward(front: UdpSocket, target: watch::Receiver<SocketAddr>) {
    let back = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let (mut one, mut two) = ([0; 2_048], [0; 2_048]);
    let mut client = None;
    loop {
        tokio::select! {
            come = front.recv_from(&mut one) => if let Ok((bytes, from)) = come {
                client = Some(from);
                let to = *target.borrow();
                back.send_to(&one[..bytes], to).await.unwrap();
            },
            come = back.recv_from(&mut two) => if let Ok((bytes, from)) = come
                && from == *target.borrow()
                && let Some(client) = client
            {
                front.send_to(&two[..bytes], client).await.unwrap();
            },
        }
    }
}

/// How a dialer's connection ends when the replica crashes and another process, with this key,
/// answers at its address.
async fn end_after_restart(before: [u8; 64], after: [u8; 64]) -> ConnectionError {
    let authority = Authority::new("c".parse().unwrap()).unwrap();
    let (first, second) = (listener(&authority, before), listener(&authority, after));
    let front = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = front.local_addr().unwrap();
    let (target, targets) = watch::channel(first);
    tokio::spawn(forward(front, targets));

    let role = Role::Operator("anna".parse().unwrap());
    let config = dialer(&authority.credentials(role).unwrap()).unwrap();
    let name = server_name(authority.cluster(), REPLICA);
    let endpoint = dial_only().unwrap().toward(address).unwrap();
    let connecting = endpoint.connect_with(config, address, &name);
    let connection = connecting.unwrap().await.unwrap();
    // The first one sends on, and nothing of it arrives: as after a crash.
    target.send_replace(second);
    connection.closed().await
}

#[tokio::test]
async fn a_dialer_is_told_that_its_connection_is_gone_when_a_replica_restarts() {
    let end = end_after_restart([7; 64], [7; 64]).await;
    assert_eq!(end, ConnectionError::Reset);
}

#[tokio::test]
async fn a_dialer_does_not_believe_the_resets_of_another_key() {
    let end = end_after_restart([7; 64], [8; 64]).await;
    assert_eq!(end, ConnectionError::TimedOut);
}

#[test]
fn a_machine_without_ipv6_listens_on_all_addresses_of_ipv4() {
    let unsupported = io::Error::from(io::ErrorKind::Unsupported);
    let all = "[::]:7401".parse().unwrap();
    assert_eq!(fallback(all, &unsupported), "0.0.0.0:7401".parse().ok());
    // A port that is taken stays taken, and one address is not another one.
    let taken = io::Error::from(io::ErrorKind::AddrInUse);
    assert_eq!(fallback(all, &taken), None);
    assert_eq!(fallback("[::1]:7401".parse().unwrap(), &unsupported), None);
}

/// The counter-example: "aborted by peer: the cryptographic handshake failed: error 120".
#[test]
fn another_version_of_the_program_is_called_that() {
    let error = |alert| {
        ConnectionError::TransportError(quinn_proto::TransportError {
            code: quinn::TransportErrorCode::crypto(alert),
            frame: None,
            reason: String::new(),
        })
    };
    let text = reason(&error(120));
    assert!(
        text.contains("another version") && text.contains("paxos-commit/1"),
        "{text}"
    );
    assert!(!reason(&error(42)).contains("another version"));
}
