//! The way to a replica: its name resolved, every address tried.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{sleep, timeout};

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Address;

use super::credentials::server_name;
use super::dialing::DialError;
use super::endpoint;
use super::links::Links;

/// How long an attempt waits for the resolver. A lookup that takes longer goes on, and the next
/// attempt waits for the same one.
const LOOKUP_MAX: Duration = Duration::from_secs(2);

/// How long the handshake with one address may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// The head start of each address before the next one (RFC 8305, section 5: Connection Attempt
/// Delay). An address that does not answer costs this much, and no more.
const HEAD_START: Duration = Duration::from_millis(250);

/// The most addresses of one name that an attempt tries; the next attempt goes on with the others.
const ADDRESSES_MAX: usize = 8;

type Found = io::Result<Vec<SocketAddr>>;

/// The way to one replica, and what was learned of it.
pub(super) struct Way {
    links: Arc<Links>,
    replica: ReplicaId,
    /// Lookups that have not ended.
    lookups: BTreeMap<Address, JoinHandle<Found>>,
    /// Which address led to it the last time.
    worked: Option<SocketAddr>,
    /// How many attempts have failed since.
    failed: usize,
}

impl Way {
    pub(super) fn new(links: Arc<Links>, replica: ReplicaId) -> Way {
        Way {
            links,
            replica,
            lookups: BTreeMap::new(),
            worked: None,
            failed: 0,
        }
    }

    /// A connection to the replica, whose certificate TLS has verified; at the first of these
    /// addresses that can be resolved.
    pub(super) async fn connect(
        &mut self,
        addresses: &[Address],
    ) -> Result<quinn::Connection, DialError> {
        let (address, found) = self.resolve_any(addresses).await?;
        let found = going_on(found, self.failed);
        let failed = |error: String| DialError::Connect {
            address: address.to_string(),
            error,
        };
        let connected = self.race(in_turns(found, self.worked)).await;
        self.failed = self.failed.wrapping_add(1);
        let (target, connection) = connected.map_err(failed)?;
        (self.worked, self.failed) = (Some(target), 0);
        Ok(connection)
    }

    /// Whether these addresses lead elsewhere than to this one. Unknown, and therefore no, as long as
    /// none can be resolved.
    pub(super) async fn leads_elsewhere(&mut self, addresses: &[Address], at: SocketAddr) -> bool {
        match self.resolve_any(addresses).await {
            Ok((_, found)) => !found.contains(&canonical(at)),
            Err(_) => false,
        }
    }

    /// The first of the addresses that can be resolved; what is wrong with the first if none can.
    async fn resolve_any(
        &mut self,
        addresses: &[Address],
    ) -> Result<(Address, Vec<SocketAddr>), DialError> {
        let mut problem = None;
        for address in addresses {
            match self.resolve(address).await {
                Ok(found) => return Ok((address.clone(), found)),
                Err(error) => {
                    tracing::debug!(replica = %self.replica, %error);
                    problem = problem.or(Some(error));
                }
            }
        }
        Err(problem.unwrap_or_else(|| DialError::Resolve {
            address: String::new(),
            error: "the replica has no address".into(),
        }))
    }

    async fn resolve(&mut self, address: &Address) -> Result<Vec<SocketAddr>, DialError> {
        if let Ok(literal) = address.as_str().parse() {
            return Ok(vec![canonical(literal)]);
        }
        let failed = |error: String| DialError::Resolve {
            address: address.to_string(),
            error,
        };
        let running = self.lookups.entry(address.clone()).or_insert_with(|| {
            let lookup = self.links.resolver.lookup(address.as_str());
            tokio::spawn(lookup)
        });
        let ended = timeout(LOOKUP_MAX, running).await.map_err(|_| {
            failed(format!(
                "the resolver has not answered within {LOOKUP_MAX:?}"
            ))
        })?;
        self.lookups.remove(address);
        let found = ended.map_err(|error| failed(error.to_string()))?;
        let found = found.map_err(|error| failed(error.to_string()))?;
        if found.is_empty() {
            return Err(failed("the name has no address".into()));
        }
        Ok(found.into_iter().map(canonical).collect())
    }

    /// Tries the addresses, each with a head start before the next one, until one leads to the
    /// replica. Each that fails gives way to the next one at once.
    async fn race(
        &self,
        mut waiting: VecDeque<SocketAddr>,
    ) -> Result<(SocketAddr, quinn::Connection), String> {
        let is_only_one = waiting.len() == 1;
        let mut running = JoinSet::new();
        let mut problems = Vec::new();
        loop {
            if let Some(target) = waiting.pop_front() {
                let handshake = handshake(self.links.clone(), self.replica, target);
                running.spawn(async move { (target, handshake.await) });
            }
            let ended = tokio::select! {
                ended = running.join_next() => ended,
                () = sleep(HEAD_START), if !waiting.is_empty() => continue,
            };
            match ended {
                Some(Ok((target, Ok(connection)))) => return Ok((target, connection)),
                Some(Ok((_, Err(error)))) if is_only_one => return Err(error),
                Some(Ok((target, Err(error)))) => problems.push(format!("{target}: {error}")),
                Some(Err(error)) => problems.push(error.to_string()),
                None => return Err(problems.join(", ")),
            }
        }
    }
}

