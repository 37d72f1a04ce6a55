//! What a transaction has done to this store, and the bytes in which that is saved; they are
//! described in the [module above](super#on-disk).

use std::collections::{BTreeMap, BTreeSet};

use fjall::Slice;
use thiserror::Error;

/// The format of a prepared branch.
pub(super) const VERSION: u8 = 1;

/// What a transaction has read and written here; and with that, which locks it holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Footprint {
    /// The last value of each row that it wrote; `None` deletes the row.
    pub(super) writes: BTreeMap<Slice, Option<Slice>>,
    /// The rows that it read.
    pub(super) reads: BTreeSet<Slice>,
    /// The prefixes that it scanned.
    pub(super) prefixes: BTreeSet<Slice>,
}

/// Why the bytes of a prepared branch were refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RecordError {
    /// A newer program wrote it.
    #[error("a prepared branch of version {VERSION} was expected, got version {got}")]
    Version {
        /// The version found.
        got: u8,
    },
    /// Its checksum is wrong, or its lengths do not fit.
    #[error("a prepared branch of {bytes} bytes is damaged")]
    Damaged {
        /// How long it is.
        bytes: usize,
    },
}

impl Footprint {
    /// The bytes that are saved under `key`.
    pub(super) fn encode(&self, key: &[u8]) -> Vec<u8> {
        let reads = || {
            self.reads
                .iter()
                .filter(|key| !self.writes.contains_key(&***key))
        };
        let mut bytes = vec![VERSION];
        for count in [self.writes.len(), reads().count(), self.prefixes.len()] {
            push_length(&mut bytes, count);
        }
        for (key, value) in &self.writes {
            push(&mut bytes, key);
            match value {
                None => bytes.push(0),
                Some(value) => {
                    bytes.push(1);
                    push(&mut bytes, value);
                }
            }
        }
        for key in reads().chain(&self.prefixes) {
            push(&mut bytes, key);
        }
        let checksum = checksum(key, &bytes);
        bytes.extend(checksum.to_le_bytes());
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote under the same key.
    pub(super) fn decode(key: &[u8], bytes: &[u8]) -> Result<Self, RecordError> {
        let damaged = || RecordError::Damaged { bytes: bytes.len() };
        let (body, sum) = bytes.split_last_chunk::<4>().ok_or_else(damaged)?;
        if checksum(key, body) != u32::from_le_bytes(*sum) {
            return Err(damaged());
        }
        match body.split_first() {
            Some((&VERSION, rest)) => Reader(rest).footprint().ok_or_else(damaged),
            Some((&got, _)) => Err(RecordError::Version { got }),
            None => Err(damaged()),
        }
    }
}

fn checksum(key: &[u8], body: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(key);
    crc.update(body);
    crc.finalize()
}

fn push_length(bytes: &mut Vec<u8>, length: usize) {
    let length = u32::try_from(length).expect("the limits of a transaction are far below 4 GiB");
    bytes.extend(length.to_le_bytes());
}

fn push(bytes: &mut Vec<u8>, slice: &[u8]) {
    push_length(bytes, slice.len());
    bytes.extend(slice);
}

/// Takes bytes from the front; `None` where they end too early.
struct Reader<'b>(&'b [u8]);

impl Reader<'_> {
    fn footprint(mut self) -> Option<Footprint> {
        let counts = [self.length()?, self.length()?, self.length()?];
        let mut footprint = Footprint::default();
        for _ in 0..counts[0] {
            let key = self.slice()?;
            let value = match self.byte()? {
                0 => None,
                1 => Some(self.slice()?),
                _ => return None,
            };
            footprint.writes.insert(key, value);
        }
        for _ in 0..counts[1] {
            footprint.reads.insert(self.slice()?);
        }
        for _ in 0..counts[2] {
            footprint.prefixes.insert(self.slice()?);
        }
        self.0.is_empty().then_some(footprint)
    }

    fn byte(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    fn length(&mut self) -> Option<usize> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        self.0 = rest;
        usize::try_from(u32::from_le_bytes(*length)).ok()
    }

    fn slice(&mut self) -> Option<Slice> {
        let length = self.length()?;
        let (slice, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(slice.into())
    }
}

