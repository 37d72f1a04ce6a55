//! Whether a session may work, and why not.

use std::fmt;

use thiserror::Error;

use crate::protocol::types::{Branch, Opening, STORES_MAX, StoreId};

/// Whether a session may work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// The replicas are asked. It does nothing.
    Asking,
    /// Its participant's name stands for its store: it begins, prepares and votes.
    Entered,
    /// The name stands for another store. It finishes what its own store holds, and nothing else.
    OtherStore {
        /// The other store.
        entered: StoreId,
    },
    /// It has an older copy of its store open, or the store was opened again since: the log has an
    /// opening that it does not remember to have made. It does nothing, for good.
    OldOpening {
        /// That opening.
        seen: Opening,
    },
    /// The control log has no room for another name. It does nothing.
    TooManyNames,
}

/// A session that may not work, and why not.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct NotEntered {
    /// The session.
    pub me: Branch,
    /// What became of it.
    pub standing: Standing,
}

impl fmt::Display for NotEntered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Branch {
            participant, store, ..
        } = &self.me;
        match self.standing {
            Standing::Entered => write!(f, "participant {participant} works on store {store}"),
            Standing::Asking => write!(
                f,
                "participant {participant} on store {store} was not let in: the replicas have not \
                 answered, or agree on no leader; look at them with `paxos-commit status`"
            ),
            Standing::OtherStore { entered } => write!(
                f,
                "participant {participant} works on store {entered}, and this is store {store}: \
                 start the service on store {entered} (is its volume mounted?). If that store is \
                 lost for good, run `paxos-commit participant gone {participant} {entered}`; then \
                 the next store that starts takes its place"
            ),
            Standing::OldOpening { seen } => write!(
                f,
                "store {store} of participant {participant} does not remember its opening number \
                 {}, which worked last: this is an older copy of the store, or it was opened again \
                 elsewhere. Start the service on the store itself. If that is lost and this copy is \
                 to take its place, run `paxos-commit participant restored {participant} {store}`; \
                 what was committed after the copy was made is lost",
                seen.number
            ),
            Standing::TooManyNames => write!(
                f,
                "store {store} of participant {participant} was not let in: the cluster knows \
                 {STORES_MAX} participants, and no more; take those that are gone off its list with \
                 `paxos-commit participant gone`"
            ),
        }
    }
}

impl Standing {
    /// Whether it may finish branches of its store.
    pub(super) fn finishes(self) -> bool {
        match self {
            Standing::Entered | Standing::OtherStore { .. } => true,
            Standing::Asking | Standing::OldOpening { .. } | Standing::TooManyNames => false,
        }
    }

    /// Whether it stays as it is, whatever is heard.
    pub(super) fn is_final(self) -> bool {
        match self {
            Standing::OldOpening { .. } | Standing::TooManyNames => true,
            Standing::Asking | Standing::Entered | Standing::OtherStore { .. } => false,
        }
    }
}
