//! What stands on the wire: frames, the greeting, limits, versions.
//!
//! A connection carries one bidirectional stream, opened by whoever dialed. Each direction is a
//! sequence of frames: a length (four bytes, little-endian, at most [`FRAME_BYTES_MAX`]), then a
//! [`Frame`] in postcard. The dialer's first frame is a [`Hello`]; the replica's first is a
//! [`Welcome`] or a [`Refusal`]. Nothing else is sent before the Welcome has come, because a TLS
//! client whose certificate the server rejects sees its first writes succeed.
//!
//! postcard is positional, so variants and fields are only ever appended, and any other change
//! needs a new [`ALPN`]. Golden bytes in the tests hold the encoding still.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::protocol::message::{Message, State};
use crate::protocol::paxos::ReplicaId;
use crate::protocol::types::{CommitId, ConfigurationDigest, Generations, ParticipantName, Peer};

/// The version of everything on the wire.
pub const VERSION: u16 = 1;

/// What TLS negotiates: another version of the wire is another protocol.
pub const ALPN: &[u8] = b"paxos-commit/1";

/// The longest frame, in bytes, without its length. The longest message is a `BeginCommit` with 32
/// requests of 64 KiB.
pub const FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most transactions on one page of a [`Listing`].
pub const LISTING_MAX: usize = 256;

const LENGTH_BYTES: usize = 4;

/// What stands before a [`Frame::Message`]: which of the variants it is.
const MESSAGE_TAG: u8 = 3;

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frame {
    /// The dialer's first.
    Hello(Hello),
    /// The replica's first: come in.
    Welcome(Welcome),
    /// The replica's first and last: stay out.
    Refused(Refusal),
    /// A message of the protocol.
    Message(Message),
    /// Replica to replica: how far its store is, durably. The receiver remembers it.
    Lsn(u64),
    /// Operator to replica.
    Query(Query),
    /// Replica to operator.
    Answer(Answer),
}

/// Who dials, and what it takes for granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`].
    pub version: u16,
    /// The name of the cluster, the same as in the certificates.
    pub cluster: String,
    /// Who this run of the dialer is. Its certificate must allow it.
    pub peer: Peer,
    /// Which replica it takes the other one for.
    pub to: ReplicaId,
    /// The latest generation that it knows, and the configuration on which that runs.
    pub generation: Option<(u32, ConfigurationDigest)>,
    /// How far its own store is, if it is a replica, and how far it remembers the other's to be.
    pub lsn: Option<Lsn>,
}

/// What a replica answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// [`VERSION`].
    pub version: u16,
    /// The generations as the replica knows them.
    pub generations: Generations,
    /// How far its store is, and how far it remembers the dialer's to be, to a replica.
    pub lsn: Option<Lsn>,
}

/// How far two stores are, each in log sequence numbers of its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lsn {
    /// Drawn by the speaker's process when it started. What is said in one run, but comes out of
    /// order on two connections, is no sign of a loss.
    pub run: u64,
    /// The speaker's, durably.
    pub own: u64,
    /// The highest that the listener ever told the speaker. A listener that is behind it has lost
    /// what it promised.
    pub remembered: u64,
}

/// Why a replica lets a dialer not in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, Error)]
#[non_exhaustive]
pub enum Refusal {
    /// Versions differ.
    #[error(
        "the replica speaks version {expected} of the wire, the dialer {got}: upgrade the older"
    )]
    Version {
        /// The replica's.
        expected: u16,
        /// The dialer's.
        got: u16,
    },
    /// Another cluster.
    #[error(
        "the replica is of cluster {expected:?}, the dialer of {got:?}: mend the dialer's settings"
    )]
    Cluster {
        /// The replica's.
        expected: String,
        /// The dialer's.
        got: String,
    },
    /// Another replica.
    #[error("replica {expected} is at this address, not {got}: mend the dialer's addresses")]
    Replica {
        /// Who is here.
        expected: ReplicaId,
        /// Who was wanted.
        got: ReplicaId,
    },
    /// The certificate is not for the peer that the Hello names.
    #[error("a certificate for {certificate} does not allow to speak as {claimed}")]
    Identity {
        /// The certificate's identity.
        certificate: String,
        /// The Hello's.
        claimed: String,
    },
    /// The two do not mean the same by a generation: they are not of one cluster, whatever its
    /// name.
    #[error(
        "generation {generation} runs on another configuration here: two clusters of one name?"
    )]
    Configuration {
        /// The generation.
        generation: u32,
    },
    /// The dialing replica's store is behind what it once told.
    #[error(
        "replica {replica} once had saved up to {remembered}, now its store ends at {got}: it has \
         lost what it promised; replace it by a new replica, never restart it"
    )]
    Amnesia {
        /// The dialer.
        replica: ReplicaId,
        /// What is remembered here.
        remembered: u64,
        /// What it says now.
        got: u64,
    },
    /// The replica does not serve yet, or no more. Try again, or another one.
    #[error("the replica does not serve now: {0}")]
    NotServing(String),
    /// The first frame was no Hello.
    #[error("expected a Hello as the first frame")]
    NoHello,
    /// Too many connections.
    #[error("the replica has {max} connections, and takes no more")]
    TooMany {
        /// The limit.
        max: usize,
    },
    /// Too many connections with certificates of one name.
    #[error("the replica has {max} connections of this certificate's name, and takes no more")]
    TooManyOfAName {
        /// The limit.
        max: usize,
    },
}

