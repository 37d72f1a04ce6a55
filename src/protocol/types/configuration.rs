//! Which replicas decide, and where they are.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use thiserror::Error;

use crate::protocol::paxos::{Acceptors, AcceptorsError, ReplicaId};

/// The longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Where a replica can be reached, as its transport understands it: a host and a port. Never an
/// identity. Empty where the transport knows by other means.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Address(Arc<str>);

impl Address {
    /// The address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.len() > ADDRESS_BYTES_MAX {
            return Err(AddressError { bytes: text.len() });
        }
        Ok(Address(text.into()))
    }
}

impl TryFrom<String> for Address {
    type Error = AddressError;

    fn try_from(text: String) -> Result<Self, AddressError> {
        text.parse()
    }
}

impl From<Address> for String {
    fn from(address: Address) -> String {
        address.0.as_ref().to_owned()
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text that is no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an address has at most {ADDRESS_BYTES_MAX} bytes, got {bytes}")]
pub struct AddressError {
    /// How long it is.
    pub bytes: usize,
}

/// One replica of a configuration.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Member {
    /// Its name, which no other replica ever had or will have.
    pub id: ReplicaId,
    /// Where it is.
    pub address: Address,
}

/// The 2F+1 replicas that decide the transactions of a generation, and their addresses.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "Vec<Member>", into = "Vec<Member>")]
pub struct Configuration {
    acceptors: Acceptors,
    /// In the order of the acceptors.
    addresses: Arc<[Address]>,
}

impl Configuration {
    /// Makes a configuration.
    ///
    /// # Errors
    /// When the number of members is not 2F+1 for an F that is supported, or an id stands twice.
    pub fn new(members: impl IntoIterator<Item = Member>) -> Result<Self, AcceptorsError> {
        let mut members: Vec<Member> = members.into_iter().collect();
        members.sort_unstable();
        let acceptors = Acceptors::new(members.iter().map(|member| member.id))?;
        let addresses = members.into_iter().map(|member| member.address).collect();
        Ok(Configuration {
            acceptors,
            addresses,
        })
    }

    /// The acceptors of every instance that runs on it.
    pub fn acceptors(&self) -> &Acceptors {
        &self.acceptors
    }

    /// Its members, in order.
    pub fn members(&self) -> impl Iterator<Item = Member> + '_ {
        let members = self.acceptors.iter().zip(self.addresses.iter());
        members.map(|(id, address)| Member {
            id,
            address: address.clone(),
        })
    }

    /// A stable digest: the first half of SHA-256 over its members.
    pub fn digest(&self) -> ConfigurationDigest {
        let mut hash = Sha256::new();
        hash.update(b"paxos-commit configuration 1\0");
        for Member { id, address } in self.members() {
            hash.update(id.0.to_be_bytes());
            hash.update([address.as_str().len() as u8]);
            hash.update(address.as_str().as_bytes());
        }
        let mut half = [0; 16];
        half.copy_from_slice(&hash.finalize()[..16]);
        ConfigurationDigest(u128::from_be_bytes(half))
    }
}

impl From<Acceptors> for Configuration {
    /// A configuration whose addresses are known by other means.
    fn from(acceptors: Acceptors) -> Self {
        let addresses = acceptors.iter().map(|_| Address::default()).collect();
        Configuration {
            acceptors,
            addresses,
        }
    }
}

impl TryFrom<Vec<Member>> for Configuration {
    type Error = AcceptorsError;

    fn try_from(members: Vec<Member>) -> Result<Self, AcceptorsError> {
        Configuration::new(members)
    }
}

impl From<Configuration> for Vec<Member> {
    fn from(configuration: Configuration) -> Self {
        configuration.members().collect()
    }
}

/// A stable digest of a configuration, by which two processes see that they speak of the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigurationDigest(u128);

impl fmt::Display for ConfigurationDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u32, address: &str) -> Member {
        Member {
            id: ReplicaId(id),
            address: address.parse().unwrap(),
        }
    }

    #[test]
    fn members_are_sorted_and_keep_their_addresses() {
        let given = [member(3, "c:1"), member(1, "a:1"), member(2, "b:1")];
        let configuration = Configuration::new(given).unwrap();
        let members: Vec<Member> = configuration.members().collect();
        assert_eq!(
            members,
            [member(1, "a:1"), member(2, "b:1"), member(3, "c:1")]
        );
        assert_eq!(configuration.acceptors().len(), 3);
        let two = Configuration::new([member(1, ""), member(2, "")]).unwrap_err();
        assert_eq!(two, AcceptorsError::Count { got: 2 });
    }

    #[test]
    fn the_digest_is_stable_and_tells_configurations_apart() {
        let of = |members: &[Member]| Configuration::new(members.iter().cloned()).unwrap();
        let one = of(&[member(1, "a:1")]);
        // A golden digest: a change would make processes of two versions refuse each other.
        assert_eq!(one.digest().to_string(), "447600e7779904b86615f75b0a1c307d");
        for other in [
            of(&[member(2, "a:1")]),
            of(&[member(1, "a:2")]),
            of(&[member(1, "a:1"), member(2, "a:1"), member(3, "a:1")]),
        ] {
            assert_ne!(one.digest(), other.digest());
        }
        assert_eq!(one.digest(), of(&[member(1, "a:1")]).digest());
    }

    #[test]
    fn addresses_have_a_limit() {
        let long = "x".repeat(256).parse::<Address>();
        assert_eq!(long, Err(AddressError { bytes: 256 }));
        let longest = "x".repeat(255).parse::<Address>().unwrap();
        assert_eq!(longest.to_string().len(), 255);
        assert_eq!(String::from(longest.clone()), longest.as_str());
    }
}
