//! The pictures.

use anyhow::Result;

use super::entry::{Entry, shown};
use super::picture::Picture;
use super::{percentiles, stalls, throughput, timeline};

/// All for which there is something to draw: what faults do first, for that is what the reader
/// came for.
pub(super) fn pictures(entries: &[Entry<'_>]) -> Result<Vec<Picture>> {
    let shown = shown(entries);
    let mut pictures = Vec::new();
    pictures.extend(stalls::picture(&shown)?);
    pictures.extend(timeline::pictures(&shown)?);
    pictures.extend(percentiles::pictures(&shown)?);
    pictures.extend(throughput::pictures(&shown)?);
    Ok(pictures)
}
