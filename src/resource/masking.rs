//! Masked ids: what the names inside a database show of a transaction's id.
//!
//! An id entitles its holder to take part in the transaction, since its nonce is drawn at random.
//! Every role of a database server can list the names of prepared transactions. So a name carries a
//! masked nonce, and only the owner of the key reads the nonce back.

use std::fmt;

use ring::hmac;
use sha2::{Digest, Sha256};

use crate::protocol::types::{COMMIT_ID_BYTES, CommitId, RosterDigest, TXN_ID_BYTES, TxnId};

/// How many bytes a key has.
pub(crate) const KEY_BYTES: usize = 32;

/// Four rounds make a permutation that looks random without the key (Luby and Rackoff, 1988).
const ROUNDS: u8 = 4;

/// Replaces nonces by others, and reads them back.
///
/// Generation, initiator and sequence stay as they are, so masked ids sort as ids do, up to the
/// nonce. The nonce goes through a Feistel network whose rounds depend on the key and on all that
/// stays. A nonce that is only combined with a keyed hash by XOR would be too weak. (Counter-example:
/// a service is handed an id that has the generation, initiator and sequence of a victim's
/// transaction and a nonce of the attacker's own. It prepares that branch. The attacker lists both
/// names; the XOR of the two masked nonces and its own nonce is the victim's nonce.)
#[derive(Clone)]
pub(crate) struct Masking {
    key: hmac::Key,
}

impl Masking {
    pub(crate) fn new(key: &[u8; KEY_BYTES]) -> Self {
        let key = hmac::Key::new(hmac::HMAC_SHA256, key);
        Masking { key }
    }

    /// The bytes that stand for `txn` in names.
    pub(crate) fn mask(&self, txn: TxnId) -> [u8; TXN_ID_BYTES] {
        let rounds = Rounds::new(&self.key, txn);
        let nonce = (0..ROUNDS).fold(txn.nonce, |nonce, round| {
            let (left, right) = halves(nonce);
            joined(right, left ^ rounds.value(round, right))
        });
        TxnId { nonce, ..txn }.to_be_bytes()
    }

    /// The transaction for which these bytes stand.
    pub(crate) fn unmask(&self, bytes: [u8; TXN_ID_BYTES]) -> TxnId {
        let masked = TxnId::from_be_bytes(bytes);
        let rounds = Rounds::new(&self.key, masked);
        let nonce = (0..ROUNDS).rev().fold(masked.nonce, |nonce, round| {
            let (left, right) = halves(nonce);
            joined(right ^ rounds.value(round, left), left)
        });
        TxnId { nonce, ..masked }
    }

    /// The bytes that stand for `id` in names.
    pub(crate) fn mask_id(&self, id: CommitId) -> [u8; COMMIT_ID_BYTES] {
        let txn = TxnId::from_be_bytes(self.mask(id.txn));
        CommitId { txn, ..id }.to_be_bytes()
    }

    /// The commit id for which these bytes stand.
    pub(crate) fn unmask_id(&self, bytes: [u8; COMMIT_ID_BYTES]) -> CommitId {
        let masked = CommitId::from_be_bytes(bytes);
        let txn = self.unmask(masked.txn.to_be_bytes());
        CommitId { txn, ..masked }
    }

    /// A digest of `parts` that only the owner of the key can compute.
    #[cfg(feature = "mariadb")]
    pub(crate) fn digest(&self, parts: &[&[u8]]) -> [u8; 16] {
        let mut context = hmac::Context::with_key(&self.key);
        parts.iter().for_each(|part| context.update(part));
        let mut half = [0; 16];
        half.copy_from_slice(&context.sign().as_ref()[..16]);
        half
    }
}

/// The highest masked id that an id up to `id` can have: no nonce and no roster is higher. Some
/// masked ids up to there stand for ids above `id`, so compare the ids themselves as well.
pub(crate) fn highest_masked(id: CommitId) -> [u8; COMMIT_ID_BYTES] {
    let txn = TxnId {
        nonce: u64::MAX,
        ..id.txn
    };
    let roster = RosterDigest::MAX;
    CommitId { txn, roster }.to_be_bytes()
}

