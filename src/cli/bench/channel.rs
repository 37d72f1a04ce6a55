//! What the load and its participants say to each other beside the product: who they are, the rosters
//! of those that prepare by themselves, and what they have counted. Length and postcard over TCP.

use std::io;

use anyhow::{Context, bail};
use paxos_commit::participant::Plan;
use paxos_commit::protocol::types::Branch;
use paxos_commit::wire::Sent;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// No honest frame is longer.
const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// To a participant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToParticipant {
    /// Work, then prepare without being asked.
    Work { number: u64, plan: Plan },
    /// Answer what you have counted.
    Count,
}

/// From a participant.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromParticipant {
    /// It is connected to the cluster: as whom, and from which UDP port.
    Here { branch: Branch, port: u16 },
    /// What it has counted since it was started.
    Counted { sent: Sent, forced: u64 },
}

/// Adds a frame to what is written next.
pub(super) fn encode(frame: &impl Serialize, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    let bytes = postcard::to_stdvec(frame)?;
    buffer.extend_from_slice(&u32::try_from(bytes.len())?.to_le_bytes());
    buffer.extend_from_slice(&bytes);
    Ok(())
}

pub(super) async fn write(
    stream: &mut (impl AsyncWriteExt + Unpin),
    frame: &impl Serialize,
) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    encode(frame, &mut buffer)?;
    Ok(stream.write_all(&buffer).await?)
}

/// The next frame; None at the end.
pub(super) async fn read<F: DeserializeOwned>(
    stream: &mut (impl AsyncReadExt + Unpin),
) -> anyhow::Result<Option<F>> {
    let mut length = [0; 4];
    match stream.read_exact(&mut length).await {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let length = u32::from_le_bytes(length) as usize;
    if length > FRAME_BYTES_MAX {
        bail!("expected a frame of at most {FRAME_BYTES_MAX} bytes, got {length}");
    }
    let mut bytes = vec![0; length];
    stream.read_exact(&mut bytes).await?;
    let frame = postcard::from_bytes(&bytes).context("what came is no frame")?;
    Ok(Some(frame))
}
