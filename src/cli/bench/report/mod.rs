//! The report: a page, and pictures.

mod axis;
mod canvas;
mod charts;
mod entry;
#[cfg(test)]
mod made;
mod page;
mod percentiles;
mod picture;
mod stalls;
mod table;
#[cfg(test)]
mod tests;
mod throughput;
mod timeline;
mod units;

use std::fs;
use std::path::Path;

use anyhow::Context;

use super::results::Results;

/// Writes a self-contained page (report.html) and its pictures as SVG files into a folder, which is
/// made if need be.
pub(super) fn write(folder: &Path, results: &Results) -> anyhow::Result<()> {
    let entries = entry::entries(results);
    let pictures = charts::pictures(&entries).context("cannot draw the pictures")?;
    fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    for picture in &pictures {
        save(folder, &format!("{}.svg", picture.name), &picture.svg)?;
    }
    let page = page::page(&results.environment, &results.floor, &entries, &pictures);
    save(folder, "report.html", &page)
}

fn save(folder: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = folder.join(name);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
