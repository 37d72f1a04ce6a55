//! What one file holds: what was written, and what of it is durable.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fastrand::Rng;

/// What a power cut keeps or drops as a whole, or tears.
pub(super) const PAGE_BYTES: usize = 4096;

/// What no cut tears.
const SECTOR_BYTES: usize = 512;

type Page = [u8; PAGE_BYTES];

/// Pages that were never written are not there, and read as zeros.
type Pages = BTreeMap<u64, Arc<Page>>;

/// What a cut did to what was not durable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CutReport {
    /// Pages that are there as they were written.
    pub(crate) pages_kept: u64,
    /// Pages of which nothing is there that was written since they were durable.
    pub(crate) pages_dropped: u64,
    /// Pages of which some sectors are new and some are not.
    pub(crate) pages_torn: u64,
    /// In sectors.
    pub(crate) bytes_lost: u64,
    /// Names that were made, moved or removed, and were not after all.
    pub(crate) names_lost: u64,
}

impl CutReport {
    pub(crate) fn add(&mut self, other: CutReport) {
        self.pages_kept += other.pages_kept;
        self.pages_dropped += other.pages_dropped;
        self.pages_torn += other.pages_torn;
        self.bytes_lost += other.bytes_lost;
        self.names_lost += other.names_lost;
    }
}

/// How much of what was not durable a cut keeps. Drawn for each cut: the extremes matter, and never
/// come if each page is drawn alone.
#[derive(Clone, Copy, Debug)]
pub(super) enum Mercy {
    Nothing,
    Everything,
    Draw,
}

