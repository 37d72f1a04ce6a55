//! Which store each participant's name stands for, by the control log.

use std::collections::BTreeMap;
use std::ops::Bound;

use serde::{Deserialize, Serialize};

use super::branch::ParticipantName;
use super::entry::Entry;
use super::store::{Opening, StoreId};

/// The most names that the log enters. A cluster has as many participants' certificates at most.
pub const STORES_MAX: usize = 1 << 16;

/// The store that a participant's name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entered {
    /// Only sessions of this store begin, prepare and vote under the name.
    pub store: StoreId,
    /// And only those of this opening, if the store counts its openings. None, too, when an operator
    /// has said that the store was restored from a copy: the next opening is entered, whichever it is.
    pub opening: Option<Opening>,
}

/// A store, or an opening of one, that is to be entered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Entering {
    /// The name.
    pub participant: ParticipantName,
    /// The store.
    pub store: StoreId,
    /// The opening, if the store counts them.
    pub opening: Option<Opening>,
    /// The opening that the log has, and that this store remembers to have made. None if the log has
    /// none.
    pub after: Option<Opening>,
}

/// What the entries of the control log say of stores.
///
/// (Counter-example to keeping identities in the memories of replicas: each of two stores of one name
/// has an unfinished branch at some replica, and every replica refuses both of them for ever.)
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Stores(BTreeMap<ParticipantName, Entered>);

impl Stores {
    /// The store that `participant` stands for; none if no store has presented itself.
    pub fn get(&self, participant: &ParticipantName) -> Option<Entered> {
        self.0.get(participant).copied()
    }

    /// The names after `after` and their stores, in order.
    pub fn after(
        &self,
        after: Option<&ParticipantName>,
    ) -> impl Iterator<Item = (&ParticipantName, Entered)> + '_ {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let range = (start, Bound::Unbounded);
        let range = self.0.range::<ParticipantName, _>(range);
        range.map(|(name, entered)| (name, *entered))
    }

    /// Whether no further name is entered.
    pub fn is_full(&self) -> bool {
        self.0.len() >= STORES_MAX
    }

    /// Whether an entry that enters this has any effect.
    ///
    /// An opening is entered only if its store remembers the one that the log has. (Counter-example to
    /// a number that must be higher than the last: the store is at its tenth opening. An older copy
    /// of it is started again and again by a supervisor, is refused, and counts itself up to 11.
    /// Then it is let in, and the store itself is refused.)
    pub fn admits(&self, entering: &Entering) -> bool {
        match self.get(&entering.participant) {
            None => entering.after.is_none() && !self.is_full(),
            Some(entered) => {
                entered.store == entering.store
                    && entered.opening == entering.after
                    && entering.opening != entered.opening
            }
        }
    }

    /// Takes what a chosen entry says, and answers with the names of which it says anything new.
    pub fn apply(&mut self, entry: &Entry) -> Vec<ParticipantName> {
        match entry {
            Entry::Enter { stores } => {
                let mut names = Vec::new();
                for entering in stores {
                    if self.admits(entering) {
                        let entered = Entered {
                            store: entering.store,
                            opening: entering.opening,
                        };
                        self.0.insert(entering.participant.clone(), entered);
                        names.push(entering.participant.clone());
                    }
                }
                names
            }
            Entry::Gone { participant, store } => {
                let is_it = self.0.get(participant).is_some_and(|it| it.store == *store);
                if is_it {
                    self.0.remove(participant);
                }
                is_it.then(|| participant.clone()).into_iter().collect()
            }
            Entry::Restored { participant, store } => match self.0.get_mut(participant) {
                Some(entered) if entered.store == *store => {
                    entered.opening = None;
                    vec![participant.clone()]
                }
                Some(_) | None => Vec::new(),
            },
            Entry::Open(_) | Entry::Settle(_) | Entry::Release { .. } | Entry::Unlist { .. } => {
                Vec::new()
            }
        }
    }
}

impl FromIterator<(ParticipantName, Entered)> for Stores {
    fn from_iter<I: IntoIterator<Item = (ParticipantName, Entered)>>(entered: I) -> Self {
        Stores(entered.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> ParticipantName {
        text.parse().unwrap()
    }

    fn opening(number: u64) -> Option<Opening> {
        let nonce = 100 + number;
        Some(Opening { number, nonce })
    }

    fn enter(store: u128, opening: Option<Opening>, after: Option<Opening>) -> Entry {
        let stores = vec![Entering {
            participant: name("bank"),
            store: StoreId::from_u128(store),
            opening,
            after,
        }];
        Entry::Enter { stores }
    }

    fn gone(store: u128) -> Entry {
        Entry::Gone {
            participant: name("bank"),
            store: StoreId::from_u128(store),
        }
    }

    fn restored(store: u128) -> Entry {
        Entry::Restored {
            participant: name("bank"),
            store: StoreId::from_u128(store),
        }
    }

    #[test]
    fn the_first_store_of_a_name_is_entered_and_stays_until_it_is_gone() {
        let mut stores = Stores::default();
        let of = |stores: &Stores| stores.get(&name("bank")).map(|entered| entered.store);
        assert_eq!(stores.apply(&enter(1, None, None)), [name("bank")]);
        assert_eq!(stores.apply(&enter(2, None, None)), []);
        assert_eq!(of(&stores), Some(StoreId::from_u128(1)));
        assert_eq!(stores.apply(&gone(2)), [], "another one is gone");
        assert_eq!(of(&stores), Some(StoreId::from_u128(1)));
        assert_eq!(stores.apply(&gone(1)), [name("bank")]);
        assert_eq!(of(&stores), None);
        assert_eq!(stores.apply(&enter(2, None, None)), [name("bank")]);
        assert_eq!(of(&stores), Some(StoreId::from_u128(2)));
    }

    #[test]
    fn an_opening_is_entered_after_the_one_that_the_log_has() {
        let mut stores = Stores::default();
        stores.apply(&enter(1, opening(3), None));
        for wrong in [
            enter(1, opening(9), None),
            enter(1, opening(9), opening(2)),
            enter(2, opening(4), opening(3)),
            enter(1, opening(3), opening(3)),
        ] {
            assert_eq!(stores.apply(&wrong), [], "{wrong:?}");
        }
        let next = enter(1, opening(4), opening(3));
        assert_eq!(stores.apply(&next), [name("bank")]);
        assert_eq!(stores.apply(&next), [], "twice");
    }

    #[test]
    fn after_a_restoration_any_opening_of_the_store_is_entered() {
        let mut stores = Stores::default();
        assert_eq!(stores.apply(&restored(1)), []);
        stores.apply(&enter(1, opening(9), None));
        assert_eq!(stores.apply(&restored(2)), [], "another store");
        assert_eq!(stores.apply(&restored(1)), [name("bank")]);
        assert_eq!(stores.apply(&enter(1, opening(4), None)), [name("bank")]);
        assert_eq!(stores.get(&name("bank")).unwrap().opening, opening(4));
    }

    #[test]
    fn names_come_in_pages() {
        let stores: Stores = ["a", "b", "c"]
            .map(|text| {
                let store = StoreId::from_u128(7);
                let opening = None;
                (name(text), Entered { store, opening })
            })
            .into_iter()
            .collect();
        let names = |after: Option<&str>| -> Vec<String> {
            let after = after.map(name);
            let page = stores.after(after.as_ref());
            page.map(|(name, _)| name.to_string()).collect()
        };
        assert_eq!(names(None), ["a", "b", "c"]);
        assert_eq!(names(Some("b")), ["c"]);
        assert_eq!(names(Some("c")), [] as [String; 0]);
    }
}
