//! The identity of a store that is a database, and the key that masks the names in it.

use std::fmt;

use crate::protocol::types::{NameError, ParticipantName, StoreId};
use crate::random::draw_into;

use super::masking::{KEY_BYTES, Masking};

/// Whose branches an adapter keeps: one participant of one cluster.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    /// The name of a cluster has the alphabet of a participant's.
    pub(crate) cluster: ParticipantName,
    pub(crate) participant: ParticipantName,
}

impl Owner {
    pub(crate) fn new(cluster: &str, participant: &str) -> Result<Self, NameError> {
        Ok(Owner {
            cluster: cluster.parse()?,
            participant: participant.parse()?,
        })
    }
}

/// What a database keeps for one owner: drawn when its row is created, and the same from then on.
#[derive(Clone)]
pub(crate) struct Identity {
    pub(crate) store: StoreId,
    key: [u8; KEY_BYTES],
}

impl Identity {
    /// A new one.
    pub(crate) fn draw() -> Self {
        let (mut store, mut key) = ([0; 16], [0; KEY_BYTES]);
        draw_into(&mut store);
        draw_into(&mut key);
        let store = StoreId::from(store);
        Identity { store, key }
    }

    /// Reads the columns of a row; none if they were changed to something else.
    pub(crate) fn read(store: &str, key: &[u8]) -> Option<Self> {
        Some(Identity {
            store: store.parse().ok()?,
            key: key.try_into().ok()?,
        })
    }

    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn masking(&self) -> Masking {
        Masking::new(&self.key)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.store)
    }
}

/// The identity that a new connection finds, for an error.
pub(crate) fn found(store: Option<&StoreId>) -> String {
    match store {
        Some(store) => format!("the store {store}"),
        None => "no store of this participant".into(),
    }
}

#[cfg(test)]
impl Identity {
    /// One that is the same in every test.
    pub(crate) fn fixed() -> Self {
        Identity {
            store: StoreId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff),
            key: [7; KEY_BYTES],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_and_shows_no_key() {
        let drawn = Identity::draw();
        let read = Identity::read(&drawn.store.to_string(), drawn.key()).unwrap();
        assert_eq!((read.store, read.key), (drawn.store, drawn.key));
        assert_ne!(Identity::draw().store, drawn.store);
        assert_ne!(Identity::draw().key, drawn.key);
        assert_eq!(format!("{drawn:?}"), format!("Identity({})", drawn.store));
        assert!(Identity::read("x", drawn.key()).is_none());
        assert!(Identity::read(&drawn.store.to_string(), b"short").is_none());
    }
}
