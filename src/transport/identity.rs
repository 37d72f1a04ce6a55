//! Who a certificate says one is.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{InitiatorId, ParticipantName, Peer, Session};
use crate::random::draw;

/// The scheme of identities.
const SCHEME: &str = "paxos-commit://";

/// The bits of an [`InitiatorId`] that are drawn at random; the others come from the name.
const RANDOM_BITS: u32 = InitiatorId::RUN_BITS;

/// A name in a certificate: of a cluster, a participant, an initiator or an operator. 1 to 64 of
/// `a-z A-Z 0-9 . _ -`.
pub type Name = ParticipantName;

/// What a certificate proves: a part in a cluster. Its text form is the URI that stands in the
/// certificate, for example `paxos-commit://bank/participant/ledger`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The cluster.
    pub cluster: Name,
    /// The part.
    pub role: Role,
}

/// A part in a cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// `replica/1`: votes in every decision.
    Replica(ReplicaId),
    /// `participant/NAME`: votes for its own branches.
    Participant(Name),
    /// `initiator/NAME`: begins transactions and asks for commit.
    Initiator(Name),
    /// `operator/NAME`: looks at everything, forces aborts, changes the membership.
    Operator(Name),
}

impl Identity {
    /// Whether this identity may speak as `peer`: a replica as itself, a participant as any session
    /// of its name, an initiator under ids that are bound to its name, an operator as any.
    pub fn allows(&self, peer: &Peer) -> bool {
        match (&self.role, peer) {
            (Role::Replica(id), Peer::Replica(claimed)) => id == claimed,
            (Role::Participant(name), Peer::Session(branch)) => *name == branch.participant,
            (Role::Initiator(name), Peer::Initiator(id)) => is_bound(*id, name),
            (Role::Operator(_), Peer::Operator(_)) => true,
            (
                Role::Replica(_) | Role::Participant(_) | Role::Initiator(_) | Role::Operator(_),
                Peer::Replica(_) | Peer::Session(_) | Peer::Initiator(_) | Peer::Operator(_),
            ) => false,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/", self.cluster)?;
        match &self.role {
            Role::Replica(id) => write!(f, "replica/{id}"),
            Role::Participant(name) => write!(f, "participant/{name}"),
            Role::Initiator(name) => write!(f, "initiator/{name}"),
            Role::Operator(name) => write!(f, "operator/{name}"),
        }
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let error = || IdentityError { got: text.into() };
        let rest = text.strip_prefix(SCHEME).ok_or_else(error)?;
        let mut parts = rest.split('/');
        let mut part = || parts.next().ok_or_else(error);
        let (cluster, role, name) = (part()?, part()?, part()?);
        if parts.next().is_some() {
            return Err(error());
        }
        let named = || name.parse::<Name>().map_err(|_| error());
        let role = match role {
            "replica" => {
                let id: u32 = name.parse().map_err(|_| error())?;
                // One text for each: no sign, no leading zeros.
                if id.to_string() != name {
                    return Err(error());
                }
                Role::Replica(ReplicaId(id))
            }
            "participant" => Role::Participant(named()?),
            "initiator" => Role::Initiator(named()?),
            "operator" => Role::Operator(named()?),
            _ => return Err(error()),
        };
        let cluster = cluster.parse().map_err(|_| error())?;
        Ok(Identity { cluster, role })
    }
}

/// A text that is no identity.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected an identity like paxos-commit://CLUSTER/replica/1, or with participant/NAME, \
     initiator/NAME or operator/NAME, names of a-z A-Z 0-9 . _ -, got {got:?}"
)]
pub struct IdentityError {
    /// The text.
    pub got: String,
}

/// Draws a new session.
pub fn draw_session() -> Session {
    Session(draw())
}

/// Draws an initiator's id. Its upper 80 bits are bound to the name in the certificate, so that
/// every replica can check, without a memory of anybody, who may commit, roll back or ask; the
/// lower 48 tell the runs of that initiator apart.
pub fn draw_initiator(name: &Name) -> InitiatorId {
    let run = draw() >> (u64::BITS - RANDOM_BITS);
    InitiatorId::from_u128(binding(name) << RANDOM_BITS | u128::from(run))
}

/// Whether an initiator of this name may have drawn `id`.
pub fn is_bound(id: InitiatorId, name: &Name) -> bool {
    id.name_bits() == binding(name)
}

/// Whether both ids were drawn by initiators of one name.
pub(crate) fn are_of_one_name(one: InitiatorId, other: InitiatorId) -> bool {
    one.name_bits() == other.name_bits()
}

/// The upper bits of the ids of initiators of this name.
fn binding(name: &Name) -> u128 {
    let digest = ring::digest::digest(&ring::digest::SHA256, name.as_str().as_bytes());
    let mut first = [0; 16];
    first.copy_from_slice(&digest.as_ref()[..16]);
    u128::from_be_bytes(first) >> RANDOM_BITS
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::Branch;
    use crate::protocol::types::StoreId;

    fn identity(text: &str) -> Identity {
        text.parse().unwrap()
    }

    #[test]
    fn identities_have_one_text_form() {
        for text in [
            "paxos-commit://bank/replica/1",
            "paxos-commit://bank/participant/ledger",
            "paxos-commit://bank/initiator/shop.eu",
            "paxos-commit://bank/operator/anna",
        ] {
            assert_eq!(identity(text).to_string(), text);
        }
        for text in [
            "",
            "https://bank/replica/1",
            "paxos-commit://bank/replica/01",
            "paxos-commit://bank/replica/+1",
            "paxos-commit://bank/replica",
            "paxos-commit://bank/replica/1/2",
            "paxos-commit:///replica/1",
            "paxos-commit://bank/leader/1",
            "paxos-commit://bank/participant/",
        ] {
            let error = text.parse::<Identity>().unwrap_err();
            assert!(error.to_string().contains(&format!("{text:?}")));
        }
    }

    #[test]
    fn an_identity_allows_its_own_part_only() {
        let session = |name: &str| {
            Peer::Session(Branch {
                participant: name.parse().unwrap(),
                session: draw_session(),
                store: StoreId::from_u128(1),
            })
        };
        let (shop, bank) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let peers = [
            Peer::Replica(ReplicaId(1)),
            session("ledger"),
            Peer::Initiator(draw_initiator(&shop)),
            Peer::Operator(3),
        ];
        let others = [
            Peer::Replica(ReplicaId(2)),
            session("stock"),
            Peer::Initiator(draw_initiator(&bank)),
        ];
        let texts = [
            "replica/1",
            "participant/ledger",
            "initiator/shop",
            "operator/anna",
        ];
        for (i, text) in texts.iter().enumerate() {
            let identity = identity(&format!("paxos-commit://c/{text}"));
            for (j, peer) in peers.iter().enumerate() {
                assert_eq!(identity.allows(peer), i == j, "{identity} as {peer}");
            }
            for peer in &others {
                assert!(!identity.allows(peer), "{identity} as {peer}");
            }
        }
    }

    #[test]
    fn runs_of_one_initiator_share_the_bits_of_its_name() {
        let (shop, bank) = ("shop".parse().unwrap(), "bank".parse().unwrap());
        let (one, two) = (draw_initiator(&shop), draw_initiator(&shop));
        assert_ne!(one, two);
        assert!(are_of_one_name(one, two));
        assert!(is_bound(one, &shop) && !is_bound(one, &bank));
        assert!(!are_of_one_name(one, draw_initiator(&bank)));
        // Golden: replicas of two versions must agree on what is bound.
        assert_eq!(one.name_bits(), 0x8d90_01d3_2c6a_703d_9592);
    }
}
