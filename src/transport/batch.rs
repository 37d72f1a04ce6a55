//! Messages of one peer on their way to the driver, several at once.
//!
//! What has come in one packet is handed over as one: a channel takes as long for one message as for
//! many, and a message is too large to be moved about.

use tokio::sync::OwnedSemaphorePermit;

use crate::protocol::message::Message;
use crate::protocol::types::Peer;

use super::links::{INBOX_SHORT_BYTES, Inbound, Links};

/// The most messages of a batch. When there is a crowd before the inbox, each connection in turn has
/// one batch taken.
const BATCH_MAX: usize = 32;

/// Messages of one peer, in their order.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) from: Peer,
    pub(crate) messages: Vec<Message>,
    /// Of the memory for what has come and is not done with; none for short ones.
    pub(crate) room: Option<OwnedSemaphorePermit>,
    /// Their places in the inbox, given back when the driver takes them.
    pub(crate) _places: OwnedSemaphorePermit,
}

/// Collects a batch.
pub(super) struct Collector<'a> {
    links: &'a Links,
    from: Peer,
    messages: Vec<Message>,
}

/// The driver is gone.
pub(super) struct Gone;

impl<'a> Collector<'a> {
    pub(super) fn new(links: &'a Links, from: Peer) -> Self {
        Collector {
            links,
            from,
            messages: Vec::new(),
        }
    }

    /// Takes a message that had so many bytes.
    pub(super) async fn take(&mut self, message: Message, bytes: usize) -> Result<(), Gone> {
        if bytes <= INBOX_SHORT_BYTES {
            return self.take_any(message).await;
        }
        // Whoever waits for room holds none: it goes alone.
        self.hand_over().await?;
        let room = self.links.room_for(bytes).await;
        self.send(vec![message], room).await
    }

    /// Takes a message that needs no room, whatever its length: of a trusted peer, or a short one.
    pub(super) async fn take_any(&mut self, message: Message) -> Result<(), Gone> {
        self.messages.push(message);
        if self.messages.len() < BATCH_MAX {
            return Ok(());
        }
        self.hand_over().await
    }

    /// Hands over what there is, if there is something.
    pub(super) async fn hand_over(&mut self) -> Result<(), Gone> {
        if self.messages.is_empty() {
            return Ok(());
        }
        let messages = std::mem::take(&mut self.messages);
        self.send(messages, None).await
    }

    /// Hands over something else, after what there is.
    pub(super) async fn pass(&mut self, inbound: Inbound) -> Result<(), Gone> {
        self.hand_over().await?;
        self.links.inbox.send(inbound).await.map_err(|_| Gone)
    }

    async fn send(
        &self,
        messages: Vec<Message>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Gone> {
        let places = self.links.inbox_messages.clone();
        let places = places.acquire_many_owned(messages.len() as u32).await;
        let batch = Batch {
            from: self.from.clone(),
            messages,
            room,
            _places: places.map_err(|_| Gone)?,
        };
        let sent = self.links.inbox.send(Inbound::Messages(batch)).await;
        sent.map_err(|_| Gone)
    }
}