impl Mercy {
    pub(super) fn draw(rng: &mut Rng) -> Mercy {
        match rng.u8(..8) {
            0 | 1 => Mercy::Nothing,
            2 => Mercy::Everything,
            _ => Mercy::Draw,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct FileState {
    size: u64,
    pages: Pages,
    durable_size: u64,
    durable: Pages,
    /// Which pages the next sync has to write. After a sync that failed, a page can differ from the
    /// durable one without being here: the systems that we know take it for written.
    dirty: BTreeSet<u64>,
}

impl FileState {
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn allocated(&self) -> u64 {
        self.pages.len() as u64 * PAGE_BYTES as u64
    }

    /// Whether a sync would change anything.
    pub(super) fn is_clean(&self) -> bool {
        self.dirty.is_empty() && self.size == self.durable_size
    }

    /// How many bytes a write would allocate.
    pub(super) fn missing(&self, offset: u64, length: usize) -> u64 {
        let pages = pages_of(offset, length);
        let missing = pages.filter(|page| !self.pages.contains_key(page)).count();
        (missing * PAGE_BYTES) as u64
    }

    pub(super) fn read(&self, offset: u64, length: usize) -> Vec<u8> {
        let end = self.size.min(offset.saturating_add(length as u64));
        let mut bytes = vec![0; end.saturating_sub(offset) as usize];
        for page in pages_of(offset, bytes.len()) {
            let Some(content) = self.pages.get(&page) else {
                continue;
            };
            let (in_page, in_bytes, count) = overlap(page, offset, bytes.len());
            bytes[in_bytes..][..count].copy_from_slice(&content[in_page..][..count]);
        }
        bytes
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for page in pages_of(offset, bytes.len()) {
            let (in_page, in_bytes, count) = overlap(page, offset, bytes.len());
            let new = &bytes[in_bytes..][..count];
            if !self.pages.contains_key(&page) && new.iter().all(|byte| *byte == 0) {
                // What is copied from a file with holes has holes.
                continue;
            }
            let content = self.pages.entry(page);
            let content = Arc::make_mut(content.or_insert_with(|| Arc::new([0; PAGE_BYTES])));
            content[in_page..][..count].copy_from_slice(new);
            self.dirty.insert(page);
        }
        self.size = self.size.max(offset + bytes.len() as u64);
    }

    pub(super) fn set_size(&mut self, size: u64) {
        if size < self.size {
            let kept = size.div_ceil(PAGE_BYTES as u64);
            let gone = self.pages.split_off(&kept);
            self.dirty.extend(gone.into_keys());
            let tail = (size % PAGE_BYTES as u64) as usize;
            let last = size / PAGE_BYTES as u64;
            if tail > 0
                && let Some(content) = self.pages.get_mut(&last)
            {
                Arc::make_mut(content)[tail..].fill(0);
                self.dirty.insert(last);
            }
        }
        self.size = size;
    }

    /// Makes all of it durable.
    pub(super) fn sync(&mut self) {
        for page in std::mem::take(&mut self.dirty) {
            self.sync_page(page);
        }
        self.durable_size = self.size;
    }

    /// Makes those of `pages` durable that need no new size to be found.
    pub(super) fn sync_in_place(&mut self, pages: impl IntoIterator<Item = u64>) {
        for page in pages {
            if (page + 1) * PAGE_BYTES as u64 <= self.durable_size && self.dirty.remove(&page) {
                self.sync_page(page);
            }
        }
    }

    fn sync_page(&mut self, page: u64) {
        match self.pages.get(&page) {
            Some(content) => self.durable.insert(page, Arc::clone(content)),
            None => self.durable.remove(&page),
        };
    }

    /// What Linux does when a sync fails: the pages count as written, though they are not, and the
    /// next sync does not try them again.
    pub(super) fn fail_sync(&mut self) {
        self.dirty.clear();
    }

    /// The power goes: some of what is not durable is there afterwards. With `is_ordered`, a file
    /// does not grow over pages that were not written.
    pub(super) fn cut(&mut self, is_ordered: bool, mercy: Mercy, rng: &mut Rng) -> CutReport {
        let size = self.size_after_cut(mercy, rng);
        let old_pages = self.durable_size.div_ceil(PAGE_BYTES as u64);
        let mut report = CutReport::default();
        for page in std::mem::take(&mut self.dirty) {
            let sectors = match mercy {
                _ if page * PAGE_BYTES as u64 >= size => 0,
                _ if is_ordered && page >= old_pages => u8::MAX,
                Mercy::Nothing => 0,
                Mercy::Everything => u8::MAX,
                Mercy::Draw => match rng.u8(..3) {
                    0 => 0,
                    1 => u8::MAX,
                    _ => rng.u8(..),
                },
            };
            self.settle(page, sectors, &mut report);
        }
        self.durable_size = size;
        self.durable.split_off(&size.div_ceil(PAGE_BYTES as u64));
        let tail = (size % PAGE_BYTES as u64) as usize;
        if tail > 0
            && let Some(content) = self.durable.get_mut(&(size / PAGE_BYTES as u64))
        {
            Arc::make_mut(content)[tail..].fill(0);
        }
        self.pages = self.durable.clone();
        self.size = size;
        report
    }

    fn size_after_cut(&self, mercy: Mercy, rng: &mut Rng) -> u64 {
        match (mercy, rng.u8(..3)) {
            (Mercy::Nothing, _) | (Mercy::Draw, 0) => self.durable_size,
            (Mercy::Everything, _) | (Mercy::Draw, 1) => self.size,
            // A file is cut off in one step, and grows in many.
            (Mercy::Draw, _) if self.size < self.durable_size => self.size,
            (Mercy::Draw, _) => rng.u64(self.durable_size..=self.size),
        }
    }

    /// Makes of a page what a cut leaves: the new content of these sectors, the old one of the
    /// others.
    fn settle(&mut self, page: u64, sectors: u8, report: &mut CutReport) {
        let zeros = [0; PAGE_BYTES];
        let new = self.pages.get(&page).map_or(&zeros, |content| content);
        let mut mixed = *self.durable.get(&page).map_or(&zeros, |content| &**content);
        let (mut kept, mut lost) = (0, 0);
        for (sector, new) in new.chunks_exact(SECTOR_BYTES).enumerate() {
            let old = &mut mixed[sector * SECTOR_BYTES..][..SECTOR_BYTES];
            if old == new {
                continue;
            }
            if sectors & (1 << sector) == 0 {
                lost += 1;
            } else {
                old.copy_from_slice(new);
                kept += 1;
            }
        }
        report.bytes_lost += lost * SECTOR_BYTES as u64;
        match (kept, lost) {
            // Written again as it was.
            (0, 0) => {}
            (_, 0) => report.pages_kept += 1,
            (0, _) => report.pages_dropped += 1,
            (_, _) => report.pages_torn += 1,
        }
        self.durable.insert(page, Arc::new(mixed));
    }
}

/// The pages that a range touches.
fn pages_of(offset: u64, length: usize) -> std::ops::Range<u64> {
    let end = offset.saturating_add(length as u64);
    let page = PAGE_BYTES as u64;
    if length == 0 {
        0..0
    } else {
        offset / page..end.div_ceil(page)
    }
}

/// Where a page and a range have bytes in common: from where in the page, from where in the range,
/// how many.
fn overlap(page: u64, offset: u64, length: usize) -> (usize, usize, usize) {
    let start = page * PAGE_BYTES as u64;
    let from = start.max(offset);
    let to = (start + PAGE_BYTES as u64).min(offset + length as u64);
    (
        (from - start) as usize,
        (from - offset) as usize,
        (to - from) as usize,
    )
}
