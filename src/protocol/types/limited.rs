//! Lists with a limit, from peers: what is beyond it is not even read.

use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// For so many items there is room from the start.
const SAID_MAX: usize = 8;

/// For `deserialize_with`: a list of at most `MAX` items. (An item can be as short as one byte on
/// the wire and many times as long in memory; so a frame that is all list would be a large one.)
pub(crate) fn limited<'de, D, T, const MAX: usize>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_seq(Limited::<T, MAX>(PhantomData))
}

struct Limited<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for Limited<T, MAX> {
    type Value = Vec<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a list of at most {MAX}")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<T>, A::Error> {
        // The peer says how many there are; it need not be true.
        let said = list.size_hint().unwrap_or(0);
        let mut items = Vec::with_capacity(said.min(SAID_MAX).min(MAX));
        while let Some(item) = list.next_element()? {
            if items.len() == MAX {
                return Err(A::Error::invalid_length(MAX + 1, &self));
            }
            items.push(item);
        }
        Ok(items)
    }
}
