//! From the address of a replica to the socket addresses behind it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

type Lookup = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;

/// Finds the socket addresses of a `HOST:PORT` whose host is a name. Asked again for each connection,
/// because addresses change. Every address found is tried.
///
/// [`Default`] asks the operating system, on a thread that may block. Another one can be put into
/// [`Access::resolver`](super::Access::resolver), for a discovery service or a test:
///
/// ```
/// use std::net::SocketAddr;
/// use paxos_commit::transport::Resolver;
///
/// let resolver = Resolver::new(|host_port: String| async move {
///     match host_port.as_str() {
///         "one:7401" => Ok(vec![SocketAddr::from(([192, 0, 2, 1], 7401))]),
///         _ => Err(std::io::Error::other("unknown")),
///     }
/// });
/// # drop(resolver);
/// ```
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn(String) -> Lookup + Send + Sync>);

impl Resolver {
    /// A resolver that calls this function with `HOST:PORT`. The function must not block: its future
    /// waits. An error, or no address, counts as a name that cannot be resolved.
    pub fn new<F, L>(lookup: F) -> Resolver
    where
        F: Fn(String) -> L + Send + Sync + 'static,
        L: Future<Output = io::Result<Vec<SocketAddr>>> + Send + 'static,
    {
        Resolver(Arc::new(move |host_port| Box::pin(lookup(host_port))))
    }

    pub(super) fn lookup(&self, host_port: &str) -> Lookup {
        (self.0)(host_port.to_owned())
    }
}

impl Default for Resolver {
    fn default() -> Resolver {
        Resolver::new(async |host_port: String| {
            let found = tokio::net::lookup_host(host_port).await?;
            Ok(found.collect())
        })
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}
