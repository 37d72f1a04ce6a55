//! How a store is opened.

use std::sync::Arc;

use crate::protocol::types::Request;

use super::error::RequestError;
use super::work::Work;

/// Runs the request of a `Prepare`.
pub(super) type RequestHandler = dyn Fn(&Work, &Request) -> Result<(), RequestError> + Send + Sync;

/// How a store is opened.
#[derive(Clone)]
pub struct Options {
    pub(super) cache_bytes: u64,
    pub(super) requests: Option<Arc<RequestHandler>>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            cache_bytes: 32 * 1024 * 1024,
            requests: None,
        }
    }
}

impl Options {
    /// A cache of 32 MiB, and no requests.
    pub fn new() -> Self {
        Options::default()
    }

    /// How many bytes of rows the store keeps in memory, besides those written lately.
    pub fn cache_bytes(mut self, bytes: u64) -> Self {
        self.cache_bytes = bytes;
        self
    }

    /// What runs the requests that travel inside a prepare. Without it they abort.
    ///
    /// If the handler returns an error, or panics, the branch aborts. It runs on the task that
    /// prepares: its reads come from memory, or now and then from the disk, and to hand it to
    /// another thread would cost more than all the rest of a prepare. So it must not wait for
    /// anything else.
    pub fn requests(
        mut self,
        handler: impl Fn(&Work, &Request) -> Result<(), RequestError> + Send + Sync + 'static,
    ) -> Self {
        self.requests = Some(Arc::new(handler));
        self
    }
}
