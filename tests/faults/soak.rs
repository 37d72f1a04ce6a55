//! All of it at once, for long: memory and disk of every process are looked at, and must be flat.
//!
//! `FAULT_SECONDS=1800 FAULT_REPORT=DIR cargo test --release --test faults soak -- --nocapture`
//! leaves the curves in `DIR/soak.svg`.

use std::collections::BTreeMap;
use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use plotters::prelude::*;
use tokio::time::Instant;

use crate::harness::adversary::{NETWORK, PROCESSES, summary};
use crate::harness::{Adversary, Arena, Knobs, Options};
use crate::membership::Operator;

/// How long a generation lasts, in a run of this length: many of them, and in a long run long enough
/// for what is slow.
fn tuning(duration: Duration) -> String {
    let period_s = (duration.as_secs() / 20).clamp(2, 30);
    format!("generation_period_s = {period_s}\ngrace_s = 1")
}

/// The pause between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// Nothing is said of a growth before.
const LONG: Duration = Duration::from_secs(600);

/// What a process has, at one moment since the start.
#[derive(Clone, Copy)]
struct Sample {
    at_s: f64,
    memory_mb: f64,
    disk_mb: f64,
}

/// The curves of each process.
type Curves = BTreeMap<String, Vec<Sample>>;

#[tokio::test(flavor = "multi_thread")]
async fn soak() {
    let knobs = Knobs::new(Duration::from_secs(10));
    let options = Options {
        tuning: tuning(knobs.duration),
        rate: 100,
        ..Options::default()
    };
    let mut arena = Arena::start(&knobs, options).await;
    let menu = [PROCESSES, NETWORK].concat();
    let mut adversary = Adversary::new(knobs.rng(), &menu);
    let mut operator = Operator::new(knobs.rng());
    let start = Instant::now();
    let mut looked = start;
    let mut curves = Curves::new();
    while start.elapsed() < knobs.duration {
        adversary.step(&mut arena).await;
        operator.step(&mut arena, &mut adversary).await;
        if looked.elapsed() >= LOOK_EVERY {
            looked = Instant::now();
            look(&mut arena, start.elapsed(), &mut curves);
        }
    }
    operator.finish(&mut arena, &mut adversary).await;
    look(&mut arena, start.elapsed(), &mut curves);
    let datagrams = arena.datagrams();
    let audit = arena.finish().await;
    println!("{}; {datagrams:?}", summary(adversary.done(), &audit));
    let folder = env::var_os("FAULT_REPORT").map_or_else(env::temp_dir, PathBuf::from);
    let path = folder.join("soak.svg");
    draw(&path, &curves).unwrap();
    println!("memory and disk: {}", path.display());
    if knobs.duration >= LONG {
        flat(&curves);
    }
}

fn look(arena: &mut Arena, at: Duration, curves: &mut Curves) {
    for name in arena.names("") {
        let Some(id) = arena.process(&name).id() else {
            continue;
        };
        let sample = Sample {
            at_s: at.as_secs_f64(),
            memory_mb: resident_mb(id),
            disk_mb: disk_mb(&arena.data(&name)),
        };
        curves.entry(name).or_default().push(sample);
    }
}

/// What was there in the last third is not much more than what was there in the one before.
fn flat(curves: &Curves) {
    let replicas = curves
        .iter()
        .filter(|(name, _)| name.starts_with("replica"));
    let all: Vec<Sample> = replicas.flat_map(|(_, curve)| curve.clone()).collect();
    let end = all.iter().map(|sample| sample.at_s).fold(0.0, f64::max);
    let most = |from: f64, to: f64, of: fn(&Sample) -> f64| {
        let within = all
            .iter()
            .filter(|sample| sample.at_s >= from && sample.at_s < to);
        within.map(of).fold(0.0, f64::max)
    };
    for (what, of) in [
        (
            "memory",
            (|sample: &Sample| sample.memory_mb) as fn(&Sample) -> f64,
        ),
        ("disk", |sample| sample.disk_mb),
    ] {
        let before = most(end / 3.0, end * 2.0 / 3.0, of);
        let after = most(end * 2.0 / 3.0, f64::MAX, of);
        println!(
            "{what} of a replica, at most: {before:.0} MB in the second third, then {after:.0} MB"
        );
        assert!(after < before * 1.5 + 20.0, "{what} grows");
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

/// Memory above, disk below, a line for each process.
fn draw(path: &Path, curves: &Curves) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (1_200, 900)).into_drawing_area();
    area.fill(&WHITE)?;
    let (above, below) = area.split_vertically(450);
    let panels = [
        (
            above,
            "Resident memory, MB",
            (|sample: &Sample| sample.memory_mb) as fn(&Sample) -> f64,
        ),
        (below, "Data directory, MB", |sample| sample.disk_mb),
    ];
    let samples = || curves.values().flatten();
    let end = samples().map(|sample| sample.at_s).fold(1.0, f64::max);
    for (panel, caption, of) in panels {
        let high = samples().map(of).fold(1.0, f64::max) * 1.1;
        let mut chart = ChartBuilder::on(&panel)
            .caption(caption, ("sans-serif", 20))
            .margin(10)
            .x_label_area_size(40)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..high)?;
        chart
            .configure_mesh()
            .x_desc("seconds since the start")
            .light_line_style(WHITE)
            .draw()?;
        for (index, (name, curve)) in curves.iter().enumerate() {
            let color = match name.split_once('-') {
                Some(("replica", _)) => BLUE.mix(0.8),
                Some(("ledger", _)) => RED.mix(0.8),
                _ => GREEN.mix(0.8),
            };
            let points = curve.iter().map(|sample| (sample.at_s, of(sample)));
            let series = LineSeries::new(points, color.stroke_width(1 + index as u32 % 2));
            chart.draw_series(series)?;
        }
        let legend = "blue: replicas, red: ledgers, green: initiators";
        let at = (end * 0.02, high * 0.95);
        chart.draw_series([Text::new(legend, at, ("sans-serif", 15))])?;
    }
    area.present()?;
    Ok(())
}