#[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
/// A record for a fuzzer: the length of its key, the key, and what the checksum is put under.
pub(crate) fn fuzz(bytes: &[u8]) -> bool {
    let Some((length, rest)) = bytes.split_first() else {
        return false;
    };
    let Some((key, body)) = rest.split_at_checked(usize::from(*length)) else {
        return false;
    };
    let sealed = [body, &checksum(key, body).to_le_bytes()].concat();
    // As it is, it may be right too.
    let _ = Footprint::decode(key, body);
    match Footprint::decode(key, &sealed) {
        Ok(footprint) => {
            let again = footprint.encode(key);
            let Ok(decoded) = Footprint::decode(key, &again) else {
                panic!("what was encoded can be decoded");
            };
            // A row that is written is not listed as read, so what is read again may be less.
            assert_eq!(decoded.encode(key), again);
            assert_eq!(decoded.writes, footprint.writes);
            assert_eq!(decoded.prefixes, footprint.prefixes);
            true
        }
        Err(_) => false,
    }
}

/// Real ones, for it.
#[cfg(all(test, feature = "cluster", feature = "embedded"))]
pub(crate) fn fuzz_seeds() -> Vec<Vec<u8>> {
    let row = |key: &str| Slice::from(key.as_bytes());
    let footprint = Footprint {
        writes: BTreeMap::from([(row("a"), Some(row("1"))), (row("b"), None)]),
        reads: BTreeSet::from([row("c"), row("d")]),
        prefixes: BTreeSet::from([row("stock/")]),
    };
    let seed = |footprint: &Footprint| {
        let encoded = footprint.encode(b"key");
        [b"\x03key", &encoded[..encoded.len() - 4]].concat()
    };
    vec![seed(&footprint), seed(&Footprint::default())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn footprint() -> Footprint {
        Footprint {
            writes: [("k".into(), Some("vv".into())), ("gone".into(), None)].into(),
            reads: ["k".into(), "read".into()].into(),
            prefixes: ["".into()].into(),
        }
    }

    #[test]
    fn the_bytes_are_fixed() {
        let bytes = footprint().encode(b"name");
        let body = b"\x01\x02\0\0\0\x01\0\0\0\x01\0\0\0\
            \x04\0\0\0gone\0\x01\0\0\0k\x01\x02\0\0\0vv\x04\0\0\0read\0\0\0\0";
        assert_eq!(bytes[..bytes.len() - 4], body[..]);
        assert_eq!(
            bytes[bytes.len() - 4..],
            checksum(b"name", body).to_le_bytes()
        );
    }

    #[test]
    fn what_was_written_is_read() {
        let mut read = footprint();
        let bytes = read.encode(b"name");
        // Its lock is the exclusive one.
        read.reads.remove(&b"k"[..]);
        assert_eq!(Footprint::decode(b"name", &bytes), Ok(read));
        let none = Footprint::default();
        assert_eq!(Footprint::decode(b"", &none.encode(b"")), Ok(none));
    }

    #[test]
    fn damage_is_noticed() {
        let bytes = footprint().encode(b"name");
        let damaged = |bytes: &[u8]| RecordError::Damaged { bytes: bytes.len() };
        for at in 0..bytes.len() {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            assert_eq!(Footprint::decode(b"name", &flipped), Err(damaged(&flipped)));
            assert_eq!(
                Footprint::decode(b"name", &bytes[..at]),
                Err(damaged(&bytes[..at]))
            );
        }
        // Under another name it is not what was prepared there.
        assert_eq!(Footprint::decode(b"mane", &bytes), Err(damaged(&bytes)));
    }

    #[test]
    fn lengths_that_lie_and_newer_versions_are_refused() {
        let sealed = |mut body: Vec<u8>| {
            body.extend(checksum(b"", &body).to_le_bytes());
            body
        };
        let lies = sealed(b"\x01\xff\xff\xff\xff\0\0\0\0\0\0\0\0".to_vec());
        let error = RecordError::Damaged { bytes: lies.len() };
        assert_eq!(Footprint::decode(b"", &lies), Err(error));
        let rest = sealed(b"\x01\0\0\0\0\0\0\0\0\0\0\0\0rest".to_vec());
        assert!(Footprint::decode(b"", &rest).is_err());
        let newer = sealed(vec![2]);
        assert_eq!(
            Footprint::decode(b"", &newer),
            Err(RecordError::Version { got: 2 })
        );
    }
}
