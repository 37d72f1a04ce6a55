//! A small set of positions.

use std::ops::{BitAnd, BitOr, Not};

/// A set of numbers below [`Bits::PLACES`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bits([u64; 4]);

impl Bits {
    const PLACES: usize = 256;

    pub(super) fn one(place: usize) -> Self {
        assert!(place < Bits::PLACES, "a set has {} places", Bits::PLACES);
        let mut words = [0; 4];
        words[place / 64] = 1 << (place % 64);
        Bits(words)
    }

    pub(super) fn is_empty(self) -> bool {
        self == Bits::default()
    }

    pub(super) fn iter(self) -> impl Iterator<Item = usize> {
        (0..4).flat_map(move |word| {
            let mut rest = self.0[word];
            std::iter::from_fn(move || {
                let bit = rest.trailing_zeros() as usize;
                (bit < 64).then(|| {
                    rest &= rest - 1;
                    word * 64 + bit
                })
            })
        })
    }
}

impl BitOr for Bits {
    type Output = Bits;

    fn bitor(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|word| self.0[word] | other.0[word]))
    }
}

impl BitAnd for Bits {
    type Output = Bits;

    fn bitand(self, other: Bits) -> Bits {
        Bits(std::array::from_fn(|word| self.0[word] & other.0[word]))
    }
}

impl Not for Bits {
    type Output = Bits;

    fn not(self) -> Bits {
        Bits(self.0.map(|word| !word))
    }
}
