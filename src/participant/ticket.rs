//! What services and initiators hand to each other, as text.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::message::Prepare;
use crate::protocol::types::{Branch, CommitId, ReadOnly, Roster, TxnId};

/// A branch, as its service hands it back to the caller: that session works under that transaction.
///
/// Its text form, `transaction@participant/session/store`, goes into a header or a field of an
/// answer:
/// `00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@ledger/00000000deadbeef/00112233445566778899aabbccddeeff`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ticket {
    /// The transaction.
    pub txn: TxnId,
    /// The session that works under it.
    pub branch: Branch,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.txn, self.branch)
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let error = || TicketError { got: text.into() };
        let (txn, branch) = text.split_once('@').ok_or_else(error)?;
        Ok(Ticket {
            txn: txn.parse().map_err(|_| error())?,
            branch: branch.parse().map_err(|_| error())?,
        })
    }
}

/// A text that is no ticket or plan.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "expected a ticket (transaction@participant/session/store) like \
     00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@ledger/00000000deadbeef/\
     00112233445566778899aabbccddeeff, or a plan as the initiator made it, got {got:?}"
)]
pub struct TicketError {
    /// The text.
    pub got: String,
}

/// The whole roster of a transaction, for services that prepare by themselves as the last step of
/// their work: that saves one message delay. Made by
/// [`Transaction::plan`](crate::initiator::Transaction::plan); its text form is hexadecimal.
///
/// Once a plan has left the initiator, the transaction ends in an outcome only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    pub(crate) id: CommitId,
    pub(crate) roster: Roster,
    pub(crate) vote_timeout: Duration,
}

impl Plan {
    /// The instance that decides the transaction.
    pub fn id(&self) -> CommitId {
        self.id
    }

    /// Some plan, for tests.
    #[cfg(all(test, feature = "cluster", feature = "embedded"))]
    pub(crate) fn example(id: CommitId, roster: Roster) -> Self {
        Plan {
            id,
            roster,
            vote_timeout: Duration::from_secs(1),
        }
    }

    /// What the initiator's relay would have sent.
    pub(crate) fn prepare(self) -> Prepare {
        Prepare {
            id: self.id,
            roster: self.roster,
            request: None,
            // Other branches may still work.
            read_only: ReadOnly::Forbidden,
            // Sessions believe the floor of a relay only: a relay has checked the owner.
            floor: 0,
            vote_timeout: self.vote_timeout,
        }
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = postcard::to_stdvec(self).map_err(|_| fmt::Error)?;
        bytes.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Plan {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        let error = || TicketError { got: text.into() };
        let digits = text.as_bytes();
        if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
            return Err(error());
        }
        let pairs = digits.chunks_exact(2);
        let pairs = pairs.map(|pair| {
            let pair = std::str::from_utf8(pair).map_err(|_| error())?;
            u8::from_str_radix(pair, 16).map_err(|_| error())
        });
        let bytes: Vec<u8> = pairs.collect::<Result<_, _>>()?;
        let plan: Plan = postcard::from_bytes(&bytes).map_err(|_| error())?;
        if CommitId::new(plan.id.txn, &plan.roster) != plan.id {
            return Err(error());
        }
        Ok(plan)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::RosterDigest;

    const TICKET: &str = "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@\
                          ledger/00000000deadbeef/00112233445566778899aabbccddeeff";

    #[test]
    fn a_ticket_reads_back() {
        let ticket: Ticket = TICKET.parse().unwrap();
        assert_eq!(ticket.branch.participant.as_str(), "ledger");
        assert_eq!(ticket.to_string(), TICKET);
        for wrong in [
            "",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@ledger",
            "00000001-00c0ffee00c0ffee00c0ffee00c0ffee-0000002a-0123456789abcdef@ledger/deadbeef",
            "x@ledger/00000000deadbeef/00112233445566778899aabbccddeeff",
        ] {
            let error = wrong.parse::<Ticket>().unwrap_err();
            assert!(error.to_string().contains(&format!("{wrong:?}")));
        }
    }

    #[test]
    fn a_plan_reads_back_and_must_fit_its_roster() {
        let ticket: Ticket = TICKET.parse().unwrap();
        let roster = Roster::new([ticket.branch]).unwrap();
        let mut plan = Plan {
            id: CommitId::new(ticket.txn, &roster),
            roster,
            vote_timeout: Duration::from_secs(1),
        };
        assert_eq!(plan.to_string().parse(), Ok(plan.clone()));
        plan.id.roster = RosterDigest::MIN;
        assert!(plan.to_string().parse::<Plan>().is_err());
        for wrong in ["", "0", "zz", "00"] {
            assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
        }
    }
}
