//! Who a data directory belongs to.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::Configuration;

/// The version of everything in a data directory that this program writes, and the highest that it
/// reads.
pub const FORMAT: u32 = 1;

/// The longest name of a cluster, in bytes.
pub const CLUSTER_BYTES_MAX: usize = 64;

/// The first line, for whoever looks at the file.
const MAGIC: &[u8] = b"paxos-commit replica identity\n";

/// Who a replica is: made once, by an explicit `init`, and never changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Identity {
    /// The version of what is in the directory.
    pub format: u32,
    /// The name of the cluster.
    pub cluster: String,
    /// The name of the replica, which no other ever had or will have.
    pub replica: ReplicaId,
    /// The first configuration, for the first replicas of a cluster. One that joins has none.
    pub genesis: Option<Configuration>,
    /// The key of stateless resets: with another one, peers of a replica that crashed would wait
    /// until they give their connections up.
    #[serde(with = "key_as_bytes")]
    pub reset_key: [u8; 64],
}

impl Identity {
    /// A new identity, in the format that this program writes.
    ///
    /// # Errors
    /// When the cluster's name is none.
    pub fn new(
        cluster: impl Into<String>,
        replica: ReplicaId,
        genesis: Option<Configuration>,
        reset_key: [u8; 64],
    ) -> Result<Self, ClusterNameError> {
        let cluster = cluster.into();
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=CLUSTER_BYTES_MAX).contains(&cluster.len()) || !cluster.bytes().all(allowed) {
            return Err(ClusterNameError { got: cluster });
        }
        Ok(Identity {
            format: FORMAT,
            cluster,
            replica,
            genesis,
            reset_key,
        })
    }

    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let content = postcard::to_stdvec(self)
            .expect("an identity is plain data, which postcard always encodes");
        Self::framed(self.format, &content)
    }

    fn framed(format: u32, content: &[u8]) -> Vec<u8> {
        let crc = crc32fast::hash(content).to_be_bytes();
        [MAGIC, &format.to_be_bytes(), &crc, content].concat()
    }

    /// A file with this content, whatever it is, and nothing wrong before it.
    #[cfg(all(any(test, fuzzing), feature = "cluster", feature = "embedded"))]
    pub(super) fn sealed(content: &[u8]) -> Vec<u8> {
        Self::framed(FORMAT, content)
    }

    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self, IdentityError> {
        let rest = bytes.strip_prefix(MAGIC).ok_or(IdentityError::Damaged)?;
        let (format, rest) = rest.split_first_chunk().ok_or(IdentityError::Damaged)?;
        // Before anything else: of what a newer program writes, only this much is known.
        let format = u32::from_be_bytes(*format);
        if format > FORMAT {
            return Err(IdentityError::Newer { format });
        }
        let (crc, content) = rest.split_first_chunk().ok_or(IdentityError::Damaged)?;
        if u32::from_be_bytes(*crc) != crc32fast::hash(content) {
            return Err(IdentityError::Damaged);
        }
        match postcard::take_from_bytes::<Identity>(content) {
            Ok((identity, [])) if identity.format == format => Ok(identity),
            Ok((_, _)) | Err(_) => Err(IdentityError::Damaged),
        }
    }

    pub(super) fn read(path: &Path) -> Result<Self, IdentityError> {
        Self::from_bytes(&fs::read(path)?)
    }

    /// All of the file is there, or nothing of it.
    pub(super) fn write(&self, path: &Path) -> io::Result<()> {
        let temporary = path.with_extension("new");
        // The reset key is a secret.
        let mut options = OpenOptions::new();
        let mut file: File = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(&self.to_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity {
            format,
            cluster,
            replica,
            genesis,
            reset_key: _,
        } = self;
        f.debug_struct("Identity")
            .field("format", format)
            .field("cluster", cluster)
            .field("replica", replica)
            .field("genesis", genesis)
            .finish_non_exhaustive()
    }
}

/// A text that is no name of a cluster.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "a cluster's name has 1 to {CLUSTER_BYTES_MAX} bytes and is made of a-z A-Z 0-9 . _ -, got \
     {got:?}"
)]
pub struct ClusterNameError {
    /// The text.
    pub got: String,
}

/// Why an identity file was not read.
#[derive(Debug, Error)]
pub(super) enum IdentityError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("damaged")]
    Damaged,
    #[error("format {format}")]
    Newer { format: u32 },
}

/// serde knows arrays of up to 32 elements.
mod key_as_bytes {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(
        key: &[u8; 64],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        key.as_slice().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<[u8; 64], D::Error> {
        let key: Vec<u8> = Vec::deserialize(deserializer)?;
        let length = |key: Vec<u8>| D::Error::invalid_length(key.len(), &"64 bytes");
        key.try_into().map_err(length)
    }
}

#[cfg(test)]
mod tests {
    use crate::protocol::paxos::Acceptors;

    use super::*;

    fn identity() -> Identity {
        let acceptors = Acceptors::new([1, 2, 3].map(ReplicaId)).unwrap();
        Identity::new("shop-eu.1", ReplicaId(2), Some(acceptors.into()), [7; 64]).unwrap()
    }

    #[test]
    fn names_of_clusters_have_a_limit_and_an_alphabet() {
        let of = |name: &str| Identity::new(name, ReplicaId(1), None, [0; 64]);
        assert!(of("Shop_eu-west.1").is_ok() && of(&"x".repeat(64)).is_ok());
        for name in ["", "a b", "a/b", "é", &"x".repeat(65)] {
            assert_eq!(of(name).unwrap_err().got, name);
        }
    }

    #[test]
    fn bytes_read_back_and_begin_with_a_line_of_text() {
        let bytes = identity().to_bytes();
        assert!(bytes.starts_with(b"paxos-commit replica identity\n\0\0\0\x01"));
        assert_eq!(Identity::from_bytes(&bytes).unwrap(), identity());
        assert!(!format!("{:?}", identity()).contains("reset_key"));
    }

    #[test]
    fn every_damaged_byte_is_noticed() {
        let bytes = identity().to_bytes();
        for at in 0..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x40;
            let error = Identity::from_bytes(&damaged).unwrap_err();
            let is_format = (MAGIC.len()..MAGIC.len() + 4).contains(&at);
            match error {
                IdentityError::Damaged => assert!(!is_format),
                IdentityError::Newer { .. } => assert!(is_format),
                IdentityError::Io(error) => panic!("{error}"),
            }
        }
        for end in 0..bytes.len() {
            let error = Identity::from_bytes(&bytes[..end]).unwrap_err();
            assert!(matches!(error, IdentityError::Damaged));
        }
    }
}
