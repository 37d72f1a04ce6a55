//! Which sessions of a participant are connected, as replicas have told lately.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::protocol::types::{Branch, ParticipantName};

/// What is older is not used any more. A service that was restarted takes longer to come back; whoever
/// is sent to its last session meanwhile waits for a vote that does not come.
const USED: Duration = Duration::from_millis(15);

/// What is older is used, and asked for again after the commit for which it was.
pub(super) const FRESH: Duration = Duration::from_millis(5);

/// The most participants about which something is remembered.
pub(super) const LATELY_MAX: usize = 1_024;

/// The last answers. A request that names a participant need not wait for a question and its answer:
/// while there are requests, these are some milliseconds old.
#[derive(Debug, Default)]
pub(super) struct Lately(BTreeMap<ParticipantName, (Vec<Branch>, Instant)>);

/// What is known of a participant.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// It need not be asked for.
    Fresh(Vec<Branch>),
    /// It can be used, but ask for it.
    Old(Vec<Branch>),
    /// Nothing.
    No,
}

impl Lately {
    /// A replica has told that these are connected.
    pub(super) fn told(&mut self, name: ParticipantName, sessions: Vec<Branch>, now: Instant) {
        if self.0.len() >= LATELY_MAX {
            self.0.clear();
        }
        self.0.insert(name, (sessions, now));
    }

    /// What is known now.
    pub(super) fn known(&self, name: &ParticipantName, now: Instant) -> Known {
        match self.0.get(name) {
            Some((sessions, told)) if now - *told < FRESH => Known::Fresh(sessions.clone()),
            Some((sessions, told)) if now - *told < USED => Known::Old(sessions.clone()),
            Some(_) | None => Known::No,
        }
    }

    /// Something went wrong with one of its sessions: perhaps that has gone.
    pub(super) fn forget(&mut self, name: &ParticipantName) {
        self.0.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{Session, StoreId};

    fn branch(session: u64) -> Branch {
        Branch {
            participant: "ledger".parse().unwrap(),
            session: Session(session),
            store: StoreId::from_u128(1),
        }
    }

    #[test]
    fn what_was_told_is_used_for_a_while() {
        let (name, told) = ("ledger".parse::<ParticipantName>().unwrap(), Instant::now());
        let sessions = || vec![branch(1), branch(2)];
        let mut lately = Lately::default();
        assert_eq!(lately.known(&name, told), Known::No);
        lately.told(name.clone(), sessions(), told);
        assert_eq!(lately.known(&name, told), Known::Fresh(sessions()));
        assert_eq!(lately.known(&name, told + FRESH), Known::Old(sessions()));
        assert_eq!(lately.known(&name, told + USED), Known::No);
        lately.told(name.clone(), vec![branch(2)], told + USED);
        let known = lately.known(&name, told + USED);
        assert_eq!(known, Known::Fresh(vec![branch(2)]));
        lately.forget(&"other".parse().unwrap());
        assert_eq!(lately.known(&name, told + USED), known);
        lately.forget(&name);
        assert_eq!(lately.known(&name, told + USED), Known::No);
    }

    #[test]
    fn it_has_a_limit() {
        let mut lately = Lately::default();
        for number in 0..3_000 {
            let name = format!("p{number}").parse().unwrap();
            lately.told(name, vec![branch(1)], Instant::now());
            assert!(lately.0.len() <= LATELY_MAX);
        }
    }
}
