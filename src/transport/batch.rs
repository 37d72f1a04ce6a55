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

#[cfg(test)]
#[cfg(feature = "cluster")]
mod tests {
    use crate::protocol::paxos::ReplicaId;
    use crate::protocol::types::InitiatorId;
    use crate::transport::links::tests::links_with_inbox;

    use super::*;

    fn message(sequence: u32) -> Message {
        let initiator = InitiatorId::from_u128(1);
        let txn = crate::protocol::types::TxnId {
            generation: 1,
            initiator,
            sequence,
            nonce: 9,
        };
        Message::LetGo { txn, floor: 0 }
    }

    #[tokio::test]
    async fn order_is_kept_a_long_message_goes_alone_and_places_come_back() {
        let (links, mut inbound) = links_with_inbox(64);
        let from = Peer::Replica(ReplicaId(2));
        let mut collector = Collector::new(&links, from.clone());
        for sequence in 0..33 {
            assert!(collector.take(message(sequence), 20).await.is_ok());
        }
        let long = collector.take(message(33), INBOX_SHORT_BYTES + 1).await;
        assert!(long.is_ok());
        assert!(collector.take(message(34), 20).await.is_ok());
        let other = Inbound::Disconnected {
            peer: from,
            link: 1,
        };
        assert!(collector.pass(other).await.is_ok());
        assert_eq!(links.inbox_messages.available_permits(), 64 - 35);
        let mut told = Vec::new();
        while let Ok(event) = inbound.try_recv() {
            let of = |batch: &Batch| (batch.messages.clone(), batch.room.is_some());
            told.push(match &event {
                Inbound::Messages(batch) => Some(of(batch)),
                _ => None,
            });
        }
        let batch = |range: std::ops::Range<u32>, has_room| {
            Some((range.map(message).collect::<Vec<_>>(), has_room))
        };
        let expected = [
            batch(0..32, false),
            batch(32..33, false),
            batch(33..34, true),
            batch(34..35, false),
            None,
        ];
        assert_eq!(told, expected);
        assert_eq!(links.inbox_messages.available_permits(), 64);
    }

    #[tokio::test]
    async fn whoever_finds_the_inbox_full_waits_until_there_are_places() {
        let (links, mut inbound) = links_with_inbox(32);
        let mut collector = Collector::new(&links, Peer::Replica(ReplicaId(2)));
        for sequence in 0..32 {
            assert!(collector.take(message(sequence), 20).await.is_ok());
        }
        assert!(collector.take(message(32), 20).await.is_ok());
        let waiting = std::time::Duration::from_millis(50);
        let handed = tokio::time::timeout(waiting, collector.hand_over()).await;
        assert!(handed.is_err());
        drop(inbound.recv().await);
        assert!(collector.take(message(33), 20).await.is_ok());
        assert!(collector.hand_over().await.is_ok());
        assert_eq!(inbound.recv().await.map(|event| event.count()), Some(1));
    }
}
