//! The UDP sockets of one process.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Mutex;
use std::time::Duration;

use super::endpoint;
use super::links::lock;

/// The families of addresses that a socket can send to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Families {
    pub(super) v4: bool,
    pub(super) v6: bool,
}

impl Families {
    fn hold(self, target: SocketAddr) -> bool {
        match target {
            SocketAddr::V4(_) => self.v4,
            SocketAddr::V6(_) => self.v6,
        }
    }
}

/// The sockets of one process: one on which it listens, if it listens, and from which it dials all
/// that the socket can send to; and a second one for the other family of addresses. (A replica that
/// listens at `127.0.0.1` or `0.0.0.0` has a socket that cannot send to `::1`, and the reverse.)
pub(super) struct Sockets {
    main: quinn::Endpoint,
    families: Families,
    /// Opened when the first such address is dialed.
    other: Mutex<Option<quinn::Endpoint>>,
}

impl Sockets {
    pub(super) fn new(main: quinn::Endpoint, families: Families) -> Sockets {
        Sockets {
            main,
            families,
            other: Mutex::default(),
        }
    }

    /// The endpoint to dial this address from, whose family is the canonical one.
    pub(super) fn toward(&self, target: SocketAddr) -> io::Result<quinn::Endpoint> {
        if self.families.hold(target) {
            return Ok(self.main.clone());
        }
        let mut other = lock(&self.other);
        if let Some(endpoint) = &*other {
            return Ok(endpoint.clone());
        }
        let ip = match target {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let endpoint = endpoint::dial_from(SocketAddr::new(ip, 0))?.main;
        Ok(other.insert(endpoint).clone())
    }

    /// The next connection that somebody else has dialed; None when this process ends.
    pub(super) async fn accept(&self) -> Option<quinn::Incoming> {
        self.main.accept().await
    }

    /// The address of the socket on which it listens.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.main.local_addr()
    }

    fn all(&self) -> Vec<quinn::Endpoint> {
        let other = lock(&self.other).clone();
        [self.main.clone()].into_iter().chain(other).collect()
    }

    /// Ends every connection.
    pub(super) fn close(&self, code: quinn::VarInt, reason: &str) {
        for endpoint in self.all() {
            endpoint.close(code, reason.as_bytes());
        }
    }

    /// Waits until the peers know that their connections have ended, or `grace` has passed.
    pub(super) async fn wait_idle(&self, grace: Duration) {
        let idle = async {
            for endpoint in self.all() {
                endpoint.wait_idle().await;
            }
        };
        let _ = tokio::time::timeout(grace, idle).await;
    }
}