/// What an operator wants to see. Nothing of it changes anything.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// The replica's health.
    Status,
    /// What is undecided, or decided and not yet applied, after this id, oldest first.
    List {
        /// The last id that is not wanted.
        after: Option<CommitId>,
    },
    /// What the replica turned away.
    Refusals,
}

/// The answer to a [`Query`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Query::Status`].
    Status(Box<Report>),
    /// To [`Query::List`].
    List(Listing),
    /// To [`Query::Refusals`]: how many of each kind since the replica started. The kinds are those
    /// of the metric `paxos_commit_refusals_total`.
    Refusals(Vec<(String, u64)>),
}

/// How a replica is. Everything in it is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Who says so.
    pub replica: ReplicaId,
    /// The version of its program.
    pub program: String,
    /// How far its store is.
    pub lsn: u64,
    /// How large it is, in bytes.
    pub disk_bytes: u64,
    /// What it knows of generations.
    pub generations: Generations,
    /// Who leads the control log, as far as it knows.
    pub leader: Option<ReplicaId>,
    /// How many transactions it knows that are undecided.
    pub undecided: u64,
    /// The oldest of them, and for how long it has been that, in milliseconds.
    pub oldest: Option<(CommitId, u64)>,
    /// How many commits wait for a branch.
    pub unapplied: u64,
    /// How many transactions it holds in memory.
    pub remembered: u64,
    /// The participants that are connected, each with the number of its sessions.
    pub participants: Vec<(ParticipantName, u32)>,
    /// The replicas that it is connected to.
    pub connected: Vec<ReplicaId>,
    /// What it has sent since it was started.
    pub sent: Sent,
    /// Forced writes of its store since it was started.
    pub saves: u64,
}

/// What a process has written to its connections since it was started. What QUIC makes of it (packets,
/// acknowledgements, what is sent again) is not in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Messages of the protocol.
    pub messages: u64,
    /// Bytes of all frames.
    pub bytes: u64,
}

/// A page of transactions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listing {
    /// At most [`LISTING_MAX`], oldest first.
    pub transactions: Vec<(CommitId, State)>,
    /// Whether there are more.
    pub more: bool,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum WireError {
    /// Its length is above the limit.
    #[error("a frame has at most {FRAME_BYTES_MAX} bytes, the peer announces {got}")]
    TooLong {
        /// The length.
        got: usize,
    },
    /// It holds something else, or more.
    #[error("the peer sent {bytes} bytes that are no frame of version {VERSION}: {error}")]
    Malformed {
        /// The length of the frame.
        bytes: usize,
        /// What the decoder says.
        error: postcard::Error,
    },
}

/// Appends a frame to `buffer`.
///
/// # Errors
/// When it would be longer than [`FRAME_BYTES_MAX`]; `buffer` is then as before.
pub fn encode(frame: &Frame, buffer: &mut Vec<u8>) -> Result<(), WireError> {
    append(frame, buffer)
}

/// Appends a [`Frame::Message`], without having to move the message into one.
///
/// # Errors
/// As [`encode`].
pub fn encode_message(message: &Message, buffer: &mut Vec<u8>) -> Result<(), WireError> {
    append(&(MESSAGE_TAG, message), buffer)
}

fn append(frame: &impl Serialize, buffer: &mut Vec<u8>) -> Result<(), WireError> {
    let start = buffer.len();
    buffer.extend_from_slice(&[0; LENGTH_BYTES]);
    // It extends a Vec, which cannot fail; and what a frame is made of can all be encoded.
    let taken = std::mem::take(buffer);
    *buffer = match postcard::to_extend(frame, taken) {
        Ok(buffer) => buffer,
        Err(error) => unreachable!("a frame that cannot be encoded: {error}"),
    };
    let length = buffer.len() - start - LENGTH_BYTES;
    if length > FRAME_BYTES_MAX {
        buffer.truncate(start);
        return Err(WireError::TooLong { got: length });
    }
    let bytes = (length as u32).to_le_bytes();
    buffer[start..start + LENGTH_BYTES].copy_from_slice(&bytes);
    Ok(())
}

/// How long the first frame of `bytes` says that it is; None if that is not here.
pub(crate) fn announced(bytes: &[u8]) -> Option<usize> {
    let length = bytes.first_chunk::<LENGTH_BYTES>()?;
    Some(u32::from_le_bytes(*length) as usize)
}

/// Takes the first frame off `bytes`: it and how many bytes it took, or None if it is not whole.
///
/// # Errors
/// When what comes is no frame. Nothing can be read from such a peer any more.
pub fn decode(bytes: &[u8]) -> Result<Option<(Frame, usize)>, WireError> {
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Ok(None);
    };
    let length = u32::from_le_bytes(*length) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(WireError::TooLong { got: length });
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let malformed = |error| WireError::Malformed {
        bytes: length,
        error,
    };
    let (frame, left) = postcard::take_from_bytes(body).map_err(malformed)?;
    if left.is_empty() {
        Ok(Some((frame, LENGTH_BYTES + length)))
    } else {
        Err(malformed(postcard::Error::DeserializeBadEncoding))
    }
}

#[cfg(test)]
mod tests;
