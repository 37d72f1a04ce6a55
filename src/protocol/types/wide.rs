//! 128 bits in two halves.

use std::fmt;

use serde::{Deserialize, Serialize};

/// 128 bits that sort as a number does. Two halves and not a `u128`, whose alignment of 16 bytes
/// would make every message larger; 16 bytes on the wire and on disk.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(from = "[u8; 16]", into = "[u8; 16]")]
pub(super) struct Wide {
    high: u64,
    low: u64,
}

impl Wide {
    pub(super) const MIN: Wide = Wide::from_u128(0);
    pub(super) const MAX: Wide = Wide::from_u128(u128::MAX);

    pub(super) const fn from_u128(value: u128) -> Self {
        Wide {
            high: (value >> 64) as u64,
            low: value as u64,
        }
    }

    pub(super) const fn to_u128(self) -> u128 {
        (self.high as u128) << 64 | self.low as u128
    }

    pub(super) const fn to_be_bytes(self) -> [u8; 16] {
        self.to_u128().to_be_bytes()
    }
}

impl From<[u8; 16]> for Wide {
    fn from(bytes: [u8; 16]) -> Self {
        Wide::from_u128(u128::from_be_bytes(bytes))
    }
}

impl From<Wide> for [u8; 16] {
    fn from(wide: Wide) -> Self {
        wide.to_be_bytes()
    }
}

impl fmt::Debug for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for Wide {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.to_u128())
    }
}
