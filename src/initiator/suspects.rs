//! Sessions that may be dead, although replicas still take them for connected.

use std::collections::BTreeSet;

use crate::protocol::types::Branch;

/// The most sessions that are suspected at a time.
const SUSPECTS_MAX: usize = 1_024;

/// The sessions whose last transaction here ended by a ballot: one of its votes did not come. A
/// process that was killed stays in the directory of the replicas until its connection times out;
/// meanwhile work had better go to another process of the same participant, if there is one.
#[derive(Debug, Default)]
pub(super) struct Suspects(BTreeSet<Branch>);

impl Suspects {
    /// One of these did not vote in time.
    pub(super) fn suspect(&mut self, branches: &[Branch]) {
        if self.0.len() + branches.len() > SUSPECTS_MAX {
            self.0.clear();
        }
        self.0.extend(branches.iter().cloned());
    }

    /// All of these have voted.
    pub(super) fn clear(&mut self, branches: &[Branch]) {
        for branch in branches {
            self.0.remove(branch);
        }
    }

    /// The sessions that are not suspected, or all, if every one is.
    pub(super) fn pass_over(&self, sessions: Vec<Branch>) -> Vec<Branch> {
        let good: Vec<Branch> = sessions
            .iter()
            .filter(|session| !self.0.contains(session))
            .cloned()
            .collect();
        if good.is_empty() { sessions } else { good }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::{ParticipantName, Session, StoreId};

    #[test]
    fn work_goes_to_those_who_vote() {
        let name: ParticipantName = "ledger".parse().unwrap();
        let branch = |session| Branch {
            participant: name.clone(),
            session: Session(session),
            store: StoreId::from_u128(1),
        };
        let both = || vec![branch(1), branch(2)];
        let mut suspects = Suspects::default();
        assert_eq!(suspects.pass_over(both()), both());
        suspects.suspect(&[branch(1)]);
        assert_eq!(suspects.pass_over(both()), [branch(2)]);
        // Better one that may be dead than none.
        suspects.suspect(&[branch(2)]);
        assert_eq!(suspects.pass_over(both()), both());
        suspects.clear(&[branch(1)]);
        assert_eq!(suspects.pass_over(both()), [branch(1)]);
    }

    #[test]
    fn they_have_a_limit() {
        let mut suspects = Suspects::default();
        for session in 0..3_000 {
            suspects.suspect(&[Branch {
                participant: "a".parse().unwrap(),
                session: Session(session),
                store: StoreId::from_u128(1),
            }]);
            assert!(suspects.0.len() <= SUSPECTS_MAX);
        }
    }
}