/// The QUIC handshake with one address. It fails if another process than the replica answers.
async fn handshake(
    links: Arc<Links>,
    replica: ReplicaId,
    target: SocketAddr,
) -> Result<quinn::Connection, String> {
    let config = endpoint::dialer(&links.credentials).map_err(|error| error.to_string())?;
    let endpoint = links.sockets.toward(target);
    let endpoint = endpoint.map_err(|error| format!("cannot open a socket: {error}"))?;
    let name = server_name(&links.credentials.identity().cluster, replica);
    let connecting = endpoint.connect_with(config, target, &name);
    let connecting = connecting.map_err(|error| error.to_string())?;
    let connected = timeout(HANDSHAKE_MAX, connecting).await;
    let connected = connected.map_err(|_| "no answer".to_owned())?;
    connected.map_err(|error| endpoint::reason(&error))
}

/// An IPv4 address that is written as one of IPv6 is one of IPv4.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        ip if ip == address.ip() => address,
        ip => SocketAddr::new(ip, address.port()),
    }
}

/// The addresses, those first that were not tried by so many attempts that failed.
fn going_on(mut found: Vec<SocketAddr>, failed: usize) -> Vec<SocketAddr> {
    if found.len() > ADDRESSES_MAX {
        let tried = failed.wrapping_mul(ADDRESSES_MAX) % found.len();
        found.rotate_left(tried);
    }
    found
}

/// The addresses in the order in which they are tried: first the one that worked the last time, then
/// both families in turns, beginning with that of the first address (RFC 8305, section 4).
fn in_turns(found: Vec<SocketAddr>, worked: Option<SocketAddr>) -> VecDeque<SocketAddr> {
    let is_first =
        |address: &SocketAddr| Some(address.is_ipv6()) == found.first().map(SocketAddr::is_ipv6);
    let (ours, others): (Vec<SocketAddr>, Vec<SocketAddr>) =
        found.iter().partition(|of| is_first(of));
    let (mut ours, mut others) = (ours.into_iter(), others.into_iter());
    let mut ordered: VecDeque<SocketAddr> =
        worked.into_iter().filter(|of| found.contains(of)).collect();
    loop {
        let turn = [ours.next(), others.next()];
        if turn == [None, None] || ordered.len() >= ADDRESSES_MAX {
            ordered.truncate(ADDRESSES_MAX);
            return ordered;
        }
        for address in turn.into_iter().flatten() {
            if !ordered.contains(&address) {
                ordered.push_back(address);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses<const N: usize>(texts: [&str; N]) -> Vec<SocketAddr> {
        texts.map(|text| text.parse().unwrap()).to_vec()
    }

    #[test]
    fn families_take_turns_and_each_address_is_tried_once() {
        let found = addresses(["[::1]:1", "[::2]:1", "[::1]:1", "1.0.0.1:1", "1.0.0.2:1"]);
        let expected = addresses(["[::1]:1", "1.0.0.1:1", "[::2]:1", "1.0.0.2:1"]);
        assert_eq!(in_turns(found, None), expected);
        assert_eq!(in_turns(Vec::new(), None), []);
    }

    #[test]
    fn the_address_that_worked_comes_first_as_long_as_the_name_has_it() {
        let found = addresses(["[::1]:1", "1.0.0.1:1"]);
        let (worked, gone) = (found[1], "1.0.0.9:1".parse().unwrap());
        let expected = addresses(["1.0.0.1:1", "[::1]:1"]);
        assert_eq!(in_turns(found.clone(), Some(worked)), expected);
        assert_eq!(in_turns(found.clone(), Some(gone)), found);
    }

    #[test]
    fn a_name_with_many_addresses_is_tried_at_some() {
        let many = (0..100).map(|last| SocketAddr::from(([1, 0, 0, last], 1)));
        assert_eq!(in_turns(many.collect(), None).len(), ADDRESSES_MAX);
    }

    #[test]
    fn the_next_attempt_goes_on_with_the_addresses_that_are_left() {
        let many = (0..20).map(|last| SocketAddr::from(([1, 0, 0, last], 1)));
        let many: Vec<SocketAddr> = many.collect();
        let mut tried: Vec<SocketAddr> = (0..3)
            .flat_map(|failed| in_turns(going_on(many.clone(), failed), None))
            .collect();
        tried.sort();
        tried.dedup();
        assert_eq!(tried, many);
    }
}
