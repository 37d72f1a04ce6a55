//! Memory and disk of every process, over time.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use tokio::time::Instant;

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// What a process has, at one moment since the start.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at_s: f64,
    pub(crate) memory_mb: f64,
    pub(crate) disk_mb: f64,
}

/// The curves of each process.
pub(crate) type Curves = BTreeMap<String, Vec<Sample>>;

/// What was seen until now.
pub(crate) struct Gauges {
    start: Instant,
    looked: Option<Instant>,
    pub(crate) curves: Curves,
}

impl Gauges {
    pub(crate) fn new() -> Gauges {
        Gauges {
            start: Instant::now(),
            looked: None,
            curves: Curves::new(),
        }
    }

    /// Whether it is time to look again.
    pub(crate) fn is_due(&mut self) -> bool {
        let is_due = self.looked.is_none_or(|at| at.elapsed() >= LOOK_EVERY);
        if is_due {
            self.looked = Some(Instant::now());
        }
        is_due
    }

    /// Looks at one process.
    pub(crate) fn look(&mut self, name: &str, process: u32, data: &Path) {
        let sample = Sample {
            at_s: self.start.elapsed().as_secs_f64(),
            memory_mb: resident_mb(process),
            disk_mb: disk_mb(data),
        };
        self.curves.entry(name.to_owned()).or_default().push(sample);
    }
}

/// Resident memory of a process.
fn resident_mb(process: u32) -> f64 {
    let text = std::fs::read_to_string(format!("/proc/{process}/statm")).unwrap_or_default();
    let pages = text.split_whitespace().nth(1);
    let pages: f64 = pages.and_then(|pages| pages.parse().ok()).unwrap_or(0.0);
    pages * 4_096.0 / 1e6
}

/// What lies below a folder, as far as it is allocated: a journal has its length from the start.
fn disk_mb(folder: &Path) -> f64 {
    use std::os::unix::fs::MetadataExt;
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let sizes = entries.map(|entry| match entry.metadata() {
        Ok(of) if of.is_dir() => disk_mb(&entry.path()),
        Ok(of) => of.blocks() as f64 * 512.0 / 1e6,
        // It was deleted meanwhile.
        Err(_) => 0.0,
    });
    sizes.sum()
}
