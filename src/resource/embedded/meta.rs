//! What a store keeps about itself: how often it was opened, and whose branches it keeps.

use std::fmt;

use fjall::{Database, PersistMode, Slice};

use crate::protocol::types::{Opening, ParticipantName};
use crate::random::draw;
use crate::store::committer::Batch;

use super::disk::{Disk, Keyspaces};
use super::error::OpenError;

/// Before the number of an opening.
const OPENING: &str = "opening/";

/// So many openings are remembered. A store that is opened more often without ever being connected
/// is taken for an older copy.
const OPENINGS_MAX: usize = 1 << 16;

const CLUSTER: &[u8] = b"cluster";
const PARTICIPANT: &[u8] = b"participant";

/// The participant whose branches a store keeps.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// The name of its cluster.
    pub cluster: String,
    /// Its own name.
    pub participant: ParticipantName,
}

impl fmt::Display for Served {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Served {
            cluster,
            participant,
        } = self;
        write!(f, "participant {participant} of cluster {cluster}")
    }
}

impl Served {
    /// Saves it.
    pub(super) fn write(&self, keyspaces: &Keyspaces, batch: &mut Batch) {
        batch.insert(&keyspaces.meta, CLUSTER, self.cluster.as_str());
        batch.insert(&keyspaces.meta, PARTICIPANT, self.participant.as_str());
    }
}

/// See the [module](self).
pub(super) struct Meta {
    /// The openings before, in order.
    pub(super) openings: Vec<Opening>,
    /// None until the first participant has come.
    pub(super) served: Option<Served>,
}

impl Meta {
    pub(super) fn load(disk: &Disk<'_>, keyspaces: &Keyspaces) -> Result<Self, OpenError> {
        let text = |key: &[u8]| {
            let value = keyspaces.meta.get(key);
            let value = value.map_err(|error| disk.database(error))?;
            let text = |value: Slice| String::from_utf8_lossy(&value).into_owned();
            Ok::<_, OpenError>(value.map(text))
        };
        let mut openings = Vec::new();
        for guard in keyspaces.meta.prefix(OPENING) {
            let (key, nonce) = guard.into_inner().map_err(|error| disk.database(error))?;
            let opening = read_opening(&key, &nonce);
            openings.push(opening.ok_or_else(|| disk.damaged("an opening cannot be read"))?);
        }
        let served = match (text(CLUSTER)?, text(PARTICIPANT)?) {
            (None, None) => None,
            (cluster, participant) => {
                let participant = participant.and_then(|name| name.parse().ok());
                let served = cluster
                    .zip(participant)
                    .map(|(cluster, participant)| Served {
                        cluster,
                        participant,
                    });
                let missing = "the name of its participant is missing or cannot be read";
                Some(served.ok_or_else(|| disk.damaged(missing))?)
            }
        };
        Ok(Meta { openings, served })
    }
}

/// Saves a new opening after those `before`, and answers with all that are remembered. Blocks until it
/// is durable: one that was told and forgotten would make the store an older copy of itself.
pub(super) fn open_again(
    database: &Database,
    keyspaces: &Keyspaces,
    mut openings: Vec<Opening>,
) -> fjall::Result<Vec<Opening>> {
    let last = openings.last().map_or(0, |opening| opening.number);
    let opening = Opening {
        number: last.saturating_add(1),
        nonce: draw(),
    };
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    let nonce = format!("{:016x}", opening.nonce);
    batch.insert(&keyspaces.meta, key_of(opening.number), nonce);
    if openings.len() >= OPENINGS_MAX {
        let oldest = openings.remove(0);
        batch.remove(&keyspaces.meta, key_of(oldest.number));
    }
    batch.commit()?;
    openings.push(opening);
    Ok(openings)
}

/// In order of the numbers.
fn key_of(number: u64) -> String {
    format!("{OPENING}{number:020}")
}

fn read_opening(key: &[u8], nonce: &[u8]) -> Option<Opening> {
    let number = std::str::from_utf8(key).ok()?.strip_prefix(OPENING)?;
    let nonce = std::str::from_utf8(nonce).ok()?;
    Some(Opening {
        number: number.parse().ok()?,
        nonce: u64::from_str_radix(nonce, 16).ok()?,
    })
}
