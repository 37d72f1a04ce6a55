//! The identity of a participant's store.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::wide::Wide;

/// The identity of the store in which a participant keeps its state: 128 bits, drawn at random when
/// the store is created and kept inside it.
///
/// A name stands for a service, not for its data: a volume that is not mounted, a second copy of a
/// deployment or a restored backup has the same name and other data. (Counter-example: a service
/// prepares a branch and crashes. It starts on an empty directory and is told to commit. Nothing
/// stands prepared there, so the commit counts as done; the right directory comes back and its row
/// is lost.) The text form is 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StoreId(Wide);

impl StoreId {
    /// The identity that has this value.
    pub const fn from_u128(value: u128) -> Self {
        StoreId(Wide::from_u128(value))
    }

    /// The identity as bytes.
    pub const fn to_be_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }
}

impl From<[u8; 16]> for StoreId {
    fn from(bytes: [u8; 16]) -> Self {
        StoreId(Wide::from(bytes))
    }
}

impl fmt::Display for StoreId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl FromStr for StoreId {
    type Err = StoreIdError;

    fn from_str(text: &str) -> Result<Self, StoreIdError> {
        let error = || StoreIdError { got: text.into() };
        let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() != 32 || !text.bytes().all(lower) {
            return Err(error());
        }
        let value = u128::from_str_radix(text, 16).map_err(|_| error())?;
        Ok(StoreId::from_u128(value))
    }
}

/// One opening of a store that counts its openings durably.
///
/// A store that comes with a number which was seen before, of another opening, is an older copy of
/// itself: a directory that was copied while the original went on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Opening {
    /// Higher than all before.
    pub number: u64,
    /// Drawn at random when the store was opened: it tells two openings of one number apart.
    pub nonce: u64,
}

/// A text that is no identity of a store.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("expected the identity of a store, 32 hexadecimal digits in lower case, got {got:?}")]
pub struct StoreIdError {
    /// The text.
    pub got: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_reads_back_from_text_and_bytes() {
        let id = StoreId::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        assert_eq!(id.to_string(), "00112233445566778899aabbccddeeff");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(StoreId::from(id.to_be_bytes()), id);
        for text in [
            "",
            "00112233445566778899aabbccddeef",
            "00112233445566778899aabbccddeefff",
            "00112233445566778899AABBCCDDEEFF",
            "+0112233445566778899aabbccddeeff",
        ] {
            let error = text.parse::<StoreId>().unwrap_err();
            assert_eq!(error, StoreIdError { got: text.into() });
        }
    }
}