/// The round functions for one id without its nonce.
struct Rounds([u8; 32]);

impl Rounds {
    fn new(key: &hmac::Key, txn: TxnId) -> Self {
        let bytes = txn.to_be_bytes();
        let tag = hmac::sign(key, &bytes[..TXN_ID_BYTES - 8]);
        let mut rounds = [0; 32];
        rounds.copy_from_slice(tag.as_ref());
        Rounds(rounds)
    }

    fn value(&self, round: u8, half: u32) -> u32 {
        let mut hash = Sha256::new();
        hash.update(self.0);
        hash.update([round]);
        hash.update(half.to_be_bytes());
        let digest = hash.finalize();
        u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

fn halves(nonce: u64) -> (u32, u32) {
    ((nonce >> 32) as u32, nonce as u32)
}

fn joined(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl fmt::Debug for Masking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Masking")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::types::InitiatorId;

    fn txn(sequence: u32, nonce: u64) -> TxnId {
        TxnId {
            generation: 1,
            initiator: InitiatorId::from_u128(0x00c0_ffee_00c0_ffee_00c0_ffee_00c0_ffee),
            sequence,
            nonce,
        }
    }

    fn id(sequence: u32, nonce: u64, roster: RosterDigest) -> CommitId {
        let txn = txn(sequence, nonce);
        CommitId { txn, roster }
    }

    fn masked_nonce(masking: &Masking, txn: TxnId) -> u64 {
        TxnId::from_be_bytes(masking.mask(txn)).nonce
    }

    #[test]
    fn a_masked_id_reads_back_and_shows_all_but_the_nonce() {
        let masking = Masking::new(&[7; KEY_BYTES]);
        for nonce in [0, 1, 9, 0x0123_4567_89ab_cdef, u64::MAX] {
            let txn = txn(0x2a, nonce);
            let masked = masking.mask(txn);
            assert_eq!(masking.unmask(masked), txn);
            assert_eq!(masked[..24], txn.to_be_bytes()[..24]);
            assert_ne!(masked[24..], txn.to_be_bytes()[24..]);
            let id = id(0x2a, nonce, RosterDigest::MAX);
            assert_eq!(masking.unmask_id(masking.mask_id(id)), id);
        }
        // Golden: a change here would orphan what an older program has prepared.
        let golden = masked_nonce(&masking, txn(0x2a, 0x0123_4567_89ab_cdef));
        assert_eq!(golden, GOLDEN);
    }

    /// Computed by another program, with the HMAC and the SHA-256 of Python's library.
    const GOLDEN: u64 = 0x391e_5e7b_2306_9177;

    #[test]
    fn the_key_and_the_rest_of_the_id_change_the_masked_nonce() {
        let masking = Masking::new(&[7; KEY_BYTES]);
        let one = masked_nonce(&masking, txn(1, 9));
        assert_ne!(one, masked_nonce(&masking, txn(2, 9)));
        let other = Masking::new(&[8; KEY_BYTES]);
        assert_ne!(one, masked_nonce(&other, txn(1, 9)));
        assert_ne!(other.unmask(masking.mask(txn(1, 9))), txn(1, 9));
    }

    /// The counter-example of [`Masking`]: by XOR, two names of one sequence would give it away.
    #[test]
    fn two_nonces_of_one_sequence_do_not_tell_each_other() {
        let masking = Masking::new(&[7; KEY_BYTES]);
        let (victim, own) = (0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        let seen = [victim, own].map(|nonce| masked_nonce(&masking, txn(1, nonce)));
        assert_ne!(seen[0] ^ seen[1] ^ own, victim);
    }

    #[test]
    fn the_highest_masked_id_lies_between_a_sequence_and_the_next() {
        let masking = Masking::new(&[7; KEY_BYTES]);
        let highest = highest_masked(id(3, 9, RosterDigest::MIN));
        for nonce in [0, 9, u64::MAX] {
            assert!(masking.mask_id(id(3, nonce, RosterDigest::MAX)) <= highest);
            assert!(highest < masking.mask_id(id(4, nonce, RosterDigest::MIN)));
        }
    }
}
